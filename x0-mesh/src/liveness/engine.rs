//! The engine.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use super::LivenessOptions;
use super::probe::{Probe, WINDOW};
use crate::random::SplitMix64;
use crate::router::LinkSample;

/// Times of sent probes that are kept for the round-trip time.
const SENT_MAX: usize = 64;
/// How much silence may be explained by late timers, before it counts.
const EXCUSED_MAX: Duration = Duration::from_secs(1);
/// Two answers are not closer than this, so that a flood of requests is not answered by a flood.
const ANSWER_INTERVAL: Duration = Duration::from_millis(2);
/// A link comes up after this many frames.
const FRAMES_TO_UP: u8 = 2;
/// So many pauses of an idle link have to pass well before a longer one than the one that failed is tried.
const PAUSES_TO_RAISE: u8 = 16;
/// A ratio of fewer probes means nothing.
const RATIO_PROBES_MIN: u8 = 16;

/// What a link is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LivenessState {
    /// Frames arrive in both directions.
    Up,
    /// Frames arrive in both directions, and many are lost.
    Degraded,
    /// Nothing arrives in at least one direction.
    Down,
}

/// Why the state of a link has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LivenessReason {
    /// Both ends hear each other.
    Heard,
    /// Nothing arrives from the peer.
    Silent,
    /// The peer reports that nothing of this node arrives there.
    Unheard,
    /// The peer has restarted.
    Restarted,
    /// Too few probes arrive.
    Loss,
    /// Frames arrive, but long ones are lost. Detected by [`datagram`](crate::datagram), not by this engine.
    LongFramesLost,
}

/// What happens on a link.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum LivenessInput<'a> {
    /// Traffic was sent to the peer.
    Sent,
    /// Traffic of the peer has arrived.
    Received,
    /// A probe of the peer has arrived. Bytes that are no probe are ignored.
    Probe(&'a [u8]),
    /// The time of [`Liveness::poll_timeout`] has come.
    Timeout,
}

/// What a driver does.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LivenessOutput {
    /// Send a probe to the peer.
    Probe(Vec<u8>),
    /// The state of the link has changed.
    Changed {
        /// The new state.
        state: LivenessState,
        /// Why.
        reason: LivenessReason,
    },
}

/// One end of one link: whether frames pass, in each direction.
///
/// # Drain contract
/// `now` is the time since any origin and must not run backwards. Hand in every frame that is sent or
/// received, and [`LivenessInput::Timeout`] when [`poll_timeout`](Liveness::poll_timeout) has come; take
/// outputs until there are none after each input. Hand in frames that wait in a socket before a timeout that
/// is due: they are the better evidence. No input is refused.
///
/// ```
/// use std::time::Duration;
/// use x0_mesh::liveness::{Liveness, LivenessInput, LivenessOptions, LivenessOutput, LivenessState};
///
/// let mut ends = [Liveness::new(LivenessOptions::new(1)), Liveness::new(LivenessOptions::new(2))];
/// let mut now = Duration::ZERO;
/// loop {
///     for at in [0, 1] {
///         ends[at].handle(now, LivenessInput::Timeout);
///         while let Some(output) = ends[at].poll_output() {
///             if let LivenessOutput::Probe(probe) = output {
///                 ends[1 - at].handle(now, LivenessInput::Probe(&probe));
///             }
///         }
///     }
///     if ends.iter().all(|end| end.state() == LivenessState::Up) {
///         break;
///     }
///     now = ends.iter().filter_map(Liveness::poll_timeout).min().unwrap_or(now).max(now);
/// }
/// assert!(now < Duration::from_millis(150));
/// ```
#[derive(Debug, Clone)]
pub struct Liveness {
    options: LivenessOptions,
    now: Duration,
    state: LivenessState,
    outputs: VecDeque<LivenessOutput>,

    // Receiving.
    /// Whether frames of the peer arrive.
    hears: bool,
    /// Frames since the peer was silent.
    heard_frames: u8,
    /// The last frame; later by the time for which this process was not scheduled.
    received_at: Option<Duration>,
    excused: Duration,
    /// Within which time the peer sends its next frame.
    peer_interval: Duration,
    /// By how much frames came later than that, lately: a peak that decays.
    jitter: Duration,
    suspicion: Option<Suspicion>,
    peer_instance: Option<u32>,
    /// The peer's newest probe, and when it arrived.
    peer_probe: Option<(u16, Duration)>,
    /// Bit n: the probe n before the newest has arrived.
    window: u32,
    window_len: u8,

