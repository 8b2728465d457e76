//! Messages of a failure detector from outside: a sequence of them causes no panic, and no verdict to which
//! their sender belongs.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use x0_mapek::suspicion::{Detector, DetectorOptions, Input, Output};

fuzz_target!(|data: &[u8]| {
    let mut detector = Detector::new(1, 1, DetectorOptions::new(), Duration::ZERO);
    let members = (1..=5).collect();
    detector.handle(Duration::ZERO, Input::Members(&members)).expect("five are few enough");
    let mut now = Duration::ZERO;
    // One misbehaving member of five. The last byte is the time before the message, and no part of it.
    for chunk in data.chunks(40) {
        let Some((time, message)) = chunk.split_last() else { continue };
        now += Duration::from_millis(u64::from(*time));
        let _ = detector.handle(now, Input::Received { from: 5, message });
        let _ = detector.handle(now, Input::Timeout);
        while let Some(output) = detector.poll_output() {
            assert!(!matches!(output, Output::Suspect(suspect) if suspect.accusers.contains(&5)));
        }
    }
});
