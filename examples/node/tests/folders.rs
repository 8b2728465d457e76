//! Data folders that were emptied, restored from a copy or lost a file, with real processes: issue 10, V2 and
//! V3.
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

/// Three nodes; a running one has its process. `a` was the leader when all had started.
struct Cluster {
    folder: TempDir,
    processes: [Option<Child>; 3],
    a: usize,
    b: usize,
    c: usize,
}

impl Cluster {
    /// Three nodes that serve.
    fn started() -> Cluster {
        for _ in 0..50 {
            let base = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
            let Some(end) = base.checked_add(3) else { continue };
            if !(base..end).all(|port| UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok()) {
                continue;
            }
            let folder = tempfile::tempdir().unwrap();
            let made = x0_node()
                .args(["init", "--trust-domain", "test.example", "--nodes", "3", "--base-port"])
                .args([&base.to_string(), "--dir"])
                .arg(folder.path())
                .output()
                .unwrap();
            assert!(made.status.success(), "{made:?}");
            let mut cluster = Cluster { folder, processes: [None, None, None], a: 1, b: 2, c: 3 };
            cluster.write_clients();
            (1..=3).for_each(|number| cluster.start(number));
            cluster.put_until_done("begin", "1");
            let leader = cluster.status(|row| row["is_leader"] == true);
            cluster.a = leader.first().copied().unwrap_or(1);
            cluster.b = cluster.a % 3 + 1;
            cluster.c = cluster.b % 3 + 1;
            return cluster;
        }
        panic!("no free ports");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn data(&self, number: usize) -> PathBuf {
        self.path(&format!("node-{number}/data"))
    }

    fn config(&self, number: usize) -> PathBuf {
        self.path(&format!("node-{number}/node.toml"))
    }

    /// A client configuration for each node alone, and short timeouts.
    fn write_clients(&self) {
        let text = fs::read_to_string(self.path("client/client.toml")).unwrap();
        let text = text.replace("timeout_ms = 10000", "timeout_ms = 3000");
        fs::write(self.path("client/client.toml"), &text).unwrap();
        let parts: Vec<&str> = text.split("[[members]]").collect();
        for number in 1..=3 {
            let alone = format!("{}[[members]]{}", parts[0], parts[number]);
            fs::write(self.path(&format!("client/only-{number}.toml")), alone).unwrap();
        }
    }

    /// Starts a node and waits until it has started. A thread collects its log in a file.
    fn start(&mut self, number: usize) {
        let mut child = x0_node()
            .arg("run")
            .arg("--config")
            .arg(self.config(number))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let text: Vec<String> =
            lines.by_ref().map(Result::unwrap).take_while(|line| !line.contains("event=started")).collect();
        assert!(child.try_wait().unwrap().is_none(), "{text:?}");
        let log = self.path(&format!("node-{number}.log"));
        std::thread::spawn(move || {
            let mut held = text.join("\n");
            for line in lines.map_while(Result::ok) {
                held = held + &line + "\n";
                // The folder may be gone at the end of the test.
                let _ = fs::write(&log, &held);
            }
        });
        self.processes[number - 1] = Some(child);
    }

    fn kill(&mut self, number: usize) {
        if let Some(mut child) = self.processes[number - 1].take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// The nodes whose row in the status has this property.
    fn status(&self, holds: impl Fn(&serde_json::Value) -> bool) -> Vec<usize> {
        let client = self.path("client/client.toml");
        let output = x0_node().args(["status", "--json", "--config"]).arg(client).output().unwrap();
        let rows: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
        (1..=3).filter(|number| rows.get(number - 1).is_some_and(&holds)).collect()
    }

    /// Waits for an event in the log of a node since its last start.
    fn wait_for_event(&self, number: usize, event: &str) {
        let log = self.path(&format!("node-{number}.log"));
        let is_logged =
            || fs::read_to_string(&log).is_ok_and(|text| text.contains(&format!("event={event} ")));
        until(&format!("{event} of node {number}"), is_logged);
    }

    /// Runs a node that must refuse to start. Returns its messages.
    fn refusal(&self, number: usize) -> String {
        let mut child = x0_node()
            .arg("run")
            .arg("--config")
            .arg(self.config(number))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if begun.elapsed() > LIMIT {
                let _ = child.kill();
                panic!("node {number} runs");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let text = std::io::read_to_string(child.stderr.take().unwrap()).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(1), "{text}");
        text
    }

    fn adopt(&self, number: usize, arguments: &[&str]) -> Output {
        let config = self.config(number);
        x0_node().args(["data", "adopt"]).args(arguments).arg("--config").arg(config).output().unwrap()
    }

    fn kv(&self, client: &str, arguments: &[&str]) -> Output {
        let client = self.path(&format!("client/{client}.toml"));
        x0_node().arg("kv").args(arguments).arg("--config").arg(client).output().unwrap()
    }

    fn put_until_done(&self, key: &str, value: &str) {
        until(&format!("put {key}"), || self.kv("client", &["put", key, value]).status.success());
    }

    fn get_until_done(&self, key: &str, value: &str) {
        until(&format!("get {key}"), || self.is_absent_or(key, value) == Some(true));
    }

    /// Whether the cluster serves, and the value; never another answer.
    fn is_absent_or(&self, key: &str, value: &str) -> Option<bool> {
        let output = self.kv("client", &["get", key, "--raw"]);
        match output.status.code() {
            Some(0) => Some(String::from_utf8_lossy(&output.stdout).trim_end() == value),
            Some(3) => Some(false),
            _ => None,
        }
    }

    /// The state of V2: `a` and `b` acknowledge `key` while `c` is down, then all are down.
    fn acknowledge_on_two(&mut self, key: &str) {
        self.kill(self.c);
        self.put_until_done(key, "kept");
        self.kill(self.a);
        self.kill(self.b);
    }

    /// `b` and `c` must refuse service, and with `a` all is there.
    fn assert_kept(&mut self, key: &str) {
        self.start(self.b);
        self.start(self.c);
        self.wait_for_event(self.b, "rejoining");
        for _ in 0..2 {
            assert_eq!(self.is_absent_or(key, "kept"), None, "two nodes serve without an acknowledged write");
        }
        self.start(self.a);
        self.get_until_done(key, "kept");
        self.wait_for_event(self.b, "voting");
        // The voter counts again.
        self.kill(self.a);
        self.put_until_done("after", "1");
        self.get_until_done(key, "kept");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        (1..=3).for_each(|number| self.kill(number));
    }
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < LIMIT, "a minute has passed without: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for item in fs::read_dir(from).unwrap() {
        let item = item.unwrap();
        let to = to.join(item.file_name());
        if item.file_type().unwrap().is_dir() {
            copy(&item.path(), &to);
        } else {
            fs::copy(item.path(), to).unwrap();
        }
    }
}

/// V2, an emptied folder: it rejoins by itself when the others are a quorum without it.
#[test]
fn an_emptied_folder_loses_no_acknowledged_write() {
    let mut cluster = Cluster::started();
    cluster.acknowledge_on_two("key");
    fs::remove_dir_all(cluster.data(cluster.b)).unwrap();
    cluster.assert_kept("key");
}

/// V2, an older copy: it is refused, and loses nothing when it is adopted.
#[test]
fn an_older_copy_loses_no_acknowledged_write() {
    let mut cluster = Cluster::started();
    let (a, b) = (cluster.a, cluster.b);
    cluster.kill(b);
    copy(&cluster.data(b), &cluster.path("backup"));
    cluster.start(b);
    for number in 0..20 {
        cluster.put_until_done("between", &number.to_string());
    }
    // The leader keeps what it saw acknowledged.
    let known = cluster.data(a).join("acknowledged");
    let seen = || {
        let text = fs::read_to_string(&known).unwrap_or_default();
        let mine = text.lines().find(|line| line.starts_with(&format!("{b:016x} ")))?.to_owned();
        mine.rsplit(' ').next()?.parse::<u64>().ok()
    };
    until("the leader keeps the acknowledged index", || seen().is_some_and(|index| index > 20));
    cluster.acknowledge_on_two("key");
    fs::remove_dir_all(cluster.data(b)).unwrap();
    copy(&cluster.path("backup"), &cluster.data(b));
    let text = cluster.refusal(b);
    let command = format!("x0-node data adopt --config {}", cluster.config(b).display());
    assert!(text.contains("is a copy") && text.contains(&command), "{text}");
    cluster.start(a);
    let vouched = cluster.adopt(b, &["--assume-latest"]);
    let text = String::from_utf8_lossy(&vouched.stderr).into_owned();
    assert!(!vouched.status.success() && text.contains("lacks entries"), "{text}");
    cluster.kill(a);
    let adopted = cluster.adopt(b, &[]);
    let text = String::from_utf8_lossy(&adopted.stdout).into_owned();
    assert!(adopted.status.success() && text.contains("does not answer"), "{adopted:?}");
    cluster.assert_kept("key");
}

/// V2, a lost file: the folder is refused, and the message does not recommend a copy.
#[test]
fn a_folder_without_its_newest_log_file_is_refused() {
    let mut cluster = Cluster::started();
    cluster.acknowledge_on_two("key");
    let log = cluster.data(cluster.b).join("log");
    let mut segments: Vec<PathBuf> = fs::read_dir(&log).unwrap().map(|item| item.unwrap().path()).collect();
    segments.retain(|path| path.extension().is_some_and(|extension| extension == "wal"));
    segments.sort();
    fs::remove_file(segments.last().unwrap()).unwrap();
    let text = cluster.refusal(cluster.b);
    assert!(text.contains("is missing") && text.contains("do not restore a copy"), "{text}");
    // The remedy of the message.
    fs::remove_dir_all(cluster.data(cluster.b)).unwrap();
    cluster.assert_kept("key");
}

/// A folder that moves while its node is down is adopted as it is.
#[test]
fn a_deliberate_move_is_adopted() {
    let mut cluster = Cluster::started();
    assert!(String::from_utf8_lossy(&cluster.adopt(1, &[]).stderr).contains("in use"));
    cluster.kill(2);
    let original = cluster.adopt(2, &[]);
    assert!(String::from_utf8_lossy(&original.stdout).contains("nothing to adopt"), "{original:?}");
    let aside = cluster.path("aside");
    fs::rename(cluster.data(2), &aside).unwrap();
    copy(&aside, &cluster.data(2));
    let adopted = cluster.adopt(2, &["--assume-latest"]);
    assert!(adopted.status.success(), "{adopted:?}");
    cluster.start(2);
    cluster.kill(1);
    cluster.put_until_done("moved", "1");
    // The folder of another node is refused.
    cluster.kill(2);
    fs::remove_dir_all(cluster.data(2)).unwrap();
    fs::rename(cluster.data(1), cluster.data(2)).unwrap();
    let text = cluster.refusal(2);
    assert!(text.contains("is the data folder of node 0000000000000001"), "{text}");
}

/// V3: a CRDT folder that was rolled back writes under another incarnation, and nothing is lost.
#[test]
fn a_restored_crdt_folder_loses_no_write() {
    let mut cluster = Cluster::started();
    let crdt = |cluster: &Cluster, client: &str, key: &str| {
        let output = cluster.kv(client, &["get", key, "--raw", "--crdt"]);
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    };
    let put = |cluster: &Cluster, key: &str| {
        let is_done = || cluster.kv("only-1", &["put", key, key, "--crdt"]).status.success();
        until(&format!("put {key}"), is_done);
    };
    put(&cluster, "k0");
    cluster.kill(1);
    copy(&cluster.data(1), &cluster.path("backup"));
    cluster.start(1);
    put(&cluster, "k1");
    until("k1 on node 2", || crdt(&cluster, "only-2", "k1").as_deref() == Some("k1"));
    until("k1 on node 3", || crdt(&cluster, "only-3", "k1").as_deref() == Some("k1"));
    cluster.kill(1);
    fs::remove_dir_all(cluster.data(1)).unwrap();
    copy(&cluster.path("backup"), &cluster.data(1));
    assert!(cluster.refusal(1).contains("x0-node data adopt"));
    let adopted = cluster.adopt(1, &[]);
    assert!(adopted.status.success(), "{adopted:?}");
    cluster.start(1);
    put(&cluster, "k2");
    for key in ["k0", "k1", "k2"] {
        for client in ["only-1", "only-2", "only-3"] {
            until(&format!("{key} at {client}"), || crdt(&cluster, client, key).as_deref() == Some(key));
        }
    }
}

/// Damages every page of the data file but the first.
fn damage_pages(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    for page in bytes.chunks_exact_mut(4096).skip(1) {
        page[8..16].copy_from_slice(b"damaged!");
    }
    fs::write(file, bytes).unwrap();
}

/// Damaged pages: the node does not start, or gets its data from the others if its configuration says so.
#[test]
fn a_damaged_data_file_is_repaired_from_the_other_members() {
    let mut cluster = Cluster::started();
    cluster.acknowledge_on_two("key");
    let (a, b) = (cluster.a, cluster.b);
    damage_pages(&cluster.data(b).join("data.redb"));
    let text = cluster.refusal(b);
    assert!(text.contains("data.redb") && text.contains("`repair = true`"), "{text}");
    let config = fs::read_to_string(cluster.config(b)).unwrap();
    fs::write(cluster.config(b), format!("repair = true\n{config}")).unwrap();
    // `a` has the acknowledged write: without it the two others are no majority of intact folders.
    cluster.assert_kept("key");
    assert!(cluster.data(b).join("damaged-1/data.redb").is_file());
    cluster.wait_for_event(b, "set-aside");
    assert_eq!(cluster.status(|row| row["set_aside"] == 1), [b]);
    // The third member loses its data the same way, and the repaired one counts.
    cluster.kill(cluster.c);
    cluster.start(a);
    damage_pages(&cluster.data(cluster.c).join("data.redb"));
    let config = fs::read_to_string(cluster.config(cluster.c)).unwrap();
    fs::write(cluster.config(cluster.c), format!("repair = true\n{config}")).unwrap();
    cluster.start(cluster.c);
    cluster.wait_for_event(cluster.c, "voting");
    cluster.get_until_done("key", "kept");
}
