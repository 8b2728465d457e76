//! Set reconciliation: finds the items in which two sets differ, at a cost in bytes of the differing items
//! alone.
//!
//! The method is that of rateless invertible Bloom look-up tables (Yang, Gilad, Alizadeh: "Practical Rateless
//! Set Reconciliation", SIGCOMM 2024). Each item, a 64-bit keyed hash, is added by exclusive or into a
//! sparse, endless sequence of *coded symbols*: always into the first, into the i-th with probability 1/(1 +
//! i/2). A peer sends the sequence from its start; the receiver subtracts its own, which leaves the differing
//! items, and peels them off: a symbol that holds one item alone reveals it, and removing it from all its
//! other symbols reveals further ones. No estimate of the number of items is needed: symbols are sent until
//! the first one, which holds all items, is empty.
//!
//! ```
//! use x0_crdt::HashKey;
//! use x0_crdt::internal::{CodedSymbols, SketchDecoder};
//!
//! let key = HashKey::new([7; 16]);
//! let theirs: CodedSymbols = CodedSymbols::new(key, [1, 2, 3, 4, 5]);
//! let mut decoder = SketchDecoder::new(CodedSymbols::new(key, [2, 3, 4, 5, 6]));
//! let mut theirs = theirs;
//! while !decoder.is_complete() {
//!     let from = decoder.len();
//!     decoder.add(from, &theirs.encode(from, 4))?;
//! }
//! assert_eq!((decoder.remote_only(), decoder.local_only()), (&[1][..], &[6][..]));
//! # Ok::<(), x0_crdt::internal::SketchError>(())
//! ```
//!
//! # Cost
//! A symbol is 12 bytes: the sum of the items, and of their check values of 32 bits. The paper's counts are
//! not sent: the receiver looks up in its own set on which side an item is. About 1.35 symbols are needed for
//! each of many differing items, up to 2 for each of ten. [`CodedSymbols`] are kept up to date under
//! [`insert`](CodedSymbols::insert) and [`remove`](CodedSymbols::remove) at a handful of symbols each, so
//! serving a peer is copying.
//!
//! # Bounds
//! Which symbols an item is in, and its check value, come from the key: an attacker that does not know it
//! cannot craft items that hide each other. Symbols from a hostile peer cost no more than their number:
//! peeling stops when more items come out than symbols went in.

mod decoder;
mod mapping;
mod symbols;

pub use decoder::{SketchDecoder, SketchError};
pub use symbols::{CodedSymbols, SYMBOL_LEN, SYMBOLS_MAX};
