//! The types under test: a random operation of each, once for itself and once for the model.

use core::fmt::Debug;

use x0_crdt::DotStore;
use x0_crdt::{Causal, Change, Dot, dot_store_struct};
use x0_crdt::{Flag, GCounter, LwwRegister, Max, MvRegister, OrMap, OrSet, Plain, PnCounter, Stamp};

use crate::model::{Act, Item, Path, Write};
use crate::random::Random;

pub(crate) trait Subject: DotStore + Debug {
    /// Makes a random operation under `path`.
    fn operate(&self, change: &mut Change, path: Path, random: &mut Random) -> (Self, Act);

    /// Adds the items, as the model says them.
    fn items(&self, path: Path, items: &mut Vec<Item>);
}

fn act(path: Path, write: Write) -> Act {
    Act { path, only_own: false, write }
}

/// The content of a store, by dots and values alone, for types that do not show their dots: each dot on its
/// own is read by `read`.
fn by_dot<S: DotStore>(store: &S, path: Path, items: &mut Vec<Item>, read: impl Fn(&S) -> [u64; 2]) {
    store.split(&mut |dot: Dot, piece: S| items.push(Item { path, dot, value: read(&piece) }));
}

impl Subject for Flag {
    fn operate(&self, change: &mut Change, path: Path, random: &mut Random) -> (Self, Act) {
        match random.below(2) {
            0 => (self.enable(change), act(path, Write::This([0, 0]))),
            _ => (self.disable(change), act(path, Write::Nothing)),
        }
    }

    fn items(&self, path: Path, items: &mut Vec<Item>) {
        by_dot(self, path, items, |_| [0, 0]);
    }
}

impl Subject for MvRegister<u64> {
    fn operate(&self, change: &mut Change, path: Path, random: &mut Random) -> (Self, Act) {
        let value = random.below(3);
        match random.below(5) {
            0 => (self.clear(change), act(path, Write::Nothing)),
            _ => (self.write(change, value), act(path, Write::This([value, 0]))),
        }
    }

    fn items(&self, path: Path, items: &mut Vec<Item>) {
        items.extend(self.iter().map(|(dot, value)| Item { path, dot, value: [*value, 0] }));
    }
}

impl Subject for LwwRegister<u64> {
    fn operate(&self, change: &mut Change, path: Path, random: &mut Random) -> (Self, Act) {
        let (time, value) = (random.below(3), random.below(3));
        match random.below(5) {
            0 => (self.clear(change), act(path, Write::Nothing)),
            _ => (self.set(change, Stamp::new(time, 0), value), act(path, Write::This([time, value]))),
        }
    }

    fn items(&self, path: Path, items: &mut Vec<Item>) {
        let before = items.len();
        let siblings = self.siblings();
        items.extend(siblings.map(|(dot, stamp, value)| Item { path, dot, value: [stamp.time_ms, *value] }));
        for limit in 0..3 {
            let trusted = items[before..].iter().filter(|item| item.value[0] <= limit);
            let winner = trusted.max_by_key(|item| (item.value[0], item.dot)).map(|item| item.value[1]);
            assert_eq!(self.winner(Stamp::new(limit, u32::MAX)).copied(), winner);
        }
    }
}

impl Subject for GCounter {
    fn operate(&self, change: &mut Change, path: Path, random: &mut Random) -> (Self, Act) {
        let amount = random.below(4);
        match random.below(6) {
            0 => (self.clear(change), act(path, Write::Nothing)),
            _ => {
                let act = Act { path, only_own: true, write: Write::More([amount, 0]) };
                (self.increment(change, amount), act)
            }
        }
    }

    fn items(&self, path: Path, items: &mut Vec<Item>) {
        let before = items.len();
        by_dot(self, path, items, |piece| [u64::try_from(piece.value()).unwrap(), 0]);
        assert_eq!(self.value(), items[before..].iter().map(|item| u128::from(item.value[0])).sum());
    }
}

impl Subject for PnCounter {
    fn operate(&self, change: &mut Change, path: Path, random: &mut Random) -> (Self, Act) {
        let amount = random.below(4);
        let signed = i64::try_from(amount).unwrap();
        let more = |sums| Act { path, only_own: true, write: Write::More(sums) };
        match random.below(6) {
            0 => (self.clear(change), act(path, Write::Nothing)),
            1 | 2 => (self.add(change, -signed), more([0, amount])),
            _ => (self.add(change, signed), more([amount, 0])),
        }
    }

