//! The table of destinations.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use x0_identity::NodeId;

use super::Distance;
use super::message::Advert;

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
    /// What neighbours hear that are not the next hop.
    pub(super) primary: Advert,
    /// What the next hop hears: the way that does not lead through itself.
    pub(super) alternate: Advert,
    pub(super) selection: Selection,
    pub(super) region: u16,
    pub(super) removal: Removal,
    pub(super) is_used: bool,
}

/// Whether a destination without route is about to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Removal {
    None,
    /// When the time comes, unless there is a route then.
    Due,
    /// There was a route since; the time has to pass once more.
    Postponed,
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
    by_node: BTreeMap<NodeId, u32>,
    free: Vec<u32>,
}

impl Table {
    /// A table that holds this node.
    pub(super) fn new(local: NodeId, region: u16) -> Table {
        let mut table = Table { destinations: Vec::new(), by_node: BTreeMap::new(), free: Vec::new() };
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
        self.by_node.get(&node).copied()
    }

    pub(super) fn get(&self, index: u32) -> Option<&Destination> {
        self.destinations.get(index as usize).filter(|destination| destination.is_used)
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut Destination> {
        self.destinations.get_mut(index as usize).filter(|destination| destination.is_used)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Destination)> {
        (0_u32..).zip(&self.destinations).filter(|(_, destination)| destination.is_used)
    }

    /// The caller has checked that the node is new and that there is room.
    pub(super) fn insert(&mut self, node: NodeId) -> u32 {
        let destination = Destination {
            node,
            feasible: Distance::WORST,
            primary: Advert::NONE,
            alternate: Advert::NONE,
            selection: Selection::None,
            region: 0,
            removal: Removal::None,
            is_used: true,
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
        self.by_node.insert(node, index);
        index
    }

    pub(super) fn remove(&mut self, index: u32) {
        if let Some(destination) = self.get_mut(index) {
            destination.is_used = false;
            let node = destination.node;
            self.by_node.remove(&node);
            self.free.push(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
