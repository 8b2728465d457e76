//! [`CausalReplica`]: a composed type as one replica of a group.

mod clash;
mod slice;
mod stage;
mod transfer;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use slice::named;
use stage::Stage;

use super::causal::{Causal, ChangeError, Delta};
use super::change::Change;
use super::context::Context;
use super::lattice::Lattice;
use super::store::DotStore;
use crate::codec::to_bytes;
use crate::map::Frontier;
use crate::{Dot, HashKey, Members, ReplicaId, Replicated, Version};

/// Why a [`Causal`] cannot be adopted for replication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdoptError {
    /// The state has seen later events of a writer than one that it lacks; a version cannot express that.
    #[error(
        "events of writer {replica} are missing in the state: apply the missing deltas or merge a full state first"
    )]
    Gap {
        /// The writer.
        replica: ReplicaId,
    },
}

/// The result of joining a delta into a [`CausalReplica`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct StateJoined {
    /// Whether the store changed.
    pub changed: bool,
    /// Values of the delta that were new here.
    pub news: usize,
    /// Events that arrived with another content than the one held, ascending: their writer equivocates, or
    /// lost its last events and wrote on under its old ID. Every replica keeps the same content: a value
    /// rather than a removal, and of two values the one with the greater canonical bytes, its path included.
    pub equivocating: Vec<Dot>,
}

/// A [`Causal<S>`] as one replica of a group, so that a [`Session`](crate::Session) synchronizes it: the
/// state, the name that it writes under, the group's members, and the history from which a peer learns which
/// values were removed.
///
/// Changes go through [`change`](Self::change). Sessions exchange whole deltas, so the version has no gaps,
/// as that of a [`CausalMap`](crate::CausalMap). The history holds one record per event that removed or
/// replaced something and has not been replaced itself; [`collect_tombstones`](Self::collect_tombstones)
/// drops the records that every member has seen. A replica that lags behind that is brought up by set
/// reconciliation of its values, one item per dot.
///
/// A state of more than 4 MiB arrives by slices, each with the values of a range of events, in a stage beside
/// the state. Nothing of it is visible before the last slice, [`save`](Self::save) holds what has arrived,
/// and the transfer goes on where it was after a restart of either side.
///
/// A join costs a pass over the receiver's state; a delta costs a pass over the sender's.
///
/// # Durability
/// An event's number must never be used twice. Either [`save`](Self::save) reaches the disk before a session
/// sends, or each boot takes a fresh [`ReplicaId::incarnation`] ([`restore`](Self::restore)).
///
/// ```
/// use core::time::Duration;
/// use x0_crdt::{CausalReplica, HashKey, OrMap, OrSet, ReplicaId, Session, SessionInput, SessionOptions, SessionOutput};
///
/// type Mails = OrMap<String, OrSet<String>>;
/// let key = HashKey::new([7; 16]);
/// let mut states = [1, 2].map(|node| CausalReplica::<Mails>::new(ReplicaId::new(node), key));
/// let mut sessions = [1, 2].map(|seed| Session::new(&SessionOptions::default(), seed));
/// states[0].change(|mails, change| {
///     mails.update(change, "ada".into(), |set, change| set.add(change, "hello".into()))
/// })?;
///
/// let mut now = Duration::ZERO;
/// while states[0].frontier() != states[1].frontier() {
///     for side in 0..2 {
///         sessions[side].handle(now, SessionInput::Timeout, &mut states[side])?;
///         while let Some(output) = sessions[side].poll_output() {
///             if let SessionOutput::Send(datagram) = output {
///                 let other = 1 - side;
///                 sessions[other].handle(now, SessionInput::Datagram(&datagram), &mut states[other])?;
///             }
///         }
///     }
///     now += Duration::from_millis(1);
/// }
/// assert!(states[1].store().get("ada").is_some_and(|set| set.contains("hello")));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct CausalReplica<S> {
    replica: ReplicaId,
    hash_key: HashKey,
    state: Causal<S>,
    /// The version up to which history was collected.
    floor: Version,
    /// The dots that each event above the floor removed or replaced. Records of events that are gone
    /// themselves are folded into the record of the event that replaced them.
    history: BTreeMap<Dot, Context>,
    /// The values held, by their dots.
    items: Items,
    /// The wrapping sum of the hashes of `items`.
    content: u64,
    members: Members,
    /// How often contents have changed without an event.
    resolutions: u64,
    /// A state that arrives by slices.
    stage: Option<Box<Stage<S>>>,
    /// The number of the last session that was let fetch slices.
    claims: u64,
}

