//! Checks of the histories of a round.

use std::collections::{BTreeMap, BTreeSet};

use x0_kv::linearizability::register::{Call, Register, Swapped};
use x0_kv::linearizability::{Interval, Verdict, check};

use crate::client::{ACCOUNTS, BALANCE};
use crate::history::{Answer, Asked, Operation};

/// Steps of the search for an order of the operations on one key.
const STEPS_MAX: u64 = 3_000_000;

/// The totals of a check.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) operations: u64,
    pub(super) acknowledged: u64,
    pub(super) refused: u64,
    pub(super) unknown: u64,
    /// Keys whose search ran out of steps.
    pub(super) undecided: u64,
    pub(super) sums: u64,
    pub(super) adds: u64,
}

/// Checks registers and accounts. What is wrong, if anything.
pub(super) fn histories(operations: &[Operation], counts: &mut Counts) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut registers: BTreeMap<u64, Vec<Interval<Call>>> = BTreeMap::new();
    for operation in operations {
        counts.operations += 1;
        match &operation.returned {
            None | Some((_, Answer::Unknown(_))) => counts.unknown += 1,
            Some((_, Answer::Refused(_))) => counts.refused += 1,
            Some(_) => counts.acknowledged += 1,
        }
        if let Some((_, Answer::Wrong(why))) = &operation.returned {
            wrong.push(format!("{:?} was answered with {why}", operation.asked));
        }
        if let (Asked::Sum, Some((_, Answer::Balances(balances)))) = (operation.asked, &operation.returned) {
            counts.sums += 1;
            let is_whole = balances.len() as u64 == ACCOUNTS;
            if !is_whole || balances.iter().sum::<u64>() != ACCOUNTS * BALANCE {
                wrong.push(format!(
                    "the accounts hold {balances:?}, which is not {} in {ACCOUNTS} accounts",
                    ACCOUNTS * BALANCE
                ));
            }
        }
        if let Some((key, interval)) = interval(operation) {
            registers.entry(key).or_default().push(interval);
        }
    }
    for (key, history) in registers {
        match check(&Register, &history, STEPS_MAX) {
            Verdict::Linearizable { .. } => {}
            Verdict::Undecided { .. } => counts.undecided += 1,
            Verdict::NotLinearizable { longest } => wrong.push(explain(key, &history, &longest)),
        }
    }
    wrong
}

/// The operation as the checker knows it; `None` if it tells nothing about a register.
fn interval(operation: &Operation) -> Option<(u64, Interval<Call>)> {
    let Operation { invoked, asked, returned } = operation;
    let (key, unanswered) = match *asked {
        Asked::Get { key } => (key, None),
        Asked::Put { key, value } => (key, Some(Call::Put { value })),
        Asked::Delete { key } => (key, Some(Call::Delete { existed: None })),
        Asked::Swap { key, expect, value } => {
            (key, Some(Call::CompareAndSwap { expect, value, answer: None }))
        }
        Asked::Transfer { .. } | Asked::Sum | Asked::Add { .. } => return None,
    };
    let (call, returned) = match (asked, returned) {
        (_, None | Some((_, Answer::Unknown(_)))) => (unanswered?, None),
        (_, Some((_, Answer::Refused(_) | Answer::Wrong(_)))) => return None,
        (Asked::Get { .. }, Some((at, Answer::Value(answer)))) => (Call::Get { answer: *answer }, Some(*at)),
        (Asked::Put { value, .. }, Some((at, Answer::Done))) => (Call::Put { value: *value }, Some(*at)),
        (Asked::Delete { .. }, Some((at, Answer::Existed(existed)))) => {
            (Call::Delete { existed: Some(*existed) }, Some(*at))
        }
        (Asked::Swap { expect, value, .. }, Some((at, Answer::Swapped))) => {
            let answer = Some(Swapped::Yes);
            (Call::CompareAndSwap { expect: *expect, value: *value, answer }, Some(*at))
        }
        (Asked::Swap { expect, value, .. }, Some((at, Answer::Kept(current)))) => {
            let answer = Some(Swapped::No { current: *current });
            (Call::CompareAndSwap { expect: *expect, value: *value, answer }, Some(*at))
        }
        _ => return None,
    };
    Some((key, Interval { invoked: *invoked, returned, operation: call }))
}

/// The operations around the place where no order goes on.
fn explain(key: u64, history: &[Interval<Call>], longest: &[usize]) -> String {
    let ordered: BTreeSet<usize> = longest.iter().copied().collect();
    let mut rest: Vec<&Interval<Call>> =
        (0..history.len()).filter(|index| !ordered.contains(index)).map(|index| &history[index]).collect();
    rest.sort_by_key(|interval| interval.invoked);
    let last = longest.last().and_then(|last| history.get(*last));
    format!(
        "register {key}: no order explains {} operations; {} could be ordered, the last of them {last:?}; what comes next does not fit: {:?}",
        history.len(),
        longest.len(),
        rest.iter().take(4).collect::<Vec<_>>()
    )
}

/// The CRDT keys whose addition was acknowledged, with their values.
#[derive(Debug, Default)]
pub(super) struct Added {
    /// The additions that are on every replica in the end.
    pub(super) kept: BTreeMap<u64, u64>,
    /// The additions that were acknowledged before the folder of a node was lost. That node may have been
    /// the only one that had them: they are on all replicas or on none.
    pub(super) risked: BTreeMap<u64, u64>,
}

/// The keys that a replica holds.
pub(super) type Replica = BTreeMap<u64, Option<u64>>;

