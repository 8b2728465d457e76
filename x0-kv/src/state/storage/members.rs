//! The member table for readers that must not wait while entries are applied.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::request::member::Members;

/// The member table as of the last batch that was applied.
#[derive(Debug)]
pub(crate) struct MemberTable {
    /// Counts the changes, so that a reader looks at the table only when there is something new.
    version: AtomicU64,
    table: Mutex<Arc<Members>>,
}

impl MemberTable {
    pub(super) fn new(members: Arc<Members>) -> MemberTable {
        MemberTable { version: AtomicU64::new(1), table: Mutex::new(members) }
    }

    pub(crate) fn publish(&self, members: Arc<Members>) {
        *self.table.lock().unwrap_or_else(PoisonError::into_inner) = members;
        self.version.fetch_add(1, Ordering::Release);
    }

    /// The table.
    pub(crate) fn get(&self) -> Arc<Members> {
        // Nothing that can panic runs under the lock.
        Arc::clone(&self.table.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A number that rises with each change; at least 1.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }
}
