//! Header blocks from outside, one after the other with one table.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| x0_identity::fuzz::decode_header_blocks(data));
