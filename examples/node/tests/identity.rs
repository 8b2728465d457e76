//! Identities of running nodes: shown, renewed and re-rooted without a restart.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use x0_identity::{Authority, AuthorityOptions, SpiffeId, TrustDomain};

/// Generous: only a test that fails waits for it.
const LIMIT: Duration = Duration::from_secs(60);

fn x0_node(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_x0-node"));
    command.args(arguments);
    command
}

/// Runs a command that must succeed, and returns its output.
fn answer(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A process with its log. It ends with the test, whatever happens.
struct Process {
    child: Child,
    lines: Receiver<String>,
    read: Vec<String>,
}

impl Process {
    fn start(command: &mut Command) -> Process {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Process { child, lines, read: Vec::new() }
    }

    /// Waits for a line of the log with this text.
    fn logged(&mut self, text: &str) -> String {
        let begun = Instant::now();
        while begun.elapsed() < LIMIT {
            let Ok(line) = self.lines.recv_timeout(LIMIT) else { break };
            self.read.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
        panic!("no line with `{text}`: {:#?}", self.read);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A cluster's folder, made by `init`.
struct Cluster {
    folder: TempDir,
}

impl Cluster {
    fn init(nodes: u16) -> Cluster {
        let free = |base: &u16| {
            (*base..base.saturating_add(nodes))
                .all(|port| UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
        };
        let base = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let base = (0..50).map(|_| base()).find(free).expect("free ports");
        let folder = tempfile::tempdir().unwrap();
        let (nodes, base) = (nodes.to_string(), base.to_string());
        let arguments =
            ["init", "--trust-domain", "test.example", "--nodes", &nodes, "--base-port", &base, "--dir"];
        answer(x0_node(&arguments).arg(folder.path()));
        Cluster { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts a node and waits until it has started.
    fn start(&self, number: usize) -> Process {
        let config = self.path(&format!("node-{number}/node.toml"));
        let mut node = Process::start(x0_node(&["run", "--config"]).arg(config));
        node.logged("event=started");
        node
    }

    fn client(&self, arguments: &[&str]) -> Output {
        x0_node(arguments).arg("--config").arg(self.path("client/client.toml")).output().unwrap()
    }

    /// The rows of `identity --json`: this command, and each node.
    fn identities(&self) -> Vec<Value> {
        let output = self.client(&["identity", "--json"]);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn put(&self, value: &str) {
        let put = self.client(&["kv", "put", "key", value]);
        assert!(put.status.success(), "{put:?}");
    }
}

/// As a program that distributes files does it.
fn replace(file: &Path, content: &str) {
    let new = file.with_extension("new");
    fs::write(&new, content).unwrap();
    fs::rename(new, file).unwrap();
}

/// The root of the cluster is replaced in three steps, each by files alone: no signal, no restart.
#[test]
fn nodes_follow_a_new_root_without_a_restart() {
    let cluster = Cluster::init(2);
    let mut nodes = [1, 2].map(|number| cluster.start(number));
    cluster.put("before");
    let old = fs::read_to_string(cluster.path("authority/bundle.pem")).unwrap();
    let rows = cluster.identities();
    assert_eq!(rows.len(), 3, "{rows:?}");
    let first_root = rows[1]["signed_by"].as_str().unwrap().to_owned();
    for (row, path) in rows.iter().zip(["client/1", "node/0000000000000001", "node/0000000000000002"]) {
        assert_eq!(row["spiffe_id"], format!("spiffe://test.example/{path}"), "{row}");
        assert_eq!(row["signed_by"], first_root, "{row}");
        assert!(row["valid_until"].as_u64().unwrap() > 1_700_000_000, "{row}");
    }

    let domain = TrustDomain::parse("test.example").unwrap();
    let authority = Authority::new(domain, &AuthorityOptions::default()).unwrap();
    let new = authority.bundle().to_pem();
    let folders = ["node-1", "node-2", "client"];
    for folder in folders {
        replace(&cluster.path(folder).join("bundle.pem"), &format!("{old}{new}"));
    }
    for node in &mut nodes {
        node.logged("event=bundle-changed");
    }
    cluster.put("both roots");
    let ids = ["node/0000000000000001", "node/0000000000000002", "client/1"];
    for (folder, path) in folders.into_iter().zip(ids) {
        let id = SpiffeId::parse(&format!("spiffe://test.example/{path}")).unwrap();
        let svid = authority.issue(&id, Duration::from_secs(3600)).unwrap();
        replace(&cluster.path(folder).join("svid.pem"), &svid.to_pem());
    }
    for node in &mut nodes {
        node.logged("event=identity-rotated");
    }
    cluster.put("new identities");
    for folder in folders {
        replace(&cluster.path(folder).join("bundle.pem"), &new);
    }
    for node in &mut nodes {
        node.logged("event=bundle-changed");
    }
    cluster.put("new root alone");
    for row in cluster.identities() {
        assert_ne!(row["signed_by"], first_root, "{row}");
        assert_eq!(row["authorities"].as_array().unwrap().len(), 1, "{row}");
    }
    let table = String::from_utf8(cluster.client(&["identity"]).stdout).unwrap();
    assert!(table.contains("this command") && table.contains("valid until"), "{table}");

    // A bundle that does not trust the identity beside it is refused, and the one before stays in use.
    replace(&cluster.path("node-1/bundle.pem"), &old);
    let line = nodes[0].logged("event=reload-failed");
    assert!(line.contains("stay in use"), "{line}");
    cluster.put("still the new root");
}

#[test]
fn an_identity_command_without_nodes_says_so() {
    let cluster = Cluster::init(1);
    let output = cluster.client(&["identity"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && text.contains("no node answered"), "{text}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("no answer"), "{output:?}");
}
