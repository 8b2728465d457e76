//! The build without the feature `wit`: no server has the profile, and its methods are unknown. The items are
//! those of `wit`.

use std::sync::Arc;
use std::vec::Vec;

use rustls::crypto::CryptoProvider;

use super::MessageError;
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

/// Has no value.
#[derive(Debug, Clone)]
pub enum WitContext {}

/// Has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WitMessageError {}

impl WitContext {
    /// No client subscribes.
    pub(super) fn read(_: &[u8], _: &CryptoProvider) -> Result<WitContext, MessageError> {
        Err(MessageError::Missing { field: "svids" })
    }
}

pub(super) fn request(_: Option<&SpiffeId>) -> Vec<u8> {
    Vec::new()
}
