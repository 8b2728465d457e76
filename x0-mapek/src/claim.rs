//! Claims: of several healers one acts.
//!
//! A claim is the value of one key in a store with compare-and-swap: a healer writes it when nobody holds it,
//! and the revision of this write is the fence of its action. The store, or the executor beside it, refuses
//! an action whose fence is not the revision of the present claim; so a healer that was stopped half-way
//! cannot finish after another one has taken over.
//!
//! A [`Claim`] names the step at which its action is, so that the healer that takes over knows whether the
//! action was begun. A [`ClaimWatch`] decides when that may be: when the revision has not changed for the
//! lease that the claim states, on the observer's own clock. No clocks are compared.

use std::time::Duration;

use crate::codec::{DecodeError, Decoder, Encoder, cut};

/// The shortest lease that a [`ClaimWatch`] waits for: no holder can renew its claim in less.
pub const LEASE_MIN: Duration = Duration::from_secs(1);
/// The longest lease that a [`ClaimWatch`] waits for: a claim from outside cannot block others for longer.
pub const LEASE_MAX: Duration = Duration::from_secs(600);

/// The step at which an action is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClaimStep {
    /// Nothing was done yet.
    Claimed,
    /// The action was given out: it may have been carried out.
    Executing,
    /// The action was carried out, and waits for its verdict.
    Verifying,
    /// The action is being taken back.
    Undoing,
}

/// A healer's claim on one action.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The healer.
    pub holder: u64,
    /// The number of the action in the loop of the healer.
    pub action: u64,
    /// The kind of the action.
    pub kind: String,
    /// The subject, as its `Debug` form.
    pub subject: String,
    /// The step.
    pub step: ClaimStep,
    /// The time without a new revision after which another healer may take over.
    pub lease: Duration,
}

impl Claim {
    /// A claim on an action of which nothing was done yet, with a lease of 10 s. Texts longer than
    /// [`TEXT_LEN_MAX`](crate::TEXT_LEN_MAX) are cut.
    #[must_use]
    pub fn new(holder: u64, action: u64, kind: &str, subject: &str) -> Claim {
        let (kind, subject) = (cut(kind), cut(subject));
        Claim { holder, action, kind, subject, step: ClaimStep::Claimed, lease: Duration::from_secs(10) }
    }

    /// The canonical bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.number(self.holder);
        encoder.number(self.action);
        encoder.text(&self.kind);
        encoder.text(&self.subject);
        encoder.byte(match self.step {
            ClaimStep::Claimed => 0,
            ClaimStep::Executing => 1,
            ClaimStep::Verifying => 2,
            ClaimStep::Undoing => 3,
        });
        encoder.time(self.lease);
        encoder.finish()
    }

    /// The claim of some bytes.
    ///
    /// # Errors
    /// When the bytes are not exactly one claim.
    pub fn from_bytes(bytes: &[u8]) -> Result<Claim, DecodeError> {
        let mut decoder = Decoder::new("claim", bytes)?;
        let (holder, action) = (decoder.number()?, decoder.number()?);
        let (kind, subject) = (decoder.text()?, decoder.text()?);
        let step = match decoder.byte()? {
            0 => ClaimStep::Claimed,
            1 => ClaimStep::Executing,
            2 => ClaimStep::Verifying,
            3 => ClaimStep::Undoing,
            _ => return Err(decoder.invalid("step")),
        };
        let lease = decoder.time()?;
        decoder.finish()?;
        Ok(Claim { holder, action, kind, subject, step, lease })
    }
}

/// An observer's view of a claim: since when its revision has not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClaimWatch {
    seen: Option<Seen>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    revision: u64,
    since: Duration,
    lease: Duration,
}

impl ClaimWatch {
    /// The observer read the claim with this revision at `now`.
    pub fn observe(&mut self, now: Duration, revision: u64, claim: &Claim) {
        if self.seen.is_none_or(|seen| seen.revision != revision) {
            let lease = claim.lease.clamp(LEASE_MIN, LEASE_MAX);
            self.seen = Some(Seen { revision, since: now, lease });
        }
    }

    /// The observer found no claim.
    pub fn clear(&mut self) {
        self.seen = None;
    }

    /// The revision that may be replaced at `now`: the lease that the claim states has passed since the
    /// observer first saw it.
    #[must_use]
    pub fn expired(&self, now: Duration) -> Option<u64> {
        let seen = self.seen.filter(|seen| now.saturating_sub(seen.since) >= seen.lease)?;
        Some(seen.revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_claim_is_replaced_after_its_lease_on_the_clock_of_the_observer() {
        let mut claim = Claim::new(7, 1, "restart", "3");
        let mut watch = ClaimWatch::default();
        assert_eq!(watch.expired(99 * SECOND), None);
        watch.observe(100 * SECOND, 5, &claim);
        // Reading it again changes nothing; a longer lease needs a new revision.
        claim.lease = 99 * SECOND;
        watch.observe(109 * SECOND, 5, &claim);
        assert_eq!((watch.expired(109 * SECOND), watch.expired(110 * SECOND)), (None, Some(5)));
        watch.observe(110 * SECOND, 6, &Claim { step: ClaimStep::Executing, ..claim.clone() });
        assert_eq!((watch.expired(208 * SECOND), watch.expired(209 * SECOND)), (None, Some(6)));
        // A lease of nothing is one of a second.
        watch.observe(250 * SECOND, 8, &Claim { lease: Duration::ZERO, ..claim.clone() });
        assert_eq!((watch.expired(250 * SECOND), watch.expired(251 * SECOND)), (None, Some(8)));
        // A lease of centuries ends after ten minutes.
        watch.observe(300 * SECOND, 7, &Claim { lease: Duration::MAX, ..claim });
        assert_eq!((watch.expired(899 * SECOND), watch.expired(900 * SECOND)), (None, Some(7)));
        watch.clear();
        assert_eq!(watch.expired(Duration::MAX), None);
    }

    #[test]
    fn bytes_are_canonical() {
        for step in [ClaimStep::Claimed, ClaimStep::Executing, ClaimStep::Verifying, ClaimStep::Undoing] {
            let claim = Claim { step, ..Claim::new(7, u64::MAX, "replace-voter", "member 3") };
            let bytes = claim.to_bytes();
            assert_eq!(Claim::from_bytes(&bytes), Ok(claim));
            for end in 0..bytes.len() {
                assert_eq!(
                    Claim::from_bytes(&bytes[..end]),
                    Err(DecodeError::Cut { object: "claim", offset: end })
                );
            }
        }
        let mut bytes = Claim::new(1, 1, "", "").to_bytes();
        bytes[19] = 4;
        let expect = "the claim has an invalid step before byte 20: it is damaged";
        assert_eq!(Claim::from_bytes(&bytes).unwrap_err().to_string(), expect);
    }
}
