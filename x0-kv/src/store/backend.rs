//! What is behind a [`Store`](crate::Store): an engine in this process, a node of a cluster, or a client of one.

#[cfg(feature = "crdt")]
use crate::crdt::Request;
#[cfg(feature = "crdt")]
use crate::request::error::OperationError;
use crate::request::operation::Operation;
use crate::request::pending::Answer;
use crate::request::watch::Watchers;

/// Carries operations out. The store has checked them against the limits.
pub(crate) trait Dispatch: Send + Sync {
    /// Takes `operation` on and returns at once: with the answer if it is there, or where it will come.
    ///
    /// Bounded: beyond what the implementation lets wait, it answers
    /// [`Overloaded`](crate::OperationError::Overloaded).
    fn submit(&self, operation: Operation) -> Answer;

    /// As [`submit`](Dispatch::submit), for the CRDT keyspace.
    #[cfg(feature = "crdt")]
    fn submit_crdt(&self, _request: Request) -> Answer {
        Answer::ready(Err(OperationError::Unsupported { what: "a CRDT keyspace" }))
    }

    /// Who watches the linearizable keyspace here, if it can be watched.
    fn watchers(&self) -> Option<&Watchers>;

    /// Who watches the CRDT keyspace here, if there is one.
    #[cfg(feature = "crdt")]
    fn crdt_watchers(&self) -> Option<&Watchers> {
        None
    }

    /// The blobs here, if there are any.
    #[cfg(feature = "blob")]
    fn blobs(&self) -> Option<&crate::blob::Blobs> {
        None
    }

    /// Stops, waits until everything is released, and answers every operation from then on with
    /// [`Closed`](crate::OperationError::Closed). Called again it does nothing.
    fn close(&self);
}
