//! A register under a writer whose clock is wrong: what is not trusted is shown, not lost and not read.

use x0_crdt::to_bytes;
use x0_crdt::{Causal, Dot, Lattice, ReplicaId};
use x0_crdt::{Clock, LwwRegister, Observed, Stamp};

type Register = Causal<LwwRegister<u8>>;

const HONEST: ReplicaId = ReplicaId::new(2);
const AHEAD: ReplicaId = ReplicaId::new(1);

fn written(replica: ReplicaId, stamp: Stamp, value: u8) -> Register {
    let mut register = Register::new();
    register.change(replica, |register, change| register.set(change, stamp, value)).unwrap();
    register
}

fn joined(a: &Register, b: &Register) -> Register {
    let mut result = a.clone();
    result.join(b);
    result
}

#[test]
fn values_stamped_too_far_ahead_are_kept_and_shown_but_not_read() {
    let (mut now_ms, far) = (10_000, Stamp::new(3_600_000, 7));
    let mut clock = Clock::new(1_000);
    let mine = written(HONEST, clock.tick(now_ms).unwrap(), 1);
    let theirs = written(AHEAD, far, 2);
    let mut register = joined(&mine, &theirs);
    assert_eq!(clock.observe(far, now_ms), Observed::TooFarAhead { ahead_ms: 3_590_000 });
    let limit = clock.limit(now_ms);
    assert_eq!(register.store().winner(limit), Some(&1));
    let quarantined: Vec<_> = register.store().quarantined(limit).collect();
    assert_eq!(quarantined, [(Dot::new(AHEAD, 1), far, &2)]);
    assert_eq!(register.store().siblings().len(), 2, "nothing is lost");
    assert_eq!(register.store().ranking(), [&2, &1]);
    // A replica with another clock trusts it, and holds the same bytes.
    let there = joined(&theirs, &mine);
    assert_eq!(there.store().winner(Clock::new(1_000).limit(far.time_ms)), Some(&2));
    assert_eq!(to_bytes(&there), to_bytes(&register));

    // The value is read from the millisecond on in which it is no longer too far ahead.
    now_ms = far.time_ms - 1_001;
    assert_eq!(register.store().winner(clock.limit(now_ms)), Some(&1));
    now_ms += 1;
    assert_eq!(register.store().winner(clock.limit(now_ms)), Some(&2));
    assert_eq!(register.store().quarantined(clock.limit(now_ms)).count(), 0);
    assert_eq!(clock.observe(far, now_ms), Observed::Adopted);

    // A later write replaces it, at any time.
    let stamp = Stamp::new(0, 0);
    register.change(HONEST, |register, change| register.set(change, stamp, 3)).unwrap();
    register.join(&theirs);
    assert_eq!(register.store().winner(Stamp::new(0, 0)), Some(&3));
    assert_eq!(register.store().siblings().len(), 1);
}

#[test]
fn no_trusted_value_is_no_value() {
    let register = written(AHEAD, Stamp::new(u64::MAX, u32::MAX), 2);
    let limit = Clock::new(0).limit(5);
    assert_eq!(register.store().winner(limit), None);
    assert_eq!(register.store().quarantined(limit).count(), 1);
    assert_eq!(Register::new().store().winner(limit), None);
}

#[test]
fn equal_times_are_decided_by_the_dot_and_equal_dots_by_the_value() {
    let stamp = Stamp::new(9, 9);
    let (one, two) = (written(AHEAD, stamp, 9), written(HONEST, stamp, 1));
    assert_eq!(joined(&one, &two).store().winner(stamp), Some(&1), "the greater dot");
    assert_eq!(joined(&two, &one).store().winner(stamp), Some(&1));

    // Two values of one event are a forgery; all take the same.
    let (one, two) = (written(AHEAD, stamp, 3), written(AHEAD, stamp, 4));
    assert_eq!(joined(&one, &two), joined(&two, &one));
    assert_eq!(joined(&one, &two).store().winner(stamp), Some(&4));
    let later = written(AHEAD, Stamp::new(9, 10), 0);
    assert_eq!(joined(&later, &two), joined(&two, &later));
    assert_eq!(joined(&later, &two).store().siblings().len(), 1);
}
