//! Real nodes on disks that are full: three nodes, QUIC on the loopback, each with a small tmpfs of its own.
//!
//! Mounting needs root: without it the tests fail under CI and are skipped elsewhere.
#![cfg(all(feature = "mesh", feature = "redb", feature = "crdt", target_os = "linux"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "cluster/machine.rs"]
mod machine;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use x0_consensus::WalOptions;
use x0_kv::cluster::{Node, NodeOptions, SpaceOptions};
use x0_kv::{Client, ClientOptions, CrdtOptions, Engine, OperationError, RedbOptions, Store};

use self::machine::{Machine, NODES, id, soon, until, until_async};

const DISK_LEN: u64 = 64 << 20;
const RESERVE_LEN: u64 = 16 << 20;
const SEGMENT_LEN: u64 = 2 << 20;
const VALUE_LEN: usize = 10_000;

/// A small disk. Dropped, it is gone.
struct Disk(PathBuf);

impl Disk {
    fn mount(path: PathBuf) -> Option<Disk> {
        std::fs::create_dir_all(&path).unwrap();
        let size = format!("size={DISK_LEN}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&path).output();
        if mounted.as_ref().is_ok_and(|mounted| mounted.status.success()) {
            return Some(Disk(path));
        }
        assert!(std::env::var_os("CI").is_none(), "under CI this must run: {mounted:?}");
        eprintln!("skipped: cannot mount a small disk: {mounted:?}");
        None
    }

    /// Fills the disk until only `free` bytes are free.
    fn fill(&self, free: u64) {
        let found = rustix::fs::statvfs(&self.0).unwrap();
        let len = (found.f_bavail * found.f_frsize).saturating_sub(free);
        match std::fs::write(self.0.join("filler"), vec![1; usize::try_from(len).unwrap()]) {
            // A node has taken space since it was counted. What is left has been written, so nothing is free.
            Err(error) if free == 0 && error.kind() == std::io::ErrorKind::StorageFull => (),
            written => written.unwrap(),
        }
    }

    fn release(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// Three nodes and a client.
struct Cluster {
    nodes: Vec<Node>,
    client: Client,
    disks: Vec<Disk>,
    _machine: Machine,
}

impl Cluster {
    async fn start(change: impl Fn(NodeOptions) -> NodeOptions) -> Option<Cluster> {
        let mut machine = Machine::new();
        let mut disks = Vec::new();
        for number in 1..=NODES {
            disks.push(Disk::mount(machine.path(number))?);
        }
        let nodes = (1..=NODES).map(|number| {
            let (mux, _) = machine.mux(number);
            Node::start(change(options(machine.options(number))), &mux).unwrap()
        });
        let nodes: Vec<_> = nodes.collect();
        let (mux, _) = machine.mux(9);
        let client = Client::connect(ClientOptions::new(id(9), (1..=NODES).map(id)), &mux).unwrap();
        soon("the first write", client.store().put("ready", "")).await.unwrap();
        Some(Cluster { nodes, client, disks, _machine: machine })
    }

    fn leader(&self) -> usize {
        let leads = |node: &Node| node.status().is_leader();
        self.nodes.iter().position(leads).unwrap_or(0)
    }

    async fn stop(self) {
        for node in self.nodes {
            soon("the end of a node", node.shutdown()).await.unwrap();
        }
    }
}

fn options(options: NodeOptions) -> NodeOptions {
    let mut options = options
        .space(SpaceOptions::default().reserve_len(RESERVE_LEN))
        .crdt(CrdtOptions::new([7; 16]))
        .engine(Engine::Redb(RedbOptions::default().overlay_len_max(1 << 20)));
    options.log = WalOptions::default().segment_len(SEGMENT_LEN);
    options.consensus.checkpoint_log_len = 4 << 20;
    options.consensus.retained_entries = 16;
    options
}

async fn put(store: &Store, number: usize) -> Result<(), OperationError> {
    let put = store.put(format!("key/{number:05}"), vec![b'v'; VALUE_LEN]);
    soon("a put", put).await.map(drop)
}

/// The error says that there is no space, and came within a second.
fn check_refused(begun: Instant, error: &OperationError) {
    assert!(matches!(error, OperationError::NoSpace { .. }), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(1), "after {:?}: {error}", begun.elapsed());
}

async fn check_held(cluster: &Cluster, acknowledged: usize) {
    for number in 0..acknowledged {
        let found = cluster.client.store().get(format!("key/{number:05}")).await.unwrap();
        assert_eq!(found.expect("an acknowledged write is lost").value.len(), VALUE_LEN, "key {number}");
    }
}

/// The reserve of one node is touched: it hands the leadership to another one, writes to the cluster go on,
/// and its own CRDT store refuses writes until there is space.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_nodes_without_space_hands_over_and_resumes() {
    let Some(cluster) = Cluster::start(|options| options).await else { return };
    let full = cluster.leader();
    cluster.disks[full].fill(RESERVE_LEN / 2);
    let node = &cluster.nodes[full];
    until("the hand-over", || node.status().space.is_low && !node.status().is_leader()).await;
    let client = cluster.client.store();
    let mut acknowledged = 0;
    until_async("writes", async || put(client, 0).await.is_ok()).await;
    acknowledged += 1;
    for number in 1..100 {
        put(client, number).await.unwrap();
        acknowledged += 1;
    }
    assert!(!node.status().is_leader(), "the leadership came back to a node without space");
    let crdt = node.store().crdt().unwrap();
    let begun = Instant::now();
    check_refused(begun, &crdt.put("key", "value").await.unwrap_err());
    assert_eq!(crdt.get("key").await.unwrap(), None);
    assert!(node.store().get_local("key/00000").await.is_ok());
    cluster.disks[full].release();
    until_async("the CRDT store", async || crdt.put("key", "value").await.is_ok()).await;
    until("the status", || !node.status().space.is_short()).await;
    check_held(&cluster, acknowledged).await;
    cluster.stop().await;
}

/// The reserve of all nodes is touched: writes are refused at once, and unambiguously. Reads go on. Writes
/// resume by themselves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_without_space_refuse_writes_at_once_and_resume() {
    let Some(cluster) = Cluster::start(|options| options).await else { return };
    let client = cluster.client.store();
    for number in 0..50 {
        put(client, number).await.unwrap();
    }
    cluster.disks.iter().for_each(|disk| disk.fill(RESERVE_LEN / 2));
    until("the reading of the space", || cluster.nodes.iter().all(|node| node.status().space.is_low)).await;
    let stores: Vec<_> = cluster.nodes.iter().map(Node::store).chain([client]).cloned().collect();
    for store in stores.iter().cycle().take(40) {
        let begun = Instant::now();
        let error = put(store, 99_999).await.unwrap_err();
        check_refused(begun, &error);
        assert!(!error.is_ambiguous());
        assert_eq!(store.get("key/00049").await.unwrap().unwrap().value.len(), VALUE_LEN);
    }
    for node in &cluster.nodes {
        let begun = Instant::now();
        check_refused(begun, &node.store().crdt().unwrap().put("key", "value").await.unwrap_err());
    }
    let begun = Instant::now();
    check_refused(begun, &client.crdt().unwrap().put("key", "value").await.unwrap_err());
    assert_eq!(client.crdt().unwrap().get("key").await.unwrap(), None);
    cluster.disks.iter().for_each(Disk::release);
    until_async("writes", async || put(client, 50).await.is_ok()).await;
    assert_eq!(client.get("key/99999").await.unwrap(), None, "a refused write was applied");
    check_held(&cluster, 51).await;
    cluster.stop().await;
}

/// Without a reserve the disks fill to the last byte: log, checkpoint and journal wait for space, and nothing
/// that was acknowledged is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disks_that_are_full_to_the_last_byte_lose_nothing() {
    let without = |options: NodeOptions| options.space(SpaceOptions::default().reserve_len(0));
    let Some(cluster) = Cluster::start(without).await else { return };
    let (client, crdt) = (cluster.client.store(), cluster.client.store().crdt().unwrap());
    cluster.disks.iter().for_each(|disk| disk.fill(0));
    let (mut acknowledged, mut counted) = (0, 0);
    // Until the segments that were made in advance are full.
    let error = loop {
        match put(client, acknowledged).await {
            Ok(()) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(acknowledged < 10_000, "the disks never fill up");
    };
    assert!(matches!(error, OperationError::NoSpace { .. }), "{error:?}");
    let error = loop {
        match crdt.put(format!("crdt/{counted:05}"), vec![b'v'; VALUE_LEN]).await {
            Ok(_) => counted += 1,
            Err(error) => break error,
        }
        assert!(counted < 10_000, "the journals never fill up");
    };
    assert_eq!(error, OperationError::NoSpace { ambiguous: false });
    until("the reports", || {
        cluster.nodes.iter().filter(|node| node.status().space.refuses_writes()).count() > 1
    })
    .await;
    for store in cluster.nodes.iter().map(Node::store).chain([client]) {
        let begun = Instant::now();
        check_refused(begun, &put(store, 99_999).await.unwrap_err());
        assert!(store.get_local("key/00000").await.is_ok());
    }
    cluster.disks.iter().for_each(Disk::release);
    until_async("writes", async || put(client, 99_998).await.is_ok()).await;
    until_async("the CRDT store", async || crdt.put("after", "").await.is_ok()).await;
    check_held(&cluster, acknowledged).await;
    for number in 0..counted {
        assert!(crdt.get(format!("crdt/{number:05}")).await.unwrap().is_some(), "key {number} is lost");
    }
    for node in &cluster.nodes {
        until("a node", || !node.status().space.is_short()).await;
    }
    cluster.stop().await;
}
