//! A hybrid logical clock.

use crate::codec::{ByteReader, Canonical, DecodeError};

/// A moment on a hybrid logical clock: later than all that was known where it was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp {
    /// Physical time in ms since an epoch that all writers agree on.
    pub time_ms: u64,
    /// Tells apart what happens within a ms.
    pub counter: u32,
}

impl Stamp {
    /// A moment.
    #[must_use]
    pub const fn new(time_ms: u64, counter: u32) -> Self {
        Self { time_ms, counter }
    }

    /// The next moment. The counter's overflow goes into the time. `None` after the last.
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

/// Why there is no stamp. The clock did not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClockError {
    /// Time is over.
    #[error("there is no moment after the last: check the physical time, which is at the end of its range")]
    Exhausted,
}

/// What became of a stamp from elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a stamp too far ahead is a broken clock somewhere: show it"]
pub enum Observed {
    /// The clock is past it now.
    Adopted,
    /// It is too far ahead of the physical time: the clock did not move.
    TooFarAhead {
        /// How far, in ms.
        ahead_ms: u64,
    },
}

/// A hybrid logical clock (Kulkarni, Demirbas, Madappa, Avva, Leone, "Logical physical clocks", 2014): stamps close to physical time,
/// each later than all that this replica has stamped or seen. It reads no clock itself.
///
/// How far a stamp from elsewhere may be ahead is bounded, so that one broken clock cannot drag all others along. The paper leaves open
/// what to do with the data under such a stamp; see [`LwwRegister`](crate::types::LwwRegister).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clock {
    last: Stamp,
    ahead_max_ms: u64,
}

impl Clock {
    /// A clock that lets stamps from elsewhere be `ahead_max_ms` ahead of the physical time.
    #[must_use]
    pub const fn new(ahead_max_ms: u64) -> Self {
        Self { last: Stamp::new(0, 0), ahead_max_ms }
    }

    /// Goes on after `last`, a stamp that was stored: after a restart with a physical clock that was set back.
    #[must_use]
    pub const fn resume(last: Stamp, ahead_max_ms: u64) -> Self {
        Self { last, ahead_max_ms }
    }

    /// The last stamp taken or adopted.
    #[must_use]
    pub const fn last(&self) -> Stamp {
        self.last
    }

    /// A stamp for a local event, later than every one before.
    ///
    /// # Errors
    /// There is no later one. The clock did not change.
    pub fn tick(&mut self, now_ms: u64) -> Result<Stamp, ClockError> {
        self.last = if now_ms > self.last.time_ms {
            Stamp::new(now_ms, 0)
        } else {
            self.last.next().ok_or(ClockError::Exhausted)?
        };
        Ok(self.last)
    }

    /// Takes notice of a stamp from elsewhere: the next tick is later, unless it is too far ahead.
    pub fn observe(&mut self, remote: Stamp, now_ms: u64) -> Observed {
        if remote > self.limit(now_ms) {
            return Observed::TooFarAhead { ahead_ms: remote.time_ms.saturating_sub(now_ms) };
        }
        // The paper takes a stamp for the receipt here; a register needs one only for what is written next.
        self.last = self.last.max(remote);
        Observed::Adopted
    }

    /// The latest stamp to trust. Own stamps are always within it.
    #[must_use]
    pub fn limit(&self, now_ms: u64) -> Stamp {
        Stamp::new(now_ms.saturating_add(self.ahead_max_ms), u32::MAX).max(self.last)
    }
}
