//! One round of the loop: verdicts of earlier actions, then a plan and its guards.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{InFlight, Loop, Output, Proposed, QUESTIONS_MAX, Stage};
use crate::action::{Action, Disruption};
use crate::guard::Refusal;
use crate::knowledge::Knowledge;
use crate::options::{LoopOptions, Mode};
use crate::plan::{ALTERNATIVES_MAX, Candidate, Plan, UNKNOWN_CAUSE};
use crate::record::{Event, Judgement, Ranked, judge, share};
use crate::trace;

/// The factor on the utility of an action that changed nothing, and of one that made it worse.
const NO_EFFECT: f64 = 0.5;
const WORSE: f64 = 0.125;

impl<K: Knowledge, A: Action<K>> Loop<K, A> {
    /// Does everything that is due.
    pub(super) fn work(&mut self, now: Duration) {
        let due: Vec<u64> =
            self.in_flight.iter().filter(|(_, flight)| flight.due <= now).map(|(id, _)| *id).collect();
        for id in due {
            match self.in_flight.get(&id).map(|flight| flight.stage) {
                Some(Stage::Verifying) => self.verify(now, id),
                Some(Stage::Claiming) => {
                    // Nobody decided: the claim may have been made, and so another healer waits.
                    if let Some(flight) = self.in_flight.remove(&id) {
                        self.record(now, id, &flight, Event::ClaimLost);
                    }
                }
                Some(Stage::Executing | Stage::Undoing) => {
                    self.ended(now, id, Err("it has not ended in time".into()));
                }
                None => {}
            }
        }
        if now >= self.next_round {
            self.health.timer(self.next_round, now);
            self.next_round = now + self.options.period;
            self.round(now);
        }
    }

    /// Compares the state after an action with that before.
    fn verify(&mut self, now: Duration, id: u64) {
        let Some(flight) = self.in_flight.get(&id) else { return };
        let _span = trace::verify(id, flight.ranked.round);
        let action = flight.action();
        let (kind, subject) = (action.kind(), action.subject().clone());
        let half_life = self.options.penalty_half_life;
        let (before, after) = (flight.before, action.badness(&self.knowledge).unwrap_or(f64::NAN));
        let judgement = judge(before, after, share(action.expectation().improvement));
        let flight = flight.clone();
        match judgement {
            Judgement::Improved => {
                self.in_flight.remove(&id);
                self.histories.improved(&subject, kind);
                self.record(now, id, &flight, Event::Improved { before, after });
            }
            Judgement::Worse => {
                self.histories.penalise(now, &subject, kind, WORSE, half_life);
                // The verdict may come after the back-off, and the knowledge does not show the undoing yet.
                self.histories.wait_until(&subject, now + self.options.back_off);
                self.record(now, id, &flight, Event::Worse { before, after });
                self.undo(now, id);
            }
            Judgement::NoEffect => {
                self.in_flight.remove(&id);
                self.histories.penalise(now, &subject, kind, NO_EFFECT, half_life);
                self.record(now, id, &flight, Event::NoEffect { before, after });
                self.after_attempt(now, id, &flight);
            }
        }
    }

