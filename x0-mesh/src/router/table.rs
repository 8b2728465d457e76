//! The table of destinations.

use alloc::vec::Vec;

use x0_identity::NodeId;

use super::Distance;
use super::message::{Advert, DEPTH_MAX, Packed};

/// The index of this node in each table.
pub(super) const SELF: u32 = 0;

/// The slot of a neighbour.
pub(super) type Slot = u16;

/// The next hop of a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Selection {
    None,
    Feasible(Slot),
    Detour(Slot),
}

impl Selection {
    pub(super) fn slot(self) -> Option<Slot> {
        match self {
            Selection::None => None,
            Selection::Feasible(slot) | Selection::Detour(slot) => Some(slot),
        }
    }
}

/// What is known of a destination besides the adverts of each neighbour.
#[derive(Debug, Clone, Copy)]
pub(super) struct Destination {
    pub(super) node: NodeId,
    /// The best distance that this node has advertised: it never gets worse while the destination is kept.
    pub(super) feasible: Distance,
    primary: Packed,
    alternate: Packed,
    /// The depth of `primary` in the lower four bits, that of `alternate` above.
    depths: u8,
    pub(super) removal: Removal,
    pub(super) region: u16,
    pub(super) selection: Selection,
}

const _: () = assert!(size_of::<Destination>() == 48, "there is one for each pair of nodes");

impl Destination {
    /// What neighbours hear that are not the next hop.
    pub(super) fn primary(&self) -> Advert {
        self.primary.unpack(self.depths & DEPTH_MAX)
    }

    pub(super) fn set_primary(&mut self, advert: &Advert) {
        self.primary = Packed::new(advert);
        // No deeper than the options allow, which are bounded by what the format can express.
        self.depths = self.depths & !DEPTH_MAX | advert.depth & DEPTH_MAX;
    }

    /// What the next hop hears: the way that does not lead through itself.
    pub(super) fn alternate(&self) -> Advert {
        self.alternate.unpack(self.depths >> 4)
    }

    pub(super) fn set_alternate(&mut self, advert: &Advert) {
        self.alternate = Packed::new(advert);
        self.depths = self.depths & DEPTH_MAX | advert.depth << 4;
    }

    fn is_used(&self) -> bool {
        self.removal != Removal::Removed
    }
}

/// Whether a destination without route is about to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Removal {
    None,
    /// When the time comes, unless there is a route then.
    Due,
    /// There was a route since; the time has to pass once more.
    Postponed,
    /// The place in the table is free.
    Removed,
}

/// Makes room for `len` items and an eighth more. A table that doubled would have up to half of its room for
/// nothing, in each pair of nodes.
pub(super) fn grow<T>(items: &mut Vec<T>, len: usize) {
    if items.capacity() < len {
        items.reserve_exact((len + len / 8 + 4).saturating_sub(items.len()));
    }
}

/// Destinations by index. An index stays valid until the destination is removed.
#[derive(Debug, Clone)]
pub(super) struct Table {
    destinations: Vec<Destination>,
    /// Indices in the order of the nodes. Members choose the ids that they advertise, so that no hash
    /// function without a secret bounds the time of a search.
    by_node: Vec<u32>,
    free: Vec<u32>,
}

impl Table {
    /// A table that holds this node.
    pub(super) fn new(local: NodeId, region: u16) -> Table {
        let mut table = Table { destinations: Vec::new(), by_node: Vec::new(), free: Vec::new() };
        table.insert(local);
        table.destinations[SELF as usize].region = region;
        table
    }

    pub(super) fn len(&self) -> usize {
        self.by_node.len()
    }

