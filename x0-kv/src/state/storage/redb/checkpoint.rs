//! Writes of the file: checkpoints, and the replacement of everything by a snapshot.

use std::collections::BTreeSet;
use std::sync::Arc;

use redb::{ReadableTable, Table, TableDefinition, WriteTransaction};

use super::super::entry::{Space, Stored};
use super::super::layer::Merged;
use super::super::{EngineError, Layer, Spaces, View, page};
use super::file::File;
use super::{HEAD_LEN, KEYSPACES, MEMBERS, REVISION_LEN, SESSIONS, WhileDoing, table_name};
use crate::request::member::Members;
use crate::state::session::{Session, Sessions};

/// The input of one checkpoint. Made while nothing is applied, in constant time but for a look at each
/// session; run by any thread.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    pub(crate) file: Arc<File>,
    /// The layers to write; what lies beneath them is in the file.
    pub(crate) view: View,
    pub(crate) sessions: Vec<(u64, Arc<Session>)>,
    pub(crate) forgotten: Vec<u64>,
    pub(crate) applied: u64,
}

impl Checkpoint {
    /// Makes it durable. On an error the file is at the checkpoint before.
    pub(crate) fn run(&self) -> Result<(), EngineError> {
        self.file.guarded("write", || self.write())
    }

    fn write(&self) -> Result<(), EngineError> {
        let file = &*self.file;
        let transaction = file.begin_write()?;
        write_keyspaces(file, &transaction, self.view.spaces())?;
        for space in self.view.spaces().by_id() {
            self.write_entries(&transaction, &space)?;
        }
        {
            let mut sessions = transaction.open_table(SESSIONS).while_doing("write", file.path())?;
            for id in &self.forgotten {
                sessions.remove(id).while_doing("write", file.path())?;
            }
            let mut encoded = Vec::new();
            for (id, session) in &self.sessions {
                encoded.clear();
                session.encode(&mut encoded);
                sessions.insert(id, &*encoded).while_doing("write", file.path())?;
            }
        }
        write_members(file, &transaction, self.view.members())?;
        file.commit(transaction, self.applied)
    }

    fn write_entries(&self, transaction: &WriteTransaction, space: &Space) -> Result<(), EngineError> {
        if !self.layers().iter().any(|layer| layer.has_space(space.id)) {
            return Ok(());
        }
        let path = self.file.path();
        let name = table_name(space.id);
        let mut entries = transaction.open_table(TableDefinition::new(&name)).while_doing("write", path)?;
        let layers = self.layers().iter().map(|layer| &**layer);
        for (key, slot) in Merged::new(layers, space.id, page::EVERYTHING, false) {
            match slot.stored(space, key)? {
                Some(stored) => put(&mut entries, &stored),
                None => entries.remove(key).map(drop),
            }
            .while_doing("write", path)?;
        }
        Ok(())
    }

    pub(crate) fn layers(&self) -> &[Arc<Layer>] {
        self.view.layers()
    }

    pub(crate) fn spaces(&self) -> &Spaces {
        self.view.spaces()
    }
}

/// Replaces everything in the file, in one transaction: dropped unfinished, it leaves the file as it was.
pub(crate) struct Replacement {
    file: Arc<File>,
    transaction: WriteTransaction,
}

impl Replacement {
    pub(crate) fn begin(file: &Arc<File>) -> Result<Replacement, EngineError> {
        file.guarded("write", || {
            let transaction = file.begin_write()?;
            write_keyspaces(file, &transaction, &Spaces::default())?;
            let name = table_name(Space::DEFAULT.id);
            let default = TableDefinition::<&[u8], &[u8]>::new(&name);
            transaction.delete_table(default).while_doing("write", file.path())?;
            transaction.delete_table(SESSIONS).while_doing("write", file.path())?;
            Ok(Replacement { file: Arc::clone(file), transaction })
        })
    }

    pub(crate) fn put(&mut self, space: &Space, batch: &[Stored]) -> Result<(), EngineError> {
        let path = self.file.path();
        self.file.guarded("write", || {
            let name = table_name(space.id);
            let mut entries =
                self.transaction.open_table(TableDefinition::new(&name)).while_doing("write", path)?;
            for entry in batch {
                put(&mut entries, entry).while_doing("write", path)?;
            }
            Ok(())
        })
    }

    pub(crate) fn commit(
        self,
        sessions: &Sessions,
        spaces: &Spaces,
        members: &Members,
        applied: u64,
    ) -> Result<(), EngineError> {
        let Replacement { file, transaction } = self;
        file.guarded("write", || {
            write_keyspaces(&file, &transaction, spaces)?;
            {
                let mut table = transaction.open_table(SESSIONS).while_doing("write", file.path())?;
                let mut encoded = Vec::new();
                for (id, session) in sessions.iter() {
                    encoded.clear();
                    session.encode(&mut encoded);
                    table.insert(id, &*encoded).while_doing("write", file.path())?;
                }
            }
            write_members(&file, &transaction, members)?;
            file.commit(transaction, applied)
        })
    }
}

/// Writes the member table, unless the file has this one.
fn write_members(file: &File, transaction: &WriteTransaction, members: &Members) -> Result<(), EngineError> {
    let path = file.path();
    let mut table = transaction.open_table(MEMBERS).while_doing("write", path)?;
    let mut encoded = Vec::new();
    members.encode(&mut encoded);
    let known = table.get(()).while_doing("write", path)?.is_some_and(|known| known.value() == encoded);
    if !known {
        table.insert((), &*encoded).while_doing("write", path)?;
    }
    Ok(())
}

/// Writes the list of keyspaces, and removes the tables of those that are not in it.
fn write_keyspaces(file: &File, transaction: &WriteTransaction, spaces: &Spaces) -> Result<(), EngineError> {
    let path = file.path();
    let mut table = transaction.open_table(KEYSPACES).while_doing("write", path)?;
    let kept: BTreeSet<u64> = spaces.iter().map(|(_, id)| id).collect();
    let mut gone = Vec::new();
    for entry in table.iter().while_doing("write", path)? {
        let (name, id) = entry.while_doing("write", path)?;
        if !kept.contains(&id.value()) {
            gone.push((name.value().to_owned(), id.value()));
        }
    }
    for (name, id) in &gone {
        table.remove(name.as_str()).while_doing("write", path)?;
        let name = table_name(*id);
        transaction.delete_table(TableDefinition::<&[u8], &[u8]>::new(&name)).while_doing("write", path)?;
    }
    for (name, id) in spaces.iter() {
        let known = table.get(name.as_str()).while_doing("write", path)?.map(|found| found.value());
        if known != Some(id) {
            table.insert(name.as_str(), id).while_doing("write", path)?;
        }
    }
    Ok(())
}

fn put(entries: &mut Table<'_, &[u8], &[u8]>, entry: &Stored) -> Result<(), redb::StorageError> {
    let mut room = entries.insert_reserve(&*entry.key, HEAD_LEN + entry.value.len())?;
    let (head, value) = room.as_mut().split_at_mut(HEAD_LEN);
    head[..REVISION_LEN].copy_from_slice(&entry.revision.to_le_bytes());
    head[REVISION_LEN..].copy_from_slice(&entry.checksum.to_le_bytes());
    value.copy_from_slice(&entry.value);
    Ok(())
}
