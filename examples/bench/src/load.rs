//! The load generator: this program in a process of its own, with orders over a pipe.
//!
//! One generator serves one system. It is single-threaded, keeps its connections between windows, and runs
//! the same closed loop against every system: a client has one request in flight and sends the next after the
//! response.

mod etcd;
mod etcd_messages;
mod remote;
mod serve;
mod window;
mod x0;
mod zookeeper;

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(crate) use remote::Load;
pub(crate) use serve::serve;

use crate::peer::etcd::TlsFiles;

/// The system to load, as the first line of the generator's standard input.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Target {
    /// Client ports of the servers on loopback.
    Etcd { endpoints: Vec<u16>, tls: Option<TlsFiles> },
    /// Client ports of the servers on loopback.
    Zookeeper { endpoints: Vec<u16> },
    /// Ports of the nodes on loopback, node 1 first, and the client's folder that `x0-node init` wrote.
    X0 { endpoints: Vec<u16>, trust_domain: String, client: PathBuf },
    /// No server: the generator opens the store in this folder.
    Embedded { folder: PathBuf },
}

/// An order; each has one `Reply`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Wait until the system has a leader and responds.
    Await { limit: Duration },
    /// Write every key of the key space once.
    Fill,
    /// Run one window of load and measure it.
    Window(Window),
}

/// The keys and values, the same for every system.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct KeySpace {
    pub(crate) keys: u32,
    pub(crate) value_len: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
pub(crate) enum Operation {
    Put,
    /// Linearizable.
    Get,
    /// Puts, while one more client reads ranges of 4,096 entries without a pause. Only for x0.
    PutBesideRanges,
}

/// One stretch of load.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Window {
    pub(crate) operation: Operation,
    /// Requests in flight.
    pub(crate) clients: usize,
    pub(crate) connections: usize,
    /// Load before the measured part.
    pub(crate) warm_up: Duration,
    pub(crate) measure: Duration,
    pub(crate) seed: u64,
    /// Server processes whose CPU time and memory are taken at the edges of the measured part. Empty: the
    /// generator itself, for a store that is embedded in it.
    pub(crate) servers: Vec<u32>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Reply {
    Ready { version: String },
    Filled,
    Measured(Measured),
    Failed { why: String },
}

/// The figures of the measured part of a window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) operations: u64,
    pub(crate) elapsed: Duration,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    /// CPU time of all servers together.
    pub(crate) server_cpu: Duration,
    /// CPU time of the generator.
    pub(crate) load_cpu: Duration,
    pub(crate) resident_bytes: u64,
}

impl Operation {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Operation::Put => "put",
            Operation::Get => "get",
            Operation::PutBesideRanges => "put beside ranges of 4,096",
        }
    }
}

impl KeySpace {
    /// `bench/00001234`: fourteen bytes for every key.
    pub(crate) fn key(self, number: u32) -> String {
        format!("bench/{number:08}")
    }
}
