//! Settings of a coordinator.

use std::time::Duration;

use x0_identity::NodeId;

use crate::request::limits::SESSION_WINDOW_MAX;
use crate::trace::Tracing;

/// Settings of a [`Coordinator`](super::Coordinator). The defaults of [`member`](CoordinatorOptions::member)
/// and [`client`](CoordinatorOptions::client) suit nodes within a few milliseconds of each other.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CoordinatorOptions {
    /// The node of the coordinator.
    pub local: NodeId,
    /// Member or client.
    pub role: Role,
    /// The time of an operation whose call has no deadline, from the call on. 10 s unless set.
    pub call_timeout: Duration,
    /// The longest time, on top of [`call_timeout`](CoordinatorOptions::call_timeout), that such an operation
    /// waits for its turn within [`in_flight_len_max`](CoordinatorOptions::in_flight_len_max). It ends
    /// before, after `call_timeout`, if no operation is answered in that time. 5 min unless set; with zero,
    /// the wait for its turn counts as any other time.
    pub turn_timeout: Duration,
    /// How long a node may be silent, at most, before an operation that it has is tried elsewhere. The time
    /// follows the measured round trips; the time of a transmission comes on top.
    pub attempt_timeout: Duration,
    /// The same at least.
    pub attempt_timeout_min: Duration,
    /// The most bytes of operations that are on their way to one node. Further ones wait here; a single one
    /// may be longer.
    pub in_flight_len_max: usize,
    /// The first wait before a retry, on average. It doubles from one retry of the same operation to the
    /// next.
    pub retry_delay_min: Duration,
    /// The longest wait before a retry, on average. 500 ms unless set.
    pub retry_delay_max: Duration,
    /// The most operations of local callers that wait; further ones are answered
    /// [`Overloaded`](crate::OperationError::Overloaded).
    pub calls_max: usize,
    /// The most operations of other nodes that wait here; to further ones the node answers that it is busy.
    pub requests_max: usize,
    /// The most operations of one other node that wait here, so that no node keeps the others out.
    pub requests_per_peer_max: usize,
    /// The most rounds to a quorum that are under way for linearizable reads. Reads that come meanwhile share
    /// the next one. 4 unless set.
    pub read_rounds_max: usize,
    /// The length of a message to a peer, in bytes, at which no further operation or answer is added to it. A
    /// longer operation or answer has a message to itself, of at most
    /// [`MESSAGE_LEN_MAX`](super::MESSAGE_LEN_MAX).
    pub batch_len: usize,
    /// Whether and how operations are traced. Off unless set.
    pub tracing: Tracing,
}

/// The place of a coordinator: beside a replica or outside of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// Beside a replica, which may lead.
    Member,
    /// Outside of the cluster.
    Client {
        /// The members to send operations to, in this order after a random first. Members report their
        /// leader, which need not be one of these.
        members: Vec<NodeId>,
    },
}

impl CoordinatorOptions {
    /// For a node with a replica.
    #[must_use]
    pub fn member(local: NodeId) -> CoordinatorOptions {
        CoordinatorOptions {
            local,
            role: Role::Member,
            call_timeout: Duration::from_secs(10),
            turn_timeout: Duration::from_secs(300),
            attempt_timeout: Duration::from_secs(1),
            attempt_timeout_min: Duration::from_millis(300),
            in_flight_len_max: 4 << 20,
            retry_delay_min: Duration::from_millis(10),
            retry_delay_max: Duration::from_millis(500),
            calls_max: usize::try_from(SESSION_WINDOW_MAX).unwrap_or(usize::MAX),
            requests_max: 4 * usize::try_from(SESSION_WINDOW_MAX).unwrap_or(usize::MAX),
            requests_per_peer_max: usize::try_from(SESSION_WINDOW_MAX).unwrap_or(usize::MAX),
            read_rounds_max: 4,
            batch_len: 256 << 10,
            tracing: Tracing::default(),
        }
    }

    /// After this time an attempt is repeated although the connection may still have it: a peer can lose an
    /// answer without losing the connection.
    pub(super) fn carried_limit(&self) -> Duration {
        self.attempt_timeout.saturating_mul(5)
    }

    /// For a node outside of the cluster that `members` make.
    #[must_use]
    pub fn client(local: NodeId, members: Vec<NodeId>) -> CoordinatorOptions {
        CoordinatorOptions { role: Role::Client { members }, ..CoordinatorOptions::member(local) }
    }

    /// Sets the deadline of an operation whose call has none.
    #[must_use]
    pub fn call_timeout(mut self, call_timeout: Duration) -> CoordinatorOptions {
        self.call_timeout = call_timeout;
        self
    }

    /// Sets the longest time that an operation waits for its turn, on top of its other time.
    #[must_use]
    pub fn turn_timeout(mut self, turn_timeout: Duration) -> CoordinatorOptions {
        self.turn_timeout = turn_timeout;
        self
    }

    /// Sets the time that one node has to answer before the operation is tried again.
    #[must_use]
    pub fn attempt_timeout(mut self, attempt_timeout: Duration) -> CoordinatorOptions {
        self.attempt_timeout = attempt_timeout;
        self
    }

    /// Sets the most operations of local callers that wait.
    #[must_use]
    pub fn calls_max(mut self, calls_max: usize) -> CoordinatorOptions {
        self.calls_max = calls_max;
        self
    }

    /// Sets the most operations of other nodes that wait.
    #[must_use]
    pub fn requests_max(mut self, requests_max: usize) -> CoordinatorOptions {
        self.requests_max = requests_max;
        self
    }

    /// Sets the most operations of one other node that wait.
    #[must_use]
    pub fn requests_per_peer_max(mut self, requests_per_peer_max: usize) -> CoordinatorOptions {
        self.requests_per_peer_max = requests_per_peer_max;
        self
    }

    /// Sets the most rounds to a quorum that are under way for linearizable reads.
    #[must_use]
    pub fn read_rounds_max(mut self, read_rounds_max: usize) -> CoordinatorOptions {
        self.read_rounds_max = read_rounds_max;
        self
    }

    /// Sets the length of a message at which no further operation is added to it, in bytes.
    #[must_use]
    pub fn batch_len(mut self, batch_len: usize) -> CoordinatorOptions {
        self.batch_len = batch_len;
        self
    }

    /// Sets the first and the longest wait before a retry, on average.
    #[must_use]
    pub fn retry_delay(mut self, min: Duration, max: Duration) -> CoordinatorOptions {
        (self.retry_delay_min, self.retry_delay_max) = (min, max);
        self
    }
}
