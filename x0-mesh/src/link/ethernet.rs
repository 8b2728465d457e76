//! An Ethernet interface as a link, without IP.

mod frame;
mod interface;

use std::io::{self, IoSlice, Read};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::task::{Context, Poll, ready};

use nix::sys::socket::LinkAddr;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

pub use frame::{MacAddress, MacAddressError};

use self::frame::{ETHER_TYPE, HEADER_LEN, OVERHEAD};
use self::interface::{Change, Interface, Monitor};
use super::{Link, LinkEvent, LinkRecvError, LinkSendError};

/// The socket buffer that the system is asked for, in bytes; it may grant less.
const SOCKET_LEN: usize = 4 << 20;
/// The longest frame of any interface: that of the loopback interface has 65,536 bytes and a header.
const BUFFER_LEN: usize = 65_536 + HEADER_LEN;

/// Settings of an [`EthernetLink`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EthernetLinkOptions {
    /// The name of the interface, such as `eth1`.
    pub interface: String,
    /// The longest frame, in bytes, if it is to be shorter than the interface allows.
    pub mtu_max: Option<usize>,
}

impl EthernetLinkOptions {
    /// A link on this interface, with the MTU of the interface.
    #[must_use]
    pub fn new(interface: impl Into<String>) -> EthernetLinkOptions {
        EthernetLinkOptions { interface: interface.into(), mtu_max: None }
    }

    /// Sets [`EthernetLinkOptions::mtu_max`].
    #[must_use]
    pub fn mtu_max(mut self, mtu_max: usize) -> EthernetLinkOptions {
        self.mtu_max = Some(mtu_max);
        self
    }
}

/// An Ethernet link was not opened. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EthernetLinkError {
    /// The process may not open packet sockets.
    #[error(
        "cannot open an Ethernet link on {interface}: this process has no privilege for packet sockets; grant it \
         the capability CAP_NET_RAW in the user namespace that owns its network namespace, or use a UDP link"
    )]
    Privilege {
        /// The interface of the options.
        interface: String,
        /// The error of the system.
        source: io::Error,
    },
    /// There is no such interface.
    #[error(
        "cannot open an Ethernet link on {interface}: this network namespace has no interface of that name; \
         list the interfaces with `ip link`"
    )]
    NoInterface {
        /// The interface of the options.
        interface: String,
    },
    /// The interface has no Ethernet address.
    #[error(
        "cannot open an Ethernet link on {interface}: the interface has no Ethernet address; choose an Ethernet \
         interface, or use a UDP link"
    )]
    NoEthernet {
        /// The interface of the options.
        interface: String,
    },
    /// The system refused a step.
    #[error("cannot open an Ethernet link on {interface}: the system refused to {what}; check its limits")]
    System {
        /// The interface of the options.
        interface: String,
        /// The step, as an imperative.
        what: &'static str,
        /// The error of the system.
        source: io::Error,
    },
    /// There is no tokio runtime here.
    #[error(
        "cannot open an Ethernet link outside of a tokio runtime: open it inside of one that has I/O enabled"
    )]
    NoRuntime,
}

/// An Ethernet interface as a link, on Linux, without IP: a neighbour is known by its Ethernet address.
///
/// [`EthernetLink::address`] maps an Ethernet address into the form of a socket address. The interface
/// carries frames of an EtherType for local experiments, `0x88b5` (IEEE 802, clause 9.2.4), so that one node
/// at a time can use an interface. The MTU follows that of the interface. Opening takes the capability
/// `CAP_NET_RAW`; the link itself needs none.
///
/// # Wire format, version 1
/// After the Ethernet header:
///
/// | field | bytes | meaning |
/// |---|---|---|
/// | version | 1 | 1 |
/// | length | 2 | of the content, little-endian, not 0; a network card pads short frames |
/// | content | length | the frame of the link |
///
/// ```no_run
/// use x0_mesh::link::{EthernetLink, EthernetLinkOptions};
/// use x0_mesh::mesh::MeshPort;
///
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let link = EthernetLink::open(&EthernetLinkOptions::new("eth1"))?;
/// let port = MeshPort::new(link).neighbour(EthernetLink::address("02:00:00:00:00:07".parse()?));
/// # drop(port);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct EthernetLink {
    socket: UdpSocket,
    monitor: Monitor,
    interface: Interface,
    mtu_max: usize,
    buffer: Vec<u8>,
    /// The interface was removed.
    is_gone: bool,
}

