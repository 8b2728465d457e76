//! The rules that turn summaries into findings; see the docs of the [module](super).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Board, Cause, DiagnoseOptions, Finding, Observer, Sighting, Summary};

/// The least number of witnesses; with fewer, no cause of another member is found.
const WITNESSES_MIN: usize = 2;
/// The chance that a further member dies by itself at the same time.
const COINCIDENCE: f64 = 0.05;

/// The summaries that count at one time.
struct Fresh<'a> {
    options: &'a DiagnoseOptions,
    now: Duration,
    members: &'a BTreeSet<u64>,
    /// All fresh summaries of members, with their arrival: those of late members too.
    reports: BTreeMap<u64, (&'a Summary, Duration)>,
    /// Observers whose timers are in time, with the arrival of their summaries.
    witnesses: Vec<(Observer, &'a Summary, Duration)>,
}

/// What the witnesses of one member say.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    observers: usize,
    yes: usize,
}

impl Tally {
    fn count(&mut self, is_witness: bool) {
        self.observers += 1;
        self.yes += usize::from(is_witness);
    }

    fn is_majority(self) -> bool {
        self.yes * 2 > self.observers && self.yes >= WITNESSES_MIN
    }

    /// The rule of succession (Laplace 1814): few witnesses prove less than many.
    fn share(self) -> f64 {
        (self.yes as f64 + 1.0) / (self.observers as f64 + 2.0)
    }
}

/// A finding of a rule whose own certainty is `certainty`.
fn finding(
    cause: Cause,
    members: Vec<u64>,
    tally: Tally,
    certainty: f64,
    runner_up: Option<Cause>,
) -> Finding {
    let confidence = tally.share() * certainty;
    let runner_up = runner_up.map(|cause| (cause, (1.0 - confidence) / 2.0));
    Finding { cause, members, confidence, runner_up, witnesses: tally.yes, observers: tally.observers }
}

pub(super) fn diagnose(board: &Board, now: Duration) -> Vec<Finding> {
    let fresh = Fresh::new(board, now);
    if let Some(isolated) = fresh.isolated() {
        return vec![isolated];
    }
    let down = fresh.down();
    let mut findings = fresh.silences(&down);
    findings.extend(fresh.links(&down));
    findings.extend(fresh.slow(&down));
    for finding in &mut findings {
        if finding.confidence < board.options.confidence_min {
            finding.runner_up = Some((finding.cause, finding.confidence));
            finding.cause = Cause::Unknown;
            finding.confidence = 1.0 - finding.confidence;
        }
    }
    findings.sort_by(|one, other| (one.cause, &one.members).cmp(&(other.cause, &other.members)));
    findings
}

