//! Handles that record nothing, without the feature `metrics`.

#[derive(Debug, Clone, Copy)]
pub(super) struct Counter;

#[derive(Debug, Clone, Copy)]
pub(super) struct Gauge;

pub(super) fn counter(_name: &'static str) -> Counter {
    Counter
}

pub(super) fn counter_of(_name: &'static str, _label: &'static str, _value: &'static str) -> Counter {
    Counter
}

pub(super) fn gauge(_name: &'static str) -> Gauge {
    Gauge
}

#[expect(clippy::unused_self, reason = "the method of a counter that counts")]
impl Counter {
    pub(super) fn increment(&self, _value: u64) {}
}

#[expect(clippy::unused_self, reason = "the method of a gauge that is kept")]
impl Gauge {
    pub(super) fn set(&self, _value: f64) {}
}
