//! The replicated state machine: keyspaces, keys, values and sessions, as the log made them.

#[cfg(feature = "redb")]
pub(crate) mod durable;
pub(crate) mod engine;
mod in_memory;
mod machine;
pub(crate) mod session;
pub(crate) mod snapshot;
pub(crate) mod storage;

use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;

use crate::request::applied::encode_applied;
use crate::request::command::Command;
use crate::request::keyspace::KeyspaceName;
use crate::request::limits::{KEYSPACES_MAX, TRANSACTION_LEN_MAX};
use crate::request::member::Members;
use crate::request::operation::{Action, Condition, Expect, Mutation, Transaction};
use crate::request::outcome::{ActionResult, Applied, Outcome, Refusal, Swap, TransactionOutcome, Versioned};
use crate::request::revision::Revision;
use crate::request::watch::Watchers;
use crate::state::session::{Admission, Sessions};
use crate::state::snapshot::{RestoreError, Restored};
use crate::state::storage::{EngineError, Layer, Reader, Shared, Space, Spaces, Stored, Tables};
use crate::telemetry::{CommandResult, StateTelemetry};

/// How many entries are applied before readers get a turn.
const ENTRIES_PER_LOCK: usize = 64;

/// The replicated state machine of the store: feed it the log, read it through a [`Reader`].
///
/// A state is deterministic: the same entries give the same outcomes and the same snapshot, byte for byte,
/// whichever storage engine holds the data. No time, randomness or iteration order of a hash enters it.
#[derive(Debug)]
pub struct State {
    shared: Shared,
    sessions: Sessions,
    applied: u64,
    engine: Engine,
    telemetry: StateTelemetry,
    watchers: Owned,
}

/// The watches of a state, which end with it.
#[derive(Debug, Default)]
struct Owned(Watchers);

