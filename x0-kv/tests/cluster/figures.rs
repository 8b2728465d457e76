//! Figures of members and clients. Each test prints its figures:
//! `cargo test --release -p x0-kv --features mesh,redb --test cluster figures -- --ignored --nocapture`.
//!
//! All nodes and the client share this process and its processors. `X0_KEYS` sets the keys of the tests with
//! a large store, `X0_ROUNDS` how often a fault is repeated.
#![allow(clippy::print_stdout, reason = "figures are printed")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use x0_consensus::Standing;
use x0_kv::cluster::{Node, NodeOptions, ScrubOptions};
use x0_kv::{Bytes, Client, ClientOptions, Store};
use x0_mesh::FaultHandle;

use crate::machine::{Machine, NODES, id, soon, until};

const CLIENTS: u64 = 64;
const VALUE_LEN: usize = 100;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|number| number.parse().ok()).unwrap_or(otherwise)
}

/// Three nodes, and a client with the handle that cuts it off.
struct Cluster {
    machine: Machine,
    change: fn(NodeOptions) -> NodeOptions,
    nodes: Vec<(Node, FaultHandle)>,
    client: Client,
    cuts: FaultHandle,
}

impl Cluster {
    async fn start(change: fn(NodeOptions) -> NodeOptions) -> Cluster {
        let mut machine = Machine::new();
        let nodes = (1..=NODES).map(|number| start(&mut machine, number, change)).collect();
        let (mux, cuts) = machine.mux(9);
        let client = Client::connect(ClientOptions::new(id(9), (1..=NODES).map(id)), &mux).unwrap();
        soon("the first write", client.store().put("ready", "")).await.unwrap();
        Cluster { machine, change, nodes, client, cuts }
    }

    async fn leader(&self) -> usize {
        let leads = |(node, _): &(Node, FaultHandle)| node.status().is_leader();
        until("a leader", || self.nodes.iter().any(leads)).await;
        self.nodes.iter().position(leads).unwrap_or(0)
    }

    /// Waits until all nodes know one leader.
    async fn settle(&self) {
        until("one leader for all nodes", || {
            let known = self.nodes[0].0.status().leader;
            known.is_some() && self.nodes.iter().all(|(node, _)| node.status().leader == known)
        })
        .await;
    }

    /// Replaces a node by one with an empty folder, and waits until it votes and has caught up.
    async fn replace(&mut self, place: usize) -> Duration {
        let begun = Instant::now();
        let (stopped, _) = self.nodes.remove(place);
        soon("the stop", stopped.shutdown()).await.unwrap();
        std::fs::remove_dir_all(self.machine.path(place as u64 + 1)).unwrap();
        self.nodes.insert(place, start(&mut self.machine, place as u64 + 1, self.change));
        let committed = self.nodes.iter().map(|(node, _)| node.status().committed).max().unwrap_or(0);
        until("the return", || {
            let status = self.nodes[place].0.status();
            status.standing == Standing::Member && status.applied >= committed
        })
        .await;
        begun.elapsed()
    }

    async fn stop(self) {
        self.client.close().await;
        for (node, _) in self.nodes {
            soon("the stop", node.shutdown()).await.unwrap();
        }
    }
}

fn start(machine: &mut Machine, number: u64, change: fn(NodeOptions) -> NodeOptions) -> (Node, FaultHandle) {
    let (mux, handle) = machine.mux(number);
    (Node::start(change(machine.options(number)), &mux).unwrap(), handle)
}

/// What the tasks of a load have seen.
#[derive(Default)]
struct Seen {
    /// When each put was acknowledged, and how long it took.
    puts: Mutex<Vec<(Instant, Duration)>>,
    failed: Mutex<Vec<String>>,
    /// The puts that each task had acknowledged, which are numbered.
    acknowledged: Vec<AtomicU64>,
    is_over: AtomicBool,
}

/// Tasks that put one small value after the other until they are stopped.
struct Load {
    seen: Arc<Seen>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(store: &Store, clients: u64, pause: Duration) -> Load {
        let acknowledged = (0..clients).map(|_| AtomicU64::new(0)).collect();
        let seen = Arc::new(Seen { acknowledged, ..Seen::default() });
        let work = |task: u64| {
            let (store, seen) = (store.clone(), Arc::clone(&seen));
            tokio::spawn(async move {
                for step in 0_u64.. {
                    if seen.is_over.load(Ordering::SeqCst) {
                        return;
                    }
                    let begun = Instant::now();
                    match store.put(format!("load/{task}/{step}"), vec![7; VALUE_LEN]).await {
                        Ok(_) => {
                            seen.puts.lock().unwrap().push((Instant::now(), begun.elapsed()));
                            seen.acknowledged[task as usize].store(step + 1, Ordering::SeqCst);
                        }
                        Err(error) => {
                            seen.failed.lock().unwrap().push(format!("{task}/{step}: {error}"));
                            return;
                        }
                    }
                    if !pause.is_zero() {
                        tokio::time::sleep(pause).await;
                    }
                }
            })
        };
        Load { tasks: (0..clients).map(work).collect(), seen }
    }

