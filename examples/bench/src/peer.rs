//! The measured systems: found or fetched, started on this machine, and ended with this program.

pub(crate) mod debian;
pub(crate) mod etcd;
pub(crate) mod x0;
pub(crate) mod zookeeper;

use tempfile::TempDir;

use crate::load::Target;
use crate::process::Server;

/// Three servers of one system on loopback, with their data in a folder that is removed with them.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// The name in tables and rows.
    pub(crate) name: String,
    pub(crate) servers: Vec<Server>,
    /// The target for the load generator.
    pub(crate) target: Target,
    /// Declared after `servers`, so that it is removed after their end.
    pub(crate) _folder: TempDir,
}

/// The number of servers of every cluster.
pub(crate) const SERVERS: usize = 3;

impl Cluster {
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.servers.iter().map(Server::pid).collect()
    }

    /// The client ports of etcd, which serve its metrics; none of other systems.
    pub(crate) fn client_ports(&self) -> Vec<u16> {
        match &self.target {
            Target::Etcd { endpoints, .. } => endpoints.clone(),
            _ => Vec::new(),
        }
    }

    /// The error with the reason of a server that has ended, if there is one.
    pub(crate) fn why(&mut self, error: anyhow::Error) -> anyhow::Error {
        let ended = self.servers.iter_mut().find_map(|server| server.check().err());
        match ended {
            Some(ended) => error.context(format!("{ended:#}")),
            None => error,
        }
    }
}
