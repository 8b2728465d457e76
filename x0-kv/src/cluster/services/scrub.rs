//! The scrub service: drives the engine of the [scrub](crate::scrub) with the state of this node.
//!
//! Ranges are read by the threads for reads, never by the event loop.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use x0_consensus::Membership;
use x0_identity::NodeId;
use x0_mesh::Lane;

use super::super::channel::ChannelSpec;
use super::super::inbox::Inbox;
use super::super::outbox::Outbox;
use super::super::readers::{Length, Read, Readers};
use super::super::service::{Bus, RECEIVED_MAX, Service};
use super::super::{NodeError, NodeEvent};
use super::members_of;
use crate::request::error::OperationError;
use crate::scrub::ScrubStatus;
use crate::scrub::engine::{Input, Installed, Output, Scrubber};
use crate::scrub::message::{self, Message};
use crate::state::storage::Reader;
use crate::state::storage::mark::Marked;
use crate::telemetry::HealthTelemetry;

/// Requests and answers: one lane, in order.
const LANE: Lane = Lane::Ordered(0);

pub(crate) const CHANNEL: ChannelSpec = ChannelSpec {
    name: "x0.kv.scrub",
    lane: LANE,
    message_len_min: crate::coordinator::MESSAGE_LEN_MAX,
    waiting_len_max: 4 << 20,
};

/// How often the leader and the reached members are looked up.
const MEMBERS_EVERY: Duration = Duration::from_millis(200);

/// The result of a thread.
#[derive(Debug)]
pub(crate) enum Done {
    /// An answer for the engine.
    Input(Input),
    /// A view was taken.
    Taken(Marked),
    /// Send this.
    Send(NodeId, Message),
}

/// The scrub service; see the [module](self).
pub(crate) struct Scrub {
    local: NodeId,
    outbox: Outbox,
    engine: Scrubber,
    reader: Reader,
    readers: Box<dyn Readers>,
    done: Inbox<Done>,
    taken: Vec<Done>,
    view: Option<Arc<Marked>>,
    members: BTreeSet<NodeId>,
    members_at: Duration,
    reported: ScrubStatus,
    telemetry: HealthTelemetry,
}

impl Scrub {
    pub(crate) fn new(
        outbox: Outbox,
        engine: Scrubber,
        (local, membership): (NodeId, &Membership),
        (reader, readers): (Reader, Box<dyn Readers>),
        done: Inbox<Done>,
    ) -> Scrub {
        Scrub {
            local,
            outbox,
            engine,
            reader,
            readers,
            done,
            taken: Vec::new(),
            view: None,
            members: members_of(membership),
            members_at: Duration::ZERO,
            reported: ScrubStatus::default(),
            telemetry: HealthTelemetry::new(),
        }
    }

    fn handle(&mut self, now: Duration, bus: &Bus, input: Input) {
        let from = match &input {
            Input::Message { from, .. } => Some(*from),
            _ => None,
        };
        // Only a message can be malformed.
        if let (Err(_), Some(from)) = (self.engine.handle(now, input), from) {
            bus.peers.decode_error(from);
        }
    }

    /// Takes in everything that has arrived.
    fn take_in(
        &mut self,
        cx: &mut Context<'_>,
        now: Duration,
        is_raised: bool,
        bus: &mut Bus,
    ) -> Result<bool, NodeError> {
        let mut is_busy = false;
        // The outbox drops what waits for a peer whose connection has ended.
        while self.outbox.poll_event(cx).is_ready() {
            is_busy = true;
        }
        if now >= self.members_at {
            self.members_at = now + MEMBERS_EVERY;
            let mut members = bus.peers.reached();
            members.retain(|peer| self.members.contains(peer) && *peer != self.local);
            let is_leader = bus.leader == Some(self.local);
            self.handle(now, bus, Input::Members { is_leader, members });
        }
        for _ in 0..RECEIVED_MAX {
            let Poll::Ready(received) = self.outbox.poll_recv(cx) else { break };
            is_busy = true;
            let (received, payload) = received?;
            self.handle(now, bus, Input::Message { from: received.from, payload });
        }
        while let Some(entry) = bus.damaged.pop_front() {
            is_busy = true;
            self.handle(now, bus, Input::Damaged { place: (entry.keyspace, entry.key) });
        }
        if is_raised {
            let mut done = std::mem::take(&mut self.taken);
            self.done.take(&mut done);
            for done in done.drain(..) {
                is_busy = true;
                match done {
                    Done::Input(input) => self.handle(now, bus, input),
                    Done::Taken(marked) => {
                        let index = marked.index;
                        self.view = Some(Arc::new(marked));
                        let keyspaces = self.reader.keyspaces();
                        self.handle(now, bus, Input::Taken { index, keyspaces });
                    }
                    Done::Send(to, message) => {
                        // A member that does not get it asks again.
                        let _ = self.outbox.send(cx, to, LANE, message::encode(&message));
                    }
                }
            }
            self.taken = done;
        }
        if self.engine.poll_timeout().is_some_and(|due| due <= now) {
            self.handle(now, bus, Input::Timeout);
        }
        Ok(is_busy)
    }

