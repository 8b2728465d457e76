//! [`CausalReplica`] as a state that sessions synchronize: its deltas as bytes, and its saved form.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::convert::Infallible;
use core::time::Duration;

use super::clash::Clashes;
use super::stage::Stage;
use super::{CausalReplica, Items, StateJoined};
use crate::codec::{ByteReader, Canonical, DecodeError, put_bytes, put_integer};
use crate::map::{DeltaError, DeltaExtent, Frontier, HistoryError, JoinError, RestoreError};
use crate::session::{Found, GatherStep, JoinSource, JoinStep, StageBegin, StageStep, StageTaken, Transfer};
use crate::types::causal::check_dots;
use crate::types::context::Context;
use crate::types::lattice::Lattice;
use crate::types::store::{DotStore, StoreForm};
use crate::version::{changes, put_changes};
use crate::{Dot, HashKey, Members, ReplicaId, Replicated, SessionError, Version};

/// The version of the delta's format.
const DELTA_FORMAT: u8 = 1;
/// The version of the saved form, of the one with members and their lease, and of the one with members and a
/// stage.
const SAVED_FORMAT: u8 = 1;
const MEMBERS_FORMAT: u8 = 2;
const STAGE_FORMAT: u8 = 3;

/// A delta of a [`CausalReplica`].
pub(super) struct StateDelta<S> {
    pub(super) extent: DeltaExtent,
    /// The version that the receiver must have seen; empty unless the extent is `Since`.
    pub(super) base: Version,
    /// All that the sender has seen.
    pub(super) version: Version,
    pub(super) floor: Version,
    /// The dots that are gone by events that the receiver lacks.
    pub(super) history: BTreeMap<Dot, Context>,
    pub(super) store: S,
}

impl<S: DotStore> StateDelta<S> {
    pub(super) fn decode(bytes: &[u8], base: &Version) -> Result<Self, DeltaError> {
        let mut input = ByteReader::new(bytes);
        let found = input.byte("the delta of a state")?;
        if found != DELTA_FORMAT {
            return Err(DecodeError::Version { found }.into());
        }
        let extent = match input.byte("the delta of a state")? {
            0 => DeltaExtent::Since,
            1 => DeltaExtent::Complete,
            2 => DeltaExtent::Chosen,
            tag => return Err(DecodeError::Tag { what: "extent of a delta", tag }.into()),
        };
        let version = base.clone().changed(&changes(&mut input)?);
        let floor = match extent {
            DeltaExtent::Since => Version::new(),
            DeltaExtent::Complete | DeltaExtent::Chosen => version.clone().changed(&changes(&mut input)?),
        };
        let history = BTreeMap::<Dot, Context>::decode(&mut input)?;
        let store = S::decode(&mut input, StoreForm::State)?;
        input.finish()?;
        let seen: Context = context(&version);
        check_dots(&store, &seen)?;
        if let Some((event, _)) =
            history.iter().find(|(event, killed)| !version.contains(**event) || !killed.is_subset(&seen))
        {
            return Err(DeltaError::Context { dot: *event });
        }
        let base = if extent == DeltaExtent::Since { base.clone() } else { Version::new() };
        Ok(Self { extent, base, version, floor, history, store })
    }
}

/// A version as a context.
pub(super) fn context(version: &Version) -> Context {
    let mut context = Context::new();
    for (replica, last) in version.iter() {
        context.insert_range(replica, 1, last);
    }
    context
}

