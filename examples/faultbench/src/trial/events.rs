//! What happened in a trial, from the logs of the machines, the records of the healers and the process table.

use std::time::Duration;

use serde::Deserialize;

use super::cluster::Cluster;
use super::judge::{Event, Stage};

/// The services of all machines, watched from outside. A process that appears in the place of another one is
/// an action of whatever supervises it.
#[derive(Debug)]
pub(crate) struct Watch {
    pids: Vec<Option<i32>>,
}

impl Watch {
    pub(crate) fn new(cluster: &Cluster) -> Watch {
        Watch { pids: cluster.machines.iter().map(super::machine::Machine::service).collect() }
    }

    /// Looks again. `planned` is a machine that was restarted on purpose meanwhile.
    pub(crate) fn look(&mut self, cluster: &Cluster, at: Duration, planned: Option<usize>) -> Vec<Event> {
        let found = cluster.machines.iter().map(super::machine::Machine::service).collect();
        self.compare(found, at, planned)
    }

    fn compare(&mut self, found: Vec<Option<i32>>, at: Duration, planned: Option<usize>) -> Vec<Event> {
        let mut events = Vec::new();
        for (place, (known, pid)) in self.pids.iter_mut().zip(found).enumerate() {
            let Some(pid) = pid else {
                // On purpose: the next process is the one that the person started.
                if planned == Some(place) {
                    *known = None;
                }
                continue;
            };
            let before = known.replace(pid);
            if before.is_some_and(|before| before != pid) && planned != Some(place) {
                let number = place as u64 + 1;
                events.push(Event {
                    at_ms: at.as_secs_f64() * 1000.0,
                    by: number,
                    subject: number,
                    stage: Stage::Action,
                    kind: "restart".into(),
                    text: "the process was started again".into(),
                });
            }
        }
        events
    }
}

/// A record of a healer, as `x0-node heal log --json` prints it.
#[derive(Debug, Clone, Deserialize)]
struct Record {
    number: u64,
    kind: String,
    subject: String,
    cause: String,
    event: String,
    #[serde(default)]
    evidence: Vec<Evidence>,
    #[serde(default)]
    guard: Option<String>,
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Evidence {
    signal: String,
    value: Option<f64>,
    threshold: Option<f64>,
}

/// A line of the log of a node or of its supervisor.
#[derive(Debug, Clone, PartialEq)]
struct Line<'a> {
    /// Milliseconds since midnight, UTC.
    day_ms: f64,
    event: &'a str,
    details: &'a str,
}

/// Milliseconds of a day.
const DAY_MS: f64 = 86_400_000.0;

/// The events of a node, in order. `begun_day_ms` is the begin of the load, in milliseconds since midnight
/// (UTC).
pub(crate) fn of_node(node: u64, log: &str, records: &str, begun_day_ms: f64) -> Vec<Event> {
    let records: Vec<Record> = records.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let lines: Vec<Line<'_>> = log.lines().filter_map(line).collect();
    // The newest first: a restart of the node begins to count its records again, and only the newest are
    // kept.
    let mut records = records.into_iter().rev().peekable();
    let mut events = Vec::new();
    for line in lines.into_iter().rev() {
        // A trial does not last for half a day: a difference of more is midnight.
        let at_ms = (line.day_ms - begun_day_ms + 1.5 * DAY_MS).rem_euclid(DAY_MS) - DAY_MS / 2.0;
        let own = |stage, text: &str| Event {
            at_ms,
            by: node,
            subject: node,
            stage,
            kind: "restart".into(),
            text: text.into(),
        };
        let event = match line.event {
            "node-failed" | "node-hung" => Some(own(Stage::Detected, line.details)),
            "node-ready" => Some(own(Stage::Proof, "the node serves again")),
            "heal" => {
                let number = number_of(line.details);
                match records.next_if(|record| Some(record.number) == number) {
                    Some(record) => of_record(node, at_ms, &record, line.details),
                    None => None,
                }
            }
            _ => None,
        };
        events.extend(event);
    }
    events.reverse();
    // A node is ready first at its start, which is no proof of anything.
    events.retain(|event| event.at_ms >= 0.0);
    events
}

