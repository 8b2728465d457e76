//! The active segment, to which records are appended.

use std::io;

use crate::directory::{Directory, DirectoryFile};

use super::format::{RECORD_HEADER_LEN, SEGMENT_HEADER_LEN, SegmentHeader, seal};
use super::names;
use super::record::{Place, State, put_state};

/// A segment and the length of its file, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) sequence: u64,
    pub(crate) len: u64,
}

/// The last segment, to which records are appended.
pub(crate) struct Active {
    pub(crate) sequence: u64,
    /// The length of the file, in bytes.
    pub(crate) len: u64,
    pub(crate) file: Box<dyn DirectoryFile>,
    /// The offset of the next record.
    pub(crate) end: u64,
    /// The offset up to which the file is known to be durable.
    pub(crate) synced: u64,
    /// The number of the next record.
    pub(crate) number: u64,
}

/// A segment could not be created.
pub(crate) struct CreateError {
    pub(crate) operation: &'static str,
    pub(crate) source: io::Error,
    /// Whether the file may already have the name of a segment: then the state of the log is unknown.
    pub(crate) is_named: bool,
}

/// The opening of a segment: its header and the record that repeats the state.
pub(crate) fn opening(header: &SegmentHeader, state: &State<'_>) -> Vec<u8> {
    let mut bytes = header.encode().to_vec();
    let place = Place {
        sequence: header.sequence,
        offset: SEGMENT_HEADER_LEN as u64,
        number: header.first_number,
        synced: SEGMENT_HEADER_LEN as u64,
    };
    put_state(&mut bytes, place, state);
    bytes
}

impl Active {
    /// Turns a spare file into a segment. The opening is durable before the file gets its name, so that a
    /// file with the name of a segment always has a valid opening.
    pub(crate) fn create(
        directory: &dyn Directory,
        spare: u64,
        header: &SegmentHeader,
        opening: &[u8],
    ) -> Result<Active, CreateError> {
        let unnamed = |operation| move |source| CreateError { operation, source, is_named: false };
        let named = |operation| move |source| CreateError { operation, source, is_named: true };
        let spare = names::spare(spare);
        let mut file = directory.open(&spare).map_err(unnamed("open"))?;
        file.write_at(0, opening).map_err(unnamed("write"))?;
        // The content, then the name, then the name's durability: no crash leaves a named file without a
        // valid opening.
        file.sync().map_err(unnamed("synchronise"))?;
        directory.rename(&spare, &names::segment(header.sequence)).map_err(named("rename"))?;
        directory.sync().map_err(named("synchronise the folder of"))?;
        let end = opening.len() as u64;
        Ok(Active {
            sequence: header.sequence,
            len: header.file_len,
            file,
            end,
            synced: end,
            number: header.first_number + 1,
        })
    }

    /// Whether `len` bytes and a commit marker fit.
    pub(crate) fn has_room(&self, len: u64) -> bool {
        self.end + len + RECORD_HEADER_LEN as u64 <= self.len
    }

    /// Makes the written records durable.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if self.synced < self.end {
            // On an error `synced` stays, and the log is poisoned: a repeated fsync may return `Ok` for pages
            // that the kernel dropped (Rebello et al., ATC '20).
            self.file.sync()?;
            self.synced = self.end;
        }
        Ok(())
    }

    /// Writes the commit marker: the proof that all records up to here are durable. The marker itself is not
    /// synchronised.
    pub(crate) fn seal(&mut self) -> io::Result<()> {
        // Without a synchronisation: that would double the cost of a batch, and the batch itself is durable.
        self.file.write_at(self.end, &seal(self.sequence, self.end, self.number))
    }
}
