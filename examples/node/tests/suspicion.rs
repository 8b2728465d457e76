//! The failure detector of the nodes, with five real processes: all others know of a killed and of a hung one
//! by themselves, and of a member that is back.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const NODES: usize = 5;
/// Generous: only a test that fails waits for it.
const LIMIT: Duration = Duration::from_secs(90);

/// A line of a node's log, with its time.
type Line = (Instant, usize, String);

struct Cluster {
    folder: TempDir,
    processes: BTreeMap<usize, Child>,
    lines: Receiver<Line>,
}

impl Cluster {
    /// Five nodes that know each other. The last one has no healer.
    fn started() -> Cluster {
        // A slow disk is none of this test's business.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        init(folder.path());
        let path = folder.path().join(format!("node-{NODES}/node.toml"));
        let config = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, config + "\n[heal]\nmode = \"off\"\n").unwrap();
        let (sender, lines) = channel();
        let mut cluster = Cluster { folder, processes: BTreeMap::new(), lines };
        for number in 1..=NODES {
            cluster.start(number, sender.clone());
        }
        let mut up = 0;
        cluster.each_line("connections of all", |_, line| {
            up += usize::from(line.contains("event=peer-up"));
            up >= NODES * (NODES - 1)
        });
        cluster
    }

    fn config(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("node-{number}/node.toml"))
    }

    fn start(&mut self, number: usize, lines: Sender<Line>) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_x0-node"))
            .args(["run", "--config"])
            .arg(self.config(number))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                // The test may have ended.
                let _ = lines.send((Instant::now(), number, line));
            }
        });
        self.processes.insert(number, child);
    }

    fn signal(&self, number: usize, signal: Signal) -> Instant {
        let pid = Pid::from_child(&self.processes[&number]);
        kill_process(pid, signal).unwrap();
        Instant::now()
    }

    /// Passes the lines of all nodes on until `is_last` holds. The time of the last one.
    fn each_line(&self, what: &str, mut is_last: impl FnMut(usize, &str) -> bool) -> Instant {
        let begun = Instant::now();
        loop {
            let left = LIMIT.saturating_sub(begun.elapsed());
            let Ok((at, by, line)) = self.lines.recv_timeout(left) else {
                panic!("{LIMIT:?} have passed without: {what}");
            };
            if is_last(by, &line) {
                return at;
            }
        }
    }

    /// When all of these nodes have reported an event about a member. A busy machine may starve another
    /// process until it is suspect, and then it must be cleared. That nobody else is suspect is shown in the
    /// simulation.
    fn known(&self, event: &str, member: usize, to: &[usize]) -> Instant {
        let text = format!("event={event} peer={member:016x}");
        let mut missing = to.to_vec();
        let mut at = None;
        let mut others = BTreeSet::new();
        self.each_line(&format!("{text} of {to:?}, and no suspect beside it"), |by, line| {
            if line.contains(&text) {
                missing.retain(|node| *node != by);
            } else if let Some((_, suspect)) = line.split_once("event=peer-suspect peer=") {
                others.insert((by, suspect[..16].to_owned()));
            } else if let Some((_, suspect)) = line.split_once("event=peer-cleared peer=") {
                others.remove(&(by, suspect[..16].to_owned()));
            }
            if missing.is_empty() {
                at.get_or_insert_with(Instant::now);
            }
            missing.is_empty() && others.is_empty()
        });
        at.unwrap()
    }

    /// The suspects in `heal status`, by node.
    fn suspects(&self) -> BTreeMap<String, Vec<String>> {
        let output = Command::new(env!("CARGO_BIN_EXE_x0-node"))
            .args(["heal", "status", "--json", "--config"])
            .arg(self.folder.path().join("client/client.toml"))
            .output()
            .unwrap();
        let rows = String::from_utf8(output.stdout).unwrap();
        let row = |line: &str| {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            let suspects = row["answer"]["status"]["suspects"].as_array()?;
            let nodes = suspects.iter().map(|suspect| suspect["node"].as_str().unwrap().into()).collect();
            Some((row["node"].as_str().unwrap().into(), nodes))
        };
        rows.lines().filter_map(row).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in self.processes.values_mut() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// The folder of five nodes on free ports.
fn init(folder: &Path) {
    for _ in 0..50 {
        let base = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let Some(end) = base.checked_add(u16::try_from(NODES).unwrap()) else { continue };
        if !(base..end).all(|port| UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok()) {
            continue;
        }
        let made = Command::new(env!("CARGO_BIN_EXE_x0-node"))
            .args(["init", "--trust-domain", "test.example", "--nodes", &NODES.to_string()])
            .args(["--base-port", &base.to_string(), "--dir"])
            .arg(folder)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        return;
    }
    panic!("no free ports");
}

#[test]
fn a_killed_and_a_hung_process_are_known_to_all_others() {
    let cluster = Cluster::started();
    // A member without a healer answers as well: those that do not are suspect after their start grace of
    // 3 s, and for ever.
    let until = Instant::now() + Duration::from_secs(5);
    while cluster.lines.recv_timeout(until.saturating_duration_since(Instant::now())).is_ok() {}
    let begun = Instant::now();
    while cluster.suspects().values().any(|suspects| !suspects.is_empty()) {
        assert!(begun.elapsed() < LIMIT, "{:?}", cluster.suspects());
    }

    let stopped = cluster.signal(2, Signal::STOP);
    let known = cluster.known("peer-suspect", 2, &[1, 3, 4, 5]);
    eprintln!("SIGSTOP is known to all after {:.0?}", known - stopped);
    let hung = "0000000000000002".to_owned();
    let suspects = cluster.suspects();
    let others = ["0000000000000001", "0000000000000003", "0000000000000004"];
    assert_eq!(suspects, others.map(|node| (node.to_owned(), vec![hung.clone()])).into());
    let back = cluster.signal(2, Signal::CONT);
    let cleared = cluster.known("peer-cleared", 2, &[1, 3, 4, 5]);
    eprintln!("SIGCONT is known to all after {:.0?}", cleared - back);

    let killed = cluster.signal(4, Signal::KILL);
    let known = cluster.known("peer-suspect", 4, &[1, 2, 3, 5]);
    eprintln!("SIGKILL is known to all after {:.0?}", known - killed);
    // Two of five: the other three are a majority.
    let stopped = cluster.signal(1, Signal::STOP);
    let known = cluster.known("peer-suspect", 1, &[2, 3, 5]);
    eprintln!("SIGSTOP of a second one is known to all after {:.0?}", known - stopped);
    cluster.signal(1, Signal::CONT);
}
