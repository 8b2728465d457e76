//! Revocation views from outside: refused, or written as they were read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use x0_identity::{RevocationView, SignedRevocations};

fuzz_target!(|data: &[u8]| {
    if let Ok(view) = RevocationView::from_bytes(data) {
        assert_eq!(view.to_bytes(), data);
    }
    if let Ok(signed) = SignedRevocations::from_bytes(data) {
        assert_eq!(signed.to_bytes(), data);
    }
});
