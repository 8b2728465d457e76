//! [`Gradual`]: a long delta that is joined in bounded steps, and takes effect at once.
//!
//! The delta is decoded, its names are searched, and then the new content of each of its keys is computed
//! beside the map, some keys in each step. The last step lays these contents over the map, see
//! [`Layered`](super::layered::Layered): readers, writes and other sessions see all of the delta or nothing
//! of it. The layer is merged into the map in further steps, in which nothing visible happens.
//!
//! Keys that change here meanwhile are noted, and computed again in the last step. If that is not enough,
//! because the map was replaced or has met the same events elsewhere, the work starts over.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::clash::Clashes;
use super::delta::{DeltaItem, Item, MapDelta};
use super::join::Incoming;
use super::layered::{Change, Layer};
use super::reference::Unresolved;
use super::search::Pass;
use super::small::Key;
use super::trail::{Event, Old};
use super::writers::Writers;
use super::{CausalMap, Cell, Frontier, Joined, seq_of};
use crate::session::{JoinSource, JoinStep, Transfer};
use crate::{Dot, SessionError, Version};

/// How often the work starts over before the delta is joined at once.
const RESTARTS_MAX: u32 = 4;

/// How many changes of each part of a layer are merged in the time of one item that is joined.
const MERGES: usize = 2;

/// When a map has begun to note its changed keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Watch {
    /// How often the notes have begun, here and in the maps that this one has replaced.
    number: u64,
    /// The state at that time.
    frontier: Option<Frontier>,
}

/// From where on the notes of a map are of interest.
#[derive(Debug, Clone)]
pub(super) struct Token {
    watch: Watch,
    /// The version at that time, by the numbers of the writers.
    version: Vec<u64>,
    writers: Writers,
    /// How many keys of the values, and of the tombstones, were noted before.
    cells: usize,
    removals: usize,
    resolutions: u64,
}

/// What became of a part of the work.
type Step = JoinStep<Joined, Box<Gradual>>;

/// See the [module](self).
#[derive(Debug)]
pub struct Gradual {
    /// The encoded delta and its base, to start over from.
    bytes: Vec<u8>,
    base: Version,
    /// How many items one step joins.
    items_max: usize,
    restarts: u32,
    source: Source,
    token: Token,
    phase: Phase,
}

/// Where the delta is from: see [`JoinSource`].
#[derive(Debug)]
enum Source {
    History,
    /// With the hash of the sender's content.
    News(u64),
    Chosen(Vec<(Key, Dot)>),
}

#[derive(Debug)]
enum Phase {
    Search(Unresolved),
    Check(Check),
    Clash(Clash),
    Join(Box<Join>),
}

/// Looks for events of the delta that were seen here.
#[derive(Debug)]
struct Check {
    delta: MapDelta,
    at: usize,
    /// The places of the entries with events that were seen here and are not held at their keys.
    suspects: Vec<usize>,
}

/// Looks for these events of the delta at other keys than there.
#[derive(Debug)]
struct Clash {
    delta: MapDelta,
    suspects: Vec<usize>,
    pass: Pass,
    keys: Vec<Option<Key>>,
}

/// Computes the new content of each key.
#[derive(Debug)]
struct Join {
    delta: MapDelta,
    numbers: Vec<u32>,
    /// The floor of the contents.
    floor: Vec<u64>,
    at: usize,
    /// The entries before `at` that are computed again.
    again: Vec<usize>,
    /// What the join of each entry before `at` does.
    outcomes: Vec<Outcome>,
    cells: Layer<Key, Cell>,
    recent: Layer<Event, Key>,
    removals: Layer<Key, Vec<Event>>,
    /// Events, and what they have replaced.
    trail: Vec<(Event, Old)>,
    equivocating: BTreeSet<Dot>,
    shadow: CausalMap,
}

/// What the join of one key does to the sums of the map, and to the counts of the result.
#[derive(Debug, Default)]
struct Outcome {
    content: u64,
    siblings: isize,
    joined: Joined,
    /// The events of the key, before and after.
    events: Vec<Event>,
}

impl MapDelta {
    /// An entry by its place: the key, and the range of its items.
    fn entry(&self, place: usize) -> Option<(&Key, &[DeltaItem])> {
        let (key, end) = self.entries.get(place)?;
        let begin =
            place.checked_sub(1).and_then(|before| self.entries.get(before)).map_or(0, |(_, end)| *end);
        Some((key, self.items.get(begin..*end).unwrap_or_default()))
    }

