//! Reads of the version of the file that one checkpoint left.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use redb::{AccessGuard, ReadOnlyTable, StorageError};

use super::super::entry::{Place, Space, Stored};
use super::super::{Base, BaseIter, EngineError};
use super::file::File;
use super::{Bounds, CHECKSUM_LEN, REVISION_LEN, WhileDoing};
use crate::request::outcome::Versioned;
use crate::request::revision::Revision;

type Table = ReadOnlyTable<&'static [u8], &'static [u8]>;
type Found<'a> = Result<(AccessGuard<'a, &'static [u8]>, AccessGuard<'a, &'static [u8]>), StorageError>;

/// The version of the file that one checkpoint left.
pub(super) struct RedbBase {
    pub(super) tables: BTreeMap<u64, Table>,
    pub(super) file: Arc<File>,
}

impl RedbBase {
    /// The entry of `key` that is stored as `bytes`, compared with its checksum.
    fn stored(&self, space: &Space, key: &[u8], bytes: &[u8]) -> Result<Stored, EngineError> {
        let path = self.file.path();
        let parts = bytes.split_first_chunk::<REVISION_LEN>();
        let parts = parts.and_then(|(revision, rest)| {
            rest.split_first_chunk::<CHECKSUM_LEN>().map(|(checksum, value)| (revision, checksum, value))
        });
        let Some((revision, checksum, value)) = parts else {
            return Err("an entry is shorter than its head").while_doing("read", path);
        };
        let stored = Stored {
            key: Bytes::copy_from_slice(key),
            value: Bytes::copy_from_slice(value),
            revision: u64::from_le_bytes(*revision),
            checksum: u32::from_le_bytes(*checksum),
        };
        stored.verified(space, &Place::File(path.to_owned()))
    }

    fn found(&self, space: &Space, found: Found<'_>) -> Result<Stored, EngineError> {
        let (key, bytes) = found.while_doing("read", self.file.path())?;
        self.stored(space, key.value(), bytes.value())
    }
}

impl Base for RedbBase {
    fn get(&self, space: &Space, key: &[u8]) -> Result<Option<Versioned>, EngineError> {
        let Some(table) = self.tables.get(&space.id) else { return Ok(None) };
        self.file.guarded("read", || {
            let Some(found) = table.get(key).while_doing("read", self.file.path())? else { return Ok(None) };
            let Stored { value, revision, .. } = self.stored(space, key, found.value())?;
            Ok(Some(Versioned { value, revision: Revision::new(revision) }))
        })
    }

    fn scan<'a>(
        &'a self,
        space: &'a Space,
        bounds: Bounds<'a>,
        reverse: bool,
    ) -> Result<BaseIter<'a>, EngineError> {
        let Some(table) = self.tables.get(&space.id) else { return Ok(Box::new(std::iter::empty())) };
        let range = self
            .file
            .guarded("read", || table.range::<&[u8]>(bounds).while_doing("read", self.file.path()))?;
        let mut range = Some(range);
        // Fused after an error of the file: what follows a damaged page is not known. An entry that does not
        // match its checksum does not end the range.
        Ok(Box::new(std::iter::from_fn(move || {
            let entries = range.as_mut()?;
            let next = self.file.guarded("read", || {
                let found = if reverse { entries.next_back() } else { entries.next() };
                found.map(|found| self.found(space, found)).transpose()
            });
            if !matches!(next, Ok(Some(_)) | Err(EngineError::Damaged(_))) {
                let ended = range.take();
                // Dropping a range touches pages.
                let _ = catch_unwind(AssertUnwindSafe(|| drop(ended)));
            }
            next.transpose()
        })))
    }
}

impl std::fmt::Debug for RedbBase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedbBase").field("path", &self.file.path()).finish_non_exhaustive()
    }
}
