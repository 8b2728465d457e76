//! The types of blobs in a build without the feature `blob`: none of them has a value, so that code which handles optional blobs needs
//! no second version.
#![allow(dead_code, reason = "which of it is used depends on the other features")]

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
