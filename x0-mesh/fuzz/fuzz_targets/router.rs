//! Messages from neighbours to a router: messages are encoded as they were decoded, nothing panics, and the
//! tables stay within their bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| x0_mesh::fuzz::router(data));
