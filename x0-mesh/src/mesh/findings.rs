//! Findings about the network, for an operator or a healing policy.

use std::collections::VecDeque;
use std::time::Duration;

use x0_identity::NodeId;

use crate::router::Report;

/// Findings that are kept; the one that was not found for the longest time is dropped.
const FINDINGS_MAX: usize = 64;

/// A finding about the network, and when it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The last report.
    pub report: Report,
    /// How many reports there were of the same subject.
    pub count: u64,
    /// The time since the first of them.
    pub first_age: Duration,
    /// The time since the last of them.
    pub last_age: Duration,
}

#[derive(Debug)]
struct Kept {
    report: Report,
    count: u64,
    first_at: Duration,
    last_at: Duration,
}

/// The subject of a report: reports of one subject are one finding.
fn subject(report: &Report) -> (u8, Option<NodeId>, Option<NodeId>) {
    match report {
        Report::ForgedSeqno { neighbour, .. } => (0, Some(*neighbour), None),
        Report::NoAnswer { destination, next, .. } => (1, Some(*destination), Some(*next)),
        Report::TableFull { .. } => (2, None, None),
        Report::AddressUnused { neighbour, .. } => (3, Some(*neighbour), None),
    }
}

/// The findings of a node, the newest last.
#[derive(Debug, Default)]
pub(super) struct Findings(VecDeque<Kept>);

impl Findings {
    pub(super) fn add(&mut self, now: Duration, report: Report) {
        let known = self.0.iter().position(|kept| subject(&kept.report) == subject(&report));
        let before = known.and_then(|at| self.0.remove(at));
        if self.0.len() == FINDINGS_MAX {
            self.0.pop_front();
        }
        let (count, first_at) = before.map_or((0, now), |kept| (kept.count, kept.first_at));
        self.0.push_back(Kept { report, count: count + 1, first_at, last_at: now });
    }

    pub(super) fn list(&self, now: Duration) -> Vec<Finding> {
        let age = |at: Duration| now.saturating_sub(at);
        let finding = |kept: &Kept| Finding {
            report: kept.report,
            count: kept.count,
            first_age: age(kept.first_at),
            last_age: age(kept.last_at),
        };
        self.0.iter().map(finding).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_one_for_each_subject_and_bounded() {
        let node = |number| NodeId::new(number).unwrap();
        let second = Duration::from_secs(1);
        let forged = |number, seqno| Report::ForgedSeqno { neighbour: node(number), seqno, own: 1 };
        let full = |number| Report::TableFull { destination: node(number), destinations_max: 3 };
        let silent = |to, next| Report::NoAnswer { destination: node(to), next: node(next), silence: second };
        let mut findings = Findings::default();
        let reports =
            [forged(1, 5), silent(1, 2), full(1), silent(1, 3), forged(2, 9), forged(1, 6), full(8)];
        for (at, report) in (1..).zip(reports) {
            findings.add(second * at, report);
        }
        let found: Vec<_> =
            findings.list(second * 10).iter().map(|f| (f.report, f.count, f.first_age, f.last_age)).collect();
        let age = |seconds| second * seconds;
        assert_eq!(
            found,
            [
                (silent(1, 2), 1, age(8), age(8)),
                (silent(1, 3), 1, age(6), age(6)),
                (forged(2, 9), 1, age(5), age(5)),
                (forged(1, 6), 2, age(9), age(4)),
                (full(8), 2, age(7), age(3)),
            ]
        );
        for number in 1..=1000 {
            findings.add(second * 20, forged(number, 1));
        }
        let found = findings.list(second * 20);
        assert_eq!(found.len(), FINDINGS_MAX);
        assert_eq!(found.last().map(|finding| finding.report), Some(forged(1000, 1)));
    }
}
