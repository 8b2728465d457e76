//! The loop: a protocol engine that turns readings into actions.

mod history;
mod round;
mod status;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::time::Duration;

use self::history::Histories;
pub use self::status::{ActionStatus, LoopStatus, WhyNot};
use crate::action::Action;
use crate::detect::{LocalHealth, LocalHealthOptions, ReadingError};
use crate::knowledge::{Knowledge, Reading};
use crate::options::LoopOptions;
use crate::plan::{CANDIDATES_MAX, Candidate, Policy};
use crate::record::{Event, Ranked, Record};
use crate::telemetry::LoopTelemetry;
use crate::trace;

/// Questions to a person that are remembered.
const QUESTIONS_MAX: usize = 64;
/// How long an approval holds.
const APPROVAL: Duration = Duration::from_secs(600);

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Input<S, A> {
    /// A signal was measured.
    Reading(Reading<S>),
    /// The time of [`Loop::poll_timeout`] has come.
    Timeout,
    /// An action, or its undoing, was carried out.
    Outcome {
        /// The action.
        id: u64,
        /// Whether it succeeded; otherwise the reason.
        result: Result<(), String>,
    },
    /// The claim of an action was decided.
    Claim {
        /// The action.
        id: u64,
        /// The fence of the claim; `None` if another healer has it.
        fence: Option<u64>,
    },
    /// The owner changes a subject on purpose until `until`.
    Planned {
        /// The subject.
        subject: S,
        /// The end of the change.
        until: Duration,
    },
    /// Candidates from another source: a model, a person, another node. They pass every guard.
    Advice {
        /// The source, for the record.
        source: &'static str,
        /// The candidates; those beyond [`CANDIDATES_MAX`] are left out.
        candidates: Vec<Candidate<A>>,
    },
    /// An operator's command.
    Command(Command<S>),
}

/// A command of an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command<S> {
    /// Approve the action of an [`Output::Approve`].
    Approve {
        /// The number of the question.
        id: u64,
    },
    /// Undo an action that waits for its verdict.
    Undo {
        /// The action.
        id: u64,
    },
    /// Begin no action until `until`, or until [`Command::Resume`].
    Pause {
        /// The end of the pause.
        until: Option<Duration>,
    },
    /// End a pause.
    Resume,
    /// A person has looked at an escalated subject: the loop may act on it again.
    Acknowledge {
        /// The subject.
        subject: S,
    },
}

/// Something to do.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Output<S, A> {
    /// Carry out an action, and answer with [`Input::Outcome`]. The same action may be carried out twice
    /// after a crash: it must be idempotent.
    Execute {
        /// Its number.
        id: u64,
        /// The action.
        action: A,
        /// The fence of its claim, if actions are claimed.
        fence: Option<u64>,
    },
    /// Carry out the action that takes another one back, and answer with [`Input::Outcome`].
    Undo {
        /// The number of the action that is taken back.
        id: u64,
        /// The action that takes it back.
        action: A,
        /// The fence of the claim.
        fence: Option<u64>,
    },
    /// Claim an action among several healers, and answer with [`Input::Claim`].
    Claim {
        /// Its number.
        id: u64,
        /// The action.
        action: A,
    },
    /// Ask a person whether this may be done; the answer is [`Command::Approve`].
    Approve {
        /// The number of the question.
        id: u64,
        /// The action.
        action: A,
    },
    /// The loop cannot heal this subject: call a person.
    Escalate {
        /// The subject.
        subject: S,
        /// Why.
        reason: String,
    },
    /// Keep this record.
    Record(Box<Record>),
}

/// An input was not taken. The loop is as it was.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum HandleError {
    /// The time runs backwards.
    #[error(
        "the input is of {now:?}, before the last one of {last:?}: use one clock that never runs backwards"
    )]
    TimeBackwards {
        /// The time of the input.
        now: Duration,
        /// The time of the last input.
        last: Duration,
    },
    /// The knowledge refused a reading.
    #[error("the reading cannot be used")]
    Reading(#[from] ReadingError),
    /// No such action is in the state that the input is about.
    #[error("no action {id} waits for this: it has ended, or never was")]
    UnknownAction {
        /// The number.
        id: u64,
    },
}

