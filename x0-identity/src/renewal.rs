//! When to renew an SVID: a protocol engine without clock, socket and randomness of its own.

use core::time::Duration;

use alloc::collections::VecDeque;

use crate::random::Random;

/// The settings of a [`Renewal`]. Start from [`RenewalOptions::default`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RenewalOptions {
    /// The pause after the first failed attempt; it doubles with each further one. The default is 1 second.
    pub pause_min: Duration,
    /// The longest pause between attempts. The default is 60 seconds.
    pub pause_max: Duration,
    /// An attempt without an answer counts as failed after this time. The default is 30 seconds.
    pub answer_max: Duration,
    /// An SVID whose authority is replaced is renewed within this time, so that not all come at once. The
    /// default is 5 seconds.
    pub spread: Duration,
    /// The longest time between two looks at the wall clock, which may jump and which goes on while the
    /// machine is suspended. The default is 30 seconds.
    pub clock_look: Duration,
}

impl Default for RenewalOptions {
    fn default() -> RenewalOptions {
        RenewalOptions {
            pause_min: Duration::from_secs(1),
            pause_max: Duration::from_secs(60),
            answer_max: Duration::from_secs(30),
            spread: Duration::from_secs(5),
            clock_look: Duration::from_secs(30),
        }
    }
}

impl RenewalOptions {
    /// Sets [`RenewalOptions::pause_min`] and [`RenewalOptions::pause_max`].
    #[must_use]
    pub fn pauses(mut self, min: Duration, max: Duration) -> RenewalOptions {
        (self.pause_min, self.pause_max) = (min, max.max(min));
        self
    }

    /// Sets [`RenewalOptions::answer_max`].
    #[must_use]
    pub fn answer_max(mut self, answer_max: Duration) -> RenewalOptions {
        self.answer_max = answer_max;
        self
    }

    /// Sets [`RenewalOptions::spread`].
    #[must_use]
    pub fn spread(mut self, spread: Duration) -> RenewalOptions {
        self.spread = spread;
        self
    }

    /// Sets [`RenewalOptions::clock_look`].
    #[must_use]
    pub fn clock_look(mut self, clock_look: Duration) -> RenewalOptions {
        self.clock_look = clock_look;
        self
    }
}

/// An input of a [`Renewal`]. `wall` is the time since 1970 by the system's clock, in which certificates
/// state their validity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RenewalInput {
    /// The time of [`Renewal::poll_timeout`] has come, or the driver looks earlier.
    Timeout {
        /// The system's clock.
        wall: Duration,
    },
    /// The issuer has issued an SVID, which is in use now. Also the first input of a process that starts with
    /// an SVID.
    Issued {
        /// The system's clock.
        wall: Duration,
        /// The first second of its validity, since 1970.
        not_before: Duration,
        /// The last second of its validity, since 1970.
        not_after: Duration,
    },
    /// The SVID is to be replaced before its time, because its authority is.
    Due {
        /// The system's clock.
        wall: Duration,
    },
    /// The attempt failed: the issuer is unreachable, or busy.
    Failed {
        /// The system's clock.
        wall: Duration,
    },
    /// The issuer does not accept the current SVID: the next attempt attests again.
    Rejected {
        /// The system's clock.
        wall: Duration,
    },
}

/// An output of a [`Renewal`]. Its driver answers with [`RenewalInput::Issued`], [`RenewalInput::Failed`] or
/// [`RenewalInput::Rejected`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RenewalOutput {
    /// Request an SVID with the current one.
    Renew {
        /// Attempts since the last SVID, from 1.
        attempt: u32,
    },
    /// Request an SVID by attestation: there is no current one, it is not valid now, or the issuer does not
    /// accept it.
    Attest {
        /// Attempts since the last SVID, from 1.
        attempt: u32,
    },
}

/// An input was not expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RenewalError {
    /// An answer came without an attempt that waits for one; it may be late. The state is unchanged.
    #[error("no attempt to renew waits for an answer: drop the answer, it came after its time")]
    NoAttempt,
    /// The validity of the SVID ends before it begins. The attempt counts as failed.
    #[error("the issued SVID ends before it begins: check the issuer")]
    Validity,
}

