//! The sockets of the groups.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::task::{Context, Poll, ready};

use if_addrs::{IfAddr, Interface};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::ReadBuf;

/// Longer than an announcement of any version is expected to be; the rest of a longer datagram is cut off.
const BUFFER_LEN: usize = 256;

/// Settings of a [`Multicast`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MulticastOptions {
    /// The address of the link that is announced. Its family chooses the group. With a specified IP address
    /// the segment is that of its interface; with `0.0.0.0` or `::` there are as many segments as the machine
    /// has interfaces with an address of the family, other than the loopback.
    pub link: SocketAddr,
    /// The UDP port of the group. 7830 unless set.
    pub port: u16,
    /// The group of links with an IPv4 address. `239.255.120.48` unless set (RFC 2365 §6.1).
    pub group_v4: Ipv4Addr,
    /// The group of links with an IPv6 address. `ff02::7830` unless set (RFC 4291 §2.7).
    pub group_v6: Ipv6Addr,
}

impl MulticastOptions {
    /// The usual groups, for a link with this address.
    #[must_use]
    pub fn new(link: SocketAddr) -> MulticastOptions {
        MulticastOptions {
            link,
            port: 7830,
            group_v4: Ipv4Addr::new(239, 255, 120, 48),
            group_v6: Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x7830),
        }
    }

    /// Sets [`MulticastOptions::port`].
    #[must_use]
    pub fn port(mut self, port: u16) -> MulticastOptions {
        self.port = port;
        self
    }

    /// Sets [`MulticastOptions::group_v4`] and [`MulticastOptions::group_v6`].
    #[must_use]
    pub fn groups(mut self, v4: Ipv4Addr, v6: Ipv6Addr) -> MulticastOptions {
        self.group_v4 = v4;
        self.group_v6 = v6;
        self
    }
}

/// The sockets were not opened. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MulticastError {
    /// The system refused a socket.
    #[error(
        "cannot open a socket on {address} for announcements to {group}: check that this machine has the address, and that no program holds the port for itself"
    )]
    Socket {
        /// The address of the socket.
        address: SocketAddr,
        /// The group.
        group: IpAddr,
        /// The error of the system.
        source: io::Error,
    },
    /// There is no tokio runtime here.
    #[error(
        "cannot open the sockets of a multicast group outside of a tokio runtime: open them inside of one that has I/O enabled"
    )]
    NoRuntime,
}

/// An interface, as the system's options for multicast name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    /// An address of the interface.
    V4(Ipv4Addr),
    /// The index of the interface; 0: the system chooses.
    V6(u32),
}

/// The sockets of the multicast group that a link is announced to.
///
/// Groups are joined, and interfaces are looked for, before each announcement: an interface that appears
/// later takes part from the next one on. Several nodes on one machine share the port.
#[derive(Debug)]
pub struct Multicast {
    options: MulticastOptions,
    receiver: tokio::net::UdpSocket,
    /// Its source address is that of the link.
    sender: UdpSocket,
}

