//! `x0-node run`: one node until a signal or an error ends it.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::sync::mpsc::UnboundedReceiver;
use x0_identity::{Identity, NodeId};
use x0_kv::admin::{PeerRole, PeerRoles};
use x0_kv::blob::BlobOptions;
use x0_kv::cluster::{Node, NodeEvent, NodeOptions, ScrubEvent, SpaceOptions, Standing, StartError};
use x0_kv::{CrdtOptions, Engine, KeyspaceName, Members, RangeQuery, RedbOptions, Store};
use x0_mesh::link::UdpLinkError;
use x0_mesh::quic::{BindError, PeerBook, QuicOptions};
use x0_mesh::{DownReason, FaultHandle, FaultInjector, Mux, MuxOptions, PeerEvent, PeerEventKind, is_guest};

use crate::causes::causes;
use crate::cli::RunArgs;
use crate::config::address::Address;
use crate::config::{self, ConfigError, NodeConfig};
use crate::control::{self, CrdtState, Digest, Order, Reply, Status};
use crate::fatal::{self, Panics};
use crate::federation::Federation;
use crate::heal::Healer;
use crate::http::config::{HttpConfig, Route, TlsMode};
use crate::http::{Http, Late};
use crate::identity::files::Files;
use crate::identity::report::SharedRenewing;
use crate::log::Log;
use crate::mesh::NodeMesh;
use crate::observe::Observe;
use crate::rag::Rag;
use crate::resolve::Names;
use crate::revocations::Applied;
use crate::slow_log::{Delay, SlowLog};
use crate::{bundles, heal, http, identity, mesh, reset, revocations, signals};

/// The time that a stopping leader waits for another leader.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(10);

/// Runs a node until a signal or an order stops it. An error if it could not start or failed.
pub(crate) async fn run(args: &RunArgs) -> Result<()> {
    // Before the start: its thread for a blocked event loop takes the signals from their default action, and
    // one that came before the node listens, as in the moment after `Ready`, would be lost.
    let signals = (signals::Stops::new()?, signals::HangUps::new()?);
    let started = start(args).await;
    let orders = if args.control { Some(control::orders().context("cannot read orders")?) } else { None };
    let running = match started {
        Ok(running) => running,
        Err(error) => {
            if args.control {
                let (is_port_in_use, is_config) = (is_port_in_use(&error), error.is::<ConfigError>());
                control::reply(&Reply::Failed { why: causes(&error), is_port_in_use, is_config });
            }
            return Err(error);
        }
    };
    if args.control {
        control::reply(&Reply::Ready);
    }
    running.serve(orders, signals).await
}

/// A node and the handles of its parts.
struct Running {
    config: NodeConfig,
    node: Node,
    identity: Identity,
    files: Files,
    peers: PeerBook,
    mesh: Option<Arc<NodeMesh>>,
    healer: Healer,
    faults: FaultHandle,
    log_delay: Delay,
    seen: Seen,
    log: Log,
    panics: Panics,
    observe: Observe,
    federation: Federation,
    rag: Option<Rag>,
    /// The HTTP listeners, which end with the node.
    _listeners: [Option<Http>; 2],
}

/// The members that are up, each with its epoch. Shared with what observes the node.
type Seen = Arc<Mutex<BTreeMap<NodeId, u64>>>;
/// The members that are down, each with the reason of the last attempt.
pub(crate) type Down = Arc<Mutex<BTreeMap<NodeId, DownReason>>>;

