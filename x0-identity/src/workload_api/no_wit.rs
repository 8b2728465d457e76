//! The build without the feature `wit`: no server has the profile, and its methods are unknown. The items are
//! those of `wit`.

use std::sync::Arc;

use crate::grpc::Status;
use crate::{SpiffeBundle, SpiffeId};

#[derive(Debug, Clone, Default)]
pub(super) struct WitIdentities {}

impl WitIdentities {
    pub(super) fn svids(&self, _: Option<&SpiffeId>) -> Option<Arc<[u8]>> {
        None
    }
}

pub(super) fn bundles<'a>(_: impl Iterator<Item = &'a SpiffeBundle>) -> Arc<[u8]> {
    Arc::default()
}

pub(super) fn wanted(_: &[u8]) -> Result<Option<SpiffeId>, Status> {
    Ok(None)
}
