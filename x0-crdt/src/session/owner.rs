//! [`Owner`]: the session that fetches the ranges of a stage.

use core::time::Duration;

use super::replicated::StageBegin;

/// The owner of a stage for which no session fetches.
const FREE: u64 = 0;

/// The number of the session that fetches the ranges of a stage, and when it last brought one. None after a
/// restart.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Owner(Option<(u64, Duration)>);

/// How a session that may fetch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// With the next range of the stage that there is.
    Next,
    /// With a new stage.
    Restarted,
}

impl Owner {
    pub(crate) const fn new(number: u64, now: Duration) -> Self {
        Self(Some((number, now)))
    }

    /// Whether the session with the number `claim` may fetch: the next ranges of the stage `of` this owner
    /// or, with `renew`, those of a new one. A stage for which another session fetches is left to it until it
    /// has brought nothing for `patience`.
    pub(crate) fn claim(
        of: Option<&mut Self>,
        now: Duration,
        claim: Option<u64>,
        patience: Duration,
        renew: bool,
    ) -> Result<Claim, StageBegin> {
        let claimed = if renew { Claim::Restarted } else { Claim::Next };
        match of {
            None if renew => Ok(claimed),
            None => Err(StageBegin::None),
            // A stage without an owner waits for the peer that it is of.
            Some(owner @ Self(None)) if renew => {
                owner.free(now);
                Err(StageBegin::Busy)
            }
            Some(Self(Some((number, at)))) => {
                let is_other = Some(*number) != claim && (renew || *number != FREE);
                if is_other && now < at.saturating_add(patience) {
                    Err(StageBegin::Busy)
                } else {
                    Ok(claimed)
                }
            }
            Some(Self(None)) => Ok(claimed),
        }
    }

    /// Whether a session with this number fetches.
    pub(crate) fn is(&self, claim: Option<u64>) -> bool {
        claim.is_some() && self.0.map(|(number, _)| number) == claim
    }

    /// Whether the stage was restored, and no session has asked for it since.
    pub(crate) const fn is_restored(&self) -> bool {
        self.0.is_none()
    }

    /// The session has brought a range.
    pub(crate) const fn brought(&mut self, now: Duration) {
        if let Some((_, at)) = &mut self.0 {
            *at = now;
        }
    }

    /// The session fetches no more, because its peer lacks what the stage holds: the stage waits for another
    /// one.
    pub(crate) const fn free(&mut self, now: Duration) {
        self.0 = Some((FREE, now));
    }

    /// Whether nothing was brought for the length of a lease. After a restart the time counts from the first
    /// call.
    pub(crate) fn is_expired(&mut self, now: Duration, lease: Duration) -> bool {
        let (_, at) = *self.0.get_or_insert((FREE, now));
        now.saturating_sub(at) > lease
    }
}
