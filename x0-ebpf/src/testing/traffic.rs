//! Frames onto a link and off it again, counted.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt,
    socket, sockopt,
};

use super::namespace::{Namespace, NamespaceError};
use super::veth::VethEnd;

/// How many frames are on their way at once: the kernel's own queue between two veth ends takes a thousand.
const WINDOW: u64 = 128;
/// Room for the receiver, far above a window of the longest frames.
const BUFFER_BYTES: usize = 8 << 20;
const FRAME_LEN_MAX: usize = 2048;

/// The failure to send or receive frames.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrafficError {
    /// The namespace could not be entered.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The link is not in the namespace.
    #[error("there is no link {name} in the namespace: create it there first")]
    NoLink {
        /// Its name.
        name: String,
    },
    /// The system refused a step. Frames before it were sent and counted.
    #[error("the system refused to {what}")]
    System {
        /// The step, as an imperative.
        what: &'static str,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// Some frames did not arrive in time. Those that arrived were counted.
    #[error("{arrived} of {sent} frames arrived within {waited:?}")]
    Lost {
        /// Frames sent.
        sent: u64,
        /// Frames received.
        arrived: u64,
        /// The waiting time for the last frame.
        waited: Duration,
    },
}

/// The traffic that was observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counted {
    /// Frames.
    pub packets: u64,
    /// Their bytes, Ethernet header included.
    pub bytes: u64,
}

impl Counted {
    fn add(&mut self, len: usize) {
        self.packets += 1;
        self.bytes += len as u64;
    }
}

/// Puts frames onto a link as they are.
#[derive(Debug)]
pub struct Generator {
    socket: OwnedFd,
    counted: Counted,
}

impl Generator {
    /// A socket on one end of a pair, in that end's namespace.
    ///
    /// # Errors
    ///
    /// The link is not there, or the system refuses a packet socket.
    pub fn open(namespace: &Namespace, end: &VethEnd) -> Result<Self, TrafficError> {
        // With the protocol 0 it receives nothing, and so costs nothing.
        Ok(Self { socket: packet_socket(namespace, end, None)?, counted: Counted::default() })
    }

    /// Sends one frame.
    ///
    /// # Errors
    ///
    /// The system refused it, `ENOBUFS` if a program on the link's egress dropped it. It is not counted.
    pub fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        loop {
            match send(self.socket.as_raw_fd(), frame, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
                Ok(len) => {
                    self.counted.add(len);
                    return Ok(());
                }
            }
        }
    }

    /// Sends so many frames and receives them, never with more on their way than the kernel's queues hold: if
    /// nothing on the way drops, nothing is lost.
    ///
    /// # Errors
    ///
    /// The system refused a frame, or none arrived for `patience` while some were due.
    pub fn send_counted(
        &mut self,
        receiver: &mut Receiver,
        packets: u64,
        patience: Duration,
        mut frame: impl FnMut(u64) -> Vec<u8>,
    ) -> Result<(), TrafficError> {
        let due = receiver.counted.packets;
        let mut sent = 0;
        while sent < packets {
            let window = sent..packets.min(sent + WINDOW);
            sent = window.end;
            for number in window {
                self.send(&frame(number))
                    .map_err(|source| TrafficError::System { what: "send a frame", source })?;
            }
            receiver.wait(due + sent, patience)?;
        }
        Ok(())
    }

    /// The traffic that was sent.
    #[must_use]
    pub const fn counted(&self) -> Counted {
        self.counted
    }
}

/// Counts the IPv4 frames that come in through a link. It sees them after XDP and after
/// TC ingress: what a program there drops does not arrive.
#[derive(Debug)]
pub struct Receiver {
    socket: OwnedFd,
    counted: Counted,
    frame: Vec<u8>,
}

impl Receiver {
    /// A socket on one end of a pair, in that end's namespace.
    ///
    /// # Errors
    ///
    /// The link is not there, or the system refuses a packet socket.
    pub fn open(namespace: &Namespace, end: &VethEnd) -> Result<Self, TrafficError> {
        let socket = packet_socket(namespace, end, Some(SockProtocol::EthIp))?;
        setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES).map_err(|errno| TrafficError::System {
            what: "widen the receive buffer",
            source: errno.into(),
        })?;
        let mut receiver = Self { socket, counted: Counted::default(), frame: vec![0; FRAME_LEN_MAX] };
        // Before the bind the socket received from every link.
        while receiver
            .receive()
            .map_err(|source| TrafficError::System { what: "receive a frame", source })?
            .is_some()
        {}
        receiver.counted = Counted::default();
        Ok(receiver)
    }

    /// The next frame that is there, at most its first 2048 bytes. None if there is none now.
    ///
    /// # Errors
    ///
    /// The system refused; `ENETDOWN` once after the link went down.
    pub fn receive(&mut self) -> io::Result<Option<&[u8]>> {
        loop {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
            match recv(self.socket.as_raw_fd(), &mut self.frame, flags) {
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(None),
                Err(errno) => return Err(errno.into()),
                Ok(len) => {
                    self.counted.add(len);
                    return Ok(Some(&self.frame[..len.min(FRAME_LEN_MAX)]));
                }
            }
        }
    }

    /// Receives until so many frames have been counted since the receiver was opened.
    ///
    /// # Errors
    ///
    /// None arrived for `patience`, or the system refused.
    pub fn wait(&mut self, packets: u64, patience: Duration) -> Result<(), TrafficError> {
        let mut last = Instant::now();
        while self.counted.packets < packets {
            let arrived = self
                .receive()
                .map_err(|source| TrafficError::System { what: "receive a frame", source })?
                .is_some();
            if arrived {
                last = Instant::now();
            } else if last.elapsed() > patience {
                return Err(TrafficError::Lost {
                    sent: packets,
                    arrived: self.counted.packets,
                    waited: patience,
                });
            } else {
                thread::yield_now();
            }
        }
        Ok(())
    }

    /// The traffic that was received.
    #[must_use]
    pub const fn counted(&self) -> Counted {
        self.counted
    }
}

/// A packet socket (packet(7)) that is bound to a link.
fn packet_socket(
    namespace: &Namespace,
    end: &VethEnd,
    protocol: Option<SockProtocol>,
) -> Result<OwnedFd, TrafficError> {
    namespace.run(|| {
        let system = |what| move |errno: Errno| TrafficError::System { what, source: errno.into() };
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)
            .map_err(system("open a packet socket"))?;
        // The address that getifaddrs gives has the protocol 0, which leaves the socket the one it has
        // (packet_bind).
        bind(socket.as_raw_fd(), &link_address(end)?).map_err(system("bind a packet socket"))?;
        Ok(socket)
    })?
}

fn link_address(end: &VethEnd) -> Result<LinkAddr, TrafficError> {
    let mut links = getifaddrs()
        .map_err(|errno| TrafficError::System { what: "list the links", source: errno.into() })?;
    links
        .find_map(|link| {
            let address = *link.address.filter(|_| link.interface_name == end.name())?.as_link_addr()?;
            Some(address)
        })
        .ok_or_else(|| TrafficError::NoLink { name: end.name().into() })
}
