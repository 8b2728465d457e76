//! A running member of a cluster.

use std::collections::VecDeque;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use x0_consensus::driver::Executor;
use x0_consensus::{MembershipChange, Storage};
use x0_identity::NodeId;
use x0_mesh::Mux;

use super::error::{NodeError, StartError};
use super::event_loop::{End, EventLoop};
use super::inbox::{Alarm, Inbox};
use super::membership::ChangeError;
use super::options::NodeOptions;
use super::outbox::Access;
use super::peers::Peers;
use super::readers::{ReaderThreads, Readers};
use super::remote::{CrdtSide, Remote};
use super::service::Bus;
use super::services::admin::{self, Admin, AdminCalls};
use super::services::consensus::{self, Consensus, ReplicaStatus, Request};
use super::services::operations::{self, Calls, LocalState, Operations};
use super::services::scrub::{self, Scrub};
use super::services::snapshots::{self, Snapshots};
use super::services::space::{self, SpaceService};
use super::services::status::{self, Status, StatusRequest};
use super::status::{NodeStatus, StatusHandle};
use super::workers::NodeWorkers;
use super::{driver, folder, repair, services};
use crate::admin::{AdminEngine, AdminError, AdminReply, AdminRequest};
use crate::blob::Blobs;
use crate::coordinator::{Coordinator, CoordinatorOptions, RequestLimits};
use crate::crdt::Crdt;
use crate::scrub::engine::Scrubber;
use crate::seed::random_seed;
use crate::space::Space;
use crate::state::State;
use crate::store::Store;

/// A running member of a cluster. Dropped, it stops as a process that is killed would; everything that it
/// acknowledged is durable.
///
/// The methods may be called from any thread.
pub struct Node {
    id: NodeId,
    store: Store,
    alarm: Alarm,
    requests: Inbox<Request>,
    replica: ReplicaStatus,
    peers: Arc<Peers>,
    space: Space,
    statuses: Inbox<StatusRequest>,
    limits: Inbox<RequestLimits>,
    admin: AdminCalls,
    #[cfg_attr(not(feature = "crdt"), allow(dead_code, reason = "there is none"))]
    crdt: Option<Crdt>,
    end: watch::Receiver<Option<End>>,
}

impl Node {
    /// Opens the folder and starts the node, with its channels on `mux`. Reads the log, so that it may take a
    /// while. Needs a tokio runtime with time around it.
    ///
    /// The node holds its channels until it ends. Other channels of the mux belong to the caller: they carry
    /// the caller's messages over the connections of the node.
    ///
    /// # Errors
    /// When folder, log, storage engine, mux and options do not make a node. Nothing runs then.
    pub fn start(mut options: NodeOptions, mux: &Mux) -> Result<Node, StartError> {
        check_identity(mux, options.consensus.id)?;
        let path = &options.folder;
        std::fs::create_dir_all(path).map_err(|source| StartError::Folder { path: path.clone(), source })?;
        let space = Space::new(options.space);
        let path = path.clone();
        let (storage, state, set_aside) = repair::open(&mut options, &space)?;
        options.consensus.incarnation = storage.incarnation();
        options.consensus.acknowledged = folder::read_acknowledged(&path);
        space.watch(&path).map_err(|source| {
            StartError::Log(x0_consensus::OpenError::Thread { thread: "x0-kv space", source })
        })?;
        let node = Node::start_with(options, Box::new(storage), state, Some(path), space, mux)?;
        node.peers.set_aside(set_aside);
        Ok(node)
    }

    /// As [`start`](Node::start), on a storage and a state of the caller. The options' storage engine and log
    /// settings are not used; the folder is used only for blobs; a CRDT keyspace is held in memory alone.
    ///
    /// # Errors
    /// As [`start`](Node::start).
    pub fn start_on(
        options: NodeOptions,
        storage: impl Storage + 'static,
        state: State,
        mux: &Mux,
    ) -> Result<Node, StartError> {
        check_identity(mux, options.consensus.id)?;
        Node::start_with(options, Box::new(storage), state, None, Space::default(), mux)
    }

