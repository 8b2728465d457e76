//! Handles of the `metrics` facade.
#![allow(dead_code, unused_imports, reason = "each part belongs to a feature")]

pub(crate) use metrics::{Counter, Gauge, Histogram};

pub(crate) fn counter(name: &'static str, label: &'static str, value: &'static str) -> Counter {
    metrics::counter!(name, label => value)
}

pub(crate) fn gauge(name: &'static str) -> Gauge {
    metrics::gauge!(name)
}

pub(crate) fn histogram(name: &'static str) -> Histogram {
    metrics::histogram!(name)
}