/// The snapshots of scans end with the state, so that its file is free.
impl Drop for State {
    fn drop(&mut self) {
        self.shared.scans().clear();
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[derive(Debug)]
enum Engine {
    Memory,
    #[cfg(feature = "redb")]
    Redb(durable::Durable),
}

impl State {
    /// A state in memory alone: empty at first, and lost with the process. Snapshot and log fill it again.
    #[must_use]
    pub fn in_memory() -> State {
        State {
            shared: Shared::new(Tables::new(
                Arc::new(Layer::default()),
                Spaces::default(),
                Members::default(),
                0,
            )),
            sessions: Sessions::default(),
            applied: 0,
            engine: Engine::Memory,
            telemetry: StateTelemetry::new(),
            watchers: Owned::default(),
        }
    }

    /// A handle to read with, from any thread.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader::new(self.shared.clone())
    }

    /// The watches of this state.
    pub(crate) fn watchers(&self) -> Watchers {
        self.watchers.0.clone()
    }

    /// The index of the last log entry that was applied.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// How many sessions are open.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// The index of the last log entry whose effects a crash would not lose: 0 in memory.
    #[must_use]
    pub fn durable(&self) -> u64 {
        match &self.engine {
            Engine::Memory => 0,
            #[cfg(feature = "redb")]
            Engine::Redb(durable) => durable.checkpointed,
        }
    }

    /// Applies the entries of the log that follow the last one applied. An entry is its index and its
    /// payload, which is `None` where the log holds something that is not for the store, such as a change of
    /// membership. One outcome is pushed for each payload. Entries at or below [`State::applied`] are passed
    /// over, but a payload still gets an outcome, an empty one.
    ///
    /// # Errors
    /// When the engine fails. Outcomes already pushed are valid; the state is to be dropped and opened again.
    pub fn apply<'a>(
        &mut self,
        entries: impl IntoIterator<Item = (u64, Option<&'a Bytes>)>,
        outcomes: &mut Vec<Bytes>,
    ) -> Result<(), EngineError> {
        let mut entries = entries.into_iter().peekable();
        while entries.peek().is_some() {
            let mut tables = self.shared.write();
            tables.gather_changes(!self.watchers.0.is_empty());
            for (index, payload) in entries.by_ref().take(ENTRIES_PER_LOCK) {
                let fresh = index > self.applied;
                if let Some(payload) = payload {
                    outcomes.push(match fresh {
                        true => {
                            let (outcome, result) =
                                apply_command(&mut tables, &mut self.sessions, index, payload)?;
                            self.telemetry.command(result);
                            outcome
                        }
                        false => Bytes::new(),
                    });
                }
                if fresh {
                    self.applied = index;
                    tables.applied = index;
                    tables.reached();
                }
            }
            let changed = tables.gathered_changes();
            let written = tables.written;
            if let Some(members) = tables.changed_members() {
                self.shared.members().publish(members);
            }
            // Before any read can see these entries: an owner of a watch who reads a revision and then the
            // watch has every change up to that revision.
            self.watchers.0.changed(&changed.keys);
            for keyspace in &changed.dropped {
                self.watchers.0.replaced(Some(keyspace));
            }
            drop(tables);
            self.shared.scans().expire(written);
            let expired = self.sessions.take_expired();
            self.telemetry.batch_applied(self.applied, self.sessions.len(), expired);
            self.relieve()?;
        }
        Ok(())
    }

    /// A consistent snapshot, to be read while entries are applied. Begins in constant time but for a look at
    /// each session. While it lives, the memory engine keeps what is written meanwhile beside what it had.
    pub fn snapshot(&mut self) -> Box<dyn Read + Send> {
        let view = self.shared.write().view();
        Box::new(snapshot::Writer::new(view, self.applied, &self.sessions))
    }

    /// Replaces everything by a snapshot, of log index `expected` if given. A block at a time is read; the
    /// memory engine holds the old and the new until the end, redb writes one transaction.
    ///
    /// # Errors
    /// When the snapshot is damaged, of another version or index, or cannot be stored. The state is what it
    /// was.
    pub fn restore(&mut self, expected: Option<u64>, from: &mut dyn Read) -> Result<(), RestoreError> {
        match &mut self.engine {
            Engine::Memory => {
                let mut base = Layer::default();
                let Restored { applied, spaces, members, sessions } =
                    snapshot::read(from, expected, |space, entries| {
                        for Stored { key, value, revision, checksum } in entries {
                            base.put(space.id, &key, revision, Some(&value), checksum);
                        }
                        Ok(())
                    })?;
                self.applied = applied;
                self.sessions = sessions;
                self.shared.write().replace(Tables::new(Arc::new(base), spaces, members, applied));
            }
            #[cfg(feature = "redb")]
            Engine::Redb(durable) => {
                durable.join()?;
                let mut replacement = storage::redb::Replacement::begin(&durable.file)?;
                let Restored { applied, spaces, members, sessions } =
                    snapshot::read(from, expected, |space, entries| replacement.put(space, &entries))?;
                replacement.commit(&sessions, &spaces, &members, applied)?;
                let base = durable.file.base(&spaces)?;
                self.applied = applied;
                self.sessions = sessions;
                (durable.checkpointed, durable.begun) = (applied, applied);
                self.shared.write().replace(Tables::new(base, spaces, members, applied));
            }
        }
        let members = self.shared.read().members();
        self.shared.members().publish(members);
        self.watchers.0.replaced(None);
        Ok(())
    }

    /// Begins to make durable what is applied, and returns [`State::durable`] as it is then: of an earlier
    /// checkpoint if this one goes on in the background. Does nothing in memory.
    ///
    /// # Errors
    /// When this or an earlier checkpoint failed. The file is at the checkpoint before; the state is to be
    /// dropped and opened again when the cause is remedied.
    pub fn checkpoint(&mut self) -> Result<u64, EngineError> {
        match &mut self.engine {
            Engine::Memory => Ok(0),
            #[cfg(feature = "redb")]
            Engine::Redb(durable) => {
                durable.reap()?;
                if durable.running.is_none() && self.applied > durable.begun {
                    durable.begin(&self.shared, &mut self.sessions, self.applied)?;
                }
                Ok(durable.checkpointed)
            }
        }
    }

    /// Waits for the checkpoint that is being written, if one is.
    ///
    /// # Errors
    /// As [`State::checkpoint`].
    pub fn wait_for_checkpoint(&mut self) -> Result<u64, EngineError> {
        match &mut self.engine {
            Engine::Memory => Ok(0),
            #[cfg(feature = "redb")]
            Engine::Redb(durable) => {
                durable.join()?;
                Ok(durable.checkpointed)
            }
        }
    }

    /// Keeps what is held in memory within its bound.
    fn relieve(&mut self) -> Result<(), EngineError> {
        match &mut self.engine {
            Engine::Memory => {
                // The list of expired sessions is for the storage engine on disk alone.
                self.sessions.take_forgotten();
                Ok(())
            }
            #[cfg(feature = "redb")]
            Engine::Redb(durable) => {
                let len = self.shared.read().layers_len();
                self.telemetry.overlay(len);
                if len < durable.options.overlay_len_max {
                    return Ok(());
                }
                if len >= durable.options.overlay_len_max.saturating_mul(2) {
                    durable.join()?;
                }
                self.checkpoint().map(drop)
            }
        }
    }
}

fn apply_command(
    tables: &mut Tables,
    sessions: &mut Sessions,
    index: u64,
    payload: &Bytes,
) -> Result<(Bytes, CommandResult), EngineError> {
    let applied: Applied = match Command::decode(payload) {
        Err(_) => Err(Refusal::Malformed),
        Ok(Command::OpenSession) => {
            sessions.open(index);
            Ok(Outcome::SessionOpened { session: index })
        }
        Ok(Command::KeepSession { session }) => sessions.keep(session, index).map(|()| Outcome::SessionKept),
        Ok(Command::CloseSession { session }) => {
            sessions.close(session);
            Ok(Outcome::SessionKept)
        }
        Ok(Command::Member(change)) => tables.change_members(&change).map(|()| Outcome::MemberChanged),
        Ok(Command::Write { request_id: None, keyspace, mutation }) => {
            apply_mutation(tables, index, &keyspace, &mutation)?
        }
        Ok(Command::Write { request_id: Some(request_id), keyspace, mutation }) => {
            match sessions.admit(request_id, index) {
                Admission::Known(outcome) => return Ok((outcome, CommandResult::Repeated)),
                Admission::Refused(refusal) => Err(refusal),
                Admission::Fresh => {
                    let outcome = encode_applied(&apply_mutation(tables, index, &keyspace, &mutation)?);
                    sessions.record(request_id, outcome.clone());
                    return Ok((outcome, CommandResult::Applied));
                }
            }
        }
    };
    let result = if applied.is_ok() { CommandResult::Applied } else { CommandResult::Refused };
    Ok((encode_applied(&applied), result))
}

fn apply_mutation(
    tables: &mut Tables,
    index: u64,
    keyspace: &KeyspaceName,
    mutation: &Mutation,
) -> Result<Applied, EngineError> {
    match mutation {
        Mutation::CreateKeyspace => return Ok(create_keyspace(tables, index, keyspace)),
        Mutation::DropKeyspace => {
            return Ok(Ok(Outcome::KeyspaceDropped { existed: tables.drop_space(keyspace) }));
        }
        _ => {}
    }
    let Some(space) = tables.resolve(keyspace) else { return Ok(Err(Refusal::KeyspaceMissing)) };
    let space = &space;
    let revision = Revision::new(index);
    Ok(Ok(match mutation {
        Mutation::Put { key, value } => {
            tables.write(space, key, index, Some(value));
            Outcome::Put { revision }
        }
        Mutation::Delete { key } => Outcome::Delete { existed: delete(tables, space, index, key)? },
        Mutation::CompareAndSwap { key, expect, value } => {
            let current = tables.get(space, key)?;
            if is_as_expected(current.as_ref(), expect) {
                tables.write(space, key, index, Some(value));
                Outcome::CompareAndSwap(Swap::Swapped { revision })
            } else {
                Outcome::CompareAndSwap(Swap::Kept { current })
            }
        }
        Mutation::Transaction(transaction) => return apply_transaction(tables, space, index, transaction),
        // Carried out above: they need no keyspace that exists.
        Mutation::CreateKeyspace | Mutation::DropKeyspace => return Ok(Err(Refusal::Malformed)),
    }))
}

fn create_keyspace(tables: &mut Tables, index: u64, keyspace: &KeyspaceName) -> Applied {
    if tables.resolve(keyspace).is_some() {
        return Ok(Outcome::KeyspaceCreated { is_new: false });
    }
    if tables.spaces().len() >= KEYSPACES_MAX {
        return Err(Refusal::KeyspacesExceeded);
    }
    Ok(Outcome::KeyspaceCreated { is_new: tables.create_space(keyspace, index) })
}

fn apply_transaction(
    tables: &mut Tables,
    space: &Space,
    index: u64,
    transaction: &Transaction,
) -> Result<Applied, EngineError> {
    let mut held = true;
    for Condition { key, expect } in &transaction.conditions {
        held = held && is_as_expected(tables.get(space, key)?.as_ref(), expect);
    }
    let actions = if held { &transaction.actions } else { &transaction.alternatives };
    if !fits(tables, space, actions)? {
        return Ok(Err(Refusal::ResultTooLong));
    }
    let mut results = Vec::with_capacity(actions.len());
    for action in actions {
        results.push(match action {
            Action::Get { key } => ActionResult::Value(tables.get(space, key)?),
            Action::Put { key, value } => {
                tables.write(space, key, index, Some(value));
                ActionResult::Put
            }
            Action::Delete { key } => ActionResult::Delete { existed: delete(tables, space, index, key)? },
        });
    }
    let revision = Revision::new(index);
    Ok(Ok(Outcome::Transaction(TransactionOutcome { held, revision, results })))
}

/// Whether the values that `actions` read are short enough together. Decided before anything is written, for
/// all or nothing.
fn fits(tables: &Tables, space: &Space, actions: &[Action]) -> Result<bool, EngineError> {
    let mut len = 0;
    // A read sees the writes before it.
    let mut written: Vec<(&Bytes, usize)> = Vec::new();
    for action in actions {
        match action {
            Action::Put { key, value } => written.push((key, value.len())),
            Action::Delete { key } => written.push((key, 0)),
            Action::Get { key } => {
                len += match written.iter().rev().find(|(earlier, _)| *earlier == key) {
                    Some((_, len)) => *len,
                    None => tables.get(space, key)?.map_or(0, |current| current.value.len()),
                }
            }
        }
    }
    Ok(len <= TRANSACTION_LEN_MAX)
}

fn delete(tables: &mut Tables, space: &Space, index: u64, key: &[u8]) -> Result<bool, EngineError> {
    let existed = tables.get(space, key)?.is_some();
    if existed {
        tables.write(space, key, index, None);
    }
    Ok(existed)
}

fn is_as_expected(current: Option<&Versioned>, expect: &Expect) -> bool {
    match (expect, current) {
        (Expect::Absent, current) => current.is_none(),
        (Expect::Value(expected), Some(current)) => *expected == current.value,
        (Expect::Revision(expected), Some(current)) => *expected == current.revision,
        (Expect::Value(_) | Expect::Revision(_), None) => false,
    }
}