    /// Puts per second and the 99th percentile of their times since then.
    fn rate(&self, since: Instant) -> (f64, Duration) {
        let puts = self.seen.puts.lock().unwrap();
        let mut took: Vec<Duration> =
            puts.iter().rev().take_while(|(at, _)| *at >= since).map(|(_, took)| *took).collect();
        took.sort_unstable();
        let p99 = took.get(took.len() * 99 / 100).copied().unwrap_or_default();
        (took.len() as f64 / since.elapsed().as_secs_f64(), p99)
    }

    /// The longest time without an acknowledgement since then.
    fn gap(&self, since: Instant) -> Duration {
        let puts = self.seen.puts.lock().unwrap();
        let at: Vec<Instant> = puts.iter().map(|(at, _)| *at).filter(|at| *at >= since).collect();
        let first = at.first().map_or(Duration::ZERO, |first| *first - since);
        at.windows(2).map(|two| two[1] - two[0]).max().unwrap_or_default().max(first)
    }

    async fn stop(self) -> Arc<Seen> {
        self.seen.is_over.store(true, Ordering::SeqCst);
        for task in self.tasks {
            soon("the end of the load", task).await.unwrap();
        }
        self.seen
    }
}

/// Puts of 1 MiB: how many failed, and MiB per second.
async fn long_puts(store: &Store, count: u64, in_flight: u64) -> (u64, f64) {
    let (next, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let value = Bytes::from(vec![7; (1 << 20) - 1024]);
    let begun = Instant::now();
    let tasks: Vec<_> = (0..in_flight)
        .map(|_| {
            let (store, next, failed, value) =
                (store.clone(), Arc::clone(&next), Arc::clone(&failed), value.clone());
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= count {
                        return;
                    }
                    if let Err(error) = store.put(format!("long/{}", number % 16), value.clone()).await {
                        println!("a put of 1 MiB failed: {error}");
                        failed.fetch_add(1, Ordering::SeqCst);
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        soon("long puts", task).await.unwrap();
    }
    (failed.load(Ordering::SeqCst), count as f64 / begun.elapsed().as_secs_f64())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures"]
async fn figures_of_long_puts() {
    let cluster = Cluster::start(|options| options).await;
    let store = cluster.client.store();
    let (failed, rate) = long_puts(store, 300, 300).await;
    println!("300 puts of 1 MiB in flight: {failed} failed, {rate:.1} MiB/s");
    let (mut few, mut many, mut failures) = (0.0, 0.0, failed);
    for _ in 0..number("X0_ROUNDS", 3) {
        let (failed_few, rate_few) = long_puts(store, 48, 4).await;
        let (failed_many, rate_many) = long_puts(store, 128, 128).await;
        println!("  in flight 4: {rate_few:.1} MiB/s; 128: {rate_many:.1} MiB/s");
        (few, many, failures) = (few + rate_few, many + rate_many, failures + failed_few + failed_many);
    }
    println!("128 in flight: {:.2}x of 4 in flight, {failures} failed", many / few);
    assert_eq!(failures, 0);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures"]
async fn figures_of_a_failover() {
    let cluster = Cluster::start(|options| options).await;
    let load = Load::start(cluster.client.store(), CLIENTS, Duration::ZERO);
    let (mut gaps, mut elections) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..number("X0_ROUNDS", 5) {
        cluster.settle().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let leader = cluster.leader().await;
        let begun = Instant::now();
        cluster.nodes[leader].1.block_all();
        until("another leader", || {
            let mut others = cluster.nodes.iter().enumerate().filter(|(place, _)| *place != leader);
            others.any(|(_, (node, _))| node.status().is_leader())
        })
        .await;
        let election = begun.elapsed();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let gap = load.gap(begun);
        println!("  election {} ms, gap of the client {} ms", election.as_millis(), gap.as_millis());
        (gaps, elections) = (gaps + gap, elections + election);
        cluster.nodes[leader].1.unblock_all();
    }
    let failed = load.stop().await.failed.lock().unwrap().len();
    let ratio = gaps.as_secs_f64() / elections.as_secs_f64();
    println!("failover with {CLIENTS} in flight: gap {ratio:.2}x of the election, {failed} failed");
    assert_eq!(failed, 0);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures"]
async fn figures_of_a_client_that_is_cut_off_from_the_leader() {
    let cluster = Cluster::start(|options| options).await;
    let load = Load::start(cluster.client.store(), CLIENTS, Duration::ZERO);
    let mut longest = Duration::ZERO;
    for _ in 0..number("X0_ROUNDS", 5) {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let leader = id(cluster.leader().await as u64 + 1);
        let begun = Instant::now();
        cluster.cuts.block(leader);
        tokio::time::sleep(Duration::from_secs(3)).await;
        let gap = load.gap(begun);
        println!("  without service for {} ms", gap.as_millis());
        longest = longest.max(gap);
        cluster.cuts.unblock(leader);
    }
    let failed = load.stop().await.failed.lock().unwrap().len();
    println!(
        "cut off from the leader: without service for {} ms at most, {failed} failed",
        longest.as_millis()
    );
    assert!(failed == 0 && longest < Duration::from_secs(1), "{longest:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures"]
async fn figures_of_rolling_replacements() {
    let mut cluster = Cluster::start(|options| options).await;
    let load = Load::start(cluster.client.store(), CLIENTS, Duration::from_millis(10));
    let rounds = number("X0_ROUNDS", 20);
    let (begun, mut longest) = (Instant::now(), Duration::ZERO);
    for _ in 0..rounds {
        for place in 0..cluster.nodes.len() {
            longest = longest.max(cluster.replace(place).await);
        }
    }
    let (took, gap) = (begun.elapsed(), load.gap(begun));
    let seen = load.stop().await;
    let failed = seen.failed.lock().unwrap().clone();
    let (mut lost, mut acknowledged) = (0_u64, 0);
    for (task, steps) in seen.acknowledged.iter().enumerate() {
        for step in 0..steps.load(Ordering::SeqCst) {
            acknowledged += 1;
            let found = cluster.client.store().get(format!("load/{task}/{step}")).await.unwrap();
            lost += u64::from(found.is_none());
        }
    }
    println!(
        "{rounds} rolling replacements of 3 nodes under {CLIENTS} clients in {:.1} s: {acknowledged} acknowledged, {} failed, {lost} lost; longest return {} ms, longest gap {} ms",
        took.as_secs_f64(),
        failed.len(),
        longest.as_millis(),
        gap.as_millis()
    );
    assert!(failed.is_empty() && lost == 0, "{failed:?}");
    cluster.stop().await;
}

/// Fills the store with small values.
async fn fill(store: &Store) -> u64 {
    let keys = number("X0_KEYS", 100_000);
    let next = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..512)
        .map(|_| {
            let (store, next) = (store.clone(), Arc::clone(&next));
            tokio::spawn(async move {
                loop {
                    let key = next.fetch_add(1, Ordering::SeqCst);
                    if key >= keys {
                        return;
                    }
                    store.put(format!("cold/{key:09}"), vec![3; VALUE_LEN]).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    keys
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures"]
async fn figures_of_a_catch_up() {
    let mut cluster = Cluster::start(|options| options).await;
    let keys = fill(cluster.client.store()).await;
    let follower = (cluster.leader().await + 1) % cluster.nodes.len();
    let load = Load::start(cluster.client.store(), CLIENTS, Duration::ZERO);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = Instant::now();
    tokio::time::sleep(Duration::from_secs(8)).await;
    let (rate_before, p99_before) = load.rate(before);
    let begun = Instant::now();
    let took = cluster.replace(follower).await;
    let (rate, p99) = load.rate(begun);
    let failed = load.stop().await.failed.lock().unwrap().len();
    println!(
        "catch-up of an emptied follower with {keys} keys in {:.1} s: puts {rate:.0}/s ({:.2}x of {rate_before:.0}/s), p99 {:.1} ms ({:.2}x of {:.1} ms), {failed} failed",
        took.as_secs_f64(),
        rate / rate_before,
        p99.as_secs_f64() * 1e3,
        p99.as_secs_f64() / p99_before.as_secs_f64(),
        p99_before.as_secs_f64() * 1e3,
    );
    assert_eq!(failed, 0);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures"]
async fn figures_of_a_scrub() {
    let scrubbed =
        |options: NodeOptions| options.scrub(ScrubOptions::default().pause(Duration::from_secs(6)));
    let cluster = Cluster::start(scrubbed).await;
    let keys = fill(cluster.client.store()).await;
    let load = Load::start(cluster.client.store(), CLIENTS, Duration::ZERO);
    let leader = cluster.leader().await;
    // Seconds in which the leader verified entries, and seconds in which it did not.
    let (mut scrubbing, mut idle) = (Vec::new(), Vec::new());
    let entries = || cluster.nodes[leader].0.status().scrub.entries;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(60) && (scrubbing.len() < 12 || idle.len() < 12) {
        let (from, at) = (entries(), Instant::now());
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (rate, _) = load.rate(at);
        if entries() > from { scrubbing.push(rate) } else { idle.push(rate) }
    }
    let mean = |rates: &[f64]| rates.iter().sum::<f64>() / rates.len().max(1) as f64;
    let failed = load.stop().await.failed.lock().unwrap().len();
    println!(
        "scrub of {keys} keys: puts {:.0}/s in {} s of scrub, {:.0}/s in {} s without ({:.2}x), {failed} failed",
        mean(&scrubbing),
        scrubbing.len(),
        mean(&idle),
        idle.len(),
        mean(&scrubbing) / mean(&idle)
    );
    assert_eq!(failed, 0);
    cluster.stop().await;
}