    // Sending.
    peer_hears: bool,
    send_ratio: Option<f64>,
    active_until: Option<Duration>,
    /// When the link became active.
    active_since: Duration,
    sent_at: Option<Duration>,
    probed_at: Option<Duration>,
    /// The interval that the last probe announced.
    promised: Duration,
    answer_due: bool,
    answered_at: Option<Duration>,
    wants_answer: bool,
    seqno: u16,
    probes: VecDeque<(u16, Duration)>,
    probes_since_up: u32,
    /// The pause of this end without traffic, and how long it may become.
    idle: Duration,
    idle_max: Duration,
    /// Pauses of that length that have passed well.
    pauses: u8,
    /// A frame of the peer has arrived since the last one of them: each asks whether there is a mapping.
    is_asked: bool,
    /// The smoothed round-trip time and its deviation (RFC 6298).
    round_trip: Option<(Duration, Duration)>,
    /// Measured while the link was down: the first sample of the link that is up replaces it.
    is_round_trip_provisional: bool,
}

#[derive(Debug, Clone, Copy)]
struct Suspicion {
    since: Duration,
    requests: u32,
    next: Duration,
}

impl Liveness {
    /// An end of a link that is down until its peer is heard. It sends its first probe at the first
    /// [`LivenessInput::Timeout`], which is due at once.
    #[must_use]
    pub fn new(options: LivenessOptions) -> Liveness {
        Liveness {
            now: Duration::ZERO,
            state: LivenessState::Down,
            outputs: VecDeque::new(),
            hears: false,
            heard_frames: 0,
            received_at: None,
            excused: Duration::ZERO,
            peer_interval: options.interval_idle,
            jitter: Duration::ZERO,
            suspicion: None,
            peer_instance: None,
            peer_probe: None,
            window: 0,
            window_len: 0,
            peer_hears: false,
            send_ratio: None,
            active_until: None,
            active_since: Duration::ZERO,
            sent_at: None,
            probed_at: None,
            promised: options.interval_down,
            answer_due: false,
            answered_at: None,
            wants_answer: false,
            seqno: 0,
            probes: VecDeque::new(),
            probes_since_up: 0,
            idle: options.interval_idle,
            idle_max: options.interval_idle_max.max(options.interval_idle),
            pauses: 0,
            is_asked: false,
            round_trip: None,
            is_round_trip_provisional: false,
            options,
        }
    }

    /// Hands in what happened.
    pub fn handle(&mut self, now: Duration, input: LivenessInput<'_>) {
        let now = now.max(self.now);
        self.excuse(now);
        self.now = now;
        match input {
            LivenessInput::Sent => {
                self.activate(true);
                self.sent_at = Some(now);
            }
            LivenessInput::Received => {
                self.activate(false);
                self.frame();
            }
            LivenessInput::Probe(bytes) => {
                if let Some(probe) = Probe::decode(bytes) {
                    self.probe(&probe);
                }
            }
            LivenessInput::Timeout => {}
        }
        self.silence();
        self.judge(LivenessReason::Heard);
        if self.next_probe().is_none_or(|at| at <= now) {
            self.emit();
        }
    }

    /// The next thing to do, `None` when there is nothing until the next input.
    pub fn poll_output(&mut self) -> Option<LivenessOutput> {
        self.outputs.pop_front()
    }

