//! The base that lives in memory alone: a restart fills it again from snapshot and log.

use super::layer::{Bounds, Layer, Slot};
use super::{Base, BaseIter, EngineError};
use crate::request::outcome::{KeyValue, Versioned};

impl Base for Layer {
    fn get(&self, key: &[u8]) -> Result<Option<Versioned>, EngineError> {
        Ok(Layer::get(self, key).and_then(Slot::live))
    }

    fn scan<'a>(&'a self, bounds: Bounds<'a>, reverse: bool) -> Result<BaseIter<'a>, EngineError> {
        Ok(Box::new(self.range(bounds, reverse).filter_map(|(key, slot)| {
            let value = slot.value.clone()?;
            Some(Ok(KeyValue { key: bytes::Bytes::copy_from_slice(key), value, revision: slot.revision }))
        })))
    }

    fn in_memory(&self) -> Option<&Layer> {
        Some(self)
    }

    fn in_memory_mut(&mut self) -> Option<&mut Layer> {
        Some(self)
    }
}
