//! Destinations that do not answer, although the way to them looks well.

use alloc::collections::BTreeMap;
use core::time::Duration;

use x0_identity::NodeId;

use crate::router::Report;

/// For how long nothing has to arrive, and how often something has to be sent meanwhile.
const SILENCE: Duration = Duration::from_secs(3);
const SENDS_MIN: u32 = 4;
/// Sends within this time count once: a burst is one attempt.
const SEND_INTERVAL: Duration = Duration::from_millis(100);
/// Destinations that are watched, and after which time without a send one makes room.
const DESTINATIONS_MAX: usize = 1024;
const FORGOTTEN: Duration = Duration::from_secs(60);

/// The datagrams sent to a destination since it was heard.
#[derive(Debug, Clone, Copy)]
struct Watch {
    next: NodeId,
    since: Duration,
    sent_at: Duration,
    sends: u32,
    is_reported: bool,
}

/// A member that attracts traffic by a false metric, and drops it, keeps its links up. Only the silence of
/// the destination shows that.
#[derive(Debug, Default)]
pub(super) struct Silence {
    watches: BTreeMap<NodeId, Watch>,
    /// No watch makes room before: a node that sends to more destinations does not look at all of them for
    /// each datagram.
    full_until: Duration,
}

impl Silence {
    /// A datagram of this node leaves for a destination over a neighbour. Returns a report, once, if the
    /// destination does not answer.
    pub(super) fn sent(&mut self, now: Duration, to: NodeId, next: NodeId) -> Option<Report> {
        if self.watches.len() >= DESTINATIONS_MAX && !self.watches.contains_key(&to) {
            if now < self.full_until {
                return None;
            }
            self.watches.retain(|_, watch| now < watch.sent_at + FORGOTTEN);
            if self.watches.len() >= DESTINATIONS_MAX {
                let oldest = self.watches.values().map(|watch| watch.sent_at).min();
                self.full_until = oldest.unwrap_or(now) + FORGOTTEN;
                return None;
            }
        }
        let begun = Watch { next, since: now, sent_at: now, sends: 1, is_reported: false };
        let watch = self.watches.entry(to).or_insert(begun);
        if watch.next != next || watch.sends == 0 {
            *watch = begun;
            return None;
        }
        if now >= watch.sent_at + SEND_INTERVAL {
            watch.sent_at = now;
            watch.sends = watch.sends.saturating_add(1);
        }
        let silence = now.saturating_sub(watch.since);
        let is_new = silence >= SILENCE && watch.sends >= SENDS_MIN && !watch.is_reported;
        watch.is_reported |= is_new;
        is_new.then_some(Report::NoAnswer { destination: to, next, silence })
    }

    /// A datagram of a node has arrived.
    pub(super) fn heard(&mut self, from: NodeId) {
        if let Some(watch) = self.watches.get_mut(&from) {
            watch.sends = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn node(number: u64) -> NodeId {
        NodeId::new(number).unwrap()
    }

    /// The times at which a report comes, of sends each so many milliseconds to node 9.
    fn reports(interval: u32, heard: Option<u32>, moved: Option<u32>) -> Vec<u32> {
        let mut silence = Silence::default();
        let mut found = Vec::new();
        for at in (0..10_000).step_by(usize::try_from(interval).unwrap()) {
            if heard.is_some_and(|heard| at >= heard && at < heard + interval) {
                silence.heard(node(9));
            }
            let next = node(if moved.is_some_and(|moved| at >= moved) { 3 } else { 2 });
            if let Some(report) = silence.sent(MS * at, node(9), next) {
                let Report::NoAnswer { destination, next: over, silence } = report else { panic!() };
                assert_eq!((destination, over), (node(9), next));
                assert!(silence >= SILENCE);
                found.push(at);
            }
        }
        found
    }

    #[test]
    fn a_destination_that_does_not_answer_is_reported_once() {
        assert_eq!(reports(10, None, None), [3000]);
        assert_eq!(reports(500, None, None), [3000]);
        // The fourth send.
        assert_eq!(reports(1500, None, None), [4500]);
        // An answer, and another way, begin anew.
        assert_eq!(reports(10, Some(2900), None), [5900]);
        assert_eq!(reports(10, Some(5000), None), [3000, 8000]);
        assert_eq!(reports(10, None, Some(2900)), [5900]);
        assert_eq!(reports(10, None, Some(5000)), [3000, 8000]);
    }

    #[test]
    fn a_burst_is_one_send() {
        let mut silence = Silence::default();
        for at in [0, 1, 2, 3, 4, 3000, 3001, 3002] {
            assert_eq!(silence.sent(MS * at, node(9), node(2)), None);
        }
    }

    #[test]
    fn the_number_of_destinations_is_bounded() {
        let mut silence = Silence::default();
        for number in 0..3000 {
            assert_eq!(silence.sent(MS, node(10 + number), node(2)), None);
        }
        assert_eq!(silence.watches.len(), DESTINATIONS_MAX);
        // One was found too many, and none of the others can make room before.
        assert_eq!(silence.full_until, FORGOTTEN + MS);
        silence.sent(FORGOTTEN + 2 * MS, node(9000), node(2));
        assert_eq!(silence.watches.len(), 1);
    }
}
