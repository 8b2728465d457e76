//! The CRDT sync service: datagrams between the keyspace of this member, which has a thread of its own, and
//! those of other members.
//!
//! From version 2 of the channel on, a datagram may have the context of a traced write before it: the byte
//! [`TRACED`], with which no datagram of a session begins, and the context. Other datagrams are those of
//! version 1.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use x0_consensus::{Membership, MemoryStorage, Storage};
use x0_mesh::{Lane, PeerEventKind};

use crate::cluster::channel::ChannelSpec;
use crate::cluster::outbox::Outbox;
use crate::cluster::outgoing::Outgoing;
use crate::cluster::service::{Bus, RECEIVED_MAX, Service};
use crate::cluster::services::{Part, members_of};
use crate::cluster::{NodeError, NodeEvent, StartError};
use crate::crdt::{Crdt, CrdtOptions, CrdtReports};
use crate::request::error::OperationError;
use crate::seed::random_seed;
use crate::trace::Context as TraceContext;

/// Sessions repeat what was lost.
const LANE: Lane = Lane::Datagram;
/// The first byte of a datagram with a context. The version of sessions is in the upper half of theirs.
const TRACED: u8 = 0xf0;
const PREFIX_LEN: usize = 1 + TraceContext::LEN;
/// The versions that this release speaks.
const VERSIONS: RangeInclusive<u16> = 1..=2;

pub(crate) const CHANNEL: ChannelSpec =
    ChannelSpec { name: "x0.kv.crdt.sync", lane: LANE, message_len_min: 128, waiting_len_max: 256 << 10 };

/// The CRDT sync service; see the [module](self).
pub(crate) struct CrdtSync {
    outbox: Outbox,
    crdt: Crdt,
    /// Datagrams of the sessions.
    datagrams: Outgoing,
    /// A failure of the journal was reported.
    is_failed: bool,
    /// What was reported besides.
    reported: CrdtReports,
}

/// Opens the keyspace and registers the service. The journal lies in the folder `crdt` of `folder`, or in
/// memory.
pub(super) fn start(
    part: &mut Part<'_>,
    mut options: CrdtOptions,
    folder: Option<PathBuf>,
) -> Result<Crdt, StartError> {
    let journal: Box<dyn Storage> = match folder {
        Some(folder) => Box::new(crate::crdt::journal_in(&folder, &options, part.id)?),
        None => Box::new(MemoryStorage::new()),
    };
    let versions = *VERSIONS.start()..=part.version_max.clamp(*VERSIONS.start(), *VERSIONS.end());
    let outbox = CHANNEL.open_versions_for_members(part.mux, versions, part.access)?;
    let mut len_max = outbox.message_len_max(LANE);
    if part.tracing.is_on() {
        // Room for the context, which the sessions do not know of.
        len_max -= PREFIX_LEN;
    }
    options.session.datagram_len_max = options.session.datagram_len_max.min(len_max);
    let datagrams = Outgoing::new(part.alarm.clone());
    let sent = datagrams.inbox();
    let send = Box::new(move |to, payload, trace| sent.put((to, prefixed(payload, trace))));
    let (who, space) = ((part.id, random_seed()), part.space.clone());
    let crdt = Crdt::start(options, who, journal, send, space, part.tracing.clone())?;
    let reported = CrdtReports::default();
    part.event_loop.add(CrdtSync { outbox, crdt: crdt.clone(), datagrams, is_failed: false, reported });
    Ok(crdt)
}

/// The events of what has come to the reports.
fn news(before: &CrdtReports, after: &CrdtReports) -> Vec<NodeEvent> {
    let renewed = after.renewed.filter(|_| before.renewed != after.renewed);
    let renewed = renewed.map(|incarnation| NodeEvent::CrdtRenewed { incarnation });
    let mismatching = after.mismatching.difference(&before.mismatching);
    renewed.into_iter().chain(mismatching.map(|node| NodeEvent::CrdtKeyMismatch { node: *node })).collect()
}

/// A datagram with the context before it, if it has one.
fn prefixed(payload: Bytes, trace: Option<TraceContext>) -> Bytes {
    let Some(trace) = trace else { return payload };
    let mut prefixed = BytesMut::with_capacity(PREFIX_LEN + payload.len());
    prefixed.put_u8(TRACED);
    prefixed.put_slice(&trace.to_bytes());
    prefixed.put_slice(&payload);
    prefixed.freeze()
}

