//! Messages of gRPC in pieces, and their fields.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| x0_identity::fuzz::read_messages(data));