async fn start(args: &RunArgs) -> Result<Running> {
    let config = NodeConfig::load(&args.config)?;
    let log = Log::start(config.node, args.log).context("cannot start the thread of the log")?;
    // Before anything makes a handle of a metric. The log makes none.
    let observe = Observe::install(&config, &log)?;
    fatal::end_after_stop(&log)?;
    let panics = Panics::watch(&log);
    observe.begin(&log)?;
    // Probes are answered while the node waits for its SVID, and while it reads its log.
    let rag_routes = Late::default();
    let front = listen(&config, &observe, None, &rag_routes, &log)?;
    let renewing = SharedRenewing::default();
    if let Some(issuer) = &config.issuer {
        let has_svid = identity::renew::start(&config, issuer, &renewing, &log)?;
        // There is none yet, or it expired while the node was off.
        if identity::load(&config.trust_domain, &config.svid, &config.bundle).is_err() {
            log.event("waiting-for-identity", format!("issuer={}", issuer.address));
            has_svid.await.context("the renewal of the identity ended")?;
        }
    }
    // Before they are read, so that no change is missed.
    let files = Files::watch(vec![config.svid.clone(), config.bundle.clone()])
        .context("cannot start the thread that watches the files of the identity")?;
    let identity = identity::load(&config.trust_domain, &config.svid, &config.bundle)?;
    if identity.node_id() != Some(config.node) {
        bail!(
            "{} is the identity of {} and the configuration is that of node {}: use the files of one node",
            config.svid.display(),
            identity.spiffe_id(),
            config.node
        );
    }
    // Before the first handshake.
    let revoked = revocations::load(&config.data_dir, &identity, &log);
    let has_mesh = !config.links.is_empty();
    let mut quic =
        QuicOptions::new(config.node, config.listen, identity.server_config(), identity.client_config());
    // Names are resolved while the node runs: the name of a member may come later than this node.
    let names = Names::default();
    for peer in config.peers() {
        match peer.address {
            // Over the mesh, the address of a member follows from its id.
            _ if has_mesh => quic.peers.push((peer.node, x0_mesh::mesh::address(peer.node))),
            Address::Socket(address) => quic.peers.push((peer.node, address)),
            name @ Address::Name { .. } => names.insert(peer.node, &name),
        }
    }
    quic.guests = true;
    quic.identity = Some(identity.clone());
    quic.reset_key = reset::key(&config.data_dir, &log);
    let (transport, mesh) = mesh::transport(&config, &identity, quic, args.control)?;
    let peers = transport.peers();
    observe.starting(&identity, &peers, mesh.as_ref());
    let mutual = listen(&config, &observe, Some(&identity), &rag_routes, &log)?;
    let (transport, faults) = FaultInjector::new(transport);
    log.event("listening", format!("address={} identity={}", config.listen, identity.spiffe_id()));

    let id = config.node;
    let (seen, down) = (Seen::default(), Down::default());
    let mut observer = Observer {
        log: log.clone(),
        members: config.peers().map(|peer| peer.node).collect(),
        seen: Arc::clone(&seen),
        down: Arc::clone(&down),
        book: peers.clone(),
        names: names.clone(),
        own: id,
        has_mesh,
        panics: panics.clone(),
    };
    let up = Arc::clone(&seen);
    let reached =
        move || up.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect::<BTreeSet<_>>();
    names.spawn(reached, peers.clone(), log.clone());
    let (operators, guests) = (config.operators.clone(), peers.clone());
    let roles = PeerRoles::new(move |peer| {
        if !is_guest(peer) {
            return PeerRole::Member;
        }
        // A guest that is gone has no identity any more.
        match guests.guest_identity(peer) {
            Some(identity) if operators.contains(&identity) => PeerRole::Operator,
            _ => PeerRole::Client,
        }
    });
    let own = config.members.iter().find(|member| member.node == id);
    let mut options = NodeOptions::new(id, &config.data_dir)
        .addresses(own.map(|member| member.address.to_string()))
        .roles(roles.clone())
        .repair(config.repair)
        .tracing(observe.tracing())
        .observe(move |event| observer.observe(&event));
    if !config.join {
        options = options.founders(config.members.iter().map(|member| member.node));
    }
    if config.engine == config::Engine::Redb {
        options = options.engine(Engine::Redb(RedbOptions::default()));
    }
    options = options.space(SpaceOptions::default().reserve_len(config.reserve_mib << 20));
    if let Some(key) = config.crdt_key {
        options = options.crdt(CrdtOptions::new(key));
    }
    if config.rag.is_some() {
        // Long documents.
        options = options.blobs(BlobOptions::default());
    }
    let log_delay = Delay::default();
    if args.control {
        let delay = log_delay.clone();
        options = options.log_layer(move |inner| Box::new(SlowLog { inner, delay }));
    }
    let mux = Mux::new(transport, MuxOptions::default());
    // The storage engine panics on damage that it does not expect. Nothing of the node is used after that.
    let node = match catch_unwind(AssertUnwindSafe(|| Node::start(options, &mux))) {
        Ok(node) => node.map_err(|error| explain(error, &config, &args.config))?,
        Err(panic) => {
            panics.check(&config.data_dir)?;
            // Unreachable as long as the hook of `panics` is in place.
            resume_unwind(panic)
        }
    };
    mesh::serve(&mux, mesh.clone())?;
    let parts = heal::Parts {
        peers: peers.clone(),
        identity: identity.clone(),
        renewing: Arc::clone(&renewing),
        status: node.status_handle(),
        down,
        is_supervised: args.supervised,
    };
    let healer = Healer::start(&config, &mux, roles, parts, &log)?;
    let applied = Applied::default();
    if config.crdt_key.is_some() {
        revocations::start(node.store(), revoked, &identity, &applied, &log)?;
        bundles::start(node.store(), &identity, &config.bundle, &log)?;
    }
    let federation = Federation::start(node.store(), &identity, &config, &log)?;
    identity::report::serve(&mux, identity.clone(), renewing, applied, federation.clone())?;
    let status = node.status();
    log.event("started", format!("data={} applied={}", config.data_dir.display(), status.applied));
    observe.started(&node);
    let folder = config.data_dir.join("rag");
    let rag = config.rag.as_ref().map(|rag| Rag::start(rag, &folder, node.store(), &log)).transpose()?;
    if let Some(rag) = &rag {
        rag_routes.set(rag.router());
    }
    Ok(Running {
        config,
        node,
        identity,
        files,
        peers,
        mesh,
        healer,
        faults,
        log_delay,
        seen,
        log,
        panics,
        observe,
        federation,
        rag,
        _listeners: [front, mutual],
    })
}

