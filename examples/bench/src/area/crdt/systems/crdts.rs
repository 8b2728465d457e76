//! The crate crdts: a Map of MVReg. It has no differences; the whole state crosses, and is merged.

use anyhow::Result;
use crdts::{CmRDT, CvRDT, MVReg, Map};

use super::{Couple, Pair, Replica, System, named};

pub(super) struct Crdts;

type State = Map<String, MVReg<u32, u64>, u64>;

struct One {
    state: State,
    node: u64,
}

impl One {
    fn new(node: u64) -> Self {
        Self { state: State::new(), node }
    }
}

impl Replica for One {
    fn put(&mut self, pairs: &[Pair]) -> Result<()> {
        for (key, value) in pairs {
            let context = self.state.read_ctx().derive_add_ctx(self.node);
            let op =
                self.state.update(key.as_str(), context, |register, context| register.write(*value, context));
            self.state.apply(op);
        }
        Ok(())
    }

    fn remove(&mut self, keys: &[String]) -> Result<()> {
        for key in keys {
            let context = self.state.get(key).derive_rm_ctx();
            let op = self.state.rm(key.as_str(), context);
            self.state.apply(op);
        }
        Ok(())
    }

    /// Postcard writes numbers in as few bytes as serde allows; bincode would take more.
    fn save(&mut self) -> Result<Vec<u8>> {
        Ok(postcard::to_allocvec(&self.state)?)
    }

    fn len(&self) -> usize {
        self.state.len().val
    }
}

impl System for Crdts {
    fn name(&self) -> String {
        named("crdts")
    }

    fn replica(&self) -> Result<Box<dyn Replica>> {
        Ok(Box::new(One::new(1)))
    }

    fn couple(&self, pairs: &[Pair]) -> Result<Box<dyn Couple>> {
        let mut here = One::new(1);
        here.put(pairs)?;
        let mut couple = Two { here, there: One::new(2) };
        couple.sync()?;
        Ok(Box::new(couple))
    }

    fn handshake(&self, _: u64) -> Result<Option<usize>> {
        Ok(None)
    }
}

struct Two {
    here: One,
    there: One,
}

impl Couple for Two {
    fn put(&mut self, pairs: &[Pair]) -> Result<()> {
        self.here.put(pairs)
    }

    fn sync(&mut self) -> Result<usize> {
        let bytes = self.here.save()?;
        self.there.state.merge(postcard::from_bytes::<State>(&bytes)?);
        Ok(bytes.len())
    }

    fn there(&self, key: &str) -> Option<u32> {
        self.there.state.get(&key.to_owned()).val?.read().val.first().copied()
    }
}
