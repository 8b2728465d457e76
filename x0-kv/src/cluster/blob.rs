//! The hub's part in blobs: the way to a member's own.

use std::collections::BTreeSet;

use bytes::Bytes;
use x0_identity::NodeId;

use crate::blob::{Blobs, Event, Input};

/// A member's blobs, if it has any; a client has none.
#[derive(Debug, Default)]
pub(super) struct BlobSide(pub(super) Option<Blobs>);

impl BlobSide {
    /// A message of a peer.
    pub(super) fn message(&self, from: NodeId, payload: Bytes) {
        if let Some(blobs) = &self.0 {
            blobs.message(from, payload);
        }
    }

    pub(super) fn up(&self, node: NodeId) {
        self.put(Input::Up(node));
    }

    pub(super) fn down(&self, node: NodeId) {
        self.put(Input::Down(node));
    }

    /// Who takes part: those are asked for blobs.
    pub(super) fn members(&self, members: BTreeSet<NodeId>) {
        self.put(Input::Sources(members));
    }

    fn put(&self, input: Input) {
        if let Some(blobs) = &self.0 {
            blobs.put(Event::Engine(input));
        }
    }
}
