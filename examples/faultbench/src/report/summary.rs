//! Results by fault and system: medians over the seeds, and sums over all faults.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::trial::{Outcome, median};

/// The trials of one fault on one system.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Cell {
    pub(super) trials: usize,
    /// Trials in which the service did not come back.
    pub(super) gone: usize,
    /// The median time to repair, in milliseconds, if the service came back in most trials.
    pub(super) mttr_ms: Option<f64>,
    /// The mean of the error-seconds.
    pub(super) error_seconds: f64,
    /// The median of the longest times without an answer, in milliseconds.
    pub(super) gap_ms: f64,
    pub(super) actions: usize,
    pub(super) wrong: usize,
    pub(super) lost: usize,
    pub(super) acknowledged: usize,
}

/// See the [module](self).
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Summary {
    pub(super) cells: BTreeMap<(String, String), Cell>,
    /// The name and version of the program of each system.
    pub(super) programs: BTreeMap<String, String>,
    /// The records of all healers, and those with a number that does not follow from the record alone.
    pub(super) records: u64,
    pub(super) wrong_records: usize,
}

impl Summary {
    pub(super) fn new(outcomes: &[Outcome]) -> Summary {
        let mut groups: BTreeMap<(String, String), Vec<&Outcome>> = BTreeMap::new();
        for outcome in outcomes {
            groups.entry((outcome.fault.clone(), outcome.system.clone())).or_default().push(outcome);
        }
        let programs =
            outcomes.iter().map(|outcome| (outcome.system.clone(), outcome.program.clone())).collect();
        let cells = groups.into_iter().map(|(key, outcomes)| (key, cell(&outcomes))).collect();
        let records = outcomes.iter().map(|outcome| outcome.records).sum();
        let wrong_records = outcomes.iter().map(|outcome| outcome.wrong_records.len()).sum();
        Summary { cells, programs, records, wrong_records }
    }

    pub(super) fn systems(&self) -> BTreeSet<&str> {
        self.cells.keys().map(|(_, system)| system.as_str()).collect()
    }

    pub(super) fn faults(&self) -> BTreeSet<&str> {
        self.cells.keys().map(|(fault, _)| fault.as_str()).collect()
    }

    pub(super) fn cell(&self, fault: &str, system: &str) -> Option<&Cell> {
        self.cells.get(&(fault.to_owned(), system.to_owned()))
    }

    /// The error-seconds of x0 and of another system over the faults that both have played, and their number.
    pub(super) fn error_seconds(&self, other: &str) -> (f64, f64, usize) {
        let both = self
            .faults()
            .into_iter()
            .filter_map(|fault| Some((self.cell(fault, "x0")?, self.cell(fault, other)?)));
        both.fold((0.0, 0.0, 0), |(x0, peer, count), (one, two)| {
            (x0 + one.error_seconds, peer + two.error_seconds, count + 1)
        })
    }

    /// The faults whose error-seconds on x0 are more than 5 % above those without a healer.
    pub(super) fn worse(&self) -> Vec<&str> {
        let error_seconds = |fault: &str, system| self.cell(fault, system).map(|cell| cell.error_seconds);
        let is_worse = |fault: &&str| {
            let both = error_seconds(fault, "x0").zip(error_seconds(fault, "none"));
            both.is_some_and(|(x0, none)| x0 > none * 1.05)
        };
        self.faults().into_iter().filter(is_worse).collect()
    }

