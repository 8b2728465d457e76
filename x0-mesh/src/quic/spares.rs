//! Buffers of long messages, for the next ones.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

/// A shorter buffer costs the system too little to be kept. A longer one is memory that the allocator gives
/// back to the system, and each page of it that is used again is a page fault.
const SPARE_LEN_MIN: usize = 64 << 10;

/// Buffers that were used, at most `len_max` bytes of them: those that were kept last. There are none while
/// there is no [`User`], which would drop those that are not needed.
#[derive(Debug)]
pub(super) struct Spares {
    len_max: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// The one that was kept last is the last.
    buffers: Vec<Vec<u8>>,
    /// The capacity of all of them.
    len: usize,
    /// The fewest that there were since the last call of [`Spares::shrink`]: so many were not needed.
    unused: usize,
    /// How many [`User`]s there are.
    users: usize,
    /// When [`Spares::shrink`] last dropped what was not needed.
    shrunk_at: Option<Instant>,
}

/// A connection: it calls [`Spares::shrink`] from time to time.
#[derive(Debug)]
pub(super) struct User(Arc<Spares>);

impl Drop for User {
    fn drop(&mut self) {
        let mut kept = self.0.lock();
        kept.users -= 1;
        let dropped = if kept.users == 0 { std::mem::take(&mut *kept) } else { Kept::default() };
        // The system takes its memory back after the lock is free.
        drop(kept);
        drop(dropped);
    }
}

impl Kept {
    fn remove(&mut self, at: usize) -> Vec<u8> {
        let buffer = self.buffers.remove(at);
        self.len -= buffer.capacity();
        self.unused = self.unused.min(self.buffers.len());
        buffer
    }
}

impl Spares {
    pub(super) fn new(len_max: usize) -> Arc<Spares> {
        Arc::new(Spares { len_max, kept: Mutex::default() })
    }

