//! Any bytes as the records of a log: opening returns, and an accepted log can be read, continued and opened
//! again.
//!
//! The input is cut into records with correct checksums, which a fuzzer would not find, after the opening of
//! a real segment.
#![no_main]

use std::sync::Arc;

use crc32c::{crc32c, crc32c_append};
use libfuzzer_sys::fuzz_target;
use x0_consensus::sim::SimDirectory;
use x0_consensus::{Entry, EntryKind, Storage, Wal, WalOptions, Write};

const NAME: &str = "0000000000000001.wal";

fn open(directory: &SimDirectory) -> Option<Wal> {
    let mut options = WalOptions::default();
    options.segment_len = 64 * 1024;
    options.spare_in_background = false;
    Wal::open(Arc::new(directory.clone()), options).ok()
}

fuzz_target!(|data: &[u8]| {
    let directory = SimDirectory::new();
    drop(open(&directory).unwrap());
    let mut segment = directory.contents(NAME).unwrap();
    // The opening of an empty log ends where its commit marker begins.
    let mut at = 64 + 32 + u32::from_le_bytes(segment[72..76].try_into().unwrap()) as usize;
    let (mut number, mut rest) = (2_u64, data);
    while let [parts, len, body @ ..] = rest {
        let body = &body[..usize::from(*len).min(body.len())];
        rest = &rest[2 + body.len()..];
        let end = at + 32 + body.len().next_multiple_of(8);
        if end + 64 > segment.len() {
            break;
        }
        segment[at..end].fill(0);
        segment[at + 32..at + 32 + body.len()].copy_from_slice(body);
        let seed = crc32c_append(crc32c(&1_u64.to_le_bytes()), &(at as u64).to_le_bytes());
        let body_crc = crc32c_append(seed, &segment[at + 32..end]);
        segment[at + 4..at + 8].copy_from_slice(&body_crc.to_le_bytes());
        segment[at + 8..at + 12].copy_from_slice(&((end - at - 32) as u32).to_le_bytes());
        segment[at + 12..at + 16].copy_from_slice(&u32::from(*parts).to_le_bytes());
        segment[at + 16..at + 24].copy_from_slice(&number.to_le_bytes());
        segment[at + 24..at + 32].copy_from_slice(&(at as u64).to_le_bytes());
        let header_crc = crc32c_append(seed, &segment[at + 4..at + 32]);
        segment[at..at + 4].copy_from_slice(&header_crc.to_le_bytes());
        (at, number) = (end, number + 1);
    }
    directory.replace_contents(NAME, segment);

    let Some(mut log) = open(&directory) else { return };
    let held = log.recover().unwrap();
    let entries = log.read(held.base.index + 1..held.last_index + 1, usize::MAX).unwrap();
    assert_eq!(entries.len() as u64, held.last_index - held.base.index);
    let entry =
        Entry { term: 1, index: held.last_index + 1, kind: EntryKind::Normal, payload: "more".into() };
    let is_written = log.write(&[Write { entries: vec![entry], ..Write::default() }]).is_ok();
    drop(log);
    let again = open(&directory).unwrap().recover().unwrap();
    assert_eq!(again.last_index, held.last_index + u64::from(is_written));
    assert_eq!((again.base, again.hard_state), (held.base, held.hard_state));
});
