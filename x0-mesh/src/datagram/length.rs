//! The lengths of frames that a link carries, as padded requests and their answers show.

use core::time::Duration;

/// Frames of this length are taken to pass as long as the link is up: probes and short datagrams.
const FLOOR: usize = 256;
/// A shorter limit does not carry the packets of a QUIC handshake (RFC 9000 §14.1).
pub(super) const USABLE: usize = 1232;
/// The search ends when the limit is known to so many bytes.
const PRECISION: usize = 16;
/// Requests that have to remain without answer, while the link is up: at most 3 of 10^8 sets of them are
/// lost by chance on a link that loses a tenth of all frames in each direction.
const REQUESTS: u8 = 10;
/// The shortest pause between two requests. Longer round trips make longer pauses.
const PAUSE: Duration = Duration::from_millis(40);
/// Between two examinations of a link that long frames were sent over.
const BUSY_INTERVAL: Duration = Duration::from_secs(2);
/// Between two examinations of any link, and two attempts to find a higher limit. A padded request has as
/// many bytes as thirty probes.
const IDLE_INTERVAL: Duration = Duration::from_secs(300);
/// Between two attempts of a link that is not usable.
const RECOVERY_INTERVAL: Duration = Duration::from_secs(5);

/// One end's search for the longest frame that reaches the other end.
#[derive(Debug)]
pub(super) struct Lengths {
    /// The longest frame of the link itself.
    max: usize,
    /// The longest length that is known to pass.
    low: usize,
    /// The shortest length that does not pass, nor do longer ones: `max + 1` as long as nothing was lost.
    high: usize,
    /// The length that is being tried.
    asked: Option<Asked>,
    number: u16,
    /// When the next examination begins; `None` while the link is down.
    next: Option<Duration>,
    /// When the last one ended.
    examined: Duration,
    has_long_frames: bool,
    /// `low` is assumed, and asked for next.
    is_assumed: bool,
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    len: usize,
    requests: u8,
    next: Duration,
}

impl Lengths {
    pub(super) fn new(max: usize) -> Lengths {
        Lengths {
            max,
            low: max,
            high: max.saturating_add(1),
            asked: None,
            number: 0,
            next: None,
            examined: Duration::ZERO,
            has_long_frames: false,
            is_assumed: false,
        }
    }

    /// The longest frame that passes, as far as it is known. A link is trusted to carry its longest frame
    /// until frames of that length were lost.
    pub(super) fn limit(&self) -> usize {
        self.low
    }

    /// The longest frame of the link itself.
    pub(super) fn max(&self) -> usize {
        self.max
    }

    /// Whether the link carries packets of QUIC, or is not meant to.
    pub(super) fn is_usable(&self) -> bool {
        self.low >= USABLE.min(self.max)
    }

    /// The link has another MTU.
    pub(super) fn set_max(&mut self, max: usize) {
        let is_running = self.next.is_some() || self.asked.is_some();
        *self = Lengths { number: self.number, ..Lengths::new(max) };
        self.next = is_running.then_some(Duration::ZERO);
    }

    /// The link is up: its longest frame is examined at once. A limit that was found before holds until then.
    pub(super) fn link_up(&mut self, now: Duration) {
        if self.next.is_none() && self.asked.is_none() {
            self.next = Some(now);
        }
    }

    /// The link is down: nothing can be concluded.
    pub(super) fn link_down(&mut self) {
        (self.asked, self.next) = (None, None);
    }

    /// A frame of this length was sent.
    pub(super) fn sent(&mut self, len: usize) {
        if len > self.max / 2 && !self.has_long_frames {
            self.has_long_frames = true;
            self.next = self.next.map(|next| next.min(self.examined + BUSY_INTERVAL));
        }
    }

    /// The other end has received a frame of this length, by the request of this number.
    pub(super) fn answered(&mut self, now: Duration, number: u16, len: usize) {
        // An answer to an earlier request may be of another length.
        let Some(asked) = self.asked.filter(|asked| number == self.number && len == asked.len) else {
            return;
        };
        self.low = self.low.max(asked.len);
        self.is_assumed = false;
        if self.low >= self.high {
            self.high = self.max.saturating_add(1);
        }
        self.proceed(now);
    }

    pub(super) fn timeout(&self) -> Option<Duration> {
        self.asked.map(|asked| asked.next).or(self.next)
    }

    /// The number and the length of a request that is due, which counts as sent.
    pub(super) fn poll_request(&mut self, now: Duration, rtt: Option<Duration>) -> Option<(u16, usize)> {
        if self.asked.is_none() && self.next.is_some_and(|next| next <= now) {
            self.next = None;
            // The longest frame of the link first: the link may be better than it was.
            self.ask(now, self.max);
        }
        while let Some(asked) = self.asked.filter(|asked| asked.next <= now) {
            if asked.requests >= REQUESTS {
                self.lost(now, asked.len);
                continue;
            }
            let pause = PAUSE.max(rtt.unwrap_or_default() * 2);
            self.asked = Some(Asked { requests: asked.requests + 1, next: now + pause, ..asked });
            return Some((self.number, asked.len));
        }
        None
    }

