//! A keyspace of the CRDT store that a node follows: bundles, revocations and federations. Each value proves
//! by its signature who wrote it, so that any node may write it again.

use std::future::Future;
use std::time::Duration;

use anyhow::Result;
use x0_kv::crdt::CrdtEntry;
use x0_kv::{CrdtStore, RangeQuery};

use crate::causes::causes;
use crate::log::Log;

/// How often everything is read again, also without a change.
const EVERY: Duration = Duration::from_secs(10);

/// What a node does with the entries of a keyspace.
pub(crate) trait Follower: Send + 'static {
    /// The event of the log when the entries cannot be read or used.
    const UNREAD: &'static str;

    /// Takes all entries, in the order of their keys.
    fn take(&mut self, store: &CrdtStore, entries: Vec<CrdtEntry>)
    -> impl Future<Output = Result<()>> + Send;
}

/// Passes all entries to the follower, now and after each change, on a task of the runtime until the store is
/// closed.
pub(crate) fn follow<F: Follower>(store: CrdtStore, log: Log, mut follower: F) -> Result<()> {
    let mut watch = store.watch("")?;
    tokio::spawn(async move {
        loop {
            let taken = async {
                let entries = entries(&store).await?;
                follower.take(&store, entries).await
            };
            if let Err(error) = taken.await {
                log.event(F::UNREAD, format!("why={}", causes(&error)));
            }
            // A change, or the time for another look.
            if let Ok(None) = tokio::time::timeout(EVERY, watch.next()).await {
                return;
            }
        }
    });
    Ok(())
}

/// All entries of a keyspace.
async fn entries(store: &CrdtStore) -> Result<Vec<CrdtEntry>> {
    let (mut entries, mut next) = (Vec::new(), Some(RangeQuery::all()));
    while let Some(range) = next {
        let page = store.range(&range).await?;
        entries.extend(page.entries);
        next = page.continuation.map(|continuation| range.resume(continuation));
    }
    Ok(entries)
}
