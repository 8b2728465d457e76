//! Scans: iterators over a range whose pages all come from one applied state.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use crate::request::error::OperationError;
use crate::request::operation::{Consistency, Query, RangeQuery, SnapshotId};
use crate::request::outcome::{KeyValue, Outcome, ScanPage};
use crate::request::pending::Pending;
use crate::request::revision::Revision;
use crate::store::keyspace::Keyspace;

/// All entries of a range as they are at one revision. Returned by [`Keyspace::scan`].
///
/// A scan is a [`Stream`] for any runtime, and an [`IntoIterator`] whose iterator blocks the calling thread.
/// Pages are read when they are needed; every page comes from the state at the [`revision`](Scan::revision)
/// of the first one.
///
/// The node that answers the first page holds a snapshot of that state for the others. It holds at most
/// [`SCANS_MAX`](crate::limits::SCANS_MAX) snapshots, the least recently used making room, and each one until
/// [`SCAN_WRITTEN_LEN_MAX`](crate::limits::SCAN_WRITTEN_LEN_MAX) bytes were written after it was taken, for
/// that is the memory that it costs. When the snapshot is gone, or the leader that held it, the scan ends
/// with [`SnapshotExpired`](OperationError::SnapshotExpired): the entries before are valid, and a new scan
/// can begin after the last one.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use x0_kv::{RangeQuery, Store};
///
/// let store = Store::open_in_memory();
/// for number in 0..10 {
///     store.put(format!("key/{number}"), "before").wait()?;
/// }
/// let mut scan = store.scan(RangeQuery::prefix("key/").limit(3)).into_iter();
/// assert_eq!(scan.next().unwrap()?.value, "before");
/// store.put("key/9", "after").wait()?;
/// assert_eq!(scan.last().unwrap()?.value, "before");
/// # Ok(())
/// # }
/// ```
#[must_use = "a scan reads nothing until it is iterated"]
pub struct Scan {
    keyspace: Keyspace,
    consistency: Consistency,
    entries: std::vec::IntoIter<KeyValue>,
    snapshot: Option<SnapshotId>,
    /// The rest of the range; `None` at its end, or after an error.
    rest: Option<RangeQuery>,
    pending: Option<Pending<ScanPage>>,
}

impl Scan {
    pub(crate) fn new(keyspace: Keyspace, range: RangeQuery, consistency: Consistency) -> Scan {
        let entries = Vec::new().into_iter();
        Scan { keyspace, consistency, entries, snapshot: None, rest: Some(range), pending: None }
    }

    /// The revision of the state that is read: known once the first entry was returned.
    #[must_use]
    pub fn revision(&self) -> Option<Revision> {
        self.snapshot.map(|snapshot| snapshot.revision)
    }

    /// The request for the next page; `None` at the end.
    fn request(&mut self) -> Option<&mut Pending<ScanPage>> {
        if self.pending.is_none() {
            let query = Query::Scan { range: self.rest.clone()?, snapshot: self.snapshot };
            let pending = self.keyspace.read(query, self.consistency, |outcome| match outcome {
                Outcome::ScanPage(page) => Some(page),
                _ => None,
            });
            self.pending = Some(pending);
        }
        self.pending.as_mut()
    }

    fn arrived(&mut self, page: Result<ScanPage, OperationError>) -> Option<OperationError> {
        self.pending = None;
        let range = self.rest.take()?;
        match page {
            Ok(ScanPage { page, snapshot }) => {
                self.snapshot = Some(snapshot);
                self.entries = page.entries.into_iter();
                self.rest = page.continuation.map(|continuation| range.resume(continuation));
                None
            }
            Err(error) => Some(error),
        }
    }
}

impl Stream for Scan {
    type Item = Result<KeyValue, OperationError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(entry) = self.entries.next() {
                return Poll::Ready(Some(Ok(entry)));
            }
            let Some(pending) = self.request() else { return Poll::Ready(None) };
            let Poll::Ready(page) = Pin::new(pending).poll(cx) else { return Poll::Pending };
            if let Some(error) = self.arrived(page) {
                return Poll::Ready(Some(Err(error)));
            }
        }
    }
}

impl IntoIterator for Scan {
    type Item = Result<KeyValue, OperationError>;
    type IntoIter = BlockingScan;

    fn into_iter(self) -> BlockingScan {
        BlockingScan(self)
    }
}

/// The iterator of a [`Scan`]: blocks the calling thread while a page is read.
pub struct BlockingScan(Scan);

impl BlockingScan {
    /// The revision of the state that is read: known once the first entry was returned.
    #[must_use]
    pub fn revision(&self) -> Option<Revision> {
        self.0.revision()
    }
}

impl Iterator for BlockingScan {
    type Item = Result<KeyValue, OperationError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.0.entries.next() {
                return Some(Ok(entry));
            }
            self.0.request()?;
            let page = self.0.pending.take()?.wait();
            if let Some(error) = self.0.arrived(page) {
                return Some(Err(error));
            }
        }
    }
}

impl fmt::Debug for Scan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scan")
            .field("keyspace", &self.keyspace)
            .field("snapshot", &self.snapshot)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for BlockingScan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BlockingScan").field(&self.0).finish()
    }
}
