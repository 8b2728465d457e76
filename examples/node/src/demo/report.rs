//! What held and what did not.

use serde::Serialize;

/// The result, in the words that machines read.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Report {
    /// Whether all of it held.
    pub(crate) held: bool,
    /// What did not hold, in words.
    pub(crate) failures: Vec<String>,
    /// Where the records come from.
    pub(crate) source: String,
    pub(crate) nodes: usize,
    /// Records handed to the store.
    pub(crate) written: usize,
    /// Records that the store said it has.
    pub(crate) acknowledged: usize,
    /// Records that were read at the end, linearizably, with every byte as written.
    pub(crate) read_back: usize,
    /// Acknowledged records that were not read back, and acknowledged updates that a later read did not show.
    pub(crate) lost: usize,
    /// Updates of a few keys, one after the other without a pause, acknowledged beside the records.
    pub(crate) updates_acknowledged: u64,
    /// Operations that the store gave up, so that they were asked for again.
    pub(crate) repeated: u64,
    /// From the killing of the leader to the first acknowledgement of a write begun thereafter.
    pub(crate) leaderless_ms: u64,
    /// From the start of the killed node's process to its having applied what the leader had committed by then.
    pub(crate) catch_up_ms: u64,
    /// From the healing of the node that was cut off to its having applied what the leader had committed by then.
    pub(crate) heal_ms: u64,
    /// From the issuing of a node's new identity to its having been accepted by every other node.
    pub(crate) rotation_ms: u64,
    /// The longest time between two acknowledgements while an identity was rotated.
    pub(crate) rotation_gap_ms: u64,
    /// Keys written to the CRDT keyspace on either side of the partition, all of them acknowledged by one node alone.
    pub(crate) crdt_written: u64,
    /// Those that some node did not hold after the healing, and additions to the counter that did not count.
    pub(crate) crdt_lost: u64,
    /// Values of the key that both sides wrote: two, side by side.
    pub(crate) crdt_siblings: usize,
    /// From the healing to all running nodes holding the same.
    pub(crate) crdt_merge_ms: u64,
    /// Whether every node, the killed one included, held the same in the CRDT keyspace at the end.
    pub(crate) crdt_identical: bool,
    /// Whether every node held the same keys and values at the end.
    pub(crate) replicas_identical: bool,
    /// How long the whole demo took.
    pub(crate) took_ms: u64,
}

impl Report {
    /// Something kept the demo from going on.
    pub(crate) fn fail(&mut self, why: String) {
        self.held = false;
        self.failures.push(why);
    }

    /// Judges the figures. Called once, at the end.
    pub(crate) fn judge(&mut self) {
        let mut fail = |holds: bool, what: String| {
            if !holds {
                self.failures.push(what);
            }
        };
        fail(self.lost == 0, format!("{} acknowledged writes were lost", self.lost));
        fail(self.written > 0, "nothing was written".to_owned());
        fail(
            self.acknowledged == self.written,
            format!("{} records were never acknowledged", self.written.saturating_sub(self.acknowledged)),
        );
        fail(
            self.read_back == self.written,
            format!("{} records were not read back as written", self.written.saturating_sub(self.read_back)),
        );
        fail(self.updates_acknowledged > 0, "no update was acknowledged".to_owned());
        fail(self.crdt_written > 0, "nothing was written to the CRDT keyspace".to_owned());
        fail(self.crdt_lost == 0, format!("{} writes to the CRDT keyspace were lost", self.crdt_lost));
        fail(
            self.crdt_siblings == 2,
            format!("{} values instead of two stand side by side after the merge", self.crdt_siblings),
        );
        fail(self.crdt_identical, "the CRDT keyspaces do not hold the same".to_owned());
        fail(self.replicas_identical, "the replicas do not hold the same".to_owned());
        self.held = self.failures.is_empty();
    }

