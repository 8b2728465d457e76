//! Transfers: bytes that do not fit a datagram, in parts that may be lost, doubled and reordered.

use alloc::vec::Vec;
use core::ops::Range;

use crate::codec::{ByteReader, DecodeError, put_integer};

/// The most ranges of missing parts that one request names.
const RANGES_MAX: usize = 32;

/// An outgoing transfer: cut into parts of equal length, which are queued as the peer requests them.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) number: u64,
    bytes: Vec<u8>,
    part_len: usize,
    /// Parts to send, ascending.
    queue: Vec<Range<usize>>,
}

/// One part on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part<'a> {
    /// The number of the request that it answers.
    pub(super) number: u64,
    /// The length of the whole transfer, in bytes.
    pub(super) total_len: usize,
    /// The length of each part but the last, in bytes.
    pub(super) part_len: usize,
    pub(super) index: usize,
    pub(super) bytes: &'a [u8],
    /// Whether no further part is queued.
    pub(super) last: bool,
}

impl Outgoing {
    pub(super) fn new(number: u64, bytes: Vec<u8>, part_len: usize) -> Self {
        let mut outgoing = Self { number, bytes, part_len: part_len.max(1), queue: Vec::new() };
        outgoing.resend(&[]);
        outgoing
    }

    /// The length of the transfer in bytes.
    pub(super) const fn len(&self) -> usize {
        self.bytes.len()
    }

    fn parts(&self) -> usize {
        self.bytes.len().div_ceil(self.part_len).max(1)
    }

    pub(super) const fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Sends no part until one is requested.
    pub(super) fn pause(&mut self) {
        self.queue.clear();
    }

    /// Sends the first part alone.
    pub(super) fn only_first(&mut self) {
        self.queue.truncate(1);
        if let Some(range) = self.queue.first_mut() {
            range.end = range.start + 1;
        }
    }

    /// Queues the missing parts, or all if none are named.
    pub(super) fn resend(&mut self, missing: &[Range<usize>]) {
        let parts = self.parts();
        self.queue = missing
            .iter()
            .map(|range| range.start.min(parts)..range.end.min(parts))
            .filter(|range| range.start < range.end)
            .collect();
        // The request names parts of a longer transfer under the same number: the peer starts over when it
        // sees a part of this one.
        if self.queue.is_empty() {
            self.queue.push(0..parts);
        }
    }

    /// The next part, if one is queued.
    pub(super) fn next(&mut self) -> Option<Part<'_>> {
        let range = self.queue.first_mut()?;
        let index = range.start;
        // Ranges are few (`RANGES_MAX` of a request), so removing the first one is cheap.
        range.start += 1;
        if range.start >= range.end {
            self.queue.remove(0);
        }
        let begin = index * self.part_len;
        let end = (begin + self.part_len).min(self.bytes.len());
        Some(Part {
            number: self.number,
            total_len: self.bytes.len(),
            part_len: self.part_len,
            index,
            bytes: self.bytes.get(begin..end).unwrap_or_default(),
            last: self.queue.is_empty(),
        })
    }
}

/// An incoming transfer.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    bytes: Vec<u8>,
    part_len: usize,
    have: Vec<bool>,
    left: usize,
    /// Bytes of parts that arrived again.
    pub(super) redundant_bytes: usize,
}

/// The effect of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// The part had arrived before.
    None,
    More,
    Whole,
}

impl Incoming {
    /// Takes a part of a transfer of at most `len_max` bytes. A part with other lengths starts over: the
    /// sender made the transfer again, or a part was damaged.
    pub(super) fn take(&mut self, part: &Part<'_>, len_max: usize) -> Result<Progress, DecodeError> {
        const WHAT: &str = "the length of a transfer";
        let other = part.total_len != self.bytes.len() || part.part_len != self.part_len;
        if other || self.have.is_empty() {
            let parts = part.total_len.div_ceil(part.part_len.max(1)).max(1);
            // Checked before anything is allocated for it.
            if part.total_len > len_max || part.part_len == 0 {
                return Err(DecodeError::Range { what: WHAT });
            }
            self.bytes = alloc::vec![0; part.total_len];
            self.part_len = part.part_len;
            self.have = alloc::vec![false; parts];
            self.left = parts;
        }
        let begin = part.index.saturating_mul(self.part_len);
        let end = begin.saturating_add(self.part_len).min(self.bytes.len());
        let (Some(have), Some(space)) = (self.have.get_mut(part.index), self.bytes.get_mut(begin..end))
        else {
            return Err(DecodeError::Range { what: "the index of a part" });
        };
        // Only the last part may be shorter, by exactly what is left.
        if space.len() != part.bytes.len() {
            return Err(DecodeError::Range { what: "the length of a part" });
        }
        if *have {
            self.redundant_bytes += part.bytes.len();
            return Ok(Progress::None);
        }
        *have = true;
        space.copy_from_slice(part.bytes);
        self.left -= 1;
        Ok(if self.left == 0 { Progress::Whole } else { Progress::More })
    }

