//! `x0-node demo`: the guarantees of a cluster under faults.

mod child;
pub(crate) mod cluster;
#[cfg(unix)]
mod healing;
mod load;
#[cfg(target_os = "linux")]
pub(crate) mod namespaces;
#[cfg(not(target_os = "linux"))]
#[path = "demo/namespaces/none.rs"]
pub(crate) mod namespaces;
mod records;
mod report;
pub(crate) mod screen;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use tempfile::TempDir;
use x0_kv::Store;

use self::cluster::Cluster;
use self::load::Load;
use self::namespaces::Ring;
use self::records::DataSet;
use self::report::Report;
use self::screen::Screen;
use crate::causes::causes;
use crate::cli::DemoArgs;
use crate::client::Connection;
use crate::config::ClientConfig;
use crate::control::Order;
use crate::signals::{HangUps, Stops};

/// The time after which a step fails.
const STEP_LIMIT: Duration = Duration::from_secs(45);
const POLL: Duration = Duration::from_millis(5);
/// The minimum time over which each part spreads its records.
const STEADY: Duration = Duration::from_millis(1500);
const LEADERLESS: Duration = Duration::from_millis(2500);
const CUT: Duration = Duration::from_millis(2000);
const RETURN: Duration = Duration::from_millis(1500);
const ROTATION: Duration = Duration::from_millis(1500);
const HEALING: Duration = Duration::from_millis(10_000);
/// How long the link under the leader is cut: longer than an election timeout, so that a leader that is not
/// heard would be deposed.
const LINK_CUT: Duration = Duration::from_millis(1100);
/// The writes of each side of the partition to the CRDT keyspace: keys, an addition to a counter, and one key
/// that both write.
const CRDT_KEYS: u32 = 100;
const CRDT_AMOUNT: i64 = 7;
const CRDT_SIDES: [&str; 2] = ["cut-off", "majority"];
/// The share of the records of each part; the last part writes the rest.
const SHARE: f64 = 0.16;

/// Runs the demo and prints the result. An error or `false` if a check failed.
pub(crate) async fn run(args: DemoArgs) -> Result<bool> {
    let screen = Screen::new(args.json);
    let mut report = Report { nodes: usize::try_from(args.nodes)?, ..Report::default() };
    let scenario = async {
        let folder = Folder::new(&args)?;
        // The nodes end before their folders are removed, also on an error.
        scenario(&args, &screen, &folder, &mut report).await
    };
    let (mut stops, mut hang_ups) = (Stops::new()?, HangUps::new()?);
    let ended = tokio::select! {
        ended = scenario => ended,
        () = stops.next() => Err(anyhow::anyhow!("interrupted; the nodes were stopped")),
        () = hang_ups.next() => Err(anyhow::anyhow!("the terminal was closed; the nodes were stopped")),
    };
    screen.finish();
    if let Err(error) = &ended {
        report.fail(causes(error));
    }
    if args.json {
        screen::print(&serde_json::to_string(&report)?);
    } else if ended.is_ok() {
        screen::print(&format!("\n{}", report.table()));
    }
    ended.map(|()| report.held)
}