    /// The table for a terminal.
    pub(super) fn table(&self) -> String {
        let mut text = format!(
            "{:<18} {:<12} {:>6} {:>10} {:>13} {:>8} {:>8} {:>6} {:>5} {:>9}\n",
            "fault",
            "system",
            "trials",
            "MTTR ms",
            "error-seconds",
            "gap ms",
            "actions",
            "wrong",
            "lost",
            "not back"
        );
        for ((fault, system), cell) in &self.cells {
            let mttr = cell.mttr_ms.map_or_else(|| "-".to_owned(), |mttr| format!("{mttr:.0}"));
            let _ = writeln!(
                text,
                "{fault:<18} {system:<12} {:>6} {mttr:>10} {:>13.2} {:>8.0} {:>8} {:>6} {:>5} {:>9}",
                cell.trials, cell.error_seconds, cell.gap_ms, cell.actions, cell.wrong, cell.lost, cell.gone
            );
        }
        for other in self.systems().into_iter().filter(|system| *system != "x0") {
            let (x0, peer, count) = self.error_seconds(other);
            if count > 0 {
                let _ = writeln!(
                    text,
                    "error-seconds over the {count} faults that both have: x0 {x0:.2}, {other} {peer:.2}{}",
                    if peer > 0.0 { format!(", ratio {:.2}", x0 / peer) } else { String::new() }
                );
            }
        }
        if self.records > 0 {
            let (wrong, all) = (self.wrong_records, self.records);
            let _ = writeln!(text, "records with a number that does not follow: {wrong} of {all}");
        }
        if self.error_seconds("none").2 > 0 {
            let worse = self.worse();
            let names = if worse.is_empty() { "none".to_owned() } else { worse.join(", ") };
            let _ = writeln!(text, "faults with more than 1.05 times the error-seconds of none: {names}");
        }
        text
    }
}

fn cell(outcomes: &[&Outcome]) -> Cell {
    let measures: Vec<_> = outcomes.iter().map(|outcome| outcome.measures()).collect();
    let gone = measures.iter().filter(|one| one.mttr_ms.is_none()).count();
    // A trial without a repair took longer than all others.
    let mttr = median(measures.iter().map(|one| one.mttr_ms.unwrap_or(f64::INFINITY)).collect());
    let sum: f64 = measures.iter().map(|one| one.error_seconds).sum();
    let trials = u32::try_from(measures.len()).unwrap_or(u32::MAX);
    Cell {
        trials: measures.len(),
        gone,
        mttr_ms: mttr.filter(|mttr| mttr.is_finite()),
        error_seconds: sum / f64::from(trials.max(1)),
        gap_ms: median(measures.iter().map(|one| one.gap_ms).collect()).unwrap_or(0.0),
        actions: measures.iter().map(|one| one.actions).sum(),
        wrong: measures.iter().map(|one| one.wrong).sum(),
        lost: measures.iter().map(|one| one.lost).sum(),
        acknowledged: outcomes.iter().map(|outcome| outcome.acknowledged).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trial::example;

    #[test]
    fn a_summary_has_medians_by_fault_and_sums_over_common_faults() {
        let outcomes = [
            example("cut", "none", 1, 8000),
            example("cut", "x0", 1, 1000),
            example("cut", "x0", 2, 60_000),
            example("cut", "x0", 3, 2000),
            example("kill", "x0", 1, 500),
        ];
        let summary = Summary::new(&outcomes);
        let cut = summary.cell("cut", "x0").unwrap();
        assert_eq!((cut.trials, cut.gone, cut.mttr_ms, cut.actions), (3, 1, Some(2000.0), 3));
        assert!((cut.error_seconds - (1.0 + 15.0 + 2.0) / 3.0).abs() < 1e-9);
        let (x0, none, count) = summary.error_seconds("none");
        assert!((x0 - 6.0).abs() < 1e-9 && (none - 8.0).abs() < 1e-9 && count == 1);
        let table = summary.table();
        assert!(table.contains("x0 6.00, none 8.00, ratio 0.75\n"), "{table}");
        assert!(table.ends_with("of none: none\n") && summary.worse().is_empty());
        assert!(!table.contains("records"), "{table}");
        let mut recorded = example("cut", "x0", 1, 1);
        (recorded.records, recorded.wrong_records) = (7, vec!["damaged".into()]);
        let table = Summary::new(&[recorded]).table();
        assert!(table.contains("that does not follow: 1 of 7\n"), "{table}");
        let worse =
            [example("cut", "none", 1, 1000), example("cut", "x0", 1, 1100), example("kill", "x0", 1, 9)];
        assert_eq!(Summary::new(&worse).worse(), ["cut"]);
        // Most trials without a repair: no median.
        let gone = Summary::new(&[example("cut", "x0", 1, 60_000), example("cut", "x0", 2, 1)]);
        assert_eq!(gone.cell("cut", "x0").unwrap().mttr_ms, None);
    }
}
