//! Packets that wait for a QUIC endpoint.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use quinn::udp::RecvMeta;
use x0_identity::NodeId;

use super::address::node_at;

/// A bounded queue with one reader. A packet without room is lost, as in a socket's buffer.
#[derive(Debug)]
pub(super) struct Packets {
    len_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    packets: VecDeque<(SocketAddr, Vec<u8>)>,
    waker: Option<Waker>,
    is_closed: bool,
}

impl Packets {
    /// A queue of up to `len_max` packets.
    pub(super) fn new(len_max: usize) -> Packets {
        Packets { len_max, state: Mutex::default() }
    }

    fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        // The state is consistent between any two statements, so a panic elsewhere does not spoil it.
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn push(&self, from: SocketAddr, packet: Vec<u8>) {
        let waker = self.change(|state| {
            if state.packets.len() >= self.len_max {
                return None;
            }
            state.packets.push_back((from, packet));
            state.waker.take()
        });
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The next packet and the node that its address stands for.
    pub(super) fn poll_pop(&self, cx: &mut Context<'_>) -> Poll<(NodeId, Vec<u8>)> {
        self.change(|state| {
            while let Some((from, packet)) = state.packets.pop_front() {
                if let Some(node) = node_at(from) {
                    return Poll::Ready((node, packet));
                }
            }
            state.waker = Some(cx.waker().clone());
            Poll::Pending
        })
    }

    pub(super) fn pop(&self) -> Option<(SocketAddr, Vec<u8>)> {
        self.change(|state| state.packets.pop_front())
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
                let Some((addr, packet)) = state.packets.pop_front() else { break };
                // quinn's buffers hold the longest packet that it accepts; the rest of a longer one is cut
                // off, as by a socket.
                let len = packet.len().min(buffer.len());
                buffer[..len].copy_from_slice(&packet[..len]);
                *meta = RecvMeta { addr, len, stride: len, ecn: None, dst_ip: None };
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