impl<S: DotStore> CausalReplica<S> {
    /// All of the replica, its history, its members and what has arrived by slices included, to be restored
    /// on this machine.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        let format = match &self.stage {
            Some(_) => STAGE_FORMAT,
            None if self.members.is_worth_saving() => MEMBERS_FORMAT,
            None => SAVED_FORMAT,
        };
        let mut out = alloc::vec![format];
        self.replica.encode(&mut out);
        put_bytes(&self.encode_complete(&Version::new()), &mut out);
        if format != SAVED_FORMAT {
            self.members.save(&self.version(), &mut out);
        }
        if let Some(stage) = &self.stage {
            stage.encode(&mut out);
        }
        out
    }

    /// Reads back what [`save`](Self::save) wrote, to go on as `replica`: the same one if nothing that it
    /// wrote can have left this machine after the bytes were saved, a fresh incarnation otherwise.
    ///
    /// # Errors
    /// Bytes that `save` cannot have written.
    pub fn restore(bytes: &[u8], replica: ReplicaId, hash_key: HashKey) -> Result<Self, RestoreError> {
        let mut input = ByteReader::new(bytes);
        let found = input.byte("a saved state")?;
        if !(SAVED_FORMAT..=STAGE_FORMAT).contains(&found) {
            return Err(DecodeError::Version { found }.into());
        }
        let _saved_by = ReplicaId::decode(&mut input)?;
        let delta = StateDelta::decode(input.bytes("a saved state")?, &Version::new())?;
        let mut restored = Self::new(replica, hash_key);
        let items = restored.items_of(&delta.store);
        restored.join_delta(&delta, &items, Clashes::new(), &[]);
        if found != SAVED_FORMAT {
            restored.members = Members::restore(&restored.version(), &mut input)?;
        }
        if found == STAGE_FORMAT {
            restored.stage = Some(Box::new(Stage::decode(&restored, &mut input)?));
        }
        input.finish()?;
        Ok(restored)
    }

    /// Appends the delta of the values whose dots are not in `known`, with these records of history.
    pub(super) fn encode_delta<'a>(
        &'a self,
        extent: DeltaExtent,
        since: &Version,
        known: &Context,
        records: impl Iterator<Item = (&'a Dot, &'a Context)> + Clone,
        out: &mut Vec<u8>,
    ) {
        let version = self.version();
        out.push(DELTA_FORMAT);
        out.push(match extent {
            DeltaExtent::Since => 0,
            DeltaExtent::Complete => 1,
            DeltaExtent::Chosen => 2,
        });
        put_changes(&version.changes_since(since), out);
        if extent != DeltaExtent::Since {
            put_changes(&self.floor.changes_since(&version), out);
        }
        put_integer(records.clone().count() as u64, out);
        for (event, killed) in records {
            event.encode(out);
            killed.encode(out);
        }
        // Against an empty state with the receiver's context, every value whose dot it has not seen is news.
        let news = self.store().delta(self.state.context(), &S::default(), known, &mut Context::new());
        news.encode(out);
    }

    /// The delta of the values whose dots are not in `known`, with the history since `history_since`.
    fn delta_bytes(
        &self,
        extent: DeltaExtent,
        since: &Version,
        known: &Context,
        history_since: &Version,
    ) -> Vec<u8> {
        let mut out = Vec::new();
        let records = self.history.iter().filter(|(event, _)| !history_since.contains(**event));
        self.encode_delta(extent, since, known, records, &mut out);
        out
    }

    /// Fails if a peer has seen events of this replica that it has not written.
    pub(super) fn check_own(&self, version: &Version) -> Result<(), JoinError> {
        let (written, claimed) = (self.last_seq(), version.get(self.replica));
        if claimed > written {
            return Err(JoinError::Impostor { dot: Dot::new(self.replica, claimed), written });
        }
        Ok(())
    }

    pub(super) fn check(&self, delta: &StateDelta<S>, clashes: &Clashes) -> Result<(), JoinError> {
        self.check_own(&delta.version)?;
        let written = self.last_seq();
        // As many events as it has written, but not the same ones: a restored copy that wrote on.
        if let Some(dot) = clashes.keys().find(|dot| dot.replica == self.replica) {
            return Err(JoinError::Impostor { dot: *dot, written });
        }
        let mine = self.version();
        // A delta from history says nothing of what lies before its base, so the base must have been seen
        // here.
        match delta
            .base
            .iter()
            .find(|(replica, seq)| mine.get(*replica) < (*seq).min(delta.version.get(*replica)))
        {
            Some((replica, _)) => Err(JoinError::Base { dot: Dot::new(replica, mine.get(replica) + 1) }),
            None => Ok(()),
        }
    }

    pub(super) fn join_delta(
        &mut self,
        delta: &StateDelta<S>,
        items: &Items,
        clashes: Clashes,
        absent: &[Dot],
    ) -> StateJoined {
        let seen = context(&delta.version);
        let mut known: Context = match delta.extent {
            DeltaExtent::Complete => seen.clone(),
            DeltaExtent::Since | DeltaExtent::Chosen => items.keys().copied().collect(),
        };
        for killed in delta.history.values() {
            known.join(killed);
        }
        if delta.extent == DeltaExtent::Chosen {
            // A value that the sender has not seen is news to it, not absent.
            for dot in absent.iter().filter(|dot| delta.version.contains(**dot)) {
                known.insert(*dot);
            }
        }
        for (event, killed) in &delta.history {
            // A record of an event that was seen is here already, or was folded into a later one.
            if !self.state.context().contains(*event) {
                self.record(*event, killed.clone());
            }
        }
        let news = self.note(&known, items);
        let changed = if clashes.is_empty() {
            self.state.join_parts(&delta.store, &known, &Context::new())
        } else {
            let changed = self.join_clashing(delta, &known, &clashes);
            // Values were exchanged under one dot.
            self.index();
            self.resolutions += clashes.len() as u64;
            changed
        };
        self.state.see(&seen);
        if delta.extent != DeltaExtent::Since {
            // The sender cannot name what it has collected: a peer that requests more from here is brought up
            // from state as well.
            self.floor.join(&delta.floor);
            self.drop_below_floor();
        }
        StateJoined { changed, news, equivocating: clashes.into_keys().collect() }
    }

    /// Fails if history was forgotten that a receiver with `seen` lacks.
    fn check_history(&self, seen: &Version) -> Result<(), HistoryError> {
        match self.floor.iter().find(|(replica, seq)| seen.get(*replica) < *seq) {
            Some((replica, _)) => Err(HistoryError::TooOld { dot: Dot::new(replica, seen.get(replica) + 1) }),
            None => Ok(()),
        }
    }
}

