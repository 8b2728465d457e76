//! The result of the demo.

use serde::Serialize;

/// A fault, an action of a healer, or their effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Moment {
    /// The time since the begin of the demo; that of a healer is exact to some tens of milliseconds.
    pub(crate) at_ms: u64,
    /// `fault`, `action`, `proof`, `failed` or `healed`.
    pub(crate) what: &'static str,
    pub(crate) text: String,
}

/// The faults that the part about healing injects, where the system can stop processes.
pub(crate) const FAULTS: usize = if cfg!(unix) { 3 } else { 0 };

/// The result, as in the JSON output.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Report {
    /// Whether every check passed.
    pub(crate) held: bool,
    /// The failed checks.
    pub(crate) failures: Vec<String>,
    /// The source of the records.
    pub(crate) source: String,
    pub(crate) nodes: usize,
    /// The network between the nodes: `namespaces`, joined by veth pairs, or `loopback`.
    pub(crate) network: &'static str,
    /// Records passed to the store.
    pub(crate) written: usize,
    /// Records that the store acknowledged.
    pub(crate) acknowledged: usize,
    /// Records whose linearizable read at the end returned exactly the written bytes.
    pub(crate) read_back: usize,
    /// Acknowledged records that were not read back, and acknowledged updates that a later read did not
    /// return.
    pub(crate) lost: usize,
    /// Acknowledged updates of the continuously updated keys.
    pub(crate) updates_acknowledged: u64,
    /// Failed operations that were retried.
    pub(crate) repeated: u64,
    /// From the cut of the link between the leader and its neighbour until the neighbour has applied an entry
    /// that was written after it.
    pub(crate) failover_ms: u64,
    /// Connections between nodes that ended while that link was cut.
    pub(crate) epochs_lost: usize,
    /// Bytes that nodes sent on for other nodes meanwhile.
    pub(crate) relayed_bytes: u64,
    /// From the kill of the leader to the first acknowledgement of a write that started later.
    pub(crate) leaderless_ms: u64,
    /// From the restart of the killed node until it has applied the entries that were committed at the
    /// restart.
    pub(crate) catch_up_ms: u64,
    /// From the healing until the isolated node has applied the entries that were committed at the healing.
    pub(crate) heal_ms: u64,
    /// From the issue of a new identity until every other node has accepted it.
    pub(crate) rotation_ms: u64,
    /// The longest time between two acknowledgements while an identity was rotated.
    pub(crate) rotation_gap_ms: u64,
    /// Faults that the nodes healed by themselves: a slow leader, a node that hung, a voter that died.
    pub(crate) healed: usize,
    /// From the begin of the slowness of the leader's disk to the acknowledgement of a write under another
    /// leader.
    pub(crate) gray_ms: u64,
    /// From the stop of a process until its supervisor has another one that serves.
    pub(crate) hung_ms: u64,
    /// From the kill of a voter until the spare node is a voter in its place. Fifteen seconds of it are the
    /// loss of its connection and the silence after which a voter counts as dead.
    pub(crate) replaced_ms: u64,
    /// Actions of the healers that no injected fault explains.
    pub(crate) wrong_acts: usize,
    /// The faults, and what the healers did about them and why, by time.
    pub(crate) timeline: Vec<Moment>,
    /// Keys written to the CRDT keyspace on both sides of the partition, each acknowledged by one node.
    pub(crate) crdt_written: u64,
    /// The acknowledged writes that are missing on a node at the end, and lost additions to the counter.
    pub(crate) crdt_lost: u64,
    /// Values of the key that both sides wrote; two are correct.
    pub(crate) crdt_siblings: usize,
    /// From the healing until the CRDT keyspaces of all running nodes are identical.
    pub(crate) crdt_merge_ms: u64,
    /// Whether the CRDT keyspaces of all nodes are identical at the end.
    pub(crate) crdt_identical: bool,
    /// Whether the keys and values of all nodes are identical at the end.
    pub(crate) replicas_identical: bool,
    /// The duration of the demo.
    pub(crate) took_ms: u64,
}

impl Report {
    /// Notes an error that ended the demo.
    pub(crate) fn fail(&mut self, why: String) {
        self.held = false;
        self.failures.push(why);
    }

