use super::register::{Call, Register, Swapped};
use super::*;

fn interval(invoked: u64, returned: impl Into<Option<u64>>, operation: Call) -> Interval<Call> {
    Interval { invoked, returned: returned.into(), operation }
}

fn put(value: u64) -> Call {
    Call::Put { value }
}

fn get(answer: impl Into<Option<u64>>) -> Call {
    Call::Get { answer: answer.into() }
}

#[track_caller]
fn linearizable(history: &[Interval<Call>], expect: bool) {
    match check(&Register, history, 1_000_000) {
        Verdict::Linearizable { order } => {
            assert!(expect, "found {order:?}");
            replay(history, &order);
        }
        Verdict::NotLinearizable { longest } => assert!(!expect, "stuck after {longest:?}"),
        Verdict::Undecided { steps } => panic!("undecided after {steps}"),
    }
}

/// The order must be one that the model takes and that no operation precedes which returned before another began.
fn replay(history: &[Interval<Call>], order: &[usize]) {
    let mut state = None;
    for (position, index) in order.iter().enumerate() {
        state = Register.step(&state, &history[*index].operation).expect("the order replays");
        for later in &order[position + 1..] {
            let returned = history[*later].returned.unwrap_or(u64::MAX);
            assert!(returned >= history[*index].invoked, "{later} returned before {index} began");
        }
    }
}

#[test]
fn the_empty_history_is_linearizable() {
    linearizable(&[], true);
}

#[test]
fn a_read_sees_the_latest_answered_write() {
    linearizable(&[interval(0, 1, put(1)), interval(2, 3, put(2)), interval(4, 5, get(2))], true);
    linearizable(&[interval(0, 1, put(1)), interval(2, 3, put(2)), interval(4, 5, get(1))], false);
}

#[test]
fn a_concurrent_write_may_be_seen_or_not_but_never_unseen_again() {
    let both = |first, second| [interval(0, 9, put(1)), interval(1, 2, get(first)), interval(3, 4, get(second))];
    linearizable(&both(None, Some(1)), true);
    linearizable(&both(Some(1), Some(1)), true);
    linearizable(&both(Some(1), None), false);
}

#[test]
fn an_unanswered_write_may_happen_late_or_never() {
    linearizable(&[interval(0, None, put(1)), interval(5, 6, get(None)), interval(7, 8, get(1))], true);
    linearizable(&[interval(0, None, put(1)), interval(5, 6, get(None))], true);
    linearizable(&[interval(5, None, put(1)), interval(0, 1, get(1))], false);
}

#[test]
fn a_write_applied_twice_is_found() {
    let swap = |expect, value, answer| Call::CompareAndSwap { expect, value, answer: Some(answer) };
    // put 1, put 2, and the put of 1 once more although it was asked once.
    linearizable(&[interval(0, 1, put(1)), interval(2, 3, put(2)), interval(4, 5, get(2)), interval(6, 7, get(1))], false);
    // Two clients win the same swap.
    linearizable(&[interval(0, 5, swap(None, 1, Swapped::Yes)), interval(0, 5, swap(None, 2, Swapped::Yes))], false);
    linearizable(
        &[
            interval(0, 5, swap(None, 1, Swapped::Yes)),
            interval(0, 5, swap(None, 2, Swapped::No { current: Some(1) })),
        ],
        true,
    );
}

#[test]
fn a_search_that_runs_out_says_so() {
    let history: Vec<_> = (0..30).map(|value| interval(0, 9, put(value))).chain([interval(10, 11, get(99))]).collect();
    assert_eq!(check(&Register, &history, 50), Verdict::Undecided { steps: 50 });
}

/// Every permutation of every subset that holds all answered operations.
fn by_force(history: &[Interval<Call>]) -> bool {
    fn extend(history: &[Interval<Call>], used: u32, state: Option<u64>) -> bool {
        let open = |index: usize| used & (1 << index) == 0;
        if (0..history.len()).all(|index| !open(index) || history[index].returned.is_none()) {
            return true;
        }
        (0..history.len()).filter(|index| open(*index)).any(|index| {
            let blocked = (0..history.len())
                .filter(|other| open(*other) && *other != index)
                .any(|other| history[other].returned.is_some_and(|returned| returned < history[index].invoked));
            !blocked
                && Register
                    .step(&state, &history[index].operation)
                    .is_some_and(|after| extend(history, used | (1 << index), after))
        })
    }
    extend(history, 0, None)
}

#[test]
fn small_random_histories_agree_with_brute_force() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |bound: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % bound
    };
    let mut verdicts = [0_u32; 2];
    for _ in 0..20_000 {
        let history: Vec<_> = (0..1 + below(6))
            .map(|_| {
                let invoked = below(12);
                let returned = (below(5) != 0).then(|| invoked + below(6));
                let some = |value: u64| (value > 0).then_some(value);
                let operation = match below(5) {
                    0 | 1 => put(1 + below(3)),
                    2 if returned.is_some() => get(some(below(4))),
                    3 => Call::Delete { existed: returned.map(|_| below(2) == 0) },
                    _ => {
                        let no = Swapped::No { current: some(below(4)) };
                        let answer = returned.map(|_| if below(2) == 0 { Swapped::Yes } else { no });
                        Call::CompareAndSwap { expect: some(below(4)), value: 1 + below(3), answer }
                    }
                };
                Interval { invoked, returned, operation }
            })
            .collect();
        let expect = by_force(&history);
        verdicts[usize::from(expect)] += 1;
        linearizable(&history, expect);
    }
    assert!(verdicts.iter().all(|count| *count > 1_000), "the histories are one-sided: {verdicts:?}");
}
