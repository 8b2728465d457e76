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

/// A socket whose answer that it is writable admits the sender on this thread.
pub(super) trait Admits: AsyncUdpSocket {
    /// A packet of this thread leaves over another socket.
    fn passes(&self);
}

impl Admits for MeshSocket {
    fn passes(&self) {
        MeshSocket::passes(self);
    }
}

/// An address of a node goes to the first socket, any other to the second.
#[derive(Debug)]
pub(super) struct Beside<M = MeshSocket> {
    mesh: Arc<M>,
    direct: Arc<dyn AsyncUdpSocket>,
    /// Whether the direct socket is of IPv4.
    is_ipv4: bool,
    /// Which of them is read first: they take turns.
    direct_first: AtomicBool,
}

impl<M: Admits> Beside<M> {
    pub(super) fn new(mesh: Arc<M>, direct: Arc<dyn AsyncUdpSocket>) -> Beside<M> {
        let is_ipv4 = direct.local_addr().is_ok_and(|address| address.is_ipv4());
        Beside { mesh, direct, is_ipv4, direct_first: AtomicBool::new(false) }
    }
}

impl<M: Admits + 'static> AsyncUdpSocket for Beside<M> {
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
#[allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;
    use std::task::Waker;

    use x0_identity::NodeId;

    use super::super::address::address;
    use super::*;

    /// The calls of both sockets, in order.
    type Calls = Arc<Mutex<Vec<String>>>;

    /// A socket that records its calls.
    #[derive(Debug)]
    struct Scripted {
        name: &'static str,
        local: SocketAddr,
        has_room: AtomicBool,
        incoming: Mutex<VecDeque<SocketAddr>>,
        calls: Calls,
    }

    impl Scripted {
        fn new(name: &'static str, local: &str, calls: &Calls) -> Arc<Scripted> {
            let (has_room, incoming) = (AtomicBool::new(true), Mutex::default());
            let local = local.parse().unwrap();
            Arc::new(Scripted { name, local, has_room, incoming, calls: Arc::clone(calls) })
        }

        fn record(&self, what: impl std::fmt::Display) {
            self.calls.lock().unwrap().push(format!("{} {what}", self.name));
        }
    }

    impl AsyncUdpSocket for Scripted {
        fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
            Box::pin(ScriptedPoller(self))
        }

        fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
            assert_eq!((transmit.contents, transmit.segment_size), (&b"packet"[..], Some(3)));
            assert!(self.name == "mesh" || transmit.src_ip.is_none());
            self.record(format!("to {}", transmit.destination));
            Ok(())
        }

        fn poll_recv(
            &self,
            _: &mut Context<'_>,
            _: &mut [IoSliceMut<'_>],
            meta: &mut [RecvMeta],
        ) -> Poll<io::Result<usize>> {
            let Some(addr) = self.incoming.lock().unwrap().pop_front() else { return Poll::Pending };
            meta[0] = RecvMeta { addr, ..RecvMeta::default() };
            Poll::Ready(Ok(1))
        }

        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok(self.local)
        }
    }

    impl Admits for Scripted {
        fn passes(&self) {
            self.record("passed");
        }
    }

    #[derive(Debug)]
    struct ScriptedPoller(Arc<Scripted>);

    impl UdpPoller for ScriptedPoller {
        fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.0.record("asked");
            if self.0.has_room.load(Ordering::Relaxed) { Poll::Ready(Ok(())) } else { Poll::Pending }
        }
    }

    /// Both sockets, the socket that is made of them, and their calls.
    struct Sockets {
        mesh: Arc<Scripted>,
        direct: Arc<Scripted>,
        beside: Arc<Beside<Scripted>>,
        calls: Calls,
    }

    impl Sockets {
        fn new(local: &str) -> Sockets {
            let calls = Calls::default();
            let (mesh, direct) =
                (Scripted::new("mesh", "[::]:1", &calls), Scripted::new("direct", local, &calls));
            let other = Arc::clone(&direct) as Arc<dyn AsyncUdpSocket>;
            let beside = Arc::new(Beside::new(Arc::clone(&mesh), other));
            Sockets { mesh, direct, beside, calls }
        }

        /// The calls since the last time.
        fn calls(&self) -> Vec<String> {
            std::mem::take(&mut *self.calls.lock().unwrap())
        }
    }

    /// An admission that is followed by a wait would be taken for that of the next packet of this thread.
    #[test]
    fn the_mesh_admits_no_sender_that_waits_for_the_direct_socket() {
        let sockets = Sockets::new("127.0.0.1:1");
        let mut poller = Arc::clone(&sockets.beside).create_io_poller();
        let mut is_writable = || {
            let is_writable = poller.as_mut().poll_writable(&mut Context::from_waker(Waker::noop()));
            (is_writable.is_ready(), sockets.calls())
        };
        assert_eq!(is_writable(), (true, vec!["direct asked".to_owned(), "mesh asked".to_owned()]));
        sockets.direct.has_room.store(false, Ordering::Relaxed);
        assert_eq!(is_writable(), (false, vec!["direct asked".to_owned()]));
        sockets.direct.has_room.store(true, Ordering::Relaxed);
        sockets.mesh.has_room.store(false, Ordering::Relaxed);
        assert_eq!(is_writable(), (false, vec!["direct asked".to_owned(), "mesh asked".to_owned()]));
    }

    /// A packet beside the mesh uses up the admission of its sender, and one to a node does not.
    #[test]
    fn a_packet_to_a_node_takes_the_mesh_and_any_other_passes_it() {
        let sent = |local, destination: SocketAddr| {
            let sockets = Sockets::new(local);
            let src_ip = Some(IpAddr::from([127, 0, 0, 1]));
            let contents = &b"packet"[..];
            let transmit = Transmit { destination, ecn: None, contents, segment_size: Some(3), src_ip };
            sockets.beside.try_send(&transmit).unwrap();
            sockets.calls()
        };
        let (v4, v6) = ("127.0.0.1:1", "[::1]:1");
        let node = address(NodeId::new(7).unwrap());
        for local in [v4, v6] {
            assert_eq!(sent(local, node), [format!("mesh to {node}")]);
        }
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:5".parse().unwrap();
        assert_eq!(sent(v4, mapped), ["mesh passed", "direct to 192.0.2.1:5"]);
        assert_eq!(sent(v6, mapped), ["mesh passed", "direct to [::ffff:192.0.2.1]:5"]);
        let other: SocketAddr = "[2001:db8::1]:5".parse().unwrap();
        assert_eq!(sent(v6, other), ["mesh passed", "direct to [2001:db8::1]:5"]);
        // Lost: a socket of IPv4 does not reach it.
        assert_eq!(sent(v4, other), ["mesh passed"]);
    }

    #[test]
    fn both_sockets_are_read_in_turn_and_addresses_of_ipv4_are_mapped() {
        let Sockets { mesh, direct, beside, .. } = Sockets::new("127.0.0.1:1");
        let node = address(NodeId::new(7).unwrap());
        mesh.incoming.lock().unwrap().extend([node; 3]);
        direct.incoming.lock().unwrap().extend(["192.0.2.1:5".parse::<SocketAddr>().unwrap(); 5]);
        let read = || {
            let mut space = [0; 1];
            let mut meta = [RecvMeta::default()];
            let mut cx = Context::from_waker(Waker::noop());
            let count = beside.poll_recv(&mut cx, &mut [IoSliceMut::new(&mut space)], &mut meta);
            count.map(|count| meta[..count.unwrap()][0].addr)
        };
        let (near, far) = (Poll::Ready(node), Poll::Ready("[::ffff:192.0.2.1]:5".parse().unwrap()));
        let seen: Vec<_> = std::iter::repeat_with(read).take(9).collect();
        assert_eq!(seen, [near, far, near, far, near, far, far, far, Poll::Pending]);
    }
}
