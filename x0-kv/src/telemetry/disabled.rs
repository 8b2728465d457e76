//! Stand-ins for the `metrics` facade when the feature `metrics` is off.

#[derive(Debug, Clone, Copy)]
pub(super) struct Counter;

impl Counter {
    #[inline]
    #[expect(clippy::unused_self, reason = "as the counter of the facade")]
    pub(super) fn increment(self, _count: u64) {}

    #[cfg_attr(
        not(any(feature = "crdt", feature = "blob", feature = "mesh")),
        allow(dead_code, reason = "only they count in totals")
    )]
    #[inline]
    #[expect(clippy::unused_self, reason = "as the counter of the facade")]
    pub(super) fn absolute(self, _count: u64) {}
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Gauge;

impl Gauge {
    #[inline]
    #[expect(clippy::unused_self, reason = "as the gauge of the facade")]
    pub(super) fn set(self, _value: f64) {}

    #[inline]
    #[expect(clippy::unused_self, reason = "as the gauge of the facade")]
    pub(super) fn increment(self, _value: f64) {}

    #[inline]
    #[expect(clippy::unused_self, reason = "as the gauge of the facade")]
    pub(super) fn decrement(self, _value: f64) {}
}

#[cfg_attr(not(feature = "redb"), allow(dead_code, reason = "only checkpoints are timed"))]
#[derive(Debug, Clone, Copy)]
pub(super) struct Histogram;

#[cfg_attr(not(feature = "redb"), allow(dead_code, reason = "only checkpoints are timed"))]
impl Histogram {
    #[inline]
    #[expect(clippy::unused_self, reason = "as the histogram of the facade")]
    pub(super) fn record(self, _value: std::time::Duration) {}
}

macro_rules! counter {
    ($name:literal $(, $key:literal => $value:expr)*) => {{
        $(let _ = $value;)*
        $crate::telemetry::facade::Counter
    }};
}

macro_rules! gauge {
    ($name:literal $(, $key:literal => $value:expr)*) => {
        $crate::telemetry::facade::Gauge
    };
}

#[cfg_attr(not(feature = "redb"), allow(unused_macros, reason = "only checkpoints are timed"))]
macro_rules! histogram {
    ($name:literal) => {
        $crate::telemetry::facade::Histogram
    };
}

#[cfg_attr(not(feature = "redb"), allow(unused_imports, reason = "only checkpoints are timed"))]
pub(super) use histogram;
pub(super) use {counter, gauge};
