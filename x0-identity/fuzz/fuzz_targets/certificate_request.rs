//! Certificate requests from outside: a proof of possession, or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use x0_identity::CertificateRequest;

fuzz_target!(|data: &[u8]| {
    if let Err(error) = CertificateRequest::from_der(data) {
        drop(error.to_string());
    }
});
