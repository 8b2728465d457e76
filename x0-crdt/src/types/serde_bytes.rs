//! serde: each type is its canonical bytes in an envelope, in any format, so that every input passes the
//! canonical decoder.

use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::codec::{Canonical, from_bytes, to_bytes};
use crate::types::causal::{Causal, Delta};
use crate::types::context::Context;
use crate::types::store::DotStore;

struct Envelope<T>(PhantomData<T>);

impl<'de, T: Canonical> Visitor<'de> for Envelope<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("canonical bytes")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<T, E> {
        from_bytes(bytes).map_err(E::custom)
    }

    /// Formats without byte strings give a list of numbers.
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<T, A::Error> {
        let mut bytes: Vec<u8> = Vec::new();
        while let Some(byte) = items.next_element()? {
            bytes.push(byte);
        }
        self.visit_bytes(&bytes)
    }
}

macro_rules! as_bytes {
    ($([$($bounds:tt)*] $type:ty),*) => {$(
        impl<$($bounds)*> Serialize for $type {
            fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
                serializer.serialize_bytes(&to_bytes(self))
            }
        }

        impl<'de, $($bounds)*> Deserialize<'de> for $type {
            fn deserialize<Z: Deserializer<'de>>(deserializer: Z) -> Result<Self, Z::Error> {
                deserializer.deserialize_bytes(Envelope(PhantomData))
            }
        }
    )*};
}
as_bytes!([S: DotStore] Causal<S>, [S: DotStore] Delta<S>, [] Context);
