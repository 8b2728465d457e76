//! The canonical bytes of a record.

use super::{AlternativeRecord, Event, EvidenceRecord, Record};
use crate::action::Disruption;
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::plan::{ALTERNATIVES_MAX, EVIDENCE_MAX};

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

impl Event {
    fn encode(&self, encoder: &mut Encoder) {
        let verdict = |encoder: &mut Encoder, tag, before: &f64, after: &f64| {
            encoder.byte(tag);
            encoder.value(*before);
            encoder.value(*after);
        };
        let fenced = |encoder: &mut Encoder, tag, fence: Option<u64>| {
            encoder.byte(tag);
            encoder.presence(fence.is_some());
            if let Some(fence) = fence {
                encoder.number(fence);
            }
        };
        match self {
            Event::Improved { before, after } => verdict(encoder, tag::IMPROVED, before, after),
            Event::NoEffect { before, after } => verdict(encoder, tag::NO_EFFECT, before, after),
            Event::Worse { before, after } => verdict(encoder, tag::WORSE, before, after),
            Event::Refused { guard, reason } => {
                encoder.byte(tag::REFUSED);
                encoder.text(guard);
                encoder.text(reason);
            }
            Event::Shadow => encoder.byte(tag::SHADOW),
            Event::WouldExecute => encoder.byte(tag::WOULD_EXECUTE),
            Event::ClaimLost => encoder.byte(tag::CLAIM_LOST),
            Event::Executed => encoder.byte(tag::EXECUTED),
            Event::Undone => encoder.byte(tag::UNDONE),
            Event::Executing { fence } => fenced(encoder, tag::EXECUTING, *fence),
            Event::Undoing { fence } => fenced(encoder, tag::UNDOING, *fence),
            Event::Failed { reason } => {
                encoder.byte(tag::FAILED);
                encoder.text(reason);
            }
            Event::Escalated { reason } => {
                encoder.byte(tag::ESCALATED);
                encoder.text(reason);
            }
        }
    }

    fn decode(decoder: &mut Decoder<'_>) -> Result<Event, DecodeError> {
        let fence = |decoder: &mut Decoder<'_>| {
            if decoder.is_present()? { decoder.number().map(Some) } else { Ok(None) }
        };
        Ok(match decoder.byte()? {
            tag::REFUSED => Event::Refused { guard: decoder.text()?, reason: decoder.text()? },
            tag::SHADOW => Event::Shadow,
            tag::WOULD_EXECUTE => Event::WouldExecute,
            tag::CLAIM_LOST => Event::ClaimLost,
            tag::EXECUTING => Event::Executing { fence: fence(decoder)? },
            tag::EXECUTED => Event::Executed,
            tag::FAILED => Event::Failed { reason: decoder.text()? },
            tag::IMPROVED => Event::Improved { before: decoder.value()?, after: decoder.value()? },
            tag::NO_EFFECT => Event::NoEffect { before: decoder.value()?, after: decoder.value()? },
            tag::WORSE => Event::Worse { before: decoder.value()?, after: decoder.value()? },
            tag::UNDOING => Event::Undoing { fence: fence(decoder)? },
            tag::UNDONE => Event::Undone,
            tag::ESCALATED => Event::Escalated { reason: decoder.text()? },
            _ => return Err(decoder.invalid("event")),
        })
    }
}

impl Record {
    /// The canonical bytes; see the [module](self::super).
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.number(self.number);
        encoder.time(self.at);
        encoder.number(self.round);
        encoder.number(self.action);
        for text in [&self.policy, &self.kind, &self.subject, &self.cause] {
            encoder.text(text);
        }
        encoder.byte(match self.disruption {
            Disruption::None => 0,
            Disruption::Brief => 1,
            Disruption::Irreversible => 2,
        });
        encoder.value(self.confidence);
        encoder.presence(self.runner_up.is_some());
        if let Some((cause, confidence)) = &self.runner_up {
            encoder.text(cause);
            encoder.value(*confidence);
        }
        encoder.value(self.utility);
        encoder.value(self.penalty);
        encoder.value(self.improvement);
        encoder.time(self.within);
        let evidence = self.evidence.iter().take(EVIDENCE_MAX);
        encoder.count(evidence.len());
        for EvidenceRecord { signal, value, threshold, age } in evidence {
            encoder.text(signal);
            encoder.value(*value);
            encoder.value(*threshold);
            encoder.time(*age);
        }
        let alternatives = self.alternatives.iter().take(ALTERNATIVES_MAX);
        encoder.count(alternatives.len());
        for AlternativeRecord { kind, utility } in alternatives {
            encoder.text(kind);
            encoder.value(*utility);
        }
        self.event.encode(&mut encoder);
        encoder.finish()
    }

    /// The record of some bytes.
    ///
    /// # Errors
    /// When the bytes are not exactly one record.
    pub fn from_bytes(bytes: &[u8]) -> Result<Record, DecodeError> {
        let mut decoder = Decoder::new("record", bytes)?;
        let (number, at) = (decoder.number()?, decoder.time()?);
        let (round, action) = (decoder.number()?, decoder.number()?);
        let (policy, kind) = (decoder.text()?, decoder.text()?);
        let (subject, cause) = (decoder.text()?, decoder.text()?);
        let disruption = match decoder.byte()? {
            0 => Disruption::None,
            1 => Disruption::Brief,
            2 => Disruption::Irreversible,
            _ => return Err(decoder.invalid("disruption")),
        };
        let confidence = decoder.value()?;
        let runner_up = if decoder.is_present()? { Some((decoder.text()?, decoder.value()?)) } else { None };
        let (utility, penalty, improvement) = (decoder.value()?, decoder.value()?, decoder.value()?);
        let within = decoder.time()?;
        let count = decoder.count(EVIDENCE_MAX, "number of readings")?;
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
        let count = decoder.count(ALTERNATIVES_MAX, "number of alternatives")?;
        let mut alternatives = Vec::with_capacity(count);
        for _ in 0..count {
            alternatives.push(AlternativeRecord { kind: decoder.text()?, utility: decoder.value()? });
        }
        let event = Event::decode(&mut decoder)?;
        decoder.finish()?;
        Ok(Record {
            number,
            at,
            round,
            action,
            policy,
            kind,
            subject,
            cause,
            disruption,
            confidence,
            runner_up,
            utility,
            penalty,
            improvement,
            within,
            evidence,
            alternatives,
            event,
        })
    }
}
