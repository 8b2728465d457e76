//! Bytes from outside given to the decoders of the types and of their differences: nothing panics, what
//! decodes encodes to the same bytes and can be joined, encoded and removed.
#![no_main]

use libfuzzer_sys::fuzz_target;

// The suite runs the same check on seeded inputs.
#[path = "../../tests/laws/decoders.rs"]
mod decoders;

fuzz_target!(|data: &[u8]| {
    decoders::check(data);
});
