//! The program as an operator uses it: three nodes, the command line, and the messages for wrong input.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Generous: only a test that fails waits for it.
const LIMIT: Duration = Duration::from_secs(60);

fn x0_node() -> Command {
    Command::new(env!("CARGO_BIN_EXE_x0-node"))
}

/// A cluster's folder, made by `init`.
struct Cluster {
    folder: TempDir,
    nodes: Vec<Node>,
}

/// A running node. A thread collects its log after the start, so that the pipe never fills up.
struct Node {
    child: Child,
    text: Option<JoinHandle<String>>,
}

impl Node {
    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for its end. Returns its exit code and its log.
    fn ended(&mut self) -> (Option<i32>, String) {
        let begun = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            if begun.elapsed() > LIMIT {
                self.kill();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        (self.child.wait().unwrap().code(), self.text.take().unwrap().join().unwrap())
    }
}

impl Cluster {
    fn init(nodes: u16) -> Cluster {
        for _ in 0..50 {
            let base = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
            let Some(end) = base.checked_add(nodes) else { continue };
            if !(base..end).all(|port| UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok()) {
                continue;
            }
            let folder = tempfile::tempdir().unwrap();
            let made = x0_node()
                .args(["init", "--trust-domain", "test.example", "--nodes", &nodes.to_string()])
                .args(["--base-port", &base.to_string(), "--dir"])
                .arg(folder.path())
                .output()
                .unwrap();
            assert!(made.status.success(), "{made:?}");
            return Cluster { folder, nodes: Vec::new() };
        }
        panic!("no free ports");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self, number: usize) -> PathBuf {
        self.path(&format!("node-{number}/node.toml"))
    }

    /// Starts a node and waits until it has started.
    fn start(&mut self, number: usize) -> usize {
        let mut child = x0_node()
            .arg("run")
            .arg("--config")
            .arg(self.config(number))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let text: Vec<String> =
            lines.by_ref().map(Result::unwrap).take_while(|line| !line.contains("started")).collect();
        assert!(child.try_wait().unwrap().is_none(), "{text:?}");
        let rest = move || lines.map_while(Result::ok).fold(String::new(), |text, line| text + &line + "\n");
        self.nodes.push(Node { child, text: Some(std::thread::spawn(rest)) });
        self.nodes.len() - 1
    }

    fn kv(&self, arguments: &[&str]) -> Output {
        x0_node()
            .arg("kv")
            .args(arguments)
            .arg("--config")
            .arg(self.path("client/client.toml"))
            .output()
            .unwrap()
    }