    fn start_with(
        options: NodeOptions,
        storage: Box<dyn Storage>,
        state: State,
        journal: Option<PathBuf>,
        space: Space,
        mux: &Mux,
    ) -> Result<Node, StartError> {
        let mut storage = match options.log_layer {
            Some(layer) => layer(storage),
            None => storage,
        };
        let id = options.consensus.id;
        let alarm = Alarm::default();
        let peers = Arc::new(Peers::default());
        let readers = ReaderThreads::default();
        let woken = alarm.clone();
        space.on_change(move || woken.raise());
        // The node reports the lack of space and refuses writes meanwhile.
        let consensus = options.consensus.waits_for_space(true).tracing(options.tracing.clone());
        let executor = Executor::open(consensus, &mut storage, &state, Duration::ZERO)?;
        let membership = executor.replica().status().membership;
        let bus = Bus {
            membership: Some(membership.clone()),
            peers: Arc::clone(&peers),
            observe: options.observe,
            admin: Some(VecDeque::new()),
            ..Bus::default()
        };
        let replica = ReplicaStatus::new(&executor, state.reader());
        let (requests, calls) = (Inbox::new(alarm.clone()), Calls::new(Inbox::new(alarm.clone())));
        let local = LocalState {
            reader: state.reader(),
            readers: Box::new(readers.clone()),
            queried: Inbox::new(alarm.clone()),
        };
        let scrub_reader: (_, Box<dyn Readers>) = (state.reader(), Box::new(readers.clone()));
        let watchers = state.watchers();
        let calls = calls.tracing(options.tracing.clone());
        let version_max = options.message_version_max;
        let coordinator = CoordinatorOptions { tracing: options.tracing.clone(), ..options.coordinator };
        let coordinator = Coordinator::new(coordinator, random_seed());
        let access = Access { roles: options.roles, peers: Arc::clone(&peers) };
        let channels = (
            operations::open(mux, version_max)?,
            consensus::open(mux, version_max)?.for_members(consensus::CHANNEL.name, access.clone()),
            snapshots::CHANNEL.open_for_members(mux, &access)?,
            status::CHANNEL.open(mux)?,
            space::CHANNEL.open_for_members(mux, &access)?,
            admin::CHANNEL.open(mux)?,
            scrub::CHANNEL.open_for_members(mux, &access)?,
        );
        let workers = Box::new(NodeWorkers::start(storage, state)?);

        let mut event_loop = EventLoop::new(alarm.clone(), bus);
        services::drive::start(&mut event_loop, mux);
        // Dropped before the services that have threads: it ends the waits of the threads of the others.
        event_loop.add(SpaceService::new(channels.4, space.clone(), &membership));
        let mut part = services::Part {
            event_loop: &mut event_loop,
            mux,
            alarm: &alarm,
            readers: &readers,
            space: &space,
            id,
            access: &access,
            tracing: &options.tracing,
            version_max,
        };
        let crdt = services::start_crdt(&mut part, options.crdt, journal.clone())?;
        let blobs = services::start_blobs(&mut part, options.blobs, &options.folder)?;
        let limits = Inbox::new(alarm.clone());
        let operations = Operations::new(channels.0, coordinator, calls.clone(), Some(local));
        event_loop.add(operations.limits(limits.clone()));
        let consensus = Consensus::new(channels.1, executor, workers, requests.clone(), replica.clone());
        event_loop.add(consensus.space(space.clone()));
        let admin = AdminCalls::new(Inbox::new(alarm.clone()));
        let engine = AdminEngine::new(id, options.addresses);
        event_loop.add(Admin::new(channels.5, engine, access.roles.clone(), admin.clone()));
        event_loop.add(Snapshots::new(channels.2));
        let statuses = Inbox::new(alarm.clone());
        let status = Status::new(id, channels.3, statuses.clone(), Some(replica.clone()));
        event_loop.add(status.space(space.clone()));

        let engine = Scrubber::new(options.scrub, id, random_seed());
        let done = Inbox::new(alarm.clone());
        event_loop.add(Scrub::new(channels.6, engine, (id, &membership), scrub_reader, done));

        let (ended, end) = watch::channel(None);
        let keeper = journal.map(|path| {
            let (stop, stopped) = oneshot::channel::<()>();
            let stopped = async move { drop(stopped.await) };
            Keeper { task: tokio::spawn(folder::keep_acknowledged(path, replica.clone(), stopped)), stop }
        });
        let parts = Parts { keeper, readers, crdt: crdt.clone(), blobs: blobs.clone() };
        tokio::spawn(run(event_loop, parts, ended));
        let remote = Remote {
            alarm: alarm.clone(),
            calls,
            watchers: Some(watchers),
            crdt: CrdtSide::Member(crdt.clone()),
            blobs,
        };
        let store = Store::from_dispatch(Arc::new(remote));
        Ok(Node { id, store, alarm, requests, replica, peers, space, statuses, limits, admin, crdt, end })
    }

