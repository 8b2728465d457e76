//! Orders to a node through its standard input, one JSON line each, answered by one line each on standard output.
//!
//! For whoever starts nodes as child processes: the demo, tests. The node stops when its standard input ends, so that no node
//! outlives its parent.

use std::io::{BufRead, Write};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// What a node is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "order")]
pub(crate) enum Order {
    /// Tell where it stands.
    Status,
    /// Let nothing through, in either direction.
    Isolate,
    /// Let everything through again.
    Heal,
    /// Read the identity's files anew and greet every peer with it.
    Reload,
    /// Sum up all keys and values held here.
    Digest,
    /// Write to the CRDT keyspace: `count` keys that begin with `prefix`, the key [`SHARED`], and an addition to [`COUNTER`].
    CrdtWrite { prefix: String, count: u32, amount: i64 },
    /// Tell what the CRDT keyspace holds here.
    CrdtState,
    /// Stop in an orderly way.
    Stop,
}

/// What a node answers. The first line, unasked for, is `Ready` or `Failed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "reply")]
pub(crate) enum Reply {
    /// It listens.
    Ready,
    Status(Status),
    /// Done.
    Done,
    Digest(Digest),
    Crdt(CrdtState),
    /// It cannot do that, or cannot start.
    Failed {
        why: String,
        is_port_in_use: bool,
    },
}

/// Where a node stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) is_leader: bool,
    /// The leader's number, as far as is known here.
    pub(crate) leader: Option<u64>,
    pub(crate) term: u64,
    pub(crate) committed: u64,
    pub(crate) applied: u64,
    /// The members that are up, each with the epoch of its connection, which grows from one to the next.
    pub(crate) peers: Vec<(u64, u64)>,
}

/// Everything a node holds, summed up.
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

/// What a CRDT keyspace holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CrdtState {
    /// Equal where the same is held: of what was seen, and of what is held.
    pub(crate) frontier: (u64, u64),
    pub(crate) keys: u64,
    pub(crate) counter: i64,
    /// The values at [`SHARED`] that were written without knowledge of each other.
    pub(crate) siblings: Vec<String>,
    /// Bytes sent to other members so far.
    pub(crate) sent_bytes: u64,
}

/// Orders as they come; the channel closes when standard input ends. The thread ends with the process.
pub(crate) fn orders() -> std::io::Result<mpsc::UnboundedReceiver<Result<Order, String>>> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::Builder::new().name("control".into()).spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            let order = serde_json::from_str(&line).map_err(|error| format!("not an order: {error}"));
            if sender.send(order).is_err() {
                break;
            }
        }
    })?;
    Ok(receiver)
}

/// Writes an answer. An asker that has gone is noticed at the end of standard input.
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
        for reply in
            [Reply::Ready, Reply::Status(status), Reply::Failed { why: "x".into(), is_port_in_use: true }]
        {
            let line = serde_json::to_string(&reply).unwrap();
            assert_eq!(serde_json::from_str::<Reply>(&line).unwrap(), reply);
        }
    }
}
