//! The data folder of a node: whose it is, which incarnation speaks from it, and whether it is a copy.
//!
//! | file | content |
//! |---|---|
//! | `identity` | the id of the node, as text |
//! | `acknowledged` | the highest index that each other member was seen to have acknowledged |
//! | `log/origin` | the fingerprints of the log's folder and files, and the incarnation |
//! | `crdt/origin` | the same of the CRDT journal |
//!
//! # Design
//! The id of the cluster and the registered incarnation of each member are part of the replicated membership
//! ([`Membership`](x0_consensus::Membership)), which the log holds. The incarnation of this node belongs to
//! the log and is lost with it, so that an emptied `log` folder cannot speak for its old self, whatever else
//! is left. The rules by which a node votes, returns and is registered are those of
//! [`Replica`](x0_consensus::Replica#incarnations), which does no I/O; this module only opens files.
//!
//! - An **emptied** folder gets a new incarnation. The node returns by itself, without a vote until the
//!   others have brought it up to date.
//! - A **copied** folder is refused at the start. [`DataFolder::adopt`] accepts it: under a new incarnation,
//!   which is always safe, or under its present one if its caller vouches that nothing is missing.
//! - The **CRDT journal** of a copied folder gets a new incarnation by itself: writes that it lacks come back
//!   from the members, and new writes do not reuse event numbers.
//! - A **disk that was rolled back as a whole** has the fingerprints of its original. It is detected by
//!   members that saw, as a leader, a higher index acknowledged than the log holds. They keep these indexes
//!   in `acknowledged`, written at most once a second and without a synchronisation: the last second before a
//!   power failure may be missing from it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use x0_consensus::{Acknowledged, RecoverError, Storage, Wal, WalOptions, WriteError};
use x0_identity::NodeId;

use super::error::StartError;
use super::services::consensus::ReplicaStatus;
use crate::seed::random_seed;

const IDENTITY: &str = "identity";
const IDENTITY_HEAD: &str = "x0-kv data folder, format 1";
const ACKNOWLEDGED: &str = "acknowledged";
/// The longest file that is read, in bytes.
const FILE_LEN_MAX: u64 = 1 << 16;
/// How often `acknowledged` is written, at most.
const KEEP_EVERY: Duration = Duration::from_secs(1);

/// The data folder of a node that does not run, for a tool that inspects or adopts it.
#[derive(Debug)]
pub struct DataFolder {
    log: Wal,
    last_index: u64,
}

/// The incarnation under which a copied folder is adopted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Adoption {
    /// A new one: the node returns without a vote until the others have brought it up to date. Always safe.
    New,
    /// The present one: the node votes at once. Safe only if the copy has everything that the node has
    /// acknowledged, because the node did not run since the copy was made. If not, acknowledged writes may be
    /// lost.
    Present,
}

impl DataFolder {
    /// Opens the folder of a node and locks its log. A copy is opened, too.
    ///
    /// # Errors
    /// [`StartError::Folder`] if there is no such folder, [`StartError::Foreign`] if it is another node's,
    /// and [`StartError::Log`] if the log is damaged or in use.
    pub fn open(path: impl Into<PathBuf>, node: NodeId) -> Result<DataFolder, StartError> {
        let path = path.into();
        if !path.join("log").is_dir() {
            return Err(StartError::Folder { path, source: io::ErrorKind::NotFound.into() });
        }
        check_identity(&path, node)?;
        let options = WalOptions::default().accepts_copy(true).incarnation(new_incarnation());
        let mut log = Wal::open_path(path.join("log"), options).map_err(x0_consensus::OpenError::from)?;
        let last_index = log.recover().map_err(x0_consensus::OpenError::from)?.last_index;
        Ok(DataFolder { log, last_index })
    }

