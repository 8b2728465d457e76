//! The systems of this area, started and filled.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::load::{KeySpace, Load, Measured, Operation, Window};
use crate::peer::{Cluster, etcd, x0, zookeeper};

/// The time in which a cluster must respond after the start. A JVM on a busy machine takes several seconds.
const READY_LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub(crate) enum Kind {
    X0,
    Embedded,
    Etcd,
    EtcdTls,
    Zookeeper,
}

impl Kind {
    /// In the order of the turns.
    pub(crate) const ALL: [Kind; 5] = [Kind::X0, Kind::Embedded, Kind::Etcd, Kind::EtcdTls, Kind::Zookeeper];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::X0 => "x0",
            Kind::Embedded => "x0 embedded",
            Kind::Etcd => "etcd",
            Kind::EtcdTls => "etcd TLS",
            Kind::Zookeeper => "zookeeper",
        }
    }

    pub(crate) fn is_peer(self) -> bool {
        matches!(self, Kind::Etcd | Kind::EtcdTls | Kind::Zookeeper)
    }

    /// x0-kv in the process that uses it.
    pub(crate) fn is_embedded(self) -> bool {
        self == Kind::Embedded
    }
}

/// A system that is up and holds the key space.
pub(crate) struct Running {
    pub(crate) kind: Kind,
    /// The name with the version.
    pub(crate) name: String,
    /// Declared before the cluster, so that it ends first.
    load: Load,
    cluster: Cluster,
}

impl Running {
    /// Starts the system, writes the key space and runs each operation for `settle`, so that just-in-time
    /// compilers and caches are warm when the first window starts.
    pub(crate) fn start(kind: Kind, data: &Path, keys: KeySpace, settle: Duration) -> Result<Self> {
        let mut cluster = match kind {
            Kind::X0 => x0::start(data)?,
            Kind::Embedded => x0::embedded(data)?,
            Kind::Etcd => etcd::start(data, false)?,
            Kind::EtcdTls => etcd::start(data, true)?,
            Kind::Zookeeper => zookeeper::start(data)?,
        };
        let mut load = Load::start(&cluster.target, keys)?;
        let version = load.ready(READY_LIMIT).map_err(|error| cluster.why(error))?;
        load.fill().map_err(|error| cluster.why(error))?;
        let mut running = Self { kind, name: format!("{} {version}", cluster.name), load, cluster };
        for operation in [Operation::Put, Operation::Get] {
            running.window(&Window {
                operation,
                clients: 64,
                connections: 1,
                warm_up: Duration::ZERO,
                measure: settle,
                seed: 0,
                servers: running.pids(),
            })?;
        }
        Ok(running)
    }

    /// Server processes.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.cluster.pids()
    }

    pub(crate) fn window(&mut self, window: &Window) -> Result<Measured> {
        self.load.window(window).map_err(|error| self.cluster.why(error))
    }
}
