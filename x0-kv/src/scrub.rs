//! The background scrub of a member: everything that is held is read, verified and compared.
//!
//! The leader runs the passes. For each page of keys it asks the other members for the digest of the same
//! range at the same applied index, so that all of them read and verify everything in one pass, at the rate
//! that the leader limits.
//!
//! - **Damaged entry.** Its checksum does not match. Reads of it fail from the start; the member fetches the
//!   entry from another member and replaces it.
//! - **Diverging range.** All checksums match, and the digest differs from that of the majority: an entry is
//!   missing, or there is one too many. The member refuses reads of the range until it has restored a
//!   snapshot or starts again.
//!
//! [`engine`] decides and does no I/O; the service of the cluster drives it.

pub(crate) mod engine;
pub(crate) mod message;

use std::time::Duration;

use bytes::Bytes;
use x0_identity::NodeId;

use crate::request::keyspace::KeyspaceName;

/// The settings of the scrub.
///
/// ```
/// use std::time::Duration;
/// use x0_kv::cluster::ScrubOptions;
///
/// let scrub = ScrubOptions::default().bytes_per_second(1 << 20).pause(Duration::from_secs(600));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScrubOptions {
    /// The most bytes of keys and values that a leader reads in a second. 8 MiB by default; 0 turns the scrub
    /// off. A damaged entry that a caller reads is repaired all the same.
    pub bytes_per_second: u64,
    /// The time between two passes. 1 hour by default.
    pub pause: Duration,
}

impl Default for ScrubOptions {
    fn default() -> ScrubOptions {
        ScrubOptions { bytes_per_second: 8 << 20, pause: Duration::from_secs(3600) }
    }
}

impl ScrubOptions {
    /// Sets [`bytes_per_second`](ScrubOptions::bytes_per_second).
    #[must_use]
    pub fn bytes_per_second(mut self, bytes_per_second: u64) -> ScrubOptions {
        self.bytes_per_second = bytes_per_second;
        self
    }

    /// Sets [`pause`](ScrubOptions::pause).
    #[must_use]
    pub fn pause(mut self, pause: Duration) -> ScrubOptions {
        self.pause = pause;
        self
    }
}

/// The totals of the scrub of a node since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ScrubStatus {
    /// Passes that were completed as the leader.
    pub passes: u64,
    /// Entries of this node that were verified.
    pub entries: u64,
    /// Damaged entries that were found on this node.
    pub damaged: u64,
    /// Damaged entries that were replaced by those of another member.
    pub repaired: u64,
    /// Ranges of this node that differ from those of the majority. Reads of them are refused.
    pub diverged: u64,
}

/// An event of the scrub.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScrubEvent {
    /// An entry of this node is damaged: its checksum does not match. Reads of it fail until it is repaired.
    Damaged {
        /// The keyspace of the entry.
        keyspace: KeyspaceName,
        /// The key, as far as it is readable.
        key: Bytes,
    },
    /// A damaged entry was replaced by that of another member.
    Repaired {
        /// The keyspace of the entry.
        keyspace: KeyspaceName,
        /// The key.
        key: Bytes,
        /// The member that had the entry.
        from: NodeId,
    },
    /// A range of a node differs from that of the majority at one applied index, or there is no majority. The
    /// leader and the node report it; the node refuses reads of the range.
    Diverged {
        /// The node.
        node: NodeId,
        /// The keyspace.
        keyspace: KeyspaceName,
        /// The first key of the range.
        start: Bytes,
        /// The end of the range, exclusive; `None` if the range ends with the keyspace.
        end: Option<Bytes>,
        /// The applied index.
        index: u64,
    },
    /// The storage engine cannot be read: the file is damaged beyond single entries.
    Failed {
        /// The cause, with the file.
        message: String,
    },
    /// This node has completed a pass as the leader.
    Completed {
        /// Entries.
        entries: u64,
        /// Bytes of keys and values.
        bytes: u64,
        /// The other members whose digests were compared in all ranges.
        members: u64,
    },
}
