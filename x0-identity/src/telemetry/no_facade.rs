//! Handles that record nothing: the build without the feature `metrics`. The items are those of `facade`.
#![allow(clippy::unused_self, dead_code, reason = "the items are those of `facade`")]

use std::time::Duration;

#[derive(Debug, Clone)]
pub(crate) struct Counter;

impl Counter {
    pub(crate) fn increment(&self, _: u64) {}
}

#[derive(Debug, Clone)]
pub(crate) struct Gauge;

impl Gauge {
    pub(crate) fn increment(&self, _: f64) {}

    pub(crate) fn decrement(&self, _: f64) {}
}

#[derive(Debug, Clone)]
pub(crate) struct Histogram;

impl Histogram {
    pub(crate) fn record(&self, _: Duration) {}
}

pub(crate) fn counter(_: &'static str, _: &'static str, _: &'static str) -> Counter {
    Counter
}

pub(crate) fn gauge(_: &'static str) -> Gauge {
    Gauge
}

pub(crate) fn histogram(_: &'static str) -> Histogram {
    Histogram
}
