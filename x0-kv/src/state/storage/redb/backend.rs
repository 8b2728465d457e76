//! The file below redb, which waits for space instead of failing.
//!
//! redb refuses every operation, reads included, after a write that failed, until the file is closed and
//! opened again. A write for which the disk has no space is therefore repeated until it succeeds. Only the
//! thread of the checkpoint, or that of a restored snapshot, writes, and it waits without a lock that readers
//! need.

use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

use crate::space::{Lack, Space, is_full};

/// A file that waits for space once it is armed.
#[derive(Debug)]
pub(super) struct WaitingBackend<B = FileBackend> {
    inner: B,
    space: Space,
    is_armed: Arc<AtomicBool>,
}

impl<B: StorageBackend> WaitingBackend<B> {
    /// Until `is_armed` is set, a write without space fails: a start must not wait for space.
    pub(super) fn new(inner: B, space: Space, is_armed: Arc<AtomicBool>) -> WaitingBackend<B> {
        WaitingBackend { inner, space, is_armed }
    }

    /// Repeats `operation` as long as the disk is full and the node runs.
    fn waiting(&self, operation: impl Fn() -> io::Result<()>) -> io::Result<()> {
        loop {
            let done = operation();
            match &done {
                Err(error) if is_full(error) && self.is_armed.load(Ordering::Acquire) => {
                    self.space.set(Lack::Checkpoint, true);
                    if !self.space.wait() {
                        return done;
                    }
                }
                _ => {
                    self.space.set(Lack::Checkpoint, false);
                    return done;
                }
            }
        }
    }
}

impl<B: StorageBackend> StorageBackend for WaitingBackend<B> {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.waiting(|| self.inner.set_len(len))
    }

    /// Not repeated: after a failed synchronisation the system may have dropped what was written.
    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.waiting(|| self.inner.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use bytes::Bytes;
    use redb::Builder;
    use redb::backends::InMemoryBackend;

    use super::super::{File, WhileDoing};
    use super::*;
    use crate::request::command::Command;
    use crate::request::keyspace::KeyspaceName;
    use crate::request::operation::Mutation;
    use crate::state::State;
    use crate::state::durable::RedbOptions;

    /// A file in memory on a disk that is full at times.
    #[derive(Debug, Default)]
    struct Disk {
        inner: InMemoryBackend,
        is_full: Arc<AtomicBool>,
    }

    impl StorageBackend for Disk {
        fn len(&self) -> io::Result<u64> {
            self.inner.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.inner.read(offset, out)
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.inner.set_len(len)
        }

        fn sync_data(&self) -> io::Result<()> {
            self.inner.sync_data()
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            if self.is_full.load(Ordering::Acquire) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.inner.write(offset, data)
        }
    }

    fn open(disk: Disk, space: &Space) -> State {
        let path = std::path::Path::new("waiting");
        let backend = WaitingBackend::new(disk, space.clone(), Arc::new(AtomicBool::new(true)));
        // Without a cache every read goes to the file.
        let database = Builder::new().set_cache_size(0).create_with_backend(backend);
        let opened = File::recovered(database.while_doing("open", path).unwrap(), path).unwrap();
        State::on_file(opened, RedbOptions::default(), Some(space)).unwrap()
    }

    fn put(state: &mut State, index: u64) {
        let put = Mutation::Put { key: format!("{index}").into(), value: vec![b'v'; 2000].into() };
        let payload = Command::encode_write(None, &KeyspaceName::DEFAULT, &put);
        state.apply([(index, Some(&payload))], &mut Vec::new()).unwrap();
    }

    fn is_held(state: &State, index: u64) -> bool {
        let key = Bytes::from(format!("{index}"));
        state.reader().get(&KeyspaceName::DEFAULT, &key).unwrap().is_some()
    }

    fn wait_until(condition: impl Fn() -> bool) {
        let begun = Instant::now();
        while !condition() {
            assert!(begun.elapsed() < Duration::from_secs(60));
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_checkpoint_waits_for_space_while_reads_and_writes_go_on() {
        let (disk, space) = (Disk::default(), Space::default());
        let is_full = Arc::clone(&disk.is_full);
        let mut state = open(disk, &space);
        (1..=50).for_each(|index| put(&mut state, index));
        state.checkpoint().unwrap();
        assert_eq!(state.wait_for_checkpoint().unwrap(), 50);
        is_full.store(true, Ordering::Release);
        (51..=100).for_each(|index| put(&mut state, index));
        assert_eq!(state.checkpoint().unwrap(), 50);
        wait_until(|| space.status().checkpoint_waits);
        put(&mut state, 101);
        assert!((1..=101).all(|index| is_held(&state, index)));
        assert_eq!(state.checkpoint().unwrap(), 50, "it is still waiting");
        is_full.store(false, Ordering::Release);
        assert_eq!(state.wait_for_checkpoint().unwrap(), 100);
        assert!(!space.status().is_short());
        assert!((1..=101).all(|index| is_held(&state, index)));
    }

    #[test]
    fn a_state_that_is_dropped_waits_no_longer() {
        let (disk, space) = (Disk::default(), Space::default());
        let is_full = Arc::clone(&disk.is_full);
        let mut state = open(disk, &space);
        put(&mut state, 1);
        is_full.store(true, Ordering::Release);
        state.checkpoint().unwrap();
        wait_until(|| space.status().checkpoint_waits);
        drop(state);
    }
}
