//! The records of the healer on disk: two files of bounded size.
//!
//! A record is its length (4 bytes, little-endian) and its canonical bytes. When the newer file is full it
//! replaces the older one. A torn end, after a crash, ends the file. A thread of its own writes: the disk may
//! be the one that is slow.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use x0_mapek::Record;

use super::pause::{self, Paused};

use crate::log::Log;

/// The length of a file from which on it is full.
const FILE_LEN_MAX: u64 = 256 << 10;
/// The longest record: all of its texts are bounded by `x0_mapek`.
const RECORD_LEN_MAX: usize = 16 << 10;
/// The records that wait for the disk.
const WAITING_MAX: usize = 256;

fn newer(folder: &Path) -> PathBuf {
    folder.join("records")
}

fn older(folder: &Path) -> PathBuf {
    folder.join("records.old")
}

/// What is to be written.
enum Job {
    /// A record, as its canonical bytes.
    Record(Vec<u8>),
    /// The pause that an operator ordered, or none.
    Pause(Option<Paused>),
}

/// The way to the thread that writes.
pub(super) struct Records(SyncSender<Job>);

impl Records {
    pub(super) fn start(folder: &Path, log: &Log) -> io::Result<Records> {
        let (sender, receiver) = sync_channel(WAITING_MAX);
        let (folder, log) = (folder.to_owned(), log.clone());
        let write = move || {
            if let Err(error) = write_all(&folder, &receiver) {
                log.event("heal-records-failed", format!("folder={} why={error}", folder.display()));
            }
        };
        std::thread::Builder::new().name("heal".into()).spawn(write)?;
        Ok(Records(sender))
    }

    /// Queues a record. It is dropped if the disk does not keep up; the log has its first line.
    pub(super) fn keep(&self, record: &Record) {
        let _ = self.0.try_send(Job::Record(record.to_bytes()));
    }

    /// Queues a pause, or its end. A restart forgets what a disk did not take in time.
    pub(super) fn pause(&self, paused: Option<Paused>) {
        let _ = self.0.try_send(Job::Pause(paused));
    }
}

/// Writes until the healer ends, or the disk fails.
fn write_all(folder: &Path, jobs: &Receiver<Job>) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    // A torn record at the end would hide all after it: what is read is written again.
    let kept = read_file(&newer(folder))?;
    let mut file = create(&newer(folder))?;
    let mut len = 0;
    for record in kept {
        len += append(&mut file, &record.to_bytes())?;
    }
    while let Ok(job) = jobs.recv() {
        let bytes = match job {
            Job::Record(bytes) => bytes,
            Job::Pause(paused) => {
                pause::write(folder, paused.as_ref())?;
                continue;
            }
        };
        if len >= FILE_LEN_MAX {
            fs::rename(newer(folder), older(folder))?;
            (file, len) = (create(&newer(folder))?, 0);
        }
        len += append(&mut file, &bytes)?;
    }
    Ok(())
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).write(true).truncate(true).open(path)
}

fn append(file: &mut File, bytes: &[u8]) -> io::Result<u64> {
    let len = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    let mut framed = len.to_le_bytes().to_vec();
    framed.extend_from_slice(bytes);
    file.write_all(&framed)?;
    Ok(framed.len() as u64)
}

/// The records that are kept in `folder`, the oldest first.
pub(super) fn read(folder: &Path) -> io::Result<Vec<Record>> {
    let mut records = read_file(&older(folder))?;
    records.extend(read_file(&newer(folder))?);
    Ok(records)
}

fn read_file(path: &Path) -> io::Result<Vec<Record>> {
    let mut bytes = Vec::new();
    match File::open(path) {
        // Not more than a file can have, whatever it has.
        Ok(file) => file.take(FILE_LEN_MAX + RECORD_LEN_MAX as u64).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut records = Vec::new();
    let mut rest = bytes.as_slice();
    while let Some((len, after)) = rest.split_first_chunk() {
        let len = usize::try_from(u32::from_le_bytes(*len)).unwrap_or(usize::MAX);
        let Some((record, after)) = (len <= RECORD_LEN_MAX).then(|| after.split_at_checked(len)).flatten()
        else {
            break;
        };
        let Ok(record) = Record::from_bytes(record) else { break };
        records.push(record);
        rest = after;
    }
    Ok(records)
}

/// Writes records as the thread does.
#[cfg(test)]
pub(super) fn write_for_test(folder: &Path, records: impl IntoIterator<Item = Record>) {
    let records: Vec<_> = records.into_iter().collect();
    let (sender, receiver) = sync_channel(records.len().max(1));
    for record in records {
        sender.send(Job::Record(record.to_bytes())).unwrap();
    }
    drop(sender);
    write_all(folder, &receiver).unwrap();
}