    /// A handle of a node whose event loop a simulator runs.
    #[cfg(feature = "sim")]
    pub(crate) fn simulated(parts: NodeParts) -> Node {
        let NodeParts { id, alarm, requests, replica, peers, statuses, admin, calls } = parts;
        let remote =
            Remote { alarm: alarm.clone(), calls, watchers: None, crdt: CrdtSide::Member(None), blobs: None };
        let store = Store::from_dispatch(Arc::new(remote));
        let (limits, end) = (Inbox::new(alarm.clone()), watch::channel(None).1);
        let (space, crdt) = (Space::default(), None);
        Node { id, store, alarm, requests, replica, peers, space, statuses, limits, admin, crdt, end }
    }

    /// The id of this node.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The replicated store. Closing it stops the node.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The status of this node.
    #[must_use]
    pub fn status(&self) -> NodeStatus {
        NodeStatus::new(self.id, &self.replica, &self.peers, self.space.status())
    }

    /// A handle that reads the status, for another thread.
    #[must_use]
    pub fn status_handle(&self) -> StatusHandle {
        let (replica, peers) = (self.replica.clone(), Arc::clone(&self.peers));
        StatusHandle { id: self.id, replica, peers, space: self.space.clone() }
    }

    /// When the oldest write of the log that is not yet on the disk was handed out, on a clock of the node;
    /// `None` without one. Two equal answers are the same write: a caller measures its age on its own clock.
    ///
    /// A slow disk shows here, and not in the messages of the node, which do not wait for the disk.
    #[must_use]
    pub fn writing_since(&self) -> Option<Duration> {
        self.replica.get().writing_since
    }

    /// When the last message of another node that leads arrived, on a clock of the node; `None` for a leader.
    /// Two equal answers are the same message: a caller measures its age on its own clock. See
    /// [`x0_consensus::Status::leader_last_message`].
    #[must_use]
    pub fn leader_last_message(&self) -> Option<Duration> {
        self.replica.get().leader_last_message
    }

    /// The status of the CRDT keyspace, if the node has one.
    #[cfg(feature = "crdt")]
    #[must_use]
    pub fn crdt_status(&self) -> Option<crate::crdt::CrdtStatus> {
        self.crdt.as_ref().map(Crdt::status)
    }

    /// Changes how many operations of other nodes may wait here, until the next change or the end of the
    /// node. Operations that wait already are not ended. Returns at once; `status().waiting` shows the limits
    /// that hold.
    pub fn set_request_limits(&self, limits: RequestLimits) {
        self.limits.put(limits);
    }

    /// Asks another member for its status. The future ends with `None` if there is no answer within `limit`.
    pub fn status_of(
        &self,
        member: NodeId,
        limit: Duration,
    ) -> impl Future<Output = Option<NodeStatus>> + Send + use<> {
        let asked = self.ask_status(member);
        async move { tokio::time::timeout(limit, asked).await.ok()? }
    }

    /// As [`status_of`](Node::status_of), for a caller that limits the wait itself: without an answer the
    /// future may never end. It needs no runtime.
    pub fn ask_status(&self, member: NodeId) -> impl Future<Output = Option<NodeStatus>> + Send + use<> {
        let requests = self.statuses.clone();
        async move {
            let (answer, status) = oneshot::channel();
            requests.put(StatusRequest { node: member, answer });
            status.await.ok()
        }
    }

