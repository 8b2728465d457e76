//! The systems to measure: found or fetched, started on this machine, ended with us.

pub(crate) mod debian;
pub(crate) mod etcd;
pub(crate) mod x0;
pub(crate) mod zookeeper;

use tempfile::TempDir;

use crate::load::Target;
use crate::process::Server;

/// Three servers of one system on loopback, with their data in a folder that goes when they go.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// What the tables and rows call it.
    pub(crate) name: String,
    pub(crate) servers: Vec<Server>,
    /// How a load generator reaches it.
    pub(crate) target: Target,
    /// Behind `servers`, so that it goes when they are dead.
    pub(crate) _folder: TempDir,
}

/// Servers in every cluster.
pub(crate) const SERVERS: usize = 3;

impl Cluster {
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.servers.iter().map(Server::pid).collect()
    }

    /// `error`, explained by a server that has ended, if one has.
    pub(crate) fn why(&mut self, error: anyhow::Error) -> anyhow::Error {
        let ended = self.servers.iter_mut().find_map(|server| server.check().err());
        match ended {
            Some(ended) => error.context(format!("{ended:#}")),
            None => error,
        }
    }
}
