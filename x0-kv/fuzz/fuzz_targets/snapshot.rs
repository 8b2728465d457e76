//! Bytes that claim to be a snapshot: restoring returns, and takes all or nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use x0_kv::State;

fuzz_target!(|data: &[u8]| {
    let mut state = State::in_memory();
    if state.restore(None, &mut &*data).is_err() {
        assert_eq!((state.applied(), state.session_count()), (0, 0));
    }
});