impl Multicast {
    /// Opens the sockets. The runtime that it is called in drives them.
    ///
    /// # Errors
    /// [`MulticastError`]; nothing is left behind.
    pub fn open(options: &MulticastOptions) -> Result<Multicast, MulticastError> {
        tokio::runtime::Handle::try_current().map_err(|_| MulticastError::NoRuntime)?;
        let group = options.group();
        let wildcard: IpAddr = match group {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let refused = |address| move |source| MulticastError::Socket { address, group, source };
        let address = SocketAddr::new(wildcard, options.port);
        let receiver = receiver(address).map_err(refused(address))?;
        let receiver = tokio::net::UdpSocket::from_std(receiver).map_err(refused(address))?;
        let mut address = options.link;
        address.set_port(0);
        let sender = sender(address).map_err(refused(address))?;
        let multicast = Multicast { options: options.clone(), receiver, sender };
        multicast.join(&multicast.segments());
        Ok(multicast)
    }

    /// The address of the link that is announced.
    #[must_use]
    pub fn link(&self) -> SocketAddr {
        self.options.link
    }

    /// Sends bytes to the group on each segment. A segment that refuses them, such as one that is down, does
    /// not receive them.
    pub fn announce(&self, bytes: &[u8]) {
        let segments = self.segments();
        self.join(&segments);
        let sender = SockRef::from(&self.sender);
        for segment in segments {
            let to = match (segment, self.options.group()) {
                (Segment::V4(address), group) => {
                    let _ = sender.set_multicast_if_v4(&address);
                    SocketAddr::new(group, self.options.port)
                }
                (Segment::V6(index), IpAddr::V6(group)) => {
                    let _ = sender.set_multicast_if_v6(index);
                    SocketAddrV6::new(group, self.options.port, 0, index).into()
                }
                (Segment::V6(_), IpAddr::V4(_)) => continue,
            };
            let _ = self.sender.send_to(bytes, to);
        }
    }

    /// Receives a datagram into `bytes`, which it replaces, or registers the waker for the time when there is
    /// one. The result is where it came from.
    pub fn poll_recv(&self, cx: &mut Context<'_>, bytes: &mut Vec<u8>) -> Poll<SocketAddr> {
        loop {
            let mut buffer = [0; BUFFER_LEN];
            let mut read = ReadBuf::new(&mut buffer);
            // An error is an answer to something that was sent, and says nothing of this socket.
            if let Ok(from) = ready!(self.receiver.poll_recv_from(cx, &mut read)) {
                bytes.clear();
                bytes.extend_from_slice(read.filled());
                return Poll::Ready(from);
            }
        }
    }

    /// Joins the group on segments. What is joined already is refused without an effect; what cannot be
    /// joined is tried again before the next announcement.
    fn join(&self, segments: &BTreeSet<Segment>) {
        let receiver = SockRef::from(&self.receiver);
        for segment in segments {
            let _ = match (*segment, self.options.group()) {
                (Segment::V4(address), IpAddr::V4(group)) => receiver.join_multicast_v4(&group, &address),
                (Segment::V6(index), IpAddr::V6(group)) => receiver.join_multicast_v6(&group, index),
                _ => Ok(()),
            };
        }
    }

    fn segments(&self) -> BTreeSet<Segment> {
        match self.options.link {
            SocketAddr::V4(link) if !link.ip().is_unspecified() => [Segment::V4(*link.ip())].into(),
            SocketAddr::V6(link) if link.scope_id() != 0 => [Segment::V6(link.scope_id())].into(),
            // Without a list of interfaces the system chooses one.
            link => segments_of(link.ip(), &if_addrs::get_if_addrs().unwrap_or_default()),
        }
    }
}

impl MulticastOptions {
    fn group(&self) -> IpAddr {
        match self.link {
            SocketAddr::V4(_) => self.group_v4.into(),
            SocketAddr::V6(_) => self.group_v6.into(),
        }
    }
}

/// The segments of a link with this IP address.
fn segments_of(link: IpAddr, interfaces: &[Interface]) -> BTreeSet<Segment> {
    let mut segments = BTreeSet::new();
    let mut names = BTreeSet::new();
    for interface in interfaces {
        let is_wanted = if link.is_unspecified() { !interface.is_loopback() } else { interface.ip() == link };
        let segment = match (link, &interface.addr) {
            (IpAddr::V4(_), IfAddr::V4(address)) => Some(Segment::V4(address.ip)),
            (IpAddr::V6(_), IfAddr::V6(_)) => interface.index.map(Segment::V6),
            _ => None,
        };
        // Once on each interface, whatever the number of its addresses.
        if let Some(segment) = segment.filter(|_| is_wanted && names.insert(interface.name.as_str())) {
            segments.insert(segment);
        }
    }
    if segments.is_empty() {
        segments.insert(match link {
            IpAddr::V4(_) => Segment::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => Segment::V6(0),
        });
    }
    segments
}

fn receiver(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    // Several nodes on one machine receive each announcement.
    socket.set_reuse_address(true)?;
    #[cfg(target_vendor = "apple")]
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Linux also gives a socket what other sockets have joined, on any interface. A kernel that lacks the
    // option (before 4.20 for IPv6) causes more hints, and no fault.
    #[cfg(target_os = "linux")]
    let _ = if address.is_ipv6() {
        socket.set_multicast_all_v6(false)
    } else {
        socket.set_multicast_all_v4(false)
    };
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn sender(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_multicast_hops_v6(1)?;
    } else {
        socket.set_multicast_ttl_v4(1)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use if_addrs::{IfOperStatus, Ifv4Addr, Ifv6Addr};

    fn interface(name: &str, index: u32, ip: &str) -> Interface {
        let addr = match ip.parse().unwrap() {
            IpAddr::V4(ip) => {
                IfAddr::V4(Ifv4Addr { ip, netmask: Ipv4Addr::BROADCAST, prefixlen: 32, broadcast: None })
            }
            IpAddr::V6(ip) => {
                IfAddr::V6(Ifv6Addr { ip, netmask: Ipv6Addr::UNSPECIFIED, prefixlen: 128, broadcast: None })
            }
        };
        Interface {
            name: name.into(),
            addr,
            index: Some(index),
            oper_status: IfOperStatus::Up,
            is_p2p: false,
            #[cfg(windows)]
            adapter_name: String::new(),
        }
    }

    #[test]
    fn a_link_takes_part_on_its_interfaces() {
        let machine = [
            interface("lo", 1, "127.0.0.1"),
            interface("lo", 1, "::1"),
            interface("eth0", 2, "192.0.2.1"),
            interface("eth0", 2, "192.0.2.2"),
            interface("eth0", 2, "2001:db8::1"),
            interface("eth1", 3, "198.51.100.1"),
        ];
        let of = |ip: &str| segments_of(ip.parse().unwrap(), &machine).into_iter().collect::<Vec<_>>();
        let v4 = |ip: &str| Segment::V4(ip.parse().unwrap());
        assert_eq!(of("0.0.0.0"), [v4("192.0.2.1"), v4("198.51.100.1")]);
        assert_eq!(of("::"), [Segment::V6(2)]);
        assert_eq!(of("2001:db8::1"), [Segment::V6(2)]);
        assert_eq!(of("::1"), [Segment::V6(1)]);
        // The system chooses.
        assert_eq!(of("2001:db8::2"), [Segment::V6(0)]);
        assert_eq!(
            segments_of("0.0.0.0".parse().unwrap(), &[]).into_iter().collect::<Vec<_>>(),
            [v4("0.0.0.0")]
        );
    }

    #[test]
    fn what_cannot_be_opened_says_why() {
        let options = MulticastOptions::new("192.0.2.1:7001".parse().unwrap());
        assert!(Multicast::open(&options).unwrap_err().to_string().contains("runtime"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        // An address for documentation, which no machine has (RFC 5737).
        let refused = Multicast::open(&options.port(0)).unwrap_err().to_string();
        assert!(refused.contains("192.0.2.1") && refused.contains("239.255.120.48"), "{refused}");
    }
}
