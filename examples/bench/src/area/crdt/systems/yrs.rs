//! Yrs: one map, the state vector one way and a v2 update the other.

use anyhow::Result;
use yrs::updates::decoder::Decode;
use yrs::updates::encoder::Encode;
use yrs::{Any, Doc, Map, MapRef, Out, ReadTxn, StateVector, Transact, Update};

use super::{Couple, Pair, Replica, System, named};

pub(super) struct Yrs;

struct Document {
    doc: Doc,
    map: MapRef,
}

impl Document {
    fn new(node: u64) -> Self {
        let doc = Doc::with_client_id(node);
        let map = doc.get_or_insert_map("map");
        Self { doc, map }
    }

    /// The changes that the receiver of the state vector lacks.
    fn difference(&self, state_vector: &[u8]) -> Result<Vec<u8>> {
        let since = StateVector::decode_v1(state_vector)?;
        Ok(self.doc.transact().encode_diff_v2(&since))
    }

    fn apply(&self, update: &[u8]) -> Result<()> {
        self.doc.transact_mut().apply_update(Update::decode_v2(update)?)?;
        Ok(())
    }

    fn state_vector(&self) -> Vec<u8> {
        self.doc.transact().state_vector().encode_v1()
    }
}

impl Replica for Document {
    fn put(&mut self, pairs: &[Pair]) -> Result<()> {
        let mut transaction = self.doc.transact_mut();
        for (key, value) in pairs {
            self.map.insert(&mut transaction, key.as_str(), i64::from(*value));
        }
        Ok(())
    }

    fn remove(&mut self, keys: &[String]) -> Result<()> {
        let mut transaction = self.doc.transact_mut();
        for key in keys {
            self.map.remove(&mut transaction, key);
        }
        Ok(())
    }

    fn save(&mut self) -> Result<Vec<u8>> {
        Ok(self.doc.transact().encode_state_as_update_v2(&StateVector::default()))
    }

    fn len(&self) -> usize {
        self.map.len(&self.doc.transact()) as usize
    }
}

impl System for Yrs {
    fn name(&self) -> String {
        named("yrs")
    }

    fn replica(&self) -> Result<Box<dyn Replica>> {
        Ok(Box::new(Document::new(1)))
    }

    fn couple(&self, pairs: &[Pair]) -> Result<Box<dyn Couple>> {
        let mut here = Document::new(1);
        here.put(pairs)?;
        let mut couple = Two { here, there: Document::new(2) };
        couple.sync()?;
        Ok(Box::new(couple))
    }

    fn handshake(&self, writers: u64) -> Result<Option<usize>> {
        let mut random = crate::random::Random::new(writers);
        let (here, there) = (Document::new(1), Document::new(2));
        for _ in 0..writers {
            // 53 bits, as the identifiers that yrs makes up itself.
            let mut writer = Document::new(random.next() >> 11);
            writer.apply(&here.difference(&writer.state_vector())?)?;
            writer.put(&[("shared".to_owned(), 1)])?;
            here.apply(&writer.difference(&here.state_vector())?)?;
        }
        there.apply(&here.difference(&there.state_vector())?)?;
        Ok(Some(here.state_vector().len() + there.state_vector().len()))
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
        let request = self.there.state_vector();
        let update = self.here.difference(&request)?;
        self.there.apply(&update)?;
        Ok(request.len() + update.len())
    }

    fn remove(&mut self, keys: &[String]) -> Result<()> {
        self.here.remove(keys)
    }

    fn put_by(&mut self, lists: &[&[Pair]]) -> Result<()> {
        let whole = self.here.difference(&StateVector::default().encode_v1())?;
        for (node, list) in (100..).zip(lists) {
            let mut writer = Document::new(node);
            writer.apply(&whole)?;
            writer.put(list)?;
            self.here.apply(&writer.difference(&self.here.state_vector())?)?;
        }
        Ok(())
    }

    fn empty(&mut self) -> Result<()> {
        self.there = Document::new(2);
        Ok(())
    }

    fn there(&self, key: &str) -> Option<u32> {
        let value = self.there.map.get(&self.there.doc.transact(), key);
        match value {
            Some(Out::Any(Any::Number(value))) => u32::try_from(value.as_i64()?).ok(),
            _ => None,
        }
    }
}
