//! [`Replicated`]: the states that sessions synchronize.

use alloc::vec::Vec;
use core::fmt::Debug;
use core::time::Duration;

use super::{Members, SessionError};
use crate::map::{Frontier, HistoryError, JoinError};
use crate::{Dot, HashKey, ReplicaId, Version};

/// A replica's whole state, as a [`Session`](super::Session) synchronizes it: a
/// [`CausalMap`](crate::CausalMap), or a [`CausalReplica`](crate::CausalReplica) of any composed type. Both
/// behave alike under loss, churn and restarts.
///
/// The trait is sealed: the transfer methods of its private supertrait may change with the protocol.
pub trait Replicated: Transfer {
    /// The replica that writes here.
    fn replica(&self) -> ReplicaId;

    /// Goes on as another incarnation of the same node, which was never used: for a replica that has lost its
    /// last events, see [`CausalMap::renew`](crate::CausalMap::renew).
    fn renew(&mut self, incarnation: u32);

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

    /// Collects what [`collect_tombstones`](Self::collect_tombstones) does, of a long history a part: the
    /// caller repeats it, and no call takes long.
    fn collect_part(&mut self, stable: &Version) {
        self.collect_tombstones(stable);
    }

    /// Counts a heartbeat of this replica, expires members whose lease is over, and collects tombstones that
    /// all others have seen: of a long history a part, so that no heartbeat takes long.
    ///
    /// The caller repeats it several times per lease.
    fn heartbeat(&mut self, now: Duration) {
        let (replica, version) = (self.replica(), self.version());
        let members = self.members_mut();
        members.heartbeat(now, replica, version);
        members.expire(now);
        self.expire_stage(now);
        if let Some(stable) = self.members().stable() {
            self.collect_part(&stable);
        }
    }
}

/// The most bytes of a delta that is sent at once: more come by key ranges, or by slices.
pub(crate) const WHOLE_LEN_MAX: usize = 4 << 20;

/// Whether a session may fetch ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StageBegin {
    /// There is no stage, or the state has none at all.
    None,
    /// Another session fetches.
    Busy,
    /// The session may fetch, under this number.
    Ready(u64),
}

/// What became of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StageTaken {
    /// The range is in the stage; with the record for a journal.
    Taken(Vec<u8>),
    /// The range does not continue the stage.
    Foreign,
}

/// What a part of the work on a stage has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StageStep<J> {
    /// There is nothing to do before the next range.
    Idle,
    /// There is more to do.
    Busy,
    /// The stage has replaced the state, and with it brought this version of the peer.
    Done(Version, J),
    /// More of the keys that it has changed.
    Report(J),
    /// The stage does not fit this replica, and was dropped.
    Failed(JoinError),
}

/// Where a delta is from, and with it what it says of values that are not in it.
#[derive(Debug, Clone)]
pub enum JoinSource {
    /// From history: nothing.
    History,
    /// The new values alone, from [`Transfer::encode_news`]: the peer holds them, and what is held here.
    News,
    /// A reconciliation: the peer does not hold these values, at their keys.
    Chosen(Vec<(Vec<u8>, Dot)>),
}

/// What became of a part of the join of a delta.
#[derive(Debug)]
pub enum JoinStep<J, W> {
    /// Nothing was joined: the peer has lost values that its new ones do not replace, or the reconciliation
    /// is out of date.
    Unfit,
    /// There is more to do, with this.
    More(W),
    /// The delta was joined whole. With the version of its sender.
    Done(Version, J),
}

/// What became of a part of the making of a delta.
#[derive(Debug)]
pub enum GatherStep<W> {
    /// There is more to do, with this.
    More(W),
    /// The encoded delta.
    Done(Vec<u8>),
    /// The delta is too long to be made: the state is sent by key ranges.
    Long,
}

/// The result of a pass over a state.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// The version at the beginning of the pass: the values of later events are in history.
    pub begin: Version,
    /// The keys of the values, of a state that has keys.
    pub keys: Vec<Vec<u8>>,
}

/// The part of a replicated state that only sessions call.
pub trait Transfer {
    /// The result of a join, for the driver.
    type Joined: Clone + Debug + PartialEq;

    /// A delta that is being joined in steps.
    type Joining: Debug;

    /// A delta that is being made in steps.
    type Gathering: Debug;

    /// The most bytes of a range.
    const RANGE_LEN_MAX: usize = 1 << 19;

    /// The keys that a join has changed, of a state that has keys.
    fn changed_keys(_joined: &Self::Joined) -> &[Vec<u8>] {
        &[]
    }

    /// The keys of the events that are not in `since`, of a state that has keys.
    fn written_keys(&self, _since: &Version) -> Vec<Vec<u8>> {
        Vec::new()
    }

    /// How many values are held.
    fn value_count(&self) -> usize;

    /// How often contents have changed without an event: by the resolution of one event with two contents, or
    /// by an eviction. A set reconciliation that began before such a change does not hold any more.
    fn resolutions(&self) -> u64;

    /// Visits the values held: the key, the dot and the keyed hash of each, which are the items of a set
    /// reconciliation. Goes on after the key `at`, with about `count` values, and notes there how far it
    /// came. Returns whether there are more. A state without keys is visited whole.
    fn visit(
        &self,
        at: &mut Option<Vec<u8>>,
        count: usize,
        visit: impl FnMut(&[u8], Dot, &dyn Fn() -> u64),
    ) -> bool;

