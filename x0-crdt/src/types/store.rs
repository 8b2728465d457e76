//! [`DotStore`]: data of which every part is marked with the event that wrote it.

mod composed;
mod dots;

use alloc::vec::Vec;

use crate::codec::{ByteReader, DecodeError};
use crate::dot::Dot;
use crate::types::context::Context;

pub use dots::Dots;

/// The forms of two stores that are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinScope {
    /// Both are states: every part is visited, and empty parts are dropped.
    States,
    /// A delta is applied to a state: only the keys of the delta are visited, and parts that become empty are
    /// dropped.
    Apply,
    /// Both are deltas: every part is visited, and empty parts stay, because they mark touched keys.
    Deltas,
}

/// Whether a store is a state or the store of a delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreForm {
    /// A state: nothing under a key is empty.
    State,
    /// A delta: an empty child marks a touched key.
    Delta,
}

/// Data of which every part is marked with the [`Dot`] of the event that wrote it (Almeida, Shoker, Baquero,
/// "Delta state replicated data types", 2018).
///
/// A store alone cannot be joined: only the two contexts show whether a part that one side lacks is new or
/// was removed. So stores are joined inside a [`Causal`](crate::Causal). A replica knows of each dot, at its
/// place, one of: nothing; a value; that it is removed. This is also the order, so a removed value never
/// returns. Each dot is at one place. If a writer gives one dot two values, every replica keeps the one with
/// the greater canonical bytes.
///
/// The store of a delta keeps the keys that an operation touched, also if nothing is left under them, so that
/// applying it visits those keys and no others.
pub trait DotStore: Clone + Eq + Default {
    /// Whether it is empty: no dot, and for a delta no touched key.
    fn is_empty(&self) -> bool;

    /// Calls `visit` with each dot.
    fn for_each_dot(&self, visit: &mut dyn FnMut(Dot));

    /// Joins `other`. Returns whether anything changed. The contexts are those before the join.
    fn join(&mut self, context: &Context, other: &Self, other_context: &Context, scope: JoinScope) -> bool;

    /// The part of this state that `since` lacks. Adds to `gone` the dots of `since` that are removed here.
    #[must_use]
    fn delta(&self, context: &Context, since: &Self, since_context: &Context, gone: &mut Context) -> Self;

    /// The store of a delta that touches all keys of this state and holds nothing: for removing everything.
    #[must_use]
    fn touched(&self) -> Self;

    /// Calls `piece` with each dot and the store that holds nothing else.
    fn split(&self, piece: &mut dyn FnMut(Dot, Self));

    /// Appends the canonical bytes.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// Bytes that `encode` cannot have written from that form.
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

            fn delta(
                &self,
                context: &$crate::Context,
                since: &Self,
                since_context: &$crate::Context,
                gone: &mut $crate::Context,
            ) -> Self {
                Self($crate::DotStore::delta(&self.0, context, &since.0, since_context, gone))
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
