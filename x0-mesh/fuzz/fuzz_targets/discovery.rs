//! Datagrams on the port of the groups: nothing panics, and tables stay within their bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| x0_mesh::fuzz::discovery(data));