/// A datagram without the context before it, and the context. `None` if that is malformed.
fn split(mut payload: Bytes, has_context: bool) -> Option<(Bytes, Option<TraceContext>)> {
    if !has_context || payload.first() != Some(&TRACED) {
        return Some((payload, None));
    }
    let trace = TraceContext::from_bytes(payload.get(1..PREFIX_LEN)?.try_into().ok()?)?;
    payload.advance(PREFIX_LEN);
    Some((payload, Some(trace)))
}

impl Service for CrdtSync {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        _now: Duration,
        is_raised: bool,
        bus: &mut Bus,
    ) -> Result<bool, NodeError> {
        let mut is_busy = false;
        while let Poll::Ready(event) = self.outbox.poll_event(cx) {
            is_busy = true;
            if let PeerEventKind::Up { .. } = event.kind {
                self.crdt.up(event.peer);
            }
        }
        for _ in 0..RECEIVED_MAX {
            let Poll::Ready(received) = self.outbox.poll_recv(cx) else { break };
            is_busy = true;
            let (received, payload) = received?;
            let has_context = self.outbox.version(received.from) >= 2;
            match split(payload, has_context) {
                Some((payload, trace)) => self.crdt.datagram(received.from, payload, trace),
                None => bus.peers.decode_error(received.from),
            }
        }
        if is_raised {
            is_busy |= self.datagrams.send_as(cx, &mut self.outbox, LANE, |outbox, to, payload| {
                match outbox.version(to) {
                    // The peer would not understand the context.
                    ..2 if payload.first() == Some(&TRACED) => payload.slice(PREFIX_LEN..),
                    _ => payload,
                }
            });
            if !self.is_failed
                && let Some(error) = self.crdt.failure()
            {
                self.is_failed = true;
                bus.observed(NodeEvent::CrdtFailed(error));
            }
            // Both make the keyspace send something.
            let reports = self.crdt.reports();
            for event in news(&self.reported, &reports) {
                bus.observed(event);
            }
            self.reported = reports;
        }
        Ok(is_busy)
    }

    fn members_changed(&mut self, membership: &Membership) {
        self.crdt.members(members_of(membership));
    }

    fn close(&mut self, error: &OperationError) {
        self.datagrams.close(error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_renewal_and_each_mismatch_is_an_event_once() {
        let node = |number| x0_identity::NodeId::new(number).unwrap();
        let reports = |renewed, nodes: &[u64]| CrdtReports {
            renewed,
            mismatching: nodes.iter().copied().map(node).collect(),
        };
        assert_eq!(news(&reports(None, &[]), &reports(None, &[])), []);
        assert_eq!(
            news(&reports(None, &[2]), &reports(Some(7), &[2, 3])),
            [NodeEvent::CrdtRenewed { incarnation: 7 }, NodeEvent::CrdtKeyMismatch { node: node(3) }]
        );
        assert_eq!(news(&reports(Some(7), &[2, 3]), &reports(Some(7), &[3])), []);
        assert_eq!(
            news(&reports(Some(7), &[]), &reports(Some(8), &[])),
            [NodeEvent::CrdtRenewed { incarnation: 8 }]
        );
    }

    #[test]
    fn a_context_is_split_off_and_malformed_ones_are_refused() {
        let datagram = Bytes::from_static(b"\x11datagram");
        let trace = TraceContext::new([7; 16], [8; 8], 1);
        assert_eq!(prefixed(datagram.clone(), None), datagram);
        let whole = prefixed(datagram.clone(), trace);
        assert_eq!(split(whole.clone(), true), Some((datagram.clone(), trace)));
        assert_eq!(split(datagram.clone(), true), Some((datagram, None)));
        // A peer of version 1 sends none: the session refuses it.
        assert_eq!(split(whole.clone(), false), Some((whole.clone(), None)));
        for len in 1..PREFIX_LEN {
            assert_eq!(split(whole.slice(..len), true), None, "{len}");
        }
        assert_eq!(split(Bytes::from(vec![TRACED; 1]), true), None);
        let zero = [&[TRACED][..], &[0; TraceContext::LEN]].concat();
        assert_eq!(split(zero.into(), true), None);
    }
}
