//! Frames to direct neighbours: the seam below the mesh.
//!
//! A [`Link`] is a socket on a network that reaches one or more neighbours: a UDP port, an Ethernet
//! interface, a segment of memory in a test. It knows no identity and protects nothing; the mesh does
//! ([`datagram`](crate::datagram), feature of that name).
//!
//! - [`MemoryLink`]: a segment within the process.
//! - `UdpLink` (feature `udp`): a UDP port on tokio.
//! - `EthernetLink` (feature `ethernet`, Linux): an Ethernet interface on tokio, without IP.
//! - [`LinkFaultInjector`]: faults of a single link, as middleware.
//! - `conformance::link` (feature `conformance`): the contract as a suite.

mod error;
#[cfg(all(feature = "ethernet", target_os = "linux"))]
pub(crate) mod ethernet;
mod faults;
mod memory;
#[cfg(feature = "udp")]
mod udp;

use std::net::SocketAddr;
use std::task::{Context, Poll};

pub use error::{LinkRecvError, LinkSendError};
#[cfg(all(feature = "ethernet", target_os = "linux"))]
pub use ethernet::{EthernetLink, EthernetLinkError, EthernetLinkOptions, MacAddress, MacAddressError};
pub use faults::{LinkFaultHandle, LinkFaultInjector};
pub use memory::{MemoryLink, MemorySegment};
#[cfg(feature = "udp")]
pub use udp::{UdpLink, UdpLinkError, UdpLinkOptions};

/// A change of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkEvent {
    /// [`Link::mtu`] has another value.
    MtuChanged {
        /// The longest frame from now on, in bytes.
        mtu: usize,
    },
    /// The link has another address of its own, such as after a change of the network. Neighbours learn it
    /// from the next frame.
    AddressChanged {
        /// The address from now on.
        address: SocketAddr,
    },
}

/// Unauthenticated frames to direct neighbours.
///
/// A neighbour is known by an address in the form of a socket address: a UDP link uses it as it is; a link
/// without ports maps its addresses into IPv6, such as an Ethernet address into that of its interface (RFC
/// 4291 appendix A).
///
/// # Contract
/// * A frame arrives as a whole or not at all. It may be lost, repeated, overtaken and forged.
/// * `Ready(Ok(()))` of `poll_send`: the frame was taken. `Pending`: the link is busy and **nothing was
///   taken**; the waker is called when it is worth another try. `Ready(Err(_))`: the frame is lost, and the
///   link goes on unless the error is [`LinkSendError::Closed`].
/// * A frame of up to [`Link::mtu`] bytes, and of at least one, is carried; a longer one is
///   [`LinkSendError::TooLong`].
/// * `poll_recv` **replaces** what `frame` holds when it is `Ready(Ok(_))`, and leaves it alone otherwise.
/// * `poll_send`, `poll_recv` and `poll_event` each keep the waker of their last call that was pending.
/// * A call has either had its whole effect when it returns, or none.
pub trait Link: Send {
    /// The address of this end.
    fn local(&self) -> SocketAddr;

    /// The longest frame, in bytes. A change is a [`LinkEvent::MtuChanged`].
    fn mtu(&self) -> usize;

    /// Sends a frame to a neighbour, or registers the waker for the time when the link is not busy.
    ///
    /// # Errors
    /// [`LinkSendError`]; the frame is lost.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        to: SocketAddr,
        frame: &[u8],
    ) -> Poll<Result<(), LinkSendError>>;

    /// Receives a frame and the address that it came from, or registers the waker for the time when there is
    /// one.
    ///
    /// # Errors
    /// [`LinkRecvError`], when there will never be another.
    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        frame: &mut Vec<u8>,
    ) -> Poll<Result<SocketAddr, LinkRecvError>>;

    /// Takes the next event, or registers the waker for the time when there is one.
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<LinkEvent>;
}

impl<L: Link + ?Sized> Link for Box<L> {
    fn local(&self) -> SocketAddr {
        (**self).local()
    }

    fn mtu(&self) -> usize {
        (**self).mtu()
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        to: SocketAddr,
        frame: &[u8],
    ) -> Poll<Result<(), LinkSendError>> {
        (**self).poll_send(cx, to, frame)
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        frame: &mut Vec<u8>,
    ) -> Poll<Result<SocketAddr, LinkRecvError>> {
        (**self).poll_recv(cx, frame)
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<LinkEvent> {
        (**self).poll_event(cx)
    }
}
