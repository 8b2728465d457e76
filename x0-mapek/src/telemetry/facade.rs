//! The handles of the `metrics` facade.

pub(super) use metrics::{Counter, Gauge};

pub(super) fn counter(name: &'static str) -> Counter {
    metrics::counter!(name)
}

pub(super) fn counter_of(name: &'static str, label: &'static str, value: &'static str) -> Counter {
    metrics::counter!(name, label => value)
}

pub(super) fn gauge(name: &'static str) -> Gauge {
    metrics::gauge!(name)
}

/// A driver gave a loop its inputs and carried out its outputs in this time. A loop has no clock: its driver
/// measures.
pub fn looped(elapsed: std::time::Duration) {
    metrics::histogram!("x0_mapek_loop_seconds").record(elapsed);
}

/// Gives the installed recorder the unit and the meaning of each name.
pub fn describe() {
    use metrics::Unit::{Count, Seconds};
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    describe_counter!("x0_mapek_readings_total", Count, "Readings that were taken");
    describe_counter!("x0_mapek_refused_readings_total", Count, "Readings that the knowledge refused");
    describe_counter!("x0_mapek_rounds_total", Count, "Rounds of planning");
    describe_histogram!("x0_mapek_loop_seconds", Seconds, "The time of one turn of the driver");
    describe_counter!("x0_mapek_symptoms_total", Count, "Subjects that became unhealthy");
    describe_counter!("x0_mapek_candidates_total", Count, "Actions that were proposed");
    describe_counter!("x0_mapek_events_total", Count, "Records, by what they say");
    describe_counter!("x0_mapek_refusals_total", Count, "Refusals, by guard");
    describe_gauge!("x0_mapek_unhealthy", Count, "Unhealthy subjects in the last round");
    describe_gauge!("x0_mapek_in_flight", Count, "Actions between their decision and their verdict");
    describe_gauge!("x0_mapek_storm", Count, "1 while the loop holds because too much is unhealthy");
}
