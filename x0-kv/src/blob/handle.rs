//! The blobs of a node, as programs hold them.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use x0_identity::NodeId;

use super::driver::{self, Event, SendMessage, Shared};
use super::fetch::{Fetch, FetchError, Waiting};
use super::{
    BlobExchange, BlobId, BlobInfo, BlobOpenError, BlobReadError, BlobReader, BlobRef, BlobStore,
    BlobStoreOptions, BlobWriteError, ExchangeOptions, ExchangeTotals,
};

/// How the blobs of a node are set up. They lie in the folder `blobs` beside the log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct BlobOptions {
    /// Settings of the folder.
    pub store: BlobStoreOptions,
    /// Settings of the exchange with other nodes.
    pub exchange: ExchangeOptions,
}

/// The blobs of a node, from [`Store::blobs`](crate::Store::blobs). Clones are the same ones.
///
/// All but [`fetch`](Blobs::fetch) and [`status`](Blobs::status) wait for the disk: in asynchronous code call
/// them where that is allowed, such as in `tokio::task::spawn_blocking`.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use x0_kv::blob::{BlobOptions, BlobRef};
/// use x0_kv::{Store, StoreOptions};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path();
/// let options = StoreOptions::new().blobs(BlobOptions::default());
/// let store = Store::open_with(path, &options)?;
/// let blobs = store.blobs().expect("they were asked for");
///
/// let reference = blobs.add(&[7; 1_000_000][..])?;
/// store.put("adapter", reference.encode()?).wait()?;
///
/// // On any node, later:
/// let value = store.get("adapter").wait()?.unwrap().value;
/// let reference = BlobRef::decode(&value)?;
/// blobs.fetch(&reference).wait()?; // at once, if it is held
/// assert_eq!(blobs.read(&reference.id)?.len(), 1_000_000);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Blobs(Arc<Running>);

struct Running {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// The status of a node's blobs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct BlobStatus {
    /// Blobs held as a whole.
    pub whole: usize,
    /// Blobs held in part.
    pub partial: usize,
    /// Bytes of all files together, as long as they will be.
    pub used_bytes: u64,
    /// Blobs that are being fetched.
    pub fetching: usize,
    /// Bytes of chunks in memory, on their way to the disk or to others.
    pub pending_bytes: usize,
    /// The peers that served wrong chunks, and for how many blobs, since the start.
    pub misbehaving: BTreeMap<NodeId, u64>,
    /// Counts since the start.
    pub totals: ExchangeTotals,
}

impl Blobs {
    /// Opens the folder `blobs` in `folder` and starts the driver. Without a function that sends there is no
    /// peer to fetch from.
    pub(crate) fn start(
        folder: &Path,
        options: BlobOptions,
        seed: u64,
        send: Option<SendMessage>,
    ) -> Result<Blobs, BlobOpenError> {
        let store = BlobStore::open(folder.join("blobs"), options.store)?;
        let shared = Shared::new(&store, send.is_none());
        let driven = Arc::clone(&shared);
        let exchange = BlobExchange::new(options.exchange, seed);
        let send = send.unwrap_or_else(|| Box::new(|_, _| {}));
        let thread = std::thread::Builder::new().name("x0-kv blob".into()).spawn(move || {
            driver::drive(&driven, exchange, send);
        });
        // Without a thread nothing is fetched or served.
        let thread = thread.map_err(|_| shared.close()).ok();
        Ok(Blobs(Arc::new(Running { shared, thread: Mutex::new(thread) })))
    }

    /// Adds what `from` gives, and returns when it is durable. What is said of it beside name and length is
    /// for the caller to fill in.
    ///
    /// # Errors
    /// Those of [`BlobStore::add`].
    pub fn add(&self, from: impl Read) -> Result<BlobRef, BlobWriteError> {
        let added = self.0.shared.store().ok_or(BlobWriteError::Closed)?.add(from)?;
        // A fetch of this blob that runs is complete now.
        self.0.shared.put(Event::Added { id: added.id });
        Ok(added)
    }

