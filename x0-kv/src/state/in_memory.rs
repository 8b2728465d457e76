//! Whether entries can be applied without waiting for a disk.

use bytes::Bytes;

use crate::request::command::Command;
use crate::request::operation::{Action, Mutation};
use crate::state::storage::{ENTRY_OVERHEAD_LEN, Space, Tables};
use crate::state::{Engine, State};

impl State {
    /// Whether applying commands with these payloads reads and writes memory alone. `false` also when a
    /// thread holds the tables at this moment, because applying would wait for it.
    ///
    /// With redb a write goes to the layers above the file. Only commands that depend on an earlier value
    /// read the file, and only if no layer has the key.
    pub(crate) fn applies_in_memory<'a>(
        &self,
        mut payloads: impl Iterator<Item = &'a Bytes> + Clone,
    ) -> bool {
        if self.shared.is_locked() {
            return false;
        }
        let Some(layers_len_max) = self.engine.layers_len_max() else { return true };
        let Some(tables) = self.shared.try_read() else { return false };
        // The checkpoint that begins when the layers are full looks at each session, and may wait for the one
        // before: neither belongs into an event loop.
        let added: usize = payloads.clone().map(|payload| payload.len() + ENTRY_OVERHEAD_LEN).sum();
        tables.layers_len() + added < layers_len_max
            && payloads.all(|payload| reads_layers_alone(&tables, payload))
    }
}

impl Engine {
    /// The bytes of layers at which a checkpoint begins; `None` when everything is in memory.
    fn layers_len_max(&self) -> Option<usize> {
        match self {
            Engine::Memory => None,
            #[cfg(feature = "redb")]
            Engine::Redb(durable) => Some(durable.options.overlay_len_max),
        }
    }
}

/// Whether all that the command reads is in the layers.
fn reads_layers_alone(tables: &Tables, payload: &Bytes) -> bool {
    let Ok(Command::Write { keyspace, mutation, .. }) = Command::decode(payload) else {
        // Sessions are in memory, and a command that cannot be decoded has no effect.
        return true;
    };
    let Some(space) = tables.resolve(&keyspace) else { return true };
    let is_here = |space: &Space, key: &[u8]| tables.slot(space, key).is_some();
    match &mutation {
        Mutation::Put { .. } | Mutation::CreateKeyspace | Mutation::DropKeyspace => true,
        Mutation::Delete { key } | Mutation::CompareAndSwap { key, .. } => is_here(&space, key),
        Mutation::Transaction(transaction) => {
            let actions = transaction.actions.iter().chain(&transaction.alternatives);
            let read = actions.filter_map(|action| match action {
                Action::Put { .. } => None,
                Action::Get { key } | Action::Delete { key } => Some(key),
            });
            let conditions = transaction.conditions.iter().map(|condition| &condition.key);
            conditions.chain(read).all(|key| is_here(&space, key))
        }
    }
}

#[cfg(all(test, feature = "redb"))]
mod tests {
    use super::*;
    use crate::request::keyspace::KeyspaceName;
    use crate::request::operation::{Condition, Expect, Transaction};
    use crate::state::durable::RedbOptions;

    fn write(mutation: Mutation) -> Bytes {
        Command::Write { request_id: None, keyspace: KeyspaceName::DEFAULT, mutation }.encode()
    }

    fn key(name: &'static str) -> Bytes {
        Bytes::from_static(name.as_bytes())
    }

    fn is_inline(state: &State, payload: &Bytes) -> bool {
        state.applies_in_memory(std::iter::once(payload))
    }

    #[test]
    fn only_commands_that_read_the_file_wait_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let options = RedbOptions { background: false, ..RedbOptions::new().overlay_len_max(1 << 20) };
        let mut state = State::redb(&folder.path().join("data.redb"), options).unwrap();
        let put = |name| write(Mutation::Put { key: key(name), value: key("value") });
        let delete = |name| write(Mutation::Delete { key: key(name) });
        let swap = |name| {
            write(Mutation::CompareAndSwap { key: key(name), expect: Expect::Absent, value: key("v") })
        };
        let transact = |condition, read| {
            write(Mutation::Transaction(Transaction {
                conditions: vec![Condition { key: key(condition), expect: Expect::Absent }],
                actions: vec![Action::Put { key: key("cold"), value: key("v") }],
                alternatives: vec![Action::Get { key: key(read) }],
            }))
        };
        let (cold, hot) = (put("cold"), put("hot"));
        state.apply([(1, Some(&cold))], &mut Vec::new()).unwrap();
        state.checkpoint().unwrap();
        state.apply([(2, Some(&hot))], &mut Vec::new()).unwrap();

        assert!(
            is_inline(&state, &cold) && is_inline(&state, &delete("hot")) && is_inline(&state, &swap("hot"))
        );
        assert!(!is_inline(&state, &delete("cold")) && !is_inline(&state, &swap("cold")));
        assert!(is_inline(&state, &transact("hot", "hot")));
        assert!(!is_inline(&state, &transact("cold", "hot")) && !is_inline(&state, &transact("hot", "cold")));
        assert!(is_inline(&state, &Bytes::from_static(b"not a command")));

        // A reader that holds the tables, and layers that are full.
        let shared = state.shared.clone();
        let guard = shared.read();
        assert!(!is_inline(&state, &cold));
        drop(guard);
        let long = write(Mutation::Put { key: key("long"), value: Bytes::from(vec![0; 1 << 20]) });
        assert!(!is_inline(&state, &long));
    }
}
