//! [`Renewals`]: when a replica goes on as a fresh incarnation.

use core::time::Duration;

/// When a replica goes on as a fresh incarnation ([`Replicated::renew`](crate::Replicated::renew)), while
/// peers claim events of it that it does not have ([`JoinError::Impostor`](crate::JoinError::Impostor)).
///
/// Each incarnation counts in the version of every replica for ever, and a member that forges events can
/// demand one after the other. So a second renewal waits for `pause_min`, and each further one twice as long,
/// up to a lease; after a lease without a claim the next one waits for nothing again. A claim that came
/// meanwhile is not forgotten: the renewal is due when the pause ends. [`Peers`](crate::Peers) keeps this
/// rule; a driver that owns its sessions keeps it with this type.
///
/// Times are since any origin and never go back.
/// ```
/// use core::time::Duration;
/// use x0_crdt::Renewals;
///
/// let (pause_min, lease) = (Duration::from_secs(10), Duration::from_secs(60));
/// let mut renewals = Renewals::default();
/// renewals.claim(Duration::ZERO, lease);
/// assert!(renewals.take(Duration::ZERO, pause_min, lease), "the first one waits for nothing");
/// renewals.claim(Duration::from_secs(1), lease);
/// assert!(!renewals.take(Duration::from_secs(1), pause_min, lease));
/// assert_eq!(renewals.poll_timeout(), Some(pause_min));
/// assert!(renewals.take(pause_min, pause_min, lease));
/// ```
#[derive(Debug, Clone, Default)]
pub struct Renewals {
    /// A peer has claimed events of the current incarnation that this replica has not written.
    is_claimed: bool,
    /// When a peer last did.
    claimed_at: Option<Duration>,
    /// Not before this time, and the pause before it.
    allowed_at: Duration,
    pause: Duration,
}

impl Renewals {
    /// Notes that a peer claims events of the current incarnation that the replica does not have. `lease` is
    /// that of the [`Members`](crate::Members).
    pub fn claim(&mut self, now: Duration, lease: Duration) {
        if self.claimed_at.is_none_or(|at| now.saturating_sub(at) > lease) {
            (self.allowed_at, self.pause) = (now, Duration::ZERO);
        }
        (self.is_claimed, self.claimed_at) = (true, Some(now));
    }

    /// When the next renewal is due: call [`take`](Self::take) at that time. `None` while no peer claims
    /// anything.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.is_claimed.then_some(self.allowed_at)
    }

    /// Whether a renewal is due. If so, it counts as done, and the next one waits: for `pause_min` at first.
    #[must_use]
    pub fn take(&mut self, now: Duration, pause_min: Duration, lease: Duration) -> bool {
        if self.poll_timeout().is_none_or(|at| now < at) {
            return false;
        }
        self.is_claimed = false;
        self.pause = self.pause.saturating_mul(2).max(pause_min).min(lease);
        self.allowed_at = now.saturating_add(self.pause);
        true
    }
}
