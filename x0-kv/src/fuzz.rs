//! Entries of the fuzz targets of messages whose decoders are private.

use bytes::Bytes;

use crate::{cluster, crdt};

/// A message of the status service: a decoded one is encoded and decoded to itself.
pub fn status(message: &[u8]) {
    cluster::fuzz_status(&Bytes::copy_from_slice(message));
}

/// A message between a client and a member of a CRDT store: a decoded one is encoded and decoded to itself.
pub fn crdt(message: &[u8]) {
    crdt::wire::fuzz(&Bytes::copy_from_slice(message));
}
