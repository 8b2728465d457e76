//! The section `[observe]` of node.toml.

use serde::{Deserialize, Deserializer, de};

use super::trace::receiver::Receiver;

/// The limits of the probes, and the traces.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ObserveConfig {
    /// A node whose applied index lags the committed index by more entries is not ready.
    pub(crate) lag_max: u64,
    /// A node whose event loop makes no progress for longer is not alive, in milliseconds.
    pub(crate) stall_ms: u64,
    /// The receiver of traces; without it nothing is traced.
    pub(crate) traces: Option<Receiver>,
    /// The share of the operations that are traced, of those that enter here without a trace.
    pub(crate) trace_ratio: Ratio,
    /// A traced operation that takes longer has a line in the log, in milliseconds.
    pub(crate) slow_ms: u64,
}

impl Default for ObserveConfig {
    fn default() -> ObserveConfig {
        ObserveConfig {
            lag_max: 1000,
            stall_ms: 10_000,
            traces: None,
            trace_ratio: Ratio(10_000),
            slow_ms: 1000,
        }
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

/// A share between 0 and 1, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ratio(u32);

impl Ratio {
    pub(crate) fn get(self) -> f64 {
        f64::from(self.0) / 1e6
    }
}

impl<'de> Deserialize<'de> for Ratio {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Ratio, D::Error> {
        let ratio = f64::deserialize(from)?;
        if !(0.0..=1.0).contains(&ratio) {
            let error = format!("`trace_ratio` is {ratio}: write a share from 0 to 1, such as 0.01");
            return Err(de::Error::custom(error));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most a million")]
        Ok(Ratio((ratio * 1e6).round() as u32))
    }
}
