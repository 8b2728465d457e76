//! Products of stores: pairs and structs.

use alloc::vec::Vec;

use super::{DotStore, JoinScope, StoreForm};
use crate::codec::{ByteReader, DecodeError};
use crate::dot::Dot;
use crate::types::context::Context;

/// A pair: an operation on one half leaves the other at its default in the delta.
impl<A: DotStore, B: DotStore> DotStore for (A, B) {
    fn is_empty(&self) -> bool {
        self.0.is_empty() && self.1.is_empty()
    }

    fn for_each_dot(&self, visit: &mut dyn FnMut(Dot)) {
        self.0.for_each_dot(visit);
        self.1.for_each_dot(visit);
    }

    fn join(&mut self, context: &Context, other: &Self, other_context: &Context, scope: JoinScope) -> bool {
        let first = self.0.join(context, &other.0, other_context, scope);
        self.1.join(context, &other.1, other_context, scope) || first
    }

    fn delta(&self, context: &Context, since: &Self, since_context: &Context, gone: &mut Context) -> Self {
        let first = self.0.delta(context, &since.0, since_context, gone);
        (first, self.1.delta(context, &since.1, since_context, gone))
    }

    fn touched(&self) -> Self {
        (self.0.touched(), self.1.touched())
    }

    fn split(&self, piece: &mut dyn FnMut(Dot, Self)) {
        self.0.split(&mut |dot, store| piece(dot, (store, B::default())));
        self.1.split(&mut |dot, store| piece(dot, (A::default(), store)));
    }

    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
        self.1.encode(out);
    }

    fn decode(input: &mut ByteReader<'_>, form: StoreForm) -> Result<Self, DecodeError> {
        Ok((A::decode(input, form)?, B::decode(input, form)?))
    }
}

/// Makes a struct a [`DotStore`](crate::types::store::DotStore) of its fields, which must be dot stores; name
/// all of them, in the order of their encoding. The struct must be `Clone + Eq + Default`.
///
/// An operation on a field is a struct with the field's delta and defaults for the rest.
///
/// ```
/// use x0_crdt::{LwwRegister, OrSet, Stamp};
/// use x0_crdt::{Causal, ReplicaId, dot_store_struct};
///
/// #[derive(Debug, Clone, PartialEq, Eq, Default)]
/// struct Contact {
///     name: LwwRegister<String>,
///     mails: OrSet<String>,
/// }
/// dot_store_struct!(Contact { name, mails });
///
/// let mut contact = Causal::<Contact>::new();
/// contact.change(ReplicaId::new(1), |contact, change| Contact {
///     name: contact.name.set(change, Stamp::new(7, 0), "Ada".into()),
///     mails: contact.mails.add(change, "ada@example.org".into()),
/// })?;
/// assert!(contact.store().mails.contains("ada@example.org"));
/// # Ok::<(), x0_crdt::ChangeError>(())
/// ```
#[macro_export]
macro_rules! dot_store_struct {
    ($type:ident { $($field:ident),+ $(,)? }) => {
        impl $crate::DotStore for $type {
            fn is_empty(&self) -> bool {
                true $(&& $crate::DotStore::is_empty(&self.$field))+
            }

            fn for_each_dot(&self, visit: &mut dyn FnMut($crate::Dot)) {
                $($crate::DotStore::for_each_dot(&self.$field, visit);)+
            }

            fn join(
                &mut self,
                context: &$crate::Context,
                other: &Self,
                other_context: &$crate::Context,
                scope: $crate::JoinScope,
            ) -> bool {
                let mut changed = false;
                $(changed |= $crate::DotStore::join(
                    &mut self.$field, context, &other.$field, other_context, scope,
                );)+
                changed
            }

            fn delta(
                &self,
                context: &$crate::Context,
                since: &Self,
                since_context: &$crate::Context,
                gone: &mut $crate::Context,
            ) -> Self {
                Self {
                    $($field: $crate::DotStore::delta(
                        &self.$field, context, &since.$field, since_context, gone,
                    ),)+
                }
            }

            fn touched(&self) -> Self {
                Self { $($field: $crate::DotStore::touched(&self.$field),)+ }
            }

            fn split(&self, piece: &mut dyn FnMut($crate::Dot, Self)) {
                $($crate::DotStore::split(&self.$field, &mut |dot, store| {
                    let mut whole = <Self as ::core::default::Default>::default();
                    whole.$field = store;
                    piece(dot, whole);
                });)+
            }

            fn encode(&self, out: &mut $crate::__private::Vec<u8>) {
                $($crate::DotStore::encode(&self.$field, out);)+
            }

            fn decode(
                input: &mut $crate::ByteReader<'_>,
                form: $crate::StoreForm,
            ) -> ::core::result::Result<Self, $crate::DecodeError> {
                ::core::result::Result::Ok(Self { $($field: $crate::DotStore::decode(input, form)?,)+ })
            }
        }
    };
}
