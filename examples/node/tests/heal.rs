//! The healer of a node, with three real processes: what it does about a fault that Raft does not heal, what
//! it records, and that it does nothing in a dry run or without a fault.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

/// Generous: only a test that fails waits for it.
const LIMIT: Duration = Duration::from_secs(90);
/// The start-up grace of the healer, and some.
const GRACE: Duration = Duration::from_secs(11);
/// Every `fdatasync` of a slow disk takes this much longer.
const DELAY: Duration = Duration::from_millis(700);

/// The configuration of an operator.
const OPERATOR: &str = "operator/operator.toml";

fn x0_node() -> Command {
    Command::new(env!("CARGO_BIN_EXE_x0-node"))
}

/// Three nodes with a healer, and when the last one was started.
struct Cluster {
    folder: TempDir,
    /// The processes of nodes 1 to 3, and of a spare.
    processes: [Option<Child>; 4],
    started: Instant,
    /// The section `[heal]` of all nodes.
    heal: String,
    puts: std::cell::Cell<u32>,
}

impl Cluster {
    /// Three nodes that serve, with this section `[heal]`.
    fn started(heal: &str) -> Cluster {
        // A disk of memory is never slow by itself.
        let memory = Path::new("/dev/shm");
        let folder = tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir()).unwrap();
        init(folder.path());
        build_slow_disk(&folder.path().join("slow_disk.so"));
        let mut cluster = Cluster {
            folder,
            processes: [None, None, None, None],
            heal: heal.into(),
            started: Instant::now(),
            puts: std::cell::Cell::default(),
        };
        for number in 1..=3 {
            cluster.configure(number);
            cluster.start(number);
        }
        until("a put", || cluster.put().is_some());
        cluster
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self, number: usize) -> PathBuf {
        self.path(&format!("node-{number}/node.toml"))
    }

    /// Adds the section `[heal]` to the configuration of a node.
    fn configure(&self, number: usize) {
        let mut config = fs::OpenOptions::new().append(true).open(self.config(number)).unwrap();
        writeln!(config, "\n[heal]\n{}", self.heal).unwrap();
    }

    fn kill(&mut self, number: usize) {
        if let Some(mut process) = self.processes[number - 1].take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Starts node 4 and makes it a learner.
    fn add_spare(&mut self) {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap().to_string();
        drop(socket);
        let folder = self.folder.path().to_owned();
        let issued = x0_node()
            .args(["issue", "--node", "4", "--address", &address, "--dir"])
            .arg(folder)
            .output()
            .unwrap();
        assert!(issued.status.success(), "{issued:?}");
        self.configure(4);
        self.start(4);
        let added = self.run(&["member", "add", "4", "--address", &address], &self.path(OPERATOR));
        assert!(added.status.success(), "{added:?}");
    }

    /// The role of each member, by number.
    fn roles(&self) -> BTreeMap<u64, String> {
        let output = self.run(&["member", "list", "--json"], &self.path(OPERATOR));
        let Ok(list) = serde_json::from_slice::<serde_json::Value>(&output.stdout) else {
            return BTreeMap::new();
        };
        let role = |member: &serde_json::Value| {
            let number = u64::from_str_radix(member["node"].as_str().unwrap(), 16).unwrap();
            (number, member["role"].as_str().unwrap().into())
        };
        list["members"].as_array().unwrap().iter().map(role).collect()
    }

    /// Starts a node and waits until it has started. A thread collects its log in a file.
    fn start(&mut self, number: usize) {
        let mut child = x0_node()
            .arg("run")
            .arg("--config")
            .arg(self.config(number))
            .env("LD_PRELOAD", self.path("slow_disk.so"))
            .env("X0_TEST_DELAY_FILE", self.path(&format!("delay-{number}")))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let text: Vec<String> =
            lines.by_ref().map(Result::unwrap).take_while(|line| !line.contains("event=started")).collect();
        assert!(child.try_wait().unwrap().is_none(), "{text:?}");
        self.started = Instant::now();
        let mut log = fs::File::create(self.path(&format!("node-{number}.log"))).unwrap();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                // The folder may be gone at the end of the test.
                let _ = writeln!(log, "{line}");
            }
        });
        self.processes[number - 1] = Some(child);
    }

    /// Makes the disk of a node slow.
    fn slow_down(&self, number: usize) {
        fs::write(self.path(&format!("delay-{number}")), DELAY.as_millis().to_string()).unwrap();
    }

    fn run(&self, arguments: &[&str], config: &Path) -> Output {
        x0_node().args(arguments).arg("--config").arg(config).output().unwrap()
    }

    /// Writes a key. The time that it took; `None` if it failed.
    fn put(&self) -> Option<Duration> {
        let begun = Instant::now();
        let key = format!("key-{}", self.puts.replace(self.puts.get() + 1));
        let put = self.run(&["kv", "put", &key, "1"], &self.path("client/client.toml"));
        put.status.success().then(|| begun.elapsed())
    }

    /// The node that all running nodes call the leader.
    fn leader(&self) -> Option<usize> {
        let output = self.run(&["status", "--json"], &self.path("client/client.toml"));
        let rows: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).ok()?;
        let mut leaders = (1..).zip(&rows).filter(|(_, row)| row["is_leader"] == true);
        let leader = leaders.next()?.0;
        leaders.next().is_none().then_some(leader)
    }

    /// The leader, once there is one.
    fn a_leader(&self) -> usize {
        let leader = std::cell::Cell::new(None);
        until("a leader", || {
            leader.set(self.leader());
            leader.get().is_some()
        });
        leader.get().unwrap()
    }

    /// The lines of `heal log` of a node.
    fn heal_log(&self, number: usize) -> Vec<String> {
        let output = self.run(&["heal", "log"], &self.config(number));
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().lines().map(Into::into).collect()
    }

    /// The number of the first record of a node whose line has this text.
    fn record(&self, number: usize, text: &str) -> Option<String> {
        let lines = self.heal_log(number);
        let line = lines.iter().find(|line| line.contains(text))?;
        line.strip_prefix("record=")?.split(' ').next().map(Into::into)
    }

    /// The text of `heal why`.
    fn why(&self, number: usize, record: &str) -> String {
        let output = self.run(&["heal", "why", record], &self.config(number));
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Puts until the start-up grace is over. No healer may have recorded anything, a refusal neither, and
    /// the leader, which is returned, has not changed.
    fn healthy_run(&self) -> usize {
        let leader = self.a_leader();
        while self.started.elapsed() < GRACE {
            self.put().unwrap();
        }
        for number in 1..=3 {
            assert_eq!(self.heal_log(number), [""; 0], "node {number}");
        }
        assert_eq!(self.leader(), Some(leader));
        leader
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        (1..=4).for_each(|number| self.kill(number));
    }
}

