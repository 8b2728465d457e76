//! The secret by which peers and clients of a node learn at once that it has restarted.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use x0_consensus::FsDirectory;
use x0_mesh::quic::ResetKey;

use crate::causes::causes;
use crate::init::write_secret;
use crate::log::Log;

/// The file in the data folder.
const FILE: &str = "reset.key";

/// The key of the data folder, which is made at the first start. A node that can neither read nor write it
/// works without: its clients notice a restart after their idle timeout.
pub(crate) fn key(data_dir: &Path, log: &Log) -> Option<ResetKey> {
    let path = data_dir.join(FILE);
    match read_or_make(&path) {
        Ok(key) => Some(key),
        Err(error) => {
            let path = path.display();
            let why = format!("path={path} why={}; clients notice a restart after 2 s", causes(&error));
            log.event("reset-key-missing", why);
            None
        }
    }
}

fn read_or_make(path: &Path) -> Result<ResetKey> {
    match read(path) {
        Ok(Some(key)) => return Ok(key),
        // Of another length: it was damaged, and no connection depends on it.
        Ok(None) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(anyhow!(error).context("cannot read it")),
    }
    // Durably, as the log does it: a folder that exists already is not made durable again.
    let folder = path.parent().context("the key has no folder")?;
    FsDirectory::open(folder).with_context(|| format!("cannot open {}", folder.display()))?;
    let mut secret = [0; ResetKey::LEN];
    getrandom::fill(&mut secret).context("cannot read random bytes from the operating system")?;
    write_secret(path, &secret)?;
    Ok(ResetKey::new(secret))
}

/// `None` if the file has another length.
fn read(path: &Path) -> std::io::Result<Option<ResetKey>> {
    use std::io::Read as _;
    let mut secret = Vec::new();
    // One byte more than a key has shows that the file is longer.
    std::fs::File::open(path)?.take(ResetKey::LEN as u64 + 1).read_to_end(&mut secret)?;
    Ok(<[u8; ResetKey::LEN]>::try_from(secret).ok().map(ResetKey::new))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::record::Format;

    #[test]
    fn a_data_folder_keeps_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::start("test", Format::Text).unwrap();
        let data_dir = folder.path().join("data");
        let first = key(&data_dir, &log).unwrap();
        assert_eq!(key(&data_dir, &log), Some(first.clone()));
        let other = key(&folder.path().join("other"), &log).unwrap();
        assert!(first != other, "each folder has its own");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(data_dir.join(FILE)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_damaged_key_is_replaced_and_a_folder_without_room_has_none() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::start("test", Format::Text).unwrap();
        for damaged in [&[1; 31][..], &[1; 33], &[]] {
            std::fs::write(folder.path().join(FILE), damaged).unwrap();
            assert!(key(folder.path(), &log).is_some());
            assert_eq!(std::fs::read(folder.path().join(FILE)).unwrap().len(), ResetKey::LEN);
        }
        let file = folder.path().join("file");
        std::fs::write(&file, b"no folder").unwrap();
        assert_eq!(key(&file, &log), None);
    }
}
