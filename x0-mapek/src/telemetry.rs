//! The metrics of a loop, with the feature `metrics`.
//!
//! | name | kind | labels | meaning |
//! |---|---|---|---|
//! | `x0_mapek_readings_total` | counter | – | readings that were taken |
//! | `x0_mapek_refused_readings_total` | counter | – | readings that the knowledge refused |
//! | `x0_mapek_rounds_total` | counter | – | rounds of planning |
//! | `x0_mapek_loop_seconds` | histogram | – | the time of one turn of the driver, which reports it with `looped` |
//! | `x0_mapek_symptoms_total` | counter | – | subjects that became unhealthy: by how much their number rose from one round to the next |
//! | `x0_mapek_candidates_total` | counter | – | actions that the policy or an adviser proposed, in all rounds |
//! | `x0_mapek_events_total` | counter | `event`: the 13 names of `Event::name` | records, by what they say |
//! | `x0_mapek_refusals_total` | counter | `guard`: the 17 names of `GUARDS` | refusals, by guard; one for each change of the guard |
//! | `x0_mapek_unhealthy` | gauge | – | unhealthy subjects in the last round |
//! | `x0_mapek_in_flight` | gauge | – | actions between their decision and their verdict |
//! | `x0_mapek_storm` | gauge | – | 1 while the loop holds because too much is unhealthy, else 0 |
//!
//! Install a recorder before a loop is made: handles that were made earlier record nothing. Several loops of
//! one process share these names, and their gauges overwrite each other.

#[cfg(feature = "metrics")]
mod facade;
#[cfg(not(feature = "metrics"))]
#[path = "telemetry/noop.rs"]
mod facade;

#[cfg(feature = "metrics")]
pub use self::facade::{describe, looped};

use self::facade::{Counter, Gauge, counter, counter_of, gauge};
use crate::guard::GUARDS;
use crate::record::{EVENTS, Event, Record};

/// The handles of a loop.
pub(crate) struct LoopTelemetry {
    readings: Counter,
    refused_readings: Counter,
    rounds: Counter,
    symptoms: Counter,
    candidates: Counter,
    events: [Counter; EVENTS.len()],
    refusals: [Counter; GUARDS.len()],
    unhealthy: Gauge,
    in_flight: Gauge,
    storm: Gauge,
    /// Unhealthy subjects in the round before.
    unhealthy_before: usize,
}

impl LoopTelemetry {
    pub(crate) fn new() -> LoopTelemetry {
        LoopTelemetry {
            readings: counter("x0_mapek_readings_total"),
            refused_readings: counter("x0_mapek_refused_readings_total"),
            rounds: counter("x0_mapek_rounds_total"),
            symptoms: counter("x0_mapek_symptoms_total"),
            candidates: counter("x0_mapek_candidates_total"),
            events: EVENTS.map(|event| counter_of("x0_mapek_events_total", "event", event)),
            refusals: GUARDS.map(|guard| counter_of("x0_mapek_refusals_total", "guard", guard)),
            unhealthy: gauge("x0_mapek_unhealthy"),
            in_flight: gauge("x0_mapek_in_flight"),
            storm: gauge("x0_mapek_storm"),
            unhealthy_before: 0,
        }
    }

    pub(crate) fn reading(&self, is_taken: bool) {
        let counter = if is_taken { &self.readings } else { &self.refused_readings };
        counter.increment(1);
    }

    pub(crate) fn round(&mut self, unhealthy: usize, in_flight: usize, is_storm: bool) {
        self.rounds.increment(1);
        self.symptoms.increment(unhealthy.saturating_sub(self.unhealthy_before) as u64);
        self.unhealthy_before = unhealthy;
        self.unhealthy.set(unhealthy as f64);
        self.in_flight.set(in_flight as f64);
        self.storm.set(if is_storm { 1.0 } else { 0.0 });
    }

    pub(crate) fn candidates(&self, count: usize) {
        self.candidates.increment(count as u64);
    }

    pub(crate) fn record(&self, record: &Record) {
        let count = |names: &[&str], counters: &[Counter], name: &str| {
            let place = names.iter().position(|other| *other == name);
            place.and_then(|place| counters.get(place)).into_iter().for_each(|counter| counter.increment(1));
        };
        count(&EVENTS, &self.events, record.event.name());
        if let Event::Refused { guard, .. } = &record.event {
            count(&GUARDS, &self.refusals, guard);
        }
    }
}