    /// The place of the entry of a key.
    fn place(&self, key: &Key) -> Option<usize> {
        self.entries.binary_search_by(|(other, _)| other.cmp(key)).ok()
    }
}

impl CausalMap {
    /// Joins an encoded delta, at once if it has at most `items_max` entries whose keys are found without a
    /// long search.
    pub(super) fn begin_gradual(
        &mut self,
        bytes: &[u8],
        base: &Version,
        source: JoinSource,
        items_max: usize,
    ) -> Result<Step, SessionError> {
        let (source, bytes) = match source {
            JoinSource::History => (Source::History, bytes),
            JoinSource::News => {
                let (content, rest) = Self::split_news(bytes)?;
                (Source::News(content), rest)
            }
            JoinSource::Chosen(absent) => {
                let absent = absent.into_iter().map(|(key, dot)| (Key::new(&key), dot));
                (Source::Chosen(absent.collect()), bytes)
            }
        };
        let mut unresolved = self.decode_from(&source, bytes, base)?;
        // A step of a pass visits this many keys: no longer map is searched at once.
        let is_small = |map: &Self| map.len() <= items_max.saturating_mul(32);
        let (encoded, of) = (bytes.to_vec(), base.clone());
        let gradual = |source, token, phase| {
            Step::More(Box::new(Gradual {
                bytes: encoded,
                base: of,
                items_max,
                restarts: 0,
                source,
                token,
                phase,
            }))
        };
        if unresolved.len() <= items_max {
            let mut is_more = self.search(&mut unresolved.search, usize::MAX);
            while is_more && is_small(self) {
                is_more = self.search(&mut unresolved.search, usize::MAX);
            }
            if !is_more {
                let mut check =
                    Check { delta: unresolved.resolve(self.hash_key)?, at: 0, suspects: Vec::new() };
                while self.step_check(&mut check, usize::MAX) {}
                // Suspects are looked for in a pass.
                if check.suspects.is_empty() || is_small(self) {
                    return self.join_at_once(&check.delta, source);
                }
                return Ok(gradual(source, self.watch(), Phase::Check(check)));
            }
        }
        Ok(gradual(source, self.watch(), Phase::Search(unresolved)))
    }

    /// Decodes a delta. What it names is mostly what a reconciliation has found here and not there.
    fn decode_from(&self, source: &Source, bytes: &[u8], base: &Version) -> Result<Unresolved, SessionError> {
        let mut unresolved = MapDelta::decode_unresolved(bytes, base, self)?;
        if let Source::Chosen(absent) = source {
            let event =
                |(key, dot): &(Key, Dot)| Some(((self.writers.number(dot.replica)?, dot.seq), key.clone()));
            unresolved.search.set_hints(absent.iter().filter_map(event).collect());
        }
        Ok(unresolved)
    }

    fn join_at_once(&mut self, delta: &MapDelta, source: Source) -> Result<Step, SessionError> {
        let (keys, dots) = match source {
            Source::News(content) if self.content_at_sender(delta) != content => return Ok(Step::Unfit),
            Source::History | Source::News(_) => (None, Vec::new()),
            Source::Chosen(absent) => {
                let (keys, dots): (Vec<Key>, Vec<Dot>) = absent.into_iter().unzip();
                (Some(keys), dots)
            }
        };
        self.check(delta)?;
        let joined = self.take_in(delta, &dots, keys)?;
        Ok(Step::Done(delta.context.clone(), joined))
    }

