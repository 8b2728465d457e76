//! Catalogues, snapshots and caches.
#![no_main]

use std::io;

use libfuzzer_sys::fuzz_target;
use x0_ml::embed::{EmbeddingCache, ModelId};
use x0_ml::file::Folder;
use x0_ml::knowledge::{Knowledge, KnowledgeOptions, Snapshot};

/// One file in memory.
struct OneFile(Vec<u8>);

impl Folder for OneFile {
    fn read(&mut self, _: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(Some(self.0.clone()))
    }
    fn read_at(&mut self, _: &str, _: u64, _: &mut [u8]) -> io::Result<()> {
        Ok(())
    }
    fn write(&mut self, _: &str, bytes: &[u8]) -> io::Result<()> {
        self.0 = bytes.to_vec();
        Ok(())
    }
    fn append(&mut self, _: &str, bytes: &[u8]) -> io::Result<()> {
        self.0.extend(bytes);
        Ok(())
    }
    fn sync(&mut self, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn rename(&mut self, _: &str, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn remove(&mut self, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn sync_folder(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fuzz_target!(|file: &[u8]| {
    let _ = Knowledge::restore(KnowledgeOptions::new(), file);
    let _ = Snapshot::decode(file);
    let _ = EmbeddingCache::open(&mut OneFile(file.to_vec()), "cache", ModelId::of(&[]), 4);
});
