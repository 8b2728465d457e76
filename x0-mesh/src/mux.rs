//! Many services on one transport.
//!
//! # Glossary
//! - *Channel*: what one service sends and receives on, known by its [`ChannelId`] on both nodes.
//! - *Offer*: a node notifies a peer that it has registered a channel, in which versions and with which lanes
//!   and budget.
//! - *Session*: a channel between two nodes from the moment that both agreed on it until one of them
//!   withdraws it or the connection ends. An epoch of a [`Channel`] is one session.
//! - *Budget*: the bytes of one lane of a session that may be on the way or wait to be received.
//! - *Credit*: how much of a lane the receiver has consumed, so that the sender may send as much again.
//!
//! # Wire format, version 1
//! Numbers are little-endian. Each message of the transport ends with a trailer of 5 bytes: the session (u32)
//! and the lane of the channel (u8: the number of an ordered lane, 254 bulk, 255 datagram). The trailer
//! stands at the end so that the receiver removes it without moving the message. Bulk messages travel on the
//! transport's bulk lane, datagrams on its datagram lane, and each ordered lane of a channel on an ordered
//! lane of the transport that the sender chooses.
//!
//! Session 0 on lane 0 holds control messages; they travel on the transport's ordered lane 0. A control
//! message is a sequence of frames, and may be empty. A name is its length (u8, 1 to 47) and as many visible
//! ASCII characters.
//!
//! | frame | kind (u8) | content | meaning |
//! |---|---|---|---|
//! | `HELLO` | 1 | lowest and highest version of this format (u8 each), instance (u32) | comes first; the sender drew the instance when the connection came up, and knows nothing of sessions before it |
//! | `OFFER` | 2 | name; lowest and highest version of the service (u16 each); budget of a lane (u32); number of ordered lanes (u8); longest message of an ordered lane, the bulk lane, the datagram lane (u32 each; 0: no such lane) | the sender has this channel |
//! | `OFFERS_END` | 3 | | every channel that is registered was offered |
//! | `WITHDRAW` | 4 | name | the sender has this channel no more; its session is over |
//! | `OPEN` | 5 | session (u32), name | sent by the node with the lower id when both have offered the channel |
//! | `ACCEPT` | 6 | session (u32) | answers `OPEN`; messages may follow at once |
//! | `CLOSE` | 7 | session (u32), reason (u8: 0 no such channel, 1 over budget) | the session is over, or was not accepted |
//! | `CREDIT` | 8 | session (u32), lane (u8), bytes (u64) | the owner has consumed so much of the lane since the session began |
//!
//! A node sends `HELLO`, its offers and `OFFERS_END` when a connection comes up. A `HELLO` with the instance
//! that the receiver knows changes nothing. One with another instance ends every session; a receiver that
//! knew one before sends its own `HELLO`, with its own instance unchanged, its offers and `OFFERS_END` again.
//! What comes before the first `HELLO` of a connection belongs to the one before it, and is skipped.
//!
//! The version of the service is the highest that both offers have; if there is none, both sides refuse the
//! channel. A message counts its bytes and 64 more. A sender sends while less than half of the budget (the
//! lower of both offers) is outstanding, or if the message fits the rest of it. The receiver reports credit
//! when a quarter of its budget was consumed and not reported. Datagrams have no credit; they are dropped
//! when a budget of them waits. A session number is drawn at random for each session, so that a message that
//! was sent while the connection changed does not match a session of the next one.
//!
//! A frame that is damaged, unknown or against these rules makes the receiver ignore the peer's mux, and
//! report its channels as down, until it connects again.

mod channel;
mod drive;
mod driver;
mod engine;
mod error;
mod frame;
#[cfg(any(test, fuzzing))]
mod fuzz;
mod id;
mod inbox;
mod options;
mod signal;
mod stats;
mod turns;

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use x0_identity::NodeId;

pub use channel::Channel;
pub use drive::MuxDriver;
pub use error::RegisterError;
pub use id::ChannelId;
pub use options::{ChannelOptions, MuxOptions};
pub use stats::MuxStats;

use crate::Transport;
use driver::{Polling, Shared};

