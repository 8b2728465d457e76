//! The reasons why members cannot be reached, for messages on the command line.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::task::{Context, Poll, ready};

use tokio::sync::watch;
use x0_identity::NodeId;
use x0_mesh::{
    DownReason, Lane, PeerEvent, PeerEventKind, Received, RecvError, SendError, Transmit, Transport,
};

use crate::config::Member;

/// The members that are down, each with the reason.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reach {
    down: BTreeMap<NodeId, DownReason>,
    /// Whether any member was ever up, in which case an operation may have been sent.
    has_been_up: bool,
}

impl Reach {
    fn note(&mut self, event: &PeerEvent) {
        match &event.kind {
            PeerEventKind::Up { .. } => {
                self.down.remove(&event.peer);
                self.has_been_up = true;
            }
            PeerEventKind::Down { reason, .. } => {
                self.down.insert(event.peer, reason.clone());
            }
            _ => {}
        }
    }

    /// Whether no member was ever up and every one refused this client or was refused by it.
    pub(crate) fn is_refused_by_all(&self, members: &[Member]) -> bool {
        let is_refused = |member: &Member| {
            matches!(
                self.down.get(&member.node),
                Some(
                    DownReason::Untrusted { .. }
                        | DownReason::WrongIdentity { .. }
                        | DownReason::OwnIdentityExpired
                )
            )
        };
        !self.has_been_up && members.iter().all(is_refused)
    }

    /// Whether any member was ever up.
    pub(crate) fn has_been_up(&self) -> bool {
        self.has_been_up
    }

    /// A clause for each member that is down for a known reason.
    pub(crate) fn describe(&self, members: &[Member]) -> String {
        let mut text = String::new();
        for Member { node, address } in members {
            if let Some(reason) = self.down.get(node) {
                // Writing to a string cannot fail.
                let _ = write!(text, "; {node} at {address}: {reason}");
            }
        }
        text
    }
}

/// A transport that also reports its events to a watcher.
#[derive(Debug)]
pub(crate) struct Watched<T> {
    inner: T,
    reach: watch::Sender<Reach>,
}

impl<T: Transport> Watched<T> {
    pub(crate) fn new(inner: T) -> (Watched<T>, watch::Receiver<Reach>) {
        let (reach, watched) = watch::channel(Reach::default());
        (Watched { inner, reach }, watched)
    }
}

impl<T: Transport> Transport for Watched<T> {
    fn local(&self) -> NodeId {
        self.inner.local()
    }

    fn message_len_max(&self, lane: Lane) -> usize {
        self.inner.message_len_max(lane)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<Result<(), SendError>> {
        self.inner.poll_send(cx, transmit)
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        payload: &mut Vec<u8>,
    ) -> Poll<Result<Received, RecvError>> {
        self.inner.poll_recv(cx, payload)
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<PeerEvent> {
        let event = ready!(self.inner.poll_event(cx));
        self.reach.send_modify(|reach| reach.note(&event));
        Poll::Ready(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(number: u64) -> Member {
        Member {
            node: NodeId::new(number).unwrap(),
            address: std::net::SocketAddr::from(([127, 0, 0, 1], 7401)).into(),
        }
    }

    fn note(reach: &mut Reach, number: u64, kind: PeerEventKind) {
        reach.note(&PeerEvent { peer: NodeId::new(number).unwrap(), kind });
    }

    #[test]
    fn all_members_must_refuse_before_waiting_ends() {
        let members = [member(1), member(2)];
        let untrusted =
            || PeerEventKind::Down { epoch: 1, reason: DownReason::Untrusted { detail: "x".into() } };
        let mut reach = Reach::default();
        assert!(!reach.is_refused_by_all(&members));
        note(&mut reach, 1, untrusted());
        assert!(!reach.is_refused_by_all(&members), "the other member may accept");
        note(&mut reach, 2, PeerEventKind::Down { epoch: 1, reason: DownReason::Unreachable });
        assert!(!reach.is_refused_by_all(&members), "the other member may start");
        let text = reach.describe(&members);
        assert!(text.contains("was not accepted: x") && text.contains("no answer from"), "{text}");
        note(&mut reach, 2, untrusted());
        assert!(reach.is_refused_by_all(&members));
        note(&mut reach, 2, PeerEventKind::Up { epoch: 2 });
        assert!(!reach.is_refused_by_all(&members));
        assert!(!reach.describe(&members).contains("0000000000000002"));
        note(&mut reach, 2, untrusted());
        assert!(!reach.is_refused_by_all(&members), "something may have been sent meanwhile");
    }
}
