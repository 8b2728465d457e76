//! Dot stores: data of which every part is marked with the event that wrote it.

mod composed;
mod dots;

use alloc::vec::Vec;

use crate::codec::{ByteReader, DecodeError};
use crate::dot::Dot;
use crate::types::context::Context;

pub use dots::Dots;

/// What two stores are to each other when they are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinScope {
    /// Both are states: every part is looked at, and what is empty is left out.
    States,
    /// A delta is applied to a state: only the keys that are in the delta are looked at, and what becomes empty is left out.
    Apply,
    /// Both are deltas: every part is looked at, and what is empty stays, because it says what was touched.
    Deltas,
}

/// Whether a store is a state or the store of a delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreForm {
    /// A state: nothing under a key is empty.
    State,
    /// A delta: an empty child says that its key was touched.
    Delta,
}

/// Data of which every part is marked with the [`Dot`] of the event that wrote it (Almeida, Shoker, Baquero, "Delta state replicated
/// data types", 2018).
///
/// A store alone cannot be joined: whether a part that only one side has is new or was removed is said by the two contexts. So stores
/// are joined inside a [`Causal`](crate::Causal), or inside a store inside one. Of a dot, at its place, a replica knows one of:
/// nothing; a value; that it is gone. That is also the order: what is gone never returns. Each dot is at one place. If a dishonest writer gave one dot two
/// values, the one with the greater canonical bytes is taken, everywhere.
///
/// A delta is a store too, with one difference: the keys that an operation touched stay in it, also if nothing is left under them, so
/// that applying it looks at those keys and no others.
pub trait DotStore: Clone + Eq + Default {
    /// Whether there is nothing in it: no dot, and for a delta no touched key.
    fn is_empty(&self) -> bool;

    /// Shows all dots to `visit`.
    fn for_each_dot(&self, visit: &mut dyn FnMut(Dot));

    /// Joins `other` in; whether anything changed. The contexts are those before the join.
    fn join(&mut self, context: &Context, other: &Self, other_context: &Context, scope: JoinScope) -> bool;

    /// The part of this state that `since` lacks, while the dots that are gone from `since` are added to `gone`.
    #[must_use]
    fn difference(
        &self,
        context: &Context,
        since: &Self,
        since_context: &Context,
        gone: &mut Context,
    ) -> Self;

    /// The delta's store that touches all keys in this state and holds nothing: for removing everything.
    #[must_use]
    fn touched(&self) -> Self;

    /// Shows to `piece` each dot with the state that holds nothing else.
    fn split(&self, piece: &mut dyn FnMut(Dot, Self));

    /// Appends the canonical bytes.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// Bytes that cannot have been written from that form.
    fn decode(input: &mut ByteReader<'_>, form: StoreForm) -> Result<Self, DecodeError>;
}

/// Implements [`DotStore`] for a struct with one field that is one.
macro_rules! wrap_store {
    ([$($bounds:tt)*] $type:ty, $inner:ty) => {
        impl<$($bounds)*> $crate::DotStore for $type {
            fn is_empty(&self) -> bool {
                self.0.is_empty()
            }

            fn for_each_dot(&self, visit: &mut dyn FnMut($crate::Dot)) {
                $crate::DotStore::for_each_dot(&self.0, visit);
            }

            fn join(
                &mut self,
                context: &$crate::Context,
                other: &Self,
                other_context: &$crate::Context,
                scope: $crate::JoinScope,
            ) -> bool {
                $crate::DotStore::join(&mut self.0, context, &other.0, other_context, scope)
            }

            fn difference(
                &self,
                context: &$crate::Context,
                since: &Self,
                since_context: &$crate::Context,
                gone: &mut $crate::Context,
            ) -> Self {
                Self($crate::DotStore::difference(&self.0, context, &since.0, since_context, gone))
            }

            fn touched(&self) -> Self {
                Self($crate::DotStore::touched(&self.0))
            }

            fn split(&self, piece: &mut dyn FnMut($crate::Dot, Self)) {
                $crate::DotStore::split(&self.0, &mut |dot, store| piece(dot, Self(store)));
            }

            fn encode(&self, out: &mut alloc::vec::Vec<u8>) {
                $crate::DotStore::encode(&self.0, out);
            }

            fn decode(
                input: &mut $crate::ByteReader<'_>,
                form: $crate::StoreForm,
            ) -> Result<Self, $crate::DecodeError> {
                <$inner as $crate::DotStore>::decode(input, form).map(Self)
            }
        }
    };
}
pub(crate) use wrap_store;
