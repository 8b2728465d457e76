//! The canonical bytes of a record.

use std::time::Duration;

use super::{Event, EvidenceRecord, Record, TEXT_LEN_MAX};
use crate::plan::EVIDENCE_MAX;

const VERSION: u8 = 1;

/// Bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordDecodeError {
    /// The bytes end too early.
    #[error("the record ends at byte {offset}, where more must follow: it was cut")]
    Cut {
        /// The length of the bytes.
        offset: usize,
    },
    /// The version is not known.
    #[error("the record has version {version}, and this build reads version 1: read it with a newer one")]
    Version {
        /// The version.
        version: u8,
    },
    /// A field has a value that no record has.
    #[error("the record has an invalid {field} before byte {offset}: it is damaged")]
    Invalid {
        /// The field.
        field: &'static str,
        /// The offset behind it.
        offset: usize,
    },
    /// Bytes follow the record.
    #[error("{len} bytes follow the record: it is damaged")]
    Trailing {
        /// How many.
        len: usize,
    },
}

mod tag {
    pub(super) const REFUSED: u8 = 1;
    pub(super) const SHADOW: u8 = 2;
    pub(super) const WOULD_EXECUTE: u8 = 3;
    pub(super) const CLAIM_LOST: u8 = 4;
    pub(super) const EXECUTING: u8 = 5;
    pub(super) const EXECUTED: u8 = 6;
    pub(super) const FAILED: u8 = 7;
    pub(super) const IMPROVED: u8 = 8;
    pub(super) const NO_EFFECT: u8 = 9;
    pub(super) const WORSE: u8 = 10;
    pub(super) const UNDOING: u8 = 11;
    pub(super) const UNDONE: u8 = 12;
    pub(super) const ESCALATED: u8 = 13;
}

/// Writes fields.
struct Encoder(Vec<u8>);

impl Encoder {
    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn value(&mut self, value: f64) {
        self.number(value.to_bits());
    }

    fn time(&mut self, time: Duration) {
        self.number(time.as_secs());
        self.0.extend_from_slice(&time.subsec_nanos().to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        let text = super::cut(text);
        // `cut` leaves at most 200 bytes.
        self.byte(u8::try_from(text.len()).unwrap_or(0));
        self.0.extend_from_slice(text.as_bytes());
    }

    fn event(&mut self, event: &Event) {
        let mut verdict = |tag, before: &f64, after: &f64| {
            self.byte(tag);
            self.value(*before);
            self.value(*after);
        };
        match event {
            Event::Improved { before, after } => verdict(tag::IMPROVED, before, after),
            Event::NoEffect { before, after } => verdict(tag::NO_EFFECT, before, after),
            Event::Worse { before, after } => verdict(tag::WORSE, before, after),
            Event::Refused { guard, reason } => {
                self.byte(tag::REFUSED);
                self.text(guard);
                self.text(reason);
            }
            Event::Shadow => self.byte(tag::SHADOW),
            Event::WouldExecute => self.byte(tag::WOULD_EXECUTE),
            Event::ClaimLost => self.byte(tag::CLAIM_LOST),
            Event::Executed => self.byte(tag::EXECUTED),
            Event::Undone => self.byte(tag::UNDONE),
            Event::Executing { fence } => self.fenced(tag::EXECUTING, *fence),
            Event::Undoing { fence } => self.fenced(tag::UNDOING, *fence),
            Event::Failed { reason } => {
                self.byte(tag::FAILED);
                self.text(reason);
            }
            Event::Escalated { reason } => {
                self.byte(tag::ESCALATED);
                self.text(reason);
            }
        }
    }

    fn fenced(&mut self, tag: u8, fence: Option<u64>) {
        self.byte(tag);
        self.byte(u8::from(fence.is_some()));
        if let Some(fence) = fence {
            self.number(fence);
        }
    }
}

/// Reads fields.
struct Decoder<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Decoder<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], RecordDecodeError> {
        let end = self.offset.saturating_add(len);
        let taken =
            self.bytes.get(self.offset..end).ok_or(RecordDecodeError::Cut { offset: self.bytes.len() })?;
        self.offset = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordDecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn invalid(&self, field: &'static str) -> RecordDecodeError {
        RecordDecodeError::Invalid { field, offset: self.offset }
    }

    fn byte(&mut self) -> Result<u8, RecordDecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn number(&mut self) -> Result<u64, RecordDecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    fn value(&mut self) -> Result<f64, RecordDecodeError> {
        self.number().map(f64::from_bits)
    }

