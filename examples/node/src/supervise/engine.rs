//! The decisions of a supervisor: a protocol engine without I/O.
//!
//! The driver passes what happened to [`Supervisor::handle`], carries out every output of
//! [`Supervisor::poll_output`], and passes [`Input::Timeout`] at the time of [`Supervisor::poll_timeout`].
//! Times are those of one monotonic clock since any origin.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// The settings of a [`Supervisor`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub(crate) struct Options {
    /// The time between two heartbeats.
    pub(crate) beat_every: Duration,
    /// A node that leaves a heartbeat unanswered for this long hangs, and is killed.
    pub(crate) hang_after: Duration,
    /// A node that does not end within this time after the order to stop is killed.
    pub(crate) stop_limit: Duration,
    /// The pause before the second restart in a row. It doubles with each further one.
    pub(crate) pause_min: Duration,
    /// The longest pause before a restart.
    pub(crate) pause_max: Duration,
    /// A node that served for this long starts again without a pause.
    pub(crate) stable_after: Duration,
    /// The restarts that a node gets at its own request within [`asked_within`](Options::asked_within).
    pub(crate) asked_max: usize,
    /// The time for which a restart at the request of the node is remembered.
    pub(crate) asked_within: Duration,
    /// The pause between the first and the second of these restarts. It doubles with each further one.
    pub(crate) asked_pause: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            beat_every: Duration::from_millis(250),
            hang_after: Duration::from_secs(2),
            // The node ends a stop that takes longer than 4.5 s itself.
            stop_limit: Duration::from_secs(8),
            pause_min: Duration::from_millis(200),
            pause_max: Duration::from_secs(60),
            stable_after: Duration::from_secs(10),
            asked_max: 3,
            asked_within: Duration::from_secs(24 * 3600),
            asked_pause: Duration::from_secs(60),
        }
    }
}

impl Options {
    /// Sets [`hang_after`](Options::hang_after).
    pub(crate) fn hang_after(mut self, hang_after: Duration) -> Options {
        self.hang_after = hang_after;
        self
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input {
    /// The process has started.
    Started,
    /// The process could not be started.
    NotStarted { why: String },
    /// The node serves.
    Ready,
    /// The node reports why it cannot start. Its process ends by itself.
    Refused { why: String, is_config: bool },
    /// The node answered a heartbeat.
    Beat,
    /// The node asks for a restart: its healer has found that nothing less helps.
    Asked { why: String },
    /// The process has ended.
    Exited { exit: Exit },
    /// The supervisor is to end, and the node with it.
    Stop,
    /// The node is to read its identity again.
    Reload,
    /// The time of [`Supervisor::poll_timeout`] has come.
    Timeout,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exit code {code}"),
            Exit::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// What the driver is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Output {
    /// Start the process.
    Start,
    /// Ask the node for a sign of life.
    Beat,
    /// Order the node to read its identity again.
    Reload,
    /// Order the node to stop.
    Stop,
    /// Notify the node that the restart that it asked for is refused.
    Refuse { why: String },
    /// Kill the process.
    Kill,
    /// Inform the service manager and the log.
    Notice(Notice),
    /// End the supervisor. The last output.
    End(End),
}

/// What a person or the service manager wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Notice {
    /// The node serves, `after` its start.
    Ready { after: Duration },
    /// The node ended without an order, or was killed because it hung.
    Failed { why: String },
    /// The node left a heartbeat unanswered for `silent`.
    Hung { silent: Duration },
    /// The node asked for a restart, and gets it.
    Asked { why: String },
    /// The next start is after a pause.
    Restart { pause: Duration },
    /// The node is stopping.
    Stopping,
}

/// The end of a supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// The node stopped in an orderly way.
    Stopped,
    /// The node was killed because it did not stop in time.
    Killed,
    /// The configuration is wrong: starting again cannot help.
    Config { why: String },
}

/// A process, or the pause before the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// No process runs. `due` is the time of the next start.
    Pause { due: Duration },
    /// [`Output::Start`] was given.
    Launching { begun: Duration },
    /// The process runs and does not serve yet. Reading a long log takes any time, so there is no limit.
    Starting { begun: Duration },
    /// The node serves. `asked` is the time of the heartbeat without an answer, `next` that of the next
    /// heartbeat or, while one is unanswered, of the next look at the own clock.
    Serving { ready: Duration, asked: Option<Duration>, next: Duration },
    /// The node was ordered to stop, and is killed at `limit`. `is_last` unless it starts again.
    Stopping { limit: Duration, is_last: bool },
    /// The process was killed and has not ended yet. A process that waits for a disk ends late.
    Killed { is_last: bool },
    /// [`Output::End`] was given.
    Ended,
}

/// A timer that comes later than this says that this process was not scheduled.
const LATE: Duration = Duration::from_millis(50);
/// A heartbeat gets more time at most this often: a machine that is overloaded for ever hides no hang.
const EXTENSIONS_MAX: u32 = 20;

