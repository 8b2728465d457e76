//! Coded symbols from outside: nothing panics, and no more comes out than went in.
#![no_main]

use libfuzzer_sys::fuzz_target;
use x0_crdt::HashKey;
use x0_crdt::internal::{CodedSymbols, SketchDecoder};

fuzz_target!(|data: &[u8]| {
    let mut decoder = SketchDecoder::new(CodedSymbols::new(HashKey::new([1; 16]), 0..20));
    let _ = decoder.add(0, data);
    assert!(decoder.remote_only().len() + decoder.local_only().len() <= decoder.len());
});
