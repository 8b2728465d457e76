//! The order in which the members watch each other.

use std::collections::{BTreeMap, BTreeSet};

/// The members on each side of a member that may accuse it.
const JURORS: usize = 3;

/// The members on a ring. All members with the same set of members compute the same ring.
#[derive(Debug, Clone, Default)]
pub(super) struct Ring {
    order: Vec<u64>,
    position: BTreeMap<u64, usize>,
}

impl Ring {
    pub(super) fn new(members: &BTreeSet<u64>) -> Ring {
        let mut order: Vec<u64> = members.iter().copied().collect();
        // Neighbours in the order of their numbers often share a rack.
        order.sort_by_key(|member| (mix(*member), *member));
        let position = order.iter().enumerate().map(|(position, member)| (*member, position)).collect();
        Ring { order, position }
    }

    /// The members within this distance on each side, the nearest first; empty for a stranger.
    fn near(&self, member: u64, distance: usize) -> Vec<u64> {
        let Some(position) = self.position.get(&member) else { return Vec::new() };
        let count = self.order.len();
        let mut near = Vec::new();
        for step in 1..=distance.min(count) {
            for place in [(position + step) % count, (position + count - step) % count] {
                let other = self.order.get(place).copied().filter(|other| *other != member);
                near.extend(other.filter(|other| !near.contains(other)));
            }
        }
        near
    }

    /// The members that watch the heartbeats of `member`, which are those that it watches: on each side the
    /// nearest juror that is not suspect.
    pub(super) fn watchers(&self, member: u64, is_suspect: impl Fn(u64) -> bool) -> Vec<u64> {
        let Some(position) = self.position.get(&member) else { return Vec::new() };
        let count = self.order.len();
        let steps = JURORS.min(count.saturating_sub(1));
        let nearest = |place: &dyn Fn(usize) -> usize| {
            (1..=steps)
                .filter_map(|step| self.order.get(place(step) % count).copied())
                .find(|other| !is_suspect(*other))
        };
        let (right, left) = (nearest(&|step| position + step), nearest(&|step| position + count - step));
        right.into_iter().chain(left.filter(|left| Some(*left) != right)).collect()
    }

    /// The members that may accuse `member`, which are those that it may accuse.
    pub(super) fn jury(&self, member: u64) -> Vec<u64> {
        self.near(member, JURORS)
    }

    /// All other members, the nearest first.
    pub(super) fn others(&self, member: u64) -> Vec<u64> {
        self.near(member, self.order.len())
    }

    /// The accusers that make a verdict of a jury of this size: a majority of the jury and the accused.
    pub(super) fn needed(jury: usize) -> usize {
        usize::midpoint(jury, 1) + 1
    }
}

/// The finalizer of SplitMix64: neighbours of a number are far from each other.
fn mix(member: u64) -> u64 {
    let mut mixed = member.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
