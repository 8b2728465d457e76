//! [`Slice`]: the values and the records of history of the events in one range.
//!
//! A composed type has no order of keys that all types share, but all of them mark each value with its event.
//! So a long state is cut by events: of each writer from the first one to the last.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Bound;

use super::CausalReplica;
use super::transfer::{StateDelta, context};
use crate::codec::{ByteReader, Canonical, DecodeError};
use crate::map::{DeltaError, DeltaExtent};
use crate::session::WHOLE_LEN_MAX;
use crate::types::context::Context;
use crate::types::store::DotStore;
use crate::{Dot, Version};

const FORMAT: u8 = 1;

/// The bytes that a record of history takes besides the events that it names, at most.
const RECORD_LEN: usize = 24;

/// The most bytes of a slice besides versions, values and records: the ends of its span, its counts, its
/// checksum.
const HEAD_LEN: usize = 96;

/// The events from `from` on, before `end`; without bounds where they are `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) from: Option<Dot>,
    pub(super) end: Option<Dot>,
}

impl Span {
    fn contains(&self, dot: Dot) -> bool {
        self.from.is_none_or(|from| dot >= from) && self.end.is_none_or(|end| dot < end)
    }

    /// The span as the bounds of a map's range.
    pub(super) fn bounds(&self) -> (Bound<Dot>, Bound<Dot>) {
        let from = self.from.map_or(Bound::Unbounded, Bound::Included);
        (from, self.end.map_or(Bound::Unbounded, Bound::Excluded))
    }

    /// The events of the span in `version`.
    pub(super) fn events(&self, version: &Version) -> Context {
        let mut events = Context::new();
        for (replica, last) in version.iter() {
            let first = match self.from {
                Some(from) if replica < from.replica => continue,
                Some(from) if replica == from.replica => from.seq,
                _ => 1,
            };
            let last = match self.end {
                Some(end) if replica > end.replica => continue,
                Some(end) if replica == end.replica => last.min(end.seq - 1),
                _ => last,
            };
            events.insert_range(replica, first, last);
        }
        events
    }
}

/// A part of a delta: the values and the records of history of the events in a span. The delta says nothing
/// of the values of other events, except where a record names them as gone.
pub(super) struct Slice<S> {
    pub(super) span: Span,
    pub(super) delta: StateDelta<S>,
}

impl<S: DotStore> Slice<S> {
    /// Reads a slice that was made for `since`.
    pub(super) fn decode(bytes: &[u8], since: &Version) -> Result<Self, DeltaError> {
        const WHAT: &str = "the end of a slice";
        let mut input = ByteReader::new(bytes);
        let found = input.byte("a slice")?;
        if found != FORMAT {
            return Err(DecodeError::Version { found }.into());
        }
        let span = Span { from: Option::decode(&mut input)?, end: Option::decode(&mut input)? };
        // Otherwise a slice could bring nothing, and be requested for ever.
        if span.end.is_some_and(|end| span.from.is_some_and(|from| end <= from)) {
            return Err(DecodeError::Range { what: WHAT }.into());
        }
        let delta = StateDelta::<S>::decode(input.take(input.len(), "a slice")?, since)?;
        let mut outside = delta.history.keys().copied().find(|dot| !span.contains(*dot));
        // The stage may hold the value of such an event already, and at another place.
        let is_known = |dot: Dot| delta.extent == DeltaExtent::Since && since.contains(dot);
        let mut has_known = delta.history.keys().any(|dot| is_known(*dot));
        delta.store.for_each_dot(&mut |dot| {
            if !span.contains(dot) {
                outside = Some(dot);
            }
            has_known |= is_known(dot);
        });
        // Each event is in one slice, so that no slice speaks of one that another has brought.
        match outside {
            Some(dot) => Err(DeltaError::Context { dot }),
            None if delta.extent == DeltaExtent::Chosen => {
                Err(DecodeError::Tag { what: "extent of a slice", tag: 2 }.into())
            }
            None if has_known => Err(DecodeError::Range { what: "an event of a slice" }.into()),
            None => Ok(Self { span, delta }),
        }
    }
}

impl<S: DotStore> CausalReplica<S> {
    /// Whether the delta since `since`, or a complete one, is too long for one transfer.
    pub(super) fn is_long(&self, since: &Version, complete: bool) -> bool {
        let of_delta = |dot: &Dot| complete || !since.contains(*dot);
        let values = self.items.iter().filter(|(dot, _)| of_delta(dot)).map(|(_, held)| held.len as usize);
        let records = self.history.iter().filter(|(event, _)| of_delta(event));
        let records = records.map(|(_, killed)| RECORD_LEN + record_len(killed));
        let mut left = WHOLE_LEN_MAX;
        values.chain(records).any(|len| {
            let fits = len <= left;
            left = left.saturating_sub(len);
            !fits
        })
    }

    /// The slice from `from` on of what a receiver with `since` lacks: as many events as take about `len_max`
    /// bytes, at least one.
    pub(super) fn encode_slice(&self, since: &Version, from: Option<Dot>, len_max: usize) -> Vec<u8> {
        let reaches_back = self.floor.is_within(since);
        let is_listed = |dot: Dot| !reaches_back || !since.contains(dot);
        let version = self.version();
        // The versions of the delta take their share, and its head and checksum.
        let changes = version.changes_since(since).len() + self.floor.changes_since(&version).len();
        let mut left = len_max.saturating_sub(changes * 24 + HEAD_LEN);
        let (mut span, mut is_empty) = (Span { from, end: None }, true);
        let mut values = self.items.range(span.bounds()).peekable();
        let mut records = self.history.range(span.bounds()).peekable();
        loop {
            // The smaller event of both, and both where they are equal.
            let dot = match (values.peek(), records.peek()) {
                (Some((dot, _)), Some((event, _))) => **dot.min(event),
                (Some((dot, _)), None) | (None, Some((dot, _))) => **dot,
                (None, None) => break,
            };
            let value = values.next_if(|(at, _)| **at == dot).map_or(0, |(_, held)| held.len as usize);
            let record = records.next_if(|(at, _)| **at == dot);
            if !is_listed(dot) {
                continue;
            }
            let len = value + record.map_or(0, |(_, killed)| RECORD_LEN + record_len(killed));
            if len > left && !is_empty {
                span.end = Some(dot);
                break;
            }
            is_empty = false;
            left = left.saturating_sub(len);
        }
        let mut known = context(&version).difference(&span.events(&version));
        let extent = if reaches_back {
            for (replica, last) in since.iter() {
                known.insert_range(replica, 1, last);
            }
            DeltaExtent::Since
        } else {
            DeltaExtent::Complete
        };
        let mut out = alloc::vec![FORMAT];
        span.from.encode(&mut out);
        span.end.encode(&mut out);
        let records = self.history.range(span.bounds()).filter(|(event, _)| is_listed(**event));
        self.encode_delta(extent, since, &known, records, &mut out);
        out
    }
}

/// The bytes of the events that a record names.
fn record_len(killed: &Context) -> usize {
    let mut bytes = Vec::new();
    killed.encode(&mut bytes);
    bytes.len()
}

/// The events of `held` that `killed` names.
pub(super) fn named<V>(held: &BTreeMap<Dot, V>, killed: &Context) -> Vec<Dot> {
    let ranges = killed.ranges();
    let spans = ranges.map(|(replica, first, last)| Dot::new(replica, first)..=Dot::new(replica, last));
    spans.flat_map(|span| held.range(span).map(|(dot, _)| *dot)).collect()
}
