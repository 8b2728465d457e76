//! Loro: one map, the version vector one way and updates the other.

use anyhow::Result;
use loro::{ExportMode, LoroDoc, LoroMap, LoroValue, ValueOrContainer, VersionVector};

use super::{Couple, Pair, Replica, System, named};

pub(super) struct Loro;

struct Document {
    doc: LoroDoc,
    map: LoroMap,
}

impl Document {
    fn new(node: u64) -> Result<Self> {
        let doc = LoroDoc::new();
        doc.set_peer_id(node)?;
        let map = doc.get_map("map");
        Ok(Self { doc, map })
    }

    fn difference(&self, version: &[u8]) -> Result<Vec<u8>> {
        let since = VersionVector::decode(version)?;
        Ok(self.doc.export(ExportMode::updates(&since))?)
    }

    fn apply(&self, update: &[u8]) -> Result<()> {
        self.doc.import(update)?;
        Ok(())
    }

    fn version(&self) -> Vec<u8> {
        self.doc.oplog_vv().encode()
    }
}

impl Replica for Document {
    fn put(&mut self, pairs: &[Pair]) -> Result<()> {
        for (key, value) in pairs {
            self.map.insert(key, i64::from(*value))?;
        }
        self.doc.commit();
        Ok(())
    }

    fn remove(&mut self, keys: &[String]) -> Result<()> {
        for key in keys {
            self.map.delete(key)?;
        }
        self.doc.commit();
        Ok(())
    }

    /// Caches that loro lets one free; the history it cannot drop while it is loaded.
    fn settle(&mut self) {
        self.doc.compact_change_store();
        self.doc.free_history_cache();
        self.doc.free_diff_calculator();
    }

    /// A shallow snapshot: the history up to now is left out.
    fn save(&mut self) -> Result<Vec<u8>> {
        let frontiers = self.doc.oplog_frontiers();
        Ok(self.doc.export(ExportMode::shallow_snapshot(&frontiers))?)
    }

    fn len(&self) -> usize {
        self.map.len()
    }
}

impl System for Loro {
    fn name(&self) -> String {
        named("loro")
    }

    fn replica(&self) -> Result<Box<dyn Replica>> {
        Ok(Box::new(Document::new(1)?))
    }

    fn couple(&self, pairs: &[Pair]) -> Result<Box<dyn Couple>> {
        let mut here = Document::new(1)?;
        here.put(pairs)?;
        let mut couple = Two { here, there: Document::new(2)? };
        couple.sync()?;
        Ok(Box::new(couple))
    }

    fn handshake(&self, writers: u64) -> Result<Option<usize>> {
        let mut random = crate::random::Random::new(writers);
        let (here, there) = (Document::new(1)?, Document::new(2)?);
        for _ in 0..writers {
            let mut writer = Document::new(random.next())?;
            writer.apply(&here.difference(&writer.version())?)?;
            writer.put(&[("shared".to_owned(), 1)])?;
            here.apply(&writer.difference(&here.version())?)?;
        }
        there.apply(&here.difference(&there.version())?)?;
        Ok(Some(here.version().len() + there.version().len()))
    }
}

struct Two {
    here: Document,
    there: Document,
}

impl Couple for Two {
    fn put(&mut self, pairs: &[Pair]) -> Result<()> {
        self.here.put(pairs)
    }

    fn sync(&mut self) -> Result<usize> {
        let request = self.there.version();
        let update = self.here.difference(&request)?;
        self.there.apply(&update)?;
        Ok(request.len() + update.len())
    }

    fn remove(&mut self, keys: &[String]) -> Result<()> {
        self.here.remove(keys)
    }

    fn put_by(&mut self, lists: &[&[Pair]]) -> Result<()> {
        let whole = self.here.doc.export(ExportMode::Snapshot)?;
        for (node, list) in (100..).zip(lists) {
            let mut writer = Document::new(node)?;
            writer.apply(&whole)?;
            writer.put(list)?;
            self.here.apply(&writer.difference(&self.here.version())?)?;
        }
        Ok(())
    }

    fn empty(&mut self) -> Result<()> {
        self.there = Document::new(2)?;
        Ok(())
    }

    fn there(&self, key: &str) -> Option<u32> {
        match self.there.map.get(key)? {
            ValueOrContainer::Value(LoroValue::I64(value)) => u32::try_from(value).ok(),
            _ => None,
        }
    }
}