    /// The values held of events that are not in `since`, with their keys. `None` if they are not known
    /// without a pass over the state.
    fn written_since(&self, _since: &Version) -> Option<Vec<(Vec<u8>, Dot)>> {
        None
    }

    /// The delta since `since` from history, encoded for a receiver that knows `since`.
    fn encode_since(&self, since: &Version) -> Result<Vec<u8>, HistoryError>;

    /// As [`encode_since`](Self::encode_since), for a receiver that may find keys by the values that it holds
    /// at them.
    fn encode_named_since(&self, since: &Version) -> Result<Vec<u8>, HistoryError> {
        self.encode_since(since)
    }

    /// All that is held, encoded for a receiver that knows `since`.
    fn encode_complete(&self, since: &Version) -> Vec<u8>;

    /// The values with these hashes (sorted), and all that changed since `since` and since `sketched`: with
    /// `whole` keys, or for a receiver that may find keys by the values that it holds at them. A pass has
    /// `found` the values with the hashes, and those of events that are not in `since`.
    fn encode_chosen(
        &self,
        since: &Version,
        sketched: &Version,
        hashes: &[u64],
        whole: bool,
        found: &Found,
    ) -> Result<Vec<u8>, HistoryError>;

    /// Removes the hashes (sorted) of values that this side has replaced itself, as far as it remembers.
    fn forget_replaced(&self, _hashes: &mut Vec<u64>) {}

    /// Whether the state can be sent by its new values alone.
    fn has_news(&self) -> bool {
        false
    }

    /// The values of events that are not in `since`, and the hash of all that is held. `whole`: with whole
    /// keys. A pass has `found` them.
    fn encode_news(
        &self,
        _since: &Version,
        _whole: bool,
        _found: &Found,
    ) -> Option<Result<Vec<u8>, HistoryError>> {
        None
    }

    /// Whether the state can be sent by key ranges.
    fn has_ranges(&self) -> bool {
        false
    }

    /// Whether the delta since `since`, or a complete one, is too long to be made at once.
    fn is_long(&self, _since: &Version, _complete: bool) -> bool {
        false
    }

    /// What is held at the keys from `from` on that a receiver with `since` lacks, in about `len_max` bytes.
    /// `None` if the state has no ranges.
    fn encode_range(&self, _since: &Version, _from: &[u8], _len_max: usize) -> Option<Vec<u8>> {
        None
    }

    /// Lets a session fetch ranges: the next ones of a stage that has none for `patience`, or of a new one if
    /// it may `renew` it.
    fn begin_stage(
        &mut self,
        _now: Duration,
        _claim: Option<u64>,
        _patience: Duration,
        _renew: bool,
    ) -> StageBegin {
        StageBegin::None
    }

    /// The version and the key from which the stage needs the next range.
    fn stage_needs(&self) -> Option<(Version, Vec<u8>)> {
        None
    }

    /// Takes a range into the stage.
    fn take_range(
        &mut self,
        _now: Duration,
        _claim: Option<u64>,
        _bytes: &[u8],
    ) -> Result<StageTaken, SessionError> {
        Ok(StageTaken::Foreign)
    }

    /// Whether keys that a stage has changed were not reported yet.
    fn has_reports(&self) -> bool {
        false
    }

    /// Does a bounded part of the work on the stage.
    fn step_stage(&mut self) -> StageStep<Self::Joined> {
        StageStep::Idle
    }

    /// Drops a stage to which nothing was brought for long.
    fn expire_stage(&mut self, _now: Duration) {}

    /// Makes the delta since `since` from history, encoded for a receiver that knows `since`: with `whole`
    /// keys, or for one that may find keys by the values that it holds at them. A long one is made in steps
    /// of about `items_max` items, and is of the moment of the last one.
    fn begin_gather(
        &mut self,
        since: &Version,
        whole: bool,
        items_max: usize,
    ) -> Result<GatherStep<Self::Gathering>, HistoryError>;

    /// Makes a part of a delta.
    fn step_gather(
        &mut self,
        gathering: Self::Gathering,
    ) -> Result<GatherStep<Self::Gathering>, HistoryError>;

    /// Joins an encoded delta that is not complete whole, or nothing of it. One that is too long for that is
    /// joined in steps of about `items_max` items, and nothing of it is visible before the last one.
    fn begin_join(
        &mut self,
        bytes: &[u8],
        base: &Version,
        source: JoinSource,
        items_max: usize,
    ) -> Result<JoinStep<Self::Joined, Self::Joining>, SessionError>;

    /// Does a part of a join.
    fn step_join(
        &mut self,
        joining: Self::Joining,
    ) -> Result<JoinStep<Self::Joined, Self::Joining>, SessionError>;

    /// Joins an encoded delta whole, or nothing of it. `absent` names the values held here that the sender
    /// does not hold, with their keys: they are dropped if the sender had seen them. Returns the sender's
    /// version and what the join did.
    fn join_encoded(
        &mut self,
        bytes: &[u8],
        base: &Version,
        absent: impl FnOnce(&Self) -> Vec<(Vec<u8>, Dot)>,
    ) -> Result<(Version, Self::Joined), SessionError>;
}
