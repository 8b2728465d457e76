//! Opens the files of a node, and sets those aside that are damaged beyond the repair of ranges.
//!
//! | folder | content |
//! |---|---|
//! | `damaged-1`, `damaged-2`, ... | `log` and `data.redb` as they were set aside, for the operator |
//!
//! # Design
//! The scrub repairs entries and ranges of a file that can be read. A damaged page of `data.redb` can hide
//! any number of keys, and the log alone cannot replace the file, because a checkpoint shortens it. With
//! [`NodeOptions::repair`](super::NodeOptions::repair) the node then starts with empty files, and the other
//! members bring it up to date.
//!
//! - The log goes with the data. It counts what this member has acknowledged, so that it must not speak for a
//!   member without the data. The new log has a **new incarnation**: by the rules of
//!   [`Replica`](x0_consensus::Replica#incarnations) it neither votes nor acknowledges until a majority of
//!   the voters, without this member, has registered it. If more than a minority sets its files aside, no
//!   such majority exists: the cluster refuses service, and no acknowledged write is lost. The intact parts
//!   of the files are kept.
//! - A node that has set files aside **never founds** a cluster, so that founders that are all damaged do not
//!   become a new, empty cluster.
//! - The files of a member that may be the **only voter** stay where they are: nobody else has its data.

use std::io;
use std::path::{Path, PathBuf};

use x0_consensus::{Membership, Storage, Wal};
use x0_identity::NodeId;

use super::error::StartError;
use super::options::NodeOptions;
use super::{NodeEvent, folder};
use crate::space::Space;
use crate::state::State;
use crate::state::storage::EngineError;
use crate::telemetry::FolderTelemetry;

/// The files that speak for the member, in the order in which they are moved: a crash in between leaves the
/// damaged data with an empty log, and the next start goes on.
const FILES: [&str; 2] = ["log", "data.redb"];
/// How often files are set aside. A disk that damages them again and again has to be replaced.
const SET_ASIDE_MAX: u32 = 4;

/// Opens the log and the data of a node, whose folder exists. Returns also how often files of the folder were
/// set aside.
pub(super) fn open(options: &mut NodeOptions, space: &Space) -> Result<(Wal, State, u32), StartError> {
    let (path, id) = (options.folder.clone(), options.consensus.id);
    // Also without a damage: the series is there from the start.
    let telemetry = FolderTelemetry::new();
    let mut log = folder::open_log(&path, id, options.log)?;
    let state = match options.engine.state(&path, Some(space)) {
        Err(error) if options.repair && error.is_file_damaged() => {
            let (to, damage) = set_aside(&path, id, log, error)?;
            log = folder::open_log(&path, id, options.log)?;
            telemetry.set_aside();
            if let Some(observe) = &mut options.observe {
                observe(NodeEvent::SetAside { to, damage });
            }
            options.engine.state(&path, Some(space))?
        }
        state => state?,
    };
    let count = set_aside_count(&path);
    if count > 0 {
        options.consensus.bootstrap = Membership::default();
    }
    Ok((log, state, count))
}

/// Moves the files aside. Returns where they are, and the damage.
fn set_aside(
    path: &Path,
    id: NodeId,
    mut log: Wal,
    error: EngineError,
) -> Result<(PathBuf, String), StartError> {
    let count = set_aside_count(path);
    let recovered = log.recover().map_err(x0_consensus::OpenError::from)?;
    // An empty log is what a crash between the two moves leaves, or an emptied folder: the data beside it
    // speaks for nobody.
    let is_left = recovered.is_new() && count > 0;
    if count >= SET_ASIDE_MAX || (recovered.may_be_only_voter(id) && !is_left) {
        return Err(error.into());
    }
    // The lock of the log is held in the folder that moves.
    drop(log);
    let to = path.join(format!("damaged-{}", count + 1));
    move_files(path, &to).map_err(|source| StartError::Folder { path: to.clone(), source })?;
    let damage = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
    let damage = damage.map(ToString::to_string).collect::<Vec<_>>().join(": ");
    Ok((to, damage))
}

fn move_files(path: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir(to)?;
    sync_folder(path)?;
    for name in FILES {
        match std::fs::rename(path.join(name), to.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            moved => moved?,
        }
        // A power failure must leave what a crash leaves: the first files moved, and not any of them.
        sync_folder(to)?;
        sync_folder(path)?;
    }
    Ok(())
}

