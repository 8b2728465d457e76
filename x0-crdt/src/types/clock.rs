//! [`Clock`]: a hybrid logical clock.

use crate::codec::{ByteReader, Canonical, DecodeError};

/// A timestamp of a hybrid logical clock, later than all timestamps known where it was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp {
    /// Physical time in ms since an epoch that all writers agree on.
    pub time_ms: u64,
    /// Orders the events within one ms.
    pub counter: u32,
}

impl Stamp {
    /// A timestamp.
    #[must_use]
    pub const fn new(time_ms: u64, counter: u32) -> Self {
        Self { time_ms, counter }
    }

    /// The next timestamp. An overflow of the counter advances the time. `None` after the last.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        match (self.counter.checked_add(1), self.time_ms.checked_add(1)) {
            (Some(counter), _) => Some(Self { time_ms: self.time_ms, counter }),
            (None, Some(time_ms)) => Some(Self { time_ms, counter: 0 }),
            (None, None) => None,
        }
    }
}

impl Canonical for Stamp {
    fn encode(&self, out: &mut alloc::vec::Vec<u8>) {
        self.time_ms.encode(out);
        self.counter.encode(out);
    }

    fn decode(input: &mut ByteReader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { time_ms: u64::decode(input)?, counter: u32::decode(input)? })
    }
}

/// Why no timestamp was taken. The clock did not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClockError {
    /// The last timestamp is used up.
    #[error("no timestamp is left: the physical time is at the end of its range; set the system clock")]
    Exhausted,
}

/// The result of observing a timestamp of another replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a timestamp too far ahead shows a broken clock: report it"]
pub enum Observed {
    /// The clock is now at or after it.
    Adopted,
    /// The time is too far ahead of the physical time: the clock did not move.
    TooFarAhead {
        /// How far, in ms.
        ahead_ms: u64,
    },
}

/// A hybrid logical clock (Kulkarni, Demirbas, Madappa, Avva, Leone, "Logical physical clocks", 2014):
/// timestamps close to physical time, each later than all that this replica has taken or seen. It reads no
/// clock itself.
///
/// The distance by which a timestamp of another replica may be ahead is bounded, so that one broken clock
/// cannot advance all others. The paper leaves open what to do with the data under such a timestamp; see
/// [`LwwRegister`](crate::types::LwwRegister).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clock {
    last: Stamp,
    ahead_max_ms: u64,
}

impl Clock {
    /// A clock that accepts timestamps of other replicas up to `ahead_max_ms` ahead of the physical time.
    #[must_use]
    pub const fn new(ahead_max_ms: u64) -> Self {
        Self { last: Stamp::new(0, 0), ahead_max_ms }
    }

    /// A clock that goes on after `last`, a stored timestamp: for a restart with a physical clock that was
    /// set back.
    #[must_use]
    pub const fn resume(last: Stamp, ahead_max_ms: u64) -> Self {
        Self { last, ahead_max_ms }
    }

    /// The last timestamp taken or adopted.
    #[must_use]
    pub const fn last(&self) -> Stamp {
        self.last
    }

    /// A timestamp for a local event, later than every one before.
    ///
    /// # Errors
    /// No later timestamp exists. The clock did not change.
    pub fn tick(&mut self, now_ms: u64) -> Result<Stamp, ClockError> {
        self.last = if now_ms > self.last.time_ms {
            Stamp::new(now_ms, 0)
        } else {
            self.last.next().ok_or(ClockError::Exhausted)?
        };
        Ok(self.last)
    }

    /// Observes a timestamp of another replica: the next tick is later, unless it is too far ahead.
    pub fn observe(&mut self, remote: Stamp, now_ms: u64) -> Observed {
        if remote > self.limit(now_ms) {
            return Observed::TooFarAhead { ahead_ms: remote.time_ms.saturating_sub(now_ms) };
        }
        // The paper takes a timestamp for the receipt here; a register needs one only for its next write.
        self.last = self.last.max(remote);
        Observed::Adopted
    }

    /// The latest timestamp to trust. Timestamps of this clock are always within it.
    #[must_use]
    pub fn limit(&self, now_ms: u64) -> Stamp {
        Stamp::new(now_ms.saturating_add(self.ahead_max_ms), u32::MAX).max(self.last)
    }
}
