//! Bytes from outside given to every decoder of `x0_crdt::chain`: nothing panics, and what decodes encodes to
//! the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;

// The suite runs the same check on seeded inputs.
#[path = "../../tests/chain/decoders.rs"]
mod decoders;

fuzz_target!(|data: &[u8]| {
    decoders::check(data);
});