/// The acknowledged additions, if a folder was lost at this time or never.
pub(super) fn added(operations: &[Operation], lost_at: Option<u64>) -> Added {
    let mut added = Added::default();
    for operation in operations {
        if let (Asked::Add { key, value }, Some((at, Answer::Done))) = (operation.asked, &operation.returned)
        {
            let is_risked = lost_at.is_some_and(|lost_at| *at <= lost_at);
            let keys = if is_risked { &mut added.risked } else { &mut added.kept };
            keys.insert(key, value);
        }
    }
    added
}

/// A reason why these replicas are not what they must be in the end.
pub(super) fn replicas(added: &Added, replicas: &[Replica]) -> Option<String> {
    for (place, replica) in replicas.iter().enumerate() {
        let lacks = |(key, value): &(&u64, &u64)| replica.get(key) != Some(&Some(**value));
        let is_elsewhere = |(key, _): &(&u64, &u64)| replicas.iter().any(|other| other.contains_key(key));
        let kept = added.kept.iter().filter(lacks);
        let missing: Vec<u64> =
            kept.chain(added.risked.iter().filter(is_elsewhere).filter(lacks)).map(|(key, _)| *key).collect();
        if let Some(first) = missing.first() {
            return Some(format!(
                "node {} lacks {} of {} acknowledged CRDT keys, the first of them {first:x}",
                place + 1,
                missing.len(),
                added.kept.len() + added.risked.len()
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(invoked: u64, asked: Asked, returned: Option<(u64, Answer)>) -> Operation {
        Operation { invoked, asked, returned }
    }

    fn wrong(operations: &[Operation]) -> Vec<String> {
        histories(operations, &mut Counts::default())
    }

    /// A put that was acknowledged is read afterwards, or the store lost it.
    #[test]
    fn a_lost_write_is_found() {
        let put = operation(1, Asked::Put { key: 1, value: 7 }, Some((2, Answer::Done)));
        let read = |answer| operation(3, Asked::Get { key: 1 }, Some((4, Answer::Value(answer))));
        assert!(wrong(&[put.clone(), read(Some(7))]).is_empty());
        let found = wrong(&[put, read(None)]);
        assert!(found.len() == 1 && found[0].contains("register 1"), "{found:?}");
        // One that nobody answered may have happened or not.
        let unknown = operation(1, Asked::Put { key: 1, value: 7 }, None);
        assert!(
            wrong(&[unknown.clone(), read(None)]).is_empty() && wrong(&[unknown, read(Some(7))]).is_empty()
        );
        // One that was refused has not.
        let refused =
            operation(1, Asked::Put { key: 1, value: 7 }, Some((2, Answer::Refused(String::new()))));
        assert!(!wrong(&[refused, read(Some(7))]).is_empty());
    }

    #[test]
    fn swaps_and_deletes_are_checked() {
        let put = operation(1, Asked::Put { key: 1, value: 7 }, Some((2, Answer::Done)));
        let swap =
            |answer| operation(3, Asked::Swap { key: 1, expect: Some(7), value: 8 }, Some((4, answer)));
        assert!(wrong(&[put.clone(), swap(Answer::Swapped)]).is_empty());
        assert!(!wrong(&[put.clone(), swap(Answer::Kept(None))]).is_empty());
        let delete = |existed| operation(5, Asked::Delete { key: 1 }, Some((6, Answer::Existed(existed))));
        assert!(wrong(&[put.clone(), delete(true)]).is_empty());
        assert!(!wrong(&[put, delete(false)]).is_empty());
    }

    #[test]
    fn money_that_appears_or_goes_is_found() {
        let sum = |balances: Vec<u64>| operation(1, Asked::Sum, Some((2, Answer::Balances(balances))));
        let mut balances = vec![BALANCE; usize::try_from(ACCOUNTS).unwrap()];
        assert!(wrong(&[sum(balances.clone())]).is_empty());
        balances[0] -= 1;
        assert_eq!(wrong(&[sum(balances.clone())]).len(), 1);
        balances[1] += 1;
        assert!(wrong(&[sum(balances.clone())]).is_empty());
        balances.pop();
        assert_eq!(wrong(&[sum(balances)]).len(), 1);
    }

    #[test]
    fn an_addition_that_a_replica_lacks_is_found() {
        let add = |key, answer| operation(1, Asked::Add { key, value: key }, Some((2, answer)));
        let operations = [add(1, Answer::Done), add(2, Answer::Unknown(String::new())), add(3, Answer::Done)];
        let held = |keys: &[u64]| keys.iter().map(|key| (*key, Some(*key))).collect::<Replica>();
        let kept = added(&operations, None);
        assert_eq!(kept.kept.keys().copied().collect::<Vec<_>>(), [1, 3]);
        assert_eq!(replicas(&kept, &[held(&[1, 3, 9]), held(&[1, 2, 3])]), None);
        let missing = replicas(&kept, &[held(&[1, 3]), held(&[1])]).unwrap();
        assert!(missing.contains("node 2 lacks 1 of 2"), "{missing}");
        let wrong: Replica = [(1, Some(1)), (3, None)].into();
        assert!(replicas(&kept, &[wrong]).is_some());
        // A folder was lost after these: all replicas lack them, or none.
        let risked = added(&operations, Some(2));
        assert_eq!(replicas(&risked, &[held(&[]), held(&[])]), None);
        assert_eq!(replicas(&risked, &[held(&[3]), held(&[3])]), None);
        assert!(replicas(&risked, &[held(&[3]), held(&[])]).is_some());
        assert!(replicas(&added(&operations, Some(1)), &[held(&[]), held(&[])]).is_some());
    }

    #[test]
    fn a_wrong_value_is_found() {
        let get = operation(1, Asked::Get { key: 1 }, Some((2, Answer::Wrong("a value".into()))));
        assert_eq!(wrong(&[get]).len(), 1);
    }
}
