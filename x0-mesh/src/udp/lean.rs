//! The UDP socket beneath quinn and links, with as few wake-ups and system calls as the system allows.
//!
//! The socket that quinn brings is registered for reading and writing. Then each datagram that leaves the
//! send buffer wakes the task of the endpoint, although nothing waits for room; and each read of datagrams is
//! followed by a second one that finds none. This socket waits for room only while the buffer is full, and
//! takes a read that returned fewer datagrams than it could as the last one. The latter needs `recvmmsg` and
//! edge-triggered events, as Linux has them.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Makes quinn's socket of a bound one. To be called on a tokio runtime.
///
/// # Errors
/// Those of the system.
pub(super) fn wrap(socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
    socket.set_nonblocking(true)?;
    let state = UdpSocketState::new((&socket).into())?;
    let io = register(socket, Interest::READABLE)?;
    Ok(Arc::new(LeanSocket { io, state, full: Mutex::new(None) }))
}

#[allow(
    deprecated,
    reason = "tokio deprecates it for types whose descriptor changes, which that of a socket of std does not; the replacement is unsafe"
)]
fn register(socket: UdpSocket, interest: Interest) -> io::Result<AsyncFd<UdpSocket>> {
    AsyncFd::with_interest(socket, interest)
}

/// See the [module](self).
#[derive(Debug)]
struct LeanSocket {
    io: AsyncFd<UdpSocket>,
    state: UdpSocketState,
    /// Set while the send buffer is full: the same socket, registered for writing.
    full: Mutex<Option<Arc<AsyncFd<UdpSocket>>>>,
}

impl LeanSocket {
    fn full(&self) -> MutexGuard<'_, Option<Arc<AsyncFd<UdpSocket>>>> {
        // Nothing that can panic runs under the lock.
        self.full.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to wait for room. A registration reports the present state of the socket first, so that room
    /// that there is by now is not overlooked (epoll(7)).
    fn wait_for_room(&self) -> io::Result<()> {
        let socket = self.io.get_ref().try_clone()?;
        *self.full() = Some(Arc::new(register(socket, Interest::WRITABLE)?));
        Ok(())
    }
}

impl AsyncUdpSocket for LeanSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Room { socket: self, waiting: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let full = self.full().clone();
        let Some(full) = full else {
            let sent = self.state.send(self.io.get_ref().into(), transmit);
            if matches!(&sent, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
                self.wait_for_room()?;
            }
            return sent;
        };
        full.try_io(Interest::WRITABLE, |socket| self.state.send(socket.into(), transmit))?;
        *self.full() = None;
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut readable = ready!(self.io.poll_read_ready(cx))?;
            let received = readable.try_io(|io| self.state.recv(io.get_ref().into(), bufs, meta));
            let Ok(received) = received else { continue };
            if matches!(received, Ok(count) if count < bufs.len().min(meta.len())) {
                // The system found no further datagram. One that comes after that is a new edge, which has
                // its own event; if that was delivered meanwhile, tokio does not clear the readiness.
                readable.clear_ready();
            }
            return Poll::Ready(received);
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.get_ref().local_addr()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }
}

type Waiting = Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>;

/// Waits for room in the send buffer, for one connection.
struct Room {
    socket: Arc<LeanSocket>,
    waiting: Option<Waiting>,
}

impl fmt::Debug for Room {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Room").finish_non_exhaustive()
    }
}

impl UdpPoller for Room {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Room { socket, waiting } = &mut *self;
        if waiting.is_none() {
            let Some(full) = socket.full().clone() else { return Poll::Ready(Ok(())) };
            *waiting = Some(Box::pin(async move { full.writable().await.map(drop) }));
        }
        let Some(future) = waiting else { return Poll::Ready(Ok(())) };
        let result = ready!(future.as_mut().poll(cx));
        *waiting = None;
        Poll::Ready(result)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    fn bound() -> (Arc<LeanSocket>, SocketAddr) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let state = UdpSocketState::new((&socket).into()).unwrap();
        let io = register(socket, Interest::READABLE).unwrap();
        let socket = Arc::new(LeanSocket { io, state, full: Mutex::new(None) });
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    fn datagram(to: SocketAddr, contents: &[u8]) -> Transmit<'_> {
        Transmit { destination: to, ecn: None, contents, segment_size: None, src_ip: None }
    }

    /// Receives until `count` datagrams are there.
    async fn receive(socket: &LeanSocket, count: usize) -> Vec<Vec<u8>> {
        let mut received = Vec::new();
        while received.len() < count {
            let mut space = [[0; 2048]; 4];
            let mut meta = [RecvMeta::default(); 4];
            let found = poll_fn(|cx| {
                let mut bufs = space.each_mut().map(|space| IoSliceMut::new(space));
                socket.poll_recv(cx, &mut bufs, &mut meta)
            });
            let found = tokio::time::timeout(Duration::from_secs(60), found).await.unwrap().unwrap();
            for (space, meta) in space.iter().zip(meta).take(found) {
                received.extend(space[..meta.len].chunks(meta.stride).map(<[u8]>::to_vec));
            }
        }
        received
    }

    /// Datagrams that come one by one, in full batches, and while others are read: none is overlooked.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_datagram_wakes_the_receiver() {
        let ((from, _), (to, address)) = (bound(), bound());
        let mut number = 0_u32;
        for batch in (1..40).chain(std::iter::repeat_n(1, 200)) {
            let expected: Vec<_> =
                (number..number + batch).map(|number| number.to_be_bytes().to_vec()).collect();
            number += batch;
            let sender = Arc::clone(&from);
            let sent = expected.clone();
            let sending = tokio::spawn(async move {
                for contents in &sent {
                    sender.try_send(&datagram(address, contents)).unwrap();
                }
            });
            assert_eq!(receive(&to, expected.len()).await, expected);
            sending.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_full_buffer_is_waited_for_and_then_forgotten() {
        let ((from, _), (to, address)) = (bound(), bound());
        let mut rooms = [0, 1].map(|_| Arc::clone(&from).create_io_poller());
        for room in &mut rooms {
            poll_fn(|cx| room.as_mut().poll_writable(cx)).await.unwrap();
        }
        // As after a send that would have blocked: a loopback never fills the buffer for long.
        from.wait_for_room().unwrap();
        let blocked = from.try_send(&datagram(address, b"early")).unwrap_err();
        assert_eq!(blocked.kind(), io::ErrorKind::WouldBlock, "the system has not reported room yet");
        for room in &mut rooms {
            poll_fn(|cx| room.as_mut().poll_writable(cx)).await.unwrap();
        }
        from.try_send(&datagram(address, b"first")).unwrap();
        assert!(from.full().is_none());
        from.try_send(&datagram(address, b"second")).unwrap();
        assert_eq!(receive(&to, 2).await, [b"first".to_vec(), b"second".to_vec()]);
    }
}
