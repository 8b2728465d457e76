//! The build without the feature `sds`: no method streams secrets. The items are those of `secrets`.

use std::vec::Vec;

use super::Workload;
use crate::grpc::Status;

pub(super) const PATH: Option<&str> = None;

#[derive(Debug, Default)]
pub(super) struct SecretStream {}

impl SecretStream {
    pub(super) fn request(&mut self, _: &[u8], _: &Workload) -> Result<Option<Vec<u8>>, Status> {
        Ok(None)
    }

    pub(super) fn update(&mut self, _: &Workload) -> Result<Option<Vec<u8>>, Status> {
        Ok(None)
    }
}