    /// The part of the log that is a copy; `None` if the folder is the one that the log was written in.
    #[must_use]
    pub fn is_copy(&self) -> Option<&'static str> {
        self.log.is_copy()
    }

    /// The last index of the log.
    #[must_use]
    pub fn last_index(&self) -> u64 {
        self.last_index
    }

    /// Makes the copy the original, durably.
    ///
    /// # Errors
    /// [`WriteError::Io`]. The folder is adopted, or it is refused as before.
    pub fn adopt(&mut self, adoption: Adoption) -> Result<(), WriteError> {
        let incarnation = match adoption {
            Adoption::New => new_incarnation(),
            Adoption::Present => self.log.incarnation(),
        };
        self.log.adopt(incarnation)
    }
}

/// A number that no earlier folder had.
pub(super) fn new_incarnation() -> u64 {
    random_seed().max(1)
}

/// Opens the log of a node, whose folder exists.
pub(super) fn open_log(path: &Path, node: NodeId, options: WalOptions) -> Result<Wal, StartError> {
    check_identity(path, node)?;
    let log = Wal::open_path(path.join("log"), options.incarnation(new_incarnation()));
    let log = log.map_err(x0_consensus::OpenError::from)?;
    // After the log is locked: another process that starts in this folder does not get here.
    write_identity(path, node).map_err(|source| StartError::Folder { path: path.into(), source })?;
    Ok(log)
}

