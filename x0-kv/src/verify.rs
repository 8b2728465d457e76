//! Verification of a data folder, and of the state of a running replica.
//!
//! [`verify_folder`] reads all files of a store or node that is stopped, [`verify`] its redb file.
//! [`Scrub`] reads everything that a running replica holds, a step at a time, and yields digests by which
//! replicas can be compared at one applied index.

#[cfg(feature = "redb")]
mod data;
#[cfg(not(feature = "redb"))]
#[path = "verify/no_data.rs"]
mod data;
mod folder;

use std::path::PathBuf;

use self::data::verify_data;
#[cfg_attr(not(feature = "mesh"), allow(unused_imports, reason = "the scrub of a member needs it"))]
pub(crate) use self::folder::with_causes;
pub use self::folder::{FolderPart, FolderProgress, FolderReport, PartReport, verify_folder};

use crate::request::keyspace::KeyspaceName;
use crate::request::limits::RANGE_ENTRIES_MAX;
use crate::request::operation::{RangeQuery, SnapshotId};
use crate::request::outcome::{KeyValue, ScanPage};
use crate::request::revision::Revision;
#[cfg(feature = "redb")]
use crate::state::storage::redb::is_in_use;
use crate::state::storage::{EngineError, ReadError, Reader};

/// How far a verification is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct VerifyProgress {
    /// Entries verified so far.
    pub entries: u64,
    /// Bytes of keys and values verified so far.
    pub bytes: u64,
}

/// Counts of a verification without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Keyspaces, the default one included.
    pub keyspaces: u64,
    /// Entries.
    pub entries: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// The log index of the checkpoint that was verified.
    pub applied: u64,
}

/// A data folder did not pass its verification.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The folder holds no file that this function verifies.
    #[error(
        "there is nothing to verify in {}: it holds no data of a store; name the data folder of a store or node",
        .folder.display()
    )]
    NothingToVerify {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder is open elsewhere, such as in a node that runs. Nothing was verified.
    #[error("{} is in use by another process: stop the node or store first, then verify the folder", .folder.display())]
    InUse {
        /// The folder.
        folder: PathBuf,
    },
    /// The file is damaged, or cannot be read.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Verifies the redb file of the store in `folder`: the checksum of every page and of every entry, and the
/// encoding of sessions and keyspaces. The store must be closed. Calls `progress` after each page of entries.
///
/// [`verify_folder`] verifies the other files of the folder, too.
///
/// # Errors
/// [`VerifyError`] with the file, and the key if an entry is damaged. The entries are not changed.
#[cfg(feature = "redb")]
pub fn verify(
    folder: impl AsRef<std::path::Path>,
    mut progress: impl FnMut(VerifyProgress),
) -> Result<VerifyReport, VerifyError> {
    let folder = folder.as_ref();
    let path = folder.join("data.redb");
    if !path.is_file() {
        return Err(VerifyError::NothingToVerify { folder: folder.to_owned() });
    }
    let mut options = crate::RedbOptions::default();
    (options.background, options.verify_on_open) = (false, true);
    let state = crate::State::redb(&path, options).map_err(|error| match is_in_use(&error) {
        true => VerifyError::InUse { folder: folder.to_owned() },
        false => error.into(),
    })?;
    let mut scrub = Scrub::new(state.reader());
    let mut done = VerifyProgress::default();
    loop {
        match scrub.step() {
            Ok(ScrubStep::Read { entries, bytes }) => {
                done.entries += entries;
                done.bytes += bytes;
                progress(done);
            }
            Ok(ScrubStep::Done(report)) => {
                let keyspaces = report.digests.len() as u64;
                let VerifyProgress { entries, bytes } = done;
                return Ok(VerifyReport { keyspaces, entries, bytes, applied: state.applied() });
            }
            Err(ReadError::Engine(error)) => return Err(error.into()),
            // Nothing is written or dropped while this function has the file.
            Err(ReadError::KeyspaceMissing | ReadError::SnapshotExpired) => {
                return Err(VerifyError::NothingToVerify { folder: folder.to_owned() });
            }
        }
    }
}

/// A digest of the entries of one keyspace. Equal on replicas that hold the same entries.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyspaceDigest {
    /// The keyspace.
    pub keyspace: KeyspaceName,
    /// How many entries it holds.
    pub entries: u64,
    /// The sum of the hashes of its entries.
    pub sum: u64,
}

