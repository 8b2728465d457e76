//! Counters that count nothing, without the feature `metrics`.

#[derive(Debug, Clone, Copy)]
pub(super) struct Counter;

pub(super) fn counter(_name: &'static str) -> Counter {
    Counter
}

#[cfg(feature = "quic")]
pub(super) fn labelled(_name: &'static str, _key: &'static str, _value: &'static str) -> Counter {
    Counter
}

#[expect(clippy::unused_self, reason = "the method of a counter that counts")]
impl Counter {
    pub(super) fn increment(&self, _value: u64) {}
}
