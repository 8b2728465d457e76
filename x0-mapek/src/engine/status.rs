//! What a loop does at a moment, for an operator.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Loop, Stage};
use crate::action::Action;
use crate::guard::Refusal;
use crate::knowledge::Knowledge;
use crate::options::{LoopOptions, Mode};
use crate::plan::Plan;

/// What a [`Loop`] does at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoopStatus<S> {
    /// The mode of the loop.
    pub mode: Mode,
    /// The end of a pause: `Some(None)` lasts until [`Command::Resume`](crate::Command::Resume), `None` is no
    /// pause.
    pub paused: Option<Option<Duration>>,
    /// The end of the grace period, if it lasts.
    pub grace_until: Option<Duration>,
    /// Whether the loop holds because too many subjects are unhealthy.
    pub is_storm: bool,
    /// The subjects that are unhealthy now.
    pub unhealthy: Vec<S>,
    /// Subjects that were handed over to a person, who has not acknowledged them.
    pub escalated: Vec<S>,
    /// Actions that wait for a person's approval: the candidates of the last round.
    pub questions: Vec<ActionStatus<S>>,
    /// Actions between their decision and their verdict.
    pub in_flight: Vec<ActionStatus<S>>,
}

/// An action of a [`LoopStatus`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ActionStatus<S> {
    /// The number of the question or action.
    pub id: u64,
    /// The subject.
    pub subject: S,
    /// The kind of action.
    pub kind: &'static str,
    /// `asking`, `claiming`, `executing`, `verifying` or `undoing`.
    pub stage: &'static str,
}

/// Why a [`Loop`] does nothing about a subject at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WhyNot {
    /// Whether the subject is unhealthy.
    pub is_unhealthy: bool,
    /// What the policy proposes for it now, by kind, and the guard that refuses it; `Ok` passes every guard.
    /// Empty when the policy has no remedy, and in [`Mode::Observe`], in which it is not asked.
    pub candidates: Vec<(&'static str, Result<(), Refusal>)>,
}

impl<K: Knowledge, A: Action<K>> Loop<K, A> {
    /// What the loop does at `now`. Changes nothing.
    #[must_use]
    pub fn status(&self, now: Duration) -> LoopStatus<K::Subject> {
        let grace_until = self.started.unwrap_or(now) + self.options.grace;
        let in_flight = self.in_flight.iter().map(|(id, flight)| ActionStatus {
            id: *id,
            subject: flight.action().subject().clone(),
            kind: flight.action().kind(),
            stage: flight.stage.name(),
        });
        let questions = self.questions.iter().filter(|(_, key)| self.proposed.contains_key(key));
        let questions = questions.map(|(id, (subject, kind))| ActionStatus {
            id: *id,
            subject: subject.clone(),
            kind,
            stage: "asking",
        });
        LoopStatus {
            mode: self.options.mode,
            paused: self.paused.filter(|until| until.is_none_or(|until| until > now)),
            grace_until: Some(grace_until).filter(|until| *until > now),
            is_storm: self.storm.is_on,
            unhealthy: self.unhealthy(now).into_iter().collect(),
            escalated: self.histories.escalated().cloned().collect(),
            questions: questions.collect(),
            in_flight: in_flight.collect(),
        }
    }

    /// Asks the policy for a plan, as a round at `now` would, and the guards about what it proposes for
    /// `subject`. Nothing is recorded or carried out.
    #[must_use]
    pub fn why_not(&mut self, now: Duration, subject: &K::Subject) -> WhyNot {
        let unhealthy = self.unhealthy(now);
        let is_unhealthy = unhealthy.contains(subject);
        if self.options.mode == Mode::Observe {
            return WhyNot { is_unhealthy, candidates: Vec::new() };
        }
        let mut plan = Plan::new();
        // A policy is pure: to ask it once more changes nothing.
        self.policy.decide(now, &self.knowledge, &mut plan);
        let name = self.policy.name();
        let about = plan.into_candidates().into_iter().filter(|one| one.action.subject() == subject);
        let ranked = self.rank(now, about.map(|candidate| (name, candidate)).collect());
        let storm_limit = LoopOptions::share(self.options.storm, self.knowledge.subject_count(), 2);
        let judged = ranked
            .iter()
            .map(|ranked| (ranked.candidate.action.kind(), self.check(now, ranked, &unhealthy, storm_limit)));
        WhyNot { is_unhealthy, candidates: judged.collect() }
    }

    /// The subjects that are unhealthy at `now`.
    pub(super) fn unhealthy(&self, now: Duration) -> BTreeSet<K::Subject> {
        let mut unhealthy = BTreeSet::new();
        self.knowledge.unhealthy(now, &mut |subject| {
            unhealthy.insert(subject.clone());
        });
        unhealthy
    }
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Stage::Claiming => "claiming",
            Stage::Executing => "executing",
            Stage::Verifying => "verifying",
            Stage::Undoing => "undoing",
        }
    }
}