/// Splits one [`Transport`] into channels, one for each service of a node.
///
/// Each [`Channel`] is a `Transport` of its own: it has its own lanes, byte budget, back-pressure, negotiated
/// version and epochs, and any task may own it. A channel that is not received from fills its own budget, and
/// blocks neither another channel nor the transport. Channels that share a lane of the transport take turns.
/// There is one connection to each peer, whatever the number of channels. Both nodes must run a mux on their
/// transport.
///
/// ```
#[cfg_attr(feature = "sim", doc = " # fn main() -> Result<(), Box<dyn std::error::Error>> {")]
#[cfg_attr(not(feature = "sim"), doc = " # fn main() {}")]
#[cfg_attr(not(feature = "sim"), doc = " # #[cfg(any())]")]
#[cfg_attr(not(feature = "sim"), doc = " # fn example() -> Result<(), Box<dyn std::error::Error>> {")]
/// use x0_identity::NodeId;
/// use x0_mesh::sim::SimMesh;
/// use x0_mesh::{ChannelOptions, Lane, Mux, MuxOptions, Next, Transmit, TransportExt};
///
/// let (one, two) = (NodeId::new(1).ok_or("zero")?, NodeId::new(2).ok_or("zero")?);
/// let mesh = SimMesh::new(42);
/// let (mux_a, mux_b) = (
///     Mux::new(mesh.transport(one), MuxOptions::default().seed(1)),
///     Mux::new(mesh.transport(two), MuxOptions::default().seed(2)),
/// );
/// let mut a = mux_a.channel(ChannelOptions::new("example.chat"))?;
/// let mut b = mux_b.channel(ChannelOptions::new("example.chat"))?;
/// // Another service of the node registers its own channel on the same mux.
/// let _other = mux_a.channel(ChannelOptions::new("example.other"))?;
///
/// let hello = Transmit { to: two, lane: Lane::Ordered(0), payload: b"hello" };
/// let (mut sent, mut payload) = (false, Vec::new());
/// mesh.block_on(std::future::poll_fn(|cx| {
///     use std::task::Poll;
///     use x0_mesh::Transport;
///     sent = sent || a.poll_send(cx, &hello).is_ready();
///     match b.poll_next(cx, &mut payload) {
///         Poll::Ready(Ok(Next::Message(_))) => Poll::Ready(()),
///         _ => Poll::Pending,
///     }
/// }));
/// assert_eq!(payload, b"hello");
/// # Ok(())
/// # }
/// ```
///
/// # Who drives it
/// A mux has no task. Polling any channel for anything moves messages and control messages for all of them, and the tasks of those that
/// have something are woken. While no channel of a node is polled, nothing is received and no session begins there; a program whose
/// channels may all go unpolled for long spawns [`Mux::poll_drive`]. A program whose channels belong to one task gives that task the
/// [`Mux::driver`]: then a message wakes it for the one channel that has something, instead of for all of them.
///
/// # Ends
/// The transport is dropped with the last of the mux's clones and channels. Dropping a channel withdraws it from every peer, which see
/// [`DownReason::NoChannel`](crate::DownReason::NoChannel); it can be registered again.
#[derive(Debug, Clone)]
pub struct Mux {
    shared: Arc<Shared>,
}

impl Mux {
    /// A mux without channels.
    #[allow(clippy::needless_pass_by_value, reason = "options are made for one mux")]
    pub fn new(transport: impl Transport + 'static, options: MuxOptions) -> Mux {
        Mux { shared: Arc::new(Shared::new(Box::new(transport), &options)) }
    }

    /// Registers a channel, before or after messages have begun to travel.
    ///
    /// # Errors
    /// [`RegisterError`]; nothing was registered.
    #[allow(clippy::needless_pass_by_value, reason = "options are made for one channel")]
    pub fn channel(&self, options: ChannelOptions) -> Result<Channel, RegisterError> {
        let (local, registered) = self.shared.change(|core| (core.local(), core.register(&options)));
        let (slot, offer) = registered?;
        Ok(Channel::new(Arc::clone(&self.shared), local, slot, offer))
    }

    /// This node.
    #[must_use]
    pub fn local(&self) -> NodeId {
        self.shared.lock().local()
    }

    /// The counts since the mux was made.
    #[must_use]
    pub fn stats(&self) -> MuxStats {
        self.shared.lock().engine.stats
    }

    /// The driver of the mux, which moves messages for all channels; `None` if there is one already. See
    /// [`MuxDriver`] for the duties of its owner.
    #[must_use]
    pub fn driver(&self) -> Option<MuxDriver> {
        MuxDriver::new(&self.shared)
    }

    /// Moves what can be moved, and registers the waker for more. It is never ready. Needed only where all
    /// channels may go unpolled.
    pub fn poll_drive(&self, cx: &mut Context<'_>) -> Poll<Infallible> {
        self.shared.poll(Polling::nothing(), |signal| signal.wait_to_drive(cx.waker()), |_| Poll::Pending)
    }
}

/// Runs the fuzz target.
#[cfg(fuzzing)]
pub fn fuzz(bytes: &[u8]) {
    fuzz::run(bytes);
}
