//! Removal of data that no document refers to.

use std::collections::{HashMap, HashSet};
use std::ops::Bound;
use std::time::Duration;

use x0_kv::blob::BlobId;
use x0_kv::{Bytes, OperationError};

use super::cells::Cells;
use super::long_texts::LongTexts;
use super::record::{Body, Record};
use super::{DOCUMENTS, PIECES};

/// Counts of a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Swept {
    /// Pieces removed.
    pub pieces: usize,
    /// Records of removed documents that were removed.
    pub records: usize,
    /// Blobs removed from this node.
    pub blobs: usize,
    /// Keys and blobs that wait for the end of their grace period.
    pub waiting: usize,
}

/// Keys that nothing refers to, each with its revision and the time since when it has been seen so. A writer
/// that uses a piece again writes it again, which changes its revision.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    waiting: HashMap<Bytes, (u64, Duration)>,
    /// The same of blobs, with the number of their writes.
    waiting_blobs: HashMap<BlobId, (u64, Duration)>,
}

impl Sweep {
    pub(super) fn run(
        &mut self,
        cells: &dyn Cells,
        long_texts: &LongTexts,
        now: Duration,
        grace: Duration,
    ) -> Result<Swept, OperationError> {
        let (mut used, mut used_blobs) = (HashSet::new(), HashSet::new());
        let (mut loose, mut is_known) = (Vec::new(), true);
        each(cells, DOCUMENTS, |key, value, revision| match Record::decode(&value) {
            Ok(Record { body: Body::Removed }) => loose.push((key, revision)),
            Ok(record) => {
                used.extend(record.pieces());
                used_blobs.extend(record.blob().map(|blob| blob.id));
            }
            // Perhaps of a later version: it may refer to any piece.
            Err(_) => is_known = false,
        })?;
        if !is_known {
            return Ok(Swept::default());
        }
        let records = loose.len();
        each(cells, PIECES, |key, _, revision| {
            let name = key.strip_prefix(PIECES).and_then(|name| <[u8; 32]>::try_from(name).ok());
            if name.is_none_or(|name| !used.contains(&name)) {
                loose.push((key, revision));
            }
        })?;
        let (mut swept, mut waiting) = (Swept::default(), HashMap::new());
        for (place, (key, revision)) in loose.into_iter().enumerate() {
            let before = self.waiting.get(&key).filter(|(before, _)| *before == revision);
            let since = before.map_or(now, |(_, since)| *since);
            if now.saturating_sub(since) < grace {
                waiting.insert(key, (revision, since));
            } else if cells.delete(&key, revision)? {
                *(if place < records { &mut swept.records } else { &mut swept.pieces }) += 1;
            }
        }
        let mut waiting_blobs = HashMap::new();
        for (id, writes) in long_texts.loose(&used_blobs) {
            let before = self.waiting_blobs.get(&id).filter(|(before, _)| *before == writes);
            let since = before.map_or(now, |(_, since)| *since);
            if now.saturating_sub(since) < grace {
                waiting_blobs.insert(id, (writes, since));
            } else {
                swept.blobs += usize::from(long_texts.remove(&id, writes));
            }
        }
        swept.waiting = waiting.len() + waiting_blobs.len();
        (self.waiting, self.waiting_blobs) = (waiting, waiting_blobs);
        Ok(swept)
    }
}

fn each(
    cells: &dyn Cells,
    prefix: &[u8],
    mut visit: impl FnMut(Bytes, Bytes, u64),
) -> Result<(), OperationError> {
    let mut from = Bound::Included(prefix.to_vec());
    loop {
        let (entries, next) = cells.range(prefix, &from, usize::MAX)?;
        entries.into_iter().for_each(|(key, value, revision)| visit(key, value, revision));
        let Some(next) = next else { return Ok(()) };
        from = Bound::Included(next);
    }
}
