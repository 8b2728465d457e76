//! Bytes of a QUIC stream from a peer, in pieces: the same messages come out however they are cut, none is
//! over the bound, nothing panics.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| x0_mesh::fuzz::frames(data));
