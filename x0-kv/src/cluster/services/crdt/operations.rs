//! The CRDT operations service of a member: requests of clients to its keyspace.

use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use x0_identity::NodeId;
use x0_mesh::{Lane, Mux};

use crate::cluster::channel::ChannelSpec;
use crate::cluster::outbox::Outbox;
use crate::cluster::outgoing::Outgoing;
use crate::cluster::readers::{Length, ReaderThreads, Readers};
use crate::cluster::service::{Bus, RECEIVED_MAX, Service};
use crate::cluster::services::Part;
use crate::cluster::{NodeError, StartError};
use crate::crdt::wire::{self, Failure, Message};
use crate::crdt::{Crdt, CrdtOutcome, Read, ReplyTo, Request};
use crate::request::codec::DecodeError;
use crate::request::error::OperationError;
use crate::telemetry::{OperationKind, OperationTelemetry};
use crate::trace::{Trace, Tracing};

/// Requests and answers: one lane, in order.
const LANE: Lane = Lane::Ordered(0);

pub(crate) const CHANNEL: ChannelSpec = ChannelSpec {
    name: "x0.kv.crdt.operations",
    lane: LANE,
    message_len_min: crate::coordinator::MESSAGE_LEN_MAX,
    waiting_len_max: 8 << 20,
};

/// Opens the channel with the versions up to this one.
pub(super) fn open(mux: &Mux, version_max: u16) -> Result<Outbox, StartError> {
    let (first, last) = wire::VERSIONS.into_inner();
    CHANNEL.open_versions(mux, first..=last.min(version_max).max(first))
}

/// The CRDT operations service of a member; see the [module](self).
pub(crate) struct CrdtOperations {
    outbox: Outbox,
    /// `None` on a member without such a keyspace, which says so.
    crdt: Option<Crdt>,
    readers: ReaderThreads,
    /// Answers of threads.
    answers: Outgoing,
    times: OperationTelemetry,
    node: NodeId,
    tracing: Tracing,
}

fn encode(number: u64, result: Result<CrdtOutcome, OperationError>) -> Bytes {
    let result = result.map_err(|error| Failure::of(&error));
    wire::encode(&Message::Answer { number, result })
}

/// Registers the service.
pub(super) fn start(part: &mut Part<'_>, crdt: Option<Crdt>) -> Result<(), StartError> {
    let (readers, answers) = (part.readers.clone(), Outgoing::new(part.alarm.clone()));
    let outbox = open(part.mux, part.version_max)?;
    let (times, node, tracing) = (OperationTelemetry::new(), part.id, part.tracing.clone());
    part.event_loop.add(CrdtOperations { outbox, crdt, readers, answers, times, node, tracing });
    Ok(())
}

impl CrdtOperations {
    /// Carries a request out. Unless it is refused, the answer comes through the inbox.
    fn message(&self, from: NodeId, payload: &Bytes) -> Result<Option<Bytes>, DecodeError> {
        let Message::Request { number, trace, request } = wire::decode(payload)? else { return Ok(None) };
        let Some(crdt) = &self.crdt else {
            let message = Message::Answer { number, result: Err(Failure::Unsupported) };
            return Ok(Some(wire::encode(&message)));
        };
        let answers = self.answers.inbox();
        let trace = Trace::crdt_served(&self.tracing, trace, (self.node, from), &request);
        match request {
            Request::Read(read) => {
                // The thread of the keyspace holds its lock while it joins the state of another member, which
                // can take long.
                let crdt = crdt.clone();
                let length = if matches!(read, Read::Range(_)) { Length::Long } else { Length::Short };
                let timer = self.times.submitted(OperationKind::CrdtRead);
                let job = Box::new(move || {
                    let result = crdt.read(&read);
                    timer.end(result.as_ref().err());
                    trace.end(result.as_ref().err());
                    answers.put((from, encode(number, result)));
                });
                let refused = self.readers.read(length, job).is_err();
                Ok(refused.then(|| encode(number, Err(OperationError::Overloaded))))
            }
            Request::Write(write) => {
                let timer = self.times.submitted(OperationKind::CrdtWrite);
                let context = trace.context();
                let answer = move |result: Result<CrdtOutcome, OperationError>| {
                    timer.end(result.as_ref().err());
                    trace.end(result.as_ref().err());
                    answers.put((from, encode(number, result)));
                };
                crdt.write(write, context, ReplyTo::Other(Box::new(answer)));
                Ok(None)
            }
        }
    }
}

impl Service for CrdtOperations {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        _now: Duration,
        is_raised: bool,
        bus: &mut Bus,
    ) -> Result<bool, NodeError> {
        let mut is_busy = false;
        while self.outbox.poll_event(cx).is_ready() {
            is_busy = true;
        }
        for _ in 0..RECEIVED_MAX {
            let Poll::Ready(received) = self.outbox.poll_recv(cx) else { break };
            is_busy = true;
            let (received, payload) = received?;
            match self.message(received.from, &payload) {
                // A client whose answer is lost gives up after a while.
                Ok(Some(answer)) => drop(self.outbox.send(cx, received.from, LANE, answer)),
                Ok(None) => {}
                Err(_) => bus.peers.decode_error(received.from),
            }
        }
        is_busy |= is_raised && self.answers.send(cx, &mut self.outbox, LANE);
        self.outbox.flush(cx);
        Ok(is_busy)
    }

    fn close(&mut self, error: &OperationError) {
        self.answers.close(error);
    }
}
