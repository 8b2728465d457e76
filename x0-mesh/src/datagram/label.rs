//! Labels: short names of pairs of destination and source.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use x0_identity::NodeId;

/// Labels under one set of keys, in each direction: numbered from 1.
pub(super) const LABELS_MAX: u16 = 4096;
/// Between two announcements of a label.
const ANNOUNCE_INTERVAL: Duration = Duration::from_millis(20);
const ANNOUNCEMENTS_MAX: u8 = 10;

/// Destination and source.
pub(super) type Nodes = (NodeId, NodeId);

#[derive(Debug, Clone, Copy)]
struct Given {
    label: u16,
    is_acknowledged: bool,
    announced_at: Duration,
    announcements: u8,
}

/// What to do with a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Short {
        label: u16,
    },
    /// Label 0 if none is free.
    Long {
        label: u16,
    },
}

/// The labels of one link under one set of keys.
#[derive(Debug, Default)]
pub(super) struct Labels {
    given: BTreeMap<Nodes, Given>,
    by_label: Vec<Nodes>,
    /// Not acknowledged.
    waiting: BTreeMap<u16, Nodes>,
    received: BTreeMap<u16, Nodes>,
}

impl Labels {
    /// How a datagram of these nodes is sent; gives them a label if they have none.
    pub(super) fn form(&mut self, nodes: Nodes) -> Form {
        if let Some(given) = self.given.get(&nodes) {
            let label = given.label;
            return if given.is_acknowledged { Form::Short { label } } else { Form::Long { label } };
        }
        let number = self.by_label.len() + 1;
        let Some(label) = u16::try_from(number).ok().filter(|label| *label <= LABELS_MAX) else {
            return Form::Long { label: 0 };
        };
        self.by_label.push(nodes);
        let given = Given { label, is_acknowledged: false, announced_at: Duration::ZERO, announcements: 0 };
        self.given.insert(nodes, given);
        self.waiting.insert(label, nodes);
        Form::Long { label }
    }

    /// Whether a label has to be announced without a datagram now, which counts as done.
    pub(super) fn announce(&mut self, nodes: Nodes, now: Duration) -> bool {
        let Some(given) = self.given.get_mut(&nodes).filter(|given| !given.is_acknowledged) else {
            return false;
        };
        if given.announcements > 0 && now < given.announced_at + ANNOUNCE_INTERVAL {
            return false;
        }
        given.announced_at = now;
        given.announcements = given.announcements.saturating_add(1);
        true
    }

    /// When an announcement is due again. A label that is never acknowledged is given up until the next
    /// datagram of its nodes.
    pub(super) fn timeout(&self) -> Option<Duration> {
        let given = self.waiting.values().filter_map(|nodes| self.given.get(nodes));
        let due = given.filter(|given| (1..ANNOUNCEMENTS_MAX).contains(&given.announcements));
        due.map(|given| given.announced_at + ANNOUNCE_INTERVAL).min()
    }

    /// The pairs whose announcement is due.
    pub(super) fn due(&self, now: Duration) -> Vec<Nodes> {
        let is_due = |nodes: &&Nodes| {
            self.given.get(nodes).is_some_and(|given| {
                (1..ANNOUNCEMENTS_MAX).contains(&given.announcements)
                    && given.announced_at + ANNOUNCE_INTERVAL <= now
            })
        };
        self.waiting.values().filter(is_due).copied().collect()
    }

    /// Gives up the announcements that are due, until the next datagrams of their nodes.
    pub(super) fn give_up(&mut self, now: Duration) {
        for nodes in self.due(now) {
            if let Some(given) = self.given.get_mut(&nodes) {
                given.announcements = 0;
            }
        }
    }

    /// The neighbour knows a label.
    pub(super) fn acknowledge(&mut self, label: u16) {
        let Some(nodes) = self.waiting.remove(&label) else { return };
        if let Some(given) = self.given.get_mut(&nodes) {
            given.is_acknowledged = true;
        }
    }

    /// Records a label of the neighbour: whether it is to be acknowledged. A label keeps its first meaning.
    pub(super) fn learn(&mut self, label: u16, nodes: Nodes) -> bool {
        (1..=LABELS_MAX).contains(&label) && *self.received.entry(label).or_insert(nodes) == nodes
    }

    pub(super) fn nodes(&self, label: u16) -> Option<Nodes> {
        self.received.get(&label).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u64) -> NodeId {
        NodeId::new(number).unwrap()
    }

    #[test]
    fn labels_are_given_once_and_used_up() {
        let mut labels = Labels::default();
        let nodes = |number| (node(number), node(1));
        for number in 1..=u64::from(LABELS_MAX) {
            let label = u16::try_from(number).unwrap();
            assert_eq!(labels.form(nodes(number)), Form::Long { label });
        }
        assert_eq!(labels.form(nodes(9999)), Form::Long { label: 0 });
        labels.acknowledge(7);
        labels.acknowledge(9999);
        assert_eq!(labels.form(nodes(7)), Form::Short { label: 7 });
        assert_eq!(labels.form(nodes(8)), Form::Long { label: 8 });
    }

    #[test]
    fn announcements_are_repeated_and_end() {
        let mut labels = Labels::default();
        let nodes = (node(1), node(2));
        labels.form(nodes);
        assert_eq!(labels.timeout(), None);
        let mut now = Duration::from_secs(1);
        let mut count = 0;
        assert!(labels.announce(nodes, now) && !labels.announce(nodes, now));
        while let Some(at) = labels.timeout() {
            now = at;
            assert_eq!(labels.due(now), [nodes]);
            assert!(labels.announce(nodes, now));
            count += 1;
        }
        assert_eq!(count, ANNOUNCEMENTS_MAX - 1);
        assert!(labels.due(now + ANNOUNCE_INTERVAL).is_empty());
    }

    #[test]
    fn an_announcement_that_is_given_up_begins_again_with_a_datagram() {
        let mut labels = Labels::default();
        let [early, late] = [2, 3].map(|source| (node(1), node(source)));
        let now = Duration::from_secs(1);
        for (nodes, at) in [(early, now), (late, now + ANNOUNCE_INTERVAL / 2)] {
            labels.form(nodes);
            assert!(labels.announce(nodes, at));
        }
        labels.give_up(now + ANNOUNCE_INTERVAL);
        assert_eq!(labels.timeout(), Some(now + ANNOUNCE_INTERVAL / 2 + ANNOUNCE_INTERVAL));
        assert!(labels.announce(early, now + ANNOUNCE_INTERVAL));
    }

    #[test]
    fn a_label_keeps_its_first_meaning() {
        let mut labels = Labels::default();
        assert!(labels.learn(3, (node(1), node(2))) && labels.learn(3, (node(1), node(2))));
        assert!(!labels.learn(3, (node(1), node(9))));
        assert!(!labels.learn(0, (node(1), node(2))) && !labels.learn(LABELS_MAX + 1, (node(1), node(2))));
        assert_eq!(labels.nodes(3), Some((node(1), node(2))));
        assert_eq!(labels.nodes(4), None);
    }
}