impl<S: DotStore> Replicated for CausalReplica<S> {
    fn replica(&self) -> ReplicaId {
        self.replica
    }

    fn renew(&mut self, incarnation: u32) {
        self.replica = ReplicaId::with_incarnation(self.replica.node, incarnation);
    }

    fn hash_key(&self) -> HashKey {
        self.hash_key
    }

    fn version(&self) -> Version {
        self.version()
    }

    fn frontier(&self) -> Frontier {
        self.frontier()
    }

    fn members(&self) -> &Members {
        &self.members
    }

    fn members_mut(&mut self) -> &mut Members {
        &mut self.members
    }

    fn collect_tombstones(&mut self, stable: &Version) {
        self.collect_tombstones(stable);
    }
}

impl<S: DotStore> Transfer for CausalReplica<S> {
    type Joined = StateJoined;
    /// A composed type is joined at once.
    type Joining = Infallible;
    type Gathering = Infallible;

    /// More than of a map: each slice costs a pass over the sender's state.
    const RANGE_LEN_MAX: usize = 1 << 20;

    fn value_count(&self) -> usize {
        self.items.len()
    }

    fn resolutions(&self) -> u64 {
        self.resolutions
    }

    fn visit(
        &self,
        _at: &mut Option<Vec<u8>>,
        _count: usize,
        mut visit: impl FnMut(&[u8], Dot, &dyn Fn() -> u64),
    ) -> bool {
        for (dot, held) in &self.items {
            visit(&[], *dot, &|| held.hash);
        }
        false
    }

    fn encode_since(&self, since: &Version) -> Result<Vec<u8>, HistoryError> {
        self.check_history(since)?;
        Ok(self.delta_bytes(DeltaExtent::Since, since, &context(since), since))
    }

