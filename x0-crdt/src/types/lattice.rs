//! [`Lattice`]: join-semilattices, the seam of all composable types.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::codec::Canonical;

/// A value with a join that is commutative, associative and idempotent: the order, number and grouping of
/// joins do not matter.
///
/// `x <= y` means that joining `x` into `y` leaves `y` as it is.
///
/// ```
/// use x0_crdt::{Lattice, Max};
///
/// let mut height = Max::of(3_u64);
/// assert!(height.join(&Max::of(5)));
/// assert!(!height.join(&Max::of(4)));
/// assert_eq!(height.get(), Some(&5));
/// ```
pub trait Lattice: Clone + Eq + Canonical {
    /// The least value: joining it changes nothing.
    fn bottom() -> Self;

    /// Makes `self` the least value that is at least both. Returns whether `self` grew.
    fn join(&mut self, other: &Self) -> bool;

    /// The smallest `d` so that `since` joined with `d` is `since` joined with `self`.
    #[must_use]
    fn delta(&self, since: &Self) -> Self;

    /// The join-irreducible values (none of them a join of smaller ones) whose join is `self`. None of them
    /// is the bottom.
    ///
    /// There is one for each event ever seen, also for those whose values are gone. A peer can claim up to
    /// 2^64 events: do not call it on a state from outside.
    #[must_use]
    fn decompose(&self) -> Vec<Self>;

    /// Whether it is the bottom.
    #[must_use]
    fn is_bottom(&self) -> bool {
        *self == Self::bottom()
    }
}

impl Lattice for () {
    fn bottom() -> Self {}

    fn join(&mut self, _other: &Self) -> bool {
        false
    }

    fn delta(&self, _since: &Self) -> Self {}

    fn decompose(&self) -> Vec<Self> {
        Vec::new()
    }
}

/// A pair: each half is joined by itself.
impl<A: Lattice, B: Lattice> Lattice for (A, B) {
    fn bottom() -> Self {
        (A::bottom(), B::bottom())
    }

    fn join(&mut self, other: &Self) -> bool {
        let first = self.0.join(&other.0);
        self.1.join(&other.1) || first
    }

    fn delta(&self, since: &Self) -> Self {
        (self.0.delta(&since.0), self.1.delta(&since.1))
    }

    fn decompose(&self) -> Vec<Self> {
        let firsts = self.0.decompose().into_iter().map(|piece| (piece, B::bottom()));
        let seconds = self.1.decompose().into_iter().map(|piece| (A::bottom(), piece));
        firsts.chain(seconds).collect()
    }
}

/// A new bottom below the old one: `None` is less than any `Some`.
impl<L: Lattice> Lattice for Option<L> {
    fn bottom() -> Self {
        None
    }

    fn join(&mut self, other: &Self) -> bool {
        match (self.as_mut(), other) {
            (_, None) => false,
            (Some(mine), Some(theirs)) => mine.join(theirs),
            (None, Some(theirs)) => {
                *self = Some(theirs.clone());
                true
            }
        }
    }

    fn delta(&self, since: &Self) -> Self {
        match (self, since) {
            (Some(mine), Some(theirs)) => Some(mine.delta(theirs)).filter(|delta| !delta.is_bottom()),
            (mine, None) => mine.clone(),
            (None, _) => None,
        }
    }

    fn decompose(&self) -> Vec<Self> {
        self.as_ref().map_or_else(Vec::new, |value| lifted(value).into_iter().map(Some).collect())
    }
}

/// Keys that are never removed, each with a lattice. A key with a bottom is more than no key.
impl<K: Ord + Clone + Canonical, L: Lattice> Lattice for BTreeMap<K, L> {
    fn bottom() -> Self {
        Self::new()
    }

    fn join(&mut self, other: &Self) -> bool {
        let mut grew = false;
        for (key, theirs) in other {
            if let Some(mine) = self.get_mut(key) {
                grew |= mine.join(theirs);
            } else {
                self.insert(key.clone(), theirs.clone());
                grew = true;
            }
        }
        grew
    }

    fn delta(&self, since: &Self) -> Self {
        let news = |(key, value): (&K, &L)| {
            let Some(theirs) = since.get(key) else { return Some((key.clone(), value.clone())) };
            Some(value.delta(theirs)).filter(|delta| !delta.is_bottom()).map(|delta| (key.clone(), delta))
        };
        self.iter().filter_map(news).collect()
    }

    fn decompose(&self) -> Vec<Self> {
        let pieces = |(key, value): (&K, &L)| -> Vec<Self> {
            lifted(value).into_iter().map(|piece| Self::from([(key.clone(), piece)])).collect()
        };
        self.iter().flat_map(pieces).collect()
    }
}

/// The pieces of a value that got a new bottom below it: the old bottom is a piece of its own.
fn lifted<L: Lattice>(value: &L) -> Vec<L> {
    if value.is_bottom() { alloc::vec![L::bottom()] } else { value.decompose() }
}

/// Makes a struct a [`Lattice`] (and [`Canonical`]) of its fields, which must be lattices; name all of them,
/// in the order of their encoding. The struct must be `Clone + Eq`.
///
/// ```
/// use x0_crdt::{Lattice, Max, Min, lattice_struct};
///
/// #[derive(Clone, PartialEq, Eq)]
/// struct Span {
///     first: Min<u64>,
///     last: Max<u64>,
/// }
/// lattice_struct!(Span { first, last });
///
/// let mut span = Span { first: Min::of(4), last: Max::of(4) };
/// span.join(&Span { first: Min::of(7), last: Max::of(7) });
/// assert_eq!((span.first.get(), span.last.get()), (Some(&4), Some(&7)));
/// ```
#[macro_export]
macro_rules! lattice_struct {
    ($type:ident { $($field:ident),+ $(,)? }) => {
        impl $crate::Canonical for $type {
            fn encode(&self, out: &mut $crate::__private::Vec<u8>) {
                $($crate::Canonical::encode(&self.$field, out);)+
            }

            fn decode(input: &mut $crate::ByteReader<'_>) -> ::core::result::Result<Self, $crate::DecodeError> {
                ::core::result::Result::Ok(Self { $($field: $crate::Canonical::decode(input)?,)+ })
            }
        }

        impl $crate::Lattice for $type {
            fn bottom() -> Self {
                Self { $($field: $crate::Lattice::bottom(),)+ }
            }

            fn join(&mut self, other: &Self) -> bool {
                let mut grew = false;
                $(grew |= $crate::Lattice::join(&mut self.$field, &other.$field);)+
                grew
            }

            fn delta(&self, since: &Self) -> Self {
                Self { $($field: $crate::Lattice::delta(&self.$field, &since.$field),)+ }
            }

            fn decompose(&self) -> $crate::__private::Vec<Self> {
                let mut pieces = $crate::__private::Vec::new();
                $(for piece in $crate::Lattice::decompose(&self.$field) {
                    let mut whole = <Self as $crate::Lattice>::bottom();
                    whole.$field = piece;
                    pieces.push(whole);
                })+
                pieces
            }
        }
    };
}
