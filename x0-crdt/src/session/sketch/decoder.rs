//! [`SketchDecoder`]: finds the items in which two sets differ.

use alloc::vec::Vec;

use super::mapping::{Mapping, map};
use super::symbols::{CodedSymbols, SYMBOL_LEN, SYMBOLS_MAX, Symbol};

/// Why symbols were not accepted. Items found before stay; after [`SketchError::Corrupt`] they are
/// meaningless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SketchError {
    /// Not a whole number of symbols.
    #[error("{len} bytes are not whole symbols of {SYMBOL_LEN} bytes: the datagram is damaged")]
    Length {
        /// How many bytes.
        len: usize,
    },
    /// Symbols in between are missing.
    #[error("symbols from {from} on arrived, but {wanted} is next: request those between")]
    Gap {
        /// The first given.
        from: usize,
        /// The next wanted.
        wanted: usize,
    },
    /// More symbols than [`SYMBOLS_MAX`].
    #[error("more than {SYMBOLS_MAX} symbols: request the whole state instead")]
    TooMany,
    /// More items came out than symbols went in: the symbols are not of one set, or were made with another
    /// key.
    #[error(
        "the symbols contradict each other: start over; if it happens again, compare the hash keys of the two sides"
    )]
    Corrupt,
}

/// Takes the symbols of a remote set in order and finds in which items it differs from a local one.
#[derive(Debug, Clone)]
pub struct SketchDecoder {
    local: CodedSymbols,
    /// The remote symbols without the local and the found items.
    rest: Vec<Symbol>,
    found: Vec<(u64, u32, Mapping)>,
    remote_only: Vec<u64>,
    local_only: Vec<u64>,
    /// The symbols that may hold one item alone.
    work: Vec<usize>,
}

impl SketchDecoder {
    /// A decoder against a local set, which must not change meanwhile.
    #[must_use]
    pub const fn new(local: CodedSymbols) -> Self {
        Self {
            local,
            rest: Vec::new(),
            found: Vec::new(),
            remote_only: Vec::new(),
            local_only: Vec::new(),
            work: Vec::new(),
        }
    }

    /// How many symbols were added: the number of the next one wanted.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.rest.len()
    }

    /// Whether no symbol was added yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Whether all differing items are found.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.rest.first().is_some_and(|first| *first == Symbol::default())
    }

    /// The items that only the remote set has, as far as found, in no order.
    #[must_use]
    pub fn remote_only(&self) -> &[u64] {
        &self.remote_only
    }

    /// The items that only the local set has, as far as found, in no order.
    #[must_use]
    pub fn local_only(&self) -> &[u64] {
        &self.local_only
    }

    /// Whether an item is in the local set.
    #[must_use]
    pub fn is_local(&self, item: u64) -> bool {
        self.local.contains(item)
    }

    /// Adds symbols from number `from` on. Those added before are skipped, so a repetition does no harm.
    ///
    /// # Errors
    /// Bytes that are not symbols, symbols beyond a gap, or ones that contradict each other.
    pub fn add(&mut self, from: usize, bytes: &[u8]) -> Result<(), SketchError> {
        self.local.grow(from.saturating_add(bytes.len() / SYMBOL_LEN).min(SYMBOLS_MAX));
        self.append(from, bytes)?;
        self.peel(usize::MAX).map(drop)
    }

    /// The local set, to which nothing may be added once there are symbols.
    pub(crate) const fn local_mut(&mut self) -> &mut CodedSymbols {
        &mut self.local
    }

    /// Adds symbols as [`add`](Self::add), as far as the local ones are made, without looking for items.
    pub(crate) fn append(&mut self, from: usize, bytes: &[u8]) -> Result<(), SketchError> {
        let (symbols, odd) = bytes.as_chunks::<SYMBOL_LEN>();
        if !odd.is_empty() {
            return Err(SketchError::Length { len: bytes.len() });
        }
        let before = self.rest.len();
        if from > before {
            return Err(SketchError::Gap { from, wanted: before });
        }
        if from.saturating_add(symbols.len()) > SYMBOLS_MAX {
            return Err(SketchError::TooMany);
        }
        let room = self.local.made().saturating_sub(before);
        for [a, b, c, d, e, f, g, h, check @ ..] in symbols.iter().skip(before - from).take(room) {
            let mut symbol = self.local.symbol(self.rest.len());
            symbol.toggle(u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), u32::from_le_bytes(*check));
            self.rest.push(symbol);
        }
        let rest = self.rest.get_mut(..).unwrap_or_default();
        for (item, check, mapping) in &mut self.found {
            super::symbols::put(rest, *item, *check, mapping);
        }
        self.work.extend(before..self.rest.len());
        Ok(())
    }

    /// Looks at up to `count` symbols for items. Returns whether there are more.
    pub(crate) fn peel(&mut self, count: usize) -> Result<bool, SketchError> {
        let key = self.local.key();
        let mut left = count;
        while let Some(place) = self.work.pop() {
            if left == 0 {
                self.work.push(place);
                return Ok(true);
            }
            left -= 1;
            let Some(symbol) = self.rest.get(place).copied() else { continue };
            if symbol == Symbol::default() {
                continue;
            }
            // A symbol whose check value fits its sum holds one item alone, but for one in 2^32.
            let item = symbol.sum;
            let (check, mut mapping) = map(key, item);
            if check != symbol.check {
                continue;
            }
            // Honest symbols never yield more items than there are symbols: this bounds the work for hostile
            // ones.
            if self.found.len() >= self.rest.len() {
                return Err(SketchError::Corrupt);
            }
            while let Some((at, symbol)) =
                usize::try_from(mapping.next).ok().and_then(|at| Some((at, self.rest.get_mut(at)?)))
            {
                symbol.toggle(item, check);
                self.work.push(at);
                mapping.advance();
            }
            self.found.push((item, check, mapping));
            if self.local.contains(item) { &mut self.local_only } else { &mut self.remote_only }.push(item);
        }
        Ok(false)
    }
}
