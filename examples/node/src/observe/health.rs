//! The checks of a node's health.
//!
//! [`findings`] judges a [`Reading`] and reads nothing itself. A stalled event loop is the only reason to
//! restart a node: a node without a quorum, or with a full disk, is alive, and a restart would make it worse.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use x0_identity::Identity;
use x0_kv::cluster::{NodeStatus, StatusHandle};

use super::config::ObserveConfig;

/// What the checks judge.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    /// The time since the last beat of the event loop; `None` while the node starts.
    pub(crate) beat_age: Option<Duration>,
    pub(crate) is_leader_known: bool,
    pub(crate) committed: u64,
    pub(crate) applied: u64,
    pub(crate) is_disk_short: bool,
    /// Damaged entries and ranges that are not repaired.
    pub(crate) damage: u64,
    pub(crate) svid_not_after: Option<SystemTime>,
    pub(crate) now: SystemTime,
}

/// The state of a component, or of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    Ok,
    /// Parts of the service are refused or late; the node recovers by itself or with the remedy.
    Degraded,
    /// The process must be restarted.
    Failed,
}

impl State {
    pub(crate) fn name(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Degraded => "degraded",
            State::Failed => "failed",
        }
    }
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) component: &'static str,
    pub(crate) state: State,
    pub(crate) reason: String,
    /// Empty if the state is [`State::Ok`].
    pub(crate) remedy: &'static str,
    /// Whether the node is ready only if the check holds.
    pub(crate) is_needed: bool,
}

/// The component whose failure fails `/livez`.
pub(crate) const EVENT_LOOP: &str = "event_loop";
/// The components, in the order of the findings.
pub(crate) const COMPONENTS: [&str; 7] =
    [EVENT_LOOP, "start", "leader", "replication", "disk", "identity", "data"];

/// Judges a reading.
pub(crate) fn findings(reading: &Reading, limits: &ObserveConfig) -> [Finding; COMPONENTS.len()] {
    let stalled = reading.beat_age.filter(|age| age.as_millis() > u128::from(limits.stall_ms));
    let is_started = reading.beat_age.is_some();
    let lag = reading.committed.saturating_sub(reading.applied);
    let left = reading.svid_not_after.map(|end| end.duration_since(reading.now).ok());
    let [event_loop, start, leader, replication, disk, identity, data] = COMPONENTS;
    let finding = |component, is_ok, state, good: String, reason: String, remedy, is_needed| Finding {
        component,
        state: if is_ok { State::Ok } else { state },
        reason: if is_ok { good } else { reason },
        remedy: if is_ok { "" } else { remedy },
        is_needed,
    };
    [
        finding(
            event_loop,
            stalled.is_none(),
            State::Failed,
            "the event loop makes progress".into(),
            format!("the event loop has made no progress for {} s", stalled.unwrap_or_default().as_secs()),
            "restart the process, and report the stacks of its threads if it happens again",
            true,
        ),
        finding(
            start,
            is_started,
            State::Degraded,
            "the node has started".into(),
            match left {
                None => "the node waits for its first SVID".into(),
                Some(_) => "the node reads its log and its data".into(),
            },
            match left {
                None => "wait for the issuer; if it does not answer, see `issuer-unreached` in the log",
                Some(_) => "wait; the time grows with the log since the last checkpoint",
            },
            true,
        ),
        finding(
            leader,
            reading.is_leader_known,
            State::Degraded,
            "a leader is known".into(),
            "no leader is known".into(),
            "start the other members, and repair the network between them: a majority must reach each other",
            true,
        ),
        finding(
            replication,
            lag <= limits.lag_max,
            State::Degraded,
            format!("{lag} committed entries are not applied yet"),
            format!("{lag} committed entries are not applied yet, more than {}", limits.lag_max),
            "wait until the node has caught up; if the number grows, look at its CPU and its disk",
            true,
        ),
        finding(
            disk,
            !reading.is_disk_short,
            State::Degraded,
            "the disk has room".into(),
            "the disk has less free space than the reserve: writes are refused".into(),
            "free some space; writes succeed again by themselves",
            true,
        ),
        finding(
            identity,
            left.is_none_or(|left| left.is_some()),
            State::Degraded,
            match left {
                Some(Some(left)) => format!("the SVID is valid for {} s", left.as_secs()),
                _ => "there is no SVID to check".into(),
            },
            "the SVID has expired: no peer accepts this node".into(),
            "issue a new one (x0-node issue --node), and send SIGHUP to the process",
            true,
        ),
        finding(
            data,
            reading.damage == 0,
            State::Degraded,
            "the scrub has found no damage that is left".into(),
            format!("{} damaged entries or ranges are not repaired", reading.damage),
            "wait for the scrub, which repairs from the other members; replace the member if the number stays",
            false,
        ),
    ]
}

