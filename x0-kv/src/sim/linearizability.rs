//! Could this history have happened one operation at a time?
//!
//! The checker of Wing and Gong ("Testing and verifying concurrent objects", 1993) with Lowe's memory of
//! configurations already tried ("Testing for linearizability", 2017): it looks for an order of the
//! operations in which each takes effect between its invocation and its return and answers what the
//! sequential [`Model`] would. Linearizability is local, so [`register`] checks each key by itself, and
//! [`registers`] each set of keys that transactions connect.
//!
//! An operation that was never answered ([`Interval::returned`] is `None`) may take effect at any moment
//! after its invocation, or never. Its model step must then accept whatever the answer would have been.
//!
//! The search is exponential at worst; `steps_max` bounds it, and a search that ran out says so instead of
//! guessing.
//!
//! ```
//! use x0_kv::linearizability::{Interval, Verdict, check, register::{Call, Register}};
//!
//! let history = [
//!     Interval { invoked: 0, returned: Some(1), operation: Call::Put { value: 1 } },
//!     // Begins after the put was answered, and does not see it.
//!     Interval { invoked: 2, returned: Some(3), operation: Call::Get { answer: None } },
//! ];
//! assert!(matches!(check(&Register, &history, 1_000), Verdict::NotLinearizable { .. }));
//! ```

use std::collections::HashSet;
use std::hash::Hash;

mod minimal;
pub mod register;
pub mod registers;

pub use minimal::minimal;

/// A sequential specification.
pub trait Model {
    /// An operation together with its answer, if there was one.
    type Operation;
    /// The state of the object between operations.
    type State: Clone + Eq + Hash;

    /// The first state of the object.
    fn initial(&self) -> Self::State;

    /// The state after `operation` ran in `state`, or `None` if it could not have answered as it did.
    fn step(&self, state: &Self::State, operation: &Self::Operation) -> Option<Self::State>;

    /// Whether `operation`, answered as it was, leaves every state that it fits as it is. The search is
    /// shorter for each that is known to; `false`, the default, is always right.
    fn is_read(&self, operation: &Self::Operation) -> bool {
        let _ = operation;
        false
    }
}

/// One operation of a history. The unit of time is the caller's; only the order counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interval<O> {
    /// When the client asked.
    pub invoked: u64,
    /// When the client had the answer; `None` if it never had one. An answer and an invocation at the same
    /// moment count as concurrent.
    pub returned: Option<u64>,
    /// The operation and its answer.
    pub operation: O,
}

/// The result of [`check`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// An order exists: indices into the history. Unanswered operations that need not have happened are left
    /// out.
    Linearizable {
        /// The order found.
        order: Vec<usize>,
    },
    /// No order exists.
    NotLinearizable {
        /// The longest order that could be found: what could not follow it is the place to look.
        longest: Vec<usize>,
    },
    /// The search ran out of steps.
    Undecided {
        /// How many were taken.
        steps: u64,
    },
}

/// A set of the operations already ordered, one bit each.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Ordered(Box<[u64]>);

impl Ordered {
    fn insert(&mut self, index: usize) {
        self.0[index / 64] |= 1 << (index % 64);
    }

    fn remove(&mut self, index: usize) {
        self.0[index / 64] &= !(1 << (index % 64));
    }
}

/// An invocation or a return, in a doubly linked list by index: the search takes an operation's two events
/// out and puts them back in the reverse order.
struct Event {
    operation: usize,
    /// For an invocation: the place of the operation's return, if it has one.
    returns_at: Option<usize>,
    is_invocation: bool,
    previous: usize,
    next: usize,
}

/// The events of a history in the order of time. Place 0 is the head; the list ends where `next` is 0 again.
struct Timeline {
    events: Vec<Event>,
}

impl Timeline {
    fn new<O>(history: &[Interval<O>]) -> Timeline {
        // Invocations sort before returns of the same moment, so that the two operations count as concurrent.
        let mut order: Vec<(u64, bool, usize)> = Vec::with_capacity(history.len() * 2);
        for (index, interval) in history.iter().enumerate() {
            order.push((interval.invoked, false, index));
            if let Some(returned) = interval.returned {
                order.push((returned.max(interval.invoked), true, index));
            }
        }
        order.sort_unstable();
        let count = order.len();
        let mut events = Vec::with_capacity(count + 1);
        events.push(Event {
            operation: usize::MAX,
            returns_at: None,
            is_invocation: false,
            previous: count,
            next: usize::from(count > 0),
        });
        let mut invoked_at = vec![0; history.len()];
        for (position, (_, is_return, operation)) in order.into_iter().enumerate() {
            let place = position + 1;
            if is_return {
                let invocation: &mut Event = &mut events[invoked_at[operation]];
                invocation.returns_at = Some(place);
            } else {
                invoked_at[operation] = place;
            }
            events.push(Event {
                operation,
                returns_at: None,
                is_invocation: !is_return,
                previous: place - 1,
                next: if place == count { 0 } else { place + 1 },
            });
        }
        Timeline { events }
    }

