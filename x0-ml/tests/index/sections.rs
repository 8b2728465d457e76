//! The layout of files in sections, to damage them behind right checksums.

#![allow(dead_code, reason = "each test uses a part")]

pub(crate) fn word(file: &[u8], at: usize) -> usize {
    u64::from_le_bytes(file[at..at + 8].try_into().unwrap()) as usize
}

pub(crate) fn entry(file: &[u8], name: u32) -> usize {
    let entries = (16..).step_by(24);
    entries.take(64).find(|at| file[*at..at + 4] == name.to_le_bytes()).unwrap()
}

pub(crate) fn offset(file: &[u8], name: u32) -> usize {
    word(file, entry(file, name) + 8)
}

pub(crate) fn section(file: &[u8], name: u32) -> &[u8] {
    &file[offset(file, name)..][..word(file, entry(file, name) + 16)]
}

/// Writes right checksums over damage, so that it reaches the checks behind them.
pub(crate) fn resign(file: &mut [u8]) {
    let Some(count) = file.get(12..16).map(|bytes| u32::from_le_bytes(bytes.try_into().unwrap()) as usize)
    else {
        return;
    };
    let end = 16 + 24 * count.min(64);
    if file.len() < end + 4 {
        return;
    }
    for entry in (16..end).step_by(24) {
        let (offset, len) = (word(file, entry + 8), word(file, entry + 16));
        if let Some(section) = file.get(offset..offset.saturating_add(len)) {
            let checksum = crc32c::crc32c(section).to_le_bytes();
            file[entry + 4..entry + 8].copy_from_slice(&checksum);
        }
    }
    let checksum = crc32c::crc32c(&file[..end]).to_le_bytes();
    file[end..end + 4].copy_from_slice(&checksum);
}
