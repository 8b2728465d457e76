//! Applying, in the order of the replica's outputs.

use bytes::Bytes;

use super::event::{Event, FatalError};
use crate::entry::{Entry, EntryKind};
use crate::state_machine::StateMachine;

/// Applies entries. The outcomes of the commands among them come into `outcomes`, which is for reuse.
pub(super) fn apply(
    machine: &mut dyn StateMachine,
    entries: &[Entry],
    outcomes: &mut Vec<Bytes>,
) -> Result<(), FatalError> {
    outcomes.clear();
    machine.apply(entries, outcomes)?;
    let commands = entries.iter().filter(|entry| entry.is_command()).count();
    if outcomes.len() != commands {
        return Err(FatalError::Outcomes { outcomes: outcomes.len(), commands });
    }
    Ok(())
}

/// What became of the proposals made here, index and token ascending, among entries that were applied.
pub(super) fn outcomes<'a>(
    entries: &'a [Entry],
    proposals: &'a [(u64, u64)],
    outcomes: &'a mut Vec<Bytes>,
) -> impl Iterator<Item = Event> + 'a {
    let mut proposals = proposals.iter().copied().peekable();
    let mut outcomes = outcomes.drain(..);
    entries.iter().filter_map(move |entry| {
        let outcome = if entry.is_command() { outcomes.next() } else { None };
        let (index, token) = proposals.next_if(|(index, _)| *index == entry.index)?;
        Some(match entry.kind {
            EntryKind::Normal => Event::Outcome { token, index, outcome: outcome.unwrap_or_default() },
            EntryKind::Membership => Event::Changed { token, index },
        })
    })
}
