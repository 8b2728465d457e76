//! Errors of links.

use std::io;
use std::net::SocketAddr;

/// A frame was not sent. It is lost.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkSendError {
    /// The frame is longer than the link carries.
    #[error(
        "a frame of {len} bytes, where the link carries {mtu}: the frame is lost; send at most `mtu` bytes"
    )]
    TooLong {
        /// The length of the frame, in bytes.
        len: usize,
        /// The longest frame of the link, in bytes.
        mtu: usize,
    },
    /// The system refused the frame. The link goes on.
    #[error("the system refused a frame to {to}: the frame is lost; check the address and the route to it")]
    Failed {
        /// The neighbour.
        to: SocketAddr,
        /// The error of the system.
        source: io::Error,
    },
    /// The link is over.
    #[error("the link is closed: the frame is lost; open the link again")]
    Closed,
}

/// The link is over, and no frame will come.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkRecvError {
    /// The link was closed.
    #[error("the link is closed: open it again")]
    Closed,
    /// The system ended it.
    #[error("the system ended the link: check its interface, and open it again")]
    Failed {
        /// The error of the system.
        source: io::Error,
    },
}
