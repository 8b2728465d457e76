//! Packets that wait for a QUIC endpoint.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use quinn::udp::{EcnCodepoint, RecvMeta};
use x0_identity::NodeId;

use super::address::node_at;
use crate::datagram::{Batch, Ecn};

/// As quinn knows it.
fn codepoint(ecn: Ecn) -> Option<EcnCodepoint> {
    match ecn {
        Ecn::NotCapable => None,
        Ecn::Ect1 => Some(EcnCodepoint::Ect1),
        Ecn::Ect0 => Some(EcnCodepoint::Ect0),
        Ecn::Congested => Some(EcnCodepoint::Ce),
    }
}

/// A bounded queue with one reader. A packet without room is lost, as in a socket's buffer.
#[derive(Debug)]
pub(super) struct Packets {
    size_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    batches: VecDeque<Waiting>,
    /// The size of all of them.
    size: usize,
    waker: Option<Waker>,
    is_closed: bool,
    /// Batches that were read, at most [`READ_MAX`].
    read: Vec<Batch>,
}

#[derive(Debug)]
struct Waiting {
    from: SocketAddr,
    ecn: Ecn,
    packets: Batch,
    /// How many of the bytes were taken.
    taken: usize,
}

/// The bytes that a batch occupies besides its space.
const BATCH_SIZE: usize = 128;

/// A batch that is to wait, and one whose space is free. A batch that fills little of its space waits in a
/// copy: many short ones would else occupy many times their bytes.
pub(super) fn compact(batch: Batch) -> (Batch, Option<Batch>) {
    if batch.space_len() > 4 * (batch.bytes().len() + BATCH_SIZE) {
        (batch.clone(), Some(batch))
    } else {
        (batch, None)
    }
}

/// Batches that were read, and whose space is kept for the next ones.
const READ_MAX: usize = 8;

impl Waiting {
    fn rest(&self) -> &[u8] {
        &self.packets.bytes()[self.taken..]
    }
}

impl State {
    fn push(&mut self, from: SocketAddr, ecn: Ecn, packets: Batch) {
        self.size += packets.space_len() + BATCH_SIZE;
        self.batches.push_back(Waiting { from, ecn, packets, taken: 0 });
    }

    fn pop(&mut self) -> Option<Waiting> {
        let first = self.batches.pop_front()?;
        self.size -= first.packets.space_len() + BATCH_SIZE;
        Some(first)
    }

    /// Counts bytes of the first batch as taken.
    fn take(&mut self, len: usize) {
        let Some(first) = self.batches.front_mut() else { return };
        first.taken += len;
        if first.rest().is_empty() {
            let read = self.pop().filter(|_| self.read.len() < READ_MAX);
            self.read.extend(read.map(|read| read.packets));
        }
    }
}

impl Packets {
    /// A queue that takes packets while it occupies less than `size_max` bytes.
    pub(super) fn new(size_max: usize) -> Packets {
        Packets { size_max, state: Mutex::default() }
    }

    fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        // The state is consistent between any two statements, so a panic elsewhere does not spoil it.
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds packets. Returns a batch that is not needed any more, if there is one: one that was read, or
    /// this one, for lack of room or because a copy of it waits.
    pub(super) fn push(&self, from: SocketAddr, ecn: Ecn, packets: Batch) -> Option<Batch> {
        let (waker, handled) = self.change(|state| {
            if state.size >= self.size_max {
                return (None, Some(packets));
            }
            // The first one is read soon.
            let (packets, spare) = if state.batches.is_empty() { (packets, None) } else { compact(packets) };
            state.push(from, ecn, packets);
            (state.waker.take(), spare.or_else(|| state.read.pop()))
        });
        if let Some(waker) = waker {
            waker.wake();
        }
        handled
    }

    /// The next packet and the node that its address stands for.
    pub(super) fn poll_pop(&self, cx: &mut Context<'_>) -> Poll<(NodeId, Vec<u8>)> {
        self.change(|state| {
            while let Some(first) = state.batches.front() {
                let rest = first.rest();
                let packet = rest[..rest.len().min(first.packets.item_len())].to_vec();
                let node = node_at(first.from);
                state.take(packet.len());
                if let Some(node) = node {
                    return Poll::Ready((node, packet));
                }
            }
            state.waker = Some(cx.waker().clone());
            Poll::Pending
        })
    }

    /// All packets to one address that are next to each other.
    pub(super) fn pop(&self) -> Option<(SocketAddr, Batch)> {
        self.change(|state| state.pop().map(|first| (first.from, first.packets)))
    }

