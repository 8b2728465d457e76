//! Two sockets as one: that of the mesh, and one for all other addresses.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

use super::address::node_at;
use super::socket::MeshSocket;

/// An address of a node goes to the first socket, any other to the second.
#[derive(Debug)]
pub(super) struct Beside {
    mesh: Arc<MeshSocket>,
    direct: Arc<dyn AsyncUdpSocket>,
    /// Whether the direct socket is of IPv4.
    is_ipv4: bool,
    /// Which of them is read first: they take turns.
    direct_first: AtomicBool,
}

impl Beside {
    pub(super) fn new(mesh: Arc<MeshSocket>, direct: Arc<dyn AsyncUdpSocket>) -> Beside {
        let is_ipv4 = direct.local_addr().is_ok_and(|address| address.is_ipv4());
        Beside { mesh, direct, is_ipv4, direct_first: AtomicBool::new(false) }
    }
}

impl AsyncUdpSocket for Beside {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        let mesh = Arc::clone(&self.mesh).create_io_poller();
        // The mesh last: its answer admits the sender on this thread, which has to send next.
        Box::pin(Pollers([Arc::clone(&self.direct).create_io_poller(), mesh]))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if node_at(transmit.destination).is_some() {
            return self.mesh.try_send(transmit);
        }
        self.mesh.passes();
        // quinn writes IPv4 addresses in the form of IPv6, because the address of the mesh is one (RFC 4291
        // §2.5.5.2).
        let destination = match transmit.destination.ip() {
            IpAddr::V6(ip) if self.is_ipv4 => {
                // Lost: see `MeshSocket::try_send`.
                let Some(ip) = ip.to_ipv4_mapped() else { return Ok(()) };
                SocketAddr::from((ip, transmit.destination.port()))
            }
            _ => transmit.destination,
        };
        self.direct.try_send(&Transmit { destination, src_ip: None, ..transmit.clone() })
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let direct_first = self.direct_first.fetch_xor(true, Ordering::Relaxed);
        for is_direct in [direct_first, !direct_first] {
            let received = if is_direct {
                self.direct.poll_recv(cx, buffers, meta)
            } else {
                self.mesh.poll_recv(cx, buffers, meta)
            };
            let Poll::Ready(received) = received else { continue };
            let count = received?;
            if is_direct {
                for meta in meta.iter_mut().take(count) {
                    if let IpAddr::V4(ip) = meta.addr.ip() {
                        meta.addr = SocketAddr::from((ip.to_ipv6_mapped(), meta.addr.port()));
                    }
                }
            }
            return Poll::Ready(Ok(count));
        }
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.mesh.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.mesh.max_transmit_segments().min(self.direct.max_transmit_segments())
    }

    fn max_receive_segments(&self) -> usize {
        self.direct.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.direct.may_fragment()
    }
}

/// Writable when both are: a sender does not say where it sends.
#[derive(Debug)]
struct Pollers([Pin<Box<dyn UdpPoller>>; 2]);

impl UdpPoller for Pollers {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        for poller in &mut self.0 {
            if let pending @ (Poll::Pending | Poll::Ready(Err(_))) = poller.as_mut().poll_writable(cx) {
                return pending;
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;
    use std::task::Waker;

    use x0_identity::NodeId;

    use super::super::packets::Packets;
    use super::*;

    /// A socket that never has room.
    #[derive(Debug)]
    struct Full;

    impl AsyncUdpSocket for Full {
        fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
            Box::pin(Full)
        }

        fn try_send(&self, _: &Transmit<'_>) -> io::Result<()> {
            Err(io::ErrorKind::WouldBlock.into())
        }

        fn poll_recv(
            &self,
            _: &mut Context<'_>,
            _: &mut [IoSliceMut<'_>],
            _: &mut [RecvMeta],
        ) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok(SocketAddr::from(([127, 0, 0, 1], 1)))
        }
    }

    impl UdpPoller for Full {
        fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    /// A mesh that has ended answers with an error: that it was asked can be seen.
    #[test]
    fn the_mesh_admits_no_sender_that_waits_for_the_direct_socket() {
        let local = NodeId::new(1).unwrap();
        let mesh = MeshSocket { local, shared: Weak::new(), datagrams: Arc::new(Packets::new(0)) };
        let beside = Arc::new(Beside::new(Arc::new(mesh), Arc::new(Full)));
        let mut poller = beside.create_io_poller();
        assert!(poller.as_mut().poll_writable(&mut Context::from_waker(Waker::noop())).is_pending());
    }
}
