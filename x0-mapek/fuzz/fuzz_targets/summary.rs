//! Summarys from outside: refused, or written again as the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use x0_mapek::diagnose::Summary;

fuzz_target!(|data: &[u8]| {
    if let Ok(summary) = Summary::from_bytes(data) {
        assert_eq!(summary.to_bytes(), data);
    }
});
