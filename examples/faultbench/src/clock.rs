//! The wall clock of a process, shifted by libfaketime while its monotonic clock goes on.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

/// The library, by architecture.
const LIBRARIES: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
];

/// Lets a process and its children take the shift of their wall clock from a file, which [`set`] writes.
pub(crate) fn shift(command: &mut Command, file: &Path) -> Result<()> {
    let library = LIBRARIES.into_iter().find(|library| Path::new(library).exists());
    set(file, 0)?;
    command.env("LD_PRELOAD", library.context("libfaketime is not installed")?);
    command.env("FAKETIME_TIMESTAMP_FILE", file);
    command.env("FAKETIME_CACHE_DURATION", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    Ok(())
}

/// Shifts the wall clock by so many seconds.
pub(crate) fn set(file: &Path, seconds: i64) -> Result<()> {
    std::fs::write(file, format!("{seconds:+}\n")).context("cannot write the clock of a node")
}