/// Makes the names in a folder durable.
fn sync_folder(path: &Path) -> io::Result<()> {
    // Elsewhere a folder cannot be opened, and the file system orders the changes of names.
    if cfg!(unix) { std::fs::File::open(path)?.sync_all() } else { Ok(()) }
}

fn set_aside_count(path: &Path) -> u32 {
    let exists = |number: &u32| path.join(format!("damaged-{number}")).exists();
    (1..=SET_ASIDE_MAX).take_while(exists).last().unwrap_or(0)
}

#[cfg(all(test, unix, feature = "redb"))]
#[allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::sync::{Arc, Mutex};

    use x0_consensus::{LogBase, Write};

    use super::*;
    use crate::RedbOptions;
    use crate::space::SpaceOptions;
    use crate::state::engine::Engine;

    fn id(number: u64) -> NodeId {
        NodeId::new(number).unwrap()
    }

    fn options(path: &Path, repair: bool) -> NodeOptions {
        let engine = Engine::Redb(RedbOptions::default());
        NodeOptions::new(id(1), path).founders([1, 2, 3].map(id)).engine(engine).repair(repair)
    }

    fn open_once(options: &mut NodeOptions) -> Result<u64, StartError> {
        open(options, &Space::new(SpaceOptions::default())).map(|(log, ..)| log.incarnation())
    }

    /// A folder of a member of these voters.
    fn folder(voters: &[u64]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, ..) = open(&mut options(folder.path(), false), &Space::default()).unwrap();
        let membership = Membership::of_voters(voters.iter().copied().map(id));
        let base = LogBase { index: 0, term: 0, membership };
        log.write(&[Write { base: Some(base), ..Write::default() }]).unwrap();
        folder
    }

    /// Damages each page but the first.
    fn damage(path: &Path) {
        let file = std::fs::OpenOptions::new().write(true).open(path.join("data.redb")).unwrap();
        for page in 1..file.metadata().unwrap().len() / 4096 {
            file.write_all_at(b"damaged", page * 4096 + 8).unwrap();
        }
    }

    #[test]
    fn damaged_files_are_set_aside_if_the_options_say_so() {
        let folder = folder(&[1, 2, 3]);
        let path = folder.path();
        let incarnation = open_once(&mut options(path, true)).unwrap();
        assert_eq!(set_aside_count(path), 0, "nothing is damaged");
        damage(path);
        let error = open_once(&mut options(path, false)).unwrap_err();
        assert!(matches!(&error, StartError::Engine(error) if error.is_file_damaged()), "{error:?}");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let events = Arc::clone(&seen);
        let mut repairing = options(path, true).observe(move |event| events.lock().unwrap().push(event));
        let fresh = open_once(&mut repairing).unwrap();
        assert_ne!(fresh, incarnation, "another incarnation");
        assert!(repairing.consensus.bootstrap.is_empty(), "it founds no cluster");
        let to = path.join("damaged-1");
        assert!(to.join("log").is_dir() && to.join("data.redb").is_file());
        match &seen.lock().unwrap()[..] {
            [NodeEvent::SetAside { to: named, damage }] => {
                assert!(*named == to && damage.contains("data.redb"), "{damage}");
            }
            seen => panic!("{seen:?}"),
        }
        // Nor does it at later starts, whatever the options say.
        let mut later = options(path, false);
        assert_eq!(open_once(&mut later).unwrap(), fresh);
        assert!(later.consensus.bootstrap.is_empty());
    }

    #[test]
    fn a_crash_between_the_moves_is_completed_by_the_next_start() {
        let folder = folder(&[1, 2, 3]);
        let path = folder.path();
        damage(path);
        std::fs::create_dir(path.join("damaged-1")).unwrap();
        std::fs::rename(path.join("log"), path.join("damaged-1/log")).unwrap();
        open_once(&mut options(path, true)).unwrap();
        assert!(path.join("damaged-2/data.redb").is_file());
    }

    #[test]
    fn the_files_of_an_only_voter_and_of_a_failing_disk_stay() {
        let alone = folder(&[1]);
        damage(alone.path());
        open_once(&mut options(alone.path(), true)).unwrap_err();
        assert_eq!(set_aside_count(alone.path()), 0);
        let failing = folder(&[1, 2, 3]);
        damage(failing.path());
        for number in 1..=SET_ASIDE_MAX {
            std::fs::create_dir(failing.path().join(format!("damaged-{number}"))).unwrap();
        }
        open_once(&mut options(failing.path(), true)).unwrap_err();
        assert!(failing.path().join("data.redb").is_file());
    }
}
