//! Probes of a peer, traffic and time: nothing panics, and outputs are bounded.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| x0_mesh::fuzz::liveness(data));
