//! [`Document`]: nested maps, sets, counters, flags and registers by path, over a [`CausalMap`].

mod field;
#[cfg(feature = "json")]
mod json;
mod replicated;
mod scalar;

use alloc::string::String;
use alloc::vec::Vec;

use field::{Field, Kind, prefix_of};
#[cfg(feature = "json")]
pub use json::JsonError;
pub use scalar::Scalar;

use crate::{CausalMap, Dot, Entry, HashKey, ReplicaId, RestoreError, WriteError};

/// The most names in a path.
pub const DEPTH_MAX: usize = 64;

/// Why a write to a document was refused. The document is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// The path is no JSON pointer.
    #[error("the path is no JSON pointer: begin each name with '/', and write '~0' for '~' and '~1' for '/'")]
    Path,
    /// The path has too many names.
    #[error("the path has {depth} names, above the limit of {DEPTH_MAX}: use a flatter document")]
    Depth {
        /// How many names it has.
        depth: usize,
    },
    /// The path or the value is too long.
    #[error("a path or a value of the document is too long")]
    Write(#[from] WriteError),
}

/// A document that every replica may change at any time: nested maps whose fields are registers, counters,
/// flags and sets, each under a path.
///
/// A path is a JSON pointer (RFC 6901): `/list/milk/done`, or the empty string for the whole document. A
/// field comes into being with its first write, and so do the maps above it.
///
/// | field | write | concurrent writes |
/// |---|---|---|
/// | register | [`set`](Self::set) | the latest is shown, by (time, dot, value); [`siblings`](Self::siblings) shows all |
/// | counter | [`add`](Self::add) | add up |
/// | flag | [`enable`](Self::enable), [`disable`](Self::disable) | enabling wins |
/// | set | [`insert`](Self::insert), [`take`](Self::take) | inserting wins |
/// | map | any write below it, [`insert_map`](Self::insert_map) | are all kept; writing wins over removing |
///
/// [`remove`](Self::remove) removes all fields at and below a path that this replica has seen. A field that
/// another replica changes meanwhile survives it, with the maps above. A field that shall outlive an item,
/// for instance the count of its purchases, lies beside the item and not below it: `/bought/milk` beside
/// `/list/milk`.
///
/// Two replicas may write fields of two kinds under one path. Both are kept, and each is read by its own
/// methods. In JSON, the first of map, set, counter, flag and register is shown.
///
/// All changes that are made before a session sends travel together, and are joined whole. Lists in an order
/// of the user's choice and texts that several replicas edit are out of scope.
///
/// The document is a view of a [`CausalMap`]: [`Session`](crate::Session) and [`Peers`](crate::Peers)
/// synchronize it as they do a map. Other keys of the map stay as they are.
///
/// # Example
/// A replicated to-do list:
/// ```
/// use core::time::Duration;
/// use x0_crdt::{Document, HashKey, Peers, PeersInput, PeersOutput, ReplicaId, SessionOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut phones = [1, 2].map(|id| {
///     let list = Document::new(ReplicaId::new(id), HashKey::new(*b"known to members"));
///     Peers::new(list, &SessionOptions::default(), id)
/// });
/// let mut now = Duration::ZERO;
/// phones[0].add(now, 1);
/// phones[1].add(now, 0);
/// phones[0].change(now, |list| list.set("/todo/milk/text", 10, "2 liters"))?;
/// phones[0].change(now, |list| list.insert("/todo/milk/tags", 10, "shop"))?;
/// phones[1].change(now, |list| list.set("/todo/bread/text", 11, "rye"))?;
/// phones[1].change(now, |list| list.enable("/todo/bread/done", 12))?;
/// while phones[0].state().frontier() != phones[1].state().frontier() {
///     for at in 0..2 {
///         phones[at].handle(now, PeersInput::Timeout)?;
///         while let Some(output) = phones[at].poll_output() {
///             if let PeersOutput::Send { to, bytes } = output {
///                 phones[to].handle(now, PeersInput::Datagram { from: &at, bytes: &bytes })?;
///             }
///         }
///     }
///     now += Duration::from_millis(1);
/// }
/// assert_eq!(phones[0].state().names("/todo"), ["bread", "milk"]);
/// assert!(phones[0].state().is_enabled("/todo/bread/done"));
/// assert_eq!(phones[1].state().get("/todo/milk/text"), Some("2 liters".into()));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Document {
    map: CausalMap,
}

