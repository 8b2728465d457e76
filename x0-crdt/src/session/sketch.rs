//! Set reconciliation: finds in which of many items two sets differ, at a cost in bytes of the differences alone.
//!
//! The method is that of rateless invertible Bloom look-up tables (Yang, Gilad, Alizadeh: "Practical Rateless Set Reconciliation",
//! SIGCOMM 2024). Each item, a 64-bit keyed hash, is added by exclusive or into a sparse, endless sequence of *coded symbols*: always
//! into the first, into the i-th with probability 1/(1 + i/2). A peer sends the sequence from its start; the receiver takes its own
//! away, which leaves the differences, and peels them off: a symbol that holds one item alone gives it, and taking it out of all its
//! other symbols lays further ones bare. No estimate of the difference is needed: symbols flow until the first one is empty, which
//! holds all items and so says that all were found.
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
//! A symbol is 12 bytes: the sum of the items, and of their check values of 32 bits. Counts, which the paper has as well, are not sent:
//! on which side an item is, the receiver knows by looking at its own. About 1.35 symbols are needed for each of many differences,
//! up to 2 for each of ten. [`CodedSymbols`] are kept up to date under [`insert`](CodedSymbols::insert) and
//! [`remove`](CodedSymbols::remove) at a handful of symbols each, so serving a peer is copying.
//!
//! # Bounds
//! Which symbols an item is in, and its check value, come from the key: one who does not know it cannot craft items that hide each
//! other. Symbols from a hostile peer cost no more than their number: peeling stops when more items come out than symbols went in.

mod decoder;
mod mapping;
mod symbols;

pub use decoder::{SketchDecoder, SketchError};
pub use symbols::{CodedSymbols, SYMBOL_LEN, SYMBOLS_MAX};
