//! Long texts as blobs.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::future::Future as _;
use std::pin::Pin;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use x0_kv::Store;
use x0_kv::blob::{BlobId, BlobReadError, BlobRef, Blobs, Fetch};

use super::KvKnowledgeError;
use super::record::RecordError;
use crate::retrieve::DocumentId;

/// How often this process has written each blob. A sweep removes a blob only if it was not written since the
/// sweep saw it first.
static WRITES: LazyLock<Mutex<HashMap<BlobId, u64>>> = LazyLock::new(Mutex::default);

fn writes() -> MutexGuard<'static, HashMap<BlobId, u64>> {
    // Nothing that can panic runs under the lock.
    WRITES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The blobs of a collection on this node. Each begins with the name of the collection's keyspace and a line
/// feed: a sweep knows by it which blobs of the node belong to the collection.
pub(super) struct LongTexts {
    blobs: Option<Blobs>,
    mark: Vec<u8>,
    fetching: BTreeMap<DocumentId, (BlobId, Fetch)>,
}

impl LongTexts {
    pub(super) fn new(store: &Store, keyspace: &str) -> Self {
        Self { blobs: store.blobs(), mark: format!("{keyspace}\n").into_bytes(), fetching: BTreeMap::new() }
    }

    /// Whether the store was opened with blobs.
    pub(super) fn are_possible(&self) -> bool {
        self.blobs.is_some()
    }

    /// Writes a text to this node's folder; the other nodes fetch it when they read its record.
    pub(super) fn add(&self, text: &str) -> Result<BlobRef, KvKnowledgeError> {
        let blobs = self.blobs.as_ref().ok_or(KvKnowledgeError::NoBlobs)?;
        let content = [&self.mark, text.as_bytes()].concat();
        *writes().entry(BlobId::of(&content)).or_default() += 1;
        let mut reference = blobs.add(&content[..]).map_err(KvKnowledgeError::BlobWrite)?;
        reference.media_type = "text/plain; charset=utf-8".to_owned();
        Ok(reference)
    }

    /// The text of a document. One that is not held as a whole is fetched, and is
    /// [late](KvKnowledgeError::BlobLate) until then.
    pub(super) fn read(
        &mut self,
        document: &DocumentId,
        blob: &BlobRef,
        len_max: usize,
    ) -> Result<String, KvKnowledgeError> {
        let blobs = self.blobs.clone().ok_or(KvKnowledgeError::NoBlobs)?;
        if blob.len > (len_max + self.mark.len()) as u64 {
            let len = usize::try_from(blob.len).unwrap_or(usize::MAX);
            return Err(KvKnowledgeError::TextTooLong { len, len_max });
        }
        let content = match blobs.read(&blob.id) {
            Ok(content) => content,
            Err(BlobReadError::NotHeld { .. } | BlobReadError::Missing { .. }) => {
                return Err(self.fetch(&blobs, document, blob));
            }
            Err(BlobReadError::Damaged { .. }) => {
                // Damaged chunks count as missing after it.
                let verified = blobs.verify(&blob.id);
                verified
                    .map_err(|source| KvKnowledgeError::BlobRead { document: document.clone(), source })?;
                return Err(self.fetch(&blobs, document, blob));
            }
            Err(source) => return Err(KvKnowledgeError::BlobRead { document: document.clone(), source }),
        };
        self.fetching.remove(document);
        let refuse = |source| KvKnowledgeError::Record { document: document.clone(), source };
        let text = content.strip_prefix(self.mark.as_slice()).ok_or_else(|| refuse(RecordError::Foreign))?;
        String::from_utf8(text.to_vec()).map_err(|_| refuse(RecordError::Text))
    }

    /// Begins or continues a fetch; the error that the reading ends with.
    fn fetch(&mut self, blobs: &Blobs, document: &DocumentId, blob: &BlobRef) -> KvKnowledgeError {
        let is_running = self.fetching.get(document).is_some_and(|(id, _)| *id == blob.id);
        if !is_running {
            self.fetching.insert(document.clone(), (blob.id, blobs.fetch(blob)));
        }
        // One that cannot even begin is a failure, which is not tried again at once.
        let fetch = self.fetching.get_mut(document).map(|(_, fetch)| Pin::new(fetch));
        let polled = fetch.map(|fetch| fetch.poll(&mut Context::from_waker(Waker::noop())));
        if let Some(Poll::Ready(Err(source))) = polled {
            self.fetching.remove(document);
            return KvKnowledgeError::BlobFetch { document: document.clone(), source };
        }
        KvKnowledgeError::BlobLate { document: document.clone() }
    }

    /// A document's record names no blob any more.
    pub(super) fn forget(&mut self, document: &DocumentId) {
        self.fetching.remove(document);
    }

    /// The next document whose fetch has ended; it can be read again.
    pub(super) fn poll(&mut self, waker: &Waker) -> Option<DocumentId> {
        let mut context = Context::from_waker(waker);
        let ended = self.fetching.iter_mut().find_map(|(document, (_, fetch))| {
            Pin::new(fetch).poll(&mut context).is_ready().then(|| document.clone())
        })?;
        self.fetching.remove(&ended);
        Some(ended)
    }

    /// Blobs of the collection on this node that are not `used`, each with the number of its writes.
    pub(super) fn loose(&self, used: &HashSet<BlobId>) -> Vec<(BlobId, u64)> {
        let Some(blobs) = &self.blobs else { return Vec::new() };
        let is_own = |id: &BlobId| {
            let mut mark = vec![0; self.mark.len()];
            blobs.read_at(id, 0, &mut mark).is_ok_and(|len| len == mark.len()) && mark == self.mark
        };
        let held = blobs.list().into_iter().map(|info| info.id);
        held.filter(|id| !used.contains(id) && is_own(id))
            .map(|id| (id, writes().get(&id).copied().unwrap_or_default()))
            .collect()
    }

    /// Removes a blob from this node, unless it was written again.
    pub(super) fn remove(&self, id: &BlobId, count: u64) -> bool {
        let Some(blobs) = &self.blobs else { return false };
        let writes = writes();
        writes.get(id).copied().unwrap_or_default() == count && blobs.remove(id).unwrap_or(false)
    }
}