fn read(path: &Path, name: &str) -> io::Result<Option<String>> {
    use std::io::Read;
    let file = match std::fs::File::open(path.join(name)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = String::new();
    file.take(FILE_LEN_MAX).read_to_string(&mut text)?;
    Ok(Some(text))
}

/// Refuses the folder of another node.
fn check_identity(path: &Path, node: NodeId) -> Result<(), StartError> {
    let read = read(path, IDENTITY);
    let text = read.map_err(|source| StartError::Folder { path: path.into(), source })?;
    let Some(text) = text else { return Ok(()) };
    let mut lines = text.lines();
    let found = match (lines.next(), lines.next()) {
        (Some(IDENTITY_HEAD), Some(line)) => line.strip_prefix("node ").and_then(|id| id.parse().ok()),
        _ => None,
    };
    match found {
        Some(found) if found == node => Ok(()),
        found => Err(StartError::Foreign { path: path.into(), found, node }),
    }
}

fn write_identity(path: &Path, node: NodeId) -> io::Result<()> {
    if path.join(IDENTITY).exists() {
        return Ok(());
    }
    replace(path, IDENTITY, &format!("{IDENTITY_HEAD}\nnode {node}\n"))
}

/// Replaces a file by one with this text; a crash leaves the old or the new one.
fn replace(path: &Path, name: &str, text: &str) -> io::Result<()> {
    use std::io::Write;
    let partial = path.join(format!("{name}.partial"));
    let mut file = std::fs::File::create(&partial)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(partial, path.join(name))
}

/// Reads what this node knew of the other members. A damaged file is ignored: it only helps to detect the
/// faults of others.
pub(super) fn read_acknowledged(path: &Path) -> BTreeMap<NodeId, Acknowledged> {
    let text = read(path, ACKNOWLEDGED).ok().flatten().unwrap_or_default();
    let entry = |line: &str| {
        let mut fields = line.split(' ');
        let node = fields.next()?.parse().ok()?;
        let incarnation = u64::from_str_radix(fields.next()?, 16).ok()?;
        Some((node, Acknowledged::new(incarnation, fields.next()?.parse().ok()?)))
    };
    text.lines().filter_map(entry).collect()
}

fn write_acknowledged(path: &Path, acknowledged: &BTreeMap<NodeId, Acknowledged>) -> io::Result<()> {
    let mut text = String::new();
    for (node, Acknowledged { incarnation, index, .. }) in acknowledged {
        text.push_str(&format!("{node} {incarnation:x} {index}\n"));
    }
    let partial = path.join(format!("{ACKNOWLEDGED}.partial"));
    std::fs::write(&partial, text)?;
    std::fs::rename(partial, path.join(ACKNOWLEDGED))
}

/// Keeps what the replica knows of the other members until the node ends.
pub(super) async fn keep_acknowledged(
    path: PathBuf,
    replica: ReplicaStatus,
    ended: impl Future<Output = ()>,
) {
    let mut ended = std::pin::pin!(ended);
    let mut kept = BTreeMap::new();
    loop {
        let is_ended = tokio::time::timeout(KEEP_EVERY, &mut ended).await.is_ok();
        let known = replica.get().acknowledged;
        if known != kept {
            kept.clone_from(&known);
            let path = path.clone();
            // A failure only leaves an older file.
            let _ = tokio::task::spawn_blocking(move || write_acknowledged(&path, &known)).await;
        }
        if is_ended {
            return;
        }
    }
}

/// Whether the node was refused because its folder is a copy.
pub(super) fn is_copy(error: &x0_consensus::OpenError) -> bool {
    matches!(error, x0_consensus::OpenError::Recover(RecoverError::Copied { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> NodeId {
        NodeId::new(number).unwrap()
    }

    #[test]
    fn a_folder_belongs_to_one_node() {
        let folder = tempfile::tempdir().unwrap();
        let first = open_log(folder.path(), id(1), WalOptions::default()).unwrap();
        let incarnation = first.incarnation();
        assert_ne!(incarnation, 0);
        drop(first);
        let error = open_log(folder.path(), id(2), WalOptions::default()).unwrap_err();
        assert!(error.to_string().contains("node 0000000000000001"), "{error}");
        assert!(DataFolder::open(folder.path(), id(2)).is_err());
        let again = open_log(folder.path(), id(1), WalOptions::default()).unwrap();
        assert_eq!(again.incarnation(), incarnation);
        drop(again);
        // An emptied log is another incarnation, whatever else is left in the folder.
        std::fs::remove_dir_all(folder.path().join("log")).unwrap();
        let emptied = open_log(folder.path(), id(1), WalOptions::default()).unwrap();
        assert_ne!(emptied.incarnation(), incarnation);
        std::fs::write(folder.path().join(IDENTITY), "something else").unwrap();
        assert!(matches!(check_identity(folder.path(), id(1)), Err(StartError::Foreign { found: None, .. })));
    }

    #[test]
    fn a_copy_is_refused_and_adopted_under_either_incarnation() {
        for (adoption, is_kept) in [(Adoption::New, false), (Adoption::Present, true)] {
            let folder = tempfile::tempdir().unwrap();
            let (from, to) = (folder.path().join("from"), folder.path().join("to"));
            std::fs::create_dir_all(&from).unwrap();
            let incarnation = open_log(&from, id(1), WalOptions::default()).unwrap().incarnation();
            std::fs::create_dir_all(to.join("log")).unwrap();
            for name in ["identity", "log/origin", "log/manifest", "log/0000000000000001.wal"] {
                std::fs::copy(from.join(name), to.join(name)).unwrap();
            }
            let error = open_log(&to, id(1), WalOptions::default()).unwrap_err();
            assert!(error.is_copy(), "{error}");
            let mut copy = DataFolder::open(&to, id(1)).unwrap();
            assert_eq!((copy.is_copy().is_some(), copy.last_index()), (true, 0));
            copy.adopt(adoption).unwrap();
            drop(copy);
            let adopted = open_log(&to, id(1), WalOptions::default()).unwrap();
            assert_eq!(adopted.incarnation() == incarnation, is_kept);
            assert_eq!(DataFolder::open(&from, id(1)).unwrap().is_copy(), None);
        }
        let error = DataFolder::open("/no/such/folder", id(1)).unwrap_err();
        assert!(error.to_string().contains("/no/such/folder") && !error.is_copy(), "{error}");
    }

    #[test]
    fn the_knowledge_of_others_survives_and_damage_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read_acknowledged(folder.path()).is_empty());
        let known =
            BTreeMap::from([(id(2), Acknowledged::new(u64::MAX, 7)), (id(3), Acknowledged::new(1, 0))]);
        write_acknowledged(folder.path(), &known).unwrap();
        assert_eq!(read_acknowledged(folder.path()), known);
        std::fs::write(folder.path().join(ACKNOWLEDGED), b"\xff\x00 1 2\nx y z\n").unwrap();
        assert!(read_acknowledged(folder.path()).is_empty());
    }
}