/// The hash and the length of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    /// The keyed hash of the value and its path.
    hash: u64,
    /// The length of both in bytes.
    len: u32,
}

/// The values of a store, by their dots.
type Items = BTreeMap<Dot, Held>;

impl<S: DotStore> CausalReplica<S> {
    /// An empty state, written to as `replica`. Members that sync share `hash_key`.
    #[must_use]
    pub fn new(replica: ReplicaId, hash_key: HashKey) -> Self {
        Self {
            replica,
            hash_key,
            state: Causal::new(),
            floor: Version::new(),
            history: BTreeMap::new(),
            items: BTreeMap::new(),
            content: 0,
            members: Members::default(),
            resolutions: 0,
            stage: None,
            claims: 0,
        }
    }

    /// Replicates a state that exists already, without history: peers that lag behind it reconcile their
    /// states.
    ///
    /// # Errors
    /// The state has gaps in what it has seen.
    pub fn adopt(state: Causal<S>, replica: ReplicaId, hash_key: HashKey) -> Result<Self, AdoptError> {
        if let Some((replica, ..)) = state.context().ranges().find(|(_, first, _)| *first != 1) {
            return Err(AdoptError::Gap { replica });
        }
        let mut adopted = Self { state, ..Self::new(replica, hash_key) };
        adopted.floor = adopted.version();
        adopted.index();
        Ok(adopted)
    }

    /// The state with all events seen.
    #[must_use]
    pub const fn state(&self) -> &Causal<S> {
        &self.state
    }

    /// The data.
    #[must_use]
    pub const fn store(&self) -> &S {
        self.state.store()
    }

    /// Makes a change as this replica. Returns its last event, `None` if the operation had nothing to do.
    /// Changes that are made before the next call of a session are seen together by its peer.
    ///
    /// # Errors
    /// The writer has no event left. Nothing changed.
    pub fn change(&mut self, make: impl FnOnce(&S, &mut Change) -> S) -> Result<Option<Dot>, ChangeError> {
        let before = self.last_seq();
        let mut change = Change::new(self.replica, self.state.context());
        let store = make(self.state.store(), &mut change);
        // A removal is an event of its own here: a peer learns from the version alone that it lacks
        // something.
        change.ensure_event();
        let context = change.finish().ok_or(ChangeError::Exhausted { replica: self.replica })?;
        if context.is_empty() {
            return Ok(None);
        }
        let delta = Delta::from_parts(store, context);
        let items = self.items_of(delta.store());
        self.note(delta.context(), &items);
        self.state.join_delta(&delta);
        let event = Dot::new(self.replica, self.last_seq());
        let mut own = Context::new();
        own.insert_range(self.replica, before + 1, event.seq);
        let killed = delta.context().difference(&own);
        // The last event stands for the whole change, because peers see all of it or nothing. The other
        // removals among its events get the record too, so that a join can distinguish each from a value
        // under the same dot.
        for seq in before + 1..event.seq {
            let dot = Dot::new(self.replica, seq);
            if !items.contains_key(&dot) {
                self.record(dot, killed.clone());
            }
        }
        self.record(event, killed);
        Ok(Some(event))
    }

    /// The replica that writes here.
    #[must_use]
    pub const fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// The key that the members hash with.
    #[must_use]
    pub const fn hash_key(&self) -> HashKey {
        self.hash_key
    }

    /// The events seen.
    #[must_use]
    pub fn version(&self) -> Version {
        self.state.context().ranges().map(|(replica, _, last)| (replica, last)).collect()
    }

    /// The version up to which history was collected.
    #[must_use]
    pub const fn floor(&self) -> &Version {
        &self.floor
    }

    /// The hashes of version and content, to compare with other replicas.
    #[must_use]
    pub fn frontier(&self) -> Frontier {
        Frontier { version: self.version().hash(self.hash_key), content: self.content }
    }

