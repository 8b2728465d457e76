//! The part of a history that shows the fault.

use super::{Interval, Model, Verdict, check};

/// Cuts a history that is not linearizable down to one that still is not and that a person can read.
///
/// First everything is dropped that began after the fault was complete. Then operations are dropped one by
/// one as long as the fault remains, of those that `is_needed` does not hold back: it is asked whether
/// dropping an operation would make a fault of its own, as the write of a value that another operation read.
///
/// A history that is linearizable, or that cannot be decided within `steps_max`, comes back as it was.
#[must_use]
pub fn minimal<M: Model>(
    model: &M,
    history: Vec<Interval<M::Operation>>,
    steps_max: u64,
    unanswered: impl Fn(&M::Operation) -> Option<M::Operation>,
    is_needed: impl Fn(&[Interval<M::Operation>], usize) -> bool,
) -> Vec<Interval<M::Operation>>
where
    M::Operation: Clone,
{
    let fails = |history: &[Interval<M::Operation>]| {
        matches!(check(model, history, steps_max), Verdict::NotLinearizable { .. })
    };
    if !fails(&history) {
        return history;
    }
    let mut moments: Vec<u64> = history.iter().filter_map(|interval| interval.returned).collect();
    moments.sort_unstable();
    // Linearizability is closed under prefixes, so the first prefix that fails can be searched for.
    let (mut holds, mut broken) = (0, moments.len());
    while holds + 1 < broken {
        let middle = holds + (broken - holds) / 2;
        if fails(&until(&history, moments[middle - 1], &unanswered)) {
            broken = middle;
        } else {
            holds = middle;
        }
    }
    let mut left = match moments.get(broken - 1) {
        Some(moment) => until(&history, *moment, &unanswered),
        None => history,
    };
    left.sort_by_key(|interval| interval.invoked);
    let mut index = left.len();
    while index > 0 {
        index -= 1;
        if is_needed(&left, index) {
            continue;
        }
        let dropped = left.remove(index);
        if !fails(&left) {
            left.insert(index, dropped);
        }
    }
    left
}

/// The history as known at `moment`: without later answers and later calls.
fn until<O: Clone>(
    history: &[Interval<O>],
    moment: u64,
    unanswered: impl Fn(&O) -> Option<O>,
) -> Vec<Interval<O>> {
    let begun = history.iter().filter(|interval| interval.invoked <= moment);
    begun
        .filter_map(|interval| match interval.returned {
            Some(returned) if returned > moment => {
                let operation = unanswered(&interval.operation)?;
                Some(Interval { invoked: interval.invoked, returned: None, operation })
            }
            _ => Some(interval.clone()),
        })
        .collect()
}
