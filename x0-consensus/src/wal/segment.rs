//! The segment that is written to.

use std::io;

use crate::directory::{Directory, DirectoryFile};

use super::format::{RECORD_HEADER_LEN, SEGMENT_HEADER_LEN, SegmentHeader, seal};
use super::names;
use super::record::{Place, State, put_state};

/// A segment and its length, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) sequence: u64,
    pub(crate) len: u64,
}

/// The last segment, where records are appended.
pub(crate) struct Active {
    pub(crate) sequence: u64,
    /// The file's length, in bytes.
    pub(crate) len: u64,
    pub(crate) file: Box<dyn DirectoryFile>,
    /// Where the next record goes.
    pub(crate) end: u64,
    /// Up to here the file is known to be durable.
    pub(crate) synced: u64,
    /// The next record's number.
    pub(crate) number: u64,
}

/// What failed while a segment was made, so that the caller can tell what that means.
pub(crate) struct CreateError {
    pub(crate) operation: &'static str,
    pub(crate) source: io::Error,
    /// Whether the file may already have its name.
    pub(crate) is_named: bool,
}

/// The bytes that open a segment: its header and the record that restates the state.
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
    /// Turns a spare file into a segment. Its opening is durable before it gets its name, so that a file with
    /// the name of a segment always begins as one.
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

    /// Whether so many bytes fit, with a seal behind them.
    pub(crate) fn has_room(&self, len: u64) -> bool {
        self.end + len + RECORD_HEADER_LEN as u64 <= self.len
    }

    /// Makes durable what was written.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if self.synced < self.end {
            self.file.sync()?;
            self.synced = self.end;
        }
        Ok(())
    }

    /// Leaves the proof behind that all up to here is durable. It is not synchronised itself.
    pub(crate) fn seal(&mut self) -> io::Result<()> {
        self.file.write_at(self.end, &seal(self.sequence, self.end, self.number))
    }
}