    fn ask(&mut self, now: Duration, len: usize) {
        self.number = self.number.wrapping_add(1);
        self.asked = Some(Asked { len, requests: 0, next: now });
    }

    /// Frames of this length do not arrive.
    fn lost(&mut self, now: Duration, len: usize) {
        if self.low >= len {
            // The limit has fallen. The one that matters most is assumed, and examined at once.
            self.is_assumed = len > USABLE;
            self.low = if self.is_assumed { USABLE } else { FLOOR.min(self.max) };
        }
        self.high = len;
        self.proceed(now);
    }

    /// Asks for the next length, or ends the examination.
    fn proceed(&mut self, now: Duration) {
        self.asked = None;
        let is_known = self.low >= self.max || self.high.saturating_sub(self.low) <= PRECISION;
        if self.is_assumed || !is_known {
            let middle = usize::midpoint(self.low, self.high);
            self.ask(now, if self.is_assumed { self.low } else { middle });
            return;
        }
        self.examined = now;
        let interval = if self.is_usable() { IDLE_INTERVAL } else { RECOVERY_INTERVAL };
        self.has_long_frames = false;
        self.next = Some(now + interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Lets an end run for some time over a link that carries frames up to `limit`; the number of requests.
    fn run(end: &mut Lengths, now: &mut Duration, time: Duration, limit: usize) -> usize {
        let until = *now + time;
        let mut count = 0;
        while let Some(at) = end.timeout().filter(|at| *at <= until) {
            *now = at.max(*now);
            while let Some((number, len)) = end.poll_request(*now, None) {
                count += 1;
                assert!((1..=end.max()).contains(&len));
                if len <= limit {
                    end.answered(*now, number, len);
                }
            }
        }
        *now = until;
        count
    }

    #[test]
    fn every_limit_is_found_and_left_again() {
        for max in [300, 1232, 1500, 9000, 65_533] {
            for limit in [256, 300, 576, 1000, 1231, 1232, 1233, 1400, 4000, 8999, 9000, 70_000] {
                let (mut end, mut now) = (Lengths::new(max), SECOND);
                end.link_up(now);
                run(&mut end, &mut now, 10 * SECOND, 70_000);
                assert_eq!(end.limit(), max);
                // The path changes, and later changes back.
                run(&mut end, &mut now, 2 * IDLE_INTERVAL, limit);
                let found = end.limit();
                assert!(
                    found <= limit.min(max) && limit.min(max) - found < PRECISION,
                    "{max} {limit} {found}"
                );
                assert_eq!(end.is_usable(), found >= USABLE.min(max));
                assert!(limit < USABLE || end.is_usable());
                run(&mut end, &mut now, 2 * IDLE_INTERVAL, 70_000);
                assert_eq!(end.limit(), max);
            }
        }
    }

    #[test]
    fn a_link_with_long_frames_is_examined_sooner() {
        let (mut end, mut now) = (Lengths::new(1232), SECOND);
        assert_eq!(end.timeout(), None);
        end.link_up(now);
        assert_eq!(run(&mut end, &mut now, 10 * SECOND, 1232), 1);
        end.sent(100);
        assert_eq!(run(&mut end, &mut now, 10 * SECOND, 1232), 0);
        end.sent(1200);
        end.sent(1200);
        assert_eq!(run(&mut end, &mut now, 10 * SECOND, 1232), 1);
        end.sent(1200);
        run(&mut end, &mut now, 3 * SECOND, 1000);
        assert!(!end.is_usable() && end.limit() < 1001);
        // A higher limit is found without traffic.
        run(&mut end, &mut now, 6 * SECOND, 1232);
        assert!(end.is_usable());
        // While it is down nothing is concluded.
        end.link_down();
        end.sent(1200);
        assert_eq!((end.timeout(), run(&mut end, &mut now, 10 * SECOND, 0)), (None, 0));
        assert!(end.is_usable());
        end.set_max(1300);
        assert_eq!((end.limit(), end.timeout()), (1300, None));
    }

    /// Answers to other requests, and forged ones, are ignored.
    #[test]
    fn only_the_answer_to_the_last_request_counts() {
        let mut end = Lengths::new(1232);
        end.link_up(SECOND);
        let (number, len) = end.poll_request(SECOND, None).unwrap();
        assert_eq!(end.poll_request(SECOND, None), None);
        end.answered(SECOND, number.wrapping_add(1), len);
        end.answered(SECOND, number, len - 1);
        assert!(end.asked.is_some());
        // A long round trip makes longer pauses.
        let at = end.timeout().unwrap();
        assert_eq!(end.poll_request(at, Some(SECOND)).unwrap(), (number, len));
        assert_eq!(end.timeout(), Some(at + 2 * SECOND));
        end.answered(SECOND, number, len);
        assert!(end.asked.is_none());
        end.set_max(1400);
        assert_eq!(end.poll_request(SECOND, None).map(|(_, len)| len), Some(1400));
    }
}
