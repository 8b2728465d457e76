//! A UDP port as a link.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

use super::{Link, LinkEvent, LinkRecvError, LinkSendError, ReceivedFrames};

/// Datagrams, or runs of coalesced ones, that one system call gives.
const BATCH: usize = 8;
/// The longest datagram, or run of coalesced ones, that the system gives, in bytes.
const BUFFER_LEN: usize = 65_536;
/// The longest run of datagrams that the system takes, in bytes: that of one datagram over IPv4.
const RUN_LEN_MAX: usize = 65_507;
/// The buffer for datagrams that wait to be received that the system is asked for, in bytes; it may grant
/// less.
const RECEIVE_LEN: usize = 4 << 20;
/// The same for datagrams that wait to be sent. A longer queue would only delay them: what this node sends
/// itself waits better in QUIC, where lanes have priorities.
const SEND_LEN: usize = 512 << 10;
/// Errors of the system one after the other that end the link. Single ones are answers to frames that were
/// sent, such as a port that is not open, and say nothing of the link.
const ERRORS_MAX: usize = 64;

/// Settings of a [`UdpLink`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct UdpLinkOptions {
    /// The address to listen on. Port 0 lets the system choose.
    pub address: SocketAddr,
    /// The longest frame, in bytes. 1232 unless set: the payload of a UDP datagram over IPv6 with an MTU of
    /// 1280, which every path carries (RFC 8200 §5).
    pub mtu: usize,
}

impl UdpLinkOptions {
    /// A link with this address.
    #[must_use]
    pub fn new(address: SocketAddr) -> UdpLinkOptions {
        UdpLinkOptions { address, mtu: 1232 }
    }

    /// Sets [`UdpLinkOptions::mtu`].
    #[must_use]
    pub fn mtu(mut self, mtu: usize) -> UdpLinkOptions {
        self.mtu = mtu;
        self
    }
}

/// A UDP link was not opened. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UdpLinkError {
    /// The system refused the socket.
    #[error(
        "cannot open a UDP link on {address}: check that this machine has the address and that the port is free"
    )]
    Socket {
        /// The address of the options.
        address: SocketAddr,
        /// The error of the system.
        source: io::Error,
    },
    /// There is no tokio runtime here.
    #[error("cannot open a UDP link outside of a tokio runtime: open it inside of one that has I/O enabled")]
    NoRuntime,
}

/// A UDP port as a link: a neighbour is known by its socket address. The system does not fragment its
/// datagrams.
pub struct UdpLink {
    socket: Arc<dyn AsyncUdpSocket>,
    room: Pin<Box<dyn UdpPoller>>,
    address: SocketAddr,
    mtu: usize,
    buffers: [Vec<u8>; BATCH],
    /// What was received and not taken.
    received: VecDeque<Run>,
}

/// Datagrams of one sender, one after the other in a buffer.
struct Run {
    buffer: usize,
    range: Range<usize>,
    /// The length of each but the last, not 0.
    len: usize,
    from: SocketAddr,
}

impl UdpLink {
    /// Opens the port. The runtime that it is called in drives the link.
    ///
    /// # Errors
    /// [`UdpLinkError`]; nothing is left behind.
    pub fn open(options: &UdpLinkOptions) -> Result<UdpLink, UdpLinkError> {
        tokio::runtime::Handle::try_current().map_err(|_| UdpLinkError::NoRuntime)?;
        let refused = |source| UdpLinkError::Socket { address: options.address, source };
        // The socket also forbids fragmentation (IP_PMTUDISC_PROBE), and switches coalescing on.
        let socket = crate::udp::bind(options.address, (RECEIVE_LEN, SEND_LEN)).map_err(refused)?;
        let address = socket.local_addr().map_err(refused)?;
        let room = Arc::clone(&socket).create_io_poller();
        let buffers = std::array::from_fn(|_| vec![0; BUFFER_LEN]);
        Ok(UdpLink { socket, room, address, mtu: options.mtu, buffers, received: VecDeque::new() })
    }

