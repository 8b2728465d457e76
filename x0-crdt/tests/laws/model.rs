//! The meaning of the types, without stores, contexts or joins: operations that a replica knows, and the
//! items that are left of them.

use x0_crdt::Dot;

/// The place of an item: the keys down to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Path {
    keys: [u8; 3],
    len: usize,
}

impl Path {
    pub(crate) fn child(mut self, key: u8) -> Self {
        self.keys[self.len] = key;
        self.len += 1;
        self
    }

    fn is_under(self, other: Self) -> bool {
        self.len >= other.len && self.keys[..other.len] == other.keys[..other.len]
    }
}

/// One event's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Item {
    pub(crate) path: Path,
    pub(crate) dot: Dot,
    pub(crate) value: [u64; 2],
}

/// The value that an operation writes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Write {
    Nothing,
    This([u64; 2]),
    /// More than what it replaces.
    More([u64; 2]),
    /// The greater of this and what it replaces; no operation at all if that is the same.
    AtLeast(u64),
}

/// The effect of an operation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Act {
    /// The operation removes the items that it has seen from here on down.
    pub(crate) path: Path,
    /// And only what its own writer wrote.
    pub(crate) only_own: bool,
    pub(crate) write: Write,
}

/// An operation that was made. Which ones it removes is a set of the operations of the history, as bits.
#[derive(Debug, Clone, Copy)]
struct Operation {
    dot: Dot,
    item: Option<Item>,
    kills: u64,
}

/// All operations of a history. What a replica knows of them is a set, as bits.
#[derive(Debug, Default)]
pub(crate) struct Model {
    operations: Vec<Operation>,
}

impl Model {
    /// Makes an operation of a replica that knows `known`; the set with nothing but it, or nothing if it does
    /// nothing.
    pub(crate) fn make(&mut self, known: u64, replica: x0_crdt::ReplicaId, act: Act) -> u64 {
        let mut kills = 0;
        let mut value = [0, 0];
        for (at, item) in self.live(known) {
            if item.path.is_under(act.path) && (!act.only_own || item.dot.replica == replica) {
                kills |= 1 << at;
                match act.write {
                    Write::More(_) => value = [value[0] + item.value[0], value[1] + item.value[1]],
                    Write::AtLeast(_) => value[0] = value[0].max(item.value[0] + 1),
                    _ => {}
                }
            }
        }
        let value = match act.write {
            Write::Nothing if kills == 0 => return 0,
            Write::Nothing => None,
            Write::This(value) => Some(value),
            Write::More(more) => Some([value[0] + more[0], value[1] + more[1]]),
            Write::AtLeast(least) if value[0] > least => return 0,
            Write::AtLeast(least) => Some([least, 0]),
        };
        let seq =
            1 + self.operations.iter().filter(|operation| operation.dot.replica == replica).count() as u64;
        let dot = Dot::new(replica, seq);
        let item = value.map(|value| Item { path: act.path, dot, value });
        self.operations.push(Operation { dot, item, kills });
        1 << (self.operations.len() - 1)
    }

    fn known(&self, known: u64) -> impl Iterator<Item = (usize, &Operation)> {
        self.operations.iter().enumerate().filter(move |(at, _)| known & (1 << at) != 0)
    }

    fn live(&self, known: u64) -> Vec<(usize, Item)> {
        let killed = self.known(known).fold(0, |killed, (_, operation)| killed | operation.kills);
        let live = self.known(known & !killed);
        live.filter_map(|(at, operation)| operation.item.map(|item| (at, item))).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.operations.len()
    }

    /// The items that one who knows `known` sees, ascending.
    pub(crate) fn items(&self, known: u64) -> Vec<Item> {
        let mut items: Vec<_> = self.live(known).into_iter().map(|(_, item)| item).collect();
        items.sort_unstable();
        items
    }

    /// The events that one who knows `known` has heard of, be it as made or as undone, ascending.
    pub(crate) fn dots(&self, known: u64) -> Vec<Dot> {
        let heard = self.known(known).fold(known, |heard, (_, operation)| heard | operation.kills);
        let mut dots: Vec<_> = self.known(heard).map(|(_, operation)| operation.dot).collect();
        dots.sort_unstable();
        dots
    }
}