    /// Fetches a blob from the other members, as far as it is not held. Returns at once.
    pub fn fetch(&self, reference: &BlobRef) -> Fetch {
        let (id, total) = (reference.id, reference.len);
        let Some(store) = self.0.shared.store() else {
            return Fetch::ended(0, total, Err(FetchError::Closed));
        };
        let holding = store.holding(&id);
        let held = holding.as_ref().map_or(0, |holding| holding.chunks.held_bytes(holding.len));
        let known = match &holding {
            Some(holding) if holding.len != total => {
                Some(Err(FetchError::Length { stated: total, actual: holding.len }))
            }
            Some(holding) if holding.chunks.is_whole() => Some(Ok(())),
            _ if self.0.shared.is_alone => Some(Err(FetchError::Alone)),
            _ => None,
        };
        if let Some(result) = known {
            return Fetch::ended(held, total, result);
        }
        let waiting = Waiting::new(held, total);
        self.0.shared.put(Event::Fetch { id, len: total, waiting: Arc::clone(&waiting) });
        let (shared, dropped) = (Arc::clone(&self.0.shared), Arc::downgrade(&waiting));
        let on_drop = move || shared.put(Event::Dropped { id, waiting: dropped });
        Fetch { waiting, on_drop: Some(Box::new(on_drop)) }
    }

    /// Reads a whole blob into memory, checking it.
    ///
    /// # Errors
    /// Those of [`BlobStore::read`].
    pub fn read(&self, id: &BlobId) -> Result<Vec<u8>, BlobReadError> {
        self.held()?.read(id)
    }

    /// Reads a part of a blob: see [`BlobStore::read_at`].
    ///
    /// # Errors
    /// As there.
    pub fn read_at(&self, id: &BlobId, offset: u64, buffer: &mut [u8]) -> Result<usize, BlobReadError> {
        self.held()?.read_at(id, offset, buffer)
    }

    /// A reader of a blob, which checks as it reads. While there is one, the folder is in use.
    ///
    /// # Errors
    /// Those of [`BlobStore::reader`].
    pub fn reader(&self, id: &BlobId) -> Result<BlobReader, BlobReadError> {
        self.held()?.reader(id)
    }

    /// Checks every chunk that is held. Those that are damaged count as missing, and are fetched again if
    /// there is anybody to ask.
    ///
    /// # Errors
    /// Those of [`BlobStore::verify`].
    pub fn verify(&self, id: &BlobId) -> Result<Vec<u32>, BlobReadError> {
        self.held()?.verify(id)
    }

    /// Removes a blob here, and ends its fetches; other nodes keep theirs. Answers whether there was
    /// anything.
    ///
    /// # Errors
    /// Those of [`BlobStore::remove`].
    pub fn remove(&self, id: &BlobId) -> Result<bool, BlobWriteError> {
        let store = self.0.shared.store().ok_or(BlobWriteError::Closed)?;
        self.0.shared.put(Event::Removed { id: *id });
        store.remove(id)
    }

    /// All blobs that are held, whole or in part, in order of their names. None when the store is closed.
    #[must_use]
    pub fn list(&self) -> Vec<BlobInfo> {
        self.0.shared.store().map(|store| store.list()).unwrap_or_default()
    }

    /// The current status.
    #[must_use]
    pub fn status(&self) -> BlobStatus {
        self.0.shared.status()
    }

    fn held(&self) -> Result<BlobStore, BlobReadError> {
        self.0.shared.store().ok_or(BlobReadError::Closed)
    }

    pub(crate) fn put(&self, event: Event) {
        self.0.shared.put(event);
    }

    /// A message of a peer. Too many at once are lost, as a network loses them.
    pub(crate) fn message(&self, from: NodeId, payload: Bytes) {
        self.0.shared.message(from, payload);
    }

    /// Ends it, and returns when the files are released.
    pub(crate) fn close(&self) {
        self.0.close();
    }
}

impl Running {
    fn close(&self) {
        self.shared.stop();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // Whatever became of it: it is gone.
            let _ = thread.join();
        }
        self.shared.close();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Blobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blobs").finish_non_exhaustive()
    }
}
