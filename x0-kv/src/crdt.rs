//! The CRDT store: always writable, converging, without agreement between members.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = x0_kv::Store::open_in_memory();
//! let crdt = store.crdt()?;
//! crdt.put("door/7", "open").wait()?;
//! crdt.add("visits", 3).wait()?;
//! assert_eq!(crdt.get("door/7").wait()?.unwrap().value, "open");
//! assert_eq!(crdt.counter("visits").wait()?, 3);
//! # Ok(())
//! # }
//! ```
//!
//! # Guarantees
//! - A write is acknowledged when it is on the disk of this node. No other node is asked.
//! - Members that reach each other synchronise their stores, and members that have received the same writes
//!   hold the same state.
//! - Where members wrote one key concurrently, all their values stay ([`CrdtStore::siblings`]) until a later
//!   write replaces them. A get returns the latest.
//! - A removed key does not come back from a member that had not seen the removal.
//!
//! # Limitations
//! - No operation that needs agreement: no compare-and-swap and no transaction, and none that spans this
//!   store and the linearizable [`Store`](crate::Store). These operations do not exist on [`CrdtStore`].
//! - Values hold at most [`limits::VALUE_LEN_MAX`] bytes. The state is held in memory, beside its journal on
//!   disk.
//! - A keyspace is the set of keys with its name. It needs no creation, and ends with its last key. Its keys
//!   share one map with those of the other keyspaces: each key of the map begins with the length and the name
//!   of its keyspace, so that no key of one keyspace can be a key, or lie in a range, of another.
//!
//! # Implementation
//! A protocol engine without I/O holds a [`Session`](x0_crdt::Session) with each member. One thread drives
//! it. Writes and received deltas that arrive together become one record of a journal, which has the format
//! and the code of the replicated log. Only when the record is durable do answers, deltas and
//! acknowledgements leave the node.

#[cfg_attr(not(feature = "mesh"), allow(dead_code, reason = "other members are reached over a mesh"))]
pub(crate) mod codec;
#[cfg_attr(not(feature = "mesh"), allow(dead_code, reason = "other members are reached over a mesh"))]
mod driver;
mod journal;
pub mod limits;
pub(crate) mod outcome;
mod reading;
#[cfg_attr(not(feature = "mesh"), allow(dead_code, reason = "as the driver"))]
mod replica;
mod request;
mod status;
mod store;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::Duration;

use x0_consensus::{Wal, WalOptions};
use x0_identity::NodeId;

pub(crate) use self::driver::Crdt;
#[cfg_attr(not(feature = "mesh"), allow(unused_imports, reason = "clients are reached over a mesh"))]
pub(crate) use self::driver::{CrdtReports, ReplyTo};
pub use self::journal::{Damage, JournalError};
pub use self::outcome::{Cleared, CrdtEntry, CrdtOutcome, CrdtPage, CrdtValue, Timestamp};
#[cfg_attr(
    not(feature = "mesh"),
    allow(unused_imports, reason = "other members are reached over a mesh")
)]
pub(crate) use self::request::wire;
pub(crate) use self::request::{Read, Request, Write};
pub use self::status::{CrdtStatus, CrdtTotals};
pub use self::store::{CrdtDisabled, CrdtPending, CrdtStore};
use crate::seed::random_seed;
use crate::space::Space;
use crate::trace::Tracing;
/// Types of x0-crdt in the options and the status of a CRDT store.
pub use x0_crdt::{Frontier, HashKey, SessionOptions};

/// The CRDT store in the folder `crdt` of `folder`, if there is to be one, for a node without others.
pub(crate) fn open_embedded(
    folder: &Path,
    options: Option<&CrdtOptions>,
    node: NodeId,
) -> Result<Option<Crdt>, JournalError> {
    let open = |options: &CrdtOptions| {
        let journal = Box::new(journal_in(folder, options, node)?);
        Crdt::start(
            options.clone(),
            (node, random_seed()),
            journal,
            Box::new(|_, _, _| {}),
            Space::default(),
            Tracing::default(),
        )
    };
    options.map(open).transpose()
}

/// A CRDT store in memory alone.
#[expect(clippy::unnecessary_wraps, reason = "without the feature there is none")]
pub(crate) fn volatile() -> Option<Crdt> {
    Some(Crdt::volatile(random_seed()))
}

/// The journal in the folder `crdt` of `folder`. A copy gets a fresh incarnation.
pub(crate) fn journal_in(folder: &Path, options: &CrdtOptions, node: NodeId) -> Result<Wal, JournalError> {
    // Segments are small: the changes of a CRDT store are small compared to those of the replicated log.
    let mut log = WalOptions::default();
    log.segment_len = 1 << 20;
    log.accepts_copy = true;
    // The upper half, as for a new keyspace.
    let fresh = (random_seed() >> 32) as u32;
    journal::Journal::renew(Wal::open_path(folder.join("crdt"), log)?, node, fresh, options.hash_key)
}

/// The settings of the CRDT store of a node.
///
/// ```
/// use std::time::Duration;
/// use x0_kv::{CrdtOptions, StoreOptions};
///
/// let crdt = CrdtOptions::new([7; 16]).lease(Duration::from_secs(3600));
/// let options = StoreOptions::new().crdt(crdt);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CrdtOptions {
    /// A secret that all members share and that stays inside the cluster: with it one could construct values
    /// that a comparison of two members takes for equal. It cannot be changed later.
    pub hash_key: HashKey,
    /// The time without contact after which a member no longer holds back the collection of tombstones. It
    /// may still come back later. The same on all members; 10 minutes by default.
    pub lease: Duration,
    /// How far the clock of a writer may be ahead before its writes no longer win over concurrent ones. They
    /// stay visible as siblings. 1 minute by default.
    pub clock_ahead_max: Duration,
    /// The limits of the sessions with other members.
    pub session: SessionOptions,
}

impl CrdtOptions {
    /// The default settings, for members in a local network, with this hash key.
    #[must_use]
    pub fn new(hash_key: [u8; 16]) -> CrdtOptions {
        let session =
            SessionOptions::default().retry_min(Duration::from_millis(50)).retry_max(Duration::from_secs(2));
        CrdtOptions {
            hash_key: HashKey::new(hash_key),
            lease: Duration::from_secs(600),
            clock_ahead_max: Duration::from_secs(60),
            session,
        }
    }

    /// Sets [`lease`](CrdtOptions::lease).
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> CrdtOptions {
        self.lease = lease;
        self
    }

    /// Sets [`clock_ahead_max`](CrdtOptions::clock_ahead_max).
    #[must_use]
    pub fn clock_ahead_max(mut self, clock_ahead_max: Duration) -> CrdtOptions {
        self.clock_ahead_max = clock_ahead_max;
        self
    }

    /// Sets [`session`](CrdtOptions::session).
    #[must_use]
    pub fn session(mut self, session: SessionOptions) -> CrdtOptions {
        self.session = session;
        self
    }
}