/// The health of a node.
#[derive(Debug)]
pub(crate) struct Health {
    limits: ObserveConfig,
    origin: Instant,
    /// The time of the last beat since `origin`, in milliseconds; 0 before the first one.
    beat: AtomicU64,
    identity: OnceLock<Identity>,
    status: OnceLock<StatusHandle>,
    /// The status as it was read last: a stalled event loop may hold locks.
    last: Mutex<Option<NodeStatus>>,
    /// The state of each component, and since when.
    since: Mutex<BTreeMap<&'static str, (State, SystemTime)>>,
}

impl Health {
    pub(crate) fn new(limits: ObserveConfig) -> Health {
        Health {
            limits,
            origin: Instant::now(),
            beat: AtomicU64::new(0),
            identity: OnceLock::new(),
            status: OnceLock::new(),
            last: Mutex::default(),
            since: Mutex::default(),
        }
    }

    pub(crate) fn starting(&self, identity: Identity) {
        // There is one node in a process.
        let _ = self.identity.set(identity);
    }

    pub(crate) fn started(&self, status: StatusHandle) {
        self.beat();
        let _ = self.status.set(status);
    }

    /// The event loop makes progress.
    pub(crate) fn beat(&self) {
        self.beat.store(self.now_ms().max(1), Ordering::Relaxed);
    }

    /// The findings now.
    pub(crate) fn findings(&self) -> [Finding; COMPONENTS.len()] {
        findings(&self.reading(), &self.limits)
    }

    /// The state of each component as it was noted last, and since when.
    pub(crate) fn since(&self) -> BTreeMap<&'static str, (State, SystemTime)> {
        lock(&self.since).clone()
    }

    /// Notes the state of each component. Returns those that changed, with the reason.
    pub(crate) fn turn(&self) -> Vec<(&'static str, State, String)> {
        let mut changed = Vec::new();
        if let Some(free) = self.status.get().and_then(|_| lock(&self.last).as_ref()?.space.free) {
            super::telemetry::disk_free(free);
        }
        let mut since = lock(&self.since);
        for finding in self.findings() {
            let before = since.get(finding.component).map(|(state, _)| *state);
            if before == Some(finding.state) {
                continue;
            }
            since.insert(finding.component, (finding.state, SystemTime::now()));
            super::telemetry::health(finding.component, finding.state == State::Ok);
            // A start is not news, and neither is the first look.
            if before.is_some() && finding.component != "start" {
                changed.push((finding.component, finding.state, finding.reason));
            }
        }
        changed
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn reading(&self) -> Reading {
        let beat = self.beat.load(Ordering::Relaxed);
        let beat_age = (beat > 0).then(|| Duration::from_millis(self.now_ms().saturating_sub(beat)));
        let is_stalled = beat_age.is_some_and(|age| age.as_millis() > u128::from(self.limits.stall_ms));
        let mut last = lock(&self.last);
        if let Some(status) = self.status.get().filter(|_| !is_stalled) {
            *last = Some(status.status());
        }
        let status = last.as_ref();
        Reading {
            beat_age,
            is_leader_known: status.is_some_and(|status| status.leader.is_some()),
            committed: status.map_or(0, |status| status.committed),
            applied: status.map_or(0, |status| status.applied),
            is_disk_short: status.is_some_and(|status| status.space.is_short()),
            damage: status.map_or(0, |status| {
                status.scrub.damaged.saturating_sub(status.scrub.repaired) + status.scrub.diverged
            }),
            svid_not_after: self.identity.get().map(Identity::svid_expires),
            now: SystemTime::now(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that can panic runs midway through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