impl Document {
    /// An empty document, written to as `replica`. Members that sync share `hash_key`.
    #[must_use]
    pub fn new(replica: ReplicaId, hash_key: HashKey) -> Self {
        Self::from_map(CausalMap::new(replica, hash_key))
    }

    /// The document that is in a map.
    #[must_use]
    pub const fn from_map(map: CausalMap) -> Self {
        Self { map }
    }

    /// The map, for versions, deltas and members.
    #[must_use]
    pub const fn map(&self) -> &CausalMap {
        &self.map
    }

    /// The map, to be joined with deltas.
    pub const fn map_mut(&mut self) -> &mut CausalMap {
        &mut self.map
    }

    /// The map alone.
    #[must_use]
    pub fn into_map(self) -> CausalMap {
        self.map
    }

    /// The hashes of version and content, to compare with other replicas.
    #[must_use]
    pub fn frontier(&self) -> crate::Frontier {
        self.map.frontier()
    }

    /// The whole replica, to be restored on this machine.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        self.map.save()
    }

    /// Restores the bytes of [`save`](Self::save), see [`CausalMap::restore`].
    ///
    /// # Errors
    /// Bytes that `save` cannot have written.
    pub fn restore(bytes: &[u8], replica: ReplicaId, hash_key: HashKey) -> Result<Self, RestoreError> {
        CausalMap::restore(bytes, replica, hash_key).map(Self::from_map)
    }

    /// The prefix of the keys of all fields at and below a path, for
    /// [`Peers::subscribe`](crate::Peers::subscribe).
    ///
    /// # Errors
    /// A path that is no path.
    pub fn prefix(path: &str) -> Result<Vec<u8>, DocumentError> {
        prefix_of(path)
    }

    /// The path of the field of a key of the map. `None` for a key that is of no field.
    #[must_use]
    pub fn path_of(key: &[u8]) -> Option<String> {
        let (field, _) = Field::decode(key)?;
        Some(
            field
                .names
                .iter()
                .fold(String::new(), |path, name| path + "/" + &name.replace('~', "~0").replace('/', "~1")),
        )
    }

    /// Writes a register over all values seen there. `time` orders concurrent values.
    ///
    /// # Errors
    /// A path that is no path, or is too long with its value.
    pub fn set(&mut self, path: &str, time: u64, value: impl Into<Scalar>) -> Result<Dot, DocumentError> {
        let key = Field::new(path, Kind::Register)?.encode();
        Ok(self.map.put(&key, time, &value.into().encode())?)
    }

    /// The value of a register: the latest one.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<Scalar> {
        Scalar::decode(self.entry(path, Kind::Register)?.latest().value)
    }

    /// All values of a register that no later write has replaced.
    #[must_use]
    pub fn siblings(&self, path: &str) -> Vec<Scalar> {
        let entry = self.entry(path, Kind::Register);
        entry.iter().flat_map(Entry::siblings).filter_map(|held| Scalar::decode(held.value)).collect()
    }

    /// Adds to a counter. Saturates at the ends of `i64`.
    ///
    /// # Errors
    /// A path that is no path, or is too long.
    pub fn add(&mut self, path: &str, time: u64, amount: i64) -> Result<Dot, DocumentError> {
        let key = Field::new(path, Kind::Counter)?.encode();
        Ok(self.map.add(&key, time, amount)?)
    }

    /// The value of a counter.
    #[must_use]
    pub fn count(&self, path: &str) -> Option<i64> {
        self.entry(path, Kind::Counter).map(|entry| entry.sum())
    }

    /// Enables a flag.
    ///
    /// # Errors
    /// A path that is no path, or is too long.
    pub fn enable(&mut self, path: &str, time: u64) -> Result<Dot, DocumentError> {
        let key = Field::new(path, Kind::Flag)?.encode();
        Ok(self.map.put(&key, time, &[])?)
    }

    /// Disables a flag, as far as this replica has seen it enabled. `None` if it is not.
    pub fn disable(&mut self, path: &str) -> Option<Dot> {
        self.map.remove(&Field::new(path, Kind::Flag).ok()?.encode())
    }

    /// Whether a flag is enabled.
    #[must_use]
    pub fn is_enabled(&self, path: &str) -> bool {
        self.entry(path, Kind::Flag).is_some()
    }

    /// Inserts an element into a set.
    ///
    /// # Errors
    /// A path that is no path, or is too long with the element.
    pub fn insert(
        &mut self,
        path: &str,
        time: u64,
        element: impl Into<Scalar>,
    ) -> Result<Dot, DocumentError> {
        let key = Field::new(path, Kind::Set)?.encode_with(&element.into());
        Ok(self.map.put(&key, time, &[])?)
    }

    /// Removes an element from a set. `None` if it is not in it.
    pub fn take(&mut self, path: &str, element: impl Into<Scalar>) -> Option<Dot> {
        self.map.remove(&Field::new(path, Kind::Set).ok()?.encode_with(&element.into()))
    }

    /// Whether an element is in a set.
    #[must_use]
    pub fn contains(&self, path: &str, element: impl Into<Scalar>) -> bool {
        let field = Field::new(path, Kind::Set);
        field.is_ok_and(|field| self.map.get(&field.encode_with(&element.into())).is_some())
    }

    /// The elements of a set, in a fixed order.
    #[must_use]
    pub fn elements(&self, path: &str) -> Vec<Scalar> {
        let Ok(field) = Field::new(path, Kind::Set) else { return Vec::new() };
        let prefix = field.encode();
        let entries = self.map.prefix(&prefix);
        entries.filter_map(|entry| Scalar::decode(entry.key().get(prefix.len()..)?)).collect()
    }

    /// Makes an empty map, which stays when all fields below it are removed.
    ///
    /// # Errors
    /// A path that is no path, or is too long.
    pub fn insert_map(&mut self, path: &str, time: u64) -> Result<Dot, DocumentError> {
        let key = Field::new(path, Kind::Map)?.encode();
        Ok(self.map.put(&key, time, &[])?)
    }

    /// The names in a map, ascending.
    #[must_use]
    pub fn names(&self, path: &str) -> Vec<String> {
        let Ok(prefix) = prefix_of(path) else { return Vec::new() };
        let mut names = Vec::new();
        let mut next = field::below(&prefix);
        // From name to name: fields below a name are not visited.
        while let Some(entry) = self.map.range(&next).next() {
            let Some(rest) = entry.key().strip_prefix(prefix.as_slice()) else { break };
            let Some((name, len)) = field::name_of(rest) else { break };
            let below = entry.key().get(..prefix.len() + len).unwrap_or_default();
            names.extend(name);
            next = field::after(below);
        }
        names
    }

    /// Whether there is a field of any kind at or below a path.
    #[must_use]
    pub fn exists(&self, path: &str) -> bool {
        self.keys_under(path).next().is_some()
    }

    /// Removes all fields at and below a path that this replica has seen. Returns how many there were.
    pub fn remove(&mut self, path: &str) -> usize {
        let keys: Vec<Vec<u8>> = self.keys_under(path).map(<[u8]>::to_vec).collect();
        keys.iter().filter(|key| self.map.remove(key).is_some()).count()
    }

    /// The keys of the fields at and below a path.
    fn keys_under(&self, path: &str) -> impl Iterator<Item = &[u8]> {
        let prefix = prefix_of(path).ok();
        let first = prefix.clone().unwrap_or_default();
        let entries = self.map.range(&first).map(|entry| entry.key());
        entries
            .take_while(move |key| prefix.as_ref().is_some_and(|prefix| key.starts_with(prefix)))
            .filter(|key| Field::decode(key).is_some())
    }

    fn entry(&self, path: &str, kind: Kind) -> Option<Entry<'_>> {
        self.map.get(&Field::new(path, kind).ok()?.encode())
    }
}
