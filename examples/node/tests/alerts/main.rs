//! Alerts from end to end: faults of real nodes, Debian's Prometheus and Alertmanager with the files of
//! `deploy/`, and a receiver of PagerDuty's events.
//!
//! All times of the files are divided by 20, and nothing else is changed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;
mod pager;
mod programs;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::{Cluster, LIMIT, Process, answer, x0_node};
use pager::{Event, Pager};
use programs::Programs;
use serde_json::Value;

/// The folder with Debian's packages: the stage `alerts` of `.ci/run` sets it.
const PACKAGES: &str = "X0_PROMETHEUS";
/// The space of the data of each node.
const DISK_MIB: u64 = 256;
/// The time in which no alert may come while nothing is wrong: ten minutes of the real files.
const CALM: Duration = Duration::from_secs(30);

/// A file system in memory, which is unmounted with its value.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: PathBuf) -> Disk {
        fs::create_dir_all(&at).unwrap();
        let size = format!("size={DISK_MIB}m");
        answer(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&at));
        Disk(at)
    }

    /// Leaves less space than the reserve.
    fn fill(&self) {
        let file = fs::File::create(self.0.join("filler")).unwrap();
        let free = rustix::fs::statvfs(&self.0).unwrap();
        rustix::fs::fallocate(
            &file,
            rustix::fs::FallocateFlags::empty(),
            0,
            (free.f_bavail - 512) * free.f_bsize,
        )
        .unwrap();
    }

    fn empty(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Packets that the firewall drops, until this is dropped.
struct Drops(String);

impl Drops {
    fn start(matches: &[String]) -> Drops {
        let table = format!("x0_alerts_{}", std::process::id());
        let rules: String = matches.iter().map(|packets| format!(" {packets} drop;")).collect();
        answer(Command::new("nft").arg(format!(
            "table inet {table} {{ chain input {{ type filter hook input priority 0;{rules} }}; }}"
        )));
        Drops(table)
    }

    /// All packets of a node.
    fn cut(cluster: &Cluster, node: usize) -> Drops {
        let port = port(cluster, node);
        Drops::start(&[format!("udp dport {port}"), format!("udp sport {port}")])
    }

    /// Loss of a share of the packets between two nodes, in per cent.
    fn lose(cluster: &Cluster, nodes: [usize; 2], percent: u32) -> Drops {
        let [one, other] = nodes.map(|node| port(cluster, node));
        let matches = [(one, other), (other, one)]
            .map(|(from, to)| format!("udp sport {from} udp dport {to} numgen random mod 100 < {percent}"));
        Drops::start(&matches)
    }
}

impl Drop for Drops {
    fn drop(&mut self) {
        let _ = Command::new("nft").args(["delete", "table", "inet", &self.0]).status();
    }
}

/// The UDP port of a node.
fn port(cluster: &Cluster, node: usize) -> u16 {
    let config = fs::read_to_string(cluster.path(&format!("node-{}/node.toml", node + 1))).unwrap();
    let listen = config.lines().find_map(|line| line.strip_prefix("listen = \"127.0.0.1:")).unwrap();
    listen.trim_end_matches('"').parse().unwrap()
}

/// A client that writes and reads without a pause.
struct Load {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    fn start(config: PathBuf) -> Load {
        let is_over = Arc::<AtomicBool>::default();
        let over = Arc::clone(&is_over);
        let run = move || {
            for number in 0u64.. {
                let key = format!("key-{}", number % 100);
                let commands: [&[&str]; 3] =
                    [&["put", &key, "value"], &["get", &key], &["put", &key, "value", "--crdt"]];
                for command in commands {
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    // A command may fail while the leader is gone.
                    let _ = x0_node(&["kv"]).args(command).arg("--config").arg(&config).output();
                }
            }
        };
        Load { is_over, thread: Some(std::thread::spawn(run)) }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _ = self.thread.take().unwrap().join();
    }
}

struct World {
    cluster: Cluster,
    ports: [u16; 3],
    nodes: [Option<Process>; 3],
    pager: Pager,
    /// The events of the pager that belong to faults that are over.
    seen: usize,
    programs: Programs,
}

impl World {
    fn start_node(&mut self, node: usize) {
        self.nodes[node] = Some(start(&self.cluster, node));
    }

    fn order(&mut self, node: usize, order: &str) {
        self.nodes[node].as_mut().unwrap().order(order);
    }

    /// The index of the leader, as the nodes report it.
    fn leader(&self) -> usize {
        let begun = Instant::now();
        loop {
            let is_leader = |port: &u16| metrics(*port).contains("\nx0_consensus_is_leader 1\n");
            if let Some(leader) = self.ports.iter().position(is_leader) {
                return leader;
            }
            assert!(begun.elapsed() < LIMIT);
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits, and sees that no alert comes while nothing is wrong.
    fn calm(&self) {
        let begun = Instant::now();
        while begun.elapsed() < CALM {
            let events = self.pager.events().split_off(self.seen);
            assert!(events.is_empty(), "nothing is wrong: {events:#?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until each of these alerts was triggered, `heal`s, and waits until all are resolved with the
    /// keys of their triggers. Those of `may_follow` may come as well, and no other one.
    fn expect(&mut self, alerts: &[&str], may_follow: &[&str], heal: impl FnOnce(&mut World)) {
        let alerts: BTreeSet<String> = alerts.iter().map(|alert| (*alert).to_owned()).collect();
        let allowed = alerts.iter().map(String::as_str).chain(may_follow.iter().copied()).collect();
        let begun = Instant::now();
        self.wait(&allowed, |events| of(events, "trigger").is_superset(&alerts));
        let triggered = begun.elapsed();
        heal(self);
        let events = self.wait(&allowed, |events| {
            of(events, "resolve").is_superset(&of(events, "trigger"))
                // One that was silenced by another one, or is pending for its time, may still come.
                && self.programs.query("ALERTS").is_empty()
        });
        let keys = |action| {
            let events = events.iter().filter(|event| event.action == action);
            events.map(|event| (event.alert.clone(), event.dedup_key.clone())).collect::<BTreeSet<_>>()
        };
        assert_eq!(keys("trigger"), keys("resolve"), "{events:#?}");
        for event in events.iter().filter(|event| event.action == "trigger") {
            assert!(["critical", "warning"].contains(&event.severity.as_str()), "{event:?}");
            let page = format!("/deploy/runbooks/{}.md", event.alert);
            assert!(event.client_url.ends_with(&page), "{event:?}");
        }
        eprintln!(
            "{:?}: triggered after {triggered:.1?}, resolved after {:.1?}",
            of(&events, "trigger"),
            begun.elapsed()
        );
        self.seen = self.pager.events().len();
    }

    /// Waits until the events since the last fault are as expected, and returns them. None may be of another
    /// alert.
    fn wait(&self, allowed: &BTreeSet<&str>, is_done: impl Fn(&[Event]) -> bool) -> Vec<Event> {
        let begun = Instant::now();
        loop {
            let events = self.pager.events().split_off(self.seen);
            let is_allowed = |event: &Event| allowed.contains(event.alert.as_str());
            assert!(events.iter().all(is_allowed), "only {allowed:?} are expected: {events:#?}");
            if is_done(&events) {
                return events;
            }
            assert!(
                begun.elapsed() < 5 * LIMIT,
                "{allowed:?} do not come or go: {events:#?}\n{:#?}\n{}",
                self.programs.query("ALERTS"),
                programs::logs(self.cluster.root())
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// The names of the alerts of these events with this action.
fn of(events: &[Event], action: &str) -> BTreeSet<String> {
    events.iter().filter(|event| event.action == action).map(|event| event.alert.clone()).collect()
}

fn start(cluster: &Cluster, node: usize) -> Process {
    let config = cluster.path(&format!("node-{}/node.toml", node + 1));
    let mut command = x0_node(&["run", "--control", "--config"]);
    let mut process = Process::start(command.arg(config).stdin(Stdio::piped()).stdout(Stdio::null()));
    process.logged("event=started");
    process
}

fn metrics(port: u16) -> String {
    let mut text = String::new();
    if let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
        let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let _ = stream.read_to_string(&mut text);
    }
    text
}

/// Waits until the leader has not changed for a while: the elections of a start are no flapping.
fn settle(ports: &[u16]) {
    let changes = || {
        let texts = ports.iter().map(|port| metrics(*port));
        let of = |text: String| {
            let line = text.lines().find(|line| line.starts_with("x0_consensus_leader_changes_total "))?;
            Some(line.to_owned())
        };
        texts.map(of).collect::<Vec<_>>()
    };
    let begun = Instant::now();
    let (mut last, mut since) = (changes(), Instant::now());
    while since.elapsed() < Duration::from_secs(5) || last.iter().any(Option::is_none) {
        std::thread::sleep(Duration::from_millis(100));
        let now = changes();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        assert!(begun.elapsed() < LIMIT, "the leader keeps changing: {last:?}");
    }
}

/// The expressions of the dashboards, with their variables replaced.
fn expressions() -> BTreeSet<String> {
    fn collect(value: &Value, to: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(expression)) = fields.get("expr") {
                    to.insert(expression.replace("$job", "x0").replace("$__rate_interval", "10s"));
                }
                fields.values().for_each(|field| collect(field, to));
            }
            Value::Array(values) => values.iter().for_each(|value| collect(value, to)),
            _ => {}
        }
    }
    let mut expressions = BTreeSet::new();
    for text in [
        include_str!("../../deploy/grafana/mesh.json"),
        include_str!("../../deploy/grafana/consensus.json"),
        include_str!("../../deploy/grafana/storage.json"),
    ] {
        collect(&serde_json::from_str(text).unwrap(), &mut expressions);
    }
    expressions
}

#[test]
fn each_fault_causes_its_alert_and_no_other() {
    let Some(packages) = std::env::var_os(PACKAGES) else {
        eprintln!(
            "skipped: {PACKAGES} is not set to a folder with Debian's prometheus, prometheus-alertmanager and victoria-metrics"
        );
        return;
    };
    let cluster = Cluster::init(3);
    // Other programs fill and free the disk of this machine.
    let disks = [1, 2, 3].map(|number| Disk::mount(cluster.path(&format!("node-{number}/data"))));
    let ports =
        [(); 3].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port());
    for (node, port) in ports.iter().enumerate() {
        let config = cluster.path(&format!("node-{}/node.toml", node + 1));
        let text = fs::read_to_string(&config).unwrap();
        // Before the first table.
        let text = text.replacen("[[", "reserve_mib = 16\n\n[[", 1);
        let http = format!("[[http]]\naddress = \"127.0.0.1:{port}\"\nroutes = [\"metrics\"]\ntls = \"off\"");
        fs::write(&config, format!("{text}\n{http}\n")).unwrap();
    }
    let nodes = [0, 1, 2].map(|node| Some(start(&cluster, node)));
    let pager = Pager::start();
    let load = Load::start(cluster.path("client/client.toml"));
    settle(&ports);
    let programs = Programs::start(Path::new(&packages), cluster.root(), &ports, &pager.url);
    let mut world = World { cluster, ports, nodes, pager, seen: 0, programs };

    world.calm();

    // A follower is cut off.
    let follower = (0..3).find(|node| *node != world.leader()).unwrap();
    let cut = Drops::cut(&world.cluster, follower);
    world.expect(&["X0PartitionSuspected"], &[], |_| drop(cut));

    // The link between the followers loses packets.
    let leader = world.leader();
    let losses = Drops::lose(&world.cluster, [(leader + 1) % 3, (leader + 2) % 3], 30);
    world.expect(&["X0LinkDegraded"], &[], |_| drop(losses));

    // The disk of a follower is slow.
    let follower = (0..3).find(|node| *node != world.leader()).unwrap();
    world.order(follower, r#"{"order":"slow_disk","milliseconds":200}"#);
    let fast = r#"{"order":"slow_disk","milliseconds":0}"#;
    world.expect(&["X0SlowFsync"], &[], |world| world.order(follower, fast));

    // An SVID that ends within the hour.
    let issue = |world: &World, hours: &str| {
        let mut issue = x0_node(&["issue", "--node", "1", "--validity-hours", hours, "--dir"]);
        answer(issue.arg(world.cluster.root()));
    };
    issue(&world, "1");
    world.expect(&["X0SvidExpiring"], &[], |world| issue(world, "2000"));

    // The disk of a node is full. A leader hands over.
    disks[2].fill();
    // The refused writes are errors of the cluster, and silenced as long as the cause has an alert.
    let may_follow = ["X0DiskFilling", "X0ErrorBudgetBurn"];
    world.expect(&["X0DiskFull"], &may_follow, |_| disks[2].empty());

    // The leader is killed. Its changes before this are not to be counted with those that follow.
    world.calm();
    let leader = world.leader();
    world.nodes[leader].as_mut().unwrap().kill();
    // The errors of the second until there is another leader do not count in an hour, but in a twentieth of
    // it.
    world.expect(&["X0NodeDown", "X0QuorumAtRisk"], &["X0ErrorBudgetBurn"], |world| world.start_node(leader));

    // Both databases hold the same names, and each panel of a dashboard had something to show.
    let names = world.programs.names(world.programs.prometheus);
    assert_eq!(names, world.programs.names(world.programs.victoria));
    // The nodes here have no blob store and no links; `mesh.rs` sees the names of links and routes.
    let absent = ["x0_kv_blob_", "x0_mesh_link_", "x0_mesh_path_", "x0_mesh_route_", "x0_mesh_failovers_"];
    let is_there = |expression: &String| !absent.iter().any(|name| expression.contains(name));
    let expressions: Vec<String> = expressions().into_iter().filter(is_there).collect();
    let empty: Vec<&String> =
        expressions.iter().filter(|expression| world.programs.series(expression) == 0).collect();
    assert!(empty.is_empty(), "no series: {empty:#?}");
    eprintln!("{} names in both databases, {} expressions have series", names.len(), expressions.len());
    drop((load, world, disks));
}
