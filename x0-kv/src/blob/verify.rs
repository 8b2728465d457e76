//! Verification of a folder of blobs that is closed.

use std::path::Path;

use super::{BlobReadError, BlobStore, BlobStoreOptions, CHUNK_LEN};

/// Verifies every chunk that is held. Returns the number of blobs, and the damage found.
pub(crate) fn verify_in(folder: &Path, progress: &mut dyn FnMut(u64)) -> (u64, Vec<String>) {
    let store = match BlobStore::open(folder, BlobStoreOptions::default()) {
        Ok(store) => store,
        Err(error) => return (0, vec![error.to_string()]),
    };
    let mut damage = Vec::new();
    let blobs = store.list();
    for blob in &blobs {
        let file = folder.join(format!("{}.blob", blob.id));
        let Some(holding) = store.holding(&blob.id) else {
            damage
                .push(format!("{} has no valid header: remove it, and fetch the blob again", file.display()));
            continue;
        };
        for index in 0..holding.chunks.count() {
            match store.read_piece(&blob.id, index) {
                Ok(_) => progress(CHUNK_LEN as u64),
                Err(BlobReadError::Missing { .. }) => {}
                Err(error) => damage.push(format!("{}: {error}", file.display())),
            }
        }
    }
    (blobs.len() as u64, damage)
}
