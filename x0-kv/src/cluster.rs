//! The store on several nodes: replicas that agree over a [`Transport`].
//!
//! A [`Node`] joins a durable folder, a transport and a tokio runtime to one member of a cluster. Its [`Store`] is the same handle as an
//! embedded one, with whichever node leads behind it. A [`Client`](crate::Client) is a store without a member.
//!
//! Three tasks and a thread carry a node: the hub (transport and coordinator), the replica's loop, the applying of entries, and the
//! thread of the write-ahead log. None of them decides anything: that is done by the engines,
//! [`Coordinator`] and [`Replica`](x0_consensus::Replica), which the simulator runs as they are.
//!
//! # Lanes
//! Consensus uses `Ordered(0)`, operations `Ordered(1)`, questions for a [`NodeStatus`] `Ordered(2)`, pieces of snapshots and of blobs
//! `Bulk`, told apart by their first byte; CRDT keyspaces `Datagram` and, for clients, `Ordered(3)`. A transport
//! must carry [`MESSAGE_LEN_MAX`](crate::coordinator::MESSAGE_LEN_MAX) bytes on an ordered lane.

#[cfg(feature = "blob")]
mod blob;
mod client;
#[cfg(feature = "crdt")]
mod crdt;
mod hub;
mod inspection;
mod mailbox;
mod membership;
mod options;
mod outgoing;
mod peers;
mod status;

use std::fmt;
use std::sync::Arc;

use tokio::sync::{oneshot, watch};
use x0_consensus::{Class, Congested, Event, Handle, MembershipChange, Observer, Outbox, Storage};
use x0_identity::NodeId;
use x0_mesh::{PeerEvent, Transport};

pub use self::membership::ChangeError;
pub use self::options::NodeOptions;
pub use self::status::NodeStatus;

pub use self::client::{Client, ClientOptions};
#[cfg(feature = "crdt")]
pub(crate) use self::crdt::{CrdtCalls, CrdtSide};
pub(crate) use self::hub::{End, Hub, ReplicaSide};
pub(crate) use self::mailbox::{Mailbox, Question};
use self::membership::Change;
pub(crate) use self::peers::Peers;
#[cfg(feature = "blob")]
use crate::blob::{BlobOpenError, BlobOptions, Blobs};
use crate::coordinator::Coordinator;
#[cfg(feature = "crdt")]
use crate::crdt::{Crdt, CrdtOptions, CrdtOutcome, CrdtStatus, JournalError, Request};
use crate::request::operation::Operation;
use crate::request::pending::Answer;
use crate::request::watch::Watchers;
use crate::seed::random_seed;
use crate::state::State;
use crate::state::storage::EngineError;
use crate::store::Store;
use crate::store::backend::Dispatch;

/// The shortest datagrams that the sessions of a CRDT keyspace can do with, in bytes.
#[cfg(feature = "crdt")]
const DATAGRAM_LEN_MIN: usize = 128;

/// What happens to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NodeEvent {
    /// Who leads has changed, or the term.
    Leader {
        /// Who leads, as far as is known here.
        leader: Option<NodeId>,
        /// The term.
        term: u64,
    },
    /// Who takes part has changed.
    Membership {
        /// Who takes part now.
        membership: x0_consensus::Membership,
    },
    /// What the transport tells of a peer.
    Peer(PeerEvent),
}

/// Why a node did not start. Its folder is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The folder cannot be made.
    #[error("cannot make the folder {}: {source}; make it, or choose another", .path.display())]
    Folder {
        /// The folder.
        path: std::path::PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The log cannot be opened or recovered, or does not go with the data.
    #[error(transparent)]
    Log(#[from] x0_consensus::OpenError),
    /// The engine's file cannot be opened.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The transport speaks for another node than the options say.
    #[error(
        "the transport belongs to node {transport}, the options to node {options}: use the identity of one node for both"
    )]
    Identity {
        /// Whose transport it is.
        transport: NodeId,
        /// Whom the options are for.
        options: NodeId,
    },
    /// The journal of the CRDT keyspace cannot be opened.
    #[cfg(feature = "crdt")]
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The folder of the blobs cannot be opened.
    #[cfg(feature = "blob")]
    #[error(transparent)]
    Blobs(#[from] BlobOpenError),
    /// The transport's messages are too short.
    #[error("the transport carries messages of {len_max} bytes, {needed} are needed: raise its limit")]
    MessageLength {
        /// The longest message that it carries, in bytes.
        len_max: usize,
        /// The longest that is sent, in bytes.
        needed: usize,
    },
}