impl<'a> Fresh<'a> {
    fn new(board: &'a Board, now: Duration) -> Fresh<'a> {
        let options = &board.options;
        let mut reports = BTreeMap::new();
        let mut witnesses = Vec::new();
        for (observer, posted) in &board.posted {
            if now.saturating_sub(posted.at) >= options.stale_after {
                continue;
            }
            if let Observer::Member(member) = observer {
                reports.insert(*member, (&posted.summary, posted.at));
            }
            if posted.summary.lateness == 0 {
                witnesses.push((*observer, &posted.summary, posted.at));
            }
        }
        Fresh { options, now, members: &board.members, reports, witnesses }
    }

    fn is_silent(&self, sighting: &Sighting) -> bool {
        sighting.silent >= self.options.silent_after
    }

    fn is_slow(&self, sighting: &Sighting) -> bool {
        sighting.timeouts > 0 || sighting.slowness.is_some_and(|slowness| slowness >= self.options.slow_from)
    }

    /// The sightings of a member by other witnesses.
    fn sightings(&self, member: u64) -> impl Iterator<Item = (Observer, &'a Sighting, Duration)> {
        let others =
            self.witnesses.iter().filter(move |(observer, ..)| *observer != Observer::Member(member));
        others.filter_map(move |(observer, summary, at)| {
            Some((*observer, summary.sightings().get(&member)?, *at))
        })
    }

    fn by_members(&self, member: u64) -> impl Iterator<Item = (u64, &'a Sighting, Duration)> {
        self.sightings(member).filter_map(|(observer, sighting, at)| match observer {
            Observer::Member(observer) => Some((observer, sighting, at)),
            Observer::Client(_) => None,
        })
    }

    fn tally(&self, member: u64, is_witness: impl Fn(&Sighting) -> bool) -> Tally {
        let mut tally = Tally::default();
        self.sightings(member).for_each(|(_, sighting, _)| tally.count(is_witness(sighting)));
        tally
    }

    /// This side of a cut, if it holds at most half of the members: it knows of no others, and accuses nobody
    /// but itself.
    fn isolated(&self) -> Option<Finding> {
        if self.reports.is_empty() || self.reports.len() * 2 > self.members.len() {
            return None;
        }
        let here: Vec<u64> = self.reports.keys().copied().collect();
        let others = self.members.iter().filter(|member| !self.reports.contains_key(member));
        // Without a witness that misses the others, their summaries are only late.
        let mut tally = Tally::default();
        for member in others {
            tally.count(self.by_members(*member).any(|(_, sighting, _)| self.is_silent(sighting)));
        }
        (tally.yes > 0).then(|| finding(Cause::Cut, here, tally, 0.95, Some(Cause::Hang)))
    }

    /// The members that most others do not hear, with the time at which the silence began.
    fn down(&self) -> BTreeMap<u64, (Tally, Duration)> {
        let mut down = BTreeMap::new();
        for member in self.members {
            let mut tally = Tally::default();
            let mut since = self.now;
            for (_, sighting, at) in self.by_members(*member) {
                let is_silent = self.is_silent(sighting);
                tally.count(is_silent);
                if is_silent {
                    since = since.min(at.saturating_sub(sighting.silent));
                }
            }
            if tally.is_majority() {
                down.insert(*member, (tally, since));
            }
        }
        down
    }

    fn silences(&self, down: &BTreeMap<u64, (Tally, Duration)>) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut silent = Vec::new();
        for (member, (tally, since)) in down {
            let closed = self.tally(*member, |sighting| sighting.is_closed);
            if closed.is_majority() {
                findings.push(finding(Cause::Crash, vec![*member], closed, 0.98, Some(Cause::Hang)));
            } else {
                silent.push((*since, *member, *tally));
            }
        }
        silent.sort_by_key(|(since, member, _)| (*since, *member));
        while let Some((first, ..)) = silent.first().copied() {
            let together = silent.iter().take_while(|(since, ..)| *since - first <= self.options.together);
            let together: Vec<_> = silent.drain(..together.count()).collect();
            findings.push(self.silence(&together));
        }
        findings
    }

    /// Members that fell silent together.
    fn silence(&self, together: &[(Duration, u64, Tally)]) -> Finding {
        let mut members: Vec<u64> = together.iter().map(|(_, member, _)| *member).collect();
        members.sort_unstable();
        let tally =
            together.iter().map(|(.., tally)| *tally).min_by_key(|tally| tally.yes).unwrap_or_default();
        if members.len() > 1 {
            // Each further death at the same time would be a coincidence.
            let exponent = i32::try_from(members.len() - 1).unwrap_or(i32::MAX);
            let certainty = 1.0 / (1.0 + COINCIDENCE.powi(exponent));
            return finding(Cause::Cut, members, tally, certainty, Some(Cause::Hang));
        }
        // A client that still gets answers, or a report that still arrives, proves that it is alive.
        let is_alive = |member: &u64| {
            let mut clients = Tally::default();
            let sightings =
                self.sightings(*member).filter(|(observer, ..)| matches!(observer, Observer::Client(_)));
            sightings.for_each(|(_, sighting, _)| clients.count(!self.is_silent(sighting)));
            clients.is_majority() || self.reports.contains_key(member)
        };
        if members.iter().all(is_alive) {
            finding(Cause::Cut, members, tally, 0.9, Some(Cause::Hang))
        } else {
            finding(Cause::Hang, members, tally, 0.9, Some(Cause::Cut))
        }
    }

