//! Telemetry through the `metrics` facade.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use x0_identity::NodeId;

use crate::replica::{Input, MemberProgress, Output, StageStep, Status};

/// Most proposals whose commit is timed at once. The replica has fewer: their payloads are bounded.
const PROPOSALS_MAX: usize = 1 << 16;
/// How often the progress of the members is shown: gathering it looks at each.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// Counts the outputs of a replica and shows its status.
#[derive(Debug)]
pub(crate) struct DriverTelemetry {
    gauges: [Gauge; 7],
    /// The values of the gauges.
    shown: [u64; 7],
    leader_changes: Counter,
    dropped: Counter,
    sent_bytes: Counter,
    congested: Counter,
    snapshots: [Counter; 3],
    /// The time of the last input.
    now: Duration,
    /// Tokens of proposals and when they came, in the order of their indexes.
    proposals: VecDeque<(u64, Duration)>,
    commit_seconds: Histogram,
    /// Since when no leader is known.
    leaderless: Option<Duration>,
    election_seconds: Histogram,
    lags: BTreeMap<NodeId, Gauge>,
    progress_at: Option<Duration>,
}

impl DriverTelemetry {
    /// Telemetry of a replica that starts at `now`.
    pub(crate) fn new(now: Duration) -> DriverTelemetry {
        DriverTelemetry {
            gauges: [
                gauge!("x0_consensus_term"),
                gauge!("x0_consensus_is_leader"),
                gauge!("x0_consensus_voters"),
                gauge!("x0_consensus_is_voter"),
                gauge!("x0_consensus_last_index"),
                gauge!("x0_consensus_commit_index"),
                gauge!("x0_consensus_applied_index"),
            ],
            shown: [u64::MAX; 7],
            leader_changes: counter!("x0_consensus_leader_changes_total"),
            dropped: counter!("x0_consensus_dropped_total"),
            sent_bytes: counter!("x0_consensus_sent_bytes_total"),
            congested: counter!("x0_consensus_congested_total"),
            snapshots: ["sent", "received", "saved"]
                .map(|way| counter!("x0_consensus_snapshots_total", "way" => way)),
            now,
            proposals: VecDeque::new(),
            commit_seconds: histogram!("x0_consensus_commit_seconds"),
            leaderless: Some(now),
            election_seconds: histogram!("x0_consensus_election_seconds"),
            lags: BTreeMap::new(),
            progress_at: None,
        }
    }

    /// The replica takes this input.
    pub(crate) fn input(&mut self, now: Duration, input: &Input) {
        self.now = now;
        if let Input::Propose { token, .. } = input {
            if self.proposals.len() == PROPOSALS_MAX {
                self.proposals.pop_front();
            }
            self.proposals.push_back((*token, now));
        }
    }

    /// Shows how far the members lag behind the leader's log.
    pub(crate) fn progress(&mut self, last_index: u64, members: impl FnOnce() -> Vec<MemberProgress>) {
        if self.progress_at.is_some_and(|at| self.now < at + PROGRESS_EVERY) {
            return;
        }
        self.progress_at = Some(self.now);
        let members = members();
        for member in &members {
            // A member is added by an operator: the number of series is bounded.
            self.lags.entry(member.id).or_insert_with(
                || gauge!("x0_consensus_follower_lag_entries", "peer" => member.id.to_string()),
            );
        }
        for (id, gauge) in &self.lags {
            let member = members.iter().find(|member| member.id == *id);
            #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
            let lag = member.map(|member| last_index.saturating_sub(member.matched_index) as f64);
            // A former leader knows of no lag, and a former member has none.
            gauge.set(lag.unwrap_or(f64::NAN));
        }
    }

    fn committed(&mut self, proposals: &[(u64, u64)]) {
        for (_, token) in proposals {
            // The first one, unless proposals before it were dropped.
            if let Some(at) = self.proposals.iter().position(|(proposed, _)| proposed == token)
                && let Some((_, proposed_at)) = self.proposals.drain(..=at).next_back()
            {
                self.commit_seconds.record(self.now.saturating_sub(proposed_at));
            }
        }
    }

    fn leader(&mut self, is_known: bool) {
        if !is_known {
            self.leaderless.get_or_insert(self.now);
        } else if let Some(since) = self.leaderless.take() {
            self.election_seconds.record(self.now.saturating_sub(since));
        }
    }

    fn dropped(&mut self, token: u64) {
        // Refused ones are the last, superseded ones the first.
        if self.proposals.back().is_some_and(|(proposed, _)| *proposed == token) {
            self.proposals.pop_back();
        } else if self.proposals.front().is_some_and(|(proposed, _)| *proposed == token) {
            self.proposals.pop_front();
        }
    }

    pub(crate) fn status(&mut self, status: &Status) {
        let voters = || status.membership.voters.union(&status.membership.voters_outgoing);
        let values = [
            status.term,
            u64::from(status.leader == Some(status.id)),
            voters().count() as u64,
            u64::from(voters().any(|voter| *voter == status.id)),
            status.last_index,
            status.commit_index,
            status.applied_index,
        ];
        for ((gauge, shown), value) in self.gauges.iter().zip(&mut self.shown).zip(values) {
            if *shown != value {
                *shown = value;
                #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
                gauge.set(value as f64);
            }
        }
    }

    pub(crate) fn output(&mut self, output: &Output) {
        match output {
            Output::Apply { proposals, .. } => self.committed(proposals),
            Output::Leader { leader, .. } => self.leader(leader.is_some()),
            Output::Dropped { token, .. } => self.dropped(*token),
            _ => {}
        }
        let [sent, received, saved] = &self.snapshots;
        let (counter, count) = match output {
            Output::Send { payload, .. } => (&self.sent_bytes, payload.len() as u64),
            Output::Leader { .. } => (&self.leader_changes, 1),
            Output::Dropped { .. } => (&self.dropped, 1),
            Output::OpenSnapshot { .. } => (sent, 1),
            Output::Stage { step: StageStep::Begin { .. }, .. } => (received, 1),
            Output::SaveSnapshot { .. } => (saved, 1),
            _ => return,
        };
        counter.increment(count);
    }

    pub(crate) fn congested(&self) {
        self.congested.increment(1);
    }
}
