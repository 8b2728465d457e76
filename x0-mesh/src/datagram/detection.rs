//! The detection of a link, without what says nothing new.

use core::time::Duration;

use crate::liveness::{Liveness, LivenessInput, LivenessOptions, LivenessOutput, LivenessState};

/// [`Liveness`] of a link whose frames come and go in batches. A second frame of the same moment in the same
/// direction proves nothing that the first one has not: it is left out, except while the link is down,
/// because frames are counted then.
#[derive(Debug)]
pub(super) struct Detection {
    liveness: Liveness,
    received_at: Option<Duration>,
    sent_at: Option<Duration>,
}

impl Detection {
    pub(super) fn new(options: LivenessOptions) -> Detection {
        Detection { liveness: Liveness::new(options), received_at: None, sent_at: None }
    }

    /// Hands in what happened; false if it is left out, and there are no new outputs.
    pub(super) fn handle(&mut self, now: Duration, input: LivenessInput<'_>) -> bool {
        let last = match input {
            LivenessInput::Received if self.liveness.state() == LivenessState::Down => None,
            LivenessInput::Received => self.received_at.replace(now),
            LivenessInput::Sent => self.sent_at.replace(now),
            _ => None,
        };
        let is_new = last != Some(now);
        if is_new {
            self.liveness.handle(now, input);
        }
        is_new
    }

    /// See [`Liveness::set_interval_down`].
    pub(super) fn set_interval_down(&mut self, interval: Duration) {
        self.liveness.set_interval_down(interval);
    }

    pub(super) fn poll_output(&mut self) -> Option<LivenessOutput> {
        self.liveness.poll_output()
    }

    /// [`Liveness`], for questions.
    pub(super) fn liveness(&self) -> &Liveness {
        &self.liveness
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ends of a link that is up.
    fn up() -> ([Detection; 2], Duration) {
        let mut ends = [1, 2].map(|instance| Detection::new(LivenessOptions::new(instance)));
        let mut now = Duration::ZERO;
        while !ends.iter().all(|end| end.liveness().state() == LivenessState::Up) {
            for at in [0, 1] {
                ends[at].handle(now, LivenessInput::Timeout);
                while let Some(output) = ends[at].poll_output() {
                    if let LivenessOutput::Probe(probe) = output {
                        ends[1 - at].handle(now, LivenessInput::Probe(&probe));
                    }
                }
            }
            now = ends.iter().filter_map(|end| end.liveness().poll_timeout()).min().unwrap().max(now);
        }
        (ends, now)
    }

    #[test]
    fn a_moment_counts_once_for_each_direction() {
        let ([mut end, _], now) = up();
        let later = now + Duration::from_millis(1);
        for (at, input, is_new) in [
            (now, LivenessInput::Received, true),
            (now, LivenessInput::Received, false),
            (now, LivenessInput::Sent, true),
            (now, LivenessInput::Sent, false),
            (now, LivenessInput::Timeout, true),
            (now, LivenessInput::Timeout, true),
            (now, LivenessInput::Received, false),
            (later, LivenessInput::Received, true),
            (later, LivenessInput::Sent, true),
            (later, LivenessInput::Received, false),
        ] {
            assert_eq!(end.handle(at, input), is_new, "{input:?} at {at:?}");
        }
    }

    /// Two frames bring up a link, also at one moment.
    #[test]
    fn each_frame_of_a_link_that_is_down_counts() {
        let mut end = Detection::new(LivenessOptions::new(1));
        for _ in 0..4 {
            assert!(end.handle(Duration::ZERO, LivenessInput::Received));
        }
    }
}
