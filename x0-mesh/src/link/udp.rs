//! A UDP port as a link.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::ops::Range;
use std::task::{Context, Poll, ready};

use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;

use super::{Link, LinkEvent, LinkRecvError, LinkSendError};

/// Datagrams that one system call takes.
const BATCH: usize = 8;
/// The longest datagram, or run of coalesced ones, that the system gives, in bytes.
const BUFFER_LEN: usize = 65_536;
/// The socket buffer that the system is asked for, in bytes; it may grant less.
const SOCKET_LEN: usize = 4 << 20;

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
    io: tokio::net::UdpSocket,
    state: UdpSocketState,
    address: SocketAddr,
    mtu: usize,
    buffers: Vec<Vec<u8>>,
    /// What was received and not taken: the buffer, the bytes of it, and the sender.
    received: VecDeque<(usize, Range<usize>, SocketAddr)>,
}

impl UdpLink {
    /// Opens the port. The runtime that it is called in drives the link.
    ///
    /// # Errors
    /// [`UdpLinkError`]; nothing is left behind.
    pub fn open(options: &UdpLinkOptions) -> Result<UdpLink, UdpLinkError> {
        tokio::runtime::Handle::try_current().map_err(|_| UdpLinkError::NoRuntime)?;
        let refused = |source| UdpLinkError::Socket { address: options.address, source };
        let socket = socket(options.address).map_err(refused)?;
        // It also forbids fragmentation (IP_PMTUDISC_PROBE), and switches coalescing on.
        let state = UdpSocketState::new((&socket).into()).map_err(refused)?;
        let io = tokio::net::UdpSocket::from_std(socket).map_err(refused)?;
        let address = io.local_addr().map_err(refused)?;
        let buffers = (0..BATCH).map(|_| vec![0; BUFFER_LEN]).collect();
        Ok(UdpLink { io, state, address, mtu: options.mtu, buffers, received: VecDeque::new() })
    }

    fn receive(&mut self) -> io::Result<()> {
        let mut meta = [RecvMeta::default(); BATCH];
        let mut slices: Vec<IoSliceMut<'_>> =
            self.buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
        let state = &self.state;
        let io = &self.io;
        let count = io.try_io(Interest::READABLE, || state.recv(io.into(), &mut slices, &mut meta))?;
        for (buffer, meta) in meta.iter().take(count).enumerate() {
            let mut start = 0;
            while start < meta.len {
                let end = meta.len.min(start + meta.stride.max(1));
                self.received.push_back((buffer, start..end, meta.addr));
                start = end;
            }
        }
        Ok(())
    }
}

fn socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    // Best effort: the system's bound may be lower. The default works, with more losses under load.
    let _ = socket.set_recv_buffer_size(SOCKET_LEN);
    let _ = socket.set_send_buffer_size(SOCKET_LEN);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
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
        if frame.len() > self.mtu {
            return Poll::Ready(Err(LinkSendError::TooLong { len: frame.len(), mtu: self.mtu }));
        }
        let transmit =
            Transmit { destination: to, ecn: None, contents: frame, segment_size: None, src_ip: None };
        loop {
            let (io, state) = (&self.io, &self.state);
            match io.try_io(Interest::WRITABLE, || state.try_send(io.into(), &transmit)) {
                Ok(()) => return Poll::Ready(Ok(())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if ready!(io.poll_send_ready(cx)).is_err() {
                        return Poll::Ready(Err(LinkSendError::Closed));
                    }
                }
                Err(source) => return Poll::Ready(Err(LinkSendError::Failed { to, source })),
            }
        }
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        frame: &mut Vec<u8>,
    ) -> Poll<Result<SocketAddr, LinkRecvError>> {
        loop {
            if let Some((buffer, range, from)) = self.received.pop_front() {
                frame.clear();
                frame.extend_from_slice(&self.buffers[buffer][range]);
                return Poll::Ready(Ok(from));
            }
            if let Err(source) = ready!(self.io.poll_recv_ready(cx)) {
                return Poll::Ready(Err(LinkRecvError::Failed { source }));
            }
            // Other errors are answers to frames that were sent, such as a port that is not open, and say
            // nothing of the link.
            let _ = self.receive();
        }
    }

    fn poll_event(&mut self, _: &mut Context<'_>) -> Poll<LinkEvent> {
        // Its address and its limit are those of the options.
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
