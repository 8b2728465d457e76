//! [`Causal`]: a dot store with the context of all events seen, and [`Delta`].

use alloc::vec::Vec;

use crate::codec::{ByteReader, Canonical, DecodeError};
use crate::dot::ReplicaId;
use crate::types::change::Change;
use crate::types::context::{Context, RANGES_MAX};
use crate::types::lattice::Lattice;
use crate::types::store::{DotStore, JoinScope, StoreForm};

/// Why a change was not made. Nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// The writer has used its last event, or a peer forged it.
    #[error("writer {replica} has no event left: write as a fresh incarnation")]
    Exhausted {
        /// The writer.
        replica: ReplicaId,
    },
}

/// Why a delta or a state was not joined. Nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The context would have too many gaps.
    #[error(
        "the context would take {ranges} ranges, of at most {RANGES_MAX}: fetch the missing deltas first, or a full state"
    )]
    Fragmented {
        /// The number of ranges.
        ranges: usize,
    },
}

/// A replicated state: data in a [`DotStore`] and the [`Context`] of all events seen.
///
/// Changes go through [`change`](Self::change) or [`transaction`](Self::transaction), which return the
/// [`Delta`] to send. Deltas may arrive in any order, more than once, or not at all; a full state replaces
/// lost ones. No two replicas may write as the same [`ReplicaId`], and one that lost its last events (it was
/// restored from an old copy) must take a fresh incarnation. [`CausalReplica`](crate::CausalReplica) wraps a
/// state for sessions.
///
/// ```
/// use x0_crdt::{Causal, Lattice, ReplicaId};
/// use x0_crdt::{OrMap, OrSet};
///
/// let (ada, bob) = (ReplicaId::new(1), ReplicaId::new(2));
/// let mut here = Causal::<OrMap<String, OrSet<String>>>::new();
/// let mut there = here.clone();
///
/// let add = |map: &OrMap<String, OrSet<String>>, change: &mut _| {
///     map.update(change, "mails".into(), |set, change| set.add(change, "hello".into()))
/// };
/// let delta = here.change(ada, add)?;
/// there.apply(&delta)?;
/// // Concurrently, one removes the key and the other adds to it: the addition stays.
/// let removed = here.change(ada, |map, change| map.remove(change, &"mails".into()))?;
/// let added = there.change(bob, |map, change| {
///     map.update(change, "mails".into(), |set, change| set.add(change, "world".into()))
/// })?;
/// here.apply(&added)?;
/// there.apply(&removed)?;
/// assert!(here == there);
/// assert!(here.store().get("mails").is_some_and(|set| set.contains("world") && !set.contains("hello")));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Causal<S> {
    store: S,
    context: Context,
}

impl<S: DotStore> Causal<S> {
    /// No event yet.
    #[must_use]
    pub fn new() -> Self {
        Self { store: S::default(), context: Context::new() }
    }

    #[cfg(feature = "compat-crdts")]
    pub(crate) const fn from_parts(store: S, context: Context) -> Self {
        Self { store, context }
    }

    /// The data.
    #[must_use]
    pub const fn store(&self) -> &S {
        &self.store
    }

    /// The events seen.
    #[must_use]
    pub const fn context(&self) -> &Context {
        &self.context
    }

    /// Makes a change as `replica`, and returns its delta for the other replicas. `make` returns the store of
    /// one operation; several go through [`transaction`](Self::transaction).
    ///
    /// # Errors
    /// The writer has no event left. Nothing changed.
    pub fn change(
        &mut self,
        replica: ReplicaId,
        make: impl FnOnce(&S, &mut Change) -> S,
    ) -> Result<Delta<S>, ChangeError> {
        let mut change = Change::new(replica, &self.context);
        let store = make(&self.store, &mut change);
        let context = change.finish().ok_or(ChangeError::Exhausted { replica })?;
        let delta = Delta { store, context };
        self.join_delta(&delta);
        Ok(delta)
    }

