//! The stage: a state that arrives slice by slice, beside the replica, until it can be joined as one delta.
//!
//! The slices of a pass are of the events from the first to the last. The peer changes meanwhile, so further
//! passes bring what has changed since the pass before, until one pass is of a single moment. Then the stage
//! holds exactly what one delta of that moment would, and is joined as such: a version has no gaps, and
//! readers see all of a change or nothing.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use super::slice::{Slice, named};
use super::transfer::{StateDelta, context};
use super::{CausalReplica, Items, StateJoined};
use crate::codec::{ByteReader, Canonical, DecodeError};
use crate::map::{DeltaExtent, RestoreError};
use crate::session::{Claim, Owner, StageBegin, StageStep, StageTaken};
use crate::types::causal::check_dots;
use crate::types::context::Context;
use crate::types::lattice::Lattice;
use crate::types::store::{DotStore, JoinScope, StoreForm};
use crate::{Dot, SessionError, Version};

/// See the [module](self).
#[derive(Debug, Clone)]
pub(super) struct Stage<S> {
    owner: Owner,
    /// The version of the replica when the stage began.
    base: Version,
    /// The version since which the current pass brings changes.
    since: Version,
    /// The peer's version at the first slice of the current pass, and whether the pass is complete: it brings
    /// all that the peer holds.
    first: Option<(Version, bool)>,
    /// All that the peer had seen at any slice.
    upper: Version,
    /// The current pass has brought all events before this one.
    cursor: Option<Dot>,
    /// A complete pass has ended.
    is_complete: bool,
    /// Up to where the peer has collected its history.
    floor: Version,
    history: BTreeMap<Dot, Context>,
    store: S,
    /// The values of `store`.
    items: Items,
    /// The passes have ended: the stage has seen this version of the peer.
    done: Option<Version>,
}

impl<S: DotStore> Stage<S> {
    fn new(base: Version) -> Self {
        Self {
            owner: Owner::default(),
            since: base.clone(),
            base,
            first: None,
            upper: Version::new(),
            cursor: None,
            is_complete: false,
            floor: Version::new(),
            history: BTreeMap::new(),
            store: S::default(),
            items: Items::new(),
            done: None,
        }
    }

    /// The version and the event from which the stage needs the next slice.
    pub(super) fn needs(&self) -> Option<(Version, Vec<u8>)> {
        let mut from = Vec::new();
        if let Some(dot) = &self.cursor {
            dot.encode(&mut from);
        }
        self.done.is_none().then(|| (self.since.clone(), from))
    }

    /// Takes a slice with the values `items`, if it continues the current pass and is of a peer that has seen
    /// all that the stage holds. Returns whether it does.
    fn take(&mut self, slice: Slice<S>, items: Items) -> bool {
        let Slice { span, delta } = slice;
        if span.from != self.cursor || self.done.is_some() || !self.upper.is_within(&delta.version) {
            return false;
        }
        self.upper.join(&delta.version);
        let is_complete = delta.extent == DeltaExtent::Complete;
        let first = self.first.get_or_insert_with(|| (delta.version.clone(), is_complete));
        if first.1 != is_complete {
            // The peer has collected its history: the slices so far do not say what was removed by it.
            (self.cursor, self.first) = (None, None);
            return true;
        }
        // The events that the slice speaks of: their values that it does not hold are gone.
        let mut events = span.events(&delta.version);
        if !is_complete {
            events = events.difference(&context(&self.since));
        }
        for event in named(&self.history, &events) {
            if !delta.history.contains_key(&event) {
                self.history.remove(&event);
            }
        }
        let is_gone = |dot: &Dot| items.get(dot) != self.items.get(dot);
        let mut gone: Context = named(&self.items, &events).into_iter().filter(is_gone).collect();
        for (event, mut killed) in delta.history {
            named(&self.items, &killed).into_iter().for_each(|dot| {
                gone.insert(dot);
            });
            // As in the history of the peer: a record of an event that is gone becomes part of a later one.
            // The later one of a peer that has collected the earlier one between two passes lacks it.
            for folded in named(&self.history, &killed) {
                if let Some(earlier) = self.history.remove(&folded) {
                    killed.join(&earlier);
                }
            }
            self.history.insert(event, killed);
        }
        let nothing = Context::new();
        if !gone.is_empty() {
            self.store.join(&nothing, &S::default(), &gone, JoinScope::States);
            self.items.retain(|dot, _| !gone.contains(*dot));
        }
        self.store.join(&nothing, &delta.store, &nothing, JoinScope::Apply);
        self.items.extend(items);
        if is_complete {
            self.floor.join(&delta.floor);
        }
        self.cursor = span.end;
        if self.cursor.is_none()
            && let Some((first, is_complete)) = self.first.take()
        {
            self.is_complete |= is_complete;
            if first == delta.version {
                self.done = Some(first);
            } else {
                self.since = first;
            }
        }
        true
    }

