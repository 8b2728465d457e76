//! The target of the requests of a [`Store`](crate::Store) handle: a state in this process, a node of a
//! cluster, or a client of one.

use crate::blob::Blobs;
use crate::crdt::{CrdtOutcome, Request};
use crate::request::error::OperationError;
use crate::request::operation::Operation;
use crate::request::pending::Answer;
use crate::request::watch::Watchers;

/// Carries operations out. The handle has checked them against the limits.
#[cfg_attr(
    not(all(feature = "crdt", feature = "blob")),
    allow(dead_code, reason = "without these features a store has no way to them")
)]
pub(crate) trait Dispatch: Send + Sync {
    /// Accepts `operation` and returns at once: with the answer, or with the place where it will arrive.
    ///
    /// Bounded: when too many operations wait, it answers [`Overloaded`](crate::OperationError::Overloaded).
    fn submit(&self, operation: Operation) -> Answer;

    /// The watches of the linearizable store, if this node holds its data.
    fn watchers(&self) -> Option<&Watchers>;

    /// Whether there is a CRDT store, or another node that may have one.
    fn has_crdt(&self) -> bool {
        false
    }

    /// As [`submit`](Dispatch::submit), for the CRDT store.
    fn submit_crdt(&self, _request: Request) -> Answer<CrdtOutcome> {
        no_crdt()
    }

    /// The watches of the CRDT store, if this node holds its data.
    fn crdt_watchers(&self) -> Option<&Watchers> {
        None
    }

    /// The blobs of this node, if there are any.
    fn blobs(&self) -> Option<&Blobs> {
        None
    }

    /// Stops, waits until every file is released, and answers later operations with
    /// [`Closed`](crate::OperationError::Closed). A second call does nothing.
    fn close(&self);
}

/// The answer of a store without a CRDT store.
#[cfg_attr(not(feature = "crdt"), allow(dead_code, reason = "without the feature nobody asks"))]
pub(crate) fn no_crdt() -> Answer<CrdtOutcome> {
    Answer::ready(Err(OperationError::Unsupported { what: "a CRDT store" }))
}
