//! Records from outside: refused, or written again as the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use x0_mapek::Record;

fuzz_target!(|data: &[u8]| {
    if let Ok(record) = Record::from_bytes(data) {
        assert_eq!(record.to_bytes(), data);
        let _ = (record.explain(), record.to_json());
    }
});