/// A complete pass of a [`Scrub`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScrubReport {
    /// The applied index that all entries were read at. `None` if the snapshot expired during the pass: all
    /// entries were verified, but not at one index, so that the digests cannot be compared.
    pub revision: Option<Revision>,
    /// The digest of each keyspace, the default one first.
    pub digests: Vec<KeyspaceDigest>,
}

/// The result of one step of a [`Scrub`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScrubStep {
    /// One page of entries was verified.
    Read {
        /// How many entries.
        entries: u64,
        /// How many bytes of keys and values.
        bytes: u64,
    },
    /// The pass is complete. The next step begins another one.
    Done(ScrubReport),
}

/// Verifies everything that a replica holds, one page of at most 2 MiB at each step. It owns no clock and no
/// thread: the caller decides how often to step, which is the limit of the rate.
///
/// A pass reads from one snapshot of the state, held like that of a [`Scan`](crate::Scan). When so much is
/// written during a pass that the snapshot expires, the pass goes on from a newer one.
///
/// ```
/// use x0_kv::State;
/// use x0_kv::verify::{Scrub, ScrubStep};
///
/// let state = State::in_memory();
/// let mut scrub = Scrub::new(state.reader());
/// loop {
///     match scrub.step()? {
///         ScrubStep::Read { bytes, .. } => { /* wait for as long as `bytes` should take */ }
///         ScrubStep::Done(report) => break assert_eq!(report.digests[0].entries, 0),
///         _ => {}
///     }
/// }
/// # Ok::<(), x0_kv::ReadError>(())
/// ```
#[derive(Debug)]
pub struct Scrub {
    reader: Reader,
    /// Keyspaces of the pass that were not begun; `None` between two passes.
    rest: Option<std::vec::IntoIter<KeyspaceName>>,
    current: Option<Current>,
    revisions: Vec<Revision>,
    digests: Vec<KeyspaceDigest>,
}

#[derive(Debug)]
struct Current {
    digest: KeyspaceDigest,
    range: RangeQuery,
    snapshot: Option<SnapshotId>,
}

impl Scrub {
    /// A scrub of what `reader` reads.
    #[must_use]
    pub fn new(reader: Reader) -> Scrub {
        Scrub { reader, rest: None, current: None, revisions: Vec::new(), digests: Vec::new() }
    }

    /// Verifies the next page.
    ///
    /// # Errors
    /// [`ReadError::Engine`] when an entry is damaged or the file cannot be read. The next step begins a new
    /// pass.
    pub fn step(&mut self) -> Result<ScrubStep, ReadError> {
        let rest = self.rest.get_or_insert_with(|| {
            let names = std::iter::once(KeyspaceName::DEFAULT).chain(self.reader.keyspaces());
            names.collect::<Vec<_>>().into_iter()
        });
        let Some(mut current) = self.current.take().or_else(|| rest.next().map(Current::new)) else {
            return Ok(ScrubStep::Done(self.finish()));
        };
        let name = current.digest.keyspace.clone();
        let page = match self.reader.scan(&name, &current.range, current.snapshot) {
            // Too much was written meanwhile: on from the last key, in a newer state.
            Err(ReadError::SnapshotExpired) => self.reader.scan(&name, &current.range, None),
            page => page,
        };
        let ScanPage { page, snapshot } = match page {
            Ok(page) => page,
            // The keyspace was dropped meanwhile, and has no digest.
            Err(ReadError::KeyspaceMissing) => return Ok(ScrubStep::Read { entries: 0, bytes: 0 }),
            Err(error) => {
                self.finish();
                return Err(error);
            }
        };
        self.revisions.push(snapshot.revision);
        self.revisions.dedup();
        let (entries, bytes) = current.add(&page.entries);
        match page.continuation {
            Some(continuation) => {
                current.range = current.range.resume(continuation);
                current.snapshot = Some(snapshot);
                self.current = Some(current);
            }
            None => self.digests.push(current.digest),
        }
        Ok(ScrubStep::Read { entries, bytes })
    }

    fn finish(&mut self) -> ScrubReport {
        (self.rest, self.current) = (None, None);
        let revisions = std::mem::take(&mut self.revisions);
        let revision = if let [revision] = revisions[..] { Some(revision) } else { None };
        ScrubReport { revision, digests: std::mem::take(&mut self.digests) }
    }
}

impl Current {
    fn new(keyspace: KeyspaceName) -> Current {
        let digest = KeyspaceDigest { keyspace, entries: 0, sum: 0 };
        Current { digest, range: RangeQuery::all().limit(RANGE_ENTRIES_MAX), snapshot: None }
    }