    fn items(&self, path: Path, items: &mut Vec<Item>) {
        // The two sums are not public, but they are encoded: after the number of dots and the dot.
        by_dot(self, path, items, |piece| {
            let mut bytes = Vec::new();
            piece.encode(&mut bytes);
            let [up, down] = bytes[bytes.len() - 2..] else { panic!("two small sums") };
            assert_eq!(piece.value(), i128::from(up) - i128::from(down));
            [u64::from(up), u64::from(down)]
        });
    }
}

impl Subject for OrSet<u8> {
    fn operate(&self, change: &mut Change, path: Path, random: &mut Random) -> (Self, Act) {
        let item = random.byte(3);
        match random.below(10) {
            0 => (self.clear(change), act(path, Write::Nothing)),
            1..4 => (self.remove(change, &item), act(path.child(item), Write::Nothing)),
            _ => (self.add(change, item), act(path.child(item), Write::This([0, 0]))),
        }
    }

    fn items(&self, path: Path, items: &mut Vec<Item>) {
        self.split(&mut |dot, piece| {
            let item = *piece.iter().next().unwrap();
            items.push(Item { path: path.child(item), dot, value: [0, 0] });
        });
    }
}

impl Subject for Plain<Max<u64>> {
    fn operate(&self, change: &mut Change, path: Path, random: &mut Random) -> (Self, Act) {
        let value = random.below(6);
        match random.below(5) {
            0 => (self.clear(change), act(path, Write::Nothing)),
            _ => (self.update(change, &Max::of(value)), act(path, Write::AtLeast(value))),
        }
    }

    fn items(&self, path: Path, items: &mut Vec<Item>) {
        by_dot(self, path, items, |piece| [*piece.value().get().unwrap(), 0]);
    }
}

impl<S: Subject> Subject for OrMap<u8, S> {
    fn operate(&self, change: &mut Change, path: Path, random: &mut Random) -> (Self, Act) {
        let key = random.byte(2);
        match random.below(12) {
            0 => (self.clear(change), act(path, Write::Nothing)),
            1..3 => (self.remove(change, &key), act(path.child(key), Write::Nothing)),
            _ => {
                let mut act = None;
                let store = self.update(change, key, |child, change| {
                    let (store, made) = child.operate(change, path.child(key), random);
                    act = Some(made);
                    store
                });
                (store, act.unwrap())
            }
        }
    }

    fn items(&self, path: Path, items: &mut Vec<Item>) {
        for (key, child) in self.iter() {
            let before = items.len();
            child.items(path.child(*key), items);
            assert!(items.len() > before, "an empty child stays in no state");
        }
    }
}

/// Two stores side by side, at the keys 0 and 1 for the model.
impl<A: Subject, B: Subject> Subject for (A, B) {
    fn operate(&self, change: &mut Change, path: Path, random: &mut Random) -> (Self, Act) {
        if random.one_in(2) {
            let (store, act) = self.0.operate(change, path.child(0), random);
            ((store, B::default()), act)
        } else {
            let (store, act) = self.1.operate(change, path.child(1), random);
            ((A::default(), store), act)
        }
    }

    fn items(&self, path: Path, items: &mut Vec<Item>) {
        self.0.items(path.child(0), items);
        self.1.items(path.child(1), items);
    }
}

/// The same as a struct.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Fields {
    set: OrSet<u8>,
    register: LwwRegister<u64>,
}
dot_store_struct!(Fields { set, register });

impl Subject for Fields {
    fn operate(&self, change: &mut Change, path: Path, random: &mut Random) -> (Self, Act) {
        let pair = (self.set.clone(), self.register.clone());
        let ((set, register), act) = pair.operate(change, path, random);
        (Self { set, register }, act)
    }

    fn items(&self, path: Path, items: &mut Vec<Item>) {
        self.set.items(path.child(0), items);
        self.register.items(path.child(1), items);
    }
}

/// The items of a state, ascending.
pub(crate) fn items<S: Subject>(state: &Causal<S>) -> Vec<Item> {
    let mut items = Vec::new();
    state.store().items(Path::default(), &mut items);
    items.sort_unstable();
    items
}