    fn encode_complete(&self, since: &Version) -> Vec<u8> {
        self.delta_bytes(DeltaExtent::Complete, since, &Context::new(), &Version::new())
    }

    fn encode_chosen(
        &self,
        since: &Version,
        sketched: &Version,
        hashes: &[u64],
        _whole: bool,
        _found: &Found,
    ) -> Result<Vec<u8>, HistoryError> {
        self.check_history(sketched)?;
        // Events that came here after the reconciliation began are sent again, so that the receiver does not
        // take them for absent.
        let mut known = since.clone();
        known.meet(sketched);
        let asked: Context = self
            .items
            .iter()
            .filter(|(_, held)| hashes.binary_search(&held.hash).is_ok())
            .map(|(dot, _)| *dot)
            .collect();
        let known = context(&known).difference(&asked);
        Ok(self.delta_bytes(DeltaExtent::Chosen, since, &known, since))
    }

    fn has_ranges(&self) -> bool {
        true
    }

    fn is_long(&self, since: &Version, complete: bool) -> bool {
        self.is_long(since, complete)
    }

    fn encode_range(&self, since: &Version, from: &[u8], len_max: usize) -> Option<Vec<u8>> {
        let mut input = ByteReader::new(from);
        let from = if from.is_empty() { None } else { Some(Dot::decode(&mut input).ok()?) };
        input.finish().ok()?;
        Some(self.encode_slice(since, from, len_max))
    }

    fn begin_stage(
        &mut self,
        now: Duration,
        claim: Option<u64>,
        patience: Duration,
        renew: bool,
    ) -> StageBegin {
        self.begin_stage(now, claim, patience, renew)
    }

    fn stage_needs(&self) -> Option<(Version, Vec<u8>)> {
        self.stage.as_ref()?.needs()
    }

    fn take_range(
        &mut self,
        now: Duration,
        claim: Option<u64>,
        bytes: &[u8],
    ) -> Result<StageTaken, SessionError> {
        self.take_slice(now, claim, bytes)
    }

    fn step_stage(&mut self) -> StageStep<StateJoined> {
        self.step_stage()
    }

    fn expire_stage(&mut self, now: Duration) {
        self.expire_stage(now);
    }

    fn begin_gather(
        &mut self,
        since: &Version,
        _whole: bool,
        _items_max: usize,
    ) -> Result<GatherStep<Infallible>, HistoryError> {
        self.check_history(since)?;
        if self.is_long(since, false) {
            return Ok(GatherStep::Long);
        }
        Ok(GatherStep::Done(self.encode_since(since)?))
    }

    fn step_gather(&mut self, gathering: Infallible) -> Result<GatherStep<Infallible>, HistoryError> {
        match gathering {}
    }

    fn begin_join(
        &mut self,
        bytes: &[u8],
        base: &Version,
        source: JoinSource,
        _items_max: usize,
    ) -> Result<JoinStep<StateJoined, Infallible>, SessionError> {
        let absent = if let JoinSource::Chosen(absent) = source { absent } else { Vec::new() };
        let (version, joined) = self.join_encoded(bytes, base, |_| absent)?;
        Ok(JoinStep::Done(version, joined))
    }

    fn step_join(&mut self, joining: Infallible) -> Result<JoinStep<StateJoined, Infallible>, SessionError> {
        match joining {}
    }

    fn join_encoded(
        &mut self,
        bytes: &[u8],
        base: &Version,
        absent: impl FnOnce(&Self) -> Vec<(Vec<u8>, Dot)>,
    ) -> Result<(Version, StateJoined), SessionError> {
        let delta = StateDelta::decode(bytes, base)?;
        let items = self.items_of(&delta.store);
        let clashes = self.clashes(&delta, &items);
        self.check(&delta, &clashes)?;
        let absent: Vec<Dot> = absent(self).into_iter().map(|(_, dot)| dot).collect();
        let joined = self.join_delta(&delta, &items, clashes, &absent);
        self.prune_stage();
        Ok((delta.version, joined))
    }
}
