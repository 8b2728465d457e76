//! `x0-node status`: the leader, the reachable nodes and the progress of each node.

use std::future::{Future, poll_fn};
use std::io::Write;
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use x0_kv::cluster::NodeStatus;

use crate::cli::StatusArgs;
use crate::client::Connection;
use crate::config::{ClientConfig, Member};

/// The time in which a node must answer, including the connection.
const LIMIT: Duration = Duration::from_secs(3);

/// The status of a node in the JSON output.
#[derive(Debug, Serialize)]
struct Row {
    node: String,
    address: String,
    is_reached: bool,
    is_leader: bool,
    leader: Option<String>,
    term: Option<u64>,
    committed: Option<u64>,
    applied: Option<u64>,
    peers_reached: Option<usize>,
    refused_messages: Option<u64>,
    space_free: Option<u64>,
    /// The node refuses writes for lack of space.
    is_short_of_space: bool,
    /// Damaged entries and ranges that are not repaired.
    damage: Option<u64>,
    /// How often damaged files were set aside.
    set_aside: Option<u64>,
}

/// Prints the status of every node. An error if none answers.
pub(crate) async fn status(args: &StatusArgs) -> Result<()> {
    let config = ClientConfig::load(&args.config)?;
    let connection = Connection::open(&config).await?;
    let mut rows = Vec::new();
    let asked: Vec<_> =
        config.members.iter().map(|member| connection.client().status(member.node, LIMIT)).collect();
    for (member, status) in config.members.iter().zip(all(asked).await) {
        rows.push(row(&config, member, status.as_ref()));
    }
    let text = if args.json { format!("{}\n", serde_json::to_string(&rows)?) } else { table(&rows) };
    std::io::stdout().lock().write_all(text.as_bytes()).context("cannot write to standard output")?;
    let unreached = connection.explain(anyhow::anyhow!("no node answered"));
    connection.close().await;
    if !rows.iter().any(|row| row.is_reached) {
        bail!(unreached);
    }
    Ok(())
}

fn row(config: &ClientConfig, member: &Member, status: Option<&NodeStatus>) -> Row {
    let is_peer = |id: &&x0_identity::NodeId| config.members.iter().any(|member| member.node == **id);
    Row {
        node: member.node.to_string(),
        address: member.address.to_string(),
        is_reached: status.is_some(),
        is_leader: status.is_some_and(NodeStatus::is_leader),
        leader: status.and_then(|status| status.leader).map(|leader| leader.to_string()),
        term: status.map(|status| status.term),
        committed: status.map(|status| status.committed),
        applied: status.map(|status| status.applied),
        peers_reached: status.map(|status| status.reached.iter().filter(is_peer).count()),
        refused_messages: status.map(|status| status.refused_messages),
        space_free: status.and_then(|status| status.space.free),
        is_short_of_space: status.is_some_and(|status| status.space.is_short()),
        damage: status.map(|status| {
            let scrub = status.scrub;
            scrub.damaged.saturating_sub(scrub.repaired) + scrub.diverged
        }),
        set_aside: status.map(|status| status.set_aside),
    }
}

/// Waits for all futures concurrently.
pub(crate) async fn all<F: Future>(waiting: Vec<F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = waiting.into_iter().map(|future| (Box::pin(future), None)).collect();
    poll_fn(|cx| {
        for (future, done) in &mut waiting {
            if done.is_none()
                && let Poll::Ready(output) = future.as_mut().poll(cx)
            {
                *done = Some(output);
            }
        }
        if waiting.iter().all(|(_, done)| done.is_some()) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    waiting.into_iter().filter_map(|(_, done)| done).collect()
}

fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<16}  {:<21}  {:<11}  {:>5}  {:>10}  {:>10}  {:>8}  {}\n",
        "node", "address", "state", "term", "committed", "applied", "peers up", "space"
    );
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    for row in rows {
        let state = match (row.is_reached, row.is_leader, &row.leader) {
            (false, ..) => "unreachable",
            (true, true, _) => "leader",
            (true, false, Some(_)) => "follower",
            (true, false, None) => "no leader",
        };
        let reached = row.peers_reached.map_or_else(|| "-".to_owned(), |count| count.to_string());
        let space = match (row.is_reached, row.is_short_of_space) {
            (false, _) => "-",
            (true, false) => "ok",
            (true, true) => "short: refuses writes",
        };
        let line = format!(
            "{:<16}  {:<21}  {state:<11}  {:>5}  {:>10}  {:>10}  {reached:>8}  {space}\n",
            row.node,
            row.address,
            number(row.term),
            number(row.committed),
            number(row.applied)
        );
        text.push_str(&line);
    }
    text
}
