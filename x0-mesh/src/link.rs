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
use std::task::{Context, Poll, ready};

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

/// Frames of one neighbour that were received together.
#[derive(Debug, PartialEq, Eq)]
pub struct ReceivedFrames<'a> {
    /// The address that they came from.
    pub from: SocketAddr,
    /// The frames, one after the other, at least one. Each has `frame_len` bytes, but the last one may be
    /// shorter. Their receiver may change them: decryption works in place.
    pub frames: &'a mut [u8],
    /// The length of each frame but the last, in bytes; not 0.
    pub frame_len: usize,
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
/// * `poll_send_many` and `poll_recv_many` are as many calls of `poll_send` and `poll_recv`, at once. A link
///   whose system takes or gives several frames in one call implements them; the others need not.
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

    /// Sends the first of several frames to a neighbour, as many as the link takes at once, or registers the
    /// waker for the time when the link is not busy. `frames` holds them one after the other, at least one;
    /// each has `frame_len` bytes, which is not 0, but the last one may be shorter. Returns how many bytes
    /// were taken: those of whole frames, and of at least one. The caller sends the rest by another call.
    ///
    /// # Errors
    /// [`LinkSendError`]; all frames of the call are lost, or only the first one.
    fn poll_send_many(
        &mut self,
        cx: &mut Context<'_>,
        to: SocketAddr,
        frames: &[u8],
        frame_len: usize,
    ) -> Poll<Result<usize, LinkSendError>> {
        let first = &frames[..frame_len.min(frames.len())];
        self.poll_send(cx, to, first).map_ok(|()| first.len())
    }

    /// Receives frames of one neighbour, as many as the link has together, or registers the waker for the
    /// time when there is one. The frames are in `buffer`, whose content is replaced, or in the link itself.
    ///
    /// # Errors
    /// [`LinkRecvError`], when there will never be another.
    fn poll_recv_many<'a>(
        &'a mut self,
        cx: &mut Context<'_>,
        buffer: &'a mut Vec<u8>,
    ) -> Poll<Result<ReceivedFrames<'a>, LinkRecvError>> {
        let from = ready!(self.poll_recv(cx, buffer))?;
        let frame_len = buffer.len();
        Poll::Ready(Ok(ReceivedFrames { from, frames: buffer, frame_len }))
    }

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

    fn poll_send_many(
        &mut self,
        cx: &mut Context<'_>,
        to: SocketAddr,
        frames: &[u8],
        frame_len: usize,
    ) -> Poll<Result<usize, LinkSendError>> {
        (**self).poll_send_many(cx, to, frames, frame_len)
    }

    fn poll_recv_many<'a>(
        &'a mut self,
        cx: &mut Context<'_>,
        buffer: &'a mut Vec<u8>,
    ) -> Poll<Result<ReceivedFrames<'a>, LinkRecvError>> {
        (**self).poll_recv_many(cx, buffer)
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<LinkEvent> {
        (**self).poll_event(cx)
    }
}
