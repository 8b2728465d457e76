//! Messages from a peer to a mux: frames are encoded as they were decoded, nothing panics, and no more is
//! held than the budget allows.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| x0_mesh::fuzz::mux(data));
