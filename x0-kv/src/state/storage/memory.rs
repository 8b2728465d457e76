//! The base in memory: a restart fills it again from snapshot and log.

use super::entry::Space;
use super::layer::{Bounds, Layer};
use super::{Base, BaseIter, EngineError};
use crate::request::outcome::Versioned;

impl Base for Layer {
    fn get(&self, space: &Space, key: &[u8]) -> Result<Option<Versioned>, EngineError> {
        match Layer::get(self, space.id, key) {
            Some(slot) => slot.versioned(space, key),
            None => Ok(None),
        }
    }

    fn scan<'a>(
        &'a self,
        space: &'a Space,
        bounds: Bounds<'a>,
        reverse: bool,
    ) -> Result<BaseIter<'a>, EngineError> {
        let entries = self.range(space.id, bounds, reverse);
        Ok(Box::new(entries.filter_map(|(key, slot)| slot.stored(space, key).transpose())))
    }

    fn in_memory(&self) -> Option<&Layer> {
        Some(self)
    }

    fn in_memory_mut(&mut self) -> Option<&mut Layer> {
        Some(self)
    }
}
