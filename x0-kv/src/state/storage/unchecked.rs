//! A replacement of the scrub in a build without members.

use super::{ReadError, Tables};
use crate::request::keyspace::KeyspaceName;
use crate::request::operation::RangeQuery;

#[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "as with the scrub of a member")]
impl Tables {
    /// No range is ever blocked.
    #[inline]
    pub(super) fn check(&self, _: &KeyspaceName, _: &RangeQuery) -> Result<(), ReadError> {
        Ok(())
    }

    /// As [`check`](Tables::check).
    #[inline]
    pub(super) fn check_key(&self, _: &KeyspaceName, _: &[u8]) -> Result<(), ReadError> {
        Ok(())
    }
}
