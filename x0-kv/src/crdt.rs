//! Keyspaces that can always be written: [`Keyspace::Crdt`].
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use x0_kv::{Keyspace, Store};
//!
//! let store = Store::open_in_memory().keyspace(Keyspace::Crdt);
//! store.put("door/7", "open").wait()?;
//! store.add("visits", 3).wait()?;
//! assert_eq!(store.get("door/7").wait()?.unwrap().value, "open");
//! assert_eq!(store.counter("visits").wait()?, 3);
//! # Ok(())
//! # }
//! ```
//!
//! # What it promises
//! A write is done when it is on this node's disk; no other node is asked. Nodes that reach each other bring their keyspaces together
//! by themselves, and those that have seen the same hold the same. Where several wrote one key without having seen each other, all
//! their values stay ([`Store::siblings`](crate::Store::siblings)) until somebody writes again; a get answers the latest. Removed keys do not come back.
//!
//! # What it does not
//! Nothing that needs an agreement: no compare-and-swap, no transaction, and none of them ever spans both kinds of keyspace. Values
//! are of at most [`VALUE_LEN_MAX`](x0_crdt::VALUE_LEN_MAX) bytes. The keyspace is held in memory, beside its journal on disk.
//!
//! # How it is made
//! An engine without I/O holds a [`Session`](x0_crdt::Session) with each member. One thread drives it: what is written and what arrives
//! together becomes one record of a journal, which is a log of the same format and code as the replicated one, and only when that is
//! durable does anything leave the node: answers, differences, acknowledgements.
//!
//! Datagrams travel on `Lane::Datagram`, the operations of clients on `Ordered(3)`.

#[cfg_attr(not(feature = "mesh"), allow(dead_code, reason = "others are met over a mesh"))]
mod driver;
mod journal;
mod reading;
#[cfg_attr(not(feature = "mesh"), allow(dead_code, reason = "as the driver"))]
mod replica;
mod request;
mod status;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::Duration;

use x0_consensus::{Wal, WalOptions};
use x0_crdt::{HashKey, SessionOptions};
use x0_identity::NodeId;

#[cfg(feature = "mesh")]
pub(crate) use self::driver::ReplyTo;
pub(crate) use self::driver::{Crdt, Post};
pub use self::journal::{Damage, JournalError};
#[cfg(feature = "mesh")]
pub(crate) use self::request::wire;
pub(crate) use self::request::{Read, Request, Write};
pub use self::status::{CrdtStatus, CrdtTotals};
use crate::seed::random_seed;

/// The keyspace in the folder `crdt` of `folder`, for `node`.
pub(crate) fn open(
    folder: &Path,
    options: CrdtOptions,
    node: NodeId,
    post: Post,
) -> Result<Crdt, JournalError> {
    Crdt::start(options, node, random_seed(), Box::new(journal_in(folder)?), post)
}

/// The journal in the folder `crdt` of `folder`.
pub(crate) fn journal_in(folder: &Path) -> Result<Wal, JournalError> {
    // What changes at once is small next to what the replicated log takes.
    let mut log = WalOptions::default();
    log.segment_len = 1 << 20;
    Ok(Wal::open_path(folder.join("crdt"), log)?)
}

/// Which of the two kinds of data a [`Store`](crate::Store) handle speaks of. Their keys are apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Keyspace {
    /// One order of all writes, by the log: a write needs a majority, and a read sees every write before it.
    #[default]
    Linearizable,
    /// Always writable, on any node, alone if need be; nodes converge when they meet. See the [module](self).
    Crdt,
}

/// How the CRDT keyspace of a node is set up: [`CrdtOptions::new`], then change what is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CrdtOptions {
    /// A secret that all members share and nobody else knows: with it one could make values that a comparison takes for the same.
    /// It cannot be changed later.
    pub hash_key: HashKey,
    /// After how long without a word a member is no longer waited for before removals are forgotten. It may come back later all the
    /// same. The same on all members; 10 minutes unless set.
    pub lease: Duration,
    /// How far a writer's clock may be ahead before its writes no longer win over concurrent ones. They stay visible as siblings. A
    /// minute unless set.
    pub clock_ahead_max: Duration,
    /// What the sessions with other members may spend.
    pub session: SessionOptions,
}

impl CrdtOptions {
    /// The settings for a local network.
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
}
