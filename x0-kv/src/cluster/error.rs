//! Errors of nodes and clients.

use std::path::PathBuf;
use std::sync::Arc;

use x0_consensus::FatalError;
use x0_identity::NodeId;
use x0_mesh::{RecvError, RegisterError};

use crate::state::storage::EngineError;

/// A node or client did not start. Its folder is as it was, but for damaged files that were set aside.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The folder cannot be created.
    #[error("cannot create the folder {}: create it, or choose another one", .path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The folder belongs to another node.
    #[error(
        "{} is the data folder of {}, and this is node {node}: use the folder of one node",
        .path.display(),
        .found.map_or_else(|| "something else".to_owned(), |found| format!("node {found}"))
    )]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// The node that it belongs to, if its file `identity` can be read.
        found: Option<NodeId>,
        /// The node that opens it.
        node: NodeId,
    },
    /// The log cannot be opened or recovered, or does not belong to the data; or a thread cannot be started.
    #[error(transparent)]
    Log(#[from] x0_consensus::OpenError),
    /// The file of the storage engine cannot be opened.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The mux belongs to another node than the options.
    #[error(
        "the mux belongs to node {mux} and the options to node {options}: use the identity of one node for both"
    )]
    Identity {
        /// The node of the mux.
        mux: NodeId,
        /// The node of the options.
        options: NodeId,
    },
    /// A channel cannot be registered: the mux serves a node or client already.
    #[error(transparent)]
    Channel(#[from] RegisterError),
    /// The messages of a channel are too short.
    #[error(
        "channel {channel} carries messages of {len_max} bytes, {needed} are needed: raise the limit of the transport"
    )]
    MessageLength {
        /// The channel.
        channel: &'static str,
        /// The longest message that it carries, in bytes.
        len_max: usize,
        /// The longest message that is sent on it, in bytes.
        needed: usize,
    },
    /// The journal of the CRDT keyspace cannot be opened.
    #[cfg(feature = "crdt")]
    #[error(transparent)]
    Journal(#[from] crate::crdt::JournalError),
    /// The folder of the blobs cannot be opened.
    #[cfg(feature = "blob")]
    #[error(transparent)]
    Blobs(#[from] crate::blob::BlobOpenError),
}

impl StartError {
    /// Whether the node was refused because its data folder is a copy:
    /// [`DataFolder::adopt`](super::DataFolder::adopt) accepts it.
    #[must_use]
    pub fn is_copy(&self) -> bool {
        match self {
            StartError::Log(error) => super::folder::is_copy(error),
            _ => false,
        }
    }
}

/// A running node or client stopped by itself. Everything that was acknowledged before is durable.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The replica failed: its log, its state machine or its own checks.
    #[error("the node stopped: its replica failed; remedy the cause and start the node again")]
    Replica(#[source] Arc<FatalError>),
    /// The transport failed.
    #[error("the node stopped: its transport ended; make a new one and start the node again")]
    Transport(#[from] RecvError),
}
