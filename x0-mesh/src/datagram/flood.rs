//! Flooded messages that were seen.

use alloc::collections::{BTreeSet, VecDeque};

use x0_identity::NodeId;

/// Messages that are remembered.
const SEEN_MAX: usize = 4096;

/// Suppresses duplicates, as long as not too many other messages came in between.
#[derive(Debug, Default)]
pub(super) struct Seen {
    messages: BTreeSet<(NodeId, u64)>,
    order: VecDeque<(NodeId, u64)>,
}

impl Seen {
    /// Whether a message is new, which it is once.
    pub(super) fn insert(&mut self, origin: NodeId, number: u64) -> bool {
        if !self.messages.insert((origin, number)) {
            return false;
        }
        if self.order.len() == SEEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.messages.remove(&oldest);
        }
        self.order.push_back((origin, number));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_new_once_and_memory_is_bounded() {
        let mut seen = Seen::default();
        let origin = NodeId::new(1).unwrap();
        assert!(seen.insert(origin, 0) && !seen.insert(origin, 0));
        for number in 1..10_000 {
            assert!(seen.insert(origin, number));
        }
        assert!(!seen.insert(origin, 9_999));
        assert_eq!((seen.messages.len(), seen.order.len()), (SEEN_MAX, SEEN_MAX));
    }
}
