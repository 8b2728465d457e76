//! The data folder of a node.

use crate::telemetry::facade::{Counter, counter};

/// Counts the times that damaged files of a data folder are set aside.
pub(crate) struct FolderTelemetry(Counter);

impl FolderTelemetry {
    pub(crate) fn new() -> FolderTelemetry {
        FolderTelemetry(counter!("x0_kv_folders_set_aside_total"))
    }

    pub(crate) fn set_aside(&self) {
        self.0.increment(1);
    }
}