    /// Does a part of the work.
    pub(super) fn step_gradual(&mut self, gradual: Box<Gradual>) -> Result<Step, SessionError> {
        // The layer of an earlier delta comes first.
        if self.merge_layers(gradual.items_max) {
            return Ok(Step::More(gradual));
        }
        let Gradual { bytes, base, items_max, restarts, mut source, token, phase } = *gradual;
        // A content has changed under its dot: what was compared does not hold any more.
        if matches!(source, Source::Chosen(_)) && self.resolutions != token.resolutions {
            return Ok(Step::Unfit);
        }
        let phase = match phase {
            _ if !self.is_watched(&token) => None,
            Phase::Search(mut unresolved) => {
                if self.search(&mut unresolved.search, items_max) {
                    Some(Phase::Search(unresolved))
                } else {
                    let delta = unresolved.resolve(self.hash_key)?;
                    if matches!(source, Source::News(content) if self.content_at_sender(&delta) != content) {
                        return Ok(Step::Unfit);
                    }
                    Some(Phase::Check(Check { delta, at: 0, suspects: Vec::new() }))
                }
            }
            Phase::Check(mut check) => {
                if self.step_check(&mut check, items_max) {
                    Some(Phase::Check(check))
                } else {
                    Some(Phase::Clash(self.begin_clash(check)?))
                }
            }
            Phase::Clash(mut clash) => {
                if self.search_by_pass(&mut clash.pass, &mut clash.keys, items_max) {
                    Some(Phase::Clash(clash))
                } else if self.has_clash(&clash) {
                    // Rare: a writer gives one event two contents.
                    return self.join_at_once(&clash.delta, source);
                } else {
                    Some(Phase::Join(Box::new(self.begin_join(clash.delta)?)))
                }
            }
            Phase::Join(mut join) => {
                // Once for many collections: entries that are not computed yet will see the floor anyway.
                if !join.is_more() {
                    self.renew_floor(&mut join);
                }
                if join.is_more() {
                    self.compute_some(&mut join, items_max);
                    Some(Phase::Join(join))
                } else {
                    match self.finish_join(*join, &token, (&base, &source), items_max) {
                        Some(done) => return Ok(done),
                        None => None,
                    }
                }
            }
        };
        if let Some(phase) = phase {
            let gradual = Gradual { bytes, base, items_max, restarts, source, token, phase };
            return Ok(Step::More(Box::new(gradual)));
        }
        if let Source::Chosen(absent) = &mut source {
            // A value that came here meanwhile, and that the peer does not list, is gone there.
            let Some(written) = Transfer::written_since(self, &base) else { return Ok(Step::Unfit) };
            absent.extend(written.into_iter().map(|(key, dot)| (Key::new(&key), dot)));
        }
        if restarts >= RESTARTS_MAX {
            let delta = MapDelta::decode_named(&bytes, &base, self)?;
            return self.join_at_once(&delta, source);
        }
        let phase = Phase::Search(self.decode_from(&source, &bytes, &base)?);
        let token = self.watch();
        let gradual = Gradual { bytes, base, items_max, restarts: restarts + 1, source, token, phase };
        Ok(Step::More(Box::new(gradual)))
    }

    /// Merges a part of the layers over the map. Returns whether there is more to do.
    pub(super) fn merge_layers(&mut self, items_max: usize) -> bool {
        let count = items_max.saturating_mul(MERGES);
        // One after the other, so that a step has one bound.
        self.cells.has_layer() && (self.cells.merge(count) || self.has_layers())
            || self.recent.has_layer() && (self.recent.merge(count) || self.has_layers())
            || self.removals.has_layer() && self.removals.merge(count)
    }

    pub(super) fn has_layers(&self) -> bool {
        self.cells.has_layer() || self.recent.has_layer() || self.removals.has_layer()
    }

    /// Begins to note the keys that change.
    pub(super) fn watch(&mut self) -> Token {
        if self.cells.notes().is_none() || self.removals.notes().is_none() {
            self.watch = Watch { number: self.watch.number + 1, frontier: Some(self.frontier()) };
            self.cells.begin_notes();
            self.removals.begin_notes();
        }
        let noted = |notes: Option<&[Key]>| notes.map_or(0, <[Key]>::len);
        Token {
            watch: self.watch,
            version: self.version.clone(),
            writers: self.writers.clone(),
            cells: noted(self.cells.notes()),
            removals: noted(self.removals.notes()),
            resolutions: self.resolutions,
        }
    }

    /// Whether the notes hold all that has changed since `token`.
    pub(super) fn is_watched(&self, token: &Token) -> bool {
        let is_noted = self.cells.notes().is_some() && self.removals.notes().is_some();
        // The writers tell apart two maps of one state that number them differently.
        is_noted && self.watch == token.watch && self.writers.begin_with(&token.writers)
    }

    /// The keys whose values and whose tombstones were changed since `token`, some of them twice.
    pub(super) fn noted(&self, token: &Token) -> Option<(&[Key], &[Key])> {
        Some((self.cells.notes()?.get(token.cells..)?, self.removals.notes()?.get(token.removals..)?))
    }

