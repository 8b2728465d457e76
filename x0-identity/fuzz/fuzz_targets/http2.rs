//! Frames of HTTP/2 from a client or a server, in pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| x0_identity::fuzz::exchange_frames(data));
