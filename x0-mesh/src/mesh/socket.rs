//! The mesh as a socket of quinn.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use x0_identity::NodeId;

use super::address::{address, node_at};
use super::node::Shared;
use super::packets::Packets;

/// Addresses stand for nodes. It works as long as the mesh does.
#[derive(Debug)]
pub(super) struct MeshSocket {
    pub(super) local: NodeId,
    pub(super) shared: Weak<Shared>,
    pub(super) datagrams: Arc<Packets>,
}

fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the mesh has ended")
}

impl AsyncUdpSocket for MeshSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller(Weak::clone(&self.shared)))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let shared = self.shared.upgrade().ok_or_else(ended)?;
        let to = node_at(transmit.destination).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let now = shared.now();
        let mut core = shared.lock();
        if core.is_congested() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let segment = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for payload in transmit.contents.chunks(segment) {
            core.send(now, to, payload);
        }
        core.flush(now);
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.datagrams.poll_recv(cx, buffers, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(address(self.local))
    }

    fn max_transmit_segments(&self) -> usize {
        // Frames are protected one by one; a run of packets saves locks, not system calls.
        10
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

#[derive(Debug)]
struct Poller(Weak<Shared>);

impl UdpPoller for Poller {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(shared) = self.0.upgrade() else { return Poll::Ready(Err(ended())) };
        let mut core = shared.lock();
        if !core.is_congested() {
            return Poll::Ready(Ok(()));
        }
        core.wait(cx.waker());
        Poll::Pending
    }
}