    /// Looks at some entries for events that were seen here. Returns whether there are more.
    fn step_check(&self, check: &mut Check, items_max: usize) -> bool {
        let numbers: Vec<Option<u32>> =
            check.delta.writers.iter().map(|writer| self.writers.number(*writer)).collect();
        for _ in 0..items_max {
            let Some((key, items)) = check.delta.entry(check.at) else { return false };
            let mut seen = items
                .iter()
                .filter_map(|item| Some((numbers.get(item.writer as usize).copied()??, item.seq)))
                .filter(|(writer, seq)| *seq <= seq_of(&self.version, *writer))
                .peekable();
            if seen.peek().is_some() {
                let held = self.cells.get(key).map(Cell::siblings).unwrap_or_default();
                if seen.any(|event| !held.iter().any(|held| (held.writer, held.seq) == event)) {
                    check.suspects.push(check.at);
                }
            }
            check.at += 1;
        }
        true
    }

    /// Begins to look for the events of suspects.
    fn begin_clash(&mut self, check: Check) -> Result<Clash, SessionError> {
        let Check { delta, suspects, .. } = check;
        let numbers = self.number_writers(&delta)?;
        let events = self.suspected(&delta, &suspects, &numbers);
        let keys = alloc::vec![None; events.len()];
        let pass = Pass::new(events.into_iter().map(|(event, _)| event).zip(0..).collect());
        Ok(Clash { delta, suspects, pass, keys })
    }

    /// The events of these entries that were seen here, and whether each is a value there.
    fn suspected(&self, delta: &MapDelta, suspects: &[usize], numbers: &[u32]) -> Vec<(Event, bool)> {
        let mut events = Vec::new();
        for (key, items) in suspects.iter().filter_map(|place| delta.entry(*place)) {
            let held = self.cells.get(key).map(Cell::siblings).unwrap_or_default();
            for item in items {
                let writer = numbers.get(item.writer as usize).copied().unwrap_or(u32::MAX);
                let is_held = held.iter().any(|held| (held.writer, held.seq) == (writer, item.seq));
                if item.seq <= seq_of(&self.version, writer) && !is_held {
                    events.push(((writer, item.seq), matches!(item.item, Item::Live { .. })));
                }
            }
        }
        events
    }

    /// Whether an event of the delta has another content here.
    fn has_clash(&mut self, clash: &Clash) -> bool {
        let is_found = clash.keys.iter().any(Option::is_some);
        is_found
            || self.number_writers(&clash.delta).is_ok_and(|numbers| {
                let events = self.suspected(&clash.delta, &clash.suspects, &numbers);
                events.iter().any(|(event, is_value)| *is_value && self.is_tombstone(event))
            })
    }

    /// Whether an event is a removal of which there is history.
    fn is_tombstone(&self, event: &Event) -> bool {
        let key = self.recent.get(event);
        key.and_then(|key| self.removals.get(key)).is_some_and(|removals| removals.contains(event))
    }

    /// Begins to compute contents.
    fn begin_join(&mut self, delta: MapDelta) -> Result<Join, SessionError> {
        // The map may have changed since the keys were found.
        self.check_searched(&delta, true)?;
        let numbers = self.number_writers(&delta)?;
        let mut shadow = CausalMap::new(self.replica, self.hash_key);
        shadow.writers = self.writers.clone();
        let outcomes = Vec::with_capacity(delta.entries.len());
        Ok(Join {
            numbers,
            floor: self.floor.clone(),
            at: 0,
            again: Vec::new(),
            outcomes,
            cells: Layer::new(),
            recent: Layer::new(),
            removals: Layer::new(),
            trail: Vec::new(),
            equivocating: BTreeSet::new(),
            shadow,
            delta,
        })
    }

    /// Notes the entries whose tombstones were collected here since they were computed.
    fn renew_floor(&self, join: &mut Join) {
        if self.floor == join.floor {
            return;
        }
        join.floor.clone_from(&self.floor);
        let is_collected = |(writer, seq): &Event| *seq <= seq_of(&self.floor, *writer);
        let removals = join.removals.iter();
        let with = removals.filter(|(_, change)| change.value.iter().flatten().any(is_collected));
        join.again = with.filter_map(|(key, _)| join.delta.place(key)).collect();
        join.recent.retain(|event, _| !is_collected(event));
    }

