//! Orders to a node on its standard input, one JSON line each, with one line of reply each on standard
//! output.
//!
//! The demo, the supervisor and the tests start nodes as child processes with it. A node stops when its
//! standard input ends, so that no node outlives its parent.

use std::io::{BufRead, Write};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// An order to a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "order")]
pub(crate) enum Order {
    /// Reply with the status.
    Status,
    /// Block all messages in both directions.
    Isolate,
    /// Unblock all messages.
    Heal,
    /// Begin to lose all frames of the links to this neighbour.
    CutLink { peer: u64 },
    /// Lose no frames of the links to this neighbour.
    MendLink { peer: u64 },
    /// Each write of the log takes this much longer from now on.
    SlowDisk { milliseconds: u64 },
    /// Reply with the state of the mesh.
    Mesh,
    /// Reload the identity from its files and reconnect to every peer with it.
    Reload,
    /// Reply with the digest of all keys and values of this replica.
    Digest,
    /// Write to the CRDT keyspace: `count` keys that begin with `prefix`, the key [`SHARED`], and an addition
    /// to [`COUNTER`].
    CrdtWrite { prefix: String, count: u32, amount: i64 },
    /// Reply with the state of the CRDT keyspace of this replica.
    CrdtState,
    /// The supervisor does not start the node again now.
    RestartRefused { why: String },
    /// Stop in an orderly way.
    Stop,
}

/// A reply of a node. The first line, without an order, is `Ready` or `Failed`. `Restart` needs no order
/// either.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "reply")]
pub(crate) enum Reply {
    /// The node listens.
    Ready,
    Status(Status),
    /// The order was carried out.
    Done,
    Digest(Digest),
    Crdt(CrdtState),
    Mesh(MeshState),
    /// The node asks its supervisor for a restart.
    Restart {
        why: String,
    },
    /// The order failed, or the node cannot start.
    Failed {
        why: String,
        is_port_in_use: bool,
        /// The configuration is wrong: starting again cannot help.
        is_config: bool,
    },
}

/// The status of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) is_leader: bool,
    /// The id of the leader, if this node knows it.
    pub(crate) leader: Option<u64>,
    pub(crate) term: u64,
    pub(crate) committed: u64,
    pub(crate) applied: u64,
    /// The members that are up, each with the epoch of its connection, which grows from one to the next.
    pub(crate) peers: Vec<(u64, u64)>,
}

/// The mesh as a node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MeshState {
    /// The destinations that are reached, each with its next hop.
    pub(crate) next: Vec<(u64, u64)>,
    /// Bytes of datagrams of other nodes that this node sent on.
    pub(crate) relayed_bytes: u64,
}

/// The digest of the data of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Digest {
    pub(crate) applied: u64,
    pub(crate) entries: u64,
    /// FNV-1a over keys, values and revisions.
    pub(crate) sum: u64,
}

/// The key that every side of a partition writes.
pub(crate) const SHARED: &str = "demo/shared";
/// The counter that every side of a partition adds to.
pub(crate) const COUNTER: &str = "demo/counter";

/// The state of a CRDT keyspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CrdtState {
    /// Hashes of the seen events and of the contents, which are equal on replicas with equal contents.
    pub(crate) frontier: (u64, u64),
    pub(crate) keys: u64,
    pub(crate) counter: i64,
    /// The concurrently written values of [`SHARED`].
    pub(crate) siblings: Vec<String>,
    /// Bytes sent to other members so far.
    pub(crate) sent_bytes: u64,
}

/// The orders from standard input; the channel closes when it ends. The reading thread ends with the process.
pub(crate) fn orders() -> std::io::Result<mpsc::UnboundedReceiver<Result<Order, String>>> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::Builder::new().name("control".into()).spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            let order =
                serde_json::from_str(&line).map_err(|error| format!("cannot parse the order: {error}"));
            if sender.send(order).is_err() {
                break;
            }
        }
    })?;
    Ok(receiver)
}

/// Writes a reply. The end of the parent is detected by the end of standard input.
pub(crate) fn reply(reply: &Reply) {
    let Ok(mut line) = serde_json::to_string(reply) else { return };
    line.push('\n');
    let mut output = std::io::stdout().lock();
    let _ = output.write_all(line.as_bytes()).and_then(|()| output.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_and_replies_survive_their_line() {
        for order in [Order::Status, Order::Isolate, Order::Heal, Order::Reload, Order::Digest, Order::Stop] {
            let line = serde_json::to_string(&order).unwrap();
            assert_eq!(serde_json::from_str::<Order>(&line).unwrap(), order);
        }
        let status = Status {
            is_leader: true,
            leader: Some(1),
            term: 2,
            committed: 3,
            applied: 4,
            peers: vec![(2, 5)],
        };
        for reply in [
            Reply::Ready,
            Reply::Status(status),
            Reply::Restart { why: "x".into() },
            Reply::Failed { why: "x".into(), is_port_in_use: true, is_config: false },
        ] {
            let line = serde_json::to_string(&reply).unwrap();
            assert_eq!(serde_json::from_str::<Reply>(&line).unwrap(), reply);
        }
    }
}
