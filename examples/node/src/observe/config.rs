//! The section `[observe]` of node.toml.

use serde::Deserialize;

/// The limits of the probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ObserveConfig {
    /// A node whose applied index lags the committed index by more entries is not ready.
    pub(crate) lag_max: u64,
    /// A node whose event loop makes no progress for longer is not alive, in milliseconds.
    pub(crate) stall_ms: u64,
}

impl Default for ObserveConfig {
    fn default() -> ObserveConfig {
        ObserveConfig { lag_max: 1000, stall_ms: 10_000 }
    }
}

impl ObserveConfig {
    /// The first rule that the section breaks, with the remedy.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.stall_ms < 1000 {
            return Err(
                "[observe] `stall_ms` is at least 1000: a busy machine may delay a node for less".into()
            );
        }
        Ok(())
    }
}