    /// Pairs of members that do not hear each other while others hear both.
    fn links(&self, down: &BTreeMap<u64, (Tally, Duration)>) -> Vec<Finding> {
        let hears = |from: u64, to: u64| {
            let (_, summary, _) =
                self.witnesses.iter().find(|(observer, ..)| *observer == Observer::Member(to))?;
            summary.sightings().get(&from).map(|sighting| !self.is_silent(sighting))
        };
        let up: Vec<u64> = self.members.iter().copied().filter(|member| !down.contains_key(member)).collect();
        let mut findings = Vec::new();
        for (place, one) in up.iter().copied().enumerate() {
            for other in up.iter().copied().skip(place + 1) {
                // The observers are the two ends: each says half of it.
                match (hears(one, other), hears(other, one)) {
                    (Some(false), Some(false)) => {
                        let tally = Tally { observers: 2, yes: 2 };
                        findings.push(finding(Cause::Link, vec![one, other], tally, 0.95, Some(Cause::Cut)));
                    }
                    (Some(false), Some(true)) => findings.push(Self::one_way(one, other)),
                    (Some(true), Some(false)) => findings.push(Self::one_way(other, one)),
                    _ => {}
                }
            }
        }
        findings
    }

    /// `to` does not hear `from`, which hears `to`.
    fn one_way(from: u64, to: u64) -> Finding {
        let tally = Tally { observers: 2, yes: 2 };
        finding(Cause::OneWayCut, vec![from, to], tally, 0.85, Some(Cause::Starved))
    }

    /// Members that answer, and too late.
    fn slow(&self, down: &BTreeMap<u64, (Tally, Duration)>) -> Vec<Finding> {
        let up = self.members.iter().copied().filter(|member| !down.contains_key(member));
        let mut findings = Vec::new();
        let mut slow = Vec::new();
        let mut asked = 0;
        for member in up {
            let refused = self.tally(member, |sighting| sighting.is_refused);
            if refused.is_majority() {
                findings.push(finding(Cause::Identity, vec![member], refused, 0.98, None));
                continue;
            }
            let tally = self.tally(member, |sighting| self.is_slow(sighting));
            asked += usize::from(tally.observers > 0);
            let own = self.reports.get(&member).map(|(summary, _)| summary);
            let has_reason = own.is_some_and(|summary| {
                summary.own.durable_age >= self.options.durable_after
                    || summary.own.is_disk_full
                    || summary.lateness > 0
            });
            // The report of the member on itself is one more witness.
            let both = Tally {
                observers: tally.observers + usize::from(has_reason),
                yes: tally.yes + usize::from(has_reason && tally.yes > 0),
            };
            if both.is_majority() {
                slow.push((member, both));
            } else if self.client_cut(member).is_some_and(Tally::is_majority) {
                slow.push((member, tally));
            }
        }
        if slow.len() * 2 > asked && slow.len() > 1 {
            let members: Vec<u64> = slow.iter().map(|(member, _)| *member).collect();
            let tally =
                slow.iter().map(|(_, tally)| *tally).min_by_key(|tally| tally.yes).unwrap_or_default();
            findings.push(finding(Cause::Overload, members, tally, 0.95, Some(Cause::Unknown)));
            return findings;
        }
        findings.extend(slow.into_iter().map(|(member, tally)| self.slow_member(member, tally)));
        findings
    }

    /// Clients that cannot use the member, if the other members can.
    fn client_cut(&self, member: u64) -> Option<Tally> {
        let mut clients = Tally::default();
        for (observer, sighting, _) in self.sightings(member) {
            match observer {
                Observer::Client(_) => clients.count(sighting.timeouts > 0),
                Observer::Member(_) if self.is_silent(sighting) || self.is_slow(sighting) => return None,
                Observer::Member(_) => {}
            }
        }
        Some(clients)
    }

    fn slow_member(&self, member: u64, tally: Tally) -> Finding {
        let members = vec![member];
        let Some((summary, _)) = self.reports.get(&member) else {
            return finding(Cause::Unknown, members, tally, 0.95, Some(Cause::Starved));
        };
        let waits = summary.own.durable_age >= self.options.durable_after;
        if summary.own.is_disk_full {
            return finding(Cause::DiskFull, members, tally, 0.98, Some(Cause::SlowDisk));
        }
        if summary.lateness > 0 {
            // A process that is not scheduled has old writes too.
            return finding(Cause::Starved, members, tally, 0.9, waits.then_some(Cause::SlowDisk));
        }
        if waits {
            return finding(Cause::SlowDisk, members, tally, 0.95, Some(Cause::Starved));
        }
        if let Some(clients) = self.client_cut(member).filter(|clients| clients.is_majority()) {
            return finding(Cause::ClientCut, members, clients, 0.95, Some(Cause::Unknown));
        }
        finding(Cause::Unknown, members, tally, 0.95, Some(Cause::SlowDisk))
    }
}
