//! WIT-SVIDs, their proofs and keys from outside, and damage of valid ones.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code, reason = "each target runs one of the properties")]
#[path = "../../tests/decoders/properties.rs"]
mod properties;

fuzz_target!(|data: &[u8]| properties::wit(data));