    /// Notes a connection. Buffers are kept until the last of them is dropped.
    pub(super) fn user(self: &Arc<Self>) -> User {
        self.lock().users += 1;
        User(Arc::clone(self))
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // The state is consistent between any two statements, so a panic elsewhere does not spoil it.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a buffer whose content is not needed any more, instead of those that were kept first. Without a
    /// [`User`] the buffer is dropped: QUIC and the owner may return it after the last connection has ended.
    pub(super) fn keep(&self, mut buffer: Vec<u8>) {
        let len = buffer.capacity();
        if len < SPARE_LEN_MIN || len > self.len_max {
            return;
        }
        buffer.clear();
        let mut dropped = Vec::new();
        let mut kept = self.lock();
        if kept.users == 0 {
            return;
        }
        while kept.len + len > self.len_max {
            dropped.push(kept.remove(0));
        }
        kept.len += len;
        kept.buffers.push(buffer);
        // The system takes its memory back after the lock is free.
        drop(kept);
    }

    /// An empty buffer for a message of this length, if one was kept that is not much longer.
    pub(super) fn take(&self, len: usize) -> Option<Vec<u8>> {
        if len < SPARE_LEN_MIN {
            return None;
        }
        let mut kept = self.lock();
        let fits = |buffer: &Vec<u8>| (len..=len.saturating_mul(2)).contains(&buffer.capacity());
        let at = kept.buffers.iter().rposition(fits)?;
        Some(kept.remove(at))
    }

    /// Drops the buffers that were not needed since it last did so, unless that is less than `interval` ago:
    /// each connection calls it from time to time, however many there are.
    pub(super) fn shrink(&self, interval: Duration) {
        let now = Instant::now();
        let mut kept = self.lock();
        if kept.shrunk_at.is_some_and(|at| now.saturating_duration_since(at) < interval) {
            return;
        }
        kept.shrunk_at = Some(now);
        let dropped: Vec<_> = (0..kept.unused).map(|_| kept.remove(0)).collect();
        kept.unused = kept.buffers.len();
        drop(kept);
        drop(dropped);
    }

    /// Bytes whose buffer is kept after the last reference to them is dropped.
    pub(super) fn lend(self: &Arc<Self>, buffer: Vec<u8>) -> Bytes {
        if buffer.capacity() < SPARE_LEN_MIN {
            return Bytes::from(buffer);
        }
        Bytes::from_owner(Lent { buffer, spares: Arc::downgrade(self) })
    }
}

struct Lent {
    buffer: Vec<u8>,
    spares: Weak<Spares>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(spares) = self.spares.upgrade() {
            spares.keep(std::mem::take(&mut self.buffer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1 << 10;

    fn buffer(len: usize) -> Vec<u8> {
        vec![7; len]
    }

    #[test]
    fn buffers_that_were_kept_last_are_used_again() {
        let spares = Spares::new(400 * KIB);
        let _user = spares.user();
        assert_eq!(spares.take(100 * KIB), None);
        for len in [63, 401] {
            spares.keep(buffer(len * KIB));
        }
        assert_eq!(spares.lock().len, 0, "too short, too long");
        for len in [100, 101, 102, 103] {
            spares.keep(buffer(len * KIB));
        }
        // The first one made room for the last one.
        assert_eq!(spares.lock().len, 306 * KIB);
        assert_eq!(spares.take(104 * KIB), None);
        assert_eq!(spares.take(50 * KIB), None);
        let taken = spares.take(102 * KIB).map(|taken| (taken.len(), taken.capacity()));
        assert_eq!(taken, Some((0, 103 * KIB)));
        assert_eq!(spares.lock().len, 203 * KIB);
        // A message does not occupy a buffer of more than twice its length.
        spares.keep(buffer(150 * KIB));
        assert_eq!(spares.take(70 * KIB).map(|taken| taken.capacity()), Some(102 * KIB));
    }

    #[test]
    fn buffers_that_are_not_needed_are_dropped() {
        let spares = Spares::new(400 * KIB);
        let _user = spares.user();
        let count = || spares.lock().buffers.len();
        for _ in 0..4 {
            spares.keep(buffer(100 * KIB));
        }
        spares.shrink(Duration::ZERO);
        assert_eq!(count(), 4, "they are new");
        let taken = [0; 3].map(|_| spares.take(100 * KIB));
        for buffer in taken.into_iter().flatten() {
            spares.keep(buffer);
        }
        spares.shrink(Duration::ZERO);
        assert_eq!(count(), 3, "one was never taken");
        // Other connections call it too.
        for _ in 0..10 {
            spares.shrink(Duration::from_secs(3600));
        }
        assert_eq!(count(), 3, "the interval is not over");
        for _ in 0..2 {
            spares.shrink(Duration::ZERO);
        }
        assert_eq!((count(), spares.lock().len), (0, 0));
    }

    /// Buffers also come back after the end of a connection: from QUIC, and from the owner.
    #[test]
    fn nothing_is_kept_without_a_connection() {
        let spares = Spares::new(400 * KIB);
        let len = || spares.lock().len;
        let users = [spares.user(), spares.user()];
        let [first, last] = [0; 2].map(|_| spares.lend(buffer(100 * KIB)));
        drop(first);
        let [one, other] = users;
        drop(one);
        assert_eq!(len(), 100 * KIB, "the other connection goes on");
        drop(other);
        assert_eq!(len(), 0);
        drop(last);
        spares.keep(buffer(100 * KIB));
        assert_eq!(len(), 0, "nothing would drop them");
        let _user = spares.user();
        spares.keep(buffer(100 * KIB));
        assert_eq!(len(), 100 * KIB);
    }

    #[test]
    fn a_lent_buffer_comes_back_with_the_last_of_its_bytes() {
        let spares = Spares::new(400 * KIB);
        let user = spares.user();
        let bytes = spares.lend(buffer(100 * KIB));
        let part = bytes.slice(5..9);
        drop(bytes);
        assert_eq!((&part[..], spares.take(100 * KIB)), (&[7; 4][..], None));
        drop(part);
        assert!(spares.take(100 * KIB).is_some());
        assert_eq!(spares.lend(buffer(3)), buffer(3));
        let late = spares.lend(buffer(100 * KIB));
        drop((user, spares));
        assert_eq!(late.len(), 100 * KIB);
    }
}
