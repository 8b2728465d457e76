//! Keys, scalars and JSON from outside given to a document: nothing panics, and JSON that came out changes
//! nothing when it goes in.
#![no_main]

use libfuzzer_sys::fuzz_target;

// The suite runs the same check on seeded inputs.
#[path = "../../tests/support/document_bytes.rs"]
mod document_bytes;

fuzz_target!(|data: &[u8]| {
    document_bytes::check(data);
});