/// A MAPE-K loop over the knowledge `K` and actions `A`.
///
/// # Drain contract
/// After each [`handle`](Loop::handle) call [`poll_output`](Loop::poll_output) until it returns `None`. Then
/// wait for an input or for [`poll_timeout`](Loop::poll_timeout), whichever comes first; at the timeout pass
/// [`Input::Timeout`]. An error of `handle` leaves the loop as it was. Outputs may be carried out in any
/// order and at any time; each `Execute`, `Undo` and `Claim` needs its answer, or counts as failed after
/// [`LoopOptions::execution_max`].
///
/// ```
/// use std::time::Duration;
/// use x0_mapek::detect::ReadingError;
/// use x0_mapek::*;
///
/// // Workers, by number, with their last latency in seconds.
/// struct Workers([f64; 3]);
///
/// impl Knowledge for Workers {
///     type Subject = usize;
///     fn observe(&mut self, _: Duration, reading: &Reading<usize>) -> Result<(), ReadingError> {
///         self.0[reading.subject] = reading.value;
///         Ok(())
///     }
///     fn subject_count(&self) -> usize {
///         3
///     }
///     fn unhealthy(&self, _: Duration, each: &mut dyn FnMut(&usize)) {
///         (0..3).filter(|worker| self.0[*worker] > 1.0).for_each(|worker| each(&worker));
///     }
/// }
///
/// #[derive(Debug, Clone)]
/// struct Restart(usize);
///
/// impl Action<Workers> for Restart {
///     fn kind(&self) -> &'static str {
///         "restart"
///     }
///     fn subject(&self) -> &usize {
///         &self.0
///     }
///     fn disruption(&self) -> Disruption {
///         Disruption::Brief
///     }
///     fn badness(&self, workers: &Workers) -> Option<f64> {
///         Some(workers.0[self.0])
///     }
///     fn expectation(&self) -> Expectation {
///         Expectation { within: Duration::from_secs(2), improvement: 0.5 }
///     }
/// }
///
/// struct RestartSlow;
///
/// impl Policy<Workers, Restart> for RestartSlow {
///     fn name(&self) -> &'static str {
///         "restart-slow"
///     }
///     fn decide(&mut self, _: Duration, workers: &Workers, plan: &mut Plan<Restart>) {
///         for worker in (0..3).filter(|worker| workers.0[*worker] > 1.0) {
///             let diagnosis = Diagnosis { cause: "hang", confidence: 0.9, runner_up: None };
///             plan.propose(Candidate { action: Restart(worker), diagnosis, utility: 1.0, evidence: vec![] });
///         }
///     }
/// }
///
/// let options = LoopOptions::new().mode(Mode::Active).grace(Duration::ZERO);
/// let mut healer = Loop::new(Workers([0.01; 3]), Box::new(RestartSlow), options);
/// let slow = Reading { subject: 1, signal: "job_seconds", value: 7.0 };
/// healer.handle(Duration::ZERO, Input::Reading(slow))?;
/// let mut restarted = Vec::new();
/// while restarted.is_empty() {
///     let due = healer.poll_timeout();
///     healer.handle(due, Input::Timeout)?;
///     while let Some(output) = healer.poll_output() {
///         if let Output::Execute { action, .. } = output {
///             restarted.push(action.0);
///         }
///     }
/// }
/// assert_eq!(restarted, [1]);
/// # Ok::<(), HandleError>(())
/// ```
pub struct Loop<K: Knowledge, A> {
    knowledge: K,
    policy: Box<dyn Policy<K, A>>,
    shadows: Vec<Shadow<K, A>>,
    options: LoopOptions,
    health: LocalHealth,
    started: Option<Duration>,
    last: Duration,
    next_round: Duration,
    rounds: u64,
    paused: Option<Option<Duration>>,
    storm: Storm,
    proposed: BTreeMap<Key<K>, Proposed>,
    advice: Vec<(&'static str, Candidate<A>)>,
    planned: BTreeMap<K::Subject, Duration>,
    histories: Histories<K::Subject>,
    in_flight: BTreeMap<u64, InFlight<A>>,
    /// Questions to a person, by number.
    questions: BTreeMap<u64, Key<K>>,
    approved: BTreeMap<Key<K>, Duration>,
    outputs: VecDeque<Output<K::Subject, A>>,
    actions: u64,
    records: u64,
    telemetry: LoopTelemetry,
}

/// A subject and a kind of action.
type Key<K> = (<K as Knowledge>::Subject, &'static str);

/// A policy whose proposals are recorded and never carried out.
struct Shadow<K, A> {
    policy: Box<dyn Policy<K, A>>,
    /// What it proposed in the last round.
    proposed: BTreeSet<String>,
}

/// Whether the loop holds because too much is unhealthy.
#[derive(Debug, Clone, Copy, Default)]
struct Storm {
    is_on: bool,
    /// Since when the share is below the limit again.
    calm_since: Option<Duration>,
}

/// A candidate that was proposed in the last round.
#[derive(Debug, Clone)]
struct Proposed {
    since: Duration,
    round: u64,
    /// The guard that refused it last: a record is made when it changes.
    refused_by: Option<&'static str>,
}

/// An action between its decision and its verdict.
#[derive(Debug, Clone)]
struct InFlight<A> {
    ranked: Ranked<A>,
    fence: Option<u64>,
    stage: Stage,
    /// When the stage ends by itself.
    due: Duration,
    /// The badness before the action; NaN if it was not known.
    before: f64,
}

impl<A> InFlight<A> {
    fn action(&self) -> &A {
        &self.ranked.candidate.action
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Claiming,
    Executing,
    Verifying,
    Undoing,
}

impl<K: Knowledge, A: Action<K>> Loop<K, A> {
    /// A loop that has seen nothing. It begins its grace period with the first input.
    #[must_use]
    pub fn new(knowledge: K, policy: Box<dyn Policy<K, A>>, options: LoopOptions) -> Loop<K, A> {
        let period = options.period.max(Duration::from_millis(1));
        // A round that is late by more than its own distance says that this process is not scheduled.
        let health = LocalHealth::new(LocalHealthOptions::new().lateness(period));
        Loop {
            knowledge,
            policy,
            shadows: Vec::new(),
            options: LoopOptions { period, ..options },
            health,
            started: None,
            last: Duration::ZERO,
            next_round: Duration::ZERO,
            rounds: 0,
            paused: None,
            storm: Storm::default(),
            proposed: BTreeMap::new(),
            advice: Vec::new(),
            planned: BTreeMap::new(),
            histories: Histories::default(),
            in_flight: BTreeMap::new(),
            questions: BTreeMap::new(),
            approved: BTreeMap::new(),
            outputs: VecDeque::new(),
            actions: 0,
            records: 0,
            telemetry: LoopTelemetry::new(),
        }
    }

    /// Adds a policy that runs beside the real one: its proposals are recorded when they change, and never
    /// carried out.
    pub fn add_shadow(&mut self, policy: Box<dyn Policy<K, A>>) {
        self.shadows.push(Shadow { policy, proposed: BTreeSet::new() });
    }

    /// The knowledge.
    #[must_use]
    pub fn knowledge(&self) -> &K {
        &self.knowledge
    }

    /// The knowledge, for facts other than readings.
    pub fn knowledge_mut(&mut self) -> &mut K {
        &mut self.knowledge
    }

    /// The settings.
    #[must_use]
    pub fn options(&self) -> &LoopOptions {
        &self.options
    }

    /// The actions between their decision and their verdict: number and action.
    pub fn in_flight(&self) -> impl Iterator<Item = (u64, &A)> {
        self.in_flight.iter().map(|(id, flight)| (*id, flight.action()))
    }

    /// Takes an input; see the drain contract of the type.
    ///
    /// # Errors
    /// See [`HandleError`]. The loop is as it was.
    pub fn handle(&mut self, now: Duration, input: Input<K::Subject, A>) -> Result<(), HandleError> {
        if now < self.last {
            return Err(HandleError::TimeBackwards { now, last: self.last });
        }
        match input {
            Input::Reading(reading) => self.observe(now, &reading)?,
            Input::Timeout => {}
            Input::Outcome { id, result } => self.outcome(now, id, result)?,
            Input::Claim { id, fence } => self.claimed(now, id, fence)?,
            Input::Planned { subject, until } => {
                self.knowledge.planned(now, &subject, until);
                self.planned.retain(|_, until| *until > now);
                if self.planned.len() < history::SUBJECTS_MAX {
                    self.planned.insert(subject, until);
                }
            }
            Input::Advice { source, candidates } => {
                let room = CANDIDATES_MAX - self.advice.len().min(CANDIDATES_MAX);
                self.advice.extend(candidates.into_iter().take(room).map(|candidate| (source, candidate)));
            }
            Input::Command(command) => self.command(now, command)?,
        }
        self.last = now;
        if self.started.is_none() {
            self.started = Some(now);
            self.next_round = now + self.options.period;
        }
        if now >= self.poll_timeout() {
            self.work(now);
        }
        Ok(())
    }

    fn observe(&mut self, now: Duration, reading: &Reading<K::Subject>) -> Result<(), ReadingError> {
        let _span = trace::monitor(reading.signal);
        let observed = self.knowledge.observe(now, reading);
        self.telemetry.reading(observed.is_ok());
        observed
    }

    /// Takes all outputs of a loop whose actions are carried out at once, with `execute`, and returns its
    /// records. Questions to a person and escalations are in the records too. An action is claimed for
    /// nothing: leave [`LoopOptions::claims`] off.
    ///
    /// # Errors
    /// See [`HandleError`].
    pub fn drain(
        &mut self,
        now: Duration,
        mut execute: impl FnMut(&A) -> Result<(), String>,
    ) -> Result<Vec<Record>, HandleError> {
        let mut records = Vec::new();
        while let Some(output) = self.poll_output() {
            match output {
                Output::Execute { id, action, .. } | Output::Undo { id, action, .. } => {
                    self.handle(now, Input::Outcome { id, result: execute(&action) })?;
                }
                Output::Claim { id, .. } => self.handle(now, Input::Claim { id, fence: None })?,
                Output::Record(record) => records.push(*record),
                Output::Approve { .. } | Output::Escalate { .. } => {}
            }
        }
        Ok(records)
    }

    /// The next output; `None` when everything is done.
    pub fn poll_output(&mut self) -> Option<Output<K::Subject, A>> {
        self.outputs.pop_front()
    }

    /// When [`Input::Timeout`] is due. There is always a next round.
    #[must_use]
    pub fn poll_timeout(&self) -> Duration {
        self.in_flight.values().map(|flight| flight.due).fold(self.next_round, Duration::min)
    }

    fn command(&mut self, now: Duration, command: Command<K::Subject>) -> Result<(), HandleError> {
        match command {
            Command::Approve { id } => {
                let key = self.questions.remove(&id).ok_or(HandleError::UnknownAction { id })?;
                self.approved.insert(key, now + APPROVAL);
            }
            Command::Undo { id } => {
                let is_verifying = |flight: &&InFlight<A>| flight.stage == Stage::Verifying;
                self.in_flight.get(&id).filter(is_verifying).ok_or(HandleError::UnknownAction { id })?;
                self.undo(now, id);
            }
            Command::Pause { until } => self.paused = Some(until),
            Command::Resume => self.paused = None,
            Command::Acknowledge { subject } => self.histories.acknowledge(&subject),
        }
        Ok(())
    }

    fn claimed(&mut self, now: Duration, id: u64, fence: Option<u64>) -> Result<(), HandleError> {
        let is_claiming = |flight: &&mut InFlight<A>| flight.stage == Stage::Claiming;
        let flight =
            self.in_flight.get_mut(&id).filter(is_claiming).ok_or(HandleError::UnknownAction { id })?;
        let Some(fence) = fence else {
            let flight = self.in_flight.remove(&id);
            if let Some(flight) = flight {
                self.record(now, id, &flight, Event::ClaimLost);
            }
            return Ok(());
        };
        flight.fence = Some(fence);
        self.execute(now, id);
        Ok(())
    }

    /// Gives out an action that is decided and, where needed, claimed.
    fn execute(&mut self, now: Duration, id: u64) {
        let Some(flight) = self.in_flight.get_mut(&id) else { return };
        let _span = trace::execute(id, flight.ranked.round);
        flight.stage = Stage::Executing;
        flight.due = now + self.options.execution_max;
        let (action, fence) = (flight.action().clone(), flight.fence);
        let flight = flight.clone();
        self.record(now, id, &flight, Event::Executing { fence });
        self.outputs.push_back(Output::Execute { id, action, fence });
    }

    fn outcome(&mut self, now: Duration, id: u64, result: Result<(), String>) -> Result<(), HandleError> {
        let is_running =
            |flight: &&mut InFlight<A>| matches!(flight.stage, Stage::Executing | Stage::Undoing);
        let flight =
            self.in_flight.get_mut(&id).filter(is_running).ok_or(HandleError::UnknownAction { id })?;
        if flight.stage == Stage::Executing && result.is_ok() {
            flight.stage = Stage::Verifying;
            flight.due = now + flight.action().expectation().within;
            let flight = flight.clone();
            self.record(now, id, &flight, Event::Executed);
            return Ok(());
        }
        self.ended(now, id, result);
        Ok(())
    }

    /// An execution failed, or an undoing has ended.
    fn ended(&mut self, now: Duration, id: u64, result: Result<(), String>) {
        let Some(flight) = self.in_flight.remove(&id) else { return };
        let was_undoing = flight.stage == Stage::Undoing;
        match result {
            Ok(()) => self.record(now, id, &flight, Event::Undone),
            Err(reason) => {
                self.record(now, id, &flight, Event::Failed { reason: reason.clone() });
                if was_undoing {
                    // The subject is in a state that nobody planned.
                    self.escalate(now, id, &flight, format!("undoing action {id} failed: {reason}"));
                }
            }
        }
        self.after_attempt(now, id, &flight);
    }

    /// Hands the subject over to a person once too many actions did not help.
    fn after_attempt(&mut self, now: Duration, id: u64, flight: &InFlight<A>) {
        let attempts = self.histories.attempts(flight.action().subject());
        if attempts >= self.options.attempts_max {
            self.escalate(now, id, flight, format!("{attempts} actions have not helped"));
        }
    }

    fn escalate(&mut self, now: Duration, id: u64, flight: &InFlight<A>, reason: String) {
        self.call_person(now, id, &flight.ranked, reason);
    }

    fn call_person(&mut self, now: Duration, id: u64, ranked: &Ranked<A>, reason: String) {
        let subject = ranked.candidate.action.subject().clone();
        if self.histories.escalate(&subject) {
            self.push_record(now, id, ranked, Event::Escalated { reason: reason.clone() });
            self.outputs.push_back(Output::Escalate { subject, reason });
        }
    }

    /// Takes an action back, if it can be.
    fn undo(&mut self, now: Duration, id: u64) {
        let Some(flight) = self.in_flight.get_mut(&id) else { return };
        let Some(action) = flight.action().undo() else {
            let Some(flight) = self.in_flight.remove(&id) else { return };
            self.after_attempt(now, id, &flight);
            return;
        };
        flight.stage = Stage::Undoing;
        flight.due = now + self.options.execution_max;
        let fence = flight.fence;
        let flight = flight.clone();
        self.record(now, id, &flight, Event::Undoing { fence });
        self.outputs.push_back(Output::Undo { id, action, fence });
    }

    fn record(&mut self, at: Duration, id: u64, flight: &InFlight<A>, event: Event) {
        self.push_record(at, id, &flight.ranked, event);
    }

    fn push_record(&mut self, at: Duration, id: u64, ranked: &Ranked<A>, event: Event) {
        self.records += 1;
        let record = Record::new::<K, A>(self.records, at, id, ranked, event);
        self.telemetry.record(&record);
        trace::record(&record);
        self.outputs.push_back(Output::Record(Box::new(record)));
    }
}

impl<K: Knowledge, A: fmt::Debug> fmt::Debug for Loop<K, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loop")
            .field("policy", &self.policy.name())
            .field("rounds", &self.rounds)
            .field("in_flight", &self.in_flight)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
