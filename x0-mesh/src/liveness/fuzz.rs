//! Bytes of a peer, for `fuzz/` and for the suite.

use core::time::Duration;

use super::{Liveness, LivenessInput, LivenessOptions, LivenessOutput};

/// Probes, traffic and time, as the bytes say: nothing panics, a timer is always set, and outputs are
/// bounded.
pub(crate) fn run(mut script: &[u8]) {
    let mut end = Liveness::new(LivenessOptions::new(1));
    let mut now = Duration::ZERO;
    while let Some((action, rest)) = script.split_first() {
        let (content, rest) = rest.split_at(rest.len().min(16));
        match action % 4 {
            0 => end.handle(now, LivenessInput::Probe(content)),
            1 => end.handle(now, LivenessInput::Sent),
            2 => end.handle(now, LivenessInput::Received),
            _ => {
                now = end.poll_timeout().unwrap_or(now).max(now)
                    + Duration::from_millis(u64::from(action >> 2));
                end.handle(now, LivenessInput::Timeout);
            }
        }
        script = if action % 4 == 0 { rest } else { script.get(1..).unwrap_or(&[]) };
        let mut outputs = 0;
        while let Some(output) = end.poll_output() {
            outputs += 1;
            if let LivenessOutput::Probe(probe) = output {
                assert!(super::probe::Probe::decode(&probe).is_some());
            }
        }
        assert!(outputs <= 4 && end.poll_timeout().is_some());
    }
}

#[cfg(test)]
mod tests {
    use crate::random::SplitMix64;

    /// A short run of what `fuzz/` does.
    #[test]
    fn random_scripts() {
        let mut random = SplitMix64::new(5);
        for _ in 0..2000 {
            let len = random.next() % 400;
            let script: Vec<u8> = (0..len)
                .map(|place| {
                    let [byte, ..] = random.next().to_le_bytes();
                    // Most probes have a valid first byte.
                    if place % 17 == 1 { (byte & 0x30) | 1 } else { byte }
                })
                .collect();
            super::run(&script);
        }
    }
}