    /// One more than the highest index.
    pub(super) fn end(&self) -> u32 {
        // Bounded by `destinations_max`, which fits.
        u32::try_from(self.destinations.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn find(&self, node: NodeId) -> Option<u32> {
        self.by_node.get(self.position(node).ok()?).copied()
    }

    /// The place of a node in `by_node`, or where it would be.
    fn position(&self, node: NodeId) -> Result<usize, usize> {
        self.by_node.binary_search_by_key(&node, |index| self.destinations[*index as usize].node)
    }

    pub(super) fn get(&self, index: u32) -> Option<&Destination> {
        self.destinations.get(index as usize).filter(|destination| destination.is_used())
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut Destination> {
        self.destinations.get_mut(index as usize).filter(|destination| destination.is_used())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Destination)> {
        (0_u32..).zip(&self.destinations).filter(|(_, destination)| destination.is_used())
    }

    /// The caller has checked that the node is new and that there is room.
    pub(super) fn insert(&mut self, node: NodeId) -> u32 {
        let (Ok(position) | Err(position)) = self.position(node);
        let destination = Destination {
            node,
            feasible: Distance::WORST,
            primary: Packed::NONE,
            alternate: Packed::NONE,
            depths: 0,
            removal: Removal::None,
            region: 0,
            selection: Selection::None,
        };
        let index = if let Some(index) = self.free.pop() {
            self.destinations[index as usize] = destination;
            index
        } else {
            let index = self.end();
            grow(&mut self.destinations, index as usize + 1);
            self.destinations.push(destination);
            index
        };
        let len = self.by_node.len() + 1;
        grow(&mut self.by_node, len);
        self.by_node.insert(position, index);
        index
    }

    pub(super) fn remove(&mut self, index: u32) {
        if let Some(node) = self.get(index).map(|destination| destination.node) {
            if let Ok(position) = self.position(node) {
                self.by_node.remove(position);
            }
            self.destinations[index as usize].removal = Removal::Removed;
            self.free.push(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;

    #[test]
    fn tables_have_little_room_to_spare() {
        let mut items: Vec<u32> = Vec::new();
        let (mut moves, mut last) = (0, 0);
        for len in 1..=20_000 {
            grow(&mut items, len);
            items.push(0);
            assert!(items.capacity() <= len + len / 8 + 4, "{} for {len}", items.capacity());
            moves += usize::from(std::mem::replace(&mut last, items.capacity()) != items.capacity());
        }
        assert!(moves < 100, "{moves}");
    }

    /// Against a map, with ids that are close to each other and ids that differ in their highest bits only.
    #[test]
    fn destinations_are_found_until_they_are_removed() {
        let local = NodeId::new(u64::MAX).unwrap();
        for seed in 0..8 {
            let mut random = SplitMix64::new(seed);
            let mut table = Table::new(local, 7);
            let mut model = std::collections::BTreeMap::from([(local, SELF)]);
            // Many short of the limit, then few: tables grow, are full, and become empty.
            for (range, steps) in [(40, 400), (3000, 12_000), (8, 24_000)] {
                for _ in 0..steps {
                    let number = random.below(range) + 1;
                    let node =
                        NodeId::new(if number.is_multiple_of(2) { number } else { number << 50 }).unwrap();
                    assert_eq!(table.find(node), model.get(&node).copied());
                    if let Some(index) = model.remove(&node) {
                        table.remove(index);
                        assert!(table.get(index).is_none());
                    } else {
                        let index = table.insert(node);
                        assert_eq!(table.get(index).map(|destination| destination.node), Some(node));
                        model.insert(node, index);
                    }
                    assert_eq!(table.len(), model.len());
                }
                for (node, index) in &model {
                    assert_eq!(table.find(*node), Some(*index), "seed {seed}");
                }
                let used: Vec<u32> = table.iter().map(|(index, _)| index).collect();
                let mut indices: Vec<u32> = model.values().copied().collect();
                indices.sort_unstable();
                assert_eq!(used, indices);
                // A search halves the table whatever the ids are, and a route has four bytes in it.
                assert!(table.by_node.iter().eq(model.values()), "seed {seed}");
                assert!(table.by_node.capacity() <= 3100 * 9 / 8, "{}", table.by_node.capacity());
            }
        }
    }

    #[test]
    fn a_destination_keeps_both_adverts() {
        let mut table = Table::new(NodeId::new(1).unwrap(), 7);
        let destination = table.get_mut(SELF).unwrap();
        assert_eq!((destination.primary(), destination.alternate()), (Advert::NONE, Advert::NONE));
        let advert = |number: u8, depth| {
            let seqno = u32::MAX - u32::from(number);
            let distance = Distance { seqno, metric: 0x0102_0304 * u32::from(number) };
            Advert { distance, price: u16::MAX - u16::from(number), mtu: 1200 + u16::from(number), depth }
        };
        for (one, other) in [(0, DEPTH_MAX), (DEPTH_MAX, 0), (3, 5)] {
            destination.set_primary(&advert(1, one));
            destination.set_alternate(&advert(2, other));
            assert_eq!(destination.primary(), advert(1, one));
            assert_eq!(destination.alternate(), advert(2, other));
            destination.set_primary(&advert(3, other));
            assert_eq!(destination.alternate(), advert(2, other));
        }
    }
}
