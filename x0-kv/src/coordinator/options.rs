//! How a coordinator behaves.

use std::time::Duration;

use x0_identity::NodeId;

use crate::request::limits::SESSION_WINDOW_MAX;

/// How a [`Coordinator`](super::Coordinator) behaves. [`Config::member`] and [`Config::client`] have defaults
/// for nodes within a few milliseconds of each other; change what is needed of them.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// Whose coordinator it is.
    pub local: NodeId,
    /// Whether a replica is at hand.
    pub role: Role,
    /// How long an operation may take unless its call says otherwise.
    pub call_timeout: Duration,
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
    /// The longest wait before a retry, on average.
    pub retry_delay_max: Duration,
    /// Most operations of local callers that may wait; further ones are answered
    /// [`Overloaded`](crate::OperationError::Overloaded).
    pub calls_max: usize,
    /// The most operations of other nodes that wait here; further ones are answered that the node is busy.
    pub requests_max: usize,
    /// Most of those from one node, so that none keeps the others out.
    pub requests_per_peer_max: usize,
    /// How many rounds to a quorum may be under way for linearizable reads. Reads that come meanwhile share
    /// the next one.
    pub read_rounds_max: usize,
    /// A message to a peer is closed once it is this long, in bytes. A single longer operation or answer goes
    /// alone, in a message of at most [`MESSAGE_LEN_MAX`](super::MESSAGE_LEN_MAX).
    pub batch_len: usize,
}

/// Whether a replica is at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// Beside a replica, which may lead.
    Member,
    /// Outside of the cluster.
    Client {
        /// The members to ask, in this order after a random first. They tell who leads, also when it is none
        /// of these.
        members: Vec<NodeId>,
    },
}

impl Config {
    /// For a node with a replica.
    #[must_use]
    pub fn member(local: NodeId) -> Config {
        Config {
            local,
            role: Role::Member,
            call_timeout: Duration::from_secs(10),
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
        }
    }

    /// After this time an attempt is repeated although the connection may still have it: a peer can lose an
    /// answer without losing the connection.
    pub(super) fn carried_limit(&self) -> Duration {
        self.attempt_timeout.saturating_mul(5)
    }

    /// For a node outside of the cluster that `members` make.
    #[must_use]
    pub fn client(local: NodeId, members: Vec<NodeId>) -> Config {
        Config { role: Role::Client { members }, ..Config::member(local) }
    }
}
