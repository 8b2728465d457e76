//! Settings of a node.

use std::fmt;
use std::path::PathBuf;

use x0_consensus::{Membership, Storage, WalOptions};
use x0_identity::NodeId;

use super::NodeEvent;
use crate::admin::PeerRoles;
use crate::blob::BlobOptions;
use crate::coordinator::CoordinatorOptions;
use crate::crdt::CrdtOptions;
use crate::scrub::ScrubOptions;
use crate::seed::random_seed;
use crate::space::SpaceOptions;
use crate::state::engine::Engine;
use crate::trace::Tracing;

/// A layer on the log of a node: see [`NodeOptions::log_layer`].
pub type LogLayer = Box<dyn FnOnce(Box<dyn Storage>) -> Box<dyn Storage> + Send>;

/// Settings of a [`Node`](super::Node): [`NodeOptions::new`], then change what is needed.
#[non_exhaustive]
pub struct NodeOptions {
    /// The folder of log, snapshot and data. Created if it does not exist.
    pub folder: PathBuf,
    /// The storage engine that holds the data.
    pub engine: Engine,
    /// The replica's settings, the node's id among them.
    pub consensus: x0_consensus::Options,
    /// The settings of the write-ahead log.
    pub log: WalOptions,
    /// The coordinator's settings.
    pub coordinator: CoordinatorOptions,
    /// The reserve on the disk of the folder.
    pub space: SpaceOptions,
    /// The background scrub.
    pub scrub: ScrubOptions,
    /// Whether log and data are set aside when the file of the storage engine is damaged beyond the repair of
    /// ranges: the node starts empty, under a new incarnation, and the other members bring it up to date.
    /// They must be a majority without it. Otherwise, and unless set, the node does not start.
    pub repair: bool,
    /// The CRDT keyspace, if there is to be one: [`NodeOptions::crdt`].
    pub(crate) crdt: Option<CrdtOptions>,
    /// The blobs, if there are to be any: [`NodeOptions::blobs`].
    pub(crate) blobs: Option<BlobOptions>,
    /// The addresses at which the other members reach this one, for the member table; none leaves the table
    /// alone.
    pub addresses: Vec<String>,
    /// The roles of the peers. Unless set, guests of the transport are clients and all others members.
    pub roles: PeerRoles,
    /// Whether and how operations are traced. Off unless set.
    pub tracing: Tracing,
    /// The highest version of the messages of a channel that this node speaks: a node with 1 exchanges the
    /// messages of the first release. Unbounded unless set; for tests of rolling upgrades.
    pub message_version_max: u16,
    /// Receives the events of the node, in the task of its event loop: it must be quick and must not wait.
    pub observe: Option<Box<dyn FnMut(NodeEvent) + Send>>,
    /// A layer on the log. Unless set, there is none.
    pub log_layer: Option<LogLayer>,
}

impl NodeOptions {
    /// Node `id` with its data in `folder`. It waits to be added to a cluster, unless it is one of the
    /// [founders](NodeOptions::founders).
    pub fn new(id: NodeId, folder: impl Into<PathBuf>) -> NodeOptions {
        NodeOptions {
            folder: folder.into(),
            engine: Engine::default(),
            // By their ids alone, the same members would draw the same election times in each outage.
            consensus: x0_consensus::Options::new(id).seed(random_seed()),
            log: WalOptions::default(),
            coordinator: CoordinatorOptions::member(id),
            space: SpaceOptions::default(),
            scrub: ScrubOptions::default(),
            repair: false,
            crdt: None,
            blobs: None,
            addresses: Vec::new(),
            roles: PeerRoles::default(),
            tracing: Tracing::default(),
            message_version_max: u16::MAX,
            observe: None,
            log_layer: None,
        }
    }

    /// Sets the founders of the cluster: the same on each of them. Has no effect once the folder holds a log.
    #[must_use]
    pub fn founders(mut self, founders: impl IntoIterator<Item = NodeId>) -> NodeOptions {
        self.consensus.bootstrap = Membership::of_voters(founders);
        self
    }

    /// Sets the storage engine that holds the data.
    #[must_use]
    pub fn engine(mut self, engine: Engine) -> NodeOptions {
        self.engine = engine;
        self
    }

    /// Sets the reserve on the disk of the folder.
    #[must_use]
    pub fn space(mut self, space: SpaceOptions) -> NodeOptions {
        self.space = space;
        self
    }

    /// Sets the background scrub.
    #[must_use]
    pub fn scrub(mut self, scrub: ScrubOptions) -> NodeOptions {
        self.scrub = scrub;
        self
    }

    /// Sets whether a damaged file of the storage engine is set aside, so that the other members bring the
    /// node up to date.
    #[must_use]
    pub fn repair(mut self, repair: bool) -> NodeOptions {
        self.repair = repair;
        self
    }

    /// Adds a CRDT keyspace. All members should have it, with one hash key.
    #[cfg(feature = "crdt")]
    #[must_use]
    pub fn crdt(mut self, options: CrdtOptions) -> NodeOptions {
        self.crdt = Some(options);
        self
    }

    /// Adds blobs, in the folder `blobs` beside the log. Members without them serve none.
    #[cfg(feature = "blob")]
    #[must_use]
    pub fn blobs(mut self, options: BlobOptions) -> NodeOptions {
        self.blobs = Some(options);
        self
    }

    /// Sets the addresses at which the other members reach this one.
    #[must_use]
    pub fn addresses(mut self, addresses: impl IntoIterator<Item = String>) -> NodeOptions {
        self.addresses = addresses.into_iter().collect();
        self
    }

    /// Sets the roles of the peers.
    #[must_use]
    pub fn roles(mut self, roles: PeerRoles) -> NodeOptions {
        self.roles = roles;
        self
    }

    /// Sets whether and how operations are traced.
    #[must_use]
    pub fn tracing(mut self, tracing: Tracing) -> NodeOptions {
        self.tracing = tracing;
        self
    }

    /// Sets the function that receives the events of the node.
    #[must_use]
    pub fn observe(mut self, observe: impl FnMut(NodeEvent) + Send + 'static) -> NodeOptions {
        self.observe = Some(Box::new(observe));
        self
    }

    /// Puts a layer on the log of the node, such as one that measures, delays or fails its calls. It must
    /// keep the contract of [`Storage`].
    #[must_use]
    pub fn log_layer(
        mut self,
        layer: impl FnOnce(Box<dyn Storage>) -> Box<dyn Storage> + Send + 'static,
    ) -> NodeOptions {
        self.log_layer = Some(Box::new(layer));
        self
    }
}

impl fmt::Debug for NodeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeOptions")
            .field("folder", &self.folder)
            .field("engine", &self.engine)
            .field("consensus", &self.consensus)
            .field("log", &self.log)
            .field("coordinator", &self.coordinator)
            .finish_non_exhaustive()
    }
}
