//! Keyspaces and entries as the storage engines hold them, and the checksum that goes with each entry.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use bytes::Bytes;

use super::EngineError;
use crate::request::keyspace::KeyspaceName;
use crate::request::outcome::KeyValue;
use crate::request::revision::Revision;

/// A keyspace that exists. Its id is the log index of the command that created it, and 0 for the default
/// keyspace: an id is never used for two keyspaces, so that entries of a dropped one cannot appear in a new
/// one of the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Space {
    pub(crate) id: u64,
    pub(crate) name: KeyspaceName,
}

impl Space {
    pub(crate) const DEFAULT: Space = Space { id: 0, name: KeyspaceName::DEFAULT };
}

/// The keyspaces that exist beside the default one, by name. Part of the replicated state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Spaces {
    by_name: BTreeMap<KeyspaceName, u64>,
}

impl Spaces {
    pub(crate) fn resolve(&self, name: &KeyspaceName) -> Option<Space> {
        if name.is_default() {
            return Some(Space::DEFAULT);
        }
        self.by_name.get_key_value(name).map(|(name, id)| Space { id: *id, name: name.clone() })
    }

    /// Adds a keyspace. `false` if there is one of this name.
    pub(crate) fn insert(&mut self, name: &KeyspaceName, id: u64) -> bool {
        if self.by_name.contains_key(name) {
            return false;
        }
        self.by_name.insert(name.to_owned_name(), id);
        true
    }

    pub(crate) fn remove(&mut self, name: &KeyspaceName) -> Option<u64> {
        self.by_name.remove(name)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Name and id, ascending by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&KeyspaceName, u64)> {
        self.by_name.iter().map(|(name, id)| (name, *id))
    }

    /// All keyspaces with the default one, ascending by id.
    pub(crate) fn by_id(&self) -> Vec<Space> {
        let mut spaces: Vec<_> =
            self.iter().map(|(name, id)| Space { id, name: name.clone() }).chain([Space::DEFAULT]).collect();
        spaces.sort_unstable_by_key(|space| space.id);
        spaces
    }
}

/// The checksum of an entry: CRC-32C over keyspace, revision, key and value. It is computed where a command
/// is applied, and travels with the entry through layers, files and snapshots: whatever changes one of its
/// bits later is noticed by the next read.
pub(crate) fn checksum(space: u64, revision: u64, key: &[u8], value: &[u8]) -> u32 {
    let mut head = [0_u8; 24];
    head[..8].copy_from_slice(&space.to_le_bytes());
    head[8..16].copy_from_slice(&revision.to_le_bytes());
    // With the length of the key, no byte can move from the key to the value unnoticed.
    head[16..].copy_from_slice(&(key.len() as u64).to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(&head), key), value)
}

/// An entry with its checksum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
    pub(crate) revision: u64,
    pub(crate) checksum: u32,
}

impl Stored {
    /// Compares the entry with its checksum.
    #[cfg_attr(not(feature = "redb"), allow(dead_code, reason = "only a base in a file needs it"))]
    pub(crate) fn verified(self, space: &Space, place: &Place) -> Result<Stored, EngineError> {
        verify(space, &self.key, self.revision, &self.value, self.checksum, place)?;
        Ok(self)
    }

    pub(crate) fn key_value(self) -> KeyValue {
        KeyValue { key: self.key, value: self.value, revision: Revision::new(self.revision) }
    }
}

/// Compares an entry with its checksum.
pub(crate) fn verify(
    space: &Space,
    key: &[u8],
    revision: u64,
    value: &[u8],
    expected: u32,
    place: &Place,
) -> Result<(), EngineError> {
    if checksum(space.id, revision, key, value) == expected {
        return Ok(());
    }
    Err(EngineError::Damaged(Box::new(DamagedEntry {
        place: place.clone(),
        keyspace: space.name.clone(),
        key: Bytes::copy_from_slice(key),
    })))
}

/// The place of a damaged entry.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// In the memory of this process: the memory module or the processor is faulty.
    Memory,
    /// In this file.
    File(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Memory => f.write_str("the memory of this process"),
            Place::File(path) => path.display().fmt(f),
        }
    }
}

/// An entry whose checksum does not match: a bit of it changed after it was written. Its value is not
/// returned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the entry of key {key:?} in keyspace {keyspace} is damaged in {place}: its checksum does not match; check the hardware, and restore this replica from another one"
)]
#[non_exhaustive]
pub struct DamagedEntry {
    /// The place of the damage.
    pub place: Place,
    /// The keyspace of the key.
    pub keyspace: KeyspaceName,
    /// The key, as far as it is readable.
    pub key: Bytes,
}
