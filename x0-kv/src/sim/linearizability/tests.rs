use super::register::{Call, Register, Swapped};
use super::registers::{Access, Part, Registers};
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

/// The order must be one that the model takes and that no operation precedes which returned before another
/// began.
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
    let both =
        |first, second| [interval(0, 9, put(1)), interval(1, 2, get(first)), interval(3, 4, get(second))];
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
    linearizable(
        &[interval(0, 1, put(1)), interval(2, 3, put(2)), interval(4, 5, get(2)), interval(6, 7, get(1))],
        false,
    );
    // Two clients win the same swap.
    linearizable(
        &[interval(0, 5, swap(None, 1, Swapped::Yes)), interval(0, 5, swap(None, 2, Swapped::Yes))],
        false,
    );
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
    let history: Vec<_> =
        (0..30).map(|value| interval(0, 9, put(value))).chain([interval(10, 11, get(99))]).collect();
    assert_eq!(check(&Register, &history, 50), Verdict::Undecided { steps: 50 });
}

/// Every permutation of every subset that holds all answered operations.
fn by_force<M: Model>(model: &M, history: &[Interval<M::Operation>]) -> bool {
    fn extend<M: Model>(model: &M, history: &[Interval<M::Operation>], used: u32, state: &M::State) -> bool {
        let open = |index: usize| used & (1 << index) == 0;
        if (0..history.len()).all(|index| !open(index) || history[index].returned.is_none()) {
            return true;
        }
        (0..history.len()).filter(|index| open(*index)).any(|index| {
            let blocked = (0..history.len()).filter(|other| open(*other) && *other != index).any(|other| {
                history[other].returned.is_some_and(|returned| returned < history[index].invoked)
            });
            !blocked
                && model
                    .step(state, &history[index].operation)
                    .is_some_and(|after| extend(model, history, used | (1 << index), &after))
        })
    }
    extend(model, history, 0, &model.initial())
}

struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn some(&mut self, bound: u64) -> Option<u64> {
        Some(self.below(bound)).filter(|value| *value > 0)
    }

    fn call(&mut self, is_answered: bool) -> Call {
        match self.below(5) {
            0 | 1 => put(1 + self.below(3)),
            2 if is_answered => get(self.some(4)),
            3 => Call::Delete { existed: is_answered.then(|| self.below(2) == 0) },
            _ => {
                let no = Swapped::No { current: self.some(4) };
                let answer = is_answered.then(|| if self.below(2) == 0 { Swapped::Yes } else { no });
                Call::CompareAndSwap { expect: self.some(4), value: 1 + self.below(3), answer }
            }
        }
    }

    fn interval<O>(&mut self, operation: impl FnOnce(&mut Draw, bool) -> O) -> Interval<O> {
        let invoked = self.below(12);
        let returned = (self.below(5) != 0).then(|| invoked + self.below(6));
        Interval { invoked, returned, operation: operation(self, returned.is_some()) }
    }

    fn access(&mut self, is_answered: bool) -> Access {
        if self.below(3) > 0 {
            return Access::One { key: self.below(2), call: self.call(is_answered) };
        }
        let parts = |draw: &mut Draw| {
            let parts = (0..draw.below(3)).map(|_| {
                let key = draw.below(2);
                if !is_answered && draw.below(3) == 0 {
                    Part::Look { key }
                } else {
                    Part::Call { key, call: draw.call(is_answered) }
                }
            });
            parts.collect::<Vec<_>>()
        };
        Access::Together {
            actions: parts(self),
            alternatives: parts(self),
            conditions: (0..self.below(3)).map(|key| (key, self.some(3))).collect(),
            held: is_answered.then(|| self.below(3) > 0),
        }
    }
}

#[test]
fn small_random_histories_agree_with_brute_force() {
    let mut draw = Draw(0x9e37_79b9_7f4a_7c15);
    let mut verdicts = [0_u32; 2];
    for _ in 0..20_000 {
        let history: Vec<_> = (0..1 + draw.below(6)).map(|_| draw.interval(Draw::call)).collect();
        let expect = by_force(&Register, &history);
        verdicts[usize::from(expect)] += 1;
        linearizable(&history, expect);
    }
    assert!(verdicts.iter().all(|count| *count > 1_000), "the histories are one-sided: {verdicts:?}");
}

