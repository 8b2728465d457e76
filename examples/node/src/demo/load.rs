//! The load: every record once, spread over the steps of the demo, and a few keys that are updated
//! continuously.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use tokio::task::JoinSet;
use x0_kv::Store;

use super::records::DataSet;

/// Records in flight at the same time.
const WRITERS: usize = 32;
/// Keys that are updated continuously.
const UPDATERS: usize = 4;
/// Reads in flight at the same time when the records are read back.
const READERS: usize = 64;
/// The time for one record including all retries.
const RECORD_LIMIT: Duration = Duration::from_secs(40);
const UPDATE_PAUSE: Duration = Duration::from_millis(4);
const PACE: Duration = Duration::from_millis(2);

/// The writers and their progress. They run until `stop_and_verify`.
#[derive(Debug)]
pub(crate) struct Load {
    shared: Arc<Shared>,
    tasks: JoinSet<Result<()>>,
}

#[derive(Debug)]
struct Shared {
    data: DataSet,
    store: Store,
    progress: Mutex<Progress>,
}

#[derive(Debug)]
struct Progress {
    /// The next record to write.
    next: usize,
    /// The records that the writers may write, and their schedule.
    stage: Stage,
    is_acknowledged: Vec<bool>,
    acknowledged: usize,
    repeated: u64,
    /// The last value of each updated key that was acknowledged.
    updates: [u64; UPDATERS],
    is_stopping: bool,
    last: Instant,
    longest_gap: Duration,
}

#[derive(Debug)]
struct Stage {
    begun: Instant,
    from: usize,
    until: usize,
    lasts: Duration,
}

/// The result of reading everything back.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) written: usize,
    pub(crate) acknowledged: usize,
    pub(crate) read_back: usize,
    pub(crate) lost: usize,
    pub(crate) updates_acknowledged: u64,
    pub(crate) repeated: u64,
}

impl Shared {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        // Nothing that can panic runs under the lock.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Load {
    /// Starts the writers. Records wait for a stage; updates start at once.
    pub(crate) fn start(data: DataSet, store: Store) -> Load {
        let now = Instant::now();
        let progress = Progress {
            next: 0,
            stage: Stage { begun: now, from: 0, until: 0, lasts: Duration::ZERO },
            is_acknowledged: vec![false; data.records.len()],
            acknowledged: 0,
            repeated: 0,
            updates: [0; UPDATERS],
            is_stopping: false,
            last: now,
            longest_gap: Duration::ZERO,
        };
        let shared = Arc::new(Shared { data, store, progress: Mutex::new(progress) });
        let mut tasks = JoinSet::new();
        for _ in 0..WRITERS {
            tasks.spawn(write_records(Arc::clone(&shared)));
        }
        for updater in 0..UPDATERS {
            tasks.spawn(update(Arc::clone(&shared), updater));
        }
        Load { shared, tasks }
    }

    /// Releases another `share` of the records (of 1), evenly over `lasts`.
    pub(crate) fn stage(&self, share: f64, lasts: Duration) {
        let total = self.shared.data.records.len();
        let mut progress = self.shared.progress();
        let from = progress.stage.until;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a count")]
        let count = (total as f64 * share).ceil() as usize;
        progress.stage = Stage { begun: Instant::now(), from, until: (from + count).min(total), lasts };
    }

    /// The numbers of acknowledged records and updates.
    pub(crate) fn acknowledged(&self) -> (usize, u64) {
        let progress = self.shared.progress();
        (progress.acknowledged, progress.updates.iter().sum())
    }

    /// Whether all records of the stage are acknowledged and its time has passed.
    pub(crate) fn is_stage_done(&self) -> bool {
        let progress = self.shared.progress();
        progress.acknowledged >= progress.stage.until
            && progress.stage.begun.elapsed() >= progress.stage.lasts
    }

    /// Restarts the measurement of the longest time between two acknowledgements.
    pub(crate) fn reset_gap(&self) {
        let mut progress = self.shared.progress();
        progress.last = Instant::now();
        progress.longest_gap = Duration::ZERO;
    }

    /// The longest time between two acknowledgements since it was reset.
    pub(crate) fn longest_gap(&self) -> Duration {
        self.shared.progress().longest_gap
    }

    /// An error if a writer has failed.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.tasks.try_join_next() {
            Some(ended) => {
                ended.context("a writer panicked")?.and_then(|()| bail!("a writer ended too early"))
            }
            None => Ok(()),
        }
    }

    /// Waits for the operations in flight and reads everything back.
    pub(crate) async fn stop_and_verify(mut self) -> Result<Found> {
        self.shared.progress().is_stopping = true;
        while let Some(ended) = self.tasks.join_next().await {
            ended.context("a writer panicked")??;
        }
        let mut found = read_back(&self.shared).await?;
        let progress = self.shared.progress();
        found.written = progress.next;
        found.acknowledged = progress.acknowledged;
        found.updates_acknowledged = progress.updates.iter().sum();
        found.repeated = progress.repeated;
        Ok(found)
    }
}

impl Progress {
    fn acknowledge(&mut self) {
        let now = Instant::now();
        self.longest_gap = self.longest_gap.max(now - self.last);
        self.last = now;
    }

    /// The next record, if it is due.
    fn take_next(&mut self) -> Option<usize> {
        let stage = &self.stage;
        let passed = stage.begun.elapsed().as_secs_f64() / stage.lasts.as_secs_f64().max(1e-9);
        let due = stage.from as f64 + (stage.until - stage.from) as f64 * passed;
        let is_due = self.next < stage.until && self.next as f64 <= due;
        is_due.then(|| {
            self.next += 1;
            self.next - 1
        })
    }
}