/// The folder of three nodes on free ports.
fn init(folder: &Path) {
    for _ in 0..50 {
        let base = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let Some(end) = base.checked_add(3) else { continue };
        if !(base..end).all(|port| UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok()) {
            continue;
        }
        let made = x0_node()
            .args(["init", "--trust-domain", "test.example", "--nodes", "3", "--base-port"])
            .args([&base.to_string(), "--dir"])
            .arg(folder)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        return;
    }
    panic!("no free ports");
}

/// Compiles the library that delays `fdatasync`. The C compiler is the one that links this test.
fn build_slow_disk(library: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/heal/slow_disk.c");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([library, source.as_path()])
        .arg("-ldl")
        .output()
        .unwrap();
    assert!(built.status.success(), "{built:?}");
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < LIMIT, "{LIMIT:?} have passed without: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits for three puts in a row that are faster than `limit`.
fn until_puts_are_fast(cluster: &Cluster, limit: Duration) {
    until("fast puts", || (0..3).all(|_| cluster.put().is_some_and(|took| took < limit)));
}

#[test]
fn the_leadership_leaves_a_slow_disk() {
    let cluster = Cluster::started("mode = \"active\"");
    let slow = cluster.healthy_run();
    cluster.slow_down(slow);
    let begun = Instant::now();
    until("another leader", || {
        // The put that is under way at that moment succeeds too.
        cluster.put().unwrap();
        cluster.leader().is_some_and(|leader| leader != slow)
    });
    let moved = begun.elapsed();
    until_puts_are_fast(&cluster, DELAY);
    eprintln!("another leader after {moved:.1?}, fast puts after {:.1?}", begun.elapsed());

    // The record of the action, and of its proof.
    let executing = cluster.record(slow, "executing").unwrap();
    let why = cluster.why(slow, &executing);
    for text in ["transfer-leadership of", "slow-disk", "write_age_seconds was", "all numbers follow"] {
        assert!(why.contains(text), "{why}");
    }
    until("the proof", || {
        cluster.put();
        cluster.record(slow, ": helped: ").is_some()
    });
    // The healers of the other disks have nothing to say, and the leadership stays where it is.
    for other in (1..=3).filter(|other| *other != slow) {
        assert_eq!(cluster.heal_log(other), [""; 0], "node {other}");
    }
    assert_ne!(cluster.leader(), Some(slow));
    let log = fs::read_to_string(cluster.path(&format!("node-{slow}.log"))).unwrap();
    assert!(log.contains("event=heal"), "{log}");
}

/// Stops a process for 350 of every 400 ms, until this is dropped.
struct Starvation {
    is_over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Starvation {
    fn of(process: &Child) -> Starvation {
        let pid = i32::try_from(process.id()).unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&is_over);
        let starve = move || {
            while !until.load(Ordering::SeqCst) {
                send(pid, Signal::STOP);
                std::thread::sleep(Duration::from_millis(350));
                send(pid, Signal::CONT);
                std::thread::sleep(Duration::from_millis(50));
            }
        };
        Starvation { is_over, thread: Some(std::thread::spawn(starve)) }
    }
}

impl Drop for Starvation {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

fn send(pid: i32, signal: Signal) {
    // Fails only once the process has ended.
    let _ = rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal);
}

#[test]
fn the_leadership_leaves_a_starved_process() {
    let cluster = Cluster::started("mode = \"active\"");
    let starved = cluster.healthy_run();
    let begun = Instant::now();
    let _starvation = Starvation::of(cluster.processes[starved - 1].as_ref().unwrap());
    // Asks the others: what the starved one says comes late.
    let others: Vec<usize> = (1..=3).filter(|other| *other != starved).collect();
    until("another leader", || {
        cluster.put();
        cluster.leader().is_some_and(|leader| others.contains(&leader))
    });
    let moved = begun.elapsed();
    // The starved node hands over, or one of the others takes over: whichever is first.
    let healer = proven(&cluster);
    eprintln!("another leader after {moved:.1?}, by the healer of node {healer}");
    let why = cluster.why(healer, &cluster.record(healer, "executing").unwrap());
    let texts = match healer == starved {
        true => ["transfer-leadership of", "sees starved", "stalled_share was", "stalls was"],
        false => ["take-over of", "sees starved", "leader_silent_share was", "leader_gaps was"],
    };
    for text in texts.into_iter().chain(["all numbers follow"]) {
        assert!(why.contains(text), "{why}");
    }
}

/// The first node whose healer has proven that its action helped.
fn proven(cluster: &Cluster) -> usize {
    let healer = std::cell::Cell::new(None);
    until("the proof", || {
        cluster.put();
        healer.set((1..=3).find(|number| cluster.record(*number, ": helped: ").is_some()));
        healer.get().is_some()
    });
    healer.get().unwrap()
}

/// A leader that does nothing about itself: here its transfer waits for a person.
#[test]
fn followers_take_over_from_a_starved_leader() {
    let cluster = Cluster::started("mode = \"active\"\napprove = [\"transfer-leadership\"]");
    let starved = cluster.healthy_run();
    let begun = Instant::now();
    let _starvation = Starvation::of(cluster.processes[starved - 1].as_ref().unwrap());
    let others: Vec<usize> = (1..=3).filter(|other| *other != starved).collect();
    until("another leader", || {
        cluster.put();
        cluster.leader().is_some_and(|leader| others.contains(&leader))
    });
    eprintln!("another leader after {:.1?}", begun.elapsed());
    let healer = proven(&cluster);
    // Both followers suspect it, and select the same successor.
    assert_eq!(healer, others[0]);
    let why = cluster.why(healer, &cluster.record(healer, "executing").unwrap());
    for text in ["take-over of", "sees starved", "leader_gaps was", "all numbers follow"] {
        assert!(why.contains(text), "{why}");
    }
    assert_eq!(cluster.record(others[1], "executing"), None);
    assert_eq!(cluster.record(starved, "executing"), None);
}

#[test]
fn a_dry_run_records_what_it_would_do_and_does_nothing() {
    let cluster = Cluster::started("");
    let slow = cluster.healthy_run();
    cluster.slow_down(slow);
    until("a record", || {
        cluster.put();
        cluster.record(slow, "would be done").is_some()
    });
    let why = cluster.why(slow, &cluster.record(slow, "would be done").unwrap());
    assert!(why.contains("slow-disk") && why.contains("all numbers follow"), "{why}");
    // Puts wait for the disk still.
    for _ in 0..3 {
        let took = cluster.put().unwrap();
        assert!(took >= DELAY, "{took:?}");
    }
    assert_eq!(cluster.leader(), Some(slow));
    assert_eq!(cluster.record(slow, "executing"), None);
}

#[test]
fn an_operator_pauses_the_healers_and_approves_what_they_ask() {
    let mut cluster = Cluster::started("mode = \"active\"\napprove = [\"transfer-leadership\"]");
    let slow = cluster.a_leader();
    let heal = |cluster: &Cluster, arguments: &[&str]| {
        let arguments: Vec<&str> = ["heal"].iter().chain(arguments).copied().collect();
        let output = cluster.run(&arguments, &cluster.path(OPERATOR));
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    // Only an operator may.
    let client = cluster.run(&["heal", "pause", "--reason", "mine"], &cluster.path("client/client.toml"));
    let refused = String::from_utf8_lossy(&client.stderr);
    assert!(!client.status.success() && refused.contains("only an operator"), "{refused}");
    let (is_done, _) = heal(&cluster, &["pause", "--for", "1h", "--reason", "maintenance"]);
    assert!(is_done);
    cluster.slow_down(slow);
    until("the reason", || {
        cluster.put().unwrap();
        heal(&cluster, &["why-not", &slow.to_string()]).1.contains("guard `pause`")
    });
    // A restart does not end it.
    let follower = slow % 3 + 1;
    cluster.kill(follower);
    cluster.start(follower);
    until("the pause after the restart", || {
        heal(&cluster, &["status"]).1.matches("s more: maintenance").count() == 3
    });
    assert!(heal(&cluster, &["resume"]).0);
    let mut question = String::new();
    until("a question", || {
        cluster.put().unwrap();
        question = heal(&cluster, &["status"]).1;
        question.contains("heal approve ")
    });
    assert_eq!(cluster.leader(), Some(slow), "nothing is done before a person approves");
    let id = question.split("question ").nth(1).unwrap().split(':').next().unwrap().to_owned();
    assert!(!heal(&cluster, &["approve", "999", "--node", &slow.to_string()]).0);
    assert!(heal(&cluster, &["approve", &id, "--node", &slow.to_string()]).0);
    until("another leader", || {
        cluster.put().unwrap();
        cluster.leader().is_some_and(|leader| leader != slow)
    });
}

#[test]
fn a_slow_disk_of_a_follower_is_left_alone() {
    let cluster = Cluster::started("mode = \"active\"");
    let leader = cluster.healthy_run();
    cluster.slow_down(leader % 3 + 1);
    // Longer than what the healer waits before it acts: it samples, is stable and acts within 4 s.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(6) {
        cluster.put().unwrap();
    }
    for number in 1..=3 {
        assert_eq!(cluster.heal_log(number), [""; 0], "node {number}");
    }
    assert_eq!(cluster.leader(), Some(leader));
}

/// No healer is needed: a member that the client reaches passes its operations on to the leader.
#[test]
fn a_client_that_does_not_reach_the_leader_is_served() {
    let cluster = Cluster::started("mode = \"off\"");
    let leader = cluster.a_leader();
    // Packets to this address arrive nowhere, and nothing is answered.
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let config = fs::read_to_string(cluster.config(leader)).unwrap();
    let listen = config.lines().find(|line| line.starts_with("listen")).unwrap();
    let address = listen.split('"').nth(1).unwrap();
    let client = cluster.path("client/client.toml");
    let text = fs::read_to_string(&client).unwrap();
    assert!(text.contains(address), "{text}");
    fs::write(&client, text.replace(address, &silent.local_addr().unwrap().to_string())).unwrap();
    let begun = Instant::now();
    until("three puts in a row", || (0..3).all(|_| cluster.put().is_some()));
    eprintln!("three puts past the leader within {:.1?}", begun.elapsed());
    for number in 1..=3 {
        assert_eq!(cluster.heal_log(number), [""; 0], "node {number}");
    }
}

#[test]
fn a_spare_replaces_a_dead_voter_which_is_none_when_it_returns() {
    let mut cluster = Cluster::started("mode = \"active\"\nreplace_after_s = 10");
    cluster.add_spare();
    let leader = cluster.a_leader();
    let (dead, other) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    let roles = cluster.roles();
    assert_eq!(roles.values().filter(|role| *role == "voter").count(), 3, "{roles:?}");
    cluster.kill(dead);
    let begun = Instant::now();
    let expect: BTreeMap<u64, String> =
        [leader, other, 4].map(|number| (number as u64, "voter".to_owned())).into();
    until("a spare in the place of the dead voter", || {
        cluster.put().unwrap();
        let roles = cluster.roles();
        // Never fewer voters: with the dead one, or with the spare.
        let voters = roles.values().filter(|role| *role == "voter").count();
        assert!(roles.is_empty() || voters == 3, "{roles:?}");
        roles == expect
    });
    let replaced = begun.elapsed();
    assert!(replaced >= Duration::from_secs(10), "{replaced:?}");
    until("the proof", || cluster.record(leader, ": helped: ").is_some());
    eprintln!("replaced after {replaced:.1?}");
    let why = cluster.why(leader, &cluster.record(leader, "executing").unwrap());
    for text in [
        "replace-voter of",
        "executing, fence",
        "sees dead",
        "silent_seconds was",
        "threshold 10",
        "all numbers follow",
    ] {
        assert!(why.contains(text), "{why}");
    }
    // The dead member returns and is no voter.
    cluster.start(dead);
    for _ in 0..3 {
        cluster.put().unwrap();
    }
    // A replaced voter knows no leader: a command that asks it gets its answer from another member.
    until("the members", || {
        let roles = cluster.roles();
        assert!(roles.is_empty() || roles == expect, "{roles:?}");
        roles == expect
    });
    // The new voter counts: with the leader it is a majority.
    cluster.kill(other);
    until("a put of two of three", || cluster.put().is_some());
}

#[test]
fn the_number_of_voters_is_kept() {
    let mut cluster = Cluster::started("mode = \"active\"\nvoters = 3");
    cluster.add_spare();
    let leader = cluster.a_leader();
    let voters = |roles: &BTreeMap<u64, String>| roles.values().filter(|role| *role == "voter").count();
    let (other, operator) = ((leader % 3 + 1).to_string(), cluster.path(OPERATOR));
    let demoted = cluster.run(&["member", "demote", &other], &operator);
    assert!(demoted.status.success(), "{demoted:?}");
    let begun = Instant::now();
    // The record says that a voter was missing: the healer may be faster than a look at the roles.
    until("the proof", || cluster.record(leader, ": helped: ").is_some());
    until("three voters", || voters(&cluster.roles()) == 3);
    eprintln!("a spare is a voter after {:.1?}", begun.elapsed());
    let why = cluster.why(leader, &cluster.record(leader, "executing").unwrap());
    for text in ["promote-spare of", "too-few-voters", "missing_voters was", "all numbers follow"] {
        assert!(why.contains(text), "{why}");
    }
    // One more than there should be: a voter goes, and not the leader.
    let learner = cluster.roles().into_iter().find(|(_, role)| role == "learner").unwrap().0.to_string();
    let promoted = cluster.run(&["member", "promote", &learner], &operator);
    assert!(promoted.status.success(), "{promoted:?}");
    until("three voters", || {
        let roles = cluster.roles();
        assert!(roles.is_empty() || voters(&roles) >= 3, "{roles:?}");
        let is_recorded = (1..=4).any(|number| cluster.record(number, "demote-voter").is_some());
        voters(&roles) == 3 && is_recorded
    });
    until("a put", || cluster.put().is_some());
}
