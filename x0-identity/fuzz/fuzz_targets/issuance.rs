//! Requests and answers of issuing over the network. What is accepted has one encoding.
#![no_main]

use libfuzzer_sys::fuzz_target;
use x0_identity::{IssuanceAnswer, IssuanceRequest};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = IssuanceRequest::from_bytes(bytes) {
        assert_eq!(request.to_bytes(), bytes);
    }
    if let Ok(answer) = IssuanceAnswer::from_bytes(bytes) {
        assert_eq!(answer.to_bytes(), bytes);
    }
});
