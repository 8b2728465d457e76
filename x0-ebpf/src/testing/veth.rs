//! Pairs of veth links.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use netlink_packet_core::{Emitable, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::namespace::{Namespace, NamespaceError};
use crate::stats::netlink::{Connection, Failure, attributes, u32_at};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const IFLA_IFNAME: u16 = 3;
const IFLA_OPERSTATE: u16 = 16;
/// `IF_OPER_UP` of linux/if.h.
const OPERSTATE_UP: u8 = 6;
const PREFIX_LEN: u8 = 30;
/// A link is usable some milliseconds after it is set up.
const USABLE_WITHIN: Duration = Duration::from_secs(10);

/// The failure to create or change a pair.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VethError {
    /// A namespace could not be entered.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The kernel refused a step. A pair that was being created is gone.
    #[error("the kernel refused to {what}")]
    Kernel {
        /// The step, as an imperative.
        what: &'static str,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// The program `nft` could not be started, or refused the rules. One end of the pair may have changed.
    #[error(
        "the program nft did not set the losses of the link {name}: install nftables, and run the test as root"
    )]
    Nft {
        /// The link's name.
        name: String,
        /// The system's error, or what the program printed.
        #[source]
        source: io::Error,
    },
    /// A link was set up and did not become usable within 10 s. A pair that was being created is gone.
    #[error("the link {name} did not become usable within 10 s: set its other end up too")]
    NotUsable {
        /// The link's name.
        name: String,
    },
}

/// One end of a pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VethEnd {
    name: String,
    index: u32,
    mac: [u8; 6],
    address: Ipv4Addr,
}

impl VethEnd {
    /// The link's name in its namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The link's index in its namespace.
    #[must_use]
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// The link's Ethernet address.
    #[must_use]
    pub const fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// The IPv4 address that [`VethPair::assign_addresses`] gives it.
    #[must_use]
    pub const fn address(&self) -> Ipv4Addr {
        self.address
    }
}

/// Two links joined by a wire, each in a namespace, both up and ready to carry. Gone when it is dropped.
///
/// No IP address is assigned, so that the kernel sends nothing by itself.
#[derive(Debug)]
pub struct VethPair {
    left: VethEnd,
    right: VethEnd,
    left_control: Control,
    right_control: Control,
    /// Of the left and of the right end.
    namespaces: [Namespace; 2],
}

impl VethPair {
    /// Makes a pair with its left end in the one namespace and its right end in the other, which may be the
    /// same.
    ///
    /// # Errors
    ///
    /// The kernel refused. No link remains.
    pub fn new(left: &Namespace, right: &Namespace) -> Result<Self, VethError> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // Names and addresses that differ from pair to pair: ends of several pairs may share a namespace.
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut left_control = Control::open(left)?;
        let mut right_control = Control::open(right)?;
        let namespaces = [left.try_clone()?, right.try_clone()?];
        let mut ends = [VethEnd::new(number, false), VethEnd::new(number, true)];
        left_control.create(&ends, right)?;
        let controls = [&mut left_control, &mut right_control];
        for (end, control) in ends.iter_mut().zip(controls) {
            end.index = control.index(&end.name)?;
        }
        let [left, right] = ends;
        let mut pair = Self { left, right, left_control, right_control, namespaces };
        pair.set_up(false, true)?;
        pair.set_up(true, true)?;
        pair.wait_usable()?;
        Ok(pair)
    }

    /// The end in the first namespace.
    #[must_use]
    pub const fn left(&self) -> &VethEnd {
        &self.left
    }

    /// The end in the second namespace.
    #[must_use]
    pub const fn right(&self) -> &VethEnd {
        &self.right
    }

    /// Sets the right end down: neither end carries any more, as if the wire were cut.
    ///
    /// # Errors
    ///
    /// The kernel refused; the link is as it was.
    pub fn cut(&mut self) -> Result<(), VethError> {
        self.set_up(true, false)
    }

    /// Sets the right end up again, and returns when both ends carry.
    ///
    /// # Errors
    ///
    /// The kernel refused, or the ends do not come up.
    pub fn mend(&mut self) -> Result<(), VethError> {
        self.set_up(true, true)?;
        self.wait_usable()
    }

    /// Gives both ends their IPv4 addresses, in a network of their own.
    ///
    /// # Errors
    ///
    /// The kernel refused, also because they were assigned before.
    pub fn assign_addresses(&mut self) -> Result<(), VethError> {
        self.left_control.assign(&self.left)?;
        self.right_control.assign(&self.right)
    }

    pub(super) const fn namespaces(&self) -> [&Namespace; 2] {
        let [left, right] = &self.namespaces;
        [left, right]
    }

    fn set_up(&mut self, right: bool, up: bool) -> Result<(), VethError> {
        let (control, end) =
            if right { (&mut self.right_control, &self.right) } else { (&mut self.left_control, &self.left) };
        control.set_up(end.index, up)
    }

    /// A link may be up and still throw packets away until the kernel's link watch has given it its queue.
    fn wait_usable(&mut self) -> Result<(), VethError> {
        self.left_control.wait_usable(&self.left)?;
        self.right_control.wait_usable(&self.right)
    }
}

impl Drop for VethPair {
    fn drop(&mut self) {
        // With one end goes the other. If it is gone already, so much the better.
        let _ = self.left_control.delete(self.left.index);
    }
}