/// Starts the listeners with the mode `mutual` if there is an identity, else the others.
fn listen(
    config: &NodeConfig,
    observe: &Observe,
    identity: Option<&Identity>,
    rag: &Late,
    log: &Log,
) -> Result<Option<Http>> {
    let wanted = |one: &&HttpConfig| (one.tls == TlsMode::Mutual) == identity.is_some();
    let listeners: Vec<HttpConfig> = config.http.iter().filter(wanted).cloned().collect();
    if listeners.is_empty() {
        return Ok(None);
    }
    let router = |route: Route| match route {
        Route::Rag => rag.router("/api/v1/rag"),
        route => observe.router(route),
    };
    http::start(&listeners, identity, log, router).map(Some)
}

/// The error of a node that did not start, with the command that helps.
fn explain(error: StartError, config: &NodeConfig, path: &Path) -> anyhow::Error {
    let data = config.data_dir.display();
    let is_damaged = matches!(&error, StartError::Engine(error) if error.is_file_damaged());
    let text = match error.is_copy() {
        false if is_damaged && !config.repair => format!(
            "cannot start with the data in {data}: with `repair = true` in {} the node sets its damaged files aside, and gets the \
             data from the other members, if a majority of the members is intact",
            path.display()
        ),
        true => format!(
            "cannot start with the data in {data}: if it was copied or moved on purpose, run `x0-node data adopt --config {}`, then \
             start the node again",
            path.display()
        ),
        false => format!("cannot start with the data in {data}"),
    };
    anyhow::Error::new(error).context(text)
}

