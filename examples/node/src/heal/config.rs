//! The section `[heal]` of the configuration.

use serde::Deserialize;

/// The least limit: a disk under load takes some tens of milliseconds.
const SLOW_DISK_MS_MIN: u64 = 100;

/// The section `[heal]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct HealConfig {
    /// What the healer does.
    pub(crate) mode: HealMode,
    /// A disk is slow when a write of the log waits this long for it, in milliseconds.
    pub(crate) slow_disk_ms: u64,
}

/// What the healer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum HealMode {
    /// Nothing.
    Off,
    /// It takes readings and plans nothing.
    Observe,
    /// It records what it would do.
    DryRun,
    /// It acts.
    Active,
}

impl Default for HealConfig {
    fn default() -> HealConfig {
        HealConfig { mode: HealMode::DryRun, slow_disk_ms: 300 }
    }
}

impl HealConfig {
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.slow_disk_ms >= SLOW_DISK_MS_MIN {
            return Ok(());
        }
        Err(format!(
            "`heal.slow_disk_ms` is {}, and a usual disk takes that long under load; write at least {SLOW_DISK_MS_MIN}, or \
             `mode = \"off\"` for no healer",
            self.slow_disk_ms
        ))
    }
}