    /// Makes several changes as `replica`, each of which sees those before it, and returns one delta of all
    /// of them. Other replicas see all of them or none.
    ///
    /// ```
    /// use x0_crdt::{Causal, OrMap, OrSet, ReplicaId};
    ///
    /// let mut here = Causal::<OrMap<String, OrSet<String>>>::new();
    /// let mut there = here.clone();
    /// let me = ReplicaId::new(1);
    /// here.change(me, |map, change| map.update(change, "todo".into(), |set, c| set.add(c, "paint".into())))?;
    /// let delta = here.transaction(me, |transaction| {
    ///     // Moves all items to another key.
    ///     let items: Vec<String> = transaction.store().get("todo").into_iter().flat_map(OrSet::iter).cloned().collect();
    ///     for item in items {
    ///         transaction.change(|map, change| map.update(change, "done".into(), |set, c| set.add(c, item)));
    ///     }
    ///     transaction.change(|map, change| map.remove(change, &"todo".into()));
    /// })?;
    /// there.apply(&delta)?;
    /// assert!(there.store().get("done").is_some_and(|set| set.contains("paint")));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The writer has no event left. Nothing changed, whatever the transaction did.
    pub fn transaction(
        &mut self,
        replica: ReplicaId,
        make: impl FnOnce(&mut Transaction<'_, S>),
    ) -> Result<Delta<S>, ChangeError> {
        // Only a writer whose numbers end soon can fail midway, and no transaction has so many events.
        let is_safe = self.context.next(replica).is_some_and(|next| next < u64::MAX / 2);
        let backup = (!is_safe).then(|| self.clone());
        let mut transaction = Transaction { state: self, replica, delta: Delta::new(), error: None };
        make(&mut transaction);
        let Transaction { delta, error, .. } = transaction;
        match (error, backup) {
            (Some(error), Some(backup)) => {
                *self = backup;
                Err(error)
            }
            (Some(error), None) => Err(error),
            (None, _) => Ok(delta),
        }
    }

    /// Joins a delta. Returns whether anything changed. The cost depends on the delta, not on the state.
    ///
    /// # Errors
    /// The context would have too many gaps. Nothing changed.
    pub fn apply(&mut self, delta: &Delta<S>) -> Result<bool, ApplyError> {
        check_ranges(&self.context, &delta.context)?;
        Ok(self.join_delta(delta))
    }

    /// Joins a full state. Returns whether anything changed. [`Lattice::join`] does the same without a limit.
    ///
    /// # Errors
    /// The context would have too many gaps. Nothing changed.
    pub fn merge(&mut self, other: &Self) -> Result<bool, ApplyError> {
        check_ranges(&self.context, &other.context)?;
        Ok(self.join(other))
    }

    /// The part of this state that a replica that has seen `since` lacks, for its [`merge`](Self::merge): the
    /// values whose events are not in `since`, and of the others which are gone.
    ///
    /// A replica needs to send its [`context`](Self::context) alone, a few bytes, to get what it lacks in one
    /// answer. [`Lattice::delta`] of two whole states is smaller where values of `since` were removed: it
    /// names the removed ones, and this part the ones that stay.
    ///
    /// ```
    /// use x0_crdt::{Causal, OrSet, ReplicaId};
    ///
    /// let mut here = Causal::<OrSet<String>>::new();
    /// let mut there = here.clone();
    /// here.change(ReplicaId::new(1), |set, change| set.add(change, "hello".into()))?;
    /// there.merge(&here.delta_since(there.context()))?;
    /// assert!(there.store().contains("hello"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn delta_since(&self, since: &Context) -> Self {
        let store = self.store.delta(&self.context, &S::default(), since, &mut Context::new());
        let mut unchanged = Context::new();
        self.store.for_each_dot(&mut |dot| {
            if since.contains(dot) {
                unchanged.insert(dot);
            }
        });
        Self { store, context: self.context.difference(&unchanged) }
    }

    pub(super) fn join_delta(&mut self, delta: &Delta<S>) -> bool {
        let changed = self.store.join(&self.context, &delta.store, &delta.context, JoinScope::Apply);
        self.context.join(&delta.context) || changed
    }

    /// Joins a store in which the dots of `context` are known, and no others, as if `unseen` had not been
    /// seen here. Returns whether the store changed. The context is the caller's to join.
    pub(super) fn join_parts(&mut self, store: &S, context: &Context, unseen: &Context) -> bool {
        if unseen.is_empty() {
            return self.store.join(&self.context, store, context, JoinScope::States);
        }
        let seen = self.context.difference(unseen);
        self.store.join(&seen, store, context, JoinScope::States)
    }

    /// Counts events as seen.
    pub(super) fn see(&mut self, context: &Context) {
        self.context.join(context);
    }
}

fn check_ranges(mine: &Context, theirs: &Context) -> Result<(), ApplyError> {
    // A join has at most as many ranges as both together: nearly always far below the limit, and then nothing
    // is cloned.
    if mine.range_count() + theirs.range_count() <= RANGES_MAX {
        return Ok(());
    }
    let mut joined = mine.clone();
    joined.join(theirs);
    let ranges = joined.range_count();
    // A context over the limit may still close its gaps.
    if ranges <= RANGES_MAX.max(mine.range_count()) { Ok(()) } else { Err(ApplyError::Fragmented { ranges }) }
}