    fn add(&mut self, entries: &[KeyValue]) -> (u64, u64) {
        let mut bytes = 0;
        for KeyValue { key, value, revision } in entries {
            bytes += (key.len() + value.len()) as u64;
            let hash = entry_hash(revision.get(), key, value);
            self.digest.sum = self.digest.sum.wrapping_add(hash);
        }
        self.digest.entries += entries.len() as u64;
        (entries.len() as u64, bytes)
    }
}

/// The hash of an entry. A digest is the sum of them, which does not depend on the order of the pages.
pub(crate) fn entry_hash(revision: u64, key: &[u8], value: &[u8]) -> u64 {
    // Two checksums of the entry with different starts make 64 bits of it.
    let part = |start| {
        let head = crc32c::crc32c_append(start, &revision.to_le_bytes());
        crc32c::crc32c_append(crc32c::crc32c_append(head, key), value)
    };
    mixed(u64::from(part(0)) << 32 | u64::from(part(0x9E37_79B9)))
}

/// Spreads the bits of a hash, so that a sum of such hashes does not cancel out: the finalizer of SplitMix64.
fn mixed(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use super::*;
    use crate::request::command::Command;
    use crate::request::operation::Mutation;
    use crate::state::State;

    fn pass(scrub: &mut Scrub) -> ScrubReport {
        loop {
            if let ScrubStep::Done(report) = scrub.step().unwrap() {
                return report;
            }
        }
    }

    fn put(state: &mut State, keyspace: &KeyspaceName, key: String, value: Vec<u8>) {
        let put = Mutation::Put { key: key.into(), value: value.into() };
        let payload = Command::encode_write(None, keyspace, &put);
        state.apply([(state.applied() + 1, Some(&payload))], &mut Vec::new()).unwrap();
    }

    #[test]
    fn replicas_with_the_same_entries_have_the_same_digests() {
        let items = KeyspaceName::new("items").unwrap();
        let (mut left, mut right) = (State::in_memory(), State::in_memory());
        for state in [&mut left, &mut right] {
            let create = Command::encode_write(None, &items, &Mutation::CreateKeyspace);
            state.apply([(1, Some(&create))], &mut Vec::new()).unwrap();
            for number in 0..10_000 {
                let keyspace = if number % 3 == 0 { &items } else { &KeyspaceName::DEFAULT };
                put(state, keyspace, format!("{number}"), vec![b'v'; number % 50]);
            }
        }
        let (mut left_scrub, mut right_scrub) = (Scrub::new(left.reader()), Scrub::new(right.reader()));
        let report = pass(&mut left_scrub);
        assert_eq!(report, pass(&mut right_scrub));
        assert_eq!(report.digests.iter().map(|digest| digest.entries).sum::<u64>(), 10_000);
        assert_eq!(report.digests[1].keyspace, items);
        assert_eq!(report.revision, Some(Revision::new(10_001)));
        // One entry more, and one that differs.
        put(&mut right, &items, "more".into(), Vec::new());
        assert_ne!(report.digests[1], pass(&mut right_scrub).digests[1]);
        put(&mut left, &items, "more".into(), vec![0]);
        assert_ne!(pass(&mut left_scrub).digests[1], pass(&mut right_scrub).digests[1]);
    }

    /// A file that another process has open is not damaged.
    #[cfg(feature = "redb")]
    #[test]
    fn a_redb_file_that_is_open_elsewhere_is_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::redb(&folder.path().join("data.redb"), crate::RedbOptions::default()).unwrap();
        let found = verify_folder(folder.path(), |_| {});
        assert!(matches!(found, Err(VerifyError::InUse { .. })), "{found:?}");
        drop(state);
        assert!(verify_folder(folder.path(), |_| {}).unwrap().is_intact());
    }

    #[test]
    fn a_pass_goes_on_when_its_snapshot_expires() {
        let mut state = State::in_memory();
        for number in 0..3 * RANGE_ENTRIES_MAX {
            put(&mut state, &KeyspaceName::DEFAULT, format!("{number:06}"), Vec::new());
        }
        let mut scrub = Scrub::new(state.reader());
        assert!(matches!(scrub.step().unwrap(), ScrubStep::Read { entries: 4096, .. }));
        for _ in 0..66 {
            put(&mut state, &KeyspaceName::DEFAULT, "000000".into(), vec![0; 1 << 20]);
        }
        let report = pass(&mut scrub);
        assert_eq!(report.revision, None);
        assert_eq!(report.digests[0].entries, u64::from(3 * RANGE_ENTRIES_MAX));
    }
}
