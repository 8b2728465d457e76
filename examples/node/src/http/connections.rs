//! The connections of one listener: a bounded number, of which the one that has been silent for longest makes
//! room for a new one.
//!
//! A probe must get its answer however many clients hold connections open, read slowly or not at all.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::AbortHandle;

/// The connections of a listener. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Connections(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    most: usize,
    origin: Instant,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    connections: BTreeMap<u64, Connection>,
}

#[derive(Debug)]
struct Connection {
    activity: Arc<Activity>,
    /// `None` until its task runs.
    task: Option<AbortHandle>,
}

/// The activity of a connection.
#[derive(Debug, Default)]
struct Activity {
    /// When its last byte moved, since the origin, in milliseconds.
    moved_ms: AtomicU64,
    /// A request is being carried out: there is nothing to read or to write.
    is_busy: AtomicBool,
}

impl Connections {
    /// At most `most` connections.
    pub(crate) fn new(most: usize) -> Connections {
        Connections(Arc::new(Inner { most, origin: Instant::now(), open: Mutex::default() }))
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // No code panics while it holds the lock, and each change leaves the table whole.
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.0.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Takes a place, and ends the connection that has been silent for longest if there is none. The place is
    /// free again when the slot is dropped.
    pub(crate) fn take(&self) -> Slot {
        let activity = Arc::new(Activity { moved_ms: AtomicU64::new(self.now_ms()), ..Activity::default() });
        let mut open = self.open();
        if open.connections.len() >= self.0.most {
            // A client cannot hold a place by a request that takes long: the time of a request is bounded.
            let silent = open.connections.iter().min_by_key(|(number, connection)| {
                let activity = &connection.activity;
                let is_busy = activity.is_busy.load(Ordering::Relaxed);
                (is_busy, activity.moved_ms.load(Ordering::Relaxed), **number)
            });
            if let Some(number) = silent.map(|(number, _)| *number)
                && let Some(task) = open.connections.remove(&number).and_then(|ended| ended.task)
            {
                task.abort();
            }
        }
        let number = open.next;
        open.next += 1;
        open.connections.insert(number, Connection { activity: Arc::clone(&activity), task: None });
        Slot { connections: self.clone(), number, activity }
    }

    /// The task that serves the connection of a slot, which ends with its place.
    pub(crate) fn serves(&self, number: u64, task: AbortHandle) {
        match self.open().connections.get_mut(&number) {
            Some(connection) => connection.task = Some(task),
            // The place went to another connection, or the task has ended.
            None => task.abort(),
        }
    }
}

/// The place of one connection.
#[derive(Debug)]
pub(crate) struct Slot {
    connections: Connections,
    number: u64,
    activity: Arc<Activity>,
}

impl Slot {
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The stream of the connection, whose bytes are noted.
    pub(crate) fn watch<S>(&self, stream: S) -> Watched<S> {
        Watched { stream, connections: self.connections.clone(), activity: Arc::clone(&self.activity) }
    }

    /// Carries out a request.
    pub(crate) fn busy(&self) -> Busy {
        self.activity.is_busy.store(true, Ordering::Relaxed);
        Busy(Arc::clone(&self.activity))
    }

    /// Ends when no byte has moved for `limit`, requests left out.
    pub(crate) async fn stalled(&self, limit: Duration) {
        loop {
            let moved = Duration::from_millis(self.activity.moved_ms.load(Ordering::Relaxed));
            let silent = self.connections.0.origin.elapsed().saturating_sub(moved);
            match limit.checked_sub(silent) {
                Some(left) if !left.is_zero() => tokio::time::sleep(left).await,
                _ if self.activity.is_busy.load(Ordering::Relaxed) => tokio::time::sleep(limit).await,
                _ => return,
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.connections.open().connections.remove(&self.number);
    }
}

/// A request that is being carried out, until it is dropped.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Activity>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.is_busy.store(false, Ordering::Relaxed);
    }
}

/// A stream that notes when bytes move.
#[derive(Debug)]
pub(crate) struct Watched<S> {
    stream: S,
    connections: Connections,
    activity: Arc<Activity>,
}

impl<S> Watched<S> {
    fn note(&self, did_move: bool) {
        if did_move {
            self.activity.moved_ms.store(self.connections.now_ms(), Ordering::Relaxed);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = to.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, to);
        self.note(to.filled().len() > before);
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note(matches!(result, Poll::Ready(Ok(1..))));
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.note(matches!(result, Poll::Ready(Ok(1..))));
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A task that ends only when it is aborted.
    fn endless() -> (AbortHandle, tokio::task::JoinHandle<()>) {
        let task = tokio::spawn(std::future::pending());
        (task.abort_handle(), task)
    }

    #[tokio::test]
    async fn the_connection_that_is_silent_for_longest_makes_room() {
        let connections = Connections::new(3);
        let slots: Vec<Slot> = (0..3).map(|_| connections.take()).collect();
        let mut tasks = Vec::new();
        for slot in &slots {
            let (abort, task) = endless();
            connections.serves(slot.number(), abort);
            tasks.push(task);
        }
        // The first one carries out a request, and a byte moved on the second one.
        let busy = slots[0].busy();
        slots[1].activity.moved_ms.store(connections.now_ms() + 1000, Ordering::Relaxed);
        let _fourth = connections.take();
        assert!(tasks.pop().unwrap().await.unwrap_err().is_cancelled());
        drop(busy);
        let _fifth = connections.take();
        assert!(tasks.remove(0).await.unwrap_err().is_cancelled());
        assert_eq!(connections.open().connections.len(), 3);
        // The places of the ended ones are taken already.
        drop(slots);
        assert_eq!(connections.open().connections.len(), 2);
    }

    #[tokio::test]
    async fn a_task_whose_place_is_gone_ends() {
        let connections = Connections::new(1);
        let slot = connections.take();
        let _next = connections.take();
        let (abort, task) = endless();
        connections.serves(slot.number(), abort);
        assert!(task.await.unwrap_err().is_cancelled());
    }

    #[tokio::test]
    async fn bytes_are_noted_in_both_directions() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let connections = Connections::new(1);
        let slot = connections.take();
        let (mut client, server) = tokio::io::duplex(4);
        let mut server = slot.watch(server);
        let read = |slot: &Slot| slot.activity.moved_ms.swap(u64::MAX, Ordering::Relaxed);
        read(&slot);
        client.write_all(b"ab").await.unwrap();
        assert_eq!(read(&slot), u64::MAX, "nothing was read yet");
        let mut two = [0; 2];
        server.read_exact(&mut two).await.unwrap();
        assert_ne!(read(&slot), u64::MAX);
        server.write_all(b"cdef").await.unwrap();
        server.flush().await.unwrap();
        assert_ne!(read(&slot), u64::MAX);
        // The client reads nothing: no byte moves.
        let full = server.write(b"g");
        assert!(tokio::time::timeout(Duration::from_millis(50), full).await.is_err());
        assert_eq!(read(&slot), u64::MAX);
    }
}