    /// Each further read is an error.
    pub(super) fn close(&self) {
        let waker = self.change(|state| {
            state.is_closed = true;
            state.waker.take()
        });
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Fills buffers as [`quinn::AsyncUdpSocket::poll_recv`] does.
    pub(super) fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.change(|state| {
            let mut count = 0;
            for (buffer, meta) in buffers.iter_mut().zip(meta) {
                let Some(first) = state.batches.front() else { break };
                let (addr, ecn, stride) = (first.from, codepoint(first.ecn), first.packets.item_len());
                let rest = first.rest();
                // As many whole packets as the buffer holds. quinn's buffers hold the longest packet that it
                // accepts; the rest of a longer one is cut off, as by a socket.
                let whole = buffer.len() - buffer.len() % stride.max(1);
                let taken = rest.len().min(whole.max(stride));
                let len = taken.min(buffer.len());
                buffer[..len].copy_from_slice(&rest[..len]);
                *meta = RecvMeta { addr, len, stride: stride.min(len), ecn, dst_ip: None };
                state.take(taken);
                count += 1;
            }
            if count > 0 {
                return Poll::Ready(Ok(count));
            }
            if state.is_closed {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::NotConnected, "the mesh has ended")));
            }
            state.waker = Some(cx.waker().clone());
            Poll::Pending
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Lengths, strides and marks of what a read gives.
    fn read(packets: &Packets, buffer_len: usize) -> Vec<(usize, usize, Option<EcnCodepoint>)> {
        let mut space = [vec![0; buffer_len], vec![0; buffer_len]];
        let mut buffers = space.each_mut().map(|space| IoSliceMut::new(space));
        let mut meta = [RecvMeta::default(); 2];
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(count) = packets.poll_recv(&mut cx, &mut buffers, &mut meta) else {
            return Vec::new();
        };
        meta[..count.unwrap()].iter().map(|meta| (meta.len, meta.stride, meta.ecn)).collect()
    }

    #[test]
    fn a_batch_is_read_in_whole_packets() {
        let from = super::super::address::address(NodeId::new(7).unwrap());
        let packets = Packets::new(1000);
        let mut batch = Batch::from(&[7; 100][..]);
        batch.end().extend_from_slice(&[8; 430]);
        packets.push(from, Ecn::Congested, batch);
        packets.push(from, Ecn::NotCapable, Batch::from(&[][..]));
        let ce = Some(EcnCodepoint::Ce);
        assert_eq!(read(&packets, 250), [(200, 100, ce), (200, 100, ce)]);
        assert_eq!(read(&packets, 250), [(130, 100, ce), (0, 0, None)]);
        assert_eq!(read(&packets, 250), []);
        // A packet that is longer than a buffer is cut off, as by a socket.
        packets.push(from, Ecn::Ect0, Batch::from(&[7; 300][..]));
        assert_eq!(read(&packets, 250), [(250, 250, Some(EcnCodepoint::Ect0))]);
        // The queue is bounded, with datagrams that have no bytes too.
        for _ in 0..100 {
            packets.push(from, Ecn::Ect1, Batch::from(&[][..]));
        }
        let mut count = 0;
        while !read(&packets, 10).is_empty() {
            count += 1;
        }
        assert_eq!(count, 4);
        // One by one.
        packets.push(from, Ecn::Ect0, Batch::from(&b"one"[..]));
        let popped = packets.poll_pop(&mut Context::from_waker(Waker::noop()));
        assert_eq!(popped, Poll::Ready((NodeId::new(7).unwrap(), b"one".to_vec())));
    }

    /// A batch of this length in the space of a long one.
    fn in_long_space(len: usize) -> Batch {
        let mut batch = Batch::from(&vec![7; len][..]);
        batch.end().reserve_exact(64_000 - len);
        batch
    }

    #[test]
    fn short_batches_do_not_fill_the_queue_with_their_spaces() {
        let from = super::super::address::address(NodeId::new(7).unwrap());
        let packets = Packets::new(1 << 20);
        for number in 0..100 {
            let handled = packets.push(from, Ecn::Ect0, in_long_space(100));
            let space_len = handled.map(|batch| batch.space_len());
            // The first one is read soon, and is not copied.
            assert_eq!(space_len, (number > 0).then_some(64_000));
        }
        // A batch that fills a good part of its space is not copied either.
        assert_eq!(packets.push(from, Ecn::Ect0, in_long_space(20_000)), None);
        let lens = || read(&packets, 64_000).into_iter().map(|(len, ..)| len);
        let mut found: Vec<usize> = Vec::new();
        loop {
            let before = found.len();
            found.extend(lens());
            if found.len() == before {
                break;
            }
        }
        assert_eq!(found, [&[100; 100][..], &[20_000]].concat());
    }
}
