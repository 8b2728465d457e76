//! The pause of a healer on disk: a restart, which may be the reason for the pause, does not end it.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The longest file, in bytes. A reason is bounded far below.
const FILE_LEN_MAX: u64 = 16 << 10;

/// A pause that an operator ordered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Paused {
    /// The end of the pause, in seconds since 1970; `None`: with `heal resume`.
    pub(super) until: Option<u64>,
    pub(super) reason: String,
}

impl Paused {
    /// A pause that begins at `now` and lasts for `rest`.
    pub(super) fn new(now: SystemTime, rest: Option<Duration>, reason: String) -> Paused {
        let until = |rest: Duration| since_1970(now).saturating_add(rest).as_secs();
        Paused { until: rest.map(until), reason }
    }

    /// How long it lasts from `now` on; `None`: until `heal resume`.
    pub(super) fn rest(&self, now: SystemTime) -> Option<Duration> {
        self.until.map(|until| Duration::from_secs(until).saturating_sub(since_1970(now)))
    }

    pub(super) fn is_over(&self, now: SystemTime) -> bool {
        self.rest(now) == Some(Duration::ZERO)
    }
}

impl fmt::Display for Paused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.until {
            Some(until) => write!(f, "until={until} ")?,
            None => f.write_str("until=resume ")?,
        }
        write!(f, "reason={}", self.reason)
    }
}

fn since_1970(at: SystemTime) -> Duration {
    at.duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn file(folder: &Path) -> PathBuf {
    folder.join("paused.json")
}

/// The pause that is kept in `folder`, if there is one.
pub(super) fn read(folder: &Path) -> io::Result<Option<Paused>> {
    let path = file(folder);
    match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Ok(metadata) if metadata.len() > FILE_LEN_MAX => {
            return Err(io::Error::other(format!("{} is longer than {FILE_LEN_MAX} bytes", path.display())));
        }
        _ => {}
    }
    serde_json::from_slice(&fs::read(&path)?).map(Some).map_err(io::Error::other)
}

/// Keeps a pause in `folder`, or removes it. A crash leaves the old one or the new one.
pub(super) fn write(folder: &Path, paused: Option<&Paused>) -> io::Result<()> {
    let path = file(folder);
    let Some(paused) = paused else {
        return match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
    };
    let new = path.with_extension("new");
    fs::write(&new, serde_json::to_vec(paused)?)?;
    fs::File::open(&new)?.sync_all()?;
    fs::rename(&new, &path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_outlives_the_process_and_ends_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let (now, minute) = (SystemTime::now(), Duration::from_secs(60));
        assert_eq!(read(folder.path()).unwrap(), None);
        for paused in [
            Paused::new(now, Some(minute), "upgrade".into()),
            Paused::new(now, None, "\u{202e}until=0\n".into()),
        ] {
            write(folder.path(), Some(&paused)).unwrap();
            assert_eq!(read(folder.path()).unwrap().as_ref(), Some(&paused));
            assert!(!paused.is_over(now));
            assert_eq!(paused.is_over(now + 2 * minute), paused.until.is_some());
        }
        write(folder.path(), None).unwrap();
        write(folder.path(), None).unwrap();
        assert_eq!(read(folder.path()).unwrap(), None);
        assert!(Paused::new(now, Some(Duration::ZERO), String::new()).is_over(now));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        for bytes in [b"{".to_vec(), b"{\"until\":-1,\"reason\":\"\"}".to_vec(), vec![b' '; 20_000]] {
            fs::write(file(folder.path()), &bytes).unwrap();
            assert!(read(folder.path()).is_err(), "{} bytes", bytes.len());
        }
    }
}