    fn time(&mut self) -> Result<Duration, RecordDecodeError> {
        let seconds = self.number()?;
        let nanos = u32::from_le_bytes(self.array()?);
        // A second or more of nanoseconds would be a second form of the same time.
        if nanos >= 1_000_000_000 { Err(self.invalid("time")) } else { Ok(Duration::new(seconds, nanos)) }
    }

    fn text(&mut self) -> Result<String, RecordDecodeError> {
        let len = usize::from(self.byte()?);
        if len > TEXT_LEN_MAX {
            return Err(self.invalid("length of a text"));
        }
        let bytes = self.take(len)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| self.invalid("text"))
    }

    fn is_present(&mut self) -> Result<bool, RecordDecodeError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.invalid("presence")),
        }
    }

    fn fence(&mut self) -> Result<Option<u64>, RecordDecodeError> {
        if self.is_present()? { self.number().map(Some) } else { Ok(None) }
    }

    fn event(&mut self) -> Result<Event, RecordDecodeError> {
        Ok(match self.byte()? {
            tag::REFUSED => Event::Refused { guard: self.text()?, reason: self.text()? },
            tag::SHADOW => Event::Shadow,
            tag::WOULD_EXECUTE => Event::WouldExecute,
            tag::CLAIM_LOST => Event::ClaimLost,
            tag::EXECUTING => Event::Executing { fence: self.fence()? },
            tag::EXECUTED => Event::Executed,
            tag::FAILED => Event::Failed { reason: self.text()? },
            tag::IMPROVED => Event::Improved { before: self.value()?, after: self.value()? },
            tag::NO_EFFECT => Event::NoEffect { before: self.value()?, after: self.value()? },
            tag::WORSE => Event::Worse { before: self.value()?, after: self.value()? },
            tag::UNDOING => Event::Undoing { fence: self.fence()? },
            tag::UNDONE => Event::Undone,
            tag::ESCALATED => Event::Escalated { reason: self.text()? },
            _ => return Err(self.invalid("event")),
        })
    }
}

impl Record {
    /// The canonical bytes; see the [module](self::super).
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut encoder = Encoder(Vec::with_capacity(256));
        encoder.byte(VERSION);
        encoder.number(self.number);
        encoder.time(self.at);
        encoder.number(self.action);
        for text in [&self.policy, &self.kind, &self.subject, &self.cause] {
            encoder.text(text);
        }
        encoder.value(self.confidence);
        encoder.byte(u8::from(self.runner_up.is_some()));
        if let Some((cause, confidence)) = &self.runner_up {
            encoder.text(cause);
            encoder.value(*confidence);
        }
        encoder.value(self.utility);
        let evidence = self.evidence.iter().take(EVIDENCE_MAX);
        encoder.byte(u8::try_from(evidence.len()).unwrap_or(0));
        for EvidenceRecord { signal, value, threshold, age } in evidence {
            encoder.text(signal);
            encoder.value(*value);
            encoder.value(*threshold);
            encoder.time(*age);
        }
        encoder.event(&self.event);
        encoder.0
    }

    /// The record of some bytes.
    ///
    /// # Errors
    /// When the bytes are not exactly one record.
    pub fn from_bytes(bytes: &[u8]) -> Result<Record, RecordDecodeError> {
        let mut decoder = Decoder { bytes, offset: 0 };
        let version = decoder.byte()?;
        if version != VERSION {
            return Err(RecordDecodeError::Version { version });
        }
        let (number, at, action) = (decoder.number()?, decoder.time()?, decoder.number()?);
        let (policy, kind) = (decoder.text()?, decoder.text()?);
        let (subject, cause) = (decoder.text()?, decoder.text()?);
        let confidence = decoder.value()?;
        let runner_up = if decoder.is_present()? { Some((decoder.text()?, decoder.value()?)) } else { None };
        let utility = decoder.value()?;
        let count = usize::from(decoder.byte()?);
        if count > EVIDENCE_MAX {
            return Err(decoder.invalid("number of readings"));
        }
        let mut evidence = Vec::with_capacity(count);
        for _ in 0..count {
            let (signal, value) = (decoder.text()?, decoder.value()?);
            evidence.push(EvidenceRecord {
                signal,
                value,
                threshold: decoder.value()?,
                age: decoder.time()?,
            });
        }
        let event = decoder.event()?;
        let len = bytes.len() - decoder.offset;
        if len > 0 {
            return Err(RecordDecodeError::Trailing { len });
        }
        Ok(Record {
            number,
            at,
            action,
            policy,
            kind,
            subject,
            cause,
            confidence,
            runner_up,
            utility,
            evidence,
            event,
        })
    }
}
