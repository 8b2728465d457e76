//! Claims from outside: refused, or written again as the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use x0_mapek::claim::Claim;

fuzz_target!(|data: &[u8]| {
    if let Ok(claim) = Claim::from_bytes(data) {
        assert_eq!(claim.to_bytes(), data);
    }
});
