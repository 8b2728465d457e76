//! How a node of a cluster is set up.

use std::fmt;
use std::path::PathBuf;

use x0_consensus::{Membership, WalOptions};
use x0_identity::NodeId;

use super::NodeEvent;
#[cfg(feature = "blob")]
use crate::blob::BlobOptions;
use crate::coordinator;
#[cfg(feature = "crdt")]
use crate::crdt::CrdtOptions;
use crate::state::engine::Engine;

/// How a [`Node`](super::Node) is set up: [`NodeOptions::new`], then change what is needed.
#[non_exhaustive]
pub struct NodeOptions {
    /// Where log, snapshot and data lie. Made if it is not there.
    pub folder: PathBuf,
    /// What holds the data.
    pub engine: Engine,
    /// The replica's settings, the node's id among them.
    pub consensus: x0_consensus::Options,
    /// The settings of the write-ahead log.
    pub log: WalOptions,
    /// The coordinator's settings.
    pub coordinator: coordinator::Config,
    /// The CRDT keyspace, if there is to be one. All members should have it, with one hash key.
    #[cfg(feature = "crdt")]
    pub crdt: Option<CrdtOptions>,
    /// The blobs, if there are to be any; they lie in the folder `blobs` beside the log. Members without them serve none.
    #[cfg(feature = "blob")]
    pub blobs: Option<BlobOptions>,
    /// Is told what happens to the node, from within its hub: it must be quick and must not wait.
    pub observe: Option<Box<dyn FnMut(NodeEvent) + Send>>,
}

impl NodeOptions {
    /// Node `id`, whose data lies in `folder`. It waits to be added to a cluster, unless [it founds one](NodeOptions::founders).
    pub fn new(id: NodeId, folder: impl Into<PathBuf>) -> NodeOptions {
        NodeOptions {
            folder: folder.into(),
            engine: Engine::default(),
            consensus: x0_consensus::Options::new(id),
            log: WalOptions::default(),
            coordinator: coordinator::Config::member(id),
            #[cfg(feature = "crdt")]
            crdt: None,
            #[cfg(feature = "blob")]
            blobs: None,
            observe: None,
        }
    }

    /// Who founds the cluster: the same on each founder. Has no effect once the folder holds a log.
    #[must_use]
    pub fn founders(mut self, founders: impl IntoIterator<Item = NodeId>) -> NodeOptions {
        self.consensus.bootstrap = Membership::of_voters(founders);
        self
    }

    /// What holds the data.
    #[must_use]
    pub fn engine(mut self, engine: Engine) -> NodeOptions {
        self.engine = engine;
        self
    }

    /// With a CRDT keyspace.
    #[cfg(feature = "crdt")]
    #[must_use]
    pub fn crdt(mut self, options: CrdtOptions) -> NodeOptions {
        self.crdt = Some(options);
        self
    }

    /// With blobs.
    #[cfg(feature = "blob")]
    #[must_use]
    pub fn blobs(mut self, options: BlobOptions) -> NodeOptions {
        self.blobs = Some(options);
        self
    }

    /// Who is told what happens to the node.
    #[must_use]
    pub fn observe(mut self, observe: impl FnMut(NodeEvent) + Send + 'static) -> NodeOptions {
        self.observe = Some(Box::new(observe));
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
