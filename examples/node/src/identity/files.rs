//! Notices changes of the files of an identity.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;

/// How often the files are looked at.
const EVERY: Duration = Duration::from_secs(2);

/// What tells two versions of the files apart, whatever writes them: a new file has another inode or time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamps(Vec<Option<(u64, u64, SystemTime)>>);

impl Stamps {
    pub(super) fn of(files: &[PathBuf]) -> Stamps {
        Stamps(files.iter().map(|file| stamp(file)).collect())
    }
}

fn stamp(file: &Path) -> Option<(u64, u64, SystemTime)> {
    let metadata = std::fs::metadata(file).ok()?;
    #[cfg(unix)]
    let inode = std::os::unix::fs::MetadataExt::ino(&metadata);
    #[cfg(not(unix))]
    let inode = 0;
    Some((inode, metadata.len(), metadata.modified().ok()?))
}

/// Notices changes of some files. A thread that ends with the process looks at them.
#[derive(Debug)]
pub(crate) struct Files {
    changes: mpsc::Receiver<()>,
}

impl Files {
    /// Watches these files from now on.
    pub(crate) fn watch(files: Vec<PathBuf>) -> std::io::Result<Files> {
        let (sender, changes) = mpsc::channel(1);
        let mut before = Stamps::of(&files);
        let look = move || {
            loop {
                std::thread::sleep(EVERY);
                let now = Stamps::of(&files);
                if now == before {
                    continue;
                }
                before = now;
                // A change that waits to be taken covers this one.
                if let Err(mpsc::error::TrySendError::Closed(())) = sender.try_send(()) {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("identity-files".into()).spawn(look)?;
        Ok(Files { changes })
    }

    /// Waits for the next change.
    pub(crate) async fn changed(&mut self) {
        if self.changes.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_file_of_the_same_length_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        std::fs::write(&one, "a").unwrap();
        let files = [one.clone(), two.clone()];
        let first = Stamps::of(&files);
        assert_eq!(first, Stamps::of(&files));
        std::fs::write(&two, "b").unwrap();
        let second = Stamps::of(&files);
        assert_ne!(first, second);
        std::fs::rename(&two, &one).unwrap();
        assert_ne!(second.0[0], Stamps::of(&files).0[0]);
    }
}
