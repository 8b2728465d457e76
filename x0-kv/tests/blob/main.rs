//! Blobs: the folder against a model and without power, the exchange over any network and with misbehaving
//! peers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_possible_truncation)]

mod crash;
mod exchange;
mod folder;
mod hostile;
mod misbehaving;
mod random;
mod reference;
mod world;