/// Why a running node stopped by itself. What was acknowledged before is safe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the node failed: {reason}")]
#[non_exhaustive]
pub struct NodeError {
    /// The cause, with the file concerned, and what to do.
    pub reason: Arc<str>,
}

/// A running member of a cluster. Dropped it stops, as a process that is killed would; what it acknowledged is safe.
///
/// Its methods may be called from any thread.
pub struct Node {
    id: NodeId,
    store: Store,
    handle: Handle,
    mailbox: Mailbox,
    peers: Arc<Peers>,
    #[cfg(feature = "crdt")]
    crdt: Option<Crdt>,
    end: watch::Receiver<Option<End>>,
}

impl Node {
    /// Opens what is in the folder and begins to take part. Reads the log, so that it may take a while; needs a tokio runtime with time
    /// around it.
    ///
    /// # Errors
    /// When folder, log, engine and options do not make a node. Nothing runs then.
    pub fn start(options: NodeOptions, transport: impl Transport + 'static) -> Result<Node, StartError> {
        let path = &options.folder;
        std::fs::create_dir_all(path).map_err(|source| StartError::Folder { path: path.clone(), source })?;
        let storage = x0_consensus::Wal::open_path(path.join("log"), options.log);
        let storage = storage.map_err(x0_consensus::OpenError::from)?;
        let state = options.engine.state(path)?;
        #[cfg(feature = "crdt")]
        let journal = match options.crdt {
            Some(_) => Some(Box::new(crate::crdt::journal_in(path)?) as Box<dyn Storage>),
            None => None,
        };
        let files = Files {
            storage,
            state,
            #[cfg(feature = "crdt")]
            journal,
        };
        Node::start_with(options, files, transport)
    }

    /// As [`start`](Node::start), on a storage and a state of one's own. The options' engine and log settings are not used, nor the
    /// folder but for blobs; a CRDT keyspace is held in memory alone.
    ///
    /// # Errors
    /// As [`start`](Node::start).
    pub fn start_on(
        options: NodeOptions,
        storage: impl Storage + 'static,
        state: State,
        transport: impl Transport + 'static,
    ) -> Result<Node, StartError> {
        let files = Files {
            storage,
            state,
            #[cfg(feature = "crdt")]
            journal: options.crdt.is_some().then(|| Box::new(x0_consensus::MemoryStorage::new()) as Box<_>),
        };
        Node::start_with(options, files, transport)
    }

    fn start_with(
        options: NodeOptions,
        files: Files<impl Storage + 'static>,
        transport: impl Transport + 'static,
    ) -> Result<Node, StartError> {
        let id = options.consensus.id;
        check_transport(&transport, id)?;
        let Files { storage, state, .. } = files;
        let (reader, watchers) = (state.reader(), state.watchers());
        let mailbox = Mailbox::default();
        #[cfg(feature = "crdt")]
        let crdt = match (options.crdt, files.journal) {
            (Some(options), Some(journal)) => Some(start_crdt(options, id, journal, &transport, &mailbox)?),
            _ => None,
        };
        #[cfg(feature = "blob")]
        let blobs = match options.blobs {
            Some(blobs) => Some(start_blobs(blobs, &options.folder, &transport, &mailbox)?),
            None => None,
        };
        let post = Post(mailbox.clone());
        let handle = x0_consensus::tokio::start(options.consensus, storage, state, post.clone(), post)?;
        let peers = Arc::new(Peers::default());
        let replica = ReplicaSide { handle: handle.clone(), reader };
        let coordinator = Coordinator::new(options.coordinator, random_seed());
        let hub = Hub::new(
            transport,
            coordinator,
            Some(replica),
            mailbox.clone(),
            Arc::clone(&peers),
            options.observe,
            #[cfg(feature = "crdt")]
            crdt.clone().map_or(CrdtSide::None, CrdtSide::Member),
        );
        #[cfg(feature = "blob")]
        let hub = hub.with_blobs(blobs.clone());
        let (ended, end) = watch::channel(None);
        let stopping = handle.clone();
        #[cfg(feature = "crdt")]
        let stopping_crdt = crdt.clone();
        #[cfg(feature = "blob")]
        let stopping_blobs = blobs.clone();
        tokio::spawn(async move {
            let end = hub.run().await;
            #[cfg(feature = "crdt")]
            if let Some(crdt) = stopping_crdt {
                // It waits for its thread, which may wait for the disk.
                let _ = tokio::task::spawn_blocking(move || crdt.close()).await;
            }
            #[cfg(feature = "blob")]
            if let Some(blobs) = stopping_blobs {
                let _ = tokio::task::spawn_blocking(move || blobs.close()).await;
            }
            stopping.stop();
            stopping.ended().await;
            ended.send_replace(Some(end));
        });
        let remote = Remote {
            mailbox: mailbox.clone(),
            watchers: Some(watchers),
            #[cfg(feature = "crdt")]
            crdt: crdt.clone(),
            #[cfg(feature = "blob")]
            blobs,
        };
        let store = Store::from_dispatch(Arc::new(remote));
        Ok(Node {
            id,
            store,
            handle,
            mailbox,
            peers,
            #[cfg(feature = "crdt")]
            crdt,
            end,
        })
    }