    /// The members of the group and the version that each has seen.
    #[must_use]
    pub const fn members(&self) -> &Members {
        &self.members
    }

    /// The members, to be changed.
    pub const fn members_mut(&mut self) -> &mut Members {
        &mut self.members
    }

    /// Counts a heartbeat of this replica, expires members whose lease is over, and collects the tombstones
    /// that all others have seen.
    ///
    /// The caller repeats it several times per lease.
    pub fn heartbeat(&mut self, now: Duration) {
        Replicated::heartbeat(self, now);
    }

    /// How many values are held: one per dot.
    #[must_use]
    pub fn value_count(&self) -> usize {
        self.items.len()
    }

    /// How many events are in the history for peers that may lack them. Zero when all members have seen all
    /// events.
    #[must_use]
    pub fn history_len(&self) -> usize {
        self.history.len()
    }

    /// Collects the history of events up to `stable`, which every member has seen, for instance
    /// [`Members::stable`](crate::Members::stable). Nothing is lost if it claims too much: a replica that
    /// lags behind is brought up from state.
    pub fn collect_tombstones(&mut self, stable: &Version) {
        let mut floor = stable.clone();
        floor.meet(&self.version());
        self.floor.join(&floor);
        self.drop_below_floor();
    }

    /// The canonical bytes of the state, equal on all replicas that have seen the same.
    #[must_use]
    pub fn encode_state(&self) -> Vec<u8>
    where
        Causal<S>: crate::Canonical,
    {
        to_bytes(&self.state)
    }

    /// The last event of this replica, 0 for none.
    fn last_seq(&self) -> u64 {
        // `next` is one past it; a writer that has used its last event has seen `u64::MAX`.
        self.state.context().next(self.replica).map_or(u64::MAX, |next| next - 1)
    }

    fn drop_below_floor(&mut self) {
        let floor = &self.floor;
        self.history.retain(|event, _| event.seq > floor.get(event.replica));
    }

    /// Records that `killed` are gone by `event`.
    fn record(&mut self, event: Dot, mut killed: Context) {
        // An event that is gone has a record only if it had replaced something. A peer that lacks the later
        // event may lack the earlier one as well, and gets both from one record; a peer that has seen the
        // later one has seen the earlier one too, because deltas are joined whole.
        for dot in named(&self.history, &killed).into_iter().filter(|dot| *dot != event) {
            if let Some(earlier) = self.history.remove(&dot) {
                killed.join(&earlier);
            }
        }
        if !killed.is_empty() && event.seq > self.floor.get(event.replica) {
            self.history.entry(event).or_default().join(&killed);
        }
    }

    /// The values of `store`. Their hashes cover the paths to them, so one dot at two keys differs.
    fn items_of(&self, store: &S) -> Items {
        let mut items = Items::new();
        let mut bytes = Vec::new();
        store.split(&mut |dot, piece| {
            bytes.clear();
            piece.encode(&mut bytes);
            // Of a longer value, which no transfer can hold, the length has no meaning.
            let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            items.insert(dot, Held { hash: self.hash_key.hash(&[b"value", &bytes]), len });
        });
        items
    }

    /// Updates the items for a join of the values `items` whose other dots in `context` are gone. The
    /// contexts are those before the join. Returns how many values are new.
    fn note(&mut self, context: &Context, items: &Items) -> usize {
        for dot in named(&self.items, context) {
            if !items.contains_key(&dot) {
                let hash = self.items.remove(&dot).map_or(0, |held| held.hash);
                self.content = self.content.wrapping_sub(hash);
            }
        }
        let mut news = 0;
        for (dot, held) in items {
            // A dot that was seen and is not held was removed here.
            if !self.items.contains_key(dot) && !self.state.context().contains(*dot) {
                self.items.insert(*dot, *held);
                self.content = self.content.wrapping_add(held.hash);
                news += 1;
            }
        }
        news
    }

    /// Computes the items from the state.
    fn index(&mut self) {
        self.items = self.items_of(self.state.store());
        self.content = self.items.values().fold(0, |sum, held| sum.wrapping_add(held.hash));
    }
}
