//! The types of blobs in a build without the feature `blob`: none of them has a value, so that code which
//! handles optional blobs needs no second version.
#![allow(dead_code, reason = "which of it is used depends on the other features")]

use std::path::Path;

use crate::store::embedded::OpenError;

/// Not to be had.
#[derive(Debug, Clone)]
pub(crate) enum Blobs {}

/// Not to be had.
#[derive(Debug, Clone)]
pub(crate) enum BlobOptions {}

impl Blobs {
    pub(crate) fn close(&self) {
        match *self {}
    }
}

/// Without options there is nothing to open.
pub(crate) fn open_embedded(
    _folder: &Path,
    options: Option<&BlobOptions>,
) -> Result<Option<Blobs>, OpenError> {
    Ok(options.map(|options| match *options {}))
}

/// Reports blobs as a part that cannot be verified.
pub(crate) fn verify_in(folder: &Path, _progress: &mut dyn FnMut(u64)) -> (u64, Vec<String>) {
    (0, vec![format!("cannot verify {}: this build has no blobs", folder.display())])
}
