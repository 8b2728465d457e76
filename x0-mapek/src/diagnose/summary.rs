//! Summaries: what one observer says of the members.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::codec::{DecodeError, Decoder, Encoder};

/// The most sightings of a summary.
pub const SIGHTINGS_MAX: usize = 64;

/// The writer of a summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Observer {
    /// A member.
    Member(u64),
    /// A client, by a number of its own.
    Client(u64),
}

/// How an observer sees a member.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Sighting {
    /// The time since the last message or answer of the member.
    pub silent: Duration,
    /// The latency of calls to the member, divided by its usual latency. `None` without calls.
    pub slowness: Option<f64>,
    /// Calls that timed out since the last summary.
    pub timeouts: u32,
    /// The host of the member answers that nothing listens.
    pub is_closed: bool,
    /// The identity of the member was refused: not trusted, expired, or another one than expected.
    pub is_refused: bool,
}

/// What a member knows of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OwnState {
    /// The age of the oldest write that is not yet durable.
    pub durable_age: Duration,
    /// Whether its disk is full.
    pub is_disk_full: bool,
}

/// What one observer says. It is true as of the time at which it was made; the board counts its age from its
/// arrival.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// The observer.
    pub observer: Observer,
    /// Grows with each summary of the observer.
    pub sequence: u64,
    /// The [`LocalHealth`](crate::detect::LocalHealth) score of the observer: 0 is healthy.
    pub lateness: u32,
    /// What a member knows of itself.
    pub own: OwnState,
    /// The members, by number; at most [`SIGHTINGS_MAX`].
    sightings: BTreeMap<u64, Sighting>,
}

impl Summary {
    /// A summary of a healthy observer that sees nothing.
    #[must_use]
    pub fn new(observer: Observer, sequence: u64) -> Summary {
        let own = OwnState::default();
        Summary { observer, sequence, lateness: 0, own, sightings: BTreeMap::new() }
    }

    /// Sets [`lateness`](Summary::lateness).
    #[must_use]
    pub fn lateness(mut self, lateness: u32) -> Summary {
        self.lateness = lateness;
        self
    }

    /// Sets [`own`](Summary::own).
    #[must_use]
    pub fn own(mut self, own: OwnState) -> Summary {
        self.own = own;
        self
    }

    /// Adds a member. Beyond [`SIGHTINGS_MAX`] it is left out.
    #[must_use]
    pub fn sighting(mut self, member: u64, sighting: Sighting) -> Summary {
        if self.sightings.len() < SIGHTINGS_MAX || self.sightings.contains_key(&member) {
            self.sightings.insert(member, sighting);
        }
        self
    }

    /// The members that the observer sees.
    #[must_use]
    pub fn sightings(&self) -> &BTreeMap<u64, Sighting> {
        &self.sightings
    }

    /// The canonical bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        let (kind, number) = match self.observer {
            Observer::Member(member) => (0, member),
            Observer::Client(client) => (1, client),
        };
        encoder.byte(kind);
        encoder.number(number);
        encoder.number(self.sequence);
        encoder.number(u64::from(self.lateness));
        encoder.time(self.own.durable_age);
        encoder.presence(self.own.is_disk_full);
        encoder.count(self.sightings.len());
        for (member, sighting) in &self.sightings {
            encoder.number(*member);
            encoder.time(sighting.silent);
            encoder.presence(sighting.slowness.is_some());
            if let Some(slowness) = sighting.slowness {
                encoder.value(slowness);
            }
            encoder.number(u64::from(sighting.timeouts));
            encoder.presence(sighting.is_closed);
            encoder.presence(sighting.is_refused);
        }
        encoder.finish()
    }

    /// The summary of some bytes.
    ///
    /// # Errors
    /// When the bytes are not exactly one summary.
    pub fn from_bytes(bytes: &[u8]) -> Result<Summary, DecodeError> {
        let mut decoder = Decoder::new("summary", bytes)?;
        let kind = decoder.byte()?;
        let number = decoder.number()?;
        let observer = match kind {
            0 => Observer::Member(number),
            1 => Observer::Client(number),
            _ => return Err(decoder.invalid("observer")),
        };
        let sequence = decoder.number()?;
        let lateness = small(&mut decoder, "lateness")?;
        let own = OwnState { durable_age: decoder.time()?, is_disk_full: decoder.is_present()? };
        let count = decoder.count(SIGHTINGS_MAX, "number of sightings")?;
        let mut sightings = BTreeMap::new();
        for _ in 0..count {
            let member = decoder.number()?;
            // In order and once each: one form of bytes.
            if sightings.last_key_value().is_some_and(|(last, _)| *last >= member) {
                return Err(decoder.invalid("order of sightings"));
            }
            let silent = decoder.time()?;
            let slowness = if decoder.is_present()? { Some(decoder.value()?) } else { None };
            let timeouts = small(&mut decoder, "number of timeouts")?;
            let (is_closed, is_refused) = (decoder.is_present()?, decoder.is_present()?);
            sightings.insert(member, Sighting { silent, slowness, timeouts, is_closed, is_refused });
        }
        decoder.finish()?;
        Ok(Summary { observer, sequence, lateness, own, sightings })
    }
}

/// A number of 32 bits.
fn small(decoder: &mut Decoder<'_>, field: &'static str) -> Result<u32, DecodeError> {
    u32::try_from(decoder.number()?).map_err(|_| decoder.invalid(field))
}