    /// Computes the content of some keys.
    fn compute_some(&self, join: &mut Join, items_max: usize) {
        let again = join.again.split_off(join.again.len().saturating_sub(items_max));
        for place in &again {
            join.forget(*place);
        }
        self.compute(join, &again);
        let end = (join.at + items_max - again.len()).min(join.delta.entries.len());
        let places: Vec<usize> = (join.at..end).collect();
        self.compute(join, &places);
        join.at = end;
    }

    /// Computes the content of the keys of these entries, for the first time or again.
    fn compute(&self, join: &mut Join, places: &[usize]) {
        join.shadow.version.clone_from(&self.version);
        if join.shadow.writers.len() < self.writers.len() {
            join.shadow.writers = self.writers.clone();
        }
        let context = self.writers.by_number(&join.delta.context);
        // The delta holds no other contents of events seen here: see `begin_join` and `finish_join`.
        let clashes = Clashes::default();
        let incoming = Incoming { delta: &join.delta, numbers: join.numbers.clone(), context, clashes };
        let shadow = &mut join.shadow;
        for place in places {
            let Some((key, items)) = join.delta.entry(*place) else { continue };
            // The map's content of this key alone.
            let cell = self.cells.get(key);
            let removals = self.removals.get(key);
            (shadow.content, shadow.siblings) = (0, cell.map_or(0, |cell| cell.siblings().len()));
            let before = shadow.siblings;
            let held =
                cell.map(Cell::siblings).unwrap_or_default().iter().map(|held| (held.writer, held.seq));
            let mut outcome = Outcome::default();
            for event in held.chain(removals.into_iter().flatten().copied()) {
                if self.recent.contains_key(&event) {
                    outcome.events.push(event);
                    shadow.recent.insert(event, key.clone());
                    join.recent.insert(event, Change { value: None, is_held: true });
                }
            }
            if let Some(cell) = cell {
                shadow.cells.insert(key.clone(), cell.clone());
            }
            if let Some(removals) = removals {
                shadow.removals.insert(key.clone(), removals.clone());
            }
            shadow.join_key(&incoming, key, items, &mut outcome.joined);
            outcome.content = shadow.content;
            outcome.siblings = shadow.siblings.cast_signed() - before.cast_signed();
            join.equivocating.extend(core::mem::take(&mut outcome.joined.equivocating));
            let value = shadow.cells.remove(key);
            if value.is_some() || cell.is_some() {
                join.cells.insert(key.clone(), Change { value, is_held: cell.is_some() });
            } else {
                join.cells.remove(key);
            }
            let value = shadow.removals.remove(key);
            if value.is_some() || removals.is_some() {
                join.removals.insert(key.clone(), Change { value, is_held: removals.is_some() });
            } else {
                join.removals.remove(key);
            }
            for (event, key) in shadow.recent.take() {
                let change = join.recent.entry(event).or_insert_with(|| {
                    outcome.events.push(event);
                    Change { value: None, is_held: false }
                });
                change.value = Some(key);
            }
            join.trail.extend(shadow.trail.take());
            match join.outcomes.get_mut(*place) {
                Some(again) => *again = outcome,
                None => join.outcomes.push(outcome),
            }
        }
    }