    /// When [`LivenessInput::Timeout`] is due: always at some time.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        let probe = self.next_probe().unwrap_or(self.now);
        let suspicion = match self.suspicion {
            Some(suspicion) => Some(suspicion.next),
            None => self.suspect_at(),
        };
        Some(suspicion.map_or(probe, |at| at.min(probe)))
    }

    /// The state of the link.
    #[must_use]
    pub fn state(&self) -> LivenessState {
        self.state
    }

    /// Sets [`LivenessOptions::interval_down`] of this end from its next probe on: a node that has many links
    /// which are down for long asks each of them less often.
    pub fn set_interval_down(&mut self, interval: Duration) {
        self.options.interval_down = interval;
    }

    /// What was measured, for a [`Metric`](crate::router::Metric).
    #[must_use]
    pub fn sample(&self) -> LinkSample {
        LinkSample {
            receive_ratio: self.receive_ratio(),
            send_ratio: self.send_ratio,
            rtt: self.round_trip.map(|(smoothed, _)| smoothed),
            ..LinkSample::default()
        }
    }

    /// Time for which this process was not scheduled is not the peer's silence.
    fn excuse(&mut self, now: Duration) {
        let Some(late) = self.poll_timeout().map(|due| now.saturating_sub(due.max(self.now))) else { return };
        if late <= self.options.lateness_max || !self.hears {
            return;
        }
        let excused = late.min(EXCUSED_MAX.saturating_sub(self.excused));
        self.excused += excused;
        self.received_at = self.received_at.map(|at| at + excused);
        if let Some(suspicion) = &mut self.suspicion {
            suspicion.since += excused;
        }
    }

    /// Traffic makes a link active.
    fn activate(&mut self, is_sender: bool) {
        let was_active = self.is_active();
        self.active_until = Some(self.now + self.options.active_hold);
        if was_active {
            return;
        }
        self.active_since = self.now;
        if is_sender && self.hears {
            // The peer may be gone since its last probe: it is asked at once, and has to answer soon.
            self.peer_interval = self.peer_interval.min(self.options.interval_active);
            self.wants_answer = true;
            self.answer_due = true;
        }
    }

    fn is_active(&self) -> bool {
        self.active_until.is_some_and(|until| self.now < until)
    }

    /// A frame has arrived.
    fn frame(&mut self) {
        let pause = self.received_at.map(|at| self.now.saturating_sub(at));
        if self.hears {
            let late = pause.unwrap_or_default().saturating_sub(self.peer_interval);
            // A quarter of an hour's pause before traffic begins says nothing about jitter.
            let late = late.min(self.options.interval_active * 4);
            self.jitter = late.max(self.jitter * 31 / 32);
        } else if pause.is_some_and(|pause| pause > self.options.interval_down * 4) {
            self.heard_frames = 0;
        }
        self.is_asked = true;
        self.received_at = Some(self.now);
        self.excused = Duration::ZERO;
        self.suspicion = None;
        if !self.hears {
            self.heard_frames += 1;
            if self.heard_frames == 1 {
                // The next one need not wait for the peer's next probe: after a cut both ends are up one
                // round trip after the first frame.
                self.wants_answer = true;
                self.answer_due = true;
            }
            if self.heard_frames >= FRAMES_TO_UP {
                self.hears = true;
                // The peer waits for this.
                self.answer_due = true;
            }
        }
    }

    fn probe(&mut self, probe: &Probe) {
        if self.peer_instance != Some(probe.instance) {
            let is_restart = self.peer_instance.replace(probe.instance).is_some();
            (self.window, self.window_len, self.peer_probe) = (0, 0, None);
            (self.send_ratio, self.probes_since_up) = (None, 0);
            if is_restart {
                (self.hears, self.heard_frames, self.peer_hears) = (false, 0, false);
                self.judge(LivenessReason::Restarted);
            }
        }
        self.frame();
        self.peer_interval = Duration::from_millis(u64::from(probe.interval));
        let heard_before = core::mem::replace(&mut self.peer_hears, probe.hears);
        if heard_before && !probe.hears {
            self.judge(LivenessReason::Unheard);
        }
        self.count(probe.seqno);
        if probe.wants_answer && self.answered_at.is_none_or(|at| self.now >= at + ANSWER_INTERVAL) {
            self.answer_due = true;
        }
        if let Some((echo, held)) = probe.echo
            && let Some((_, sent_at)) = self.probes.iter().find(|(seqno, _)| *seqno == echo)
        {
            // RFC 9616 §3.1: the time that the peer held the probe is not on the link.
            self.measure(self.now.saturating_sub(*sent_at).saturating_sub(held));
        }
        // Probes behind the one that is echoed are still on the way.
        let flying = probe.echo.map_or(0, |(echo, _)| u32::from(self.seqno.wrapping_sub(echo)));
        let expected = self.probes_since_up.saturating_sub(flying).min(u32::from(WINDOW));
        if expected >= u32::from(RATIO_PROBES_MIN) {
            self.send_ratio = Some((f64::from(probe.arrived) / f64::from(expected)).min(1.0));
        }
    }

    /// Records the arrival of a probe of the peer.
    fn count(&mut self, seqno: u16) {
        let Some((newest, _)) = self.peer_probe else {
            self.peer_probe = Some((seqno, self.now));
            (self.window, self.window_len) = (1, 1);
            return;
        };
        let ahead = seqno.wrapping_sub(newest);
        if ahead < 0x8000 {
            if ahead > 0 {
                self.window = self.window.checked_shl(u32::from(ahead)).unwrap_or(0) | 1;
                let len = u16::from(self.window_len).saturating_add(ahead).min(u16::from(WINDOW));
                self.window_len = u8::try_from(len).unwrap_or(WINDOW);
                self.peer_probe = Some((seqno, self.now));
            }
        } else {
            let late = newest.wrapping_sub(seqno);
            if late < u16::from(self.window_len) {
                self.window |= 1 << late;
            }
        }
    }

    /// Takes a sample of the round-trip time. While the link is down, frames may wait below this engine
    /// (Linux keeps them until the neighbour's address is resolved, RFC 4861 §7.2.2) and arrive when the cut
    /// is over. A sample with such a wait would make this end patient for seconds: it would not notice the
    /// next cut.
    fn measure(&mut self, sample: Duration) {
        let is_down = self.state == LivenessState::Down;
        if is_down && self.round_trip.is_some() {
            return;
        }
        let was_provisional = core::mem::replace(&mut self.is_round_trip_provisional, is_down);
        self.round_trip = Some(match self.round_trip.filter(|_| !was_provisional) {
            None => (sample, sample / 2),
            Some((smoothed, deviation)) => {
                let difference = smoothed.abs_diff(sample);
                ((smoothed * 7 + sample) / 8, (deviation * 3 + difference) / 4)
            }
        });
    }

    fn receive_ratio(&self) -> Option<f64> {
        (self.window_len >= RATIO_PROBES_MIN)
            .then(|| f64::from(self.window.count_ones()) / f64::from(self.window_len))
    }

    /// When the peer becomes suspected: half an interval, the jitter and the deviation of the round trip
    /// after a frame was due.
    fn suspect_at(&self) -> Option<Duration> {
        let received_at = self.received_at.filter(|_| self.hears)?;
        let deviation = self.round_trip.map_or(Duration::ZERO, |(_, deviation)| deviation * 2);
        let since = received_at.max(self.active_since);
        Some(since + self.peer_interval + self.peer_interval / 2 + self.jitter + deviation)
    }

    /// How long the last request has to remain without answer.
    fn patience(&self) -> Duration {
        self.round_trip
            .map_or(self.options.request_interval, |(smoothed, deviation)| smoothed + deviation * 4)
    }

    /// Suspects the peer, asks it, and gives it up.
    fn silence(&mut self) {
        let now = self.now;
        if self.suspicion.is_none() && self.suspect_at().is_some_and(|at| at <= now) {
            self.shorten_idle();
            self.suspicion = Some(Suspicion { since: now, requests: 0, next: now });
        }
        let Some(mut suspicion) = self.suspicion else { return };
        let asked = self.options.request_interval * self.options.requests;
        let ends = suspicion.since + asked.max(self.patience() + self.options.request_interval);
        if suspicion.requests >= self.options.requests && now >= ends {
            (self.hears, self.heard_frames, self.suspicion) = (false, 0, None);
            self.jitter = Duration::ZERO;
            self.judge(LivenessReason::Silent);
            // The peer may still hear this node.
            self.answer_due = true;
            return;
        }
        if now >= suspicion.next {
            suspicion.requests += 1;
            suspicion.next = now + self.options.request_interval;
            self.suspicion = Some(suspicion);
            self.wants_answer = true;
            self.answer_due = true;
        }
    }

    /// A frame of the peer is missing. If the link was idle, the mapping of a NAT may have expired.
    fn shorten_idle(&mut self) {
        if !self.is_active() && self.idle > self.options.interval_idle {
            self.idle_max = (self.idle / 2).max(self.options.interval_idle);
            self.idle = self.idle_max;
        }
        self.pauses = 0;
    }

    /// A pause without traffic has ended, and frames of the peer have arrived on time.
    fn lengthen_idle(&mut self) {
        if self.idle < self.idle_max {
            self.idle = (self.idle * 5 / 4).min(self.idle_max);
            return;
        }
        self.pauses = self.pauses.saturating_add(1);
        if self.pauses >= PAUSES_TO_RAISE {
            self.pauses = 0;
            self.idle_max = (self.idle_max * 5 / 4).min(self.options.interval_idle_max.max(self.idle));
        }
    }

    /// The longest pause between two frames of this end while there is no traffic. It follows the lifetime of
    /// a NAT's mapping up to [`LivenessOptions::interval_idle_max`].
    #[must_use]
    pub fn keep_alive(&self) -> Duration {
        self.idle
    }

    /// Derives the state from what is known of both directions.
    fn judge(&mut self, cause: LivenessReason) {
        let works = self.hears && self.peer_hears;
        if works && self.state == LivenessState::Down {
            // What was lost or delayed during a cut is not the quality of the link after it.
            (self.window, self.window_len, self.peer_probe) = (0, 0, None);
            (self.send_ratio, self.probes_since_up) = (None, 0);
            self.probes.clear();
        }
        let worst = match (self.receive_ratio(), self.send_ratio) {
            (Some(receive), Some(send)) => receive.min(send),
            (Some(ratio), None) | (None, Some(ratio)) => ratio,
            (None, None) => 1.0,
        };
        let was_degraded = self.state == LivenessState::Degraded;
        let limit = if was_degraded { self.options.recovered_ratio } else { self.options.degraded_ratio };
        let state = if !works {
            LivenessState::Down
        } else if worst < limit {
            LivenessState::Degraded
        } else {
            LivenessState::Up
        };
        if state == self.state {
            return;
        }
        let reason = match state {
            LivenessState::Degraded => LivenessReason::Loss,
            LivenessState::Up => LivenessReason::Heard,
            LivenessState::Down if cause == LivenessReason::Heard => LivenessReason::Unheard,
            LivenessState::Down => cause,
        };
        self.state = state;
        self.outputs.push_back(LivenessOutput::Changed { state, reason });
    }

    /// Within which time this end promises its next frame.
    fn interval(&self) -> Duration {
        if self.state == LivenessState::Down {
            self.options.interval_down
        } else if self.is_active() {
            self.options.interval_active
        } else {
            self.idle
        }
    }

    /// After which time this end sends its next frame. Long pauses of an idle link vary by a quarter: else
    /// the frames of both ends could come one after the other, and no frame would ask whether there is a
    /// mapping.
    fn pause(&self) -> Duration {
        let interval = self.interval();
        if interval <= self.options.interval_idle.max(self.options.interval_down) {
            return interval;
        }
        let seed = u64::from(self.options.instance) << 16 | u64::from(self.seqno);
        let [draw, ..] = SplitMix64::new(seed).next().to_le_bytes();
        interval * (768 + u32::from(draw)) / 1024
    }

    fn next_probe(&self) -> Option<Duration> {
        if self.answer_due {
            return Some(self.now);
        }
        let probed_at = self.probed_at?;
        let report = if self.is_active() { self.options.interval_idle } else { self.idle };
        let idle = probed_at + report.max(self.options.interval_down);
        let frame =
            if self.state == LivenessState::Down { probed_at } else { self.sent_at.unwrap_or(probed_at) };
        // Traffic carries no report of the other direction: some probes are sent whatever the traffic is.
        // The end of an active time is announced by the last frame that it promised.
        Some(idle.min(frame.max(probed_at) + self.pause().min(self.promised)))
    }

    fn emit(&mut self) {
        let now = self.now;
        let is_idle = self.state == LivenessState::Up && !self.is_active();
        if is_idle && self.suspicion.is_none() && !self.answer_due && core::mem::take(&mut self.is_asked) {
            self.lengthen_idle();
        }
        self.seqno = self.seqno.wrapping_add(1);
        self.promised = self.interval();
        let probe = Probe {
            wants_answer: core::mem::take(&mut self.wants_answer),
            hears: self.hears,
            arrived: u8::try_from(self.window.count_ones()).unwrap_or(WINDOW),
            interval: LivenessOptions::wire(self.promised),
            seqno: self.seqno,
            echo: self.peer_probe.map(|(seqno, at)| (seqno, now.saturating_sub(at))),
            instance: self.options.instance,
        };
        if core::mem::take(&mut self.answer_due) {
            self.answered_at = Some(now);
        }
        if self.probes.len() == SENT_MAX {
            self.probes.pop_front();
        }
        self.probes.push_back((self.seqno, now));
        self.probes_since_up = self.probes_since_up.saturating_add(1);
        self.sent_at = Some(now);
        self.probed_at = Some(now);
        self.outputs.push_back(LivenessOutput::Probe(probe.encode().to_vec()));
    }
}
