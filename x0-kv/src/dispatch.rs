//! What is behind a [`Store`](crate::Store): an engine in this process, a node of a cluster, or a client of one.

use crate::operation::Operation;
use crate::pending::Answer;

/// Carries operations out. The store has checked them against the limits.
pub(crate) trait Dispatch: Send + Sync {
    /// Takes `operation` on and returns at once: with the answer if it is there, or where it will come.
    ///
    /// Bounded: beyond what the implementation lets wait, it answers
    /// [`Overloaded`](crate::OperationError::Overloaded).
    fn submit(&self, operation: Operation) -> Answer;

    /// Stops, waits until everything is released, and answers every operation from then on with
    /// [`Closed`](crate::OperationError::Closed). Called again it does nothing.
    fn close(&self);
}
