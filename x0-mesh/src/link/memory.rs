//! A network segment within the process.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::{Link, LinkEvent, LinkRecvError, LinkSendError};

/// Frames that wait for one receiver. Further ones are lost, as in the queue of a network card.
const INBOX_FRAMES_MAX: usize = 1024;

/// A network segment within the process: each [`MemoryLink`] on it reaches each other one.
///
/// ```
/// use std::task::{Context, Poll, Waker};
/// use x0_mesh::link::{Link, MemorySegment};
///
/// let segment = MemorySegment::new(1232);
/// let mut one = segment.link("[fe80::1]:1".parse()?);
/// let mut two = segment.link("[fe80::2]:1".parse()?);
/// let mut cx = Context::from_waker(Waker::noop());
///
/// assert!(one.poll_send(&mut cx, two.local(), b"frame").is_ready());
/// let mut frame = Vec::new();
/// let Poll::Ready(Ok(from)) = two.poll_recv(&mut cx, &mut frame) else { panic!("it has arrived") };
/// assert_eq!((from, frame), (one.local(), b"frame".to_vec()));
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct MemorySegment {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    mtu: usize,
    ends: BTreeMap<SocketAddr, End>,
    links: u64,
}

#[derive(Debug, Default)]
struct End {
    /// A link that was replaced by a later one of the same address must not remove it.
    number: u64,
    frames: VecDeque<(SocketAddr, Vec<u8>)>,
    events: VecDeque<LinkEvent>,
    recv_waker: Option<Waker>,
    event_waker: Option<Waker>,
}

impl MemorySegment {
    /// A segment whose frames have at most this many bytes.
    #[must_use]
    pub fn new(mtu: usize) -> MemorySegment {
        MemorySegment { shared: Arc::new(Mutex::new(Shared { mtu, ends: BTreeMap::new(), links: 0 })) }
    }

    /// A link with this address. An earlier link of the address receives nothing from now on.
    #[must_use]
    pub fn link(&self, address: SocketAddr) -> MemoryLink {
        let mut shared = self.lock();
        shared.links += 1;
        let number = shared.links;
        shared.ends.insert(address, End { number, ..End::default() });
        MemoryLink { segment: self.clone(), address, number }
    }

    /// Changes the longest frame of all links.
    pub fn set_mtu(&self, mtu: usize) {
        let mut shared = self.lock();
        shared.mtu = mtu;
        let mut wakers = Vec::new();
        for end in shared.ends.values_mut() {
            // The last value counts.
            end.events.clear();
            end.events.push_back(LinkEvent::MtuChanged { mtu });
            wakers.extend(end.event_waker.take());
        }
        drop(shared);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The state is consistent between any two statements, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A link on a [`MemorySegment`]. It is never busy: a frame to a receiver with 1024 waiting frames is lost.
#[derive(Debug)]
pub struct MemoryLink {
    segment: MemorySegment,
    address: SocketAddr,
    number: u64,
}

impl MemoryLink {
    fn end<'a>(&self, shared: &'a mut Shared) -> Option<&'a mut End> {
        shared.ends.get_mut(&self.address).filter(|end| end.number == self.number)
    }
}

impl Link for MemoryLink {
    fn local(&self) -> SocketAddr {
        self.address
    }

    fn mtu(&self) -> usize {
        self.segment.lock().mtu
    }

    fn poll_send(
        &mut self,
        _: &mut Context<'_>,
        to: SocketAddr,
        frame: &[u8],
    ) -> Poll<Result<(), LinkSendError>> {
        let mut shared = self.segment.lock();
        if frame.len() > shared.mtu {
            return Poll::Ready(Err(LinkSendError::TooLong { len: frame.len(), mtu: shared.mtu }));
        }
        if self.end(&mut shared).is_none() {
            return Poll::Ready(Err(LinkSendError::Closed));
        }
        let mut waker = None;
        if let Some(end) = shared.ends.get_mut(&to).filter(|end| end.frames.len() < INBOX_FRAMES_MAX) {
            end.frames.push_back((self.address, frame.to_vec()));
            waker = end.recv_waker.take();
        }
        drop(shared);
        if let Some(waker) = waker {
            waker.wake();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        frame: &mut Vec<u8>,
    ) -> Poll<Result<SocketAddr, LinkRecvError>> {
        let mut shared = self.segment.lock();
        let Some(end) = self.end(&mut shared) else { return Poll::Ready(Err(LinkRecvError::Closed)) };
        if let Some((from, bytes)) = end.frames.pop_front() {
            *frame = bytes;
            return Poll::Ready(Ok(from));
        }
        end.recv_waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<LinkEvent> {
        let mut shared = self.segment.lock();
        let Some(end) = self.end(&mut shared) else { return Poll::Pending };
        if let Some(event) = end.events.pop_front() {
            return Poll::Ready(event);
        }
        end.event_waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for MemoryLink {
    fn drop(&mut self) {
        let mut shared = self.segment.lock();
        if self.end(&mut shared).is_some() {
            shared.ends.remove(&self.address);
        }
    }
}
