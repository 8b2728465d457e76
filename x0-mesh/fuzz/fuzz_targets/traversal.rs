//! Messages of other nodes to a running traversal: nothing panics, and tables stay within their bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| x0_mesh::fuzz::traversal(data));
