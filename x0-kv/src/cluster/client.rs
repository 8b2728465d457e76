//! A store in reach of a cluster that it is no member of.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use x0_identity::NodeId;
use x0_mesh::Transport;

#[cfg(feature = "crdt")]
use crate::cluster::{CrdtCalls, CrdtSide};
use crate::cluster::{End, Hub, Mailbox, NodeStatus, Peers, Question, Remote, StartError, check_transport};
use crate::coordinator::{self, Coordinator};
use crate::seed::random_seed;
use crate::store::Store;

/// How a [`Client`] is set up: [`ClientOptions::new`], then change what is needed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClientOptions {
    /// The coordinator's settings: how long operations may take, how many may wait.
    pub coordinator: coordinator::Config,
}

impl ClientOptions {
    /// Client `local` of the cluster that `members` make.
    #[must_use]
    pub fn new(local: NodeId, members: impl IntoIterator<Item = NodeId>) -> ClientOptions {
        ClientOptions { coordinator: coordinator::Config::client(local, members.into_iter().collect()) }
    }
}

/// A client of a cluster. Dropped it is gone at once; [`close`](Client::close) says good-bye.
///
/// The transport must be able to reach the members by their ids, and each process needs an id of its own: see
/// [`Transport`]. Operations go to the member that leads; while there is none they wait, until their time is over.
pub struct Client {
    store: Store,
    mailbox: Mailbox,
    peers: Arc<Peers>,
    end: watch::Receiver<Option<End>>,
}

impl Client {
    /// Begins; does not wait for any member to be reached. Needs a tokio runtime with time around it.
    ///
    /// # Errors
    /// [`StartError::Identity`] and [`StartError::MessageLength`], when the transport does not fit.
    pub fn connect(
        options: ClientOptions,
        transport: impl Transport + 'static,
    ) -> Result<Client, StartError> {
        check_transport(&transport, options.coordinator.local)?;
        let mailbox = Mailbox::default();
        let peers = Arc::new(Peers::default());
        #[cfg(feature = "crdt")]
        let calls = {
            let members = match &options.coordinator.role {
                coordinator::Role::Client { members } => members.clone(),
                coordinator::Role::Member => Vec::new(),
            };
            CrdtCalls::new(members, options.coordinator.call_timeout)
        };
        let coordinator = Coordinator::new(options.coordinator, random_seed());
        let hub = Hub::new(
            transport,
            coordinator,
            None,
            mailbox.clone(),
            Arc::clone(&peers),
            None,
            #[cfg(feature = "crdt")]
            CrdtSide::Client(calls),
        );
        let (ended, end) = watch::channel(None);
        tokio::spawn(async move { ended.send_replace(Some(hub.run().await)) });
        let remote = Remote {
            mailbox: mailbox.clone(),
            watchers: None,
            #[cfg(feature = "crdt")]
            crdt: None,
            #[cfg(feature = "blob")]
            blobs: None,
        };
        let store = Store::from_dispatch(Arc::new(remote));
        Ok(Client { store, mailbox, peers, end })
    }

    /// The cluster's store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Who is reached now, members or not.
    #[must_use]
    pub fn reached(&self) -> BTreeSet<NodeId> {
        self.peers.reached()
    }

    /// Asks a member how it is. `None` if it does not answer within `limit`.
    pub async fn status(&self, node: NodeId, limit: Duration) -> Option<NodeStatus> {
        let (answer, status) = oneshot::channel();
        self.mailbox.question(Question { node, answer });
        tokio::time::timeout(limit, status).await.ok()?.ok()
    }

    /// Ends it, and returns when the transport is released. Operations under way are answered
    /// [`Closed`](crate::OperationError::Closed).
    pub async fn close(mut self) {
        self.mailbox.stop();
        // It ends at the latest when the task is gone.
        let _ = self.end.wait_for(Option::is_some).await;
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.mailbox.stop();
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("reached", &self.peers.reached()).finish_non_exhaustive()
    }
}
