//! [`Replicated`]: the states that sessions synchronize.

use alloc::vec::Vec;
use core::fmt::Debug;
use core::time::Duration;

use super::{Members, SessionError};
use crate::map::{Frontier, HistoryError};
use crate::{Dot, HashKey, ReplicaId, Version};

/// A replica's whole state, as a [`Session`](super::Session) synchronizes it: a
/// [`CausalMap`](crate::CausalMap), or a [`CausalReplica`](crate::CausalReplica) of any composed type. Both
/// behave alike under loss, churn and restarts.
///
/// The trait is sealed: the transfer methods of its private supertrait may change with the protocol.
pub trait Replicated: Transfer {
    /// The replica that writes here.
    fn replica(&self) -> ReplicaId;

    /// The key that the members hash with.
    fn hash_key(&self) -> HashKey;

    /// The events seen.
    fn version(&self) -> Version;

    /// The hashes of version and content, to compare with other replicas.
    fn frontier(&self) -> Frontier;

    /// The members of the group and the version that each has seen.
    fn members(&self) -> &Members;

    /// The members, to be changed.
    fn members_mut(&mut self) -> &mut Members;

    /// Collects the tombstones and the history of events up to `stable`, which every member has seen.
    fn collect_tombstones(&mut self, stable: &Version);

    /// Counts a heartbeat of this replica, expires members whose lease is over, and collects the tombstones
    /// that all others have seen.
    ///
    /// The caller repeats it several times per lease.
    fn heartbeat(&mut self, now: Duration) {
        let (replica, version) = (self.replica(), self.version());
        let members = self.members_mut();
        members.heartbeat(now, replica, version);
        members.expire(now);
        if let Some(stable) = members.stable() {
            self.collect_tombstones(&stable);
        }
    }
}

/// The part of a replicated state that only sessions call.
pub trait Transfer {
    /// The result of a join, for the driver.
    type Joined: Clone + Debug + PartialEq;

    /// How many values are held.
    fn value_count(&self) -> usize;

    /// How often contents have changed without an event: by the resolution of one event with two contents, or
    /// by an eviction. A set reconciliation that began before such a change does not hold any more.
    fn resolutions(&self) -> u64;

    /// The keyed hash of each value held, with its dot: the items of a set reconciliation.
    fn item_hashes(&self) -> impl Iterator<Item = (u64, Dot)>;

    /// The delta since `since` from history, encoded for a receiver that knows `since`.
    fn encode_since(&self, since: &Version) -> Result<Vec<u8>, HistoryError>;

    /// All that is held, encoded for a receiver that knows `since`.
    fn encode_complete(&self, since: &Version) -> Vec<u8>;

    /// The values with these hashes (sorted), and all that changed since `since` and since `sketched`.
    fn encode_chosen(
        &self,
        since: &Version,
        sketched: &Version,
        hashes: &[u64],
    ) -> Result<Vec<u8>, HistoryError>;

    /// Joins an encoded delta whole, or nothing of it. `absent` names the values held here that the sender
    /// does not hold: they are dropped if the sender had seen them. Returns the sender's version and what the
    /// join did.
    fn join_encoded(
        &mut self,
        bytes: &[u8],
        base: &Version,
        absent: impl FnOnce(&Self) -> Vec<Dot>,
    ) -> Result<(Version, Self::Joined), SessionError>;
}
