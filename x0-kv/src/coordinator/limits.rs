//! The limits of requests of other nodes, which can change while a coordinator runs.

use super::slab;

/// How many operations of other nodes may wait at a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLimits {
    requests_max: usize,
    requests_per_peer_max: usize,
}

/// The largest [`RequestLimits::requests_max`].
pub const REQUESTS_MAX: usize = slab::ENTRIES_MAX / 4;

/// Limits that make no sense. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestLimitsError {
    /// A limit is zero, so that the node would serve nobody.
    #[error(
        "`{limit}` is 0, so that the node would serve no other one: set it to 1 at least, or hand the leadership over; nothing was changed"
    )]
    Zero {
        /// The name of the limit.
        limit: &'static str,
    },
    /// There is no room for so many.
    #[error(
        "`requests_max` is {requests_max}, and a node has room for {REQUESTS_MAX}: set it lower; nothing was changed"
    )]
    TooMany {
        /// The value.
        requests_max: usize,
    },
    /// One peer may have more than all.
    #[error(
        "`requests_per_peer_max` is {requests_per_peer_max} and `requests_max` {requests_max}: one node cannot have more than all; nothing was changed"
    )]
    Share {
        /// The limit of one peer.
        requests_per_peer_max: usize,
        /// The limit of all.
        requests_max: usize,
    },
}

impl RequestLimits {
    /// At most `requests_max` operations of other nodes, and `requests_per_peer_max` of each.
    ///
    /// # Errors
    /// [`RequestLimitsError`].
    pub fn new(
        requests_max: usize,
        requests_per_peer_max: usize,
    ) -> Result<RequestLimits, RequestLimitsError> {
        if requests_max == 0 {
            return Err(RequestLimitsError::Zero { limit: "requests_max" });
        }
        if requests_per_peer_max == 0 {
            return Err(RequestLimitsError::Zero { limit: "requests_per_peer_max" });
        }
        if requests_max > REQUESTS_MAX {
            return Err(RequestLimitsError::TooMany { requests_max });
        }
        if requests_per_peer_max > requests_max {
            return Err(RequestLimitsError::Share { requests_per_peer_max, requests_max });
        }
        Ok(RequestLimits { requests_max, requests_per_peer_max })
    }

    /// The most operations of other nodes that wait.
    #[must_use]
    pub fn requests_max(self) -> usize {
        self.requests_max
    }

    /// The most operations of one other node that wait.
    #[must_use]
    pub fn requests_per_peer_max(self) -> usize {
        self.requests_per_peer_max
    }
}
