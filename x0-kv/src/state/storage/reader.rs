//! Reads of the applied state, from any thread.

use std::sync::Arc;

use super::page::{self, Overlay};
use super::{EngineError, Shared, Tables};
use crate::request::error::OperationError;
use crate::request::keyspace::KeyspaceName;
use crate::request::limits::RANGE_PAGE_LEN_MAX;
use crate::request::member::Members;
use crate::request::operation::{Query, RangeQuery, SnapshotId};
use crate::request::outcome::{Outcome, Page, ScanPage, Versioned};
use crate::request::revision::Revision;

/// A read of the applied state failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The keyspace does not exist.
    #[error("the keyspace does not exist: create it first")]
    KeyspaceMissing,
    /// The snapshot of a scan is not held any more.
    #[error("the snapshot of the scan is not held any more: begin a new scan after the last entry")]
    SnapshotExpired,
    /// The storage engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl From<ReadError> for OperationError {
    fn from(error: ReadError) -> OperationError {
        match error {
            ReadError::KeyspaceMissing => OperationError::KeyspaceMissing,
            ReadError::SnapshotExpired => OperationError::SnapshotExpired,
            ReadError::Engine(EngineError::Damaged(entry)) => OperationError::Damaged(entry),
            ReadError::Engine(error) => OperationError::failed(error),
        }
    }
}

/// Reads the applied state from any thread while another thread applies entries. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reader {
    pub(super) shared: Shared,
}

impl Reader {
    pub(crate) fn new(shared: Shared) -> Reader {
        Reader { shared }
    }

    /// The index of the last log entry whose effects are visible.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.shared.read().applied
    }

    /// Answers `query` from the state applied now.
    ///
    /// # Errors
    /// Those of [`ReadError`], as errors of the operation.
    pub fn query(&self, keyspace: &KeyspaceName, query: &Query) -> Result<Outcome, OperationError> {
        Ok(match query {
            Query::Get { key } => Outcome::Value(self.get(keyspace, key)?),
            Query::Range(range) => Outcome::Page(self.range(keyspace, range)?),
            Query::Scan { range, snapshot } => Outcome::ScanPage(self.scan(keyspace, range, *snapshot)?),
            Query::Keyspaces => Outcome::Keyspaces(self.keyspaces()),
        })
    }

    /// The member table. Does not wait while entries are applied.
    #[must_use]
    pub fn members(&self) -> Arc<Members> {
        self.shared.members().get()
    }

    /// A number that rises with each change of the member table; at least 1.
    #[must_use]
    pub fn members_version(&self) -> u64 {
        self.shared.members().version()
    }

    /// The names of all keyspaces in ascending order, without the default one.
    #[must_use]
    pub fn keyspaces(&self) -> Vec<KeyspaceName> {
        self.shared.read().spaces().iter().map(|(name, _)| name.clone()).collect()
    }

    /// The value of `key`.
    ///
    /// # Errors
    /// When the keyspace does not exist, or the storage engine cannot read the entry.
    pub fn get(&self, keyspace: &KeyspaceName, key: &[u8]) -> Result<Option<Versioned>, ReadError> {
        let tables = self.shared.read();
        tables.check_key(keyspace, key)?;
        let space = tables.resolve(keyspace).ok_or(ReadError::KeyspaceMissing)?;
        Ok(match tables.slot(&space, key) {
            Some(slot) => slot.versioned(&space, key)?,
            None if tables.base.in_memory().is_some() => tables.base.get(&space, key)?,
            None => unlocked(tables).get(&space, key)?,
        })
    }

    /// The value of `key`, if it can be read at once: it is in memory, and no thread applies entries at this
    /// moment.
    #[cfg_attr(not(feature = "mesh"), allow(dead_code, reason = "only an event loop must not wait"))]
    pub(crate) fn get_in_memory(
        &self,
        keyspace: &KeyspaceName,
        key: &[u8],
    ) -> Option<Result<Option<Versioned>, ReadError>> {
        let tables = self.shared.try_read()?;
        if let Err(error) = tables.check_key(keyspace, key) {
            return Some(Err(error));
        }
        let Some(space) = tables.resolve(keyspace) else { return Some(Err(ReadError::KeyspaceMissing)) };
        let found = match tables.slot(&space, key) {
            Some(slot) => slot.versioned(&space, key),
            None if tables.base.in_memory().is_some() => tables.base.get(&space, key),
            None => return None,
        };
        Some(found.map_err(ReadError::from))
    }

    /// One page of `range`, as it is at one moment. A limit of zero, or one that is too large, counts as the
    /// largest.
    ///
    /// # Errors
    /// As [`Reader::get`].
    pub fn range(&self, keyspace: &KeyspaceName, range: &RangeQuery) -> Result<Page, ReadError> {
        let tables = self.shared.read();
        tables.check(keyspace, range)?;
        let space = tables.resolve(keyspace).ok_or(ReadError::KeyspaceMissing)?;
        let Some(bounds) = page::bounds(range) else { return Ok(Page::default()) };
        let overlay = Overlay::collect(tables.layers(), &space, range, bounds);
        let page = if tables.base.in_memory().is_some() {
            // Under the lock: a clone of the base would make the next writes gather above it.
            overlay.page(&*tables.base, &space, range, bounds, RANGE_PAGE_LEN_MAX)?
        } else {
            overlay.page(&*unlocked(tables), &space, range, bounds, RANGE_PAGE_LEN_MAX)?
        };
        Ok(page.page())
    }

    /// One page of a scan. The first page takes a snapshot of the applied state, which is held for the other
    /// pages as long as its bounds allow: see [`Scan`](crate::Scan).
    ///
    /// # Errors
    /// As [`Reader::get`], and [`ReadError::SnapshotExpired`].
    pub fn scan(
        &self,
        keyspace: &KeyspaceName,
        range: &RangeQuery,
        snapshot: Option<SnapshotId>,
    ) -> Result<ScanPage, ReadError> {
        let scans = self.shared.scans();
        let (view, revision, written) = match snapshot {
            Some(id) => {
                let view = scans.get(id).ok_or(ReadError::SnapshotExpired)?;
                let tables = self.shared.read();
                tables.check(keyspace, range)?;
                (view, id.revision, tables.written)
            }
            None => {
                let mut tables = self.shared.write();
                tables.check(keyspace, range)?;
                (tables.view(), Revision::new(tables.applied), tables.written)
            }
        };
        let space = view.spaces().resolve(keyspace).ok_or(ReadError::KeyspaceMissing)?;
        let page = view.page(&space, range, RANGE_PAGE_LEN_MAX)?.page();
        let snapshot = match (snapshot, &page.continuation) {
            (None, Some(_)) => scans.hold(view, revision, written),
            (None, None) => SnapshotId { revision, number: 0 },
            (Some(id), Some(_)) => id,
            (Some(id), None) => {
                scans.finish(id, written);
                id
            }
        };
        Ok(ScanPage { page, snapshot })
    }
}

/// The base, after the lock is released because a disk may be slow.
#[expect(clippy::needless_pass_by_value, reason = "it releases the lock")]
fn unlocked(tables: std::sync::RwLockReadGuard<'_, Tables>) -> Arc<dyn super::Base> {
    Arc::clone(&tables.base)
}
