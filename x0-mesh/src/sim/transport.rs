//! The transport of a node in a simulated mesh.

use std::task::{Context, Poll};

use x0_identity::NodeId;

use super::mesh::SimMesh;
use super::network::Input;
use crate::{Lane, PeerEvent, Received, RecvError, SendError, Transmit, Transport};

/// A node's transport in a [`SimMesh`]. Lanes `Ordered(0)` to `Ordered(15)`; messages of up to 16 MiB,
/// datagrams of up to 1,200 bytes. A lane to a peer holds 1 MiB that was not received yet, or one message.
#[derive(Debug)]
pub struct SimTransport {
    mesh: SimMesh,
    local: NodeId,
    life: u64,
}

const ORDERED_LANES: u8 = 16;
const MESSAGE_LEN_MAX: usize = 16 << 20;
const DATAGRAM_LEN_MAX: usize = 1200;
const LANE_LEN_MAX: usize = 1 << 20;
/// A message counts this many bytes besides its own, so that empty ones are bounded too.
const MESSAGE_OVERHEAD_LEN: usize = 32;

impl SimTransport {
    pub(super) fn new(mesh: SimMesh, local: NodeId, life: u64) -> SimTransport {
        SimTransport { mesh, local, life }
    }
}

impl Transport for SimTransport {
    fn local(&self) -> NodeId {
        self.local
    }

    fn message_len_max(&self, lane: Lane) -> usize {
        match lane {
            Lane::Datagram => DATAGRAM_LEN_MAX,
            Lane::Ordered(number) if number >= ORDERED_LANES => 0,
            Lane::Ordered(_) | Lane::Bulk => MESSAGE_LEN_MAX,
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<Result<(), SendError>> {
        self.poll_send_with_trailer(cx, transmit, &[])
    }

    fn poll_send_with_trailer(
        &mut self,
        cx: &mut Context<'_>,
        transmit: &Transmit<'_>,
        trailer: &[u8],
    ) -> Poll<Result<(), SendError>> {
        let Transmit { to, lane, payload } = *transmit;
        let (len, len_max) = (payload.len() + trailer.len(), self.message_len_max(lane));
        if to == self.local {
            return Poll::Ready(Err(SendError::ToSelf));
        }
        if len_max == 0 {
            return Poll::Ready(Err(SendError::NoLane { lane }));
        }
        if len > len_max {
            return Poll::Ready(Err(SendError::TooLong { len, len_max }));
        }
        let mut inner = self.mesh.lock();
        if !inner.ports.contains_key(&to) {
            return Poll::Ready(Err(SendError::UnknownPeer { peer: to }));
        }
        if !inner.network.is_up(self.local, to) {
            return Poll::Ready(Err(SendError::Unreachable { peer: to }));
        }
        let key = (self.local, to, lane);
        let under_way = inner.under_way.get(&key).copied().unwrap_or(0);
        let cost = len + MESSAGE_OVERHEAD_LEN;
        if under_way > 0 && under_way + cost > LANE_LEN_MAX {
            if lane == Lane::Datagram {
                return Poll::Ready(Err(SendError::Congested { peer: to, lane }));
            }
            if let Some(port) = inner.ports.get_mut(&self.local) {
                port.senders.insert((to, lane), cx.waker().clone());
            }
            return Poll::Pending;
        }
        let now = inner.now;
        let sent = inner
            .network
            .handle(now, Input::Send { from: self.local, to, lane, payload: [payload, trailer].concat() });
        // A datagram that is lost is never received, so datagrams do not count against the lane.
        if sent.is_ok() && lane != Lane::Datagram {
            *inner.under_way.entry(key).or_default() += cost;
        }
        Poll::Ready(sent)
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        payload: &mut Vec<u8>,
    ) -> Poll<Result<Received, RecvError>> {
        let mut inner = self.mesh.lock();
        let Some(port) = inner.ports.get_mut(&self.local) else { return Poll::Ready(Err(RecvError::Closed)) };
        let Some((received, message)) = port.pop_message() else {
            port.receiver = Some(cx.waker().clone());
            return Poll::Pending;
        };
        // The message may have been the last of an epoch that is over.
        let watcher = port.watcher.take();
        let cost = message.len() + MESSAGE_OVERHEAD_LEN;
        let sender = inner.release(received.from, self.local, received.lane, cost);
        drop(inner);
        *payload = message;
        for waker in watcher.into_iter().chain(sender) {
            waker.wake();
        }
        Poll::Ready(Ok(received))
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<PeerEvent> {
        let mut inner = self.mesh.lock();
        let Some(port) = inner.ports.get_mut(&self.local) else { return Poll::Pending };
        let Some(event) = port.pop_event() else {
            port.watcher = Some(cx.waker().clone());
            return Poll::Pending;
        };
        // Messages of the epoch may be received now.
        let receiver = port.receiver.take();
        drop(inner);
        if let Some(waker) = receiver {
            waker.wake();
        }
        Poll::Ready(event)
    }
}

impl Drop for SimTransport {
    fn drop(&mut self) {
        let mut inner = self.mesh.lock();
        let now = inner.now;
        // The node may have restarted already.
        if inner.ports.get(&self.local).is_some_and(|port| port.life == self.life) {
            inner.network.crash(now, self.local);
        }
    }
}
