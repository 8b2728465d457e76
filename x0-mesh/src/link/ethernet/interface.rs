//! An interface of this machine, and its changes.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::task::{Context, Poll, ready};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    socket,
};
use tokio::net::UdpSocket;

use super::{MacAddress, watched};

/// The group of changes of links (rtnetlink(7)).
const RTMGRP_LINK: u32 = 1;
const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const NLM_F_REQUEST: u16 = 1;
const IFLA_ADDRESS: u16 = 1;
const IFLA_MTU: u16 = 4;
/// `struct nlmsghdr` and `struct ifinfomsg`.
const HEAD_LEN: usize = 16;
const REQUEST_LEN: u32 = 32;
/// The kernel's datagrams of one link are shorter.
const DATAGRAM_LEN_MAX: usize = 32 << 10;

/// The properties of the interface that the link uses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Interface {
    pub(super) mac: MacAddress,
    pub(super) mtu: usize,
}

/// A change of an interface, or its present state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Mtu(usize),
    Address(MacAddress),
    Gone,
}

/// The address to bind to, and the Ethernet address; `None` without such an interface.
pub(super) fn find(name: &str) -> io::Result<Option<(LinkAddr, Option<MacAddress>)>> {
    let mut addresses = getifaddrs()?.filter(|address| address.interface_name == name);
    let address = addresses.find_map(|address| address.address?.as_link_addr().copied());
    Ok(address.map(|address| (address, address.addr().and_then(MacAddress::new))))
}

/// The MTU of an interface.
pub(super) fn mtu(index: u32) -> io::Result<usize> {
    let socket = netlink(0)?;
    let mut request = [0; HEAD_LEN * 2];
    request[..4].copy_from_slice(&REQUEST_LEN.to_ne_bytes());
    request[4..6].copy_from_slice(&RTM_GETLINK.to_ne_bytes());
    request[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    request[HEAD_LEN + 4..HEAD_LEN + 8].copy_from_slice(&index.to_ne_bytes());
    send(socket.as_raw_fd(), &request, MsgFlags::empty())?;
    let mut buffer = vec![0; DATAGRAM_LEN_MAX];
    // The kernel answers within the call that asks.
    let len = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
    let mut found = None;
    changes(&buffer[..len], index, &mut |change| {
        if let Change::Mtu(mtu) = change {
            found = Some(mtu);
        }
    });
    found.ok_or_else(|| io::Error::other("the kernel's answer has no MTU"))
}

fn netlink(groups: u32) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(socket)
}

/// Changes of one interface, from the kernel.
#[derive(Debug)]
pub(super) struct Monitor {
    socket: UdpSocket,
    index: u32,
    buffer: Vec<u8>,
    changes: Vec<Change>,
}

impl Monitor {
    pub(super) fn open(index: u32) -> io::Result<Monitor> {
        let socket = watched(netlink(RTMGRP_LINK)?)?;
        Ok(Monitor { socket, index, buffer: vec![0; DATAGRAM_LEN_MAX], changes: Vec::new() })
    }

    /// The next change. The present state is reported as a change too.
    pub(super) fn poll_change(&mut self, cx: &mut Context<'_>) -> Poll<Change> {
        loop {
            if let Some(change) = self.changes.pop() {
                return Poll::Ready(change);
            }
            // A socket that fails says no more; the link itself goes on.
            if ready!(self.socket.poll_recv_ready(cx)).is_err() {
                return Poll::Pending;
            }
            let changes = &mut self.changes;
            match self.socket.try_recv(&mut self.buffer) {
                Ok(len) => self::changes(&self.buffer[..len], self.index, &mut |change| changes.push(change)),
                // Changes were lost.
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                    changes.extend(mtu(self.index).ok().map(Change::Mtu));
                }
                Err(_) => {}
            }
        }
    }
}