    /// Ready when there is something that was received and not taken.
    fn poll_received(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkRecvError>> {
        let mut errors = 0;
        while self.received.is_empty() {
            if let Err(source) = ready!(self.poll_receive(cx)) {
                errors += 1;
                if errors == ERRORS_MAX {
                    return Poll::Ready(Err(LinkRecvError::Failed { source }));
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut meta = [RecvMeta::default(); BATCH];
        let mut slices: [IoSliceMut<'_>; BATCH] =
            self.buffers.each_mut().map(|buffer| IoSliceMut::new(buffer));
        let count = ready!(self.socket.poll_recv(cx, &mut slices, &mut meta))?;
        for (buffer, meta) in meta.iter().take(count).enumerate() {
            if meta.len > 0 {
                let len = meta.stride.clamp(1, meta.len);
                self.received.push_back(Run { buffer, range: 0..meta.len, len, from: meta.addr });
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Link for UdpLink {
    fn local(&self) -> SocketAddr {
        self.address
    }

    fn mtu(&self) -> usize {
        self.mtu
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        to: SocketAddr,
        frame: &[u8],
    ) -> Poll<Result<(), LinkSendError>> {
        self.poll_send_many(cx, to, frame, frame.len()).map_ok(|_| ())
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        frame: &mut Vec<u8>,
    ) -> Poll<Result<SocketAddr, LinkRecvError>> {
        ready!(self.poll_received(cx))?;
        let Some(run) = self.received.front_mut() else { return Poll::Pending };
        let end = run.range.end.min(run.range.start + run.len);
        frame.clear();
        frame.extend_from_slice(&self.buffers[run.buffer][run.range.start..end]);
        let from = run.from;
        run.range.start = end;
        if run.range.is_empty() {
            self.received.pop_front();
        }
        Poll::Ready(Ok(from))
    }

    fn poll_send_many(
        &mut self,
        cx: &mut Context<'_>,
        to: SocketAddr,
        frames: &[u8],
        frame_len: usize,
    ) -> Poll<Result<usize, LinkSendError>> {
        let frame_len = frame_len.min(frames.len());
        if frame_len > self.mtu {
            return Poll::Ready(Err(LinkSendError::TooLong { len: frame_len, mtu: self.mtu }));
        }
        loop {
            let count = self.socket.max_transmit_segments().min(RUN_LEN_MAX / frame_len.max(1)).max(1);
            let contents = &frames[..frames.len().min(frame_len * count)];
            let is_run = contents.len() > frame_len;
            let transmit = Transmit {
                destination: to,
                ecn: None,
                contents,
                segment_size: is_run.then_some(frame_len),
                src_ip: None,
            };
            match self.socket.try_send(&transmit) {
                Ok(()) => return Poll::Ready(Ok(contents.len())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if ready!(self.room.as_mut().poll_writable(cx)).is_err() {
                        return Poll::Ready(Err(LinkSendError::Closed));
                    }
                }
                Err(source) => return Poll::Ready(Err(LinkSendError::Failed { to, source })),
            }
        }
    }

    fn poll_recv_many<'a>(
        &'a mut self,
        cx: &mut Context<'_>,
        _: &'a mut Vec<u8>,
    ) -> Poll<Result<ReceivedFrames<'a>, LinkRecvError>> {
        ready!(self.poll_received(cx))?;
        let Some(run) = self.received.pop_front() else { return Poll::Pending };
        let frames = &mut self.buffers[run.buffer][run.range];
        Poll::Ready(Ok(ReceivedFrames { from: run.from, frames, frame_len: run.len }))
    }

    fn poll_event(&mut self, _: &mut Context<'_>) -> Poll<LinkEvent> {
        // The address and the limit of a UDP link are those of its options.
        Poll::Pending
    }
}

impl std::fmt::Debug for UdpLink {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("UdpLink")
            .field("address", &self.address)
            .field("mtu", &self.mtu)
            .finish_non_exhaustive()
    }
}
