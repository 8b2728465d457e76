//! Every step of a clock from and to the ends of its ranges.

use x0_crdt::{Clock, ClockError, Observed, Stamp};
use x0_crdt::{DecodeError, from_bytes, to_bytes};

const TIMES: [u64; 9] = [0, 1, 2, 999, 1_000, 1_001, u64::MAX - 1_000, u64::MAX - 1, u64::MAX];
const COUNTERS: [u32; 4] = [0, 1, u32::MAX - 1, u32::MAX];

fn stamps() -> impl Iterator<Item = Stamp> + Clone {
    TIMES.into_iter().flat_map(|time| COUNTERS.map(|counter| Stamp::new(time, counter)))
}

/// A stamp as one number: the successor of the last counter is the next ms.
fn number(stamp: Stamp) -> u128 {
    u128::from(stamp.time_ms) << 32 | u128::from(stamp.counter)
}

const LAST: u128 = (1 << 96) - 1;

#[test]
fn a_stamp_is_a_number_with_a_successor() {
    for stamp in stamps() {
        let next = stamp.next().map(number);
        assert_eq!(next, Some(number(stamp) + 1).filter(|next| *next <= LAST));
        for other in stamps() {
            assert_eq!(stamp.cmp(&other), number(stamp).cmp(&number(other)));
        }
        assert_eq!(from_bytes(&to_bytes(&stamp)), Ok(stamp));
    }
    let mut wide = to_bytes(&1_000_u64);
    wide.extend_from_slice(&to_bytes(&(u64::from(u32::MAX) + 1))[1..]);
    assert_eq!(from_bytes::<Stamp>(&wide), Err(DecodeError::Range { what: "a u32" }));
}

#[test]
fn a_tick_is_the_physical_time_or_the_successor_of_the_last() {
    for last in stamps() {
        for now_ms in TIMES {
            let mut clock = Clock::resume(last, 5);
            let physical = u128::from(now_ms) << 32;
            let expected = physical.max(number(last) + 1);
            match clock.tick(now_ms) {
                Ok(stamp) => assert_eq!((number(stamp), clock.last()), (expected, stamp)),
                Err(error) => {
                    assert!(expected > LAST);
                    assert_eq!((error, clock.last()), (ClockError::Exhausted, last));
                }
            }
        }
    }
}

#[test]
fn a_stamp_is_adopted_up_to_the_limit_and_no_further() {
    for ahead_max_ms in TIMES {
        for last in stamps() {
            for now_ms in TIMES {
                let before = Clock::resume(last, ahead_max_ms);
                let furthest = (u128::from(now_ms) + u128::from(ahead_max_ms)).min(u128::from(u64::MAX));
                let limit = number(last).max(furthest << 32 | u128::from(u32::MAX));
                assert_eq!(number(before.limit(now_ms)), limit);
                for remote in stamps() {
                    let mut clock = before.clone();
                    let observed = clock.observe(remote, now_ms);
                    if number(remote) <= limit {
                        assert_eq!((observed, clock.last()), (Observed::Adopted, last.max(remote)));
                    } else {
                        let ahead_ms = remote.time_ms - now_ms;
                        assert!(ahead_ms > ahead_max_ms);
                        assert_eq!((observed, &clock), (Observed::TooFarAhead { ahead_ms }, &before));
                    }
                }
            }
        }
    }
}