/// Passes on what netlink messages (netlink(7), rtnetlink(7)) say of an interface. Bytes that are no messages
/// are ignored.
pub(super) fn changes(mut bytes: &[u8], index: u32, each: &mut dyn FnMut(Change)) {
    while let Some((kind, body, rest)) = message(bytes) {
        bytes = rest;
        let Some((head, attributes)) = body.split_first_chunk::<HEAD_LEN>() else { continue };
        let of = u32::from_ne_bytes([head[4], head[5], head[6], head[7]]);
        match kind {
            NLMSG_ERROR => return,
            RTM_DELLINK if of == index => each(Change::Gone),
            RTM_NEWLINK if of == index => attributes_of(attributes, each),
            _ => {}
        }
    }
}

fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let head = bytes.first_chunk::<HEAD_LEN>()?;
    let len = usize::try_from(u32::from_ne_bytes([head[0], head[1], head[2], head[3]])).ok()?;
    let body = bytes.get(HEAD_LEN..len)?;
    let rest = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    Some((u16::from_ne_bytes([head[4], head[5]]), body, rest))
}

fn attributes_of(mut bytes: &[u8], each: &mut dyn FnMut(Change)) {
    while let Some(head) = bytes.first_chunk::<4>() {
        let len = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let Some(value) = bytes.get(4..len) else { return };
        match u16::from_ne_bytes([head[2], head[3]]) {
            IFLA_MTU => {
                let mtu = value.try_into().ok().map(u32::from_ne_bytes);
                mtu.and_then(|mtu| usize::try_from(mtu).ok())
                    .into_iter()
                    .for_each(|mtu| each(Change::Mtu(mtu)));
            }
            IFLA_ADDRESS => {
                let mac = value.try_into().ok().and_then(MacAddress::new);
                mac.into_iter().for_each(|mac| each(Change::Address(mac)));
            }
            _ => {}
        }
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let len = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [len.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn link(kind: u16, index: u32, attributes: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 2 * HEAD_LEN];
        bytes.extend_from_slice(attributes);
        let len = u32::try_from(bytes.len()).unwrap();
        bytes[..4].copy_from_slice(&len.to_ne_bytes());
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[HEAD_LEN + 4..HEAD_LEN + 8].copy_from_slice(&index.to_ne_bytes());
        bytes
    }

    fn all(bytes: &[u8]) -> Vec<Change> {
        let mut found = Vec::new();
        changes(bytes, 7, &mut |change| found.push(change));
        found
    }

    #[test]
    fn messages_are_read_and_others_are_ignored() {
        let mac = MacAddress::new([2, 0, 0, 0, 0, 9]).unwrap();
        let attributes = [
            attribute(99, b"abc"),
            attribute(IFLA_ADDRESS, &mac.bytes()),
            attribute(IFLA_ADDRESS, b"not of Ethernet"),
            attribute(IFLA_MTU, &1400_u32.to_ne_bytes()),
        ];
        let both =
            [link(RTM_NEWLINK, 8, &attributes[3]), link(RTM_NEWLINK, 7, &attributes.concat())].concat();
        assert_eq!(all(&both), [Change::Address(mac), Change::Mtu(1400)]);
        assert_eq!(all(&link(RTM_DELLINK, 8, &[])), []);
        assert_eq!(all(&link(RTM_DELLINK, 7, &[])), [Change::Gone]);
        assert_eq!(all(&[link(NLMSG_ERROR, 7, &[]), link(RTM_DELLINK, 7, &[])].concat()), []);
        // Any prefix, and any byte changed: no panic, and an end.
        for len in 0..both.len() {
            all(&both[..len]);
            super::super::fuzz(&both[len..]);
        }
        for position in 0..both.len() {
            for bit in 0..8 {
                let mut changed = both.clone();
                changed[position] ^= 1 << bit;
                all(&changed);
            }
        }
    }

    #[test]
    fn the_loopback_interface_is_found() {
        let (address, mac) = find("lo").unwrap().expect("each system has it");
        // The address of the loopback interface is zero.
        assert_eq!(mac, None);
        let index = u32::try_from(address.ifindex()).unwrap();
        assert!(mtu(index).unwrap() >= 1280);
        assert!(mtu(u32::MAX / 2).is_err());
        assert!(find("no such interface").unwrap().is_none());
    }
}