    /// The table a person reads.
    pub(crate) fn table(&self) -> String {
        let mut rows: Vec<(&str, String, String)> = vec![
            ("records written", self.written.to_string(), format!("the {}", self.source)),
            ("acknowledged", self.acknowledged.to_string(), String::new()),
            ("read back", self.read_back.to_string(), "linearizable, every byte compared".to_owned()),
            ("lost", self.lost.to_string(), String::new()),
            (
                "updates beside them",
                self.updates_acknowledged.to_string(),
                "acknowledged; the last of each key read back".to_owned(),
            ),
            (
                "without a leader",
                format!("{} ms", self.leaderless_ms),
                "from kill -9 to the next acknowledged write".to_owned(),
            ),
            (
                "killed node caught up",
                format!("{} ms", self.catch_up_ms),
                "from its start, recovering from its folder".to_owned(),
            ),
            ("cut-off node caught up", format!("{} ms", self.heal_ms), "from the healing".to_owned()),
            (
                "new identity accepted",
                format!("{} ms", self.rotation_ms),
                format!(
                    "by every node; no {} ms without an acknowledged write meanwhile",
                    self.rotation_gap_ms + 1
                ),
            ),
            (
                "written on both sides",
                self.crdt_written.to_string(),
                format!(
                    "to the CRDT keyspace while cut in two; {} lost, {} values of the key that both wrote",
                    self.crdt_lost, self.crdt_siblings
                ),
            ),
            (
                "both sides merged",
                format!("{} ms", self.crdt_merge_ms),
                format!(
                    "from the healing; the CRDT keyspaces {}",
                    if self.crdt_identical { "are identical" } else { "DIFFER" }
                ),
            ),
            (
                "replicas",
                if self.replicas_identical { "identical" } else { "DIFFER" }.to_owned(),
                format!("{} nodes, all keys and values compared", self.nodes),
            ),
        ];
        let width = |column: fn(&(&str, String, String)) -> usize| rows.iter().map(column).max().unwrap_or(0);
        let (first, second) = (width(|row| row.0.len()), width(|row| row.1.len()));
        let mut table = String::new();
        for (name, value, note) in rows.drain(..) {
            let line = format!("  {name:first$}  {value:>second$}  {note}");
            table.push_str(line.trim_end());
            table.push('\n');
        }
        let took = format!("{:.1} s", self.took_ms as f64 / 1000.0);
        if self.held {
            table.push_str(&format!("\n  All of it held, in {took}.\n"));
        } else {
            table.push_str(&format!("\n  NOT all of it held ({took}): {}.\n", self.failures.join("; ")));
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Report {
        Report {
            written: 3,
            acknowledged: 3,
            read_back: 3,
            updates_acknowledged: 1,
            replicas_identical: true,
            crdt_written: 200,
            crdt_siblings: 2,
            crdt_identical: true,
            ..Report::default()
        }
    }

    #[test]
    fn a_good_run_holds() {
        let mut report = good();
        report.judge();
        assert!(report.held && report.table().contains("All of it held"));
    }

    #[test]
    fn each_shortfall_is_told() {
        let check = |spoil: fn(&mut Report), expect: &str| {
            let mut report = good();
            spoil(&mut report);
            report.judge();
            assert!(!report.held && report.table().contains(expect), "{}", report.table());
        };
        check(|report| report.lost = 1, "1 acknowledged writes were lost");
        check(|report| report.acknowledged = 1, "2 records were never acknowledged");
        check(|report| report.read_back = 2, "1 records were not read back");
        check(|report| report.written = 0, "nothing was written");
        check(|report| report.updates_acknowledged = 0, "no update");
        check(|report| report.replicas_identical = false, "replicas do not hold the same");
        check(|report| report.crdt_written = 0, "nothing was written to the CRDT keyspace");
        check(|report| report.crdt_lost = 3, "3 writes to the CRDT keyspace were lost");
        check(|report| report.crdt_siblings = 1, "1 values instead of two");
        check(|report| report.crdt_identical = false, "CRDT keyspaces do not hold the same");
    }

    #[test]
    fn machines_find_the_fields_they_were_promised() {
        let json = serde_json::to_value(good()).unwrap();
        for field in ["written", "acknowledged", "read_back", "lost", "leaderless_ms", "catch_up_ms"] {
            assert!(json[field].is_u64(), "{field}");
        }
    }
}
