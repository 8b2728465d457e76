//! The totals and the findings of a run.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use super::check::Counts;
use super::fault::Fault;

/// More violations than this end a run: the later ones follow from the first.
const VIOLATIONS_MAX: usize = 5;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) seed: u64,
    pub(super) rounds: u64,
    pub(super) counts: Counts,
    pub(super) faults: BTreeMap<Fault, u64>,
    /// Nodes that stopped by themselves over a full disk or damage, as they may.
    pub(super) stopped: u64,
    /// Starts that a node refused because of damage.
    pub(super) refused: u64,
    /// The longest time from the end of the faults until the cluster was well.
    pub(super) recovery_max: Duration,
    pub(super) violations: Vec<String>,
    /// Of this round: for the message of a violation.
    notes: Vec<String>,
}

impl Report {
    pub(super) fn new(seed: u64) -> Report {
        Report { seed, ..Report::default() }
    }

    pub(super) fn fault(&mut self, fault: Fault) {
        *self.faults.entry(fault).or_default() += 1;
        self.notes.push(fault.to_string());
    }

    pub(super) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    pub(super) fn begin_round(&mut self) {
        self.rounds += 1;
        self.notes.clear();
    }

    pub(super) fn violation(&mut self, what: &str) {
        self.violations.push(format!(
            "round {}: {what}\n  faults of the round: {}",
            self.rounds,
            self.notes.join(", ")
        ));
    }

    pub(super) fn is_over(&self) -> bool {
        self.violations.len() >= VIOLATIONS_MAX
    }

    fn rows(&self) -> Vec<(String, u64)> {
        let counts = &self.counts;
        let mut rows = vec![
            ("rounds".to_owned(), self.rounds),
            ("operations".to_owned(), counts.operations),
            ("acknowledged".to_owned(), counts.acknowledged),
            ("refused".to_owned(), counts.refused),
            ("unknown".to_owned(), counts.unknown),
            ("undecided keys".to_owned(), counts.undecided),
            ("sums of all accounts".to_owned(), counts.sums),
            ("CRDT keys".to_owned(), counts.adds),
        ];
        let faults = Fault::ALL.iter().filter_map(|fault| Some((*fault, *self.faults.get(fault)?)));
        rows.extend(faults.map(|(fault, count)| (format!("fault {fault}"), count)));
        rows.push(("nodes that stopped by themselves".to_owned(), self.stopped));
        rows.push(("folders refused".to_owned(), self.refused));
        let longest = u64::try_from(self.recovery_max.as_millis()).unwrap_or(u64::MAX);
        rows.push(("longest recovery, ms".to_owned(), longest));
        rows.push(("violations".to_owned(), self.violations.len() as u64));
        rows
    }

    /// The table at the end of a run.
    pub(super) fn table(&self) -> String {
        let mut text = format!("{:<34} {:>12}\n", "seed", self.seed);
        for (name, count) in self.rows() {
            text.push_str(&format!("{name:<34} {count:>12}\n"));
        }
        for violation in &self.violations {
            text.push_str(&format!("VIOLATION in {violation}\n"));
        }
        text
    }

    pub(super) fn write_json(&self, path: &Path) -> Result<()> {
        let rows: serde_json::Map<String, serde_json::Value> =
            self.rows().into_iter().map(|(name, count)| (name, count.into())).collect();
        let report = json!({ "seed": self.seed, "counts": rows, "violations": self.violations });
        std::fs::write(path, format!("{report:#}\n"))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_names_its_round_and_the_faults_of_the_round() {
        let mut report = Report::new(9);
        report.begin_round();
        report.fault(Fault::Kill);
        report.begin_round();
        report.fault(Fault::Pause);
        report.violation("a write is lost");
        let table = report.table();
        assert!(table.contains("round 2: a write is lost\n  faults of the round: pause\n"), "{table}");
        assert!(table.contains("seed") && !report.is_over());
        let path = tempfile::NamedTempFile::new().unwrap();
        report.write_json(path.path()).unwrap();
        let json: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(path.path()).unwrap()).unwrap();
        assert_eq!(
            (&json["seed"], &json["counts"]["fault kill"], &json["counts"]["rounds"]),
            (&9.into(), &1.into(), &2.into())
        );
    }
}
