//! Reading a segment from its front, in bounded windows.

use std::io;

use crc32c::crc32c_append;

use crate::directory::DirectoryFile;

use super::format::{ALIGNMENT, RECORD_HEADER_LEN, RecordHeader, seed};

const WINDOW_LEN: usize = 256 * 1024;

/// A part of a file in memory. It moves forward, and grows only for a longer record.
pub(crate) struct Window<'a> {
    file: &'a dyn DirectoryFile,
    file_len: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    pub(crate) fn new(file: &'a dyn DirectoryFile) -> io::Result<Window<'a>> {
        Ok(Window { file, file_len: file.len_bytes()?, start: 0, bytes: Vec::new() })
    }

    pub(crate) fn file_len(&self) -> u64 {
        self.file_len
    }

    /// The bytes at this offset; `None` if the file ends before them.
    pub(crate) fn get(&mut self, offset: u64, len: usize) -> io::Result<Option<&[u8]>> {
        if offset.checked_add(len as u64).is_none_or(|end| end > self.file_len) {
            return Ok(None);
        }
        let is_inside = offset >= self.start && offset + len as u64 <= self.start + self.bytes.len() as u64;
        if !is_inside {
            // Bounded by the file: the check above has compared the length with it.
            let rest = usize::try_from(self.file_len - offset).unwrap_or(usize::MAX);
            self.bytes.resize(len.max(WINDOW_LEN).min(rest), 0);
            let filled = self.file.read_at(offset, &mut self.bytes)?;
            self.bytes.truncate(filled);
            self.start = offset;
        }
        let from = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
        Ok(self.bytes.get(from..).and_then(|bytes| bytes.get(..len)))
    }
}

/// The bytes at an offset.
pub(crate) enum Found<'a> {
    Record {
        header: RecordHeader,
        body: &'a [u8],
    },
    /// No valid record: the end, a torn write or damage.
    Nothing(&'static str),
}

/// The record at this offset of segment `sequence`.
pub(crate) fn record_at<'w>(window: &'w mut Window<'_>, sequence: u64, offset: u64) -> io::Result<Found<'w>> {
    let seed = seed(sequence, offset);
    let Some(bytes) = window.get(offset, RECORD_HEADER_LEN)? else {
        return Ok(Found::Nothing("the file ends inside a record's header"));
    };
    let Some(header) = RecordHeader::decode(bytes, seed) else {
        return Ok(Found::Nothing("no valid record header"));
    };
    match window.get(offset + RECORD_HEADER_LEN as u64, header.body_len as usize)? {
        None => Ok(Found::Nothing("the file ends inside a record")),
        // A valid header alone proves nothing about the body: a torn batch may lack any of its sectors.
        Some(body) if crc32c_append(seed, body) != header.body_crc => {
            Ok(Found::Nothing("a record's checksum is wrong"))
        }
        Some(body) => Ok(Found::Record { header, body }),
    }
}

/// Searches after `offset`, where there is no valid record, for a proof that the file was durable beyond it:
/// a valid record header with a greater `synced`. Without a proof nothing after `offset` was ever
/// acknowledged, because a batch is acknowledged only after its synchronisation, and every later record and
/// the commit marker have the offset of that.
pub(crate) fn is_synced_beyond(window: &mut Window<'_>, sequence: u64, offset: u64) -> io::Result<bool> {
    let mut at = offset.next_multiple_of(ALIGNMENT as u64);
    while let Some(bytes) = window.get(at, RECORD_HEADER_LEN)? {
        // Computing the seed costs more than the other checks, and zeros do not need it.
        if bytes.iter().any(|byte| *byte != 0)
            // The header is enough: that it was written proves the synchronisation before it, even if its own
            // body is torn.
            && RecordHeader::decode(bytes, seed(sequence, at)).is_some_and(|header| header.synced > offset)
        {
            return Ok(true);
        }
        at += ALIGNMENT as u64;
    }
    Ok(false)
}

/// The offset after the last byte from `offset` on that is not zero; `offset` if there is none.
pub(crate) fn end_of_content(window: &mut Window<'_>, offset: u64) -> io::Result<u64> {
    let mut end = offset;
    let mut at = offset;
    while at < window.file_len() {
        let len = usize::try_from(window.file_len() - at).unwrap_or(usize::MAX).min(4096);
        let Some(bytes) = window.get(at, len)? else { break };
        if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
            end = at + last as u64 + 1;
        }
        at += len as u64;
    }
    Ok(end)
}