async fn scenario(args: &DemoArgs, screen: &Screen, folder: &Folder, report: &mut Report) -> Result<()> {
    let begun = Instant::now();
    let data = DataSet::read(args.records.as_deref(), args.records_max)?;
    report.source.clone_from(&data.source);
    screen.say(format!("{} {}, {} KiB", data.records.len(), data.source, data.len_bytes() / 1024));
    if data.too_long > 0 {
        screen.say(format!("{} records exceed the maximum length of a value and are skipped", data.too_long));
    }
    screen.records(data.records.len());

    screen.doing("starting the nodes");
    let (ring, description) = network(args, report.nodes);
    report.network = if ring.is_some() { "namespaces" } else { "loopback" };
    let mut cluster = Cluster::start(folder.path(), report.nodes, ring).await?;
    screen.say(format!(
        "{} nodes run as processes {:?}, each with a folder and a SPIFFE identity of its own in {}",
        cluster.len(),
        cluster.pids(),
        folder.path().display()
    ));
    screen.say(description);
    screen.doing("waiting for an election");
    let all = cluster.running(&[]);
    let (leader, term) = cluster.leader(&all, STEP_LIMIT).await?;
    screen.say(format!("node {leader} was elected leader, term {term}"));

    let client = ClientConfig::load(&cluster.layout().client_config())?;
    let connection = Connection::open(&client).await?;
    let mut load = Load::start(data, connection.store().clone());
    let mut stage = Steps { screen, load: &mut load };

    screen.say("writing starts, over QUIC with mutual TLS, and continues to the end");
    stage.load.stage(SHARE, STEADY);
    cut_link(&mut cluster, &stage, connection.store(), (leader, term), report).await?;
    stage.finish("writing").await?;

    let killed = leader;
    stage.load.stage(SHARE, LEADERLESS);
    screen.say(format!("kill -9 of node {killed}, the leader"));
    screen.doing("without a leader");
    let at = cluster.kill(killed)?;
    let probe = (Bytes::from("probe/leaderless"), Bytes::from("1"));
    load::put(connection.store(), &probe.0, &probe.1, || {}).await.context("no leader after the kill")?;
    report.leaderless_ms = milliseconds(at.elapsed())?;
    let rest = cluster.running(&[]);
    let (leader, term) = cluster.leader(&rest, STEP_LIMIT).await?;
    screen.say(format!(
        "node {leader} is leader, term {term}; the first write started after the kill was acknowledged {} ms after it",
        report.leaderless_ms
    ));
    stage.finish("writing under the new leader").await?;

    let cut = *cluster.running(&[leader]).first().context("no follower runs")?;
    let other = *cluster.running(&[leader, cut]).first().context("no second follower runs")?;
    cluster.order(cut, &Order::Isolate).await?;
    screen.say(format!("node {cut} is isolated: all its messages are blocked in both directions"));
    for (number, prefix) in [(cut, CRDT_SIDES[0]), (leader, CRDT_SIDES[1])] {
        cluster.crdt_write(number, prefix, CRDT_KEYS, CRDT_AMOUNT).await?;
    }
    report.crdt_written = 2 * u64::from(CRDT_KEYS);
    screen.say(format!(
        "both sides write {CRDT_KEYS} keys each to the CRDT keyspace, which needs no majority: node {cut} alone and node {leader} \
         acknowledge them"
    ));
    stage.write("writing with one node down and one isolated", SHARE, CUT).await?;
    let committed = cluster.status(leader).await?.committed;
    let lag = committed.saturating_sub(cluster.status(cut).await?.applied);
    if lag == 0 {
        report.failures.push("the isolated node missed no entry, so that it was not isolated".to_owned());
    }
    screen.say(format!("node {cut} lags by {lag} log entries"));

    let (leader, _) = cluster.leader(&cluster.running(&[cut]), STEP_LIMIT).await?;
    stage.load.stage(SHARE, RETURN);
    let target = cluster.status(leader).await?.committed;
    let at = Instant::now();
    cluster.order(cut, &Order::Heal).await?;
    screen.say(format!("the partition is healed; node {cut} catches up"));
    cluster.applied(cut, target, STEP_LIMIT).await?;
    report.heal_ms = milliseconds(at.elapsed())?;
    screen.say(format!("node {cut} has caught up, {} ms after the healing", report.heal_ms));
    let merged = cluster.crdt_converged(STEP_LIMIT).await?;
    report.crdt_merge_ms = milliseconds(at.elapsed())?;
    report.crdt_siblings = merged.siblings.len();
    screen.say(format!(
        "the CRDT keyspaces have merged, {} ms after the healing: {} keys, the counter is {}, and the key that both sides wrote has {} \
         values: {}",
        report.crdt_merge_ms,
        merged.keys,
        merged.counter,
        merged.siblings.len(),
        merged.siblings.join(", ")
    ));

    screen.doing("restarting");
    let (leader, _) = cluster.leader(&cluster.running(&[]), STEP_LIMIT).await?;
    let target = cluster.status(leader).await?.committed;
    let at = Instant::now();
    screen.say(format!("node {killed} is started again from its folder"));
    cluster.restart(killed).await?;
    cluster.applied(killed, target, STEP_LIMIT).await?;
    report.catch_up_ms = milliseconds(at.elapsed())?;
    screen.say(format!("node {killed} has caught up, {} ms after its start", report.catch_up_ms));
    stage.finish("writing with every node back").await?;

    stage.load.stage(SHARE, ROTATION);
    stage.load.reset_gap();
    let at = Instant::now();
    cluster.rotate(folder.path(), other, STEP_LIMIT).await?;
    report.rotation_ms = milliseconds(at.elapsed())?;
    screen.say(format!(
        "node {other} has a new identity, which every node accepted within {} ms while writing continued",
        report.rotation_ms
    ));
    stage.finish("writing while the identity changes").await?;
    report.rotation_gap_ms = milliseconds(stage.load.longest_gap())?;

    stage.load.stage(1.0, HEALING);
    #[cfg(unix)]
    let mut healing = healing::Healing::new(begun);
    #[cfg(unix)]
    healing.run(&mut cluster, &stage, connection.store(), folder.path(), report).await?;
    stage.finish("writing while the nodes heal").await?;

    screen.doing("reading everything back");
    screen.say("writing ends; every record is read back");
    let found = load.stop_and_verify().await?;
    report.written = found.written;
    report.acknowledged = found.acknowledged;
    report.read_back = found.read_back;
    report.lost = found.lost;
    report.updates_acknowledged = found.updates_acknowledged;
    report.repeated = found.repeated;
    screen.doing("comparing the replicas");
    report.replicas_identical = replicas_identical(&mut cluster, report.nodes).await?;
    let held = cluster.crdt_converged(STEP_LIMIT).await?;
    report.crdt_identical = true;
    // The keys of the two sides, the key that both wrote, and the counter with the additions of both.
    let keys_missing = (report.crdt_written + 2).saturating_sub(held.keys);
    report.crdt_lost = keys_missing + (2 * CRDT_AMOUNT).abs_diff(held.counter);
    connection.close().await;
    screen.doing("stopping the nodes");
    #[cfg(unix)]
    let nodes = cluster.settings()?;
    cluster.stop().await?;
    #[cfg(unix)]
    healing.judge(&nodes, report)?;
    report.took_ms = milliseconds(begun.elapsed())?;
    report.judge();
    if args.keep || args.dir.is_some() {
        screen.say(format!("identities, data and logs are kept in {}", folder.path().display()));
    }
    Ok(())
}

