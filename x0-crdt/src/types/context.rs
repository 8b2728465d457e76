//! [`Context`]: the events that a replica has seen, gaps included.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::codec::{ByteReader, Canonical, DecodeError, put_integer};
use crate::dot::{Dot, ReplicaId};
use crate::types::lattice::Lattice;

/// The most ranges that [`Causal::apply`](crate::Causal::apply) and [`Causal::merge`](crate::Causal::merge)
/// let a context grow to.
///
/// One writer seen without gaps is one range of 16 bytes.
pub const RANGES_MAX: usize = 65_536;

/// A causal context: of each writer, the events seen.
///
/// The events are kept as ranges, ascending, apart from each other by at least one event that was not seen. A
/// writer without gaps is the one range from 1; lost and reordered deltas open gaps, and close them as they
/// arrive.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Context {
    seen: BTreeMap<ReplicaId, Vec<Range>>,
    ranges: usize,
}

/// Events, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: u64,
    last: u64,
}

impl Context {
    /// No event.
    #[must_use]
    pub const fn new() -> Self {
        Self { seen: BTreeMap::new(), ranges: 0 }
    }

    /// Whether it has no event.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// The number of ranges: one per writer, and one more per gap.
    #[must_use]
    pub const fn range_count(&self) -> usize {
        self.ranges
    }

    /// Whether `dot` was seen.
    #[must_use]
    pub fn contains(&self, dot: Dot) -> bool {
        self.seen.get(&dot.replica).is_some_and(|ranges| match ranges.as_slice() {
            // The usual case: a context without gaps has one range per writer.
            [range] => range.first <= dot.seq && dot.seq <= range.last,
            ranges => {
                let at = ranges.partition_point(|range| range.last < dot.seq);
                ranges.get(at).is_some_and(|range| range.first <= dot.seq)
            }
        })
    }

    /// The number of the next event of `replica`: one past the greatest seen. `None` if there is none left.
    #[must_use]
    pub fn next(&self, replica: ReplicaId) -> Option<u64> {
        self.seen
            .get(&replica)
            .and_then(|ranges| ranges.last())
            .map_or(Some(1), |range| range.last.checked_add(1))
    }

    /// Adds one event; whether it is new.
    pub fn insert(&mut self, dot: Dot) -> bool {
        self.insert_range(dot.replica, dot.seq, dot.seq)
    }

    /// Adds the events from `first` to `last`, both included; whether one of them is new. Events are counted
    /// from 1: a 0 is none.
    pub fn insert_range(&mut self, replica: ReplicaId, first: u64, last: u64) -> bool {
        let first = first.max(1);
        if first > last {
            return false;
        }
        let ranges = self.seen.entry(replica).or_default();
        let before = ranges.len();
        // The ranges that the new one overlaps or touches.
        let start = ranges.partition_point(|range| range.last < first - 1);
        let end = ranges.partition_point(|range| range.first <= last.saturating_add(1));
        if start == end {
            ranges.insert(start, Range { first, last });
        } else {
            let merged =
                Range { first: first.min(ranges[start].first), last: last.max(ranges[end - 1].last) };
            if end - start == 1 && ranges[start] == merged {
                return false;
            }
            ranges[start] = merged;
            ranges.drain(start + 1..end);
        }
        self.ranges = self.ranges - before + ranges.len();
        true
    }

    /// The events seen here and not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut result = Self::new();
        for (replica, ranges) in &self.seen {
            let theirs = other.seen.get(replica).map_or(&[][..], Vec::as_slice);
            let mut at = 0;
            for range in ranges {
                let mut first = range.first;
                // Ranges are ascending: those that end before this one end before all later ones.
                while theirs.get(at).is_some_and(|hole| hole.last < range.first) {
                    at += 1;
                }
                let mut next = at;
                let mut covered = false;
                while let Some(hole) = theirs.get(next).filter(|hole| hole.first <= range.last) {
                    if hole.first > first {
                        result.insert_range(*replica, first, hole.first - 1);
                    }
                    if hole.last >= range.last {
                        covered = true;
                        break;
                    }
                    first = hole.last + 1;
                    next += 1;
                }
                if !covered {
                    result.insert_range(*replica, first, range.last);
                }
            }
        }
        result
    }

    /// Whether `other` has seen all its events.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        self.seen.iter().all(|(replica, ranges)| {
            let theirs = other.seen.get(replica).map_or(&[][..], Vec::as_slice);
            ranges.iter().all(|range| {
                let at = theirs.partition_point(|hole| hole.last < range.last);
                theirs.get(at).is_some_and(|hole| hole.first <= range.first)
            })
        })
    }

    /// The ranges, ascending: the writer, the first event and the last.
    pub fn ranges(&self) -> impl Iterator<Item = (ReplicaId, u64, u64)> + '_ {
        self.seen
            .iter()
            .flat_map(|(replica, ranges)| ranges.iter().map(|range| (*replica, range.first, range.last)))
    }

    /// The events, ascending. A peer can claim up to 2^64 of them: do not collect those of a context from
    /// outside.
    pub fn dots(&self) -> impl Iterator<Item = Dot> + '_ {
        self.ranges().flat_map(|(replica, first, last)| (first..=last).map(move |seq| Dot::new(replica, seq)))
    }
}

