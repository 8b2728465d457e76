//! A port of the driver: a link, and the frames that wait for it.

use std::collections::VecDeque;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::packets::compact;
use super::port_socket::PortSocket;
use crate::datagram::{Batch, Datagrams, PortId};
use crate::link::Link;

/// Bytes of frames that wait for one busy port. Above it the sockets of this node take no packets for it, so
/// that they wait in QUIC, in the order of their lanes, and frames that leave over the port are marked.
const OUTGOING_LEN_BUSY: usize = 128 << 10;
/// Above it frames are lost: those that this node relays.
const OUTGOING_LEN_MAX: usize = 1 << 20;
/// Between two attempts to open a link that has failed.
const REOPEN_INTERVAL: Duration = Duration::from_secs(1);

/// Opens the link of a port again.
pub(super) type Open = Box<dyn FnMut() -> Result<Box<dyn Link>, Box<dyn Error + Send + Sync>> + Send>;

/// A port at one moment, see [`Mesh::ports`](super::Mesh::ports).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PortFacts {
    /// The port.
    pub port: PortId,
    /// The address of this end.
    pub local: SocketAddr,
    /// Why its link does not work, if it has failed.
    pub failure: Option<String>,
}

/// Frames to a neighbour, or one packet of QUIC.
struct Outgoing {
    to: SocketAddr,
    bytes: Batch,
    /// How many of the bytes were sent.
    sent: usize,
}

pub(super) struct Port {
    /// `None` since it has failed.
    pub(super) link: Option<Box<dyn Link>>,
    failure: String,
    pub(super) open: Option<Open>,
    /// When the link is opened again.
    open_at: Duration,
    outgoing: VecDeque<Outgoing>,
    /// The bytes of all of them.
    outgoing_len: usize,
    pub(super) socket: Arc<PortSocket>,
    /// Since when there were always more frames to receive, and how many were.
    pub(super) busy: Option<(Duration, usize)>,
    /// Whether the engine takes the port for busy.
    pub(super) is_congested: bool,
}

impl Port {
    pub(super) fn new(link: Box<dyn Link>, socket: Arc<PortSocket>, open: Option<Open>) -> Port {
        Port {
            link: Some(link),
            failure: String::new(),
            open,
            open_at: Duration::ZERO,
            outgoing: VecDeque::new(),
            outgoing_len: 0,
            socket,
            busy: None,
            is_congested: false,
        }
    }

    pub(super) fn facts(&self, port: PortId) -> PortFacts {
        let failure = self.link.is_none().then(|| self.failure.clone());
        PortFacts { port, local: self.socket.local(), failure }
    }

    /// Adds frames. Returns a batch that is not needed any more, if there is one: this one, because it is
    /// lost or a copy of it waits.
    pub(super) fn push(&mut self, to: SocketAddr, bytes: Batch) -> Option<Batch> {
        // Neither a frame nor a packet of QUIC is empty, and a link takes no empty ones.
        if self.link.is_none() || self.outgoing_len >= OUTGOING_LEN_MAX || bytes.bytes().is_empty() {
            return Some(bytes);
        }
        // The first one is sent soon.
        let (bytes, spare) = if self.outgoing.is_empty() { (bytes, None) } else { compact(bytes) };
        self.outgoing_len += bytes.bytes().len();
        self.outgoing.push_back(Outgoing { to, bytes, sent: 0 });
        spare
    }

    /// Sends what waits, as far as the link takes it.
    pub(super) fn flush(&mut self, cx: &mut Context<'_>, engine: &mut Datagrams) {
        let Some(link) = &mut self.link else { return };
        while let Some(Outgoing { to, bytes, sent }) = self.outgoing.front_mut() {
            let rest = &bytes.bytes()[*sent..];
            let (rest_len, frame_len) = (rest.len(), bytes.item_len());
            let taken = match link.poll_send_many(cx, *to, rest, frame_len) {
                Poll::Ready(Ok(taken)) => taken.clamp(1, rest_len),
                // Frames that were refused are lost; detection judges the link.
                Poll::Ready(Err(_)) => rest_len.min(frame_len),
                Poll::Pending => return,
            };
            *sent += taken;
            self.outgoing_len -= taken;
            if taken == rest_len
                && let Some(sent) = self.outgoing.pop_front()
            {
                engine.reuse(sent.bytes);
            }
        }
    }

    /// Whether frames wait so long that senders should slow down.
    pub(super) fn has_queue(&self) -> bool {
        self.outgoing_len >= OUTGOING_LEN_BUSY
    }

    /// The link does not work any more. Its socket is closed, so that it can be opened again.
    pub(super) fn fail(&mut self, now: Duration, cause: &dyn Error) {
        self.link = None;
        self.outgoing.clear();
        self.outgoing_len = 0;
        self.busy = None;
        self.postpone(now, cause);
    }

    fn postpone(&mut self, now: Duration, cause: &dyn Error) {
        self.failure = cause.to_string();
        let mut next = cause.source();
        while let Some(cause) = next {
            self.failure.push_str(": ");
            self.failure.push_str(&cause.to_string());
            next = cause.source();
        }
        self.open_at = now + REOPEN_INTERVAL;
    }

    /// When the link is to be opened again, if it has failed and the port knows how to.
    pub(super) fn timeout(&self) -> Option<Duration> {
        (self.link.is_none() && self.open.is_some()).then_some(self.open_at)
    }

    /// Opens a failed link again, if that is due. True if it works from now on, possibly with another MTU and
    /// address.
    pub(super) fn reopen(&mut self, now: Duration) -> bool {
        if self.timeout().is_none_or(|at| now < at) {
            return false;
        }
        let Some(open) = &mut self.open else { return false };
        match open() {
            Ok(link) => {
                self.link = Some(link);
                // Packets of handshakes that have been given up meanwhile.
                while self.socket.outgoing.pop().is_some() {}
                true
            }
            Err(cause) => {
                self.postpone(now, &*cause);
                false
            }
        }
    }
}