    fn first(&self) -> usize {
        self.events[0].next
    }

    fn unlink(&mut self, place: usize) {
        let (previous, next) = (self.events[place].previous, self.events[place].next);
        self.events[previous].next = next;
        self.events[next].previous = previous;
    }

    fn relink(&mut self, place: usize) {
        let (previous, next) = (self.events[place].previous, self.events[place].next);
        self.events[previous].next = place;
        self.events[next].previous = place;
    }

    /// Takes an invocation and its return out.
    fn lift(&mut self, invocation: usize) {
        self.unlink(invocation);
        if let Some(returned) = self.events[invocation].returns_at {
            self.unlink(returned);
        }
    }

    /// Undoes the latest [`lift`](Self::lift) that is not undone yet.
    fn unlift(&mut self, invocation: usize) {
        if let Some(returned) = self.events[invocation].returns_at {
            self.relink(returned);
        }
        self.relink(invocation);
    }
}

/// Which operations are tried, in this order.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Answered reads. One that fits may as well come now as later: whatever can follow without it can follow
    /// with it. So nothing else is tried in its place.
    Read,
    /// The other answered ones.
    Answered,
    /// Unanswered ones, which need not have happened. Those that would change nothing are left for when they
    /// do.
    Unanswered,
}

/// An operation put into the order.
struct Step<S> {
    /// The place of its invocation.
    place: usize,
    /// The state before it.
    before: S,
    /// In which pass it was found.
    pass: Pass,
}

/// Looks for an order of `history` that `model` allows, in at most `steps_max` steps of the model.
///
/// The intervals may come in any order. Memory grows with the number of distinct configurations tried.
pub fn check<M: Model>(model: &M, history: &[Interval<M::Operation>], steps_max: u64) -> Verdict {
    let mut timeline = Timeline::new(history);
    let mut answered_left = history.iter().filter(|interval| interval.returned.is_some()).count();
    let mut ordered = Ordered(vec![0; history.len().div_ceil(64)].into_boxed_slice());
    let mut tried: HashSet<(Ordered, M::State)> = HashSet::new();
    let mut state = model.initial();
    // The operations ordered so far.
    let mut stack: Vec<Step<M::State>> = Vec::new();
    let mut longest: Vec<usize> = Vec::new();
    let mut steps = 0;
    let mut pass = Pass::Read;
    let mut place = timeline.first();
    loop {
        if answered_left == 0 {
            let order = stack.iter().map(|step| timeline.events[step.place].operation).collect();
            return Verdict::Linearizable { order };
        }
        // At a return (or the end) some operation must have taken effect by now.
        if place == 0 || !timeline.events[place].is_invocation {
            if pass != Pass::Unanswered {
                pass = if pass == Pass::Read { Pass::Answered } else { Pass::Unanswered };
                place = timeline.first();
                continue;
            }
            // None of those still open fits.
            if stack.len() > longest.len() {
                longest = stack.iter().map(|step| timeline.events[step.place].operation).collect();
            }
            loop {
                let Some(undone) = stack.pop() else {
                    return Verdict::NotLinearizable { longest };
                };
                let event = &timeline.events[undone.place];
                ordered.remove(event.operation);
                answered_left += usize::from(event.returns_at.is_some());
                state = undone.before;
                timeline.unlift(undone.place);
                if undone.pass != Pass::Read {
                    pass = undone.pass;
                    place = timeline.events[undone.place].next;
                    break;
                }
            }
            continue;
        }
        let event = &timeline.events[place];
        let (operation, next) = (event.operation, event.next);
        let fits_pass = match event.returns_at {
            None => pass == Pass::Unanswered,
            Some(_) if model.is_read(&history[operation].operation) => pass == Pass::Read,
            Some(_) => pass == Pass::Answered,
        };
        if !fits_pass {
            place = next;
            continue;
        }
        if steps == steps_max {
            return Verdict::Undecided { steps };
        }
        steps += 1;
        let after = model.step(&state, &history[operation].operation);
        if let Some(after) = after.filter(|after| pass != Pass::Unanswered || *after != state) {
            ordered.insert(operation);
            if pass == Pass::Read || tried.insert((ordered.clone(), after.clone())) {
                stack.push(Step { place, before: std::mem::replace(&mut state, after), pass });
                answered_left -= usize::from(timeline.events[place].returns_at.is_some());
                timeline.lift(place);
                pass = Pass::Read;
                place = timeline.first();
                continue;
            }
            ordered.remove(operation);
        }
        place = next;
    }
}

#[cfg(test)]
mod tests;