/// Decides when to renew an SVID, and whether with it or by attestation. It never gives up.
///
/// An SVID is renewed at half of the validity that it has when it comes into use, with a jitter of a tenth of
/// it, so that nodes that started together do not come together. After a failure it tries again with growing
/// pauses, for ever. It looks at the system's clock at least every [`RenewalOptions::clock_look`], and so
/// recovers from a suspend, a clock that jumps, and an SVID that expired meanwhile.
///
/// # Drain contract
/// After each [`Renewal::handle`], with or without an error, take outputs until [`Renewal::poll_output`]
/// returns `None`. Then wait until [`Renewal::poll_timeout`] or an answer, whichever comes first. `now` is
/// the time since any origin, from a clock that does not go back; it may stand still while the machine is
/// suspended.
///
/// ```
/// use core::time::Duration;
/// use x0_identity::{Renewal, RenewalInput, RenewalOptions, RenewalOutput};
///
/// let seconds = Duration::from_secs;
/// let mut renewal = Renewal::new(RenewalOptions::default(), 7);
/// // Without an SVID it attests at once.
/// renewal.handle(seconds(0), RenewalInput::Timeout { wall: seconds(1_000_000) })?;
/// assert_eq!(renewal.poll_output(), Some(RenewalOutput::Attest { attempt: 1 }));
/// assert_eq!(renewal.poll_output(), None);
///
/// let issued = RenewalInput::Issued { wall: seconds(1_000_000), not_before: seconds(1_000_000), not_after: seconds(1_003_600) };
/// renewal.handle(seconds(1), issued)?;
/// assert_eq!(renewal.poll_output(), None);
/// // At half of the hour, more or less.
/// renewal.handle(seconds(2000), RenewalInput::Timeout { wall: seconds(1_002_000) })?;
/// assert_eq!(renewal.poll_output(), Some(RenewalOutput::Renew { attempt: 1 }));
/// # Ok::<(), x0_identity::RenewalError>(())
/// ```
#[derive(Debug)]
pub struct Renewal {
    options: RenewalOptions,
    random: Random,
    svid: Option<Held>,
    /// The issuer does not accept the current SVID.
    rejected: bool,
    attempts: u32,
    state: State,
    outputs: VecDeque<RenewalOutput>,
}

/// All times since 1970.
#[derive(Debug, Clone, Copy)]
struct Held {
    not_before: Duration,
    not_after: Duration,
    renew_at: Duration,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Looks again at this time of the engine's clock.
    Idle { look_at: Duration },
    /// An attempt waits for its answer.
    Waiting { until: Duration },
    /// The next attempt is due.
    Paused { until: Duration },
}

impl Renewal {
    /// Builds an engine without an SVID. `seed` makes the jitter of one node differ from that of others.
    #[must_use]
    pub fn new(options: RenewalOptions, seed: u64) -> Renewal {
        Renewal {
            options,
            random: Random::new(seed),
            svid: None,
            rejected: false,
            attempts: 0,
            state: State::Idle { look_at: Duration::ZERO },
            outputs: VecDeque::new(),
        }
    }

    /// Takes an input.
    ///
    /// # Errors
    /// [`RenewalError`] says what it did to the state. The engine goes on in each case.
    pub fn handle(&mut self, now: Duration, input: RenewalInput) -> Result<(), RenewalError> {
        match input {
            RenewalInput::Timeout { wall } => {
                self.look(now, wall);
                Ok(())
            }
            RenewalInput::Issued { wall, not_before, not_after } => {
                self.issued(now, wall, not_before, not_after)
            }
            RenewalInput::Due { wall } => {
                let due = wall + self.options.spread.mul_f64(self.random.fraction());
                if let Some(held) = &mut self.svid {
                    held.renew_at = held.renew_at.min(due);
                }
                // An attempt in progress, or one that is paused, comes sooner.
                if let State::Idle { look_at } = &mut self.state {
                    *look_at = now + due.saturating_sub(wall).min(look_at.saturating_sub(now));
                }
                Ok(())
            }
            RenewalInput::Failed { .. } | RenewalInput::Rejected { .. } => {
                if !matches!(self.state, State::Waiting { .. }) {
                    return Err(RenewalError::NoAttempt);
                }
                self.rejected |= matches!(input, RenewalInput::Rejected { .. });
                self.pause(now);
                Ok(())
            }
        }
    }