fn of_record(by: u64, at_ms: f64, record: &Record, line: &str) -> Option<Event> {
    let stage = match record.event.as_str() {
        "refused" | "would-execute" | "claim-lost" | "escalated" => Stage::Detected,
        "executing" | "undoing" => Stage::Action,
        "improved" => Stage::Proof,
        "no-effect" | "worse" | "failed" => Stage::Failure,
        _ => return None,
    };
    // A node's healer of identities names its own SVID.
    let is_own = record.subject.starts_with("spiffe://");
    let number = record.subject.rsplit(' ').next().and_then(|id| u64::from_str_radix(id, 16).ok());
    let subject = number.or(is_own.then_some(by))?;
    let mut text = format!("{} ({}): {}", record.kind, record.cause, line);
    for Evidence { signal, value, threshold } in &record.evidence {
        let number =
            |number: &Option<f64>| number.map_or_else(|| "?".into(), |number| format!("{number:.3}"));
        text.push_str(&format!("; {signal} {} (threshold {})", number(value), number(threshold)));
    }
    if let Some((guard, reason)) = record.guard.as_ref().zip(record.reason.as_ref()) {
        text.push_str(&format!("; guard {guard}: {reason}"));
    }
    Some(Event { at_ms, by, subject, stage, kind: record.kind.clone(), text })
}

/// The number of the record in a line `record=N ...`.
fn number_of(details: &str) -> Option<u64> {
    details.strip_prefix("record=")?.split(' ').next()?.parse().ok()
}

/// Reads `TIME node=ID event=NAME details`.
fn line(text: &str) -> Option<Line<'_>> {
    let (time, rest) = text.split_once(" node=")?;
    let (_, rest) = rest.split_once(" event=")?;
    let (event, details) = rest.split_once(' ').unwrap_or((rest, ""));
    Some(Line { day_ms: day_ms(time)?, event, details })
}

/// The milliseconds since midnight of an RFC 3339 time.
fn day_ms(time: &str) -> Option<f64> {
    let clock = time.split_once('T')?.1.strip_suffix('Z')?;
    let mut parts = clock.split(':').map(|part| part.parse::<f64>().ok());
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    Some(((hours * 60.0 + minutes) * 60.0 + seconds) * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_process_in_the_place_of_another_is_a_restart() {
        let mut watch = Watch { pids: vec![Some(1), Some(2)] };
        let at = Duration::from_secs(3);
        assert!(watch.compare(vec![None, Some(2)], at, None).is_empty(), "gone is no action");
        let events = watch.compare(vec![Some(7), Some(2)], at, None);
        assert_eq!((events.len(), events[0].subject, events[0].at_ms), (1, 1, 3000.0));
        assert!(watch.compare(vec![Some(7), Some(2)], at, None).is_empty());
        // Stopped and started on purpose, seen while it is down or only later.
        assert!(watch.compare(vec![Some(7), Some(9)], at, Some(1)).is_empty());
        assert!(watch.compare(vec![Some(7), None], at, Some(1)).is_empty());
        assert!(watch.compare(vec![Some(7), Some(11)], at, None).is_empty());
    }

    #[test]
    fn a_line_of_a_log_has_a_time_and_an_event() {
        let read =
            line("2026-11-29T01:02:03.500Z node=0000000000000001 event=node-hung silent_ms=2000").unwrap();
        assert_eq!(read, Line { day_ms: 3_723_500.0, event: "node-hung", details: "silent_ms=2000" });
        assert_eq!(line("nonsense"), None);
        assert_eq!(line("12:00 node=1 event=x y"), None);
    }

    #[test]
    fn records_give_the_lines_of_the_log_their_meaning() {
        let log = "2026-11-29T00:00:01.000Z node=1 event=started \n\
                   2026-11-29T00:00:05.000Z node=1 event=heal record=1 transfer\n\
                   2026-11-29T00:00:06.000Z node=1 event=heal record=2 transfer\n\
                   2026-11-29T00:00:07.000Z node=1 event=node-hung silent_ms=2000\n";
        let record = |number, event| {
            format!(
                "{{\"number\":{number},\"kind\":\"transfer-leadership\",\"subject\":\"node 000000000000000a\",\
                 \"cause\":\"slow-disk\",\"event\":\"{event}\",\
                 \"evidence\":[{{\"signal\":\"write_age_seconds\",\"value\":0.5,\"threshold\":0.3}}]}}\n"
            )
        };
        let records = record(1, "executing") + &record(2, "improved");
        // The load began two seconds before midnight.
        let events = of_node(1, log, &records, DAY_MS - 2000.0);
        let seen: Vec<_> = events.iter().map(|event| (event.at_ms, event.subject, event.stage)).collect();
        assert_eq!(
            seen,
            [(7000.0, 10, Stage::Action), (8000.0, 10, Stage::Proof), (9000.0, 1, Stage::Detected)]
        );
        assert!(events[0].text.contains("write_age_seconds 0.500 (threshold 0.300)"), "{}", events[0].text);
        // A record that is not kept any more is left out.
        assert_eq!(of_node(1, log, &record(2, "improved"), 0.0).len(), 2);
        // The disk did not take the last one: the others keep their lines.
        let events = of_node(1, log, &record(1, "executing"), 0.0);
        assert_eq!((events.len(), events[0].at_ms, events[0].stage), (2, 5000.0, Stage::Action));
    }
}
