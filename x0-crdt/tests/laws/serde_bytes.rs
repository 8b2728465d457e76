//! serde carries the canonical bytes and nothing else, and what comes in is checked like these.

use core::fmt::Display;

use serde::de::value::{BytesDeserializer, Error, SeqDeserializer};
use serde::ser::{Impossible, Serialize, Serializer};
use serde::{Deserialize, de, ser};
use x0_crdt::to_bytes;
use x0_crdt::{Causal, Context, Delta, ReplicaId};
use x0_crdt::{OrMap, OrSet};

/// A format that knows byte strings only.
struct Bytes;

macro_rules! nothing {
    ($($name:ident($($type:ty),*) -> $result:ty;)*) => {$(
        fn $name(self, $(_: $type),*) -> Result<$result, Error> {
            Err(ser::Error::custom(stringify!($name)))
        }
    )*};
}

type Never = Impossible<Vec<u8>, Error>;

impl Serializer for Bytes {
    type Ok = Vec<u8>;
    type Error = Error;
    type SerializeSeq = Never;
    type SerializeTuple = Never;
    type SerializeTupleStruct = Never;
    type SerializeTupleVariant = Never;
    type SerializeMap = Never;
    type SerializeStruct = Never;
    type SerializeStructVariant = Never;

    fn serialize_bytes(self, bytes: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(bytes.to_vec())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<Vec<u8>, Error> {
        Err(ser::Error::custom("serialize_some"))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        _: &T,
    ) -> Result<Vec<u8>, Error> {
        Err(ser::Error::custom(name))
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<Vec<u8>, Error> {
        Err(ser::Error::custom(name))
    }

    fn collect_str<T: Display + ?Sized>(self, text: &T) -> Result<Vec<u8>, Error> {
        Err(ser::Error::custom(text))
    }

    nothing! {
        serialize_bool(bool) -> Vec<u8>;
        serialize_i8(i8) -> Vec<u8>;
        serialize_i16(i16) -> Vec<u8>;
        serialize_i32(i32) -> Vec<u8>;
        serialize_i64(i64) -> Vec<u8>;
        serialize_u8(u8) -> Vec<u8>;
        serialize_u16(u16) -> Vec<u8>;
        serialize_u32(u32) -> Vec<u8>;
        serialize_u64(u64) -> Vec<u8>;
        serialize_f32(f32) -> Vec<u8>;
        serialize_f64(f64) -> Vec<u8>;
        serialize_char(char) -> Vec<u8>;
        serialize_str(&str) -> Vec<u8>;
        serialize_none() -> Vec<u8>;
        serialize_unit() -> Vec<u8>;
        serialize_unit_struct(&'static str) -> Vec<u8>;
        serialize_unit_variant(&'static str, u32, &'static str) -> Vec<u8>;
        serialize_seq(Option<usize>) -> Never;
        serialize_tuple(usize) -> Never;
        serialize_tuple_struct(&'static str, usize) -> Never;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Never;
        serialize_map(Option<usize>) -> Never;
        serialize_struct(&'static str, usize) -> Never;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Never;
    }
}

type Store = OrMap<String, OrSet<u8>>;

/// From a format with byte strings, and from one that writes them as a list of numbers.
fn both<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> [Result<T, Error>; 2] {
    let list = SeqDeserializer::<_, Error>::new(bytes.iter().copied());
    [T::deserialize(BytesDeserializer::new(bytes)), T::deserialize(list)]
}

#[test]
fn serde_carries_the_canonical_bytes() {
    let mut state = Causal::<Store>::new();
    let delta = state.change(ReplicaId::new(1), |map, change| {
        map.update(change, "a".into(), |set, change| set.add(change, 7))
    });
    let delta = delta.unwrap();
    let context = state.context().clone();

    assert_eq!(state.serialize(Bytes).unwrap(), to_bytes(&state));
    assert_eq!(delta.serialize(Bytes).unwrap(), to_bytes(&delta));
    assert_eq!(context.serialize(Bytes).unwrap(), to_bytes(&context));

    assert!(both(&to_bytes(&state)).iter().all(|read| read.as_ref() == Ok(&state)));
    assert!(both(&to_bytes(&delta)).iter().all(|read| read.as_ref() == Ok(&delta)));
    assert!(both(&to_bytes(&context)).iter().all(|read| read.as_ref() == Ok(&context)));
}

#[test]
fn values_from_serde_are_checked() {
    let mut bytes = to_bytes(&Causal::<Store>::new());
    bytes.push(0);
    let message = "1 bytes follow the end of the value: the bytes are damaged, or of another type";
    let refused: Error = de::Error::custom(message);
    assert_eq!(both::<Causal<Store>>(&bytes), [Err(refused.clone()), Err(refused.clone())]);
    assert_eq!(both::<Delta<Store>>(&bytes), [Err(refused.clone()), Err(refused)]);
    assert!(both::<Context>(&[9, 0]).iter().all(Result::is_err), "another version");
    assert!(both::<Context>(&[]).iter().all(Result::is_err));
}
