//! A store that reaches a cluster without being a member of it.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use x0_identity::NodeId;
use x0_mesh::Mux;

use super::error::StartError;
use super::event_loop::{End, EventLoop};
use super::inbox::{Alarm, Inbox};
use super::node::check_identity;
use super::peers::Peers;
use super::remote::Remote;
use super::service::Bus;
use super::services::admin::{self, AdminCalls, AdminClient};
use super::services::operations::{self, Calls, Operations};
use super::services::status::{self, Status, StatusRequest};
use super::status::NodeStatus;
use super::waiting::WaitingStatus;
use super::{driver, services};
use crate::admin::{AdminError, AdminReply, AdminRequest};
use crate::coordinator::{Coordinator, CoordinatorOptions, Role};
use crate::seed::random_seed;
use crate::store::Store;
use crate::trace::Tracing;

/// Settings of a [`Client`]: [`ClientOptions::new`], then change what is needed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClientOptions {
    /// The coordinator's settings: how long operations may take, how many may wait.
    pub coordinator: CoordinatorOptions,
}

impl ClientOptions {
    /// Client `local` of the cluster of `members`.
    #[must_use]
    pub fn new(local: NodeId, members: impl IntoIterator<Item = NodeId>) -> ClientOptions {
        ClientOptions { coordinator: CoordinatorOptions::client(local, members.into_iter().collect()) }
    }

    /// Sets whether and how operations are traced.
    #[must_use]
    pub fn tracing(mut self, tracing: Tracing) -> ClientOptions {
        self.coordinator.tracing = tracing;
        self
    }
}

/// A client of a cluster. Dropped, it ends at once; [`close`](Client::close) ends the connections properly.
///
/// The transport of the mux must be able to reach the members by their ids, and each process needs an id of
/// its own: see [`Transport`](x0_mesh::Transport). Operations go to the leader. While there is none they
/// wait, at most until they time out.
pub struct Client {
    store: Store,
    alarm: Alarm,
    requests: Inbox<StatusRequest>,
    admin: AdminCalls,
    peers: Arc<Peers>,
    end: watch::Receiver<Option<End>>,
}

impl Client {
    /// Starts a client with its channels on `mux`; does not wait for any member to be reached. Needs a tokio
    /// runtime with time around it.
    ///
    /// # Errors
    /// [`StartError::Identity`], [`StartError::Channel`] and [`StartError::MessageLength`], when the mux does
    /// not fit.
    pub fn connect(options: ClientOptions, mux: &Mux) -> Result<Client, StartError> {
        let local = options.coordinator.local;
        check_identity(mux, local)?;
        let (alarm, peers) = (Alarm::default(), Arc::new(Peers::default()));
        let mut event_loop =
            EventLoop::new(alarm.clone(), Bus { peers: Arc::clone(&peers), ..Bus::default() });
        services::drive::start(&mut event_loop, mux);
        let crdt = services::start_crdt_client(&mut event_loop, mux, &alarm, &options.coordinator)?;
        let (calls, requests) = (Calls::new(Inbox::new(alarm.clone())), Inbox::new(alarm.clone()));
        let calls = calls.tracing(options.coordinator.tracing.clone());
        let admin = AdminCalls::new(Inbox::new(alarm.clone()));
        let members = match &options.coordinator.role {
            Role::Client { members } => members.clone(),
            Role::Member => Vec::new(),
        };
        event_loop.add(AdminClient::new(admin::CHANNEL.open(mux)?, members, admin.clone()));
        let coordinator = Coordinator::new(options.coordinator, random_seed());
        event_loop.add(Operations::new(operations::open(mux, u16::MAX)?, coordinator, calls.clone(), None));
        event_loop.add(Status::new(local, status::CHANNEL.open(mux)?, requests.clone(), None));
        let (ended, end) = watch::channel(None);
        tokio::spawn(async move { ended.send_replace(Some(driver::run(event_loop).await)) });
        let remote = Remote { alarm: alarm.clone(), calls, watchers: None, crdt, blobs: None };
        let store = Store::from_dispatch(Arc::new(remote));
        Ok(Client { store, alarm, requests, admin, peers, end })
    }

    /// The cluster's store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The nodes that are reached now, members or not.
    #[must_use]
    pub fn reached(&self) -> BTreeSet<NodeId> {
        self.peers.reached()
    }

    /// The operations of this client without an answer, and the members that let attempts time out.
    #[must_use]
    pub fn waiting(&self) -> WaitingStatus {
        self.peers.waiting().get()
    }

    /// Asks a member for its status. `None` if it does not answer within `limit`.
    pub async fn status(&self, node: NodeId, limit: Duration) -> Option<NodeStatus> {
        let (answer, status) = oneshot::channel();
        self.requests.put(StatusRequest { node, answer });
        tokio::time::timeout(limit, status).await.ok()?.ok()
    }

    /// Sends a request of an operator to a member that is reached. The identity of this client must be that
    /// of an operator.
    ///
    /// # Errors
    /// [`AdminError`], which says why nothing was changed, or that the result is not known.
    pub async fn admin(&self, request: AdminRequest) -> Result<AdminReply, AdminError> {
        self.admin.call(request).await
    }

    /// Ends the client, and returns when its channels are released. Operations in progress are answered
    /// [`Closed`](crate::OperationError::Closed).
    pub async fn close(mut self) {
        self.alarm.stop();
        // Without a sender the task is gone already.
        let _ = self.end.wait_for(Option::is_some).await;
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.alarm.stop();
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("reached", &self.peers.reached()).finish_non_exhaustive()
    }
}
