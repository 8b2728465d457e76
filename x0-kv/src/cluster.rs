//! The store on several nodes: replicas that agree over the channels of a [`Mux`](x0_mesh::Mux).
//!
//! A [`Node`] joins a folder, a mux and a tokio runtime to one member of a cluster. Its
//! [`Store`](crate::Store) is the same handle as that of an embedded store, with the leader behind it,
//! whichever node that is. A [`Client`] is a store without a member.
//!
//! # Structure
//! The event loop of a node is one task. It polls a list of services, each with a channel of its own:
//!
//! | service | channel | lane | engine |
//! |---|---|---|---|
//! | operations | `x0.kv.operations` | ordered | [`Coordinator`](crate::coordinator::Coordinator) |
//! | consensus | `x0.kv.consensus` | ordered | [`Executor`](x0_consensus::driver::Executor) |
//! | snapshots | `x0.kv.snapshots` | bulk | the same executor |
//! | status | `x0.kv.status` | ordered | – |
//! | space | `x0.kv.space` | ordered | – |
//! | admin | `x0.kv.admin` | ordered | [`AdminEngine`](crate::admin::AdminEngine) |
//! | scrub | `x0.kv.scrub` | ordered | the scrub |
//! | CRDT sync | `x0.kv.crdt.sync` | datagram | the CRDT replica, on a thread |
//! | CRDT operations | `x0.kv.crdt.operations` | ordered | the same replica |
//! | blobs | `x0.kv.blobs` | bulk | the blob exchange, on a thread |
//!
//! Consensus, snapshots, space, CRDT sync and blobs accept messages of members only, requests of operators
//! only those of operators: see [`PeerRole`](crate::admin::PeerRole). Other messages are refused and counted.
//!
//! The integrator may register more channels on the same mux, for messages of its own over the same
//! connections.
//!
//! The event loop never waits for a disk. The log, large batches of entries, snapshots, ranges and reads of
//! files have threads; small batches and single values of a state in memory are handled in the task itself.
//! The event loop has neither clock nor runtime: the tokio driver pumps it in production, and the simulator
//! (feature `sim`) pumps the same loop in virtual time.
//!
//! # The cost of a put
//! A put of a client waits for one request to the leader, one append to a follower, one synchronisation of
//! the follower's log (the leader's own runs at the same time), and the two answers. On each node the event
//! loop and the log thread wake up for it; no other task or thread of this crate takes part. The event loop
//! of the leader is not woken for the leader's own write before a follower has acknowledged it. Three nodes
//! and a client in one process made these system calls per put, warm-up included (2026-11-28, `strace -c -f`
//! on the example `put_cost 1000`; before that rule, and before x0-mesh had a socket of its own, which spares
//! reads that find nothing): 2.9 `fdatasync`, 5.7 `pwrite64`, 7.8 `sendmsg`, 13.5 `recvmmsg`, 15.6
//! `epoll_wait`, 7.3 `futex`, and 2.9 `write`, which wake a runtime from a log thread. In a profile of the
//! same program (`perf record`) 58 % of the time is in the kernel, 9 % in QUIC and TLS, 5 % in tokio, and
//! 11 % in the crates of this workspace. The rest of the time of a put is therefore in the system calls of
//! UDP and files and in wake-ups, not in its path through the services.

mod channel;
mod client;
mod driver;
pub(crate) mod error;
pub(crate) mod event_loop;
mod folder;
pub(crate) mod inbox;
mod membership;
mod node;
mod options;
pub(crate) mod outbox;
#[cfg(any(feature = "blob", feature = "crdt"))]
pub(crate) mod outgoing;
pub(crate) mod peers;
pub(crate) mod readers;
pub(crate) mod remote;
mod repair;
mod reports;
pub(crate) mod service;
pub(crate) mod services;
mod status;
mod status_message;
mod waiting;
pub(crate) mod workers;

#[cfg_attr(not(feature = "sim"), allow(unused_imports, reason = "only the simulator names it"))]
pub(crate) use self::channel::{ChannelSpec, Versioned};
pub use self::client::{Client, ClientOptions};
pub use self::error::{NodeError, StartError};
pub use self::folder::{Adoption, DataFolder};
pub use self::membership::ChangeError;
pub use self::node::Node;
#[cfg(feature = "sim")]
pub(crate) use self::node::NodeParts;
pub use self::options::{LogLayer, NodeOptions};
pub use self::status::{NodeStatus, StatusHandle};
pub use self::waiting::WaitingStatus;
pub use crate::scrub::{ScrubEvent, ScrubOptions, ScrubStatus};
pub use crate::space::{SpaceOptions, SpaceStatus};

use std::sync::Arc;

pub use x0_consensus::Standing;
use x0_identity::NodeId;
use x0_mesh::PeerEvent;

use crate::request::member::Members;

/// An event of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NodeEvent {
    /// The leader or the term has changed.
    Leader {
        /// The leader, if this node knows one.
        leader: Option<NodeId>,
        /// The term.
        term: u64,
    },
    /// The membership has changed.
    Membership {
        /// The new membership.
        membership: x0_consensus::Membership,
    },
    /// The member table has changed: addresses or incarnations. A transport that dials its peers takes their
    /// addresses from here. Also reported when the node starts.
    Members {
        /// The new table.
        members: Arc<Members>,
    },
    /// The space on the disk of this node has become short, or is not short any more.
    Space(SpaceStatus),
    /// The journal of the CRDT store cannot be written, for another reason than a lack of space. Until the
    /// next start the store refuses writes with this error, and is read from memory.
    #[cfg(feature = "crdt")]
    CrdtFailed(crate::OperationError),
    /// A member has events of this node that its CRDT store does not hold: the folder was restored from an
    /// old backup, or another process uses a copy of it. The store goes on as a fresh incarnation, and loses
    /// nothing but writes whose numbers were used twice.
    #[cfg(feature = "crdt")]
    CrdtRenewed {
        /// The incarnation under which it writes from now on.
        incarnation: u32,
    },
    /// A member has another hash key: the CRDT stores of both are not synchronized until they have the same
    /// one.
    #[cfg(feature = "crdt")]
    CrdtKeyMismatch {
        /// The member.
        node: NodeId,
    },
    /// The right of this node to vote and acknowledge has changed.
    Standing {
        /// The new standing.
        standing: Standing,
    },
    /// The storage engine's file was damaged beyond the repair of ranges: log and data were set aside, and
    /// the node gets its data from the other members ([`NodeOptions::repair`]). Reported when the node
    /// starts.
    SetAside {
        /// The folder with the damaged files.
        to: std::path::PathBuf,
        /// The error of the storage engine.
        damage: String,
    },
    /// The scrub has found or repaired damage, or has completed a pass.
    Scrub(ScrubEvent),
    /// The connection to a peer has changed.
    Peer(PeerEvent),
}

/// Runs the fuzz target of the status service.
#[cfg(fuzzing)]
pub(crate) fn fuzz_status(message: &bytes::Bytes) {
    status_message::fuzz(message);
}