fn is_port_in_use(error: &anyhow::Error) -> bool {
    let of_link = |error: &UdpLinkError| matches!(error, UdpLinkError::Socket { source, .. } if source.kind() == io::ErrorKind::AddrInUse);
    error.downcast_ref::<BindError>().is_some_and(|error| matches!(error, BindError::AddressInUse { .. }))
        || error.downcast_ref::<UdpLinkError>().is_some_and(of_link)
}

impl Running {
    async fn serve(
        mut self,
        mut orders: Option<UnboundedReceiver<Result<Order, String>>>,
        (mut stops, mut reloads): (signals::Stops, signals::HangUps),
    ) -> Result<()> {
        loop {
            tokio::select! {
                ended = self.node.ended() => {
                    self.log.flush(fatal::LOG_LIMIT);
                    // A panic that stopped the node may not have become an error of the node.
                    let ended = ended.context("stopped by a failure; acknowledged writes are safe");
                    return ended.and_then(|()| self.panics.check(&self.config.data_dir));
                }
                () = self.panics.happened() => {
                    self.log.flush(fatal::LOG_LIMIT);
                    return self.panics.check(&self.config.data_dir);
                }
                () = self.healer.due() => self.healer.work(&self.node),
                () = stops.next() => break,
                () = reloads.next() => self.reload_or_log(),
                () = self.files.changed() => self.reload_or_log(),
                order = next(&mut orders) => match order {
                    None | Some(Ok(Order::Stop)) => break,
                    Some(Ok(Order::RestartRefused { why })) => {
                        self.healer.restart_refused(why);
                        control::reply(&Reply::Done);
                    }
                    Some(order) => control::reply(&self.carry_out(order).await),
                },
            }
        }
        self.stop().await
    }

    async fn carry_out(&self, order: Result<Order, String>) -> Reply {
        let done = match order {
            Err(why) => return failed(why),
            Ok(Order::Status) => return Reply::Status(self.status()),
            Ok(Order::Isolate) => {
                self.faults.block_all();
                Ok(Reply::Done)
            }
            Ok(Order::Heal) => {
                self.faults.unblock_all();
                Ok(Reply::Done)
            }
            Ok(Order::CutLink { peer }) => self.set_cut(peer, true),
            Ok(Order::MendLink { peer }) => self.set_cut(peer, false),
            Ok(Order::SlowDisk { milliseconds }) => {
                self.log_delay.set(milliseconds);
                Ok(Reply::Done)
            }
            Ok(Order::Mesh) => self.mesh().map(|mesh| Reply::Mesh(mesh.state())),
            Ok(Order::Reload) => self.reload().map(|()| Reply::Done),
            Ok(Order::Digest) => {
                digest(self.node.store(), self.node.status().applied).await.map(Reply::Digest)
            }
            Ok(Order::CrdtWrite { prefix, count, amount }) => {
                crdt_write(self.node.store(), &prefix, count, amount).await.map(|()| Reply::Done)
            }
            Ok(Order::CrdtState) => self.crdt_state().await.map(Reply::Crdt),
            // The caller has taken these two.
            Ok(Order::Stop | Order::RestartRefused { .. }) => Ok(Reply::Done),
        };
        done.unwrap_or_else(|error| failed(causes(&error)))
    }

    fn mesh(&self) -> Result<&NodeMesh> {
        self.mesh.as_deref().context("this node has no [[links]]")
    }

    fn set_cut(&self, peer: u64, is_cut: bool) -> Result<Reply> {
        let peer = NodeId::new(peer).context("0 is no node")?;
        self.mesh()?.set_cut(peer, is_cut).map(|()| Reply::Done)
    }

    async fn crdt_state(&self) -> Result<CrdtState> {
        let store = self.node.store().crdt()?;
        let status = self.node.crdt_status().context("this node has no CRDT keyspace")?;
        let siblings = store.siblings(control::SHARED).await?;
        Ok(CrdtState {
            frontier: (status.frontier.version, status.frontier.content),
            keys: u64::try_from(status.keys)?,
            counter: store.counter(control::COUNTER).await?,
            siblings: siblings.iter().map(|held| String::from_utf8_lossy(&held.value).into_owned()).collect(),
            sent_bytes: status.totals.sent_bytes,
        })
    }