    /// Carries out what the engine wants, until it wants nothing more.
    fn carry_out(&mut self, cx: &mut Context<'_>, bus: &mut Bus) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                // A lost message is sent again, or its range is left out of the pass.
                Output::Send { to, payload } => drop(self.outbox.send(cx, to, LANE, payload)),
                Output::Event(event) => bus.observed(NodeEvent::Scrub(event)),
                Output::Release => self.view = None,
                output => self.work(output),
            }
        }
        let status = self.engine.status();
        if status != self.reported {
            self.reported = status;
            bus.peers.scrubbed(status);
            self.telemetry.scrub(&status);
        }
        self.outbox.flush(cx);
    }

    /// Gives work to a thread. If too many reads wait, it is not done, and tried again later.
    fn work(&mut self, output: Output) {
        let (reader, done) = (self.reader.clone(), self.done.clone());
        let taken = done.clone();
        let taken = Box::new(move |marked| taken.put(Done::Taken(marked)));
        let input = |done: &Inbox<Done>, input| done.put(Done::Input(input));
        let short = |read: Read| self.readers.read(Length::Short, read);
        let long = |read: Read| self.readers.read(Length::Long, read);
        let refused = match output {
            Output::Mark { ahead } => {
                self.view = None;
                let marked = move |index| input(&done, Input::Marked { index });
                long(Box::new(move || reader.mark(ahead, marked, taken)))
            }
            Output::MarkAt { index } => {
                self.view = None;
                long(Box::new(move || {
                    if let Err(applied) = reader.mark_at(index, taken) {
                        input(&done, Input::Missed { applied });
                    }
                }))
            }
            Output::Digest { index, range, is_page } => {
                let view = self.view.clone().filter(|view| view.index == index);
                let lost = Input::Digested { index, range: range.clone(), digest: None };
                let answers = done.clone();
                let read = move || {
                    let view = view.filter(|view| !reader.is_expired(view));
                    let digest = view.map(|view| reader.digest(&view, &range, is_page));
                    input(&answers, Input::Digested { index, range, digest });
                };
                let read = long(Box::new(read));
                if read.is_err() {
                    input(&done, lost);
                }
                read
            }
            Output::Fetch { to, number, place } => short(Box::new(move || {
                let (at_least, (keyspace, key)) = (reader.applied(), place);
                done.put(Done::Send(to, Message::Fetch { number, keyspace, key, at_least }));
            })),
            Output::Lookup { to, number, place, at_least } => short(Box::new(move || {
                let (applied, held) = reader.lookup(&place, at_least);
                done.put(Done::Send(to, Message::Fetched { number, applied, held }));
            })),
            Output::Install { place, applied, held } => short(Box::new(move || {
                // An engine that cannot be read at all is reported by the next pass.
                let installed = reader.repair(&place, applied, &held).unwrap_or(Installed::Early);
                input(&done, Input::Installed { place, installed });
            })),
            Output::Block { range } => short(Box::new(move || reader.block(range))),
            Output::Send { .. } | Output::Event(_) | Output::Release => Ok(()),
        };
        // All of it has a time after which it is tried again.
        let _ = refused;
    }
}

impl Service for Scrub {
    fn wants(&self, bus: &Bus) -> bool {
        !bus.damaged.is_empty()
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        now: Duration,
        is_raised: bool,
        bus: &mut Bus,
    ) -> Result<bool, NodeError> {
        let is_busy = self.take_in(cx, now, is_raised, bus)?;
        self.carry_out(cx, bus);
        Ok(is_busy)
    }

    fn poll_timeout(&self) -> Option<Duration> {
        Some(self.engine.poll_timeout().map_or(self.members_at, |due| due.min(self.members_at)))
    }

    fn members_changed(&mut self, membership: &Membership) {
        self.members = members_of(membership);
    }

    fn close(&mut self, error: &OperationError) {
        self.view = None;
        self.done.close(error);
    }
}