impl<S: DotStore> Lattice for Causal<S> {
    fn bottom() -> Self {
        Self::new()
    }

    fn join(&mut self, other: &Self) -> bool {
        let changed = self.store.join(&self.context, &other.store, &other.context, JoinScope::States);
        self.context.join(&other.context) || changed
    }

    fn delta(&self, since: &Self) -> Self {
        let mut context = self.context.difference(&since.context);
        let store = self.store.delta(&self.context, &since.store, &since.context, &mut context);
        store.for_each_dot(&mut |dot| {
            context.insert(dot);
        });
        Self { store, context }
    }

    fn decompose(&self) -> Vec<Self> {
        let mut pieces = Vec::new();
        let mut live = Context::new();
        self.store.split(&mut |dot, store| {
            live.insert(dot);
            pieces.push(Self { store, context: [dot].into_iter().collect() });
        });
        let gone = self.context.difference(&live);
        pieces.extend(
            gone.dots().map(|dot| Self { store: S::default(), context: [dot].into_iter().collect() }),
        );
        pieces
    }
}

/// One change, or several joined, for other replicas: the new values, the dots of removed ones, and the keys
/// that these touch.
///
/// A delta is for replicas that join all changes as deltas or states; it is not a state by itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Delta<S> {
    store: S,
    context: Context,
}

impl<S: DotStore> Delta<S> {
    /// No change.
    #[must_use]
    pub fn new() -> Self {
        Self { store: S::default(), context: Context::new() }
    }

    pub(super) const fn from_parts(store: S, context: Context) -> Self {
        Self { store, context }
    }

    /// The new values, under the keys that were touched.
    #[must_use]
    pub const fn store(&self) -> &S {
        &self.store
    }

    /// The new events, and those whose values are removed.
    #[must_use]
    pub const fn context(&self) -> &Context {
        &self.context
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.context.is_empty() && self.store.is_empty()
    }

    /// Joins another delta into this one, which then has the effect of both.
    pub fn join(&mut self, other: &Self) {
        self.store.join(&self.context, &other.store, &other.context, JoinScope::Deltas);
        self.context.join(&other.context);
    }
}

/// Several changes of one [`Causal`] while they are being made: see [`Causal::transaction`].
#[derive(Debug)]
pub struct Transaction<'a, S> {
    state: &'a mut Causal<S>,
    replica: ReplicaId,
    delta: Delta<S>,
    error: Option<ChangeError>,
}

impl<S: DotStore> Transaction<'_, S> {
    /// The data, with the changes so far.
    #[must_use]
    pub const fn store(&self) -> &S {
        &self.state.store
    }

    /// Makes a change, as [`Causal::change`]. After one that fails the transaction as a whole fails.
    pub fn change(&mut self, make: impl FnOnce(&S, &mut Change) -> S) -> &mut Self {
        if self.error.is_none() {
            match self.state.change(self.replica, make) {
                Ok(delta) => self.delta.join(&delta),
                Err(error) => self.error = Some(error),
            }
        }
        self
    }
}

/// Checks what holds in every store that operations made. A dot at two places would count as removed wherever
/// only one of them is known.
pub(super) fn check_dots<S: DotStore>(store: &S, context: &Context) -> Result<(), DecodeError> {
    let mut dots = Vec::new();
    store.for_each_dot(&mut |dot| dots.push(dot));
    if !dots.iter().all(|dot| context.contains(*dot)) {
        return Err(DecodeError::Range { what: "a dot in a store" });
    }
    dots.sort_unstable();
    if dots.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(DecodeError::NotCanonical { what: "a dot at two places" });
    }
    Ok(())
}

macro_rules! canonical {
    ($name:ident, $form:expr) => {
        /// The context, then the store; each dot in the store is in the context, and in the store once.
        impl<S: DotStore> Canonical for $name<S> {
            fn encode(&self, out: &mut Vec<u8>) {
                self.context.encode(out);
                self.store.encode(out);
            }

            fn decode(input: &mut ByteReader<'_>) -> Result<Self, DecodeError> {
                let context = Context::decode(input)?;
                let store = S::decode(input, $form)?;
                check_dots(&store, &context)?;
                Ok(Self { store, context })
            }
        }
    };
}
canonical!(Causal, StoreForm::State);
canonical!(Delta, StoreForm::Delta);
