//! What holds the data.

use std::path::Path;

use crate::state::State;
use crate::state::storage::EngineError;

/// What holds a node's data.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Engine {
    /// Memory. The log and a snapshot beside it fill it again after a start.
    #[default]
    Memory,
    /// A redb file in the node's folder, fed by checkpoints, for more data than memory holds.
    #[cfg(feature = "redb")]
    Redb(crate::RedbOptions),
}

impl Engine {
    /// The state in `folder`, which exists.
    #[cfg_attr(not(feature = "redb"), expect(unused_variables, reason = "only redb has a file"))]
    pub(crate) fn state(&self, folder: &Path) -> Result<State, EngineError> {
        match self {
            Engine::Memory => Ok(State::in_memory()),
            #[cfg(feature = "redb")]
            Engine::Redb(options) => State::redb(&folder.join("data.redb"), options.clone()),
        }
    }
}