/// Retries a write until the store acknowledges it. Writing twice is harmless here, because these keys have
/// one writer.
pub(crate) async fn put(store: &Store, key: &Bytes, value: &Bytes, mut repeated: impl FnMut()) -> Result<()> {
    let begun = Instant::now();
    loop {
        match store.put(key.clone(), value.clone()).await {
            Ok(_) => return Ok(()),
            Err(error) if begun.elapsed() > RECORD_LIMIT => {
                return Err(error).context(format!("the store acknowledged no write for {RECORD_LIMIT:?}"));
            }
            Err(_) => {
                repeated();
                tokio::time::sleep(PACE).await;
            }
        }
    }
}

async fn write_records(shared: Arc<Shared>) -> Result<()> {
    loop {
        let next = {
            let mut progress = shared.progress();
            if progress.is_stopping {
                return Ok(());
            }
            progress.take_next()
        };
        let Some(record) = next else {
            tokio::time::sleep(PACE).await;
            continue;
        };
        let (key, value) = &shared.data.records[record];
        put(&shared.store, key, value, || shared.progress().repeated += 1).await?;
        let mut progress = shared.progress();
        progress.acknowledge();
        progress.is_acknowledged[record] = true;
        progress.acknowledged += 1;
    }
}

async fn update(shared: Arc<Shared>, updater: usize) -> Result<()> {
    let key = update_key(updater);
    for count in 1.. {
        if shared.progress().is_stopping {
            break;
        }
        let value = Bytes::from(count.to_string());
        put(&shared.store, &key, &value, || shared.progress().repeated += 1).await?;
        {
            let mut progress = shared.progress();
            progress.acknowledge();
            progress.updates[updater] = count;
        }
        tokio::time::sleep(UPDATE_PAUSE).await;
    }
    Ok(())
}

fn update_key(updater: usize) -> Bytes {
    Bytes::from(format!("update/{updater}"))
}

async fn read_back(shared: &Arc<Shared>) -> Result<Found> {
    let mut found = Found::default();
    let mut readers = JoinSet::new();
    let total = shared.data.records.len();
    let mut next = 0;
    while next < total || !readers.is_empty() {
        while next < total && readers.len() < READERS {
            let shared = Arc::clone(shared);
            readers.spawn(async move {
                let (key, value) = &shared.data.records[next];
                let got = get(&shared.store, key).await?;
                anyhow::Ok((next, got.as_ref() == Some(value)))
            });
            next += 1;
        }
        if let Some(read) = readers.join_next().await {
            let (record, is_as_written) = read.context("a reader panicked")??;
            found.read_back += usize::from(is_as_written);
            found.lost += usize::from(!is_as_written && shared.progress().is_acknowledged[record]);
        }
    }
    for updater in 0..UPDATERS {
        let got = get(&shared.store, &update_key(updater)).await?;
        let held = got.and_then(|value| std::str::from_utf8(&value).ok()?.parse::<u64>().ok());
        // An unacknowledged update may have been applied; no acknowledged one may be missing.
        found.lost += usize::from(held.unwrap_or(0) < shared.progress().updates[updater]);
    }
    Ok(found)
}

async fn get(store: &Store, key: &Bytes) -> Result<Option<Bytes>> {
    let begun = Instant::now();
    loop {
        match store.get(key.clone()).await {
            Ok(got) => return Ok(got.map(|versioned| versioned.value)),
            Err(error) if begun.elapsed() > RECORD_LIMIT => {
                return Err(error).context(format!("the store served no read for {RECORD_LIMIT:?}"));
            }
            Err(_) => tokio::time::sleep(PACE).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(count: usize) -> DataSet {
        let record =
            |number| (Bytes::from(format!("key/{number:04}")), Bytes::from(format!("value {number}")));
        DataSet { source: "test".into(), records: (0..count).map(record).collect(), too_long: 0 }
    }

    async fn written(store: &Store, count: usize) -> Load {
        let mut load = Load::start(data(count), store.clone());
        load.stage(0.5, Duration::from_millis(20));
        while !load.is_stage_done() {
            load.check().unwrap();
            tokio::time::sleep(PACE).await;
        }
        assert_eq!(load.acknowledged().0, count / 2);
        load.stage(0.5, Duration::ZERO);
        while !load.is_stage_done() {
            tokio::time::sleep(PACE).await;
        }
        load
    }

    #[tokio::test]
    async fn everything_is_written_once_and_read_back() {
        let store = Store::open_in_memory();
        let found = written(&store, 100).await.stop_and_verify().await.unwrap();
        assert_eq!((found.written, found.acknowledged, found.read_back, found.lost), (100, 100, 100, 0));
        assert!(found.updates_acknowledged > 0);
    }

    /// Lost, altered and outdated values are detected.
    #[tokio::test]
    async fn lost_values_are_found() {
        let store = Store::open_in_memory();
        let load = written(&store, 100).await;
        store.delete("key/0007").await.unwrap();
        store.put("key/0008", "something else").await.unwrap();
        let shared = Arc::clone(&load.shared);
        let mut load = load;
        shared.progress().is_stopping = true;
        while load.tasks.join_next().await.is_some() {}
        store.put("update/1", "0").await.unwrap();
        let found = load.stop_and_verify().await.unwrap();
        assert_eq!((found.acknowledged, found.read_back, found.lost), (100, 98, 3));
    }
}