    /// Computes again what has changed here, and lays the contents over the map. `None`: the work starts
    /// over.
    fn finish_join(
        &mut self,
        mut join: Join,
        token: &Token,
        (base, source): (&Version, &Source),
        items_max: usize,
    ) -> Option<Step> {
        // Events of the delta that came here on another way may have another content: all is checked again.
        let met = join.delta.items.iter().any(|item| {
            let writer = join.numbers.get(item.writer as usize).copied().unwrap_or(u32::MAX);
            item.seq > seq_of(&token.version, writer) && item.seq <= seq_of(&self.version, writer)
        });
        if met {
            return None;
        }
        let (values, removals) = self.noted(token)?;
        let place = |key: &Key| join.delta.place(key);
        let places: BTreeSet<usize> = values.iter().chain(removals).filter_map(place).collect();
        // Values that came here meanwhile to keys that are not in the delta, of events that are not in its
        // base: the peer does not hold them, if it has seen their events.
        let mut arrived: Vec<(Key, Dot)> = Vec::new();
        if !matches!(source, Source::History) {
            for key in values.iter().filter(|key| place(key).is_none()) {
                for held in self.cells.get(key).map(Cell::siblings).unwrap_or_default() {
                    let dot = Dot::new(self.writers.id(held.writer), held.seq);
                    if !base.contains(dot) && join.delta.context.contains(dot) {
                        arrived.push((key.clone(), dot));
                    }
                }
            }
        }
        // The content that news were compared with has changed.
        if matches!(source, Source::News(_)) && !arrived.is_empty() {
            return None;
        }
        if places.len() > items_max {
            return None;
        }
        for place in &places {
            join.forget(*place);
        }
        let places: Vec<usize> = places.into_iter().collect();
        self.compute(&mut join, &places);
        let Join { delta, numbers, outcomes, cells, recent, removals, trail, equivocating, .. } = join;
        let mut joined = Joined::default();
        if let Source::Chosen(absent) = source {
            arrived.extend(absent.iter().cloned());
            let (keys, dots): (Vec<Key>, Vec<Dot>) = arrived.into_iter().unzip();
            let context = self.writers.by_number(&delta.context);
            let incoming = Incoming { delta: &delta, numbers, context, clashes: Clashes::default() };
            self.drop_dots(&incoming, &dots, Some(keys), &mut joined);
        }
        for outcome in outcomes {
            self.content = self.content.wrapping_add(outcome.content);
            self.siblings = self.siblings.saturating_add_signed(outcome.siblings);
            joined.add(outcome.joined);
        }
        for (new, old) in trail {
            self.trail.note(new, old, self.siblings);
        }
        self.cells.lay(cells);
        self.recent.lay(recent);
        self.removals.lay(removals);
        // Others whose work is based on the map before this join start over.
        self.cells.end_notes();
        self.removals.end_notes();
        for (mine, theirs) in self.version.iter_mut().zip(self.writers.by_number(&delta.context)) {
            *mine = (*mine).max(theirs);
        }
        self.raise_floor(&delta);
        joined.keys.sort_unstable();
        joined.equivocating.extend(equivocating);
        self.resolutions += joined.equivocating.len() as u64;
        self.prune_stage();
        Some(Step::Done(delta.context, joined))
    }
}

impl Join {
    /// Whether contents are to be computed.
    fn is_more(&self) -> bool {
        self.at < self.delta.entries.len() || !self.again.is_empty()
    }

    /// Forgets what was computed for an entry.
    fn forget(&mut self, place: usize) {
        for event in self.outcomes.get(place).map(|outcome| outcome.events.as_slice()).unwrap_or_default() {
            self.recent.remove(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HashKey, ReplicaId};

    const KEY: HashKey = HashKey::new([7; 16]);

    /// Another session collects a long history between the steps of a join, from the beginning or after the
    /// contents were computed: more tombstones than may be noted, and more than a step computes.
    #[test]
    fn a_join_does_not_start_over_because_of_collected_tombstones() {
        for is_late in [false, true] {
            join_while_collecting(is_late);
        }
    }

    fn join_while_collecting(is_late: bool) {
        let mut here = CausalMap::new(ReplicaId::new(1), KEY);
        for number in 0..30_000_u32 {
            here.put(&number.to_be_bytes(), 0, b"").unwrap();
            if number % 2 == 0 {
                here.remove(&number.to_be_bytes());
            }
        }
        let mut peer = CausalMap::new(ReplicaId::new(2), KEY);
        for number in 0..300_u32 {
            peer.put(&(number * 100).to_be_bytes(), 1, b"peer").unwrap();
        }
        let version = here.version();
        here.collect_some(&version);
        let before = here.history_len();
        let bytes = peer.encode_since(&version).unwrap();
        let mut step = here.begin_gradual(&bytes, &version, JoinSource::History, 50).unwrap();
        while let JoinStep::More(gradual) = step {
            assert_eq!(gradual.restarts, 0);
            if !is_late || matches!(&gradual.phase, Phase::Join(join) if !join.is_more()) {
                here.collect_more();
            }
            step = here.step_gradual(gradual).unwrap();
        }
        while here.merge_layers(1_000) {}
        assert!(before > 20_000 && here.history_len() == 300, "{before} {}", here.history_len());
        let mut expected = CausalMap::new(ReplicaId::new(1), KEY);
        for number in 0..30_000_u32 {
            expected.put(&number.to_be_bytes(), 0, b"").unwrap();
            if number % 2 == 0 {
                expected.remove(&number.to_be_bytes());
            }
        }
        expected.collect_tombstones(&version);
        expected.join(&peer.delta(&expected.version()).unwrap()).unwrap();
        assert_eq!(here.frontier(), expected.frontier());
        assert!(here.save() == expected.save(), "also the history is equal");
    }
}
