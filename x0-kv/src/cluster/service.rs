//! A service: one channel of the transport, and an engine behind it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use bytes::Bytes;
use x0_consensus::Membership;
use x0_identity::NodeId;

use super::peers::Peers;
use super::services::space::SpaceView;
use super::{NodeError, NodeEvent};
use crate::admin;
use crate::coordinator;
use crate::request::error::OperationError;
use crate::state::storage::entry::DamagedEntry;

/// The most messages that a service takes in before it carries out what they ask for.
pub(crate) const RECEIVED_MAX: usize = 1024;

/// One protocol of the cluster: a channel, an engine and the requests of callers.
///
/// The event loop polls all services in turn until none of them has anything left to do. A service never
/// waits: it takes in what has arrived, carries out what its engine wants, and leaves the rest to the next
/// poll. It never blocks either: work that can wait for a disk, or that takes more than some microseconds,
/// belongs to a thread, which puts the result into an [`Inbox`](super::inbox::Inbox).
pub(crate) trait Service: Send {
    /// Does what can be done at `now`, and says whether there was anything. `is_raised` says whether an inbox
    /// may have received something since the last poll.
    ///
    /// # Errors
    /// When the node cannot go on.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        now: Duration,
        is_raised: bool,
        bus: &mut Bus,
    ) -> Result<bool, NodeError>;

    /// Whether another service has left something for this one on the bus.
    fn wants(&self, _bus: &Bus) -> bool {
        false
    }

    /// When to poll again at the latest.
    fn poll_timeout(&self) -> Option<Duration> {
        None
    }

    /// The members of the cluster have changed.
    fn members_changed(&mut self, _membership: &Membership) {}

    /// Ends the service. Callers that wait get `error`.
    fn close(&mut self, _error: &OperationError) {}
}

/// The function that receives the events of a node.
pub(crate) type Observe = Box<dyn FnMut(NodeEvent) + Send>;

/// Values that services pass to each other within one event loop.
#[derive(Default)]
pub(crate) struct Bus {
    /// Requests to the replica.
    pub(crate) replica: VecDeque<x0_consensus::Input>,
    /// Inputs of the coordinator: results of its requests, and the leader.
    pub(crate) coordinator: VecDeque<coordinator::Input>,
    /// Snapshot messages to send.
    pub(crate) snapshots: VecDeque<(NodeId, Bytes)>,
    /// Damaged entries that reads have found.
    pub(crate) damaged: VecDeque<Box<DamagedEntry>>,
    /// The leader, if this node knows one.
    pub(crate) leader: Option<NodeId>,
    /// Which members have space on their disks.
    pub(crate) space: SpaceView,
    /// Steps of the admin engine for the replica.
    pub(crate) admin_steps: VecDeque<admin::Output>,
    /// Inputs of the admin engine, on a node that has one.
    pub(crate) admin: Option<VecDeque<admin::Input>>,
    /// A new membership, until all services know it.
    pub(crate) membership: Option<Membership>,
    /// Peers that are reached.
    pub(crate) peers: Arc<Peers>,
    /// Receives the events of the node.
    pub(crate) observe: Option<Observe>,
}

impl Bus {
    /// Leaves an input for the admin engine, if there is one.
    pub(crate) fn admin(&mut self, input: impl FnOnce() -> admin::Input) {
        if let Some(inputs) = &mut self.admin {
            inputs.push_back(input());
        }
    }

    /// Reports an event of the node.
    pub(crate) fn observed(&mut self, event: NodeEvent) {
        if let Some(observe) = &mut self.observe {
            observe(event);
        }
    }

    /// Whether a service has left something for another one.
    pub(super) fn is_empty(&self) -> bool {
        self.replica.is_empty()
            && self.coordinator.is_empty()
            && self.snapshots.is_empty()
            && self.admin_steps.is_empty()
            && self.admin.as_ref().is_none_or(VecDeque::is_empty)
    }
}
