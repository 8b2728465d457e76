//! Bytes as frames, and as the content of authentic frames: nothing panics.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| x0_mesh::fuzz::datagram(data));