fn holds(history: &[Interval<Access>]) -> bool {
    match check(&Registers, history, 1_000_000) {
        Verdict::Linearizable { .. } => true,
        Verdict::NotLinearizable { .. } => false,
        Verdict::Undecided { steps } => panic!("undecided after {steps}"),
    }
}

#[test]
fn small_random_histories_of_transactions_agree_with_brute_force() {
    let mut draw = Draw(0x0123_4567_89ab_cdef);
    let mut verdicts = [0_u32; 2];
    for _ in 0..20_000 {
        let history: Vec<_> = (0..1 + draw.below(6)).map(|_| draw.interval(Draw::access)).collect();
        let expect = by_force(&Registers, &history);
        verdicts[usize::from(expect)] += 1;
        assert_eq!(holds(&history), expect, "{history:?}");
        // Locality: the parts hold exactly if the whole does.
        let parts = registers::partition(history.clone());
        assert_eq!(parts.iter().map(Vec::len).sum::<usize>(), history.len());
        assert_eq!(parts.iter().all(|part| holds(part)), expect, "{history:?}");
    }
    assert!(verdicts.iter().all(|count| *count > 1_000), "the histories are one-sided: {verdicts:?}");
}

fn together(conditions: &[(u64, Option<u64>)], actions: &[(u64, Call)], held: bool) -> Access {
    let actions = actions.iter().map(|(key, call)| Part::Call { key: *key, call: *call }).collect();
    Access::Together { conditions: conditions.to_vec(), actions, alternatives: Vec::new(), held: Some(held) }
}

#[test]
fn a_transaction_is_seen_whole_or_not_at_all() {
    let both = |first, second| {
        let write = together(&[], &[(1, put(7)), (2, put(8))], true);
        let read = together(&[], &[(1, get(first)), (2, get(second))], true);
        [
            Interval { invoked: 0, returned: Some(9), operation: write },
            Interval { invoked: 1, returned: Some(2), operation: read },
        ]
    };
    assert!(holds(&both(Some(7), Some(8))) && holds(&both(None, None)));
    assert!(!holds(&both(Some(7), None)) && !holds(&both(None, Some(8))));
}

#[test]
fn keys_without_a_transaction_between_them_stay_apart() {
    let one = |key| Interval { invoked: key, returned: None, operation: Access::One { key, call: put(1) } };
    let joined =
        Interval { invoked: 9, returned: None, operation: together(&[(5, None)], &[(3, put(1))], true) };
    let parts = registers::partition(vec![one(1), one(3), one(5), joined, one(1), one(4)]);
    let keys: Vec<Vec<u64>> = parts
        .iter()
        .map(|part| part.iter().map(|it| it.operation.keys().next().unwrap()).collect())
        .collect();
    assert_eq!(keys, [vec![1, 1], vec![3, 5, 5], vec![4]]);
}

#[test]
fn a_fault_is_cut_out_of_a_long_history() {
    let one = |invoked, returned: u64, call| Interval {
        invoked,
        returned: Some(returned),
        operation: Access::One { key: 1, call },
    };
    let mut history: Vec<_> = (0..500).map(|at| one(10 * at, 10 * at + 5, put(at + 1))).collect();
    history.extend((0..500).map(|at| one(10 * at + 6, 10 * at + 8, get(at + 1))));
    assert!(holds(&history));
    // The store forgets the write of 300 after it was read.
    history.push(one(3001, 3002, get(300)));
    history.push(one(3002, 3003, get(299)));
    let minimal = registers::minimal(history, 1_000_000);
    assert!(!holds(&minimal));
    assert!(minimal.len() <= 4, "{minimal:?}");
    assert!(minimal.iter().all(|it| it.invoked <= 3002));
    let sound = vec![one(0, 1, put(1))];
    assert_eq!(registers::minimal(sound.clone(), 1_000), sound);
}
