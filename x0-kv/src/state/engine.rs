//! The choice of the storage engine.

use std::path::Path;

use crate::space::Space;
use crate::state::State;
use crate::state::storage::EngineError;

/// The storage engine of a node.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Engine {
    /// Memory. A start fills it again from the log and its snapshot.
    #[default]
    Memory,
    /// A redb file in the folder of the node, written by checkpoints: for more data than memory holds.
    #[cfg(feature = "redb")]
    Redb(crate::RedbOptions),
}

impl Engine {
    /// Opens the state in `folder`, which exists.
    /// With `space`, checkpoints wait for it when the disk is full.
    #[cfg_attr(not(feature = "redb"), expect(unused_variables, reason = "only redb has a file"))]
    pub(crate) fn state(&self, folder: &Path, space: Option<&Space>) -> Result<State, EngineError> {
        match self {
            Engine::Memory => Ok(State::in_memory()),
            #[cfg(feature = "redb")]
            Engine::Redb(options) => State::redb_in(&folder.join("data.redb"), options.clone(), space),
        }
    }
}
