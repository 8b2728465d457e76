//! A cluster's folder and its processes.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// Generous: only a test that fails waits for it.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn x0_node(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_x0-node"));
    command.args(arguments);
    command
}

/// Runs a command that must succeed, and returns its output.
pub(crate) fn answer(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A process with its log. It ends with the test, whatever happens.
pub(crate) struct Process {
    child: Child,
    lines: Receiver<String>,
    read: Vec<String>,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Process {
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

    /// Waits for the next line of the log with this text.
    pub(crate) fn logged(&mut self, text: &str) -> String {
        self.logged_both(text, "")
    }

    /// Waits for the next line of the log with both texts.
    pub(crate) fn logged_both(&mut self, one: &str, other: &str) -> String {
        let begun = Instant::now();
        while begun.elapsed() < LIMIT {
            let Ok(line) = self.lines.recv_timeout(LIMIT) else { break };
            self.read.push(line.clone());
            if line.contains(one) && line.contains(other) {
                return line;
            }
        }
        panic!("no line with `{one}` and `{other}`: {:#?}", self.read);
    }

    /// Sends a line to its standard input, which must be a pipe.
    pub(crate) fn order(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end, and waits. Returns how long that took.
    pub(crate) fn terminate(&mut self) -> Duration {
        let begun = Instant::now();
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
        begun.elapsed()
    }

    /// The lines of the log that were waited for, or came before one that was.
    pub(crate) fn read(&self) -> &[String] {
        &self.read
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A cluster's folder, made by `init`.
pub(crate) struct Cluster {
    folder: TempDir,
}

impl Cluster {
    pub(crate) fn init(nodes: u16) -> Cluster {
        Cluster::init_with(nodes, &[])
    }

    /// With more arguments of `init`.
    pub(crate) fn init_with(nodes: u16, more: &[&str]) -> Cluster {
        Cluster::of_domain("test.example", nodes, more)
    }

    /// With a trust domain of its own.
    pub(crate) fn of_domain(domain: &str, nodes: u16, more: &[&str]) -> Cluster {
        let free = |base: &u16| {
            (*base..base.saturating_add(nodes))
                .all(|port| UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
        };
        let base = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let base = (0..50).map(|_| base()).find(free).expect("free ports");
        let folder = tempfile::tempdir().unwrap();
        let (nodes, base) = (nodes.to_string(), base.to_string());
        let arguments = ["init", "--trust-domain", domain, "--nodes", &nodes, "--base-port", &base];
        answer(x0_node(&arguments).args(more).arg("--dir").arg(folder.path()));
        Cluster { folder }
    }

    pub(crate) fn root(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts a node and waits until it has started.
    pub(crate) fn start(&self, number: usize) -> Process {
        let config = self.path(&format!("node-{number}/node.toml"));
        let mut node = Process::start(x0_node(&["run", "--config"]).arg(config));
        node.logged("event=started");
        node
    }

    pub(crate) fn client(&self, arguments: &[&str]) -> Output {
        x0_node(arguments).arg("--config").arg(self.path("client/client.toml")).output().unwrap()
    }

    /// The rows of `identity --json`: this command, and each node.
    pub(crate) fn identities(&self) -> Vec<Value> {
        let output = self.client(&["identity", "--json"]);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub(crate) fn put(&self, value: &str) {
        let put = self.client(&["kv", "put", "key", value]);
        assert!(put.status.success(), "{put:?}");
    }
}

/// As a program that distributes files does it.
pub(crate) fn replace(file: &Path, content: &str) {
    let new = file.with_extension("new");
    fs::write(&new, content).unwrap();
    fs::rename(new, file).unwrap();
}