impl EthernetLink {
    /// Opens the interface, in the network namespace of the calling thread. The runtime that it is called in
    /// drives the link.
    ///
    /// # Errors
    /// [`EthernetLinkError`]; nothing is left behind.
    pub fn open(options: &EthernetLinkOptions) -> Result<EthernetLink, EthernetLinkError> {
        tokio::runtime::Handle::try_current().map_err(|_| EthernetLinkError::NoRuntime)?;
        let name = || options.interface.clone();
        let system = |what| move |source| EthernetLinkError::System { interface: name(), what, source };
        let (address, mac) = interface::find(&options.interface)
            .map_err(system("list the interfaces"))?
            .ok_or_else(|| EthernetLinkError::NoInterface { interface: name() })?;
        let mac = mac.ok_or_else(|| EthernetLinkError::NoEthernet { interface: name() })?;
        let socket =
            Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(protocol()))).map_err(|source| {
                match source.kind() {
                    io::ErrorKind::PermissionDenied => {
                        EthernetLinkError::Privilege { interface: name(), source }
                    }
                    _ => system("open a packet socket")(source),
                }
            })?;
        bind(&socket, &address).map_err(system("bind a packet socket to the interface"))?;
        // Before the first look at the MTU: a change in between is not missed.
        let index = u32::try_from(address.ifindex()).unwrap_or(u32::MAX);
        let monitor = Monitor::open(index).map_err(system("watch the interface"))?;
        let mtu = interface::mtu(index).map_err(system("read the MTU of the interface"))?;
        let socket = watched(socket.into()).map_err(system("watch the packet socket"))?;
        Ok(EthernetLink {
            socket,
            monitor,
            interface: Interface { mac, mtu },
            mtu_max: options.mtu_max.unwrap_or(usize::MAX),
            buffer: vec![0; BUFFER_LEN],
            is_gone: false,
        })
    }

    /// The address that stands for an Ethernet address: a link-local IPv6 address (RFC 4291 appendix A), and
    /// the EtherType as port. It never appears on a wire as such.
    ///
    /// ```
    /// use x0_mesh::link::EthernetLink;
    ///
    /// let address = EthernetLink::address("02:00:00:12:34:56".parse()?);
    /// assert_eq!(address.to_string(), "[fe80::ff:fe12:3456]:34997");
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn address(mac: MacAddress) -> SocketAddr {
        mac.address()
    }

    /// The Ethernet address of the interface.
    #[must_use]
    pub fn mac(&self) -> MacAddress {
        self.interface.mac
    }
}

/// A non-blocking socket of any kind whose readiness tokio watches. `AsyncFd` takes unsafe code; a
/// `UdpSocket` owns any descriptor, and does nothing to it but the calls that its methods name.
fn watched(socket: OwnedFd) -> io::Result<UdpSocket> {
    UdpSocket::from_std(socket.into())
}

/// The EtherType as the system wants it.
fn protocol() -> i32 {
    i32::from(ETHER_TYPE.to_be())
}

/// Binds a packet socket to an interface, and drops what it has received before from others.
fn bind(socket: &Socket, address: &LinkAddr) -> io::Result<()> {
    // Best effort: the system's bound may be lower. The default works, with more losses under load.
    let _ = socket.set_recv_buffer_size(SOCKET_LEN);
    let _ = socket.set_send_buffer_size(SOCKET_LEN);
    socket.set_nonblocking(true)?;
    // The address that getifaddrs gives has the protocol 0, which leaves the socket the one it has
    // (packet_bind).
    nix::sys::socket::bind(socket.as_raw_fd(), address)?;
    let mut reader = socket;
    while reader.read(&mut [0; 1]).is_ok() {}
    Ok(())
}

/// Entry of the fuzz target: any bytes as a frame, and as messages of netlink.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(bytes: &[u8]) {
    let Some((address, rest)) = bytes.split_first_chunk::<6>() else { return };
    if let Some(mac) = MacAddress::new(*address)
        && let Some((from, content)) = frame::decode(rest, mac)
    {
        assert!(content.len() < rest.len() && MacAddress::at(from.address()) == Some(from));
    }
    interface::changes(rest, 7, &mut |_| {});
}

impl Link for EthernetLink {
    fn local(&self) -> SocketAddr {
        self.interface.mac.address()
    }

    fn mtu(&self) -> usize {
        self.interface.mtu.saturating_sub(OVERHEAD).min(self.mtu_max)
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        to: SocketAddr,
        frame: &[u8],
    ) -> Poll<Result<(), LinkSendError>> {
        let mtu = self.mtu();
        if frame.len() > mtu {
            return Poll::Ready(Err(LinkSendError::TooLong { len: frame.len(), mtu }));
        }
        if self.is_gone {
            return Poll::Ready(Err(LinkSendError::Closed));
        }
        let header =
            MacAddress::at(to).and_then(|to| frame::encode_header(to, self.interface.mac, frame.len()));
        let Some(header) = header else {
            let source = io::ErrorKind::AddrNotAvailable.into();
            return Poll::Ready(Err(LinkSendError::Failed { to, source }));
        };
        loop {
            let parts = [IoSlice::new(&header), IoSlice::new(frame)];
            let socket = SockRef::from(&self.socket);
            match self.socket.try_io(Interest::WRITABLE, || socket.send_vectored(&parts)) {
                Ok(_) => return Poll::Ready(Ok(())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if ready!(self.socket.poll_send_ready(cx)).is_err() {
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
            if self.is_gone {
                return Poll::Ready(Err(LinkRecvError::Closed));
            }
            if let Err(source) = ready!(self.socket.poll_recv_ready(cx)) {
                return Poll::Ready(Err(LinkRecvError::Failed { source }));
            }
            // An error says that there is nothing now, or that the interface is down; it may be up again
            // later. The monitor reports its end.
            let Ok(len) = self.socket.try_recv(&mut self.buffer) else { continue };
            // Frames to others arrive while the interface is promiscuous.
            if let Some((from, content)) = frame::decode(&self.buffer[..len], self.interface.mac) {
                frame.clear();
                frame.extend_from_slice(content);
                return Poll::Ready(Ok(from.address()));
            }
        }
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<LinkEvent> {
        loop {
            match ready!(self.monitor.poll_change(cx)) {
                Change::Mtu(mtu) if mtu != self.interface.mtu => {
                    self.interface.mtu = mtu;
                    return Poll::Ready(LinkEvent::MtuChanged { mtu: self.mtu() });
                }
                Change::Address(mac) if mac != self.interface.mac => {
                    self.interface.mac = mac;
                    return Poll::Ready(LinkEvent::AddressChanged { address: mac.address() });
                }
                Change::Mtu(_) | Change::Address(_) => {}
                Change::Gone => {
                    self.is_gone = true;
                    return Poll::Pending;
                }
            }
        }
    }
}