/// The ring of namespaces if this process may create one, and what the screen says of the network.
fn network(args: &DemoArgs, count: usize) -> (Option<Ring>, String) {
    let loopback = "their links are a ring over UDP on the loopback, each with a fault injector";
    if args.loopback {
        return (None, format!("{loopback} (--loopback)"));
    }
    match Ring::new(count) {
        Ok(ring) => {
            let text = "each node has a network namespace of its own; veth pairs join them to a ring";
            (Some(ring), text.to_owned())
        }
        Err(error) => (None, format!("{loopback} (no network namespaces: {})", causes(&error))),
    }
}

/// Cuts the link from the leader to the next node in the ring, without a sign to either, and mends it.
async fn cut_link(
    cluster: &mut Cluster,
    steps: &Steps<'_>,
    store: &Store,
    (leader, term): (usize, u64),
    report: &mut Report,
) -> Result<()> {
    let neighbour = cluster.next(leader);
    steps.screen.doing("waiting for all connections");
    cluster.settled([leader, neighbour], STEP_LIMIT).await?;
    let epochs = cluster.epochs().await?;
    let relayed = cluster.relayed_bytes().await?;
    steps.load.reset_gap();
    steps.screen.doing("without the link under the leader");
    let at = Instant::now();
    cluster.set_link_cut(leader, true).await?;
    // An entry that the neighbour cannot have before the mesh has found the other way.
    load::put(store, &Bytes::from("probe/link"), &Bytes::from("1"), || {}).await?;
    let target = cluster.status(leader).await?.committed;
    cluster.applied(neighbour, target, STEP_LIMIT).await?;
    report.failover_ms = milliseconds(at.elapsed())?;
    tokio::time::sleep(LINK_CUT.saturating_sub(at.elapsed())).await;
    report.relayed_bytes = cluster.relayed_bytes().await?.saturating_sub(relayed);
    report.epochs_lost = epochs.difference(&cluster.epochs().await?).count();
    let (leader_after, term_after) = cluster.leader(&cluster.running(&[]), STEP_LIMIT).await?;
    if (leader_after, term_after) != (leader, term) {
        report.failures.push(format!(
            "the cut link changed the leader from node {leader}, term {term}, to node {leader_after}, term {term_after}"
        ));
    }
    let gap = milliseconds(steps.load.longest_gap())?;
    cluster.set_link_cut(leader, false).await?;
    steps.screen.say(format!(
        "the link from node {leader}, the leader, to node {neighbour} was cut for {:.1} s: a write passed the other way round the ring \
         after {} ms; node {leader_after} is leader, term {term_after}; {} connections were lost; never {} ms without an acknowledged write",
        at.elapsed().as_secs_f64(),
        report.failover_ms,
        report.epochs_lost,
        gap + 1,
    ));
    Ok(())
}