    fn status(&self) -> Status {
        let status = self.node.status();
        Status {
            is_leader: status.is_leader(),
            leader: status.leader.map(NodeId::get),
            term: status.term,
            committed: status.committed,
            applied: status.applied,
            peers: {
                let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.iter().map(|(peer, epoch)| (peer.get(), *epoch)).collect()
            },
        }
    }

    fn reload_or_log(&self) {
        if let Err(error) = self.reload() {
            self.log.event("reload-failed", format!("why={}", causes(&error)));
        }
    }

    /// Reads the identity and the bundle from their files again, and reconnects to every peer with a new
    /// identity.
    fn reload(&self) -> Result<()> {
        // The rotation is a trace of its own, and the lines of the log have its id.
        let _span = tracing::info_span!(parent: None, "node.reload").entered();
        let reloaded = identity::reload(&self.identity, &self.config.svid, &self.config.bundle)?;
        if reloaded.bundle {
            let count = self.identity.trust_bundle().authorities().len();
            self.log.event("bundle-changed", format!("authorities={count}"));
        }
        if reloaded.svid {
            self.log.event("identity-rotated", format!("identity={}", self.identity.spiffe_id()));
            for peer in self.config.peers() {
                self.peers.reconnect(peer.node);
            }
        }
        // Also after SIGHUP alone, for the certificate of its endpoint. Last, so that an error of the
        // endpoint keeps no connection on the SVID from before.
        self.federation.publish().context("the bundle endpoint serves the bundle from before")
    }

    /// Stops in an orderly way. A leader transfers the leadership first.
    async fn stop(self) -> Result<()> {
        let id = self.config.node;
        let status = self.node.status();
        let successor = status
            .membership
            .voters
            .iter()
            .copied()
            .find(|voter| *voter != id && status.reached.contains(voter));
        let hand_over = async {
            let Some(successor) = successor.filter(|_| status.is_leader()) else { return };
            self.node.transfer_leadership(successor);
            let handed_over = async {
                while self.node.status().is_leader() {
                    tokio::time::sleep(POLL).await;
                }
            };
            // If the transfer fails, the others elect a leader.
            let _ = tokio::time::timeout(HAND_OVER_LIMIT, handed_over).await;
        };
        let save = async {
            if let Some(rag) = &self.rag {
                rag.stop().await;
            }
        };
        tokio::join!(hand_over, save);
        let stopped = self.node.shutdown().await;
        self.log.event("stopped", "");
        self.observe.flush();
        self.log.flush(fatal::LOG_LIMIT);
        stopped.map_err(Into::into).and_then(|()| self.panics.check(&self.config.data_dir))
    }
}

/// The reply to an order that failed.
fn failed(why: String) -> Reply {
    Reply::Failed { why, is_port_in_use: false, is_config: false }
}

async fn next(
    orders: &mut Option<UnboundedReceiver<Result<Order, String>>>,
) -> Option<Result<Order, String>> {
    match orders {
        Some(orders) => orders.recv().await,
        None => pending().await,
    }
}

/// Writes on this node, regardless of the reachability of the others.
async fn crdt_write(store: &Store, prefix: &str, count: u32, amount: i64) -> Result<()> {
    let store = store.crdt()?;
    let writes: Vec<_> =
        (0..count).map(|number| store.put(format!("{prefix}/{number:04}"), prefix.to_owned())).collect();
    for write in writes {
        write.await?;
    }
    store.put(control::SHARED, prefix.to_owned()).await?;
    store.add(control::COUNTER, amount).await?;
    Ok(())
}

