//! The mesh as a socket of quinn.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use quinn::udp::{EcnCodepoint, RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use x0_identity::NodeId;

use super::address::{address, node_at};
use super::node::Shared;
use super::packets::Packets;
use super::senders::Sender;
use crate::datagram::Ecn;

/// Packets of one length that are handed over at once: as many as Linux takes and gives.
const SEGMENTS_MAX: usize = 64;

/// The packets of a full batch of quinn.
const FULL: usize = 10;

/// Addresses stand for nodes. It works as long as the mesh does.
#[derive(Debug)]
pub(super) struct MeshSocket {
    pub(super) local: NodeId,
    pub(super) shared: Weak<Shared>,
    pub(super) datagrams: Arc<Packets>,
}

/// As quinn knows it.
fn mark(ecn: Option<EcnCodepoint>) -> Ecn {
    match ecn {
        None => Ecn::NotCapable,
        Some(EcnCodepoint::Ect1) => Ecn::Ect1,
        Some(EcnCodepoint::Ect0) => Ecn::Ect0,
        Some(EcnCodepoint::Ce) => Ecn::Congested,
    }
}

impl MeshSocket {
    /// A packet of this thread leaves over another socket.
    pub(super) fn passes(&self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.lock().passes();
        }
    }
}

impl AsyncUdpSocket for MeshSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller { shared: Weak::clone(&self.shared), sender: Arc::default() })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        // A packet that cannot be sent is lost, as on any path. With an error quinn abandons the connection:
        // nobody is notified, and its endpoint never becomes idle. The end of the mesh is an error of
        // `poll_recv`, which ends the endpoint and all of its connections.
        let Some(shared) = self.shared.upgrade() else { return Ok(()) };
        let Some(to) = node_at(transmit.destination) else {
            self.passes();
            return Ok(());
        };
        let now = shared.now();
        let mut core = shared.lock();
        if !core.takes(to) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let packet_len = transmit.segment_size.unwrap_or(transmit.contents.len());
        core.send(now, to, mark(transmit.ecn), transmit.contents, packet_len);
        // After a full batch quinn mostly has another one, and both leave in one system call.
        if transmit.contents.len() >= FULL * packet_len {
            core.flush_soon(now, transmit.contents.len());
        } else {
            core.flush(now);
        }
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
        SEGMENTS_MAX
    }

    fn max_receive_segments(&self) -> usize {
        SEGMENTS_MAX
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

#[derive(Debug)]
struct Poller {
    shared: Weak<Shared>,
    sender: Arc<Sender>,
}

impl UdpPoller for Poller {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(shared) = self.shared.upgrade() else { return Poll::Ready(Ok(())) };
        let mut core = shared.lock();
        core.poll_writable(&self.sender, cx.waker()).map(Ok)
    }
}
