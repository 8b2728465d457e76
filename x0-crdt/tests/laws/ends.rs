//! The ends of the ranges: a writer's last event, and sums that can grow no more.

use x0_crdt::{Causal, ChangeError, Context, Delta, ReplicaId};
use x0_crdt::{Flag, GCounter, OrMap, PnCounter};
use x0_crdt::{from_bytes, to_bytes};

const WRITER: ReplicaId = ReplicaId::new(1);

/// A state in which `WRITER` has made the events from `first` to `last`, and nothing is left of them.
fn after<S: x0_crdt::DotStore>(first: u64, last: u64) -> Causal<S> {
    let mut context = Context::new();
    context.insert_range(WRITER, first, last);
    let mut bytes = to_bytes(&context);
    bytes.push(0);
    from_bytes(&bytes).unwrap()
}

#[test]
fn a_writer_without_an_event_left_changes_nothing() {
    let refused = Err(ChangeError::Exhausted { replica: WRITER });
    let mut last = after::<Flag>(1, u64::MAX - 1);
    assert!(last.change(WRITER, Flag::enable).is_ok());
    let before = last.clone();
    assert_eq!(last.change(WRITER, Flag::enable), refused);
    assert_eq!(last.change(WRITER, Flag::disable), refused);
    assert_eq!(last, before);
    assert_eq!(
        last.change(WRITER, |_, _| Flag::default()),
        Ok(Delta::new()),
        "no event is needed for nothing"
    );

    // Two events in one change, of which there is one left.
    let mut map = after::<OrMap<u8, OrMap<u8, Flag>>>(u64::MAX - 1, u64::MAX - 1);
    let before = map.clone();
    let twice = map.change(WRITER, |map, change| {
        map.update(change, 0, |map, change| {
            let _ = change.dot();
            map.update(change, 0, Flag::enable)
        })
    });
    assert_eq!(twice.err(), Some(ChangeError::Exhausted { replica: WRITER }));
    assert_eq!(map, before);

    // And two changes in one transaction.
    let mut map = after::<OrMap<u8, Flag>>(1, u64::MAX - 1);
    let before = map.clone();
    let mut made = 0;
    let twice = map.transaction(WRITER, |transaction| {
        for key in 0..3 {
            transaction.change(|map, change| {
                made += 1;
                map.update(change, key, Flag::enable)
            });
        }
    });
    assert_eq!((twice.err(), made), (Some(ChangeError::Exhausted { replica: WRITER }), 2));
    assert_eq!(map, before);

    let other = ReplicaId::with_incarnation(WRITER.node, 1);
    assert!(last.change(other, Flag::disable).is_ok(), "a fresh incarnation can");
    assert!(!last.store().is_enabled());
}

#[test]
fn sums_stop_at_their_largest() {
    let mut counter = Causal::<GCounter>::new();
    for _ in 0..2 {
        counter.change(WRITER, |counter, change| counter.increment(change, u64::MAX)).unwrap();
    }
    assert_eq!(counter.store().value(), u128::from(u64::MAX));
    counter.change(ReplicaId::new(2), |counter, change| counter.increment(change, 1)).unwrap();
    assert_eq!(counter.store().value(), u128::from(u64::MAX) + 1, "of each writer");

    let mut counter = Causal::<PnCounter>::new();
    for _ in 0..3 {
        counter.change(WRITER, |counter, change| counter.add(change, i64::MIN)).unwrap();
    }
    assert_eq!(counter.store().value(), -i128::from(u64::MAX));
    for _ in 0..3 {
        counter.change(WRITER, |counter, change| counter.add(change, i64::MAX)).unwrap();
    }
    assert_eq!(counter.store().value(), 0);
}