/// The load with its progress on the screen.
struct Steps<'a> {
    screen: &'a Screen,
    load: &'a mut Load,
}

impl Steps<'_> {
    /// Writes a share of the records, evenly over `lasts`.
    async fn write(&mut self, doing: &str, share: f64, lasts: Duration) -> Result<()> {
        self.load.stage(share, lasts);
        self.finish(doing).await
    }

    /// Waits until the records of the stage are acknowledged.
    async fn finish(&mut self, doing: &str) -> Result<()> {
        self.screen.doing(doing);
        let begun = Instant::now();
        while !self.load.is_stage_done() {
            self.load.check()?;
            let (records, updates) = self.load.acknowledged();
            self.screen.progress(records, format!(", {updates} updates"));
            if begun.elapsed() > STEP_LIMIT {
                bail!("{doing}: only {records} records are acknowledged after {STEP_LIMIT:?}");
            }
            tokio::time::sleep(POLL).await;
        }
        let (records, updates) = self.load.acknowledged();
        self.screen.progress(records, format!(", {updates} updates"));
        Ok(())
    }
}

/// Whether the replicas become identical within the time of a step.
async fn replicas_identical(cluster: &mut Cluster, nodes: usize) -> Result<bool> {
    let begun = Instant::now();
    loop {
        let mut digests = Vec::new();
        for number in cluster.running(&[]) {
            let digest = cluster.digest(number).await?;
            digests.push((digest.entries, digest.sum));
        }
        if digests.len() == nodes && digests.windows(2).all(|pair| pair[0] == pair[1]) {
            return Ok(true);
        }
        if begun.elapsed() > STEP_LIMIT {
            return Ok(false);
        }
        tokio::time::sleep(POLL).await;
    }
}

fn milliseconds(duration: Duration) -> Result<u64> {
    Ok(u64::try_from(duration.as_millis())?)
}

/// The folder of the nodes: a temporary one, which is removed, or a named one, which is kept.
#[derive(Debug)]
enum Folder {
    Temporary(TempDir),
    Named(PathBuf),
}

/// The prefix of temporary folders. The process id follows, so that a later run can detect folders of dead
/// processes.
const PREFIX: &str = "x0-node-demo-";
/// The prefix of temporary folders that are kept.
const KEPT_PREFIX: &str = "x0-node-kept-";

impl Folder {
    fn new(args: &DemoArgs) -> Result<Folder> {
        if let Some(named) = &args.dir {
            return Ok(Folder::Named(named.clone()));
        }
        let parent = std::env::temp_dir();
        clear_dead_runs(&parent);
        let prefix = format!("{}{}-", if args.keep { KEPT_PREFIX } else { PREFIX }, std::process::id());
        let folder = tempfile::Builder::new().prefix(&prefix).disable_cleanup(args.keep).tempdir_in(&parent);
        let folder = folder.with_context(|| {
            format!("cannot create a folder in {}; name one with --dir", parent.display())
        })?;
        Ok(Folder::Temporary(folder))
    }

    fn path(&self) -> &Path {
        match self {
            Folder::Temporary(folder) => folder.path(),
            Folder::Named(path) => path,
        }
    }
}

/// Removes the folders of killed runs, where /proc shows that their process is dead.
fn clear_dead_runs(parent: &Path) {
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let pid =
            name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse::<u32>().ok());
        let is_dead =
            |pid: u32| Path::new("/proc/self").exists() && !Path::new(&format!("/proc/{pid}")).exists();
        if pid.is_some_and(is_dead) {
            // The folder of another user cannot be removed.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_folders_of_dead_runs_are_removed() {
        let parent = tempfile::tempdir().unwrap();
        let folder = |name: String| {
            let path = parent.path().join(name);
            std::fs::create_dir_all(path.join("node-1")).unwrap();
            path
        };
        let dead = folder(format!("{PREFIX}{}-abc", u32::MAX));
        let own = folder(format!("{PREFIX}{}-abc", std::process::id()));
        let other = folder("other-program".to_owned());
        clear_dead_runs(parent.path());
        assert!(!dead.exists() && own.exists() && other.exists());
    }
}