impl VethEnd {
    fn new(number: u32, right: bool) -> Self {
        let [_, a, b, c] = number.to_be_bytes();
        let side = u8::from(right);
        // 02: locally administered. 10.0.0.0/8 in steps of four: a /30 has two hosts.
        let host = 0x0a00_0000 | (number.wrapping_mul(4).wrapping_add(1 + u32::from(side)) & 0x00ff_ffff);
        Self {
            name: format!("x0v{number}{}", if right { "r" } else { "l" }),
            index: 0,
            mac: [0x02, 0x78, a, b, c, side],
            address: Ipv4Addr::from(host),
        }
    }
}

/// A rtnetlink socket in a namespace.
struct Control {
    connection: Connection,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}

impl Control {
    fn open(namespace: &Namespace) -> Result<Self, VethError> {
        let connection = namespace
            .run(|| Connection::open(NETLINK_ROUTE))?
            .map_err(|source| VethError::Kernel { what: "open a rtnetlink socket", source })?;
        Ok(Self { connection })
    }

    fn create(&mut self, [left, right]: &[VethEnd; 2], there: &Namespace) -> Result<(), VethError> {
        let mut peer = LinkMessage::default();
        peer.attributes = vec![
            LinkAttribute::IfName(right.name.clone()),
            LinkAttribute::Address(right.mac.to_vec()),
            LinkAttribute::NetNsFd(std::os::fd::AsFd::as_fd(there).as_raw_fd()),
        ];
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(left.name.clone()),
            LinkAttribute::Address(left.mac.to_vec()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
            ]),
        ];
        self.ask("make a veth pair", RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &message)
    }

    fn set_up(&mut self, index: u32, up: bool) -> Result<(), VethError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.change_mask = LinkFlags::Up;
        if up {
            message.header.flags = LinkFlags::Up;
        }
        self.ask("set a link up or down", RTM_NEWLINK, 0, &message)
    }

    fn delete(&mut self, index: u32) -> Result<(), VethError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.ask("delete a link", RTM_DELLINK, 0, &message)
    }

    fn assign(&mut self, end: &VethEnd) -> Result<(), VethError> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = PREFIX_LEN;
        message.header.index = end.index;
        message.attributes =
            vec![AddressAttribute::Local(end.address.into()), AddressAttribute::Address(end.address.into())];
        self.ask("assign an address", RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &message)
    }

    fn index(&mut self, name: &str) -> Result<u32, VethError> {
        Ok(self.look(name)?.0)
    }

    fn wait_usable(&mut self, end: &VethEnd) -> Result<(), VethError> {
        let give_up = Instant::now() + USABLE_WITHIN;
        while self.look(&end.name)?.1 != Some(OPERSTATE_UP) {
            if Instant::now() > give_up {
                return Err(VethError::NotUsable { name: end.name.clone() });
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// The index and the operational state of a link.
    fn look(&mut self, name: &str) -> Result<(u32, Option<u8>), VethError> {
        let mut message = LinkMessage::default();
        message.attributes = vec![LinkAttribute::IfName(name.into())];
        let mut request = vec![0; message.buffer_len()];
        message.emit(&mut request);
        let mut found = None;
        let answer =
            self.connection.exchange(RTM_GETLINK, NLM_F_REQUEST | NLM_F_ACK, &request, &mut |kind, body| {
                if kind == RTM_NEWLINK {
                    found = described(body).filter(|(_, of, _)| of == name.as_bytes());
                }
            });
        refused("look at a link", answer)?;
        let (index, _, state) = found.ok_or_else(|| VethError::Kernel {
            what: "look at a link",
            source: io::ErrorKind::InvalidData.into(),
        })?;
        Ok((index, state))
    }

    fn ask(
        &mut self,
        what: &'static str,
        kind: u16,
        flags: u16,
        message: &impl Emitable,
    ) -> Result<(), VethError> {
        let mut request = vec![0; message.buffer_len()];
        message.emit(&mut request);
        refused(
            what,
            self.connection.exchange(kind, NLM_F_REQUEST | NLM_F_ACK | flags, &request, &mut |_, _| {}),
        )
    }
}

/// Index, name and operational state.
fn described(body: &[u8]) -> Option<(u32, Vec<u8>, Option<u8>)> {
    let (mut name, mut state) = (Vec::new(), None);
    for attribute in attributes(body.get(16..)?) {
        match attribute? {
            (IFLA_IFNAME, value) => name = value.strip_suffix(&[0]).unwrap_or(value).to_vec(),
            (IFLA_OPERSTATE, value) => state = value.first().copied(),
            _ => {}
        }
    }
    Some((u32_at(body, 4)?, name, state))
}

fn refused(what: &'static str, answer: Result<(), Failure>) -> Result<(), VethError> {
    answer.map_err(|failure| {
        let source = match failure {
            Failure::Kernel(error) => error,
            Failure::Malformed | Failure::Interrupted => io::ErrorKind::InvalidData.into(),
        };
        VethError::Kernel { what, source }
    })
}

/// In the namespace of the calling thread.
pub(super) fn loopback_up() -> io::Result<()> {
    let mut control = Control { connection: Connection::open(NETLINK_ROUTE)? };
    // The loopback link is the first of every namespace.
    control.set_up(1, true).map_err(|error| match error {
        VethError::Kernel { source, .. } => source,
        other => io::Error::other(other.to_string()),
    })
}
