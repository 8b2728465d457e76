//! The program as an operator meets it: three nodes and the command line, and what it says when something is wrong.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
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
    nodes: Vec<Child>,
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

    /// Starts a node, and waits until it says that it listens.
    fn start(&mut self, number: usize) -> usize {
        let mut child = x0_node()
            .arg("run")
            .arg("--config")
            .arg(self.config(number))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let said: Vec<String> =
            lines.by_ref().map(Result::unwrap).take_while(|line| !line.contains("started")).collect();
        assert!(child.try_wait().unwrap().is_none(), "{said:?}");
        // What it says from now on is nobody's concern, but must be read.
        std::thread::spawn(move || lines.for_each(drop));
        self.nodes.push(child);
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

    /// What the command printed; it must succeed.
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
        for node in &mut self.nodes {
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

/// Runs a node that must refuse to, and gives what it said.
fn refusal(config: &Path) -> String {
    let mut child = x0_node().arg("run").arg("--config").arg(config).stderr(Stdio::piped()).spawn().unwrap();
    let said = child.stderr.take().unwrap();
    let said = std::thread::spawn(move || std::io::read_to_string(said).unwrap());
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > LIMIT {
            let _ = child.kill();
            panic!("it runs: {}", said.join().unwrap());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let (status, said) = (child.wait().unwrap(), said.join().unwrap());
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    said
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
    for key in ["a/1", "a/2", "b/1"] {
        cluster.answer(&["put", key, "x"]);
    }
    let range = cluster.answer(&["range", "a/"]);
    assert!(range.contains("a/1") && range.contains("a/2") && !range.contains("b/1"), "{range}");
    cluster.answer(&["del", "a/1"]);
    assert_eq!(cluster.kv(&["get", "a/1"]).status.code(), Some(3));
    // SIGKILL for all of them; what was acknowledged is there.
    for node in nodes {
        cluster.nodes[node].kill().unwrap();
        cluster.nodes[node].wait().unwrap();
    }
    for number in [1, 2] {
        cluster.start(number);
    }
    assert_eq!(cluster.answer(&["get", "greeting", "--raw"]).trim_end(), "hi");
    let status =
        x0_node().args(["status", "--config"]).arg(cluster.path("client/client.toml")).output().unwrap();
    let status = String::from_utf8(status.stdout).unwrap();
    assert!(
        status.contains("leads") && status.contains("follows") && status.contains("unreachable"),
        "{status}"
    );
}

#[test]
fn a_bad_configuration_names_line_and_field() {
    let cluster = Cluster::init(1);
    let config = cluster.config(1);
    cluster.change(&config, "listen", "lisen");
    let said = refusal(&config);
    assert!(said.contains("node.toml") && said.contains("lisen") && said.contains("listen"), "{said}");
    let said = refusal(&cluster.path("nothing.toml"));
    assert!(said.contains("nothing.toml") && said.contains("x0-node init"), "{said}");
}

#[test]
fn a_port_in_use_is_named() {
    let cluster = Cluster::init(1);
    let text = fs::read_to_string(cluster.config(1)).unwrap();
    let listen = text.lines().find(|line| line.starts_with("listen")).unwrap();
    let address = listen.split('"').nth(1).unwrap();
    let _holder = UdpSocket::bind(address).unwrap();
    let said = refusal(&cluster.config(1));
    assert!(said.contains(address) && said.contains("in use"), "{said}");
}

#[test]
fn a_wrong_trust_domain_is_named() {
    let cluster = Cluster::init(1);
    cluster.change(&cluster.config(1), "test.example", "other.example");
    let said = refusal(&cluster.config(1));
    assert!(
        said.contains("trust domain") && said.contains("other.example") && said.contains("test.example"),
        "{said}"
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
    let said = refusal(&second);
    assert!(said.contains("data") && (said.contains("in use") || said.contains("another process")), "{said}");
}

/// A disk of forty megabytes. Needs root for the mount: without it this is skipped, except in continuous integration.
#[test]
fn a_full_disk_is_named_and_loses_nothing() {
    let mut cluster = Cluster::init(1);
    let data = cluster.path("node-1/small");
    fs::create_dir(&data).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=40m", "tmpfs"]).arg(&data).output();
    if !mounted.as_ref().is_ok_and(|mounted| mounted.status.success()) {
        assert!(
            std::env::var_os("CI").is_none(),
            "continuous integration must be able to mount: {mounted:?}"
        );
        println!("skipped: needs root, to mount a small disk");
        return;
    }
    struct Mount(PathBuf);
    impl Drop for Mount {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("-l").arg(&self.0).output();
        }
    }
    let _mount = Mount(data.clone());
    let text = fs::read_to_string(cluster.config(1)).unwrap();
    let line = text.lines().find(|line| line.starts_with("data_dir")).unwrap();
    fs::write(cluster.config(1), text.replace(line, "data_dir = \"small\"")).unwrap();
    cluster.start(1);
    let value = "x".repeat(100_000);
    let mut acknowledged = 0;
    let said = loop {
        let output = cluster.kv(&["put", &format!("key/{acknowledged:05}"), &value]);
        if !output.status.success() {
            break String::from_utf8(output.stderr).unwrap();
        }
        acknowledged += 1;
        assert!(acknowledged < 2000, "the disk is never full");
    };
    assert!(acknowledged > 0 && !said.contains("panicked"), "{said}");
    // With room again everything acknowledged is there.
    let status = Command::new("mount").args(["-o", "remount,size=400m"]).arg(&data).status().unwrap();
    assert!(status.success());
    for mut node in std::mem::take(&mut cluster.nodes) {
        let _ = node.kill();
        node.wait().unwrap();
    }
    cluster.start(1);
    for number in [0, acknowledged / 2, acknowledged - 1] {
        assert_eq!(
            cluster.answer(&["get", &format!("key/{number:05}"), "--raw"]).trim_end(),
            value,
            "key {number}"
        );
    }
}
