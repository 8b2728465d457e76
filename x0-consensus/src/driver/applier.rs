//! Applying, in the order of the replica's outputs.

use bytes::Bytes;

use super::event::FatalError;
use crate::entry::{Entry, EntryKind};
use crate::state_machine::StateMachine;

/// What became of a batch of entries.
#[derive(Debug)]
pub(super) enum Done {
    Outcome { token: u64, index: u64, outcome: Bytes },
    Changed { token: u64, index: u64 },
}

/// Applies entries and pairs the outcomes with the proposals made here. `outcomes` is for reuse.
pub(super) fn apply(
    machine: &mut dyn StateMachine,
    entries: &[Entry],
    proposals: &[(u64, u64)],
    outcomes: &mut Vec<Bytes>,
    mut done: impl FnMut(Done),
) -> Result<(), FatalError> {
    outcomes.clear();
    machine.apply(entries, outcomes)?;
    let commands = entries.iter().filter(|entry| entry.is_command()).count();
    if outcomes.len() != commands {
        return Err(FatalError::Outcomes { outcomes: outcomes.len(), commands });
    }
    if proposals.is_empty() {
        return Ok(());
    }
    let mut proposals = proposals.iter().copied().peekable();
    let mut outcomes = outcomes.drain(..);
    for entry in entries {
        let outcome = if entry.is_command() { outcomes.next() } else { None };
        if let Some((index, token)) = proposals.next_if(|(index, _)| *index == entry.index) {
            done(match entry.kind {
                EntryKind::Normal => Done::Outcome { token, index, outcome: outcome.unwrap_or_default() },
                EntryKind::Membership => Done::Changed { token, index },
            });
        }
    }
    Ok(())
}
