//! Files with certificates and keys.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code, reason = "each target runs one of the properties")]
#[path = "../../tests/decoders/properties.rs"]
mod properties;

fuzz_target!(|data: &[u8]| properties::pem(data));