    /// How many bytes are held for the transfer.
    pub(super) const fn pending_bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The missing parts, ascending, as far as one request can name them; none if no part arrived at all.
    pub(super) fn missing(&self) -> Vec<Range<usize>> {
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for (index, _) in self.have.iter().enumerate().filter(|(_, have)| !**have) {
            let count = ranges.len();
            match ranges.last_mut() {
                Some(range) if range.end == index => range.end += 1,
                _ if count == RANGES_MAX => break,
                _ => ranges.push(index..index + 1),
            }
        }
        ranges
    }
}

pub(super) fn put_ranges(ranges: &[Range<usize>], out: &mut Vec<u8>) {
    put_integer(ranges.len() as u64, out);
    let mut end = 0;
    for range in ranges {
        put_integer((range.start - end) as u64, out);
        put_integer(range.len() as u64, out);
        end = range.end;
    }
}

pub(super) fn ranges(input: &mut ByteReader<'_>) -> Result<Vec<Range<usize>>, DecodeError> {
    const WHAT: &str = "missing parts";
    let count = input.count(2, WHAT)?;
    if count > RANGES_MAX {
        return Err(DecodeError::Range { what: WHAT });
    }
    let mut end = 0_u64;
    (0..count)
        .map(|_| {
            let start = end.saturating_add(input.integer(WHAT)?);
            end = start.saturating_add(input.integer(WHAT)?);
            let bounded =
                |number: u64| usize::try_from(number).map_err(|_| DecodeError::Range { what: WHAT });
            Ok(bounded(start)?..bounded(end)?)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_parts_are_requested_until_the_transfer_is_complete() {
        for len in [0, 1, 99, 100, 101, 12_345] {
            let bytes: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
            let mut outgoing = Outgoing::new(7, bytes.clone(), 100);
            let mut incoming = Incoming::default();
            let mut turn = 0;
            let mut whole = false;
            while !whole {
                while let Some(part) = outgoing.next() {
                    turn += 1;
                    if turn % 3 != 0 {
                        whole |= incoming.take(&part, 20_000).unwrap() == Progress::Whole;
                    }
                }
                let mut coded = Vec::new();
                put_ranges(&incoming.missing(), &mut coded);
                outgoing.resend(&ranges(&mut ByteReader::new(&coded)).unwrap());
            }
            assert_eq!(incoming.into_bytes(), bytes);
        }
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        let part =
            |index, total_len, bytes| Part { number: 1, total_len, part_len: 4, index, bytes, last: false };
        let mut incoming = Incoming::default();
        assert!(incoming.take(&part(0, 101, &[0; 4]), 100).is_err(), "above the limit");
        assert_eq!(incoming.take(&part(0, 6, &[1; 4]), 100), Ok(Progress::More));
        assert!(incoming.take(&part(1, 6, &[1; 4]), 100).is_err(), "the last has two");
        assert!(incoming.take(&part(2, 6, &[1; 2]), 100).is_err(), "there is no third");
        assert_eq!(incoming.take(&part(1, 7, &[1; 3]), 100), Ok(Progress::More), "another whole");
        assert_eq!(incoming.take(&part(0, 6, &[1; 4]), 100), Ok(Progress::More), "and the first again");
        assert_eq!(incoming.take(&part(1, 6, &[2; 2]), 100), Ok(Progress::Whole));
    }

    /// Found by members that restarted during a transfer: the request was repeated for ever.
    #[test]
    fn a_request_for_parts_of_a_longer_transfer_is_answered_with_the_shorter_one() {
        let mut incoming = Incoming::default();
        let mut first = Outgoing::new(7, alloc::vec![1; 30], 20);
        assert_eq!(incoming.take(&first.next().unwrap(), 100), Ok(Progress::More));
        let mut again = Outgoing::new(7, alloc::vec![2; 10], 20);
        again.pause();
        again.resend(&incoming.missing());
        assert_eq!(incoming.take(&again.next().unwrap(), 100), Ok(Progress::Whole));
        assert_eq!(incoming.into_bytes(), [2; 10]);
    }
}