    /// The next thing to do, until `None`.
    pub fn poll_output(&mut self) -> Option<RenewalOutput> {
        self.outputs.pop_front()
    }

    /// When to give [`RenewalInput::Timeout`] at the latest. Never `None`: the engine does not end.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        Some(match self.state {
            State::Idle { look_at } => look_at,
            State::Waiting { until } | State::Paused { until } => until,
        })
    }

    /// The time since 1970 at which the current SVID is due.
    #[must_use]
    pub fn renew_at(&self) -> Option<Duration> {
        self.svid.map(|held| held.renew_at)
    }

    /// An SVID is good whatever the state: a process starts with one, and a late answer is an answer.
    fn issued(
        &mut self,
        now: Duration,
        wall: Duration,
        not_before: Duration,
        not_after: Duration,
    ) -> Result<(), RenewalError> {
        let Some(validity) = not_after.checked_sub(not_before) else {
            if matches!(self.state, State::Waiting { .. }) {
                self.pause(now);
            }
            return Err(RenewalError::Validity);
        };
        // A new one is often backdated, by more than its validity perhaps. One that the process starts with
        // is of an age that is not known.
        let is_new = matches!(self.state, State::Waiting { .. });
        let begin = if is_new { wall.clamp(not_before, not_after) } else { not_before };
        // Half of the validity, and up to a tenth of it earlier or later.
        let validity = if is_new { not_after - begin } else { validity };
        let spread = (validity / 5).mul_f64(self.random.fraction());
        let renew_at = begin + validity / 2 - validity / 10 + spread;
        let held = Held { not_before, not_after, renew_at };
        self.svid = Some(held);
        self.rejected = false;
        if is_current(held, wall) && wall < renew_at {
            self.attempts = 0;
            self.rest(now, wall, renew_at);
        } else {
            // By a clock that is far off it is due at once: not without a pause, or two clocks that differ
            // make a storm.
            self.pause(now);
        }
        Ok(())
    }

    fn look(&mut self, now: Duration, wall: Duration) {
        match self.state {
            // The answer is lost.
            State::Waiting { until } if now >= until => self.pause(now),
            State::Waiting { .. } => {}
            State::Paused { until } if now < until => {}
            State::Paused { .. } | State::Idle { .. } => match self.svid {
                Some(held) if is_current(held, wall) && wall < held.renew_at && !self.rejected => {
                    self.rest(now, wall, held.renew_at);
                }
                _ => self.attempt(now, wall),
            },
        }
    }

    fn attempt(&mut self, now: Duration, wall: Duration) {
        self.attempts = self.attempts.saturating_add(1);
        let attempt = self.attempts;
        let usable = self.svid.is_some_and(|held| is_current(held, wall)) && !self.rejected;
        self.outputs.push_back(if usable {
            RenewalOutput::Renew { attempt }
        } else {
            RenewalOutput::Attest { attempt }
        });
        self.state = State::Waiting { until: now + self.options.answer_max };
    }

    /// Doubles with each attempt up to the longest pause, and takes between half and all of it.
    fn pause(&mut self, now: Duration) {
        let doubled = 2_u32.saturating_pow(self.attempts.saturating_sub(1).min(20));
        let pause = self.options.pause_min.saturating_mul(doubled).min(self.options.pause_max);
        let pause = pause.mul_f64(0.5 + 0.5 * self.random.fraction());
        self.state = State::Paused { until: now + pause };
    }

    fn rest(&mut self, now: Duration, wall: Duration, renew_at: Duration) {
        let due = renew_at.saturating_sub(wall).min(self.options.clock_look);
        self.state = State::Idle { look_at: now + due };
    }
}

/// Valid by the system's clock. A clock that lags behind the validity makes it unusable as well.
fn is_current(held: Held, wall: Duration) -> bool {
    (held.not_before..=held.not_after).contains(&wall)
}
