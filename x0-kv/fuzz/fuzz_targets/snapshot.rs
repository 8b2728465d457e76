//! Bytes that claim to be a snapshot: restoring returns, takes all or nothing, and what it took it writes
//! again.
//!
//! The input is cut into blocks that get the checksums a fuzzer would not find.
#![no_main]

use std::io::Read;

use libfuzzer_sys::fuzz_target;
use x0_kv::State;

fuzz_target!(|data: &[u8]| {
    let mut bytes = b"x0kvsnap\x01".to_vec();
    let mut rest = data;
    while let [kind, len, payload @ ..] = rest {
        let payload = &payload[..usize::from(*len).min(payload.len())];
        rest = &rest[2 + payload.len()..];
        let from = bytes.len();
        bytes.push(*kind);
        bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        bytes.extend_from_slice(payload);
        let checksum = crc32c::crc32c(&bytes[from..]);
        bytes.extend_from_slice(&checksum.to_le_bytes());
    }
    let mut state = State::in_memory();
    if state.restore(None, &mut &*bytes).is_err() {
        assert_eq!((state.applied(), state.session_count()), (0, 0));
        return;
    }
    let mut first = Vec::new();
    state.snapshot().read_to_end(&mut first).unwrap();
    let mut copy = State::in_memory();
    copy.restore(None, &mut &*first).unwrap();
    let mut second = Vec::new();
    copy.snapshot().read_to_end(&mut second).unwrap();
    assert_eq!(first, second);
});
