//! The messages between detectors.
//!
//! A message is the version (1), its kind, and its fields; see the codec of the crate.

use std::collections::BTreeSet;

use crate::codec::{DecodeError, Decoder, Encoder};

/// The most members that a report accuses. A juror has six members to judge.
pub(super) const ACCUSED_MAX: usize = 8;

/// A message of a detector. Each is a sign of life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    Heartbeat,
    /// A request for an answer with the same number.
    Probe {
        number: u64,
    },
    Answer {
        number: u64,
        /// Whether the sender stands by all accusations of its report as of this message.
        is_sure: bool,
        report: Report,
    },
    /// A request to probe a member.
    Doubt {
        member: u64,
    },
    Report(Report),
}

/// The members that a juror accuses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Report {
    /// Differs from one start of the juror's process to the next.
    pub(super) instance: u64,
    /// Grows with each change of the report.
    pub(super) sequence: u64,
    pub(super) accused: BTreeSet<u64>,
}

const OBJECT: &str = "suspicion message";

impl Message {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        match self {
            Message::Heartbeat => encoder.byte(0),
            Message::Probe { number } => {
                encoder.byte(1);
                encoder.number(*number);
            }
            Message::Answer { number, is_sure, report } => {
                encoder.byte(2);
                encoder.number(*number);
                encoder.presence(*is_sure);
                report.encode(&mut encoder);
            }
            Message::Doubt { member } => {
                encoder.byte(3);
                encoder.number(*member);
            }
            Message::Report(report) => {
                encoder.byte(4);
                report.encode(&mut encoder);
            }
        }
        encoder.finish()
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Message, DecodeError> {
        let mut decoder = Decoder::new(OBJECT, bytes)?;
        let message = match decoder.byte()? {
            0 => Message::Heartbeat,
            1 => Message::Probe { number: decoder.number()? },
            2 => Message::Answer {
                number: decoder.number()?,
                is_sure: decoder.is_present()?,
                report: Report::decode(&mut decoder)?,
            },
            3 => Message::Doubt { member: decoder.number()? },
            4 => Message::Report(Report::decode(&mut decoder)?),
            _ => return Err(decoder.invalid("kind")),
        };
        decoder.finish()?;
        Ok(message)
    }
}

impl Report {
    fn encode(&self, encoder: &mut Encoder) {
        encoder.number(self.instance);
        encoder.number(self.sequence);
        let accused = self.accused.iter().take(ACCUSED_MAX);
        encoder.count(accused.len());
        accused.for_each(|member| encoder.number(*member));
    }

    fn decode(decoder: &mut Decoder<'_>) -> Result<Report, DecodeError> {
        let (instance, sequence) = (decoder.number()?, decoder.number()?);
        let mut accused = BTreeSet::new();
        for _ in 0..decoder.count(ACCUSED_MAX, "number of accused members")? {
            let member = decoder.number()?;
            // In order and once each: one form of bytes.
            if accused.last().is_some_and(|last| *last >= member) {
                return Err(decoder.invalid("order of accused members"));
            }
            accused.insert(member);
        }
        Ok(Report { instance, sequence, accused })
    }
}