/// Keeps one process running.
#[derive(Debug)]
pub(crate) struct Supervisor {
    options: Options,
    state: State,
    /// Failures since the last node that served for long enough.
    failures: u32,
    /// Why the node said that it cannot start.
    refusal: Option<(String, bool)>,
    /// How often the current heartbeat got more time.
    extensions: u32,
    /// When the node was started again at its own request, the oldest first.
    asked: VecDeque<Duration>,
    outputs: VecDeque<Output>,
}

impl Supervisor {
    /// A supervisor whose first output is [`Output::Start`].
    pub(crate) fn new(now: Duration, options: Options) -> Supervisor {
        let outputs = VecDeque::from([Output::Start]);
        let state = State::Launching { begun: now };
        Supervisor {
            options,
            state,
            failures: 0,
            refusal: None,
            extensions: 0,
            asked: VecDeque::new(),
            outputs,
        }
    }

    /// Takes what happened at `now`. An input that does not fit the state is ignored: answers of a process
    /// may arrive after its end.
    pub(crate) fn handle(&mut self, now: Duration, input: Input) {
        self.forgive_lateness(now);
        match (input, &mut self.state) {
            (Input::Started, State::Launching { begun }) => self.state = State::Starting { begun: *begun },
            (Input::NotStarted { why }, State::Launching { .. }) => self.failed(now, why),
            (Input::Ready, State::Starting { begun }) => {
                let after = now.saturating_sub(*begun);
                self.state = State::Serving { ready: now, asked: None, next: now + self.options.beat_every };
                self.outputs.push_back(Output::Notice(Notice::Ready { after }));
            }
            (Input::Refused { why, is_config }, State::Starting { .. }) => {
                self.refusal = Some((why, is_config));
            }
            (Input::Beat, State::Serving { asked, next, .. }) => {
                if let Some(asked) = asked.take() {
                    // A heartbeat that was answered late is followed at once by the next one.
                    *next = asked + self.options.beat_every;
                }
            }
            (Input::Asked { why }, State::Serving { .. }) => self.asked(now, why),
            (Input::Exited { exit }, _) => self.exited(now, exit),
            (Input::Stop, _) => self.stop(now),
            (Input::Reload, State::Serving { .. }) => self.outputs.push_back(Output::Reload),
            (Input::Timeout, _) => self.timeout(now),
            _ => {}
        }
    }

    /// The next thing to do.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The time of the next [`Input::Timeout`].
    pub(crate) fn poll_timeout(&self) -> Option<Duration> {
        match &self.state {
            State::Pause { due } => Some(*due),
            State::Serving { asked: Some(asked), next, .. } => {
                Some((*asked + self.options.hang_after).min(*next))
            }
            State::Serving { next, .. } => Some(*next),
            State::Stopping { limit, .. } => Some(*limit),
            State::Launching { .. } | State::Starting { .. } | State::Killed { .. } | State::Ended => None,
        }
    }

    /// A supervisor that was not scheduled in time accuses nobody: on the same starved machine the node was
    /// not scheduled either, and its answer may lie in the pipe. The time that was lost does not count. It
    /// is noticed by timers that come several times while an answer is awaited: the last one alone may be in
    /// time although the machine stood still before.
    fn forgive_lateness(&mut self, now: Duration) {
        let Some(due) = self.poll_timeout() else { return };
        let late = now.saturating_sub(due);
        if let State::Serving { asked: Some(asked), .. } = &mut self.state
            && late > LATE
            && self.extensions < EXTENSIONS_MAX
        {
            self.extensions += 1;
            // The answer has at least the time of one heartbeat to be read.
            *asked += late + self.options.beat_every;
        }
    }

    fn timeout(&mut self, now: Duration) {
        if self.poll_timeout().is_none_or(|due| due > now) {
            return;
        }
        match &mut self.state {
            State::Pause { .. } => {
                self.state = State::Launching { begun: now };
                self.outputs.push_back(Output::Start);
            }
            State::Serving { asked: Some(asked), next, .. } if *asked + self.options.hang_after > now => {
                *next = now + self.options.beat_every;
            }
            State::Serving { asked: Some(asked), ready, .. } => {
                let (silent, served) = (now.saturating_sub(*asked), now.saturating_sub(*ready));
                self.served(served);
                self.outputs.push_back(Output::Notice(Notice::Hung { silent }));
                self.kill(false);
            }
            State::Serving { asked, next, .. } => {
                *asked = Some(now);
                *next = now + self.options.beat_every;
                self.extensions = 0;
                self.outputs.push_back(Output::Beat);
            }
            State::Stopping { is_last, .. } => {
                let is_last = *is_last;
                self.kill(is_last);
            }
            State::Launching { .. } | State::Starting { .. } | State::Killed { .. } | State::Ended => {}
        }
    }

