//! Reports of clients about members that let attempts time out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use x0_identity::NodeId;

/// The time for which a report counts.
const REPORT_COUNTS_FOR: Duration = Duration::from_secs(10);
/// The most clients whose reports about one member are kept; those of further ones are dropped.
const REPORTERS_MAX: usize = 1024;

/// When each client reported a member last, by member. Kept by the status service, read by any thread.
#[derive(Debug, Default)]
pub(crate) struct Reports(Mutex<BTreeMap<NodeId, BTreeMap<NodeId, Duration>>>);

impl Reports {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, BTreeMap<NodeId, Duration>>> {
        // Nothing that can panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the report of a client about these members, which are members: their number is bounded.
    pub(super) fn take(&self, now: Duration, client: NodeId, members: &BTreeSet<NodeId>) {
        let mut reports = self.lock();
        for member in members {
            let clients = reports.entry(*member).or_default();
            clients.retain(|_, at| now < *at + REPORT_COUNTS_FOR);
            if clients.len() < REPORTERS_MAX || clients.contains_key(&client) {
                clients.insert(client, now);
            }
        }
    }

    /// How many clients have reported each member lately.
    pub(super) fn counts(&self, now: Duration) -> BTreeMap<NodeId, u64> {
        let is_recent = |at: &&Duration| now < **at + REPORT_COUNTS_FOR;
        let count = |clients: &BTreeMap<NodeId, Duration>| clients.values().filter(is_recent).count() as u64;
        let counts = self.lock();
        let counts = counts.iter().map(|(member, clients)| (*member, count(clients)));
        counts.filter(|(_, count)| *count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> NodeId {
        NodeId::new(number).unwrap()
    }

    #[test]
    fn reports_count_once_for_each_client_and_for_a_while() {
        let (reports, at) = (Reports::default(), Duration::from_secs);
        reports.take(at(1), id(100), &[id(1), id(2)].into());
        reports.take(at(2), id(101), &[id(1)].into());
        reports.take(at(3), id(101), &[id(1)].into());
        assert_eq!(reports.counts(at(3)), [(id(1), 2), (id(2), 1)].into());
        assert_eq!(reports.counts(at(12)), [(id(1), 1)].into());
        assert_eq!(reports.counts(at(13)), BTreeMap::new());
        for client in 0..5000 {
            reports.take(at(20), id(1000 + client), &[id(3)].into());
        }
        assert_eq!(reports.counts(at(20)), [(id(3), REPORTERS_MAX as u64)].into());
        assert_eq!(reports.lock().keys().copied().collect::<Vec<_>>(), [id(1), id(2), id(3)]);
    }
}