    /// Puts a value that is too long for a command line.
    fn put_long(&self, key: &str, value: &str) -> Output {
        let mut put = x0_node()
            .args(["kv", "put", key, "-", "--config"])
            .arg(self.path("client/client.toml"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that fails early does not read its input.
        let _ = put.stdin.take().unwrap().write_all(value.as_bytes());
        put.wait_with_output().unwrap()
    }

    /// The output of the command, which must succeed.
    fn answer(&self, arguments: &[&str]) -> String {
        let output = self.kv(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn change(&self, file: &Path, from: &str, to: &str) {
        let text = fs::read_to_string(file).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(file, text.replace(from, to)).unwrap();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.nodes.iter_mut().for_each(Node::kill);
    }
}

/// Runs a node that must refuse to start. Returns its messages.
fn refusal(config: &Path) -> String {
    let mut child = x0_node().arg("run").arg("--config").arg(config).stderr(Stdio::piped()).spawn().unwrap();
    let text = child.stderr.take().unwrap();
    let text = std::thread::spawn(move || std::io::read_to_string(text).unwrap());
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > LIMIT {
            let _ = child.kill();
            panic!("it runs: {}", text.join().unwrap());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let (status, text) = (child.wait().unwrap(), text.join().unwrap());
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(!text.contains("panicked"), "{text}");
    text
}

/// One of three nodes runs: there is no majority, and the CRDT keyspace accepts writes, which survive a kill.
#[test]
fn a_node_alone_serves_its_crdt_keyspace() {
    let mut cluster = Cluster::init(3);
    let node = cluster.start(1);
    cluster.answer(&["put", "greeting", "hello", "--crdt"]);
    assert_eq!(cluster.answer(&["add", "visits", "3", "--crdt"]).trim_end(), "3");
    assert_eq!(cluster.answer(&["add", "visits", "-1", "--crdt"]).trim_end(), "2");
    cluster.nodes[node].kill();
    cluster.start(1);
    assert_eq!(cluster.answer(&["get", "greeting", "--crdt"]).trim_end(), "hello");
    assert_eq!(cluster.answer(&["siblings", "greeting", "--crdt"]).trim_end(), "hello");
    assert_eq!(cluster.answer(&["add", "visits", "0", "--crdt"]).trim_end(), "2");
    assert!(cluster.answer(&["range", "--crdt", "--keys-only"]).contains("greeting"));
    let swap = cluster.kv(&["cas", "greeting", "hi", "--expect", "hello", "--crdt"]);
    let text = String::from_utf8(swap.stderr).unwrap();
    assert!(swap.status.code() == Some(1) && text.contains("linearizable store"), "{text}");
    cluster.answer(&["del", "greeting", "--crdt"]);
    assert_eq!(cluster.kv(&["get", "greeting", "--crdt"]).status.code(), Some(3));
}

#[test]
fn three_nodes_serve_the_command_line_and_survive_a_kill() {
    let mut cluster = Cluster::init(3);
    let nodes = [1, 2, 3].map(|number| cluster.start(number));
    cluster.answer(&["put", "greeting", "hello"]);
    assert_eq!(cluster.answer(&["get", "greeting", "--raw"]).trim_end(), "hello");
    let other = cluster.kv(&["cas", "greeting", "hi", "--expect", "good day"]);
    assert_eq!(other.status.code(), Some(3), "{other:?}");
    cluster.answer(&["cas", "greeting", "hi", "--expect", "hello"]);
    assert_eq!(cluster.kv(&["cas", "greeting", "x", "--absent"]).status.code(), Some(3));
    cluster.answer(&["cas", "absent", "x", "--absent"]);
    assert_eq!(cluster.kv(&["get", "never"]).status.code(), Some(3));
    for key in ["a/1", "a/2", "b/1"] {
        cluster.answer(&["put", key, "x"]);
    }
    let range = cluster.answer(&["range", "a/"]);
    assert!(range.contains("a/1") && range.contains("a/2") && !range.contains("b/1"), "{range}");
    cluster.answer(&["del", "a/1"]);
    assert_eq!(cluster.kv(&["get", "a/1"]).status.code(), Some(3));
    // SIGKILL for all of them; acknowledged writes must survive.
    for node in nodes {
        cluster.nodes[node].kill();
    }
    for number in [1, 2] {
        cluster.start(number);
    }
    assert_eq!(cluster.answer(&["get", "greeting", "--raw"]).trim_end(), "hi");
    let status =
        x0_node().args(["status", "--config"]).arg(cluster.path("client/client.toml")).output().unwrap();
    let status = String::from_utf8(status.stdout).unwrap();
    assert!(
        status.contains("leader") && status.contains("follower") && status.contains("unreachable"),
        "{status}"
    );
}

#[test]
#[cfg(unix)]
fn a_signal_stops_a_node_and_releases_its_folder_and_port() {
    let mut cluster = Cluster::init(1);
    for signal in ["TERM", "INT"] {
        let node = cluster.start(1);
        cluster.answer(&["put", "signal", signal]);
        let pid = cluster.nodes[node].child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
        let (code, text) = cluster.nodes[node].ended();
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("event=stopped"), "{text}");
    }
    // The folder and the port are free, and the value is present.
    cluster.start(1);
    assert_eq!(cluster.answer(&["get", "signal"]), "INT\n");
}

#[test]
#[cfg(unix)]
fn sighup_reloads_the_identity() {
    let mut cluster = Cluster::init(2);
    let first = cluster.start(1);
    cluster.start(2);
    cluster.answer(&["put", "a", "1"]);
    let issued =
        x0_node().args(["issue", "--node", "1", "--dir"]).arg(cluster.folder.path()).status().unwrap();
    assert!(issued.success());
    let pid = cluster.nodes[first].child.id().to_string();
    assert!(Command::new("kill").args(["-s", "HUP", &pid]).status().unwrap().success());
    cluster.answer(&["put", "a", "2"]);
    // A file that is not an identity is refused, and the previous one stays in use.
    fs::write(cluster.path("node-1/svid.pem"), "nothing").unwrap();
    assert!(Command::new("kill").args(["-s", "HUP", &pid]).status().unwrap().success());
    cluster.answer(&["put", "a", "3"]);
    assert!(Command::new("kill").args(["-s", "TERM", &pid]).status().unwrap().success());
    let (code, text) = cluster.nodes[first].ended();
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("event=identity-rotated") && text.contains("event=reload-failed"), "{text}");
}

#[test]
fn a_client_that_is_not_trusted_fails_at_once() {
    let mut cluster = Cluster::init(1);
    cluster.start(1);
    let members = fs::read_to_string(cluster.path("client/client.toml")).unwrap();
    let members = &members[members.find("[[members]]").unwrap()..];
    for domain in ["test.example", "other.example"] {
        // An authority of the same name is another one still.
        let other = tempfile::tempdir().unwrap();
        let made = x0_node()
            .args(["init", "--trust-domain", domain, "--nodes", "1", "--dir"])
            .arg(other.path())
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let client = other.path().join("client/client.toml");
        let text = fs::read_to_string(&client).unwrap().replace("timeout_ms = 10000", "timeout_ms = 60000");
        fs::write(&client, format!("{}{members}", &text[..text.find("[[members]]").unwrap()])).unwrap();
        let begun = Instant::now();
        let output = x0_node().args(["kv", "get", "a", "--config"]).arg(&client).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(begun.elapsed() < LIMIT, "{text}");
        assert!(text.contains("trust_domain") && text.contains("was not accepted"), "{text}");
    }
}

#[test]
fn an_address_without_a_node_is_named() {
    let cluster = Cluster::init(1);
    cluster.change(&cluster.path("client/client.toml"), "timeout_ms = 10000", "timeout_ms = 200");
    let output = cluster.kv(&["get", "a"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("0 of 1 members are connected") && text.contains("timed out"), "{text}");
}

#[test]
fn a_bad_configuration_names_line_and_field() {
    let cluster = Cluster::init(1);
    let config = cluster.config(1);
    cluster.change(&config, "listen", "lisen");
    let text = refusal(&config);
    for word in ["node.toml", "line 4", "unknown field `lisen`", "`listen`"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let text = refusal(&cluster.path("nothing.toml"));
    assert!(text.contains("nothing.toml") && text.contains("x0-node init"), "{text}");
}

#[test]
fn a_port_in_use_is_named() {
    let cluster = Cluster::init(1);
    let text = fs::read_to_string(cluster.config(1)).unwrap();
    let listen = text.lines().find(|line| line.starts_with("listen")).unwrap();
    let address = listen.split('"').nth(1).unwrap();
    let _holder = UdpSocket::bind(address).unwrap();
    let text = refusal(&cluster.config(1));
    assert!(text.contains(address) && text.contains("in use"), "{text}");
}

#[test]
fn a_wrong_trust_domain_is_named() {
    let cluster = Cluster::init(1);
    cluster.change(&cluster.config(1), "test.example", "other.example");
    let text = refusal(&cluster.config(1));
    assert!(
        text.contains("trust domain") && text.contains("other.example") && text.contains("test.example"),
        "{text}"
    );
}

#[test]
fn a_folder_in_use_is_named() {
    let mut cluster = Cluster::init(1);
    cluster.start(1);
    // The same data under another port.
    let text = fs::read_to_string(cluster.config(1)).unwrap();
    let listen = text.lines().find(|line| line.starts_with("listen")).unwrap();
    let port = listen.rsplit(':').next().unwrap().trim_end_matches('"');
    let free = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port().to_string();
    let second = cluster.path("node-1/second.toml");
    fs::write(&second, text.replace(&format!(":{port}\""), &format!(":{free}\""))).unwrap();
    let text = refusal(&second);
    assert!(text.contains("data") && (text.contains("in use") || text.contains("another process")), "{text}");
}

/// A small disk, which is gone when this is dropped.
struct Disk(PathBuf);

impl Disk {
    /// Mounts a disk at `path`. Needs root: without it the test fails under CI and is skipped elsewhere.
    fn mount(path: &Path) -> Option<Disk> {
        fs::create_dir_all(path).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=128m", "tmpfs"]).arg(path).output();
        if mounted.as_ref().is_ok_and(|mounted| mounted.status.success()) {
            return Some(Disk(path.to_owned()));
        }
        assert!(
            std::env::var_os("CI").is_none(),
            "under CI this must run, but no disk can be mounted: {mounted:?}"
        );
        eprintln!("skipped: cannot mount a small disk: {mounted:?}");
        None
    }

    fn resize(&self, size: &str) {
        let size = format!("remount,size={size}");
        assert!(Command::new("mount").args(["-o", &size]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// Fills the disk of `path` but for `free` bytes. A later call takes what became free since.
#[cfg(target_os = "linux")]
fn fill_up(path: &Path, free: u64) {
    // Truncating would free the disk for a moment.
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    let block = vec![1; 1 << 20];
    while file.write_all(&block).is_ok() {}
    let len = file.metadata().unwrap().len();
    file.set_len(len.saturating_sub(free)).unwrap();
}

/// A full disk of a cluster of one: writes to both stores are refused at once with the cause, reads go on,
/// log and status report it, and writes resume by themselves when there is space. Nothing that was
/// acknowledged is lost.
#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_refuses_writes_and_resumes_by_itself() {
    let mut cluster = Cluster::init(1);
    let data = cluster.path("node-1/small");
    let Some(disk) = Disk::mount(&data) else { return };
    let text = fs::read_to_string(cluster.config(1)).unwrap();
    let line = text.lines().find(|line| line.starts_with("data_dir")).unwrap();
    fs::write(cluster.config(1), text.replace(line, "data_dir = \"small\"\nreserve_mib = 40")).unwrap();
    let node = cluster.start(1);
    let value = "x".repeat(1_000_000);
    cluster.answer(&["put", "before", "v", "--crdt"]);
    let mut acknowledged = 0;
    let text = loop {
        let output = cluster.put_long(&format!("key/{acknowledged:05}"), &value);
        if !output.status.success() {
            break String::from_utf8(output.stderr).unwrap();
        }
        acknowledged += 1;
        assert!(acknowledged < 2000, "the disk never fills up");
    };
    assert!(acknowledged > 0, "{text}");
    for arguments in [&["put", "key", "v"][..], &["del", "absent"], &["put", "key", "v", "--crdt"]] {
        // A checkpoint frees parts of the log at any moment, and the node notices a change a few times per
        // second: a write may succeed until the disk is full again and the node has seen it.
        let begun = Instant::now();
        let output = loop {
            fill_up(&data.join("of-another-program"), 20 << 20);
            let output = cluster.kv(arguments);
            if !output.status.success() {
                break output;
            }
            assert!(begun.elapsed() < LIMIT, "{arguments:?} is not refused");
        };
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("no space") && text.contains("free some space"), "{text}");
        assert!(!text.contains("timed out"), "{text}");
    }
    assert_eq!(cluster.answer(&["get", "key/00000", "--raw"]).trim_end(), value);
    assert_eq!(cluster.answer(&["get", "before", "--crdt"]).trim_end(), "v");
    let status =
        x0_node().args(["status", "--config"]).arg(cluster.path("client/client.toml")).output().unwrap();
    assert!(String::from_utf8(status.stdout).unwrap().contains("refuses writes"));
    disk.resize("400m");
    let begun = Instant::now();
    while !cluster.kv(&["put", "key", "v"]).status.success() {
        assert!(begun.elapsed() < LIMIT, "writes do not resume");
    }
    cluster.answer(&["put", "key", "v", "--crdt"]);
    for number in [0, acknowledged / 2, acknowledged - 1] {
        let key = format!("key/{number:05}");
        assert_eq!(cluster.answer(&["get", &key, "--raw"]).trim_end(), value, "key {number}");
    }
    signal(&cluster.nodes[node].child, "TERM");
    let (code, text) = cluster.nodes[node].ended();
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("event=no-space") && text.contains("event=space-available"), "{text}");
}

/// Standard error as a pipe that is full and that nobody reads until the test does.
#[cfg(unix)]
fn full_pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    // The writer of a pipe blocks when it is full, so that this thread must not be the one that finds out.
    let mut filler = writer.try_clone().unwrap();
    let filled = std::thread::spawn(move || {
        // The capacity of a pipe, pipe(7).
        filler.write_all(&[b'.'; 65_536]).unwrap();
    });
    let begun = Instant::now();
    while !filled.is_finished() {
        assert!(begun.elapsed() < LIMIT, "the capacity of a pipe is not 65536 bytes here");
        std::thread::sleep(Duration::from_millis(5));
    }
    writer.flush().unwrap();
    (reader, writer)
}

#[cfg(unix)]
fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap().success());
}

/// The exit code of a process that must end within the five seconds that SIGTERM may take.
#[cfg(unix)]
fn ends_in_time(child: &mut Child) -> Option<i32> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if begun.elapsed() > Duration::from_secs(5) {
            let _ = child.kill();
            panic!("the process does not end within five seconds of SIGTERM");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A log that cannot be written delays neither requests nor the end of the process.
#[test]
#[cfg(unix)]
fn a_full_pipe_at_standard_error_stops_nothing() {
    let cluster = Cluster::init(1);
    let (_reader, writer) = full_pipe();
    let mut child =
        x0_node().arg("run").arg("--config").arg(cluster.config(1)).stderr(writer).spawn().unwrap();
    let put = cluster.kv(&["put", "greeting", "hello"]);
    let code = {
        signal(&child, "TERM");
        ends_in_time(&mut child)
    };
    assert!(put.status.success(), "{put:?}");
    assert_eq!(code, Some(0), "the stop was orderly");
}

/// A node whose event loop is blocked, here by a full pipe at its standard output, ends all the same, and not
/// with success.
#[test]
#[cfg(unix)]
fn sigterm_ends_a_blocked_event_loop() {
    let cluster = Cluster::init(1);
    let (_reader, writer) = full_pipe();
    let mut child = x0_node()
        .args(["run", "--control", "--config"])
        .arg(cluster.config(1))
        .stdin(Stdio::piped())
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut orders = child.stdin.take().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("event=started") {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "the node ended");
    }
    orders.write_all(b"{\"order\":\"status\"}\n").unwrap();
    signal(&child, "TERM");
    let code = ends_in_time(&mut child);
    let text = std::io::read_to_string(log).unwrap();
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("event=stop-forced"), "{text}");
}

/// Damages every page of a redb file that holds `pattern`, so that its type byte names no type of page.
fn damage_pages(file: &Path, pattern: &[u8]) -> usize {
    let mut bytes = fs::read(file).unwrap();
    let mut damaged = 0;
    // The first page is the header of the file.
    for page in bytes.chunks_exact_mut(4096).skip(1) {
        if page[0] == 1 && page.windows(pattern.len()).any(|window| window == pattern) {
            page[0] = 0xee;
            damaged += 1;
        }
    }
    fs::write(file, bytes).unwrap();
    damaged
}

/// Damage of the data file makes the storage engine panic. The process ends with an error that names the
/// folder.
#[test]
#[cfg(unix)]
fn a_damaged_data_file_ends_in_a_failure_that_names_it() {
    const PUTS: usize = 80;
    let mut cluster = Cluster::init(1);
    let node = cluster.start(1);
    let file = cluster.path("node-1/data/data.redb");
    let value = "rotten".repeat(170_000);
    let is_checkpointed = || {
        let bytes = fs::read(&file).unwrap();
        bytes
            .chunks_exact(4096)
            .any(|page| page[0] == 1 && page.windows(12).any(|window| window == b"rottenrotten"))
    };
    // More than the values that the node keeps in memory before a checkpoint writes them to the file.
    for number in 0..PUTS {
        let mut put = x0_node()
            .args(["kv", "put", &format!("key/{number:03}"), "-", "--config"])
            .arg(cluster.path("client/client.toml"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        put.stdin.take().unwrap().write_all(value.as_bytes()).unwrap();
        assert!(put.wait().unwrap().success());
    }
    let begun = Instant::now();
    while !is_checkpointed() {
        assert!(begun.elapsed() < LIMIT, "no checkpoint is written");
        std::thread::sleep(Duration::from_millis(20));
    }
    // The folder of a node that runs is not damaged.
    let verified = x0_node().arg("verify").arg("--config").arg(cluster.config(1)).output().unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&verified.stdout), String::from_utf8_lossy(&verified.stderr));
    assert_eq!(verified.status.code(), Some(1), "{text}");
    assert!(text.contains("in use by another process: stop the node"), "{text}");
    assert!(!text.to_lowercase().contains("damaged"), "{text}");
    signal(&cluster.nodes[node].child, "TERM");
    assert_eq!(cluster.nodes[node].ended().0, Some(0));
    let verify = |arguments: &[&str]| {
        x0_node().arg("verify").arg("--config").arg(cluster.config(1)).args(arguments).output().unwrap()
    };
    let verified = verify(&["--json"]);
    assert!(verified.status.success(), "{verified:?}");
    let text = String::from_utf8(verified.stdout).unwrap();
    for part in ["log", "data", "journal"] {
        assert!(text.contains(&format!("{{\"part\":\"{part}\"")), "{text}");
    }
    // One bit of one value: found by the verification, and by a start.
    let intact = fs::read(&file).unwrap();
    let mut rotten = intact.clone();
    let at = rotten.windows(12).rposition(|window| window == b"rottenrotten").unwrap();
    rotten[at] ^= 4;
    fs::write(&file, rotten).unwrap();
    let verified = verify(&[]);
    let text = String::from_utf8(verified.stderr).unwrap();
    assert_eq!(verified.status.code(), Some(1), "{text}");
    assert!(text.contains("data.redb") && text.contains("damaged"), "{text}");
    let text = refusal(&cluster.config(1));
    assert!(text.contains("data.redb"), "{text}");
    fs::write(&file, intact).unwrap();
    assert!(damage_pages(&file, b"rottenrotten") > 0, "no page holds a value");
    let mut child =
        x0_node().arg("run").arg("--config").arg(cluster.config(1)).stderr(Stdio::piped()).spawn().unwrap();
    let output = child.stderr.take().unwrap();
    let output = std::thread::spawn(move || std::io::read_to_string(output).unwrap());
    let begun = Instant::now();
    let mut served = String::new();
    let code = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        // Reads meet the damaged pages, unless the start did.
        let got = cluster.kv(&["get", "key/001"]);
        if got.status.success() {
            served = String::from_utf8(got.stdout).unwrap();
        }
        if begun.elapsed() > LIMIT {
            let _ = child.kill();
            panic!("the node runs on with damaged data: {}", output.join().unwrap());
        }
    };
    let text = output.join().unwrap();
    assert_eq!(code, Some(1), "{text}");
    assert!(text.lines().any(|line| line.starts_with("x0-node: ") && line.contains("/data")), "{text}");
    assert!(served.is_empty() || served.trim_end() == value, "a wrong value was served");
}

/// Carries out a command of an operator, or of the owner of another configuration.
fn administer(cluster: &Cluster, config: &str, arguments: &[&str]) -> Output {
    x0_node().args(arguments).arg("--config").arg(cluster.path(config)).output().unwrap()
}

#[test]
fn a_member_is_replaced_by_the_operator_and_by_nobody_else() {
    let mut cluster = Cluster::init(3);
    for number in 1..=3 {
        cluster.start(number);
    }
    cluster.answer(&["put", "key", "value"]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    drop(socket);
    let folder = cluster.path("");
    let issued = x0_node()
        .args(["issue", "--node", "4", "--address", &address, "--dir"])
        .arg(&folder)
        .output()
        .unwrap();
    assert!(issued.status.success(), "{issued:?}");
    cluster.start(4);

    let replace = ["member", "replace", "3", "4", "--address", &address, "--json"];
    let refused = administer(&cluster, "client/client.toml", &replace);
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && text.contains("is not an operator"), "{text}");

    let begun = Instant::now();
    let replaced = loop {
        let replaced = administer(&cluster, "operator/operator.toml", &replace);
        // Node 4 has just been started, and the leader may not have connected to it yet.
        let is_early = String::from_utf8_lossy(&replaced.stderr).contains("does not reach node");
        if !is_early || begun.elapsed() > LIMIT {
            break replaced;
        }
    };
    assert!(replaced.status.success(), "{replaced:?}");
    // The operator stops the machine that was replaced: a client may ask it first, and gets no answer from
    // it.
    cluster.nodes[2].kill();
    let again = administer(&cluster, "operator/operator.toml", &["member", "list", "--json"]);
    let list: serde_json::Value = serde_json::from_slice(&again.stdout).unwrap();
    let members: Vec<_> = list["members"].as_array().unwrap().iter().collect();
    let nodes: Vec<_> = members.iter().map(|member| member["node"].as_str().unwrap()).collect();
    assert_eq!(nodes, ["0000000000000001", "0000000000000002", "0000000000000004"]);
    assert!(members.iter().all(|member| member["role"] == "voter" && member["addresses"][0].is_string()));

    // Node 4 loses its vote and gets it back.
    let role = || {
        let shown = administer(&cluster, "operator/operator.toml", &["member", "list", "--json"]);
        let list: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
        list["members"].as_array().unwrap().iter().find(|member| member["node"] == nodes[2]).unwrap()["role"]
            .clone()
    };
    for (command, becomes) in [("demote", "learner"), ("promote", "voter")] {
        let changed = administer(&cluster, "operator/operator.toml", &["member", command, "4", "--json"]);
        assert!(changed.status.success(), "{changed:?}");
        let done: serde_json::Value = serde_json::from_slice(&changed.stdout).unwrap();
        assert!(done["done"].as_str().unwrap().contains(becomes), "{done}");
        assert_eq!(role(), becomes);
    }

    let place = usize::from(list["leader"] == nodes[0]);
    let to = nodes[place];
    let moved = administer(&cluster, "operator/operator.toml", &["leader", "transfer", to, "--json"]);
    assert!(moved.status.success(), "{moved:?}");
    let shown: serde_json::Value = serde_json::from_slice(&moved.stdout).unwrap();
    assert_eq!(shown["leader"], to);

    // With the leader down, the quorum of the members that are left must not be lost. The next leader knows
    // whom it does not reach; one that goes on would not know it in the first moment.
    cluster.nodes[place].kill();
    let begun = Instant::now();
    for command in ["remove", "demote"] {
        let text = loop {
            let refused = administer(&cluster, "operator/operator.toml", &["member", command, "4"]);
            let text = String::from_utf8(refused.stderr).unwrap();
            assert!(!refused.status.success(), "{text}");
            // The other voters notice the loss after a moment.
            if text.contains("lose the quorum") || begun.elapsed() > LIMIT {
                break text;
            }
        };
        assert!(text.contains("lose the quorum"), "{text}");
    }
    assert_eq!(cluster.answer(&["get", "key"]).trim(), "value");
}

#[test]
fn any_number_of_commands_share_the_identity_of_the_client() {
    let mut cluster = Cluster::init(1);
    cluster.start(1);
    cluster.answer(&["put", "key", "value"]);
    let config = cluster.path("client/client.toml");
    let commands: Vec<Child> = (0..16)
        .map(|number| {
            x0_node()
                .args(["kv", "put", &format!("key/{number}"), "value", "--config"])
                .arg(&config)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for command in commands {
        let output = command.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    let keys = cluster.answer(&["range", "key/", "--keys-only"]);
    assert_eq!(keys.lines().count(), 16);
}