    fn kill(&mut self, is_last: bool) {
        self.state = State::Killed { is_last };
        self.outputs.push_back(Output::Kill);
    }

    /// Begins to count failures again if the node served for long enough: a crash once a day is no crash
    /// loop.
    fn served(&mut self, time: Duration) {
        if time >= self.options.stable_after {
            self.failures = 0;
        }
    }

    fn stop(&mut self, now: Duration) {
        match self.state {
            State::Pause { .. } | State::Launching { .. } => {
                // The driver gives no further input of a process that is being launched.
                self.end(End::Stopped);
            }
            State::Starting { .. } | State::Serving { .. } => {
                self.state = State::Stopping { limit: now + self.options.stop_limit, is_last: true };
                self.outputs.push_back(Output::Notice(Notice::Stopping));
                self.outputs.push_back(Output::Stop);
            }
            State::Stopping { limit, is_last: false } => {
                self.state = State::Stopping { limit, is_last: true };
                self.outputs.push_back(Output::Notice(Notice::Stopping));
            }
            State::Killed { .. } => self.state = State::Killed { is_last: true },
            // A second signal does not shorten the time of an orderly stop.
            State::Stopping { is_last: true, .. } | State::Ended => {}
        }
    }

    /// The node asks for a restart. It forgets how often it asked, so that the supervisor counts: the pause
    /// between two of these restarts doubles, and after some of them a person must help.
    fn asked(&mut self, now: Duration, why: String) {
        let Options { asked_max, asked_within, asked_pause, stop_limit, .. } = self.options;
        while self.asked.front().is_some_and(|at| now.saturating_sub(*at) >= asked_within) {
            self.asked.pop_front();
        }
        let count = self.asked.len();
        if count >= asked_max {
            let why = format!(
                "it was started again at its own request {count} times within {} s: find the cause, and restart the supervisor",
                asked_within.as_secs()
            );
            return self.outputs.push_back(Output::Refuse { why });
        }
        let doublings = u32::try_from(count.saturating_sub(1)).unwrap_or(u32::MAX).min(20);
        let pause = asked_pause.saturating_mul(1 << doublings);
        if let Some(last) = self.asked.back().filter(|last| now.saturating_sub(**last) < pause) {
            let ago = now.saturating_sub(*last).as_secs();
            let why = format!(
                "its last restart at its own request was {ago} s ago, and the pause is {} s",
                pause.as_secs()
            );
            return self.outputs.push_back(Output::Refuse { why });
        }
        self.asked.push_back(now);
        self.state = State::Stopping { limit: now + stop_limit, is_last: false };
        self.outputs.push_back(Output::Notice(Notice::Asked { why }));
        self.outputs.push_back(Output::Stop);
    }

    fn exited(&mut self, now: Duration, exit: Exit) {
        let refusal = self.refusal.take();
        match self.state {
            State::Pause { .. } | State::Ended => {}
            State::Stopping { is_last: false, .. } => {
                // A restart at the request of the node is no failure.
                self.state = State::Pause { due: now };
                self.outputs.push_back(Output::Notice(Notice::Restart { pause: Duration::ZERO }));
            }
            State::Stopping { is_last: true, .. } => {
                // A node that failed during its stop has reported the cause on its log.
                self.end(End::Stopped);
            }
            State::Killed { is_last: true } => self.end(End::Killed),
            State::Killed { is_last: false } => self.failed(now, "it did not answer and was killed".into()),
            State::Launching { .. } | State::Starting { .. } => match refusal {
                Some((why, true)) => self.end(End::Config { why }),
                Some((why, false)) => self.failed(now, why),
                None => self.failed(now, exit.to_string()),
            },
            // Somebody stopped the node itself, and it obeyed: it must not come back.
            State::Serving { .. } if exit == Exit::Code(0) => self.end(End::Stopped),
            State::Serving { ready, .. } => {
                self.served(now.saturating_sub(ready));
                self.failed(now, exit.to_string());
            }
        }
    }

    /// The node has failed. The first restart is at once, so that a crash costs as little as possible; a node
    /// that fails again and again costs ever less.
    fn failed(&mut self, now: Duration, why: String) {
        let doublings = self.failures.saturating_sub(1).min(20);
        let pause = if self.failures == 0 {
            Duration::ZERO
        } else {
            self.options.pause_min.saturating_mul(1 << doublings).min(self.options.pause_max)
        };
        self.failures = self.failures.saturating_add(1);
        self.state = State::Pause { due: now + pause };
        self.outputs.push_back(Output::Notice(Notice::Failed { why }));
        self.outputs.push_back(Output::Notice(Notice::Restart { pause }));
    }

    fn end(&mut self, end: End) {
        self.state = State::Ended;
        self.outputs.push_back(Output::End(end));
    }
}
