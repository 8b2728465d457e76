//! Bytes from a peer, in pieces: the same messages come out however they are cut, none is over the bound, nothing panics.
#![no_main]
#![allow(dead_code)]

use libfuzzer_sys::fuzz_target;
// What is private in the crate is compiled into this program.
use x0_mesh::Violation;

#[path = "../../src/quic"]
mod quic {
    mod frame;
    pub(crate) mod fuzz;
    mod handshake;
}

fuzz_target!(|data: &[u8]| quic::fuzz::frames(data));