/// The union of two ascending lists of ranges, in time linear in both.
fn union(mine: &[Range], theirs: &[Range]) -> Vec<Range> {
    let mut result: Vec<Range> = Vec::with_capacity(mine.len() + theirs.len());
    let (mut a, mut b) = (mine.iter().copied().peekable(), theirs.iter().copied().peekable());
    loop {
        let take_mine = match (a.peek(), b.peek()) {
            (Some(x), Some(y)) => x.first <= y.first,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => return result,
        };
        let Some(range) = (if take_mine { a.next() } else { b.next() }) else { return result };
        match result.last_mut() {
            Some(last) if range.first <= last.last.saturating_add(1) => last.last = last.last.max(range.last),
            _ => result.push(range),
        }
    }
}

impl Lattice for Context {
    fn bottom() -> Self {
        Self::new()
    }

    fn join(&mut self, other: &Self) -> bool {
        // Below this, single insertions beat rebuilding a list.
        const FEW: usize = 4;
        let mut grew = false;
        for (replica, theirs) in &other.seen {
            if theirs.len() <= FEW {
                for range in theirs {
                    grew |= self.insert_range(*replica, range.first, range.last);
                }
                continue;
            }
            let mine = self.seen.entry(*replica).or_default();
            let joined = union(mine, theirs);
            if *mine != joined {
                self.ranges = self.ranges - mine.len() + joined.len();
                *mine = joined;
                grew = true;
            }
        }
        grew
    }

    fn delta(&self, since: &Self) -> Self {
        self.difference(since)
    }

    fn decompose(&self) -> Vec<Self> {
        self.dots().map(|dot| [dot].into_iter().collect()).collect()
    }
}

impl FromIterator<Dot> for Context {
    fn from_iter<I: IntoIterator<Item = Dot>>(dots: I) -> Self {
        let mut context = Self::new();
        for dot in dots {
            context.insert(dot);
        }
        context
    }
}

/// The distances between the ranges and their lengths, each less its minimum, so that no two byte strings
/// decode to one context.
impl Canonical for Context {
    fn encode(&self, out: &mut Vec<u8>) {
        put_integer(self.seen.len() as u64, out);
        for (replica, ranges) in &self.seen {
            replica.encode(out);
            put_integer(ranges.len() as u64 - 1, out);
            let mut least = 1;
            for range in ranges {
                put_integer(range.first - least, out);
                put_integer(range.last - range.first, out);
                least = range.last.saturating_add(2);
            }
        }
    }

    fn decode(input: &mut ByteReader<'_>) -> Result<Self, DecodeError> {
        const WHAT: &str = "a context";
        const OUT: DecodeError = DecodeError::Range { what: WHAT };
        // A writer takes 9 bytes, the number of its ranges one, a range two.
        let writers = input.count(12, WHAT)?;
        let mut context = Self::new();
        for _ in 0..writers {
            let replica = ReplicaId::decode(input)?;
            if context.seen.last_key_value().is_some_and(|(last, _)| *last >= replica) {
                return Err(DecodeError::NotCanonical { what: WHAT });
            }
            let more = input.count(2, WHAT)?;
            let mut ranges = Vec::new();
            let mut least = Some(1_u64);
            for _ in 0..=more {
                let distance = input.integer(WHAT)?;
                let first = least.and_then(|least| least.checked_add(distance)).ok_or(OUT)?;
                let last = first.checked_add(input.integer(WHAT)?).ok_or(OUT)?;
                ranges.push(Range { first, last });
                least = last.checked_add(2);
            }
            context.ranges += ranges.len();
            context.seen.insert(replica, ranges);
        }
        Ok(context)
    }
}