    /// The delta, if it has arrived whole.
    fn into_delta(self) -> Option<(StateDelta<S>, Items)> {
        let Self { base, is_complete, floor, history, store, items, done, .. } = self;
        let version = done?;
        let (extent, base) =
            if is_complete { (DeltaExtent::Complete, Version::new()) } else { (DeltaExtent::Since, base) };
        Some((StateDelta { extent, base, version, floor, history, store }, items))
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        self.base.encode(out);
        self.since.encode(out);
        self.first.clone().encode(out);
        self.upper.encode(out);
        self.cursor.encode(out);
        self.is_complete.encode(out);
        self.floor.encode(out);
        self.history.encode(out);
        self.store.encode(out);
        self.done.clone().encode(out);
    }

    pub(super) fn decode(of: &CausalReplica<S>, input: &mut ByteReader<'_>) -> Result<Self, RestoreError> {
        let mut stage = Self::new(Version::decode(input)?);
        stage.since = Version::decode(input)?;
        stage.first = Option::decode(input)?;
        stage.upper = Version::decode(input)?;
        stage.cursor = Option::decode(input)?;
        stage.is_complete = bool::decode(input)?;
        stage.floor = Version::decode(input)?;
        stage.history = BTreeMap::decode(input)?;
        stage.store = S::decode(input, StoreForm::State)?;
        stage.done = Option::decode(input)?;
        let seen = context(&stage.upper);
        check_dots(&stage.store, &seen)?;
        if !stage.history.iter().all(|(event, killed)| seen.contains(*event) && killed.is_subset(&seen)) {
            return Err(DecodeError::Range { what: "the history of a stage" }.into());
        }
        stage.items = of.items_of(&stage.store);
        Ok(stage)
    }
}

impl<S: DotStore> CausalReplica<S> {
    /// Lets a session fetch slices: see [`Owner::claim`].
    pub(super) fn begin_stage(
        &mut self,
        now: Duration,
        claim: Option<u64>,
        patience: Duration,
        renew: bool,
    ) -> StageBegin {
        self.prune_stage();
        let owner = self.stage.as_mut().map(|stage| &mut stage.owner);
        match Owner::claim(owner, now, claim, patience, renew) {
            Err(begin) => return begin,
            Ok(Claim::Restarted) => self.stage = None,
            Ok(Claim::Next) => {}
        }
        let version = self.version();
        self.claims += 1;
        let stage = self.stage.get_or_insert_with(|| Box::new(Stage::new(version)));
        stage.owner = Owner::new(self.claims, now);
        StageBegin::Ready(self.claims)
    }

    /// Takes an encoded slice of a peer.
    pub(super) fn take_slice(
        &mut self,
        now: Duration,
        claim: Option<u64>,
        bytes: &[u8],
    ) -> Result<StageTaken, SessionError> {
        let stage = self.stage.as_mut().filter(|stage| stage.owner.is(claim));
        let Some(stage) = stage else { return Ok(StageTaken::Foreign) };
        let slice = Slice::decode(bytes, &stage.since)?;
        // As for any delta: events of this replica that it has not written show an impostor.
        self.check_own(&slice.delta.version)?;
        let items = self.items_of(&slice.delta.store);
        let Some(stage) = self.stage.as_mut() else { return Ok(StageTaken::Foreign) };
        if !stage.take(slice, items) {
            stage.owner.free(now);
            return Ok(StageTaken::Foreign);
        }
        stage.owner.brought(now);
        // No journal: what has arrived is part of what is saved.
        Ok(StageTaken::Taken(Vec::new()))
    }

    /// Joins the stage, if it has arrived whole.
    pub(super) fn step_stage(&mut self) -> StageStep<StateJoined> {
        let done = self.stage.take_if(|stage| stage.done.is_some());
        let Some((delta, items)) = done.and_then(|stage| stage.into_delta()) else { return StageStep::Idle };
        let clashes = self.clashes(&delta, &items);
        if let Err(error) = self.check(&delta, &clashes) {
            return StageStep::Failed(error);
        }
        let joined = self.join_delta(&delta, &items, clashes, &[]);
        StageStep::Done(delta.version, joined)
    }

    /// Drops a stage that has become of no use: the replica has seen all that it holds.
    pub(super) fn prune_stage(&mut self) {
        let version = self.state.context();
        let is_seen = |upper: &Version| !upper.is_empty() && context(upper).is_subset(version);
        self.stage.take_if(|stage| is_seen(&stage.upper));
    }

    /// Drops a stage whose peer has brought nothing for the length of a lease.
    pub(super) fn expire_stage(&mut self, now: Duration) {
        let lease = self.members.lease();
        self.stage.take_if(|stage| stage.owner.is_expired(now, lease));
    }
}
