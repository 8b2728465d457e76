//! The summary in the JSON form of x0-bench: figures of x0 beside those of a peer.

use anyhow::Result;
use serde::Serialize;

use super::summary::{Cell, Summary};

/// A row of x0-bench (`examples/bench/src/row.rs`).
#[derive(Debug, Serialize)]
struct Row<'a> {
    area: &'static str,
    case: &'a str,
    metric: &'static str,
    unit: &'static str,
    x0: Option<f64>,
    peer: Option<f64>,
    peer_name: String,
    /// Above 1 means that x0 is better.
    ratio: Option<f64>,
}

type Metric = (&'static str, &'static str, fn(&Cell) -> Option<f64>);

/// All of them are better if they are less.
const METRICS: [Metric; 5] = [
    ("time to repair", "ms", |cell| cell.mttr_ms),
    ("errors", "s", |cell| Some(cell.error_seconds)),
    ("gap", "ms", |cell| Some(cell.gap_ms)),
    ("wrong actions", "1", |cell| as_f64(cell.wrong)),
    ("lost writes", "1", |cell| as_f64(cell.lost)),
];

fn as_f64(count: usize) -> Option<f64> {
    u32::try_from(count).ok().map(f64::from)
}

/// One row a line.
pub(super) fn json(summary: &Summary) -> Result<String> {
    let mut lines = Vec::new();
    for fault in summary.faults() {
        let Some(x0) = summary.cell(fault, "x0") else { continue };
        for system in summary.systems().into_iter().filter(|system| *system != "x0") {
            let Some(peer) = summary.cell(fault, system) else { continue };
            let program = summary.programs.get(system).map(String::as_str).unwrap_or_default();
            for (metric, unit, of) in METRICS {
                let (x0, peer) = (of(x0), of(peer));
                let ratio = x0
                    .zip(peer)
                    .map(|(x0, peer)| peer / x0)
                    .filter(|ratio| ratio.is_finite() && *ratio > 0.0);
                let peer_name = format!("{system} ({program})");
                let row = Row { area: "faultbench", case: fault, metric, unit, x0, peer, peer_name, ratio };
                lines.push(serde_json::to_string(&row)?);
            }
        }
    }
    Ok(format!("[\n{}\n]\n", lines.join(",\n")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trial::example;

    #[test]
    fn rows_have_the_form_of_x0_bench() {
        let outcomes =
            [example("cut", "none", 1, 8000), example("cut", "x0", 1, 2000), example("kill", "etcd", 1, 1)];
        let text = json(&Summary::new(&outcomes)).unwrap();
        let rows: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(rows.as_array().unwrap().len(), METRICS.len(), "only what both have");
        let expect = r#"{"area":"faultbench","case":"cut","metric":"time to repair","unit":"ms","x0":2000.0,"peer":8000.0,"peer_name":"none (x0-node 1)","ratio":4.0}"#;
        assert!(text.contains(expect), "{text}");
    }
}
