//! The service of blobs in a build without the feature `blob`: none.

use std::path::Path;

use super::Part;
use crate::blob::{BlobOptions, Blobs};
use crate::cluster::error::StartError;

pub(in super::super) fn start_blobs(
    _: &mut Part<'_>,
    options: Option<BlobOptions>,
    _: &Path,
) -> Result<Option<Blobs>, StartError> {
    match options {
        Some(options) => match options {},
        None => Ok(None),
    }
}
