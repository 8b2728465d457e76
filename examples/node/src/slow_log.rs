//! A log on a disk that is as slow as the demo wants.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use x0_consensus::{
    Entry, ReadError, RecoverError, Recovered, SnapshotMeta, SnapshotReadError, SnapshotReader,
    SnapshotWriteError, SnapshotWriter, Storage, Write, WriteError,
};

/// How much longer each write takes, in milliseconds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Delay(Arc<AtomicU64>);

impl Delay {
    pub(crate) fn set(&self, milliseconds: u64) {
        self.0.store(milliseconds, Ordering::Relaxed);
    }
}

/// A storage whose writes are delayed on the thread of the log, as a slow disk does.
pub(crate) struct SlowLog {
    pub(crate) inner: Box<dyn Storage>,
    pub(crate) delay: Delay,
}

impl Storage for SlowLog {
    fn recover(&mut self) -> Result<Recovered, RecoverError> {
        self.inner.recover()
    }

    fn term(&self, index: u64) -> Result<Option<u64>, ReadError> {
        self.inner.term(index)
    }

    fn read(&mut self, indexes: Range<u64>, len_bytes_max: usize) -> Result<Vec<Entry>, ReadError> {
        self.inner.read(indexes, len_bytes_max)
    }

    fn write(&mut self, batch: &[Write]) -> Result<(), WriteError> {
        let delay = self.delay.0.load(Ordering::Relaxed);
        if delay > 0 {
            std::thread::sleep(Duration::from_millis(delay));
        }
        self.inner.write(batch)
    }

    fn snapshot_writer(
        &mut self,
        meta: &SnapshotMeta,
    ) -> Result<Box<dyn SnapshotWriter>, SnapshotWriteError> {
        self.inner.snapshot_writer(meta)
    }

    fn snapshot_reader(&mut self) -> Result<Option<Box<dyn SnapshotReader>>, SnapshotReadError> {
        self.inner.snapshot_reader()
    }

    fn len_bytes(&self) -> Option<u64> {
        self.inner.len_bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use x0_consensus::MemoryStorage;

    use super::*;

    #[test]
    fn writes_take_longer_and_nothing_else_changes() {
        let delay = Delay::default();
        let mut log = SlowLog { inner: Box::new(MemoryStorage::new()), delay: delay.clone() };
        let recovered = log.recover().unwrap();
        assert_eq!(recovered.last_index, 0);
        delay.set(30);
        let begun = Instant::now();
        log.write(&[]).unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(30));
        assert_eq!(log.read(1..1, 100).unwrap(), []);
        assert_eq!((log.term(0).unwrap(), log.len_bytes()), (Some(0), MemoryStorage::new().len_bytes()));
        assert!(log.snapshot_reader().unwrap().is_none());
        delay.set(0);
        assert!(log.snapshot_writer(&SnapshotMeta::default()).is_ok());
    }
}