    /// Which node this is.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The replicated store. Closing it stops the node.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Where it stands.
    #[must_use]
    pub fn status(&self) -> NodeStatus {
        NodeStatus::new(self.id, &self.handle.status(), &self.peers)
    }

    /// Where its CRDT keyspace stands, if it has one.
    #[cfg(feature = "crdt")]
    #[must_use]
    pub fn crdt_status(&self) -> Option<CrdtStatus> {
        self.crdt.as_ref().map(Crdt::status)
    }

    /// Adds a node that receives the log and decides nothing. To be asked of the leader, as are the other changes.
    ///
    /// # Errors
    /// Those of [`ChangeError`].
    pub async fn add_learner(&self, node: NodeId) -> Result<(), ChangeError> {
        self.change(MembershipChange::default().learner(node)).await
    }

    /// Makes a learner a voter. It should have caught up, or it counts for the quorum before it can help.
    ///
    /// # Errors
    /// Those of [`ChangeError`].
    pub async fn promote(&self, node: NodeId) -> Result<(), ChangeError> {
        self.change(MembershipChange::default().voter(node)).await
    }

    /// Removes a node.
    ///
    /// # Errors
    /// Those of [`ChangeError`].
    pub async fn remove(&self, node: NodeId) -> Result<(), ChangeError> {
        self.change(MembershipChange::default().remove(node)).await
    }

    /// Makes several changes at once, through joint consensus: all of them or none.
    ///
    /// # Errors
    /// Those of [`ChangeError`].
    pub async fn change(&self, change: MembershipChange) -> Result<(), ChangeError> {
        let (answer, made) = oneshot::channel();
        self.mailbox.change(Change { change, answer });
        made.await.unwrap_or(Err(ChangeError::Closed))
    }

    /// Hands the leadership to another voter, if this node leads. Returns at once; [`NodeEvent::Leader`] tells what became of it.
    pub fn transfer_leadership(&self, to: NodeId) {
        self.handle.transfer_leadership(to);
    }

    /// Waits until the node has stopped.
    ///
    /// # Errors
    /// [`NodeError`], when it failed rather than being told to stop.
    pub async fn ended(&self) -> Result<(), NodeError> {
        let mut end = self.end.clone();
        // Without a sender the runtime is going down, which stops the node.
        let end = end.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
        match end {
            Some(End::Failed(reason)) => Err(NodeError { reason }),
            Some(End::Stopped) | None => Ok(()),
        }
    }