/// The digest of all keys and values of this replica.
async fn digest(store: &Store, applied: u64) -> Result<Digest> {
    let mut digest = Digest { applied, entries: 0, sum: 0xcbf2_9ce4_8422_2325 };
    let mut next = Some(RangeQuery::all());
    while let Some(range) = next {
        let page = store.range_local(range.clone()).await?;
        for entry in &page.entries {
            digest.entries += 1;
            let parts: [&[u8]; 5] = [
                &entry.key,
                &entry.value,
                &entry.revision.get().to_le_bytes(),
                &len(&entry.key),
                &len(&entry.value),
            ];
            for byte in parts.into_iter().flatten() {
                digest.sum = (digest.sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
        next = page.continuation.map(|continuation| range.resume(continuation));
    }
    Ok(digest)
}

fn len(bytes: &[u8]) -> [u8; 8] {
    (bytes.len() as u64).to_le_bytes()
}

/// Logs the events of the node.
struct Observer {
    log: Log,
    /// The other members. Connections of clients, which last for one command, are not logged.
    members: BTreeSet<NodeId>,
    seen: Seen,
    down: Down,
    book: PeerBook,
    names: Names,
    own: NodeId,
    /// Members are reached over the mesh.
    has_mesh: bool,
    panics: Panics,
}

impl Observer {
    fn observe(&mut self, event: &NodeEvent) {
        match event {
            NodeEvent::Leader { leader: Some(leader), term } => {
                self.log.event("leader", format!("leader={leader} term={term}"));
            }
            NodeEvent::Leader { leader: None, term } => {
                self.log.event("no-leader", format!("term={term}"));
            }
            NodeEvent::Membership { membership } => {
                let roles = [
                    &membership.voters,
                    &membership.voters_outgoing,
                    &membership.learners,
                    &membership.learners_next,
                ];
                self.membership_changed(&roles.into_iter().flatten().copied().collect());
                let ids =
                    |ids: &BTreeSet<NodeId>| ids.iter().map(NodeId::to_string).collect::<Vec<_>>().join(",");
                self.log.event(
                    "membership",
                    format!("voters={} learners={}", ids(&membership.voters), ids(&membership.learners)),
                );
            }
            NodeEvent::Space(space) => {
                let free = space.free.map_or_else(|| "unknown".to_owned(), |free| free.to_string());
                let event = if space.is_short() { "no-space" } else { "space-available" };
                self.log.event(
                    event,
                    format!(
                        "free={free} reserve={} log_waits={} checkpoint_waits={} journal_waits={}{}",
                        space.reserve,
                        space.log_waits,
                        space.checkpoint_waits,
                        space.journal_waits,
                        if space.is_short() {
                            " effect=writes are refused, reads go on; free some space"
                        } else {
                            ""
                        }
                    ),
                );
            }
            NodeEvent::SetAside { to, damage } => {
                self.panics.forget();
                let effect = "the node gets its data from the other members, and votes when it has caught up";
                self.log.event("set-aside", format!("to={} effect={effect} why={damage}", to.display()));
            }
            NodeEvent::Scrub(event) => self.scrub(event),
            NodeEvent::CrdtFailed(error) => {
                let error = causes(&anyhow::Error::new(error.clone()));
                self.log.event(
                    "crdt-failed",
                    format!("effect=the CRDT keyspace is read-only until the next start why={error}"),
                );
            }
            NodeEvent::CrdtRenewed { incarnation } => self.log.event(
                "crdt-renewed",
                format!(
                    "incarnation={incarnation} why=a member has events of this node that its folder lacks; check that no other process uses a copy of it"
                ),
            ),
            NodeEvent::CrdtKeyMismatch { node } => self.log.event(
                "crdt-key-mismatch",
                format!("peer={node} effect=nothing is synchronized; give both nodes the same hash key"),
            ),
            NodeEvent::Members { members } => self.members_changed(members),
            NodeEvent::Standing { standing } => self.standing(standing),
            NodeEvent::Peer(PeerEvent { peer, kind, .. }) if self.members.contains(peer) => {
                self.peer(*peer, kind);
            }
            _ => {}
        }
    }

    /// Dials the members at the addresses of the member table.
    fn members_changed(&mut self, members: &Members) {
        for (node, member) in members.iter() {
            if self.has_mesh {
                self.book.set_peer(node, x0_mesh::mesh::address(node));
                self.members.insert(node);
                continue;
            }
            // An address that is not one of this transport belongs to another transport of the member.
            let Some(address) = member.addresses.iter().find_map(|address| address.parse().ok()) else {
                continue;
            };
            match address {
                Address::Socket(address) => {
                    self.names.remove(node);
                    self.book.set_peer(node, address);
                }
                name @ Address::Name { .. } if node != self.own => self.names.insert(node, &name),
                Address::Name { .. } => {}
            }
            self.members.insert(node);
        }
    }

    /// Stops dialling the nodes that are not members any more. They may still dial this node.
    fn membership_changed(&mut self, all: &BTreeSet<NodeId>) {
        // A node that waits to be added knows no membership.
        if !all.is_empty() {
            let gone: Vec<NodeId> = self.members.difference(all).copied().collect();
            for node in gone {
                self.members.remove(&node);
                self.names.remove(node);
                self.book.remove_peer(node);
            }
        }
    }

    fn standing(&mut self, standing: &Standing) {
        match standing {
            Standing::Member => self.log.event("voting", "why=the data folder is the registered one"),
            Standing::Founding { missing } => {
                let missing = missing.iter().map(NodeId::to_string).collect::<Vec<_>>().join(",");
                let why =
                    "the data folder is empty, and the cluster is founded when all members have answered";
                self.log.event("waiting-for-founders", format!("missing={missing} why={why}"));
            }
            Standing::Rejoining { registered } => {
                let why = "the data folder was emptied or adopted; a majority of the other members must be reachable";
                self.log.event("rejoining", format!("registered={registered:016x} why={why}"));
            }
            _ => self.log.event("waiting-to-be-added", "why=this node is not a member of the cluster yet"),
        }
    }

    fn scrub(&self, event: &ScrubEvent) {
        let at = |keyspace: &KeyspaceName, key: &[u8]| {
            format!("keyspace={} key={:?}", keyspace.as_str(), String::from_utf8_lossy(key))
        };
        match event {
            ScrubEvent::Damaged { keyspace, key } => {
                self.log.event(
                    "scrub-damaged",
                    format!("{} effect=reads of it fail until it is repaired", at(keyspace, key)),
                );
            }
            ScrubEvent::Repaired { keyspace, key, from } => {
                self.log.event("scrub-repaired", format!("{} from={from}", at(keyspace, key)));
            }
            ScrubEvent::Diverged { node, keyspace, start, index, .. } => {
                self.log.event(
                    "scrub-diverged",
                    format!("member={node} index={index} {} effect=it refuses reads of the range; replace the member", at(keyspace, start)),
                );
            }
            ScrubEvent::Failed { message } => self.log.event("scrub-failed", format!("why={message}")),
            ScrubEvent::Completed { entries, bytes, members } => {
                self.log
                    .event("scrub-completed", format!("entries={entries} bytes={bytes} members={members}"));
            }
            _ => {}
        }
    }

    fn peer(&mut self, peer: NodeId, kind: &PeerEventKind) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        match kind {
            PeerEventKind::Up { epoch } => {
                seen.insert(peer, *epoch);
                down.remove(&peer);
                self.log.event("peer-up", format!("peer={peer}"));
            }
            PeerEventKind::Degraded => self.log.event("peer-silent", format!("peer={peer}")),
            PeerEventKind::Down { reason, .. } => {
                let was_up = seen.remove(&peer).is_some();
                down.insert(peer, reason.clone());
                let event = if was_up { "peer-down" } else { "peer-unreached" };
                self.log.event(event, format!("peer={peer} why={reason}"));
            }
            _ => {}
        }
    }
}
