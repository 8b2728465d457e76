//! [`Max`] and [`Min`]: the greatest and the least value ever joined.

use alloc::vec::Vec;

use crate::codec::{ByteReader, Canonical, DecodeError};
use crate::types::lattice::Lattice;

macro_rules! extreme {
    ($(#[$doc:meta])* $name:ident, $better:tt) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name<T>(Option<T>);

        impl<T> $name<T> {
            /// No value yet.
            #[must_use]
            pub const fn new() -> Self {
                Self(None)
            }

            /// One value.
            #[must_use]
            pub const fn of(value: T) -> Self {
                Self(Some(value))
            }

            /// The value; `None` if there is none yet.
            #[must_use]
            pub const fn get(&self) -> Option<&T> {
                self.0.as_ref()
            }
        }

        impl<T> Default for $name<T> {
            fn default() -> Self {
                Self::new()
            }
        }

        impl<T: Ord + Clone + Canonical> Lattice for $name<T> {
            fn bottom() -> Self {
                Self::new()
            }

            fn join(&mut self, other: &Self) -> bool {
                let better = match (&self.0, &other.0) {
                    (Some(mine), Some(theirs)) => theirs $better mine,
                    (None, Some(_)) => true,
                    (_, None) => false,
                };
                if better {
                    self.clone_from(other);
                }
                better
            }

            fn delta(&self, since: &Self) -> Self {
                if since.clone().join(self) { self.clone() } else { Self::new() }
            }

            fn decompose(&self) -> Vec<Self> {
                self.0.iter().map(|value| Self(Some(value.clone()))).collect()
            }
        }

        impl<T: Canonical> Canonical for $name<T> {
            fn encode(&self, out: &mut Vec<u8>) {
                self.0.encode(out);
            }

            fn decode(input: &mut ByteReader<'_>) -> Result<Self, DecodeError> {
                Option::decode(input).map(Self)
            }
        }
    };
}

extreme!(
    /// The greatest value ever joined.
    Max, >
);
extreme!(
    /// The least value ever joined.
    Min, <
);
