//! The disk without a system on it.

use std::path::PathBuf;

use anyhow::Result;

use crate::disk::{Disk, Fsync};
use crate::table::number;

/// Times of small synced writes in a folder.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Folder to measure in; on a disk, not in memory
    #[arg(long, default_value = "/var/tmp")]
    folder: PathBuf,
    /// Writes to make
    #[arg(long, default_value_t = 2000)]
    count: usize,
}

/// Prints the disk's percentiles.
pub(crate) fn run(options: &Options) -> Result<()> {
    let times = Disk::new(&options.folder)?.probe(options.count)?;
    if let Some(fsync) = Fsync::of(times) {
        let (p50, p99) = (number(fsync.p50_ms), number(fsync.p99_ms));
        println!(
            "{}: 4 KiB and fdatasync, {} times: p50 {p50} ms, p99 {p99} ms",
            options.folder.display(),
            options.count
        );
    }
    Ok(())
}