    /// Carries out a request of an operator: on the leader, to which it is forwarded. Nothing is done before
    /// the future is polled.
    ///
    /// # Errors
    /// [`AdminError`], which says why nothing was changed, or that the result is not known.
    pub fn admin(
        &self,
        request: AdminRequest,
    ) -> impl Future<Output = Result<AdminReply, AdminError>> + Send + use<> {
        let calls = self.admin.clone();
        async move { calls.call(request).await }
    }

    /// Adds a node that receives the log and has no vote. Ask the leader for this and for the other changes.
    ///
    /// # Errors
    /// Those of [`ChangeError`].
    pub async fn add_learner(&self, node: NodeId) -> Result<(), ChangeError> {
        self.change(MembershipChange::default().learner(node)).await
    }

    /// Makes a learner a voter. It should have caught up before: it counts for the quorum at once.
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
        self.requests.put(Request::Change { change, answer });
        made.await.unwrap_or(Err(ChangeError::Closed))
    }

    /// Hands the leadership to another voter, if this node is the leader. Returns at once;
    /// [`NodeEvent::Leader`](super::NodeEvent::Leader) reports the new leader.
    pub fn transfer_leadership(&self, to: NodeId) {
        self.requests.put(Request::TransferLeadership { to });
    }

    /// Campaigns at once, although there is a leader, if this node is a voter; see
    /// [`x0_consensus::Input::TakeOver`]. Returns at once; [`NodeEvent::Leader`](super::NodeEvent::Leader)
    /// reports the new leader.
    pub fn take_over(&self) {
        self.requests.put(Request::TakeOver);
    }

    /// Waits until the node has stopped.
    ///
    /// # Errors
    /// [`NodeError`], when it failed rather than being asked to stop.
    pub async fn ended(&self) -> Result<(), NodeError> {
        let mut end = self.end.clone();
        // Without a sender the runtime is going down, which stops the node.
        let end = end.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
        match end {
            Some(End::Failed(error)) => Err(error),
            Some(End::Stopped) | None => Ok(()),
        }
    }

    /// Stops the node, and returns when its files are released; ten seconds later at the latest if a read of
    /// its state does not end, for instance because the disk does not answer. Operations in progress are
    /// answered [`Closed`](crate::OperationError::Closed). If the node is the leader, the others elect a new
    /// one after a timeout; [`transfer_leadership`](Node::transfer_leadership) before the shutdown spares
    /// them the wait.
    ///
    /// # Errors
    /// [`NodeError`], when it had failed before.
    pub async fn shutdown(self) -> Result<(), NodeError> {
        self.alarm.stop();
        self.ended().await
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.alarm.stop();
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The ways from a handle to an event loop that a simulator runs.
#[cfg(feature = "sim")]
pub(crate) struct NodeParts {
    pub(crate) id: NodeId,
    pub(crate) alarm: Alarm,
    pub(crate) requests: Inbox<Request>,
    pub(crate) replica: ReplicaStatus,
    pub(crate) peers: Arc<Peers>,
    pub(crate) statuses: Inbox<StatusRequest>,
    pub(crate) admin: AdminCalls,
    pub(crate) calls: Calls,
}

/// The parts of a node beside its event loop that hold its files.
struct Parts {
    keeper: Option<Keeper>,
    readers: ReaderThreads,
    crdt: Option<Crdt>,
    blobs: Option<Blobs>,
}

/// The task that keeps what the replica knows of the other members. It ends when `stop` is dropped.
struct Keeper {
    task: JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

/// Runs a node to its end, and reports it when everything is released.
async fn run(event_loop: EventLoop, parts: Parts, ended: watch::Sender<Option<End>>) {
    let end = driver::run(event_loop).await;
    let Parts { keeper, readers, crdt, blobs } = parts;
    if let Some(Keeper { task, stop }) = keeper {
        drop(stop);
        let _ = task.await;
    }
    // All of them wait for their threads, which may wait for the disk.
    let close = move || {
        readers.close();
        crdt.iter().for_each(Crdt::close);
        blobs.iter().for_each(Blobs::close);
    };
    let _ = tokio::task::spawn_blocking(close).await;
    ended.send_replace(Some(end));
}

pub(super) fn check_identity(mux: &Mux, id: NodeId) -> Result<(), StartError> {
    if mux.local() == id { Ok(()) } else { Err(StartError::Identity { mux: mux.local(), options: id }) }
}