    /// Checks the figures. Called once, at the end.
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
        fail(self.epochs_lost == 0, format!("{} connections ended with the cut link", self.epochs_lost));
        fail(self.relayed_bytes > 0, "no node relayed for another while a link was cut".to_owned());
        fail(self.crdt_written > 0, "nothing was written to the CRDT keyspace".to_owned());
        fail(self.crdt_lost == 0, format!("{} writes to the CRDT keyspace were lost", self.crdt_lost));
        fail(
            self.crdt_siblings == 2,
            format!("the key that both sides wrote has {} values instead of two", self.crdt_siblings),
        );
        fail(self.crdt_identical, "the CRDT keyspaces differ".to_owned());
        fail(self.replicas_identical, "the replicas differ".to_owned());
        fail(
            self.healed == FAULTS,
            format!("{} of {FAULTS} faults were healed without an operator", self.healed),
        );
        self.held = self.failures.is_empty();
    }

    /// The result as a table.
    pub(crate) fn table(&self) -> String {
        let mut rows: Vec<(&str, String, String)> = vec![
            ("records written", self.written.to_string(), format!("the {}", self.source)),
            ("acknowledged", self.acknowledged.to_string(), String::new()),
            ("read back", self.read_back.to_string(), "linearizable, every byte compared".to_owned()),
            ("lost", self.lost.to_string(), String::new()),
            (
                "updates",
                self.updates_acknowledged.to_string(),
                "acknowledged; the last one of each key was read back".to_owned(),
            ),
            (
                "link under the leader cut",
                format!("{} ms", self.failover_ms),
                format!(
                    "until a write passed the other way; {} connections lost, {} KiB relayed",
                    self.epochs_lost,
                    self.relayed_bytes / 1024
                ),
            ),
            (
                "without a leader",
                format!("{} ms", self.leaderless_ms),
                "from kill -9 to the next acknowledged write".to_owned(),
            ),
            (
                "killed node caught up",
                format!("{} ms", self.catch_up_ms),
                "from its start, with recovery from its folder".to_owned(),
            ),
            ("isolated node caught up", format!("{} ms", self.heal_ms), "from the healing".to_owned()),
            (
                "new identity accepted",
                format!("{} ms", self.rotation_ms),
                format!("by every node; never {} ms without an acknowledged write", self.rotation_gap_ms + 1),
            ),
            (
                "slow leader replaced",
                format!("{} ms", self.gray_ms),
                "until a write passed under another leader; its own healer decided".to_owned(),
            ),
            (
                "hung node serves again",
                format!("{} ms", self.hung_ms),
                "under `x0-node supervise`, of which 2000 ms are the time that a hang takes".to_owned(),
            ),
            (
                "dead voter replaced",
                format!("{} ms", self.replaced_ms),
                format!(
                    "by a spare, after the 10 s in which it may return; {} actions without a fault",
                    self.wrong_acts
                ),
            ),
            (
                "written on both sides",
                self.crdt_written.to_string(),
                format!(
                    "to the CRDT keyspace during the partition; {} lost, {} values of the key that both wrote",
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
        if !self.timeline.is_empty() {
            table.push_str("\n  Healing:\n");
        }
        for Moment { at_ms, what, text } in &self.timeline {
            table.push_str(&format!("  {:7.2} s  {what:6}  {text}\n", *at_ms as f64 / 1000.0));
        }
        let took = format!("{:.1} s", self.took_ms as f64 / 1000.0);
        if self.held {
            table.push_str(&format!("\n  Every check passed, in {took}.\n"));
        } else {
            table.push_str(&format!("\n  FAILED ({took}): {}.\n", self.failures.join("; ")));
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
            relayed_bytes: 1,
            crdt_written: 200,
            crdt_siblings: 2,
            crdt_identical: true,
            healed: FAULTS,
            timeline: vec![Moment { at_ms: 1230, what: "fault", text: "node 1 hangs".into() }],
            ..Report::default()
        }
    }

    #[test]
    fn a_good_run_holds() {
        let mut report = good();
        report.judge();
        assert!(report.held && report.table().contains("Every check passed"));
        assert!(report.table().contains("1.23 s  fault   node 1 hangs"), "{}", report.table());
    }

    #[test]
    fn each_shortfall_is_reported() {
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
        check(|report| report.replicas_identical = false, "the replicas differ");
        check(|report| report.epochs_lost = 2, "2 connections ended");
        check(|report| report.relayed_bytes = 0, "no node relayed");
        check(|report| report.crdt_written = 0, "nothing was written to the CRDT keyspace");
        check(|report| report.crdt_lost = 3, "3 writes to the CRDT keyspace were lost");
        check(|report| report.crdt_siblings = 1, "has 1 values instead of two");
        #[cfg(unix)]
        check(|report| report.healed = 1, "1 of 3 faults were healed");
        check(|report| report.crdt_identical = false, "the CRDT keyspaces differ");
    }

    #[test]
    fn the_documented_fields_are_present() {
        let json = serde_json::to_value(good()).unwrap();
        for field in [
            "written",
            "acknowledged",
            "read_back",
            "lost",
            "leaderless_ms",
            "catch_up_ms",
            "failover_ms",
            "epochs_lost",
            "relayed_bytes",
            "healed",
            "gray_ms",
            "hung_ms",
            "replaced_ms",
            "wrong_acts",
        ] {
            assert!(json[field].is_u64(), "{field}");
        }
    }
}