    /// Stops the node, and returns when its files are released. Operations under way are answered
    /// [`Closed`](crate::OperationError::Closed); other nodes elect another leader if it led, which
    /// [`transfer_leadership`](Node::transfer_leadership) spares them.
    ///
    /// # Errors
    /// [`NodeError`], when it had failed before.
    pub async fn shutdown(self) -> Result<(), NodeError> {
        self.mailbox.stop();
        self.ended().await
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.mailbox.stop();
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What a node keeps its data in.
struct Files<S> {
    storage: S,
    state: State,
    #[cfg(feature = "crdt")]
    journal: Option<Box<dyn Storage>>,
}

#[cfg(feature = "crdt")]
fn start_crdt(
    mut options: CrdtOptions,
    id: NodeId,
    journal: Box<dyn Storage>,
    transport: &impl Transport,
    mailbox: &Mailbox,
) -> Result<Crdt, StartError> {
    let len_max = transport.message_len_max(x0_mesh::Lane::Datagram);
    if len_max < DATAGRAM_LEN_MIN {
        return Err(StartError::MessageLength { len_max, needed: DATAGRAM_LEN_MIN });
    }
    options.session.datagram_len_max = options.session.datagram_len_max.min(len_max);
    let mailbox = mailbox.clone();
    let post = move |to, payload| mailbox.crdt_message(to, outgoing::Road::Crdt, payload);
    Ok(Crdt::start(options, id, random_seed(), journal, Box::new(post))?)
}

#[cfg(feature = "blob")]
fn start_blobs(
    options: BlobOptions,
    folder: &std::path::Path,
    transport: &impl Transport,
    mailbox: &Mailbox,
) -> Result<Blobs, StartError> {
    let len_max = transport.message_len_max(x0_mesh::Lane::Bulk);
    let needed = crate::blob::MESSAGE_LEN_MAX;
    if len_max < needed {
        return Err(StartError::MessageLength { len_max, needed });
    }
    let mailbox = mailbox.clone();
    let post: crate::blob::Post = Box::new(move |to, payload| mailbox.blob_message(to, payload));
    Ok(Blobs::start(folder, options, random_seed(), Some(post))?)
}

pub(crate) fn check_transport(transport: &impl Transport, id: NodeId) -> Result<(), StartError> {
    if transport.local() != id {
        return Err(StartError::Identity { transport: transport.local(), options: id });
    }
    let needed = crate::coordinator::MESSAGE_LEN_MAX;
    let len_max = transport.message_len_max(x0_mesh::Lane::Ordered(1));
    if len_max < needed { Err(StartError::MessageLength { len_max, needed }) } else { Ok(()) }
}

/// The replica's way to the hub.
#[derive(Debug, Clone)]
struct Post(Mailbox);

impl Outbox for Post {
    fn send(&mut self, to: NodeId, class: Class, payload: Vec<u8>) -> Result<(), Congested> {
        self.0.message(to, class, payload.into());
        Ok(())
    }
}

impl Observer for Post {
    fn event(&mut self, event: Event) {
        self.0.event(event);
    }
}

/// A store's way to the hub.
#[derive(Debug)]
pub(crate) struct Remote {
    pub(crate) mailbox: Mailbox,
    /// Of the state at hand, on a member.
    pub(crate) watchers: Option<Watchers>,
    /// The keyspace at hand, on a member that has one.
    #[cfg(feature = "crdt")]
    pub(crate) crdt: Option<Crdt>,
    /// The blobs at hand, on a member that has any.
    #[cfg(feature = "blob")]
    pub(crate) blobs: Option<Blobs>,
}

impl Dispatch for Remote {
    fn submit(&self, operation: Operation) -> Answer {
        self.mailbox.call(operation)
    }

    #[cfg(feature = "crdt")]
    fn has_crdt(&self) -> bool {
        // A client cannot know: the member that it asks answers.
        self.crdt.is_some() || self.watchers.is_none()
    }

    #[cfg(feature = "crdt")]
    fn submit_crdt(&self, request: Request) -> Answer<CrdtOutcome> {
        match &self.crdt {
            Some(crdt) => crdt.submit(request),
            None => self.mailbox.crdt_call(request),
        }
    }

    fn watchers(&self) -> Option<&Watchers> {
        self.watchers.as_ref()
    }

    #[cfg(feature = "crdt")]
    fn crdt_watchers(&self) -> Option<&Watchers> {
        self.crdt.as_ref().map(Crdt::watchers)
    }

    #[cfg(feature = "blob")]
    fn blobs(&self) -> Option<&Blobs> {
        self.blobs.as_ref()
    }

    fn close(&self) {
        self.mailbox.stop();
    }
}
