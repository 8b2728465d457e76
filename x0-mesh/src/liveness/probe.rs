//! The bytes of a probe.
//!
//! # Wire format, version 1
//! 16 bytes, numbers little-endian.
//!
//! | field | bytes | meaning |
//! |---|---|---|
//! | version and flags | 1 | bits 0 to 3: 1; bit 4: an answer is wanted at once; bit 5: the sender hears the receiver; bit 6: an echo is given; bit 7: 0 |
//! | arrived | 1 | how many of the last 32 probes of the receiver arrived, from 0 to 32 |
//! | interval | 2 | within how many milliseconds the next frame follows, not 0 |
//! | seqno | 2 | of this probe; wraps around |
//! | echo | 2 | the seqno of the receiver's last probe that arrived; 0 without bit 6 |
//! | held | 4 | for how many microseconds that probe was held before this one; 0 without bit 6 |
//! | instance | 4 | differs each time that the sender starts |

use core::time::Duration;

const VERSION: u8 = 1;
const VERSION_MASK: u8 = 0xf;
const WANTS_ANSWER: u8 = 1 << 4;
const HEARS: u8 = 1 << 5;
const HAS_ECHO: u8 = 1 << 6;

/// The length of a probe, in bytes.
pub(super) const PROBE_LEN: usize = 16;
/// Probes that a ratio is computed from.
pub(super) const WINDOW: u8 = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Probe {
    pub(super) wants_answer: bool,
    pub(super) hears: bool,
    pub(super) arrived: u8,
    /// In milliseconds.
    pub(super) interval: u16,
    pub(super) seqno: u16,
    /// A probe of the receiver, and how long it was held.
    pub(super) echo: Option<(u16, Duration)>,
    pub(super) instance: u32,
}

impl Probe {
    pub(super) fn encode(&self) -> [u8; PROBE_LEN] {
        let mut first = VERSION;
        if self.wants_answer {
            first |= WANTS_ANSWER;
        }
        if self.hears {
            first |= HEARS;
        }
        if self.echo.is_some() {
            first |= HAS_ECHO;
        }
        let (echo, held) = self.echo.unwrap_or_default();
        let [i0, i1] = self.interval.max(1).to_le_bytes();
        let [s0, s1] = self.seqno.to_le_bytes();
        let [e0, e1] = echo.to_le_bytes();
        let [h0, h1, h2, h3] = u32::try_from(held.as_micros()).unwrap_or(u32::MAX).to_le_bytes();
        let [n0, n1, n2, n3] = self.instance.to_le_bytes();
        [first, self.arrived.min(WINDOW), i0, i1, s0, s1, e0, e1, h0, h1, h2, h3, n0, n1, n2, n3]
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Probe> {
        let bytes: &[u8; PROBE_LEN] = bytes.try_into().ok()?;
        let [first, arrived, i0, i1, s0, s1, e0, e1, h0, h1, h2, h3, n0, n1, n2, n3] = *bytes;
        let interval = u16::from_le_bytes([i0, i1]);
        let is_valid =
            first & VERSION_MASK == VERSION && first & 0x80 == 0 && arrived <= WINDOW && interval > 0;
        let echo = u16::from_le_bytes([e0, e1]);
        let held = u32::from_le_bytes([h0, h1, h2, h3]);
        let has_echo = first & HAS_ECHO != 0;
        (is_valid && (has_echo || (echo, held) == (0, 0))).then(|| Probe {
            wants_answer: first & WANTS_ANSWER != 0,
            hears: first & HEARS != 0,
            arrived,
            interval,
            seqno: u16::from_le_bytes([s0, s1]),
            echo: has_echo.then(|| (echo, Duration::from_micros(u64::from(held)))),
            instance: u32::from_le_bytes([n0, n1, n2, n3]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: Probe = Probe {
        wants_answer: true,
        hears: true,
        arrived: 31,
        interval: 20,
        seqno: 0x0102,
        echo: Some((0x0304, Duration::from_micros(0x0506_0708))),
        instance: 0x090a_0b0c,
    };

    /// The bytes of version 1 do not change.
    #[test]
    fn the_recorded_probe_decodes() {
        let recorded = include_bytes!("../../tests/data/liveness_v1.bin");
        assert_eq!(&SAMPLE.encode(), recorded);
        assert_eq!(Probe::decode(recorded), Some(SAMPLE));
    }

    #[test]
    fn each_rule_of_the_format() {
        let valid = SAMPLE.encode();
        let change = |position: usize, byte: u8| {
            let mut bytes = valid;
            bytes[position] = byte;
            Probe::decode(&bytes)
        };
        assert_eq!(Probe::decode(&valid[1..]), None);
        assert_eq!(Probe::decode(&[&valid[..], &[0]].concat()), None);
        assert_eq!(change(0, 0x72), None);
        assert_eq!(change(0, 0xf1), None);
        assert_eq!(change(1, 33), None);
        // An echo without its flag.
        assert_eq!(change(0, 0x31), None);
        let mut bytes = valid;
        (bytes[2], bytes[3]) = (0, 0);
        assert_eq!(Probe::decode(&bytes), None);
        // Every sequence of bytes that decodes has one encoding.
        for position in 0..PROBE_LEN {
            for byte in 0..=255 {
                let mut bytes = valid;
                bytes[position] = byte;
                if let Some(probe) = Probe::decode(&bytes) {
                    assert_eq!(probe.encode(), bytes);
                }
            }
        }
        let plain = Probe { echo: None, wants_answer: false, hears: false, ..SAMPLE };
        assert_eq!(Probe::decode(&plain.encode()), Some(plain));
    }
}
