//! The records of the healer on disk: two files of bounded size.
//!
//! A record is its length (4 bytes, little-endian) and its canonical bytes. When the newer file is full it
//! replaces the older one. A torn end, after a crash, ends the file. A thread of its own writes: the disk may
//! be the one that is slow.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use x0_mapek::Record;

use super::pause::{self, Paused};
use crate::log::Log;

/// The length of a file from which on it is full.
const FILE_LEN_MAX: u64 = 256 << 10;
/// The longest record: all of its texts are bounded by `x0_mapek`.
const RECORD_LEN_MAX: usize = 16 << 10;
/// The time after which a pause that the disk did not take is written again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
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
        let (mut writer, folder, log) = (Writer::new(folder), folder.to_owned(), log.clone());
        let write = move || {
            writer.run(&receiver, |written| match written {
                Err(error) => {
                    log.event("heal-records-failed", format!("folder={} why={error}", folder.display()));
                }
                Ok(()) => log.event("heal-records-resumed", format!("folder={}", folder.display())),
            });
        };
        std::thread::Builder::new().name("heal".into()).spawn(write)?;
        Ok(Records(sender))
    }

    /// Queues a record. It is dropped if the disk does not keep up; the log has its first line.
    pub(super) fn keep(&self, record: &Record) {
        let _ = self.0.try_send(Job::Record(record.to_bytes()));
    }

    /// Queues a pause, or its end. A node that ends before the disk takes it forgets it.
    pub(super) fn pause(&self, paused: Option<Paused>) {
        let _ = self.0.try_send(Job::Pause(paused));
    }
}

/// Writes to a folder whose disk may fail for a while.
struct Writer {
    folder: PathBuf,
    /// The newer file and its length. `None` before the first write, and after one that failed: then the end
    /// of the file may be torn.
    file: Option<(File, u64)>,
    /// The pause that is to be kept, if it is not on the disk yet.
    unsaved: Option<Option<Paused>>,
}

impl Writer {
    fn new(folder: &Path) -> Writer {
        Writer { folder: folder.to_owned(), file: None, unsaved: None }
    }

    /// Writes until the healer ends. Reports the first of several failures, and the success after them. A
    /// record that cannot be written is lost; a pause is written again until it is on the disk.
    fn run(&mut self, jobs: &Receiver<Job>, mut report: impl FnMut(io::Result<()>)) {
        // Earlier records are there before the first of this run, and a folder that cannot be used is
        // reported at the start.
        let mut is_failing = false;
        let mut written = self.open().map(drop);
        loop {
            match (written, is_failing) {
                (Err(error), false) => {
                    is_failing = true;
                    report(Err(error));
                }
                (Ok(()), true) => {
                    is_failing = false;
                    report(Ok(()));
                }
                _ => {}
            }
            let job = match &self.unsaved {
                None => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(_) => jobs.recv_timeout(RETRY_AFTER),
            };
            written = match job {
                Ok(Job::Record(bytes)) => self.record(&bytes),
                Ok(Job::Pause(paused)) => {
                    self.unsaved = Some(paused);
                    self.pause()
                }
                Err(RecvTimeoutError::Timeout) => self.pause(),
                Err(RecvTimeoutError::Disconnected) => return,
            };
        }
    }

    fn pause(&mut self) -> io::Result<()> {
        if let Some(paused) = &self.unsaved {
            fs::create_dir_all(&self.folder)?;
            pause::write(&self.folder, paused.as_ref())?;
            self.unsaved = None;
        }
        Ok(())
    }

    fn record(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = self.append(bytes);
        if written.is_err() {
            self.file = None;
        }
        written
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.open()?.1 >= FILE_LEN_MAX {
            fs::rename(newer(&self.folder), older(&self.folder))?;
            self.file = None;
        }
        let (file, len) = self.open()?;
        *len += append(file, bytes)?;
        Ok(())
    }

    /// The newer file, to append to.
    fn open(&mut self) -> io::Result<&mut (File, u64)> {
        if let Some(file) = self.file.take() {
            return Ok(self.file.insert(file));
        }
        fs::create_dir_all(&self.folder)?;
        // A torn record at the end would hide all after it: what can be read is written again, into a file
        // of its own, so that a disk that is full loses nothing.
        let kept = read_file(&newer(&self.folder))?;
        let path = newer(&self.folder).with_extension("new");
        let mut file = File::create(&path)?;
        let mut len = 0;
        for record in kept {
            len += append(&mut file, &record.to_bytes())?;
        }
        fs::rename(&path, newer(&self.folder))?;
        Ok(self.file.insert((file, len)))
    }
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
    Writer::new(folder).run(&receiver, |written| written.unwrap());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk that fails for a while: what is ordered meanwhile is kept afterwards, and each change is
    /// reported once.
    #[test]
    fn a_pause_is_kept_once_the_disk_takes_it() {
        let place = tempfile::tempdir().unwrap();
        // A file in the place of the folder: nothing can be written.
        let folder = place.path().join("heal");
        fs::write(&folder, "").unwrap();
        let (sender, receiver) = sync_channel(8);
        let (reports, reported) = sync_channel(8);
        let mut writer = Writer::new(&folder);
        let run = std::thread::spawn(move || {
            writer.run(&receiver, |written| reports.send(written.is_ok()).unwrap());
        });
        assert_eq!(reported.recv(), Ok(false));
        let paused = Paused::new(std::time::SystemTime::now(), None, "upgrade".into());
        sender.send(Job::Record(vec![0; 10])).unwrap();
        sender.send(Job::Pause(None)).unwrap();
        sender.send(Job::Pause(Some(paused.clone()))).unwrap();
        fs::remove_file(&folder).unwrap();
        assert_eq!(reported.recv(), Ok(true), "the pause is written again");
        // The second pause may have been written only after the report.
        drop(sender);
        run.join().unwrap();
        assert_eq!(pause::read(&folder).unwrap(), Some(paused));
        assert_eq!(reported.recv().ok(), None, "one failure and one success");
    }
}