    fn round(&mut self, now: Duration) {
        self.rounds += 1;
        self.planned.retain(|_, until| *until > now);
        self.approved.retain(|_, until| *until > now);
        if self.paused.is_some_and(|until| until.is_some_and(|until| until <= now)) {
            self.paused = None;
        }
        let _span = trace::round(self.rounds);
        let analyze = trace::analyze(self.rounds);
        let unhealthy = self.unhealthy(now);
        let count = self.knowledge.subject_count();
        let storm_limit = LoopOptions::share(self.options.storm, count, 2);
        self.weather(now, unhealthy.len(), storm_limit);
        drop(analyze);
        self.telemetry.round(unhealthy.len(), self.in_flight.len(), self.storm.is_on);
        if self.options.mode == Mode::Observe {
            self.advice.clear();
            return;
        }
        let planning = trace::plan(self.rounds);
        let mut plan = Plan::new();
        self.policy.decide(now, &self.knowledge, &mut plan);
        let name = self.policy.name();
        let mut candidates: Vec<(&'static str, Candidate<A>)> =
            plan.into_candidates().into_iter().map(|candidate| (name, candidate)).collect();
        candidates.append(&mut self.advice);
        self.telemetry.candidates(candidates.len());
        self.shadows(now);
        self.remember(now, &candidates);
        let ranked = self.rank(now, candidates);
        drop(planning);
        for ranked in ranked {
            let guarding = trace::guard(self.rounds, ranked.candidate.action.kind());
            let checked = self.check(now, &ranked, &unhealthy, storm_limit);
            drop(guarding);
            match checked {
                Ok(()) => self.begin(now, ranked),
                Err(Refusal::Approval) => self.ask(now, &ranked),
                Err(refusal) => {
                    self.refused(now, &ranked, &refusal);
                    if refusal == Refusal::UnknownCause {
                        self.call_person(
                            now,
                            0,
                            &ranked,
                            "something is wrong, and its cause is not known".into(),
                        );
                    }
                }
            }
        }
    }

    /// The candidates with their penalties and alternatives, the most useful first.
    pub(super) fn rank(
        &self,
        now: Duration,
        candidates: Vec<(&'static str, Candidate<A>)>,
    ) -> Vec<Ranked<A>> {
        let half_life = self.options.penalty_half_life;
        let with_penalty = |(policy, candidate): (&'static str, Candidate<A>)| {
            let (subject, kind) = (candidate.action.subject(), candidate.action.kind());
            let penalty = self.histories.factor(now, subject, kind, half_life);
            Ranked { penalty, ..Ranked::new(policy, candidate, self.rounds) }
        };
        let mut ranked: Vec<Ranked<A>> = candidates.into_iter().map(with_penalty).collect();
        // Stable: of equal ones the first proposed comes first, so that equal inputs give equal records.
        ranked.sort_by(|one, other| other.utility().total_cmp(&one.utility()));
        let mut beside: BTreeMap<K::Subject, Vec<(usize, &'static str, f64)>> = BTreeMap::new();
        for (place, ranked) in ranked.iter().enumerate() {
            let action = &ranked.candidate.action;
            let beside = beside.entry(action.subject().clone()).or_default();
            // One more than a record names: its own candidate is among them.
            if beside.len() <= ALTERNATIVES_MAX {
                beside.push((place, action.kind(), ranked.utility()));
            }
        }
        for (place, ranked) in ranked.iter_mut().enumerate() {
            let others = beside.get(ranked.candidate.action.subject()).into_iter().flatten();
            let others = others.filter(|(other, ..)| *other != place).take(ALTERNATIVES_MAX);
            ranked.alternatives = others.map(|(_, kind, utility)| (*kind, *utility)).collect();
        }
        ranked
    }

    /// Begins and ends the storm stop.
    fn weather(&mut self, now: Duration, unhealthy: usize, limit: usize) {
        if unhealthy >= limit {
            self.storm.is_on = true;
            self.storm.calm_since = None;
        } else if self.storm.is_on {
            let since = *self.storm.calm_since.get_or_insert(now);
            if now - since >= self.options.calm {
                self.storm.is_on = false;
                self.storm.calm_since = None;
            }
        }
    }

    /// Remembers since when each candidate has been proposed without a gap.
    fn remember(&mut self, now: Duration, candidates: &[(&'static str, Candidate<A>)]) {
        let round = self.rounds;
        for (_, candidate) in candidates {
            let key = (candidate.action.subject().clone(), candidate.action.kind());
            let proposed =
                self.proposed.entry(key).or_insert(Proposed { since: now, round, refused_by: None });
            proposed.round = round;
        }
        self.proposed.retain(|_, proposed| proposed.round == round);
    }

    /// The guards, in the order in which their reasons help a reader most.
    pub(super) fn check(
        &self,
        now: Duration,
        ranked: &Ranked<A>,
        unhealthy: &BTreeSet<K::Subject>,
        storm_limit: usize,
    ) -> Result<(), Refusal> {
        let candidate = &ranked.candidate;
        let action = &candidate.action;
        let subject = action.subject();
        let key = (subject.clone(), action.kind());
        let options = &self.options;
        if let Some(until) = self.paused {
            return Err(Refusal::Paused { until });
        }
        let grace = self.started.unwrap_or(now) + options.grace;
        if now < grace {
            return Err(Refusal::Grace { until: grace });
        }
        if action.accuses_other() && !self.health.may_accuse() {
            return Err(Refusal::LateTimers { score: self.health.score() });
        }
        if self.storm.is_on {
            return Err(Refusal::Storm { unhealthy: unhealthy.len(), limit: storm_limit });
        }
        if let Some(until) = self.planned.get(subject) {
            return Err(Refusal::Planned { until: *until });
        }
        if ranked.utility() <= 0.0 {
            return Err(Refusal::Useless);
        }
        if self.histories.is_escalated(subject) && !action.takes_back() {
            return Err(Refusal::Escalated);
        }
        if let Some((id, _)) = self.in_flight.iter().find(|(_, flight)| flight.action().subject() == subject)
        {
            return Err(Refusal::Busy { id: *id });
        }
        let until = self.histories.back_off(subject);
        if now < until {
            return Err(Refusal::BackOff { until });
        }
        let since = self.proposed.get(&key).map_or(now, |proposed| proposed.since);
        if now - since < action.stability().unwrap_or(options.stability) {
            return Err(Refusal::Unstable { since });
        }
        if candidate.diagnosis.cause == UNKNOWN_CAUSE {
            return Err(Refusal::UnknownCause);
        }
        if action.disruption() > Disruption::None {
            self.check_disruption(now, candidate, unhealthy)?;
        }
        action.precondition(&self.knowledge).map_err(|reason| Refusal::Impossible { reason })?;
        action.is_safe(&self.knowledge).map_err(|reason| Refusal::Unsafe { reason })?;
        if options.approve.contains(action.kind()) && !self.approved.contains_key(&key) {
            return Err(Refusal::Approval);
        }
        Ok(())
    }

    /// The guards of actions that disturb their subject.
    fn check_disruption(
        &self,
        now: Duration,
        candidate: &Candidate<A>,
        unhealthy: &BTreeSet<K::Subject>,
    ) -> Result<(), Refusal> {
        let subject = candidate.action.subject();
        let disruptive = |flight: &InFlight<A>| flight.action().disruption() > Disruption::None;
        if let Some((id, _)) = self.in_flight.iter().find(|(_, flight)| disruptive(flight)) {
            return Err(Refusal::Disruptive { id: *id });
        }
        let acted_on = self.in_flight.values().map(|flight| flight.action().subject());
        let others: BTreeSet<_> =
            unhealthy.iter().chain(acted_on).filter(|other| *other != subject).collect();
        let limit = LoopOptions::share(self.options.budget, self.knowledge.subject_count(), 1);
        if others.len() >= limit {
            return Err(Refusal::Budget { others: others.len(), limit });
        }
        let limit = self.options.blast_radius;
        let cause = candidate.diagnosis.cause;
        if self.histories.others_of(now, subject, cause, self.options.back_off_max) >= limit {
            return Err(Refusal::BlastRadius { limit });
        }
        Ok(())
    }

    /// Decides for an action that passed every guard.
    fn begin(&mut self, now: Duration, ranked: Ranked<A>) {
        self.actions += 1;
        let id = self.actions;
        let candidate = &ranked.candidate;
        let (action, cause) = (&candidate.action, candidate.diagnosis.cause);
        let key = (action.subject().clone(), action.kind());
        self.approved.remove(&key);
        self.histories.begin(now, &key.0, cause, &self.options);
        // The candidate has to prove itself again before the next attempt.
        self.proposed.remove(&key);
        if self.options.mode == Mode::DryRun {
            self.push_record(now, id, &ranked, Event::WouldExecute);
            return;
        }
        let before = action.badness(&self.knowledge).unwrap_or(f64::NAN);
        let action = action.clone();
        let due = now + self.options.execution_max;
        let flight = InFlight { ranked, fence: None, stage: Stage::Claiming, due, before };
        self.in_flight.insert(id, flight);
        if self.options.claims {
            self.outputs.push_back(Output::Claim { id, action });
        } else {
            self.execute(now, id);
        }
    }

    /// Asks a person, once for each candidate.
    fn ask(&mut self, now: Duration, ranked: &Ranked<A>) {
        let action = &ranked.candidate.action;
        let key = (action.subject().clone(), action.kind());
        self.refused(now, ranked, &Refusal::Approval);
        if self.questions.values().any(|asked| *asked == key) {
            return;
        }
        while self.questions.len() >= QUESTIONS_MAX {
            self.questions.pop_first();
        }
        self.actions += 1;
        let id = self.actions;
        self.questions.insert(id, key);
        self.outputs.push_back(Output::Approve { id, action: action.clone() });
    }

    /// Records a refusal, unless the same guard refused the candidate in the round before.
    fn refused(&mut self, now: Duration, ranked: &Ranked<A>, refusal: &Refusal) {
        let candidate = &ranked.candidate;
        let key = (candidate.action.subject().clone(), candidate.action.kind());
        let guard = refusal.guard();
        if let Some(proposed) = self.proposed.get_mut(&key)
            && proposed.refused_by.replace(guard) == Some(guard)
        {
            return;
        }
        let event = Event::Refused { guard: guard.into(), reason: refusal.to_string() };
        self.push_record(now, 0, ranked, event);
    }

    /// Records what the shadow policies propose newly.
    fn shadows(&mut self, now: Duration) {
        let mut shadows = std::mem::take(&mut self.shadows);
        for shadow in &mut shadows {
            let mut plan = Plan::new();
            shadow.policy.decide(now, &self.knowledge, &mut plan);
            let mut proposed = BTreeSet::new();
            for candidate in plan.candidates() {
                let name = format!("{} {:?}", candidate.action.kind(), candidate.action.subject());
                if !shadow.proposed.contains(&name) {
                    let ranked = Ranked::new(shadow.policy.name(), candidate.clone(), self.rounds);
                    self.push_record(now, 0, &ranked, Event::Shadow);
                }
                proposed.insert(name);
            }
            shadow.proposed = proposed;
        }
        self.shadows = shadows;
    }
}
