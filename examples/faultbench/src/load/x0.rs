//! The load on x0-kv, through its client.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use x0_kv::{Client, RangeQuery, Store};

use super::{key, number};
use crate::client::{connect, number_of, value_of};

pub(super) struct X0 {
    store: Store,
    /// Ends with it.
    _client: Client,
}

impl X0 {
    pub(super) fn connect(config: &Path, patience: Duration) -> Result<X0> {
        let client = connect(config, None, patience)?;
        Ok(X0 { store: client.store().clone(), _client: client })
    }

    pub(super) async fn put(&self, number: u64) -> bool {
        self.store.put(key(number), value_of(number)).await.is_ok()
    }

    pub(super) async fn numbers(&self) -> Result<BTreeSet<u64>> {
        let mut found = BTreeSet::new();
        let mut next = Some(RangeQuery::prefix("load/"));
        while let Some(range) = next {
            let page = self.store.range(range.clone()).await?;
            let whole = page.entries.iter().filter_map(|entry| {
                number(&entry.key).filter(|number| number_of(&entry.value) == Some(*number))
            });
            found.extend(whole);
            next = page.continuation.map(|continuation| range.resume(continuation));
        }
        Ok(found)
    }
}
