//! Any bytes in the folder give an error or a log, never a panic. The long run is in `fuzz/`.

use x0_consensus::sim::{SimDirectory, SplitMix64};
use x0_consensus::{Directory, Storage};

use crate::support::{append, open, options, stage, workload};

/// Numbers below bounds of type `usize`.
struct Random(SplitMix64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.0.below(bound as u64)).unwrap()
    }
}

/// Opens the folder, reads the whole log and continues it.
fn exercise(directory: &SimDirectory) -> bool {
    let Ok(mut log) = open(directory, options(4096)) else { return false };
    let Ok(held) = log.recover() else { return false };
    let _ = log.read(held.base.index + 1..held.last_index.saturating_add(1), 1 << 20);
    if let Ok(Some(mut reader)) = log.snapshot_reader() {
        let _ = std::io::copy(&mut reader, &mut std::io::sink());
    }
    log.write(&[append(held.last_index + 1..=held.last_index + 2, held.hard_state.term, 900)]).is_ok()
}

#[test]
fn mutated_files_never_panic() {
    let directory = SimDirectory::new();
    let mut log = open(&directory, options(4096)).unwrap();
    for batch in workload() {
        stage(&mut log, &batch).unwrap();
        log.write(&batch).unwrap();
    }
    drop(log);
    let names = directory.list().unwrap();
    let (mut random, mut survived) = (Random(SplitMix64(1)), 0);
    for _ in 0..4000 {
        let fork = directory.fork();
        for _ in 0..=random.below(3) {
            let name = &names[random.below(names.len())];
            let mut bytes = fork.contents(name).unwrap();
            let at = random.below(bytes.len());
            match random.below(5) {
                0 => bytes.truncate(at),
                1 => bytes[at..].fill(0),
                2 => {
                    let other = random.below(names.len());
                    bytes = fork.contents(&names[other]).unwrap();
                }
                3 => {
                    let from = random.below(bytes.len());
                    let len = random.below(bytes.len() - from.max(at));
                    bytes.copy_within(from..from + len, at);
                }
                _ => bytes[at] = u8::try_from(random.below(256)).unwrap(),
            }
            if bytes.is_empty() {
                bytes.push(0);
            }
            fork.replace_contents(name, bytes);
        }
        survived += usize::from(exercise(&fork));
    }
    assert!(survived > 100, "{survived}");
}

/// Changes bodies and headers and corrects the checksums, so that the code after the checksums is reached.
/// The layout is that of `src/wal/format.rs`.
fn forge(segment: &mut [u8], sequence: u64, random: &mut Random) {
    let mut at = 64;
    let seed_of = |at: usize| {
        crc32c::crc32c_append(crc32c::crc32c(&sequence.to_le_bytes()), &(at as u64).to_le_bytes())
    };
    while at + 32 <= segment.len() {
        let seed = seed_of(at);
        let header_crc = crc32c::crc32c_append(seed, &segment[at + 4..at + 32]);
        if header_crc.to_le_bytes() != segment[at..at + 4] {
            return;
        }
        let body_len = u32::from_le_bytes(segment[at + 8..at + 12].try_into().unwrap()) as usize;
        let end = at + 32 + body_len;
        for _ in 0..random.below(3) {
            let value = [0, 1, 2, u64::MAX, 1 << 62, random.below(100) as u64][random.below(6)].to_le_bytes();
            let len = [1, 4, 8][random.below(3)];
            // Mostly in the body, which has the lengths and indexes; sometimes in parts, number or `synced`.
            let from = if random.below(4) > 0 { at + 32 } else { at + 12 };
            let place = from + random.below(end.saturating_sub(from + len)).min(96);
            if place + len <= end {
                segment[place..place + len].copy_from_slice(&value[..len]);
            }
        }
        let body_crc = crc32c::crc32c_append(seed, &segment[at + 32..end]);
        segment[at + 4..at + 8].copy_from_slice(&body_crc.to_le_bytes());
        let header_crc = crc32c::crc32c_append(seed, &segment[at + 4..at + 32]);
        segment[at..at + 4].copy_from_slice(&header_crc.to_le_bytes());
        at = end;
    }
}

#[test]
fn forged_records_never_panic() {
    let directory = SimDirectory::new();
    let mut log = open(&directory, options(4096)).unwrap();
    for batch in workload().drain(..9) {
        stage(&mut log, &batch).unwrap();
        log.write(&batch).unwrap();
    }
    drop(log);
    let mut names = directory.list().unwrap();
    names.retain(|name| name.ends_with(".wal"));
    let (mut random, mut survived) = (Random(SplitMix64(2)), 0);
    for _ in 0..20_000 {
        let fork = directory.fork();
        let name = &names[random.below(names.len())];
        let mut bytes = fork.contents(name).unwrap();
        forge(&mut bytes, u64::from_str_radix(&name[..16], 16).unwrap(), &mut random);
        fork.replace_contents(name, bytes);
        survived += usize::from(exercise(&fork));
    }
    assert!(survived > 100, "{survived}");
}
