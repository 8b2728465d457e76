//! Bytes from a log or a peer: decoding returns, and what it accepts has one encoding. Applying them never
//! fails.
#![no_main]

use libfuzzer_sys::fuzz_target;
use x0_kv::{Bytes, Command, Operation, State, decode_applied, encode_applied};

fuzz_target!(|data: &[u8]| {
    let bytes = Bytes::copy_from_slice(data);
    if let Ok(command) = Command::decode(&bytes) {
        assert_eq!(command.encode(), bytes);
    }
    if let Ok(operation) = Operation::decode(&bytes) {
        assert_eq!(operation.encode(), bytes);
    }
    if let Ok(applied) = decode_applied(&bytes) {
        assert_eq!(encode_applied(&applied), bytes);
    }
    let mut state = State::in_memory();
    let mut outcomes = Vec::new();
    state.apply([(1, Some(&bytes)), (2, Some(&bytes))], &mut outcomes).unwrap();
    assert!(outcomes.iter().all(|outcome| decode_applied(outcome).is_ok()));
});
