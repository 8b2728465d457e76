//! The model of one key: a value or none, with put, delete, get and compare-and-swap.

use super::Model;

/// One key. Values are numbers; a test gives each write a number of its own, so that a read names the write
/// it saw.
#[derive(Debug, Clone, Copy, Default)]
pub struct Register;

/// An operation on one key with its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// Sets the value.
    Put {
        /// The value.
        value: u64,
    },
    /// Removes the value.
    Delete {
        /// Whether there was one; `None` if no answer came.
        existed: Option<bool>,
    },
    /// Reads the value. A read without an answer says nothing: leave it out of the history.
    Get {
        /// The value that was read.
        answer: Option<u64>,
    },
    /// Sets the value if it is as expected.
    CompareAndSwap {
        /// The value expected, or none.
        expect: Option<u64>,
        /// The value to set.
        value: u64,
        /// Whether it was set, and if not what was there instead; `None` if no answer came.
        answer: Option<Swapped>,
    },
}

/// The answer to a compare-and-swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Swapped {
    /// The key was as expected and has the new value.
    Yes,
    /// The value was kept; the register held this one.
    No {
        /// The value of the register.
        current: Option<u64>,
    },
}

impl Model for Register {
    type Operation = Call;
    type State = Option<u64>;

    fn initial(&self) -> Option<u64> {
        None
    }

    fn step(&self, state: &Option<u64>, call: &Call) -> Option<Option<u64>> {
        match *call {
            Call::Put { value } => Some(Some(value)),
            Call::Delete { existed } => {
                existed.is_none_or(|existed| existed == state.is_some()).then_some(None)
            }
            Call::Get { answer } => (answer == *state).then_some(*state),
            Call::CompareAndSwap { expect, value, answer } => {
                let (seen, after) = if *state == expect {
                    (Swapped::Yes, Some(value))
                } else {
                    (Swapped::No { current: *state }, *state)
                };
                answer.is_none_or(|answer| answer == seen).then_some(after)
            }
        }
    }

    fn is_read(&self, call: &Call) -> bool {
        match call {
            Call::Get { .. } => true,
            Call::Delete { existed } => *existed == Some(false),
            Call::CompareAndSwap { answer, .. } => matches!(answer, Some(Swapped::No { .. })),
            Call::Put { .. } => false,
        }
    }
}
