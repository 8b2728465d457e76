//! A full disk.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, Result};

/// The file that fills a disk.
const BALLAST: &str = "ballast";

/// Fills the disk to the last byte.
pub(crate) fn fill(folder: &Path) -> Result<()> {
    let mut file = File::options().create(true).append(true).open(folder.join(BALLAST))?;
    for len in [1 << 20, 4 << 10, 1] {
        let block = vec![0xa5; len];
        loop {
            match file.write_all(&block) {
                Ok(()) => {}
                Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::WriteZero) => break,
                Err(error) => return Err(error).context("cannot fill a disk"),
            }
        }
    }
    Ok(())
}

/// Gives the room back.
pub(crate) fn release(folder: &Path) -> Result<()> {
    match fs::remove_file(folder.join(BALLAST)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).context("cannot remove the ballast"),
        _ => Ok(()),
    }
}
