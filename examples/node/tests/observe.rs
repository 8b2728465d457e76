//! The outputs for operators of three running nodes: metrics, probes and JSON logs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Generous: only a test that fails waits for it.
const LIMIT: Duration = Duration::from_secs(60);
const NODES: u16 = 3;

fn x0_node() -> Command {
    Command::new(env!("CARGO_BIN_EXE_x0-node"))
}

/// The lines of a log so far.
type Lines = Arc<Mutex<Vec<String>>>;

/// Three running nodes with listeners, and the lines of their logs.
struct Cluster {
    folder: TempDir,
    base: u16,
    /// The listener of node 2 with mutual TLS.
    mutual: u16,
    nodes: BTreeMap<u16, (Child, Lines)>,
}

impl Cluster {
    fn start() -> Cluster {
        let (folder, base) = (0..50).find_map(|_| made()).expect("no free ports");
        let mutual = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let mut cluster = Cluster { folder, base, mutual, nodes: BTreeMap::new() };
        for number in 1..=NODES {
            let config = cluster.config(number);
            let mut text = fs::read_to_string(&config).unwrap();
            let address = format!("127.0.0.1:{}", cluster.http(number));
            text.push_str(&format!(
                "\n[[http]]\naddress = \"{address}\"\nroutes = [\"metrics\", \"health\"]\ntls = \"off\"\n\n\
                 [observe]\nlag_max = 500\n"
            ));
            if number == 1 {
                text.push_str("\n[rag]\nmodel = \"words\"\ncollections = [{ name = \"docs\" }]\n");
            }
            if number == 2 {
                text.push_str(&format!(
                    "\n[[http]]\naddress = \"127.0.0.1:{mutual}\"\nroutes = [\"metrics\"]\ntls = \"mutual\"\n"
                ));
            }
            fs::write(&config, text).unwrap();
            let mut child = x0_node()
                .args(["run", "--log", "json", "--config"])
                .arg(&config)
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let lines = Lines::default();
            let (from, to) = (child.stderr.take().unwrap(), Arc::clone(&lines));
            std::thread::spawn(move || {
                for line in BufReader::new(from).lines().map_while(Result::ok) {
                    to.lock().unwrap().push(line);
                }
            });
            cluster.nodes.insert(number, (child, lines));
        }
        for number in 1..=NODES {
            cluster.wait(number, "/readyz", 200);
        }
        cluster
    }

    fn config(&self, number: u16) -> PathBuf {
        self.folder.path().join(format!("node-{number}/node.toml"))
    }

    fn http(&self, number: u16) -> u16 {
        self.base + number - 1
    }

    fn kv(&self, arguments: &[&str]) -> bool {
        let mut command = x0_node();
        command.arg("kv").args(arguments).arg("--config").arg(self.folder.path().join("client/client.toml"));
        command.output().unwrap().status.success()
    }

    fn get(&self, number: u16, path: &str) -> (u16, String) {
        get(self.http(number), path).unwrap_or_default()
    }

    /// Waits until a path of a node answers with this code. Returns the text.
    fn wait(&self, number: u16, path: &str, code: u16) -> String {
        let begun = Instant::now();
        loop {
            let (found, text) = self.get(number, path);
            if found == code {
                return text;
            }
            let log = self.nodes.get(&number).map(|(_, lines)| lines.lock().unwrap().clone());
            assert!(begun.elapsed() < LIMIT, "{path} of node {number} answers {found} {text}\n{log:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn kill(&mut self, number: u16) -> Vec<String> {
        let (mut child, lines) = self.nodes.remove(&number).unwrap();
        let _ = child.kill();
        let _ = child.wait();
        lines.lock().unwrap().clone()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for (child, _) in self.nodes.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A cluster's folder, made by `init`, with ports that are free for both UDP and TCP.
fn made() -> Option<(TempDir, u16)> {
    let base = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let mut ports = base..base.checked_add(NODES)?;
    let is_free = |port| {
        UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
            && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
    };
    if !ports.all(is_free) {
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let made = x0_node()
        .args(["init", "--trust-domain", "test.example", "--nodes", &NODES.to_string()])
        .args(["--base-port", &base.to_string(), "--dir"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    Some((folder, base))
}

fn get(port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(LIMIT)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let code = head.split(' ').nth(1)?.parse().ok()?;
    // A body in chunks is not expected of these routes.
    assert!(!head.contains("chunked"), "{head}");
    Some((code, body.to_owned()))
}

/// The names of the tables of all crates, without those that are reserved.
fn tables() -> BTreeSet<&'static str> {
    let tables = [
        include_str!("../../../x0-kv/src/telemetry.rs"),
        include_str!("../../../x0-consensus/src/telemetry.rs"),
        include_str!("../../../x0-mesh/src/telemetry.rs"),
        include_str!("../../../x0-identity/src/telemetry.rs"),
        include_str!("../../../x0-ml/src/telemetry.rs"),
        include_str!("../../../x0-mapek/src/telemetry.rs"),
        include_str!("../src/observe/telemetry.rs"),
    ];
    let lines = tables.into_iter().flat_map(str::lines).filter(|line| line.starts_with("//! | `"));
    lines.filter_map(|line| line.split('`').nth(1)).collect()
}

/// The name of a series without the suffixes of a histogram.
fn base_name<'a>(series: &'a str, histograms: &BTreeSet<&str>) -> &'a str {
    let name = series.split(['{', ' ']).next().unwrap();
    let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
    base.filter(|base| histograms.contains(base)).unwrap_or(name)
}

fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
    line.unwrap_or_else(|| panic!("{series} is not in\n{text}")).rsplit(' ').next().unwrap().parse().unwrap()
}

/// Writes the text for `promtool check metrics`, which .ci/run calls.
fn keep(number: u16, text: &str) {
    if let Some(folder) = std::env::var_os("X0_METRICS_DIR") {
        fs::write(PathBuf::from(folder).join(format!("node-{number}.prom")), text).unwrap();
    }
}

#[test]
fn operators_see_every_name_and_the_state_of_the_cluster() {
    let mut cluster = Cluster::start();
    for number in 0..20 {
        assert!(cluster.kv(&["put", &format!("key-{number}"), "value"]));
    }
    assert!(cluster.kv(&["get", "key-1"]));
    assert!(cluster.kv(&["put", "shared", "value", "--crdt"]));
    // The client operates on another node: the state machines and the CRDT stores are those of the nodes.
    let deadline = Instant::now() + LIMIT;
    while (1..=NODES).any(|n| value(&cluster.get(n, "/metrics").1, "x0_consensus_applied_index") < 21.0) {
        assert!(Instant::now() < deadline);
    }
    // The thread that looks at the disk has had its first turn.
    while (1..=NODES).any(|n| !cluster.get(n, "/metrics").1.contains("\nx0_node_disk_free_bytes ")) {
        assert!(Instant::now() < deadline);
    }

    // A connection shows no loss in its first ten seconds.
    while (1..=NODES).any(|n| !cluster.get(n, "/metrics").1.contains("\nx0_mesh_peer_loss_ratio{")) {
        assert!(Instant::now() < deadline);
    }

    let mut live = BTreeSet::new();
    let tables = tables();
    for number in 1..=NODES {
        let (code, text) = cluster.get(number, "/metrics");
        assert_eq!(code, 200);
        keep(number, &text);
        let described: BTreeSet<&str> =
            text.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next()).collect();
        let histograms: BTreeSet<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" histogram"))
            .collect();
        assert!(!text.contains(" summary"), "a histogram without buckets");
        let series: Vec<&str> =
            text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        for line in &series {
            let name = base_name(line, &histograms);
            assert!(described.contains(name), "{name} has no help text");
            assert!(name.starts_with("process_") || tables.contains(name), "{name} is in no table");
            if !name.starts_with("process_") {
                live.insert(name.to_owned());
            }
        }
        // A node of three, of which one serves retrieval; each further peer adds at most 8.
        let per_peer = series.iter().filter(|line| line.contains("peer=\"0000000000000002\"")).count();
        assert!(per_peer <= 8, "{per_peer} series for each peer");
        assert!(series.len() + 2 * 8 <= 900, "{} series", series.len());
        if number == 1 {
            eprintln!("node 1 of 3 exposes {} series, {} bytes", series.len(), text.len());
        }
        assert!(value(&text, "process_resident_memory_bytes") > 1e6);
        let ready = "x0_node_http_requests_total{endpoint=\"readyz\",class=\"2xx\"}";
        assert!(value(&text, ready) >= 1.0);
    }
    // A node has no blob store, issues nothing, serves no Workload API and federates with nobody, and these
    // have no links.
    let absent = [
        "x0_kv_blob",
        "x0_identity_federation",
        "x0_identity_issuance",
        "x0_identity_issue_",
        "x0_identity_workload",
        "x0_mesh_link_",
        "x0_mesh_path_",
        "x0_mesh_relayed_",
        "x0_mesh_route_",
        "x0_mesh_failovers_",
        "x0_mesh_flood_too_long_",
        "x0_mesh_forged_",
        "x0_mesh_unanswered_",
    ];
    let is_absent = |name: &str| absent.iter().any(|start| name.starts_with(start));
    let missing: Vec<_> = tables.iter().filter(|name| !is_absent(name) && !live.contains(**name)).collect();
    assert!(missing.is_empty(), "in a table and on no node: {missing:?}");

    let (code, text) = cluster.get(2, "/health");
    let health: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &health["state"]), (200, &"ok".into()), "{text}");
    assert_eq!(health["components"].as_array().unwrap().len(), 7);
    assert!(health["components"][0]["since"].as_str().unwrap().ends_with('Z'), "{text}");
    assert_eq!(cluster.get(2, "/nothing").0, 404);

    // The doctor reads one node without TLS and one with the client's SVID, and misses the third.
    let missing = format!("127.0.0.1:{}", cluster.base + 3 * NODES);
    let (http, https) = (cluster.http(1).to_string(), cluster.mutual.to_string());
    let doctor = x0_node()
        .args(["doctor", "--json", "--http", &format!("127.0.0.1:{http}"), "--http", &missing])
        .args(["--https", &format!("127.0.0.1:{https}"), "--config"])
        .arg(cluster.folder.path().join("client/client.toml"))
        .output()
        .unwrap();
    let findings: serde_json::Value = serde_json::from_slice(&doctor.stdout).unwrap();
    let of = |what: &str| -> Vec<&serde_json::Value> {
        findings.as_array().unwrap().iter().filter(|finding| finding["what"] == what).collect()
    };
    assert!(doctor.status.success(), "{findings}");
    assert_eq!((of("metrics").len(), of("identity").len(), of("disk").len()), (1, 1, 1), "{findings}");
    assert!(of("metrics")[0]["result"].as_str().unwrap().starts_with(&missing), "{findings}");
    assert_eq!((&of("leader")[0]["severity"], &of("members")[0]["severity"]), (&"ok".into(), &"ok".into()));

    // One node of three is left: it has no quorum, and lives.
    let mut logs = vec![cluster.kill(1), cluster.kill(3)];
    let text = cluster.wait(2, "/readyz?verbose", 503);
    assert!(text.contains("[-] leader: ") && text.contains("start the other members"), "{text}");
    assert!(text.ends_with("readyz failed: leader\n") && text.contains("[+] disk: "), "{text}");
    assert_eq!(cluster.get(2, "/livez").0, 200);
    assert_eq!(cluster.get(2, "/health").0, 200);
    let begun = Instant::now();
    loop {
        let text = cluster.get(2, "/metrics").1;
        let peers = [1, 3].map(|peer| value(&text, &format!("x0_mesh_peer_up{{peer=\"{peer:016x}\"}}")));
        if peers == [0.0, 0.0] && value(&text, "x0_node_health{component=\"leader\"}") == 0.0 {
            break;
        }
        assert!(begun.elapsed() < LIMIT, "{text}");
        std::thread::sleep(Duration::from_millis(50));
    }
    // The line may follow the gauge.
    let begun = Instant::now();
    while !cluster.nodes[&2].1.lock().unwrap().iter().any(|line| line.contains("health-impaired")) {
        assert!(begun.elapsed() < LIMIT);
        std::thread::sleep(Duration::from_millis(20));
    }
    logs.push(cluster.kill(2));
    for line in logs.iter().flatten() {
        let record: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        for key in ["time", "level", "node", "event", "component", "fields"] {
            assert!(!record[key].is_null(), "{key} is missing: {line}");
        }
    }
    let events = |log: &[String], event: &str| {
        log.iter().filter(|line| line.contains(&format!("\"event\":\"{event}\""))).count()
    };
    assert!(logs.iter().all(|log| events(log, "started") == 1 && events(log, "http-listening") >= 1));
    assert!(events(&logs[2], "health-impaired") >= 1, "{:?}", logs[2]);
}

/// Slow and idle clients must not keep others from an answer, nor the node from its work.
#[test]
fn more_clients_than_connections_delay_neither_probes_nor_writes() {
    let cluster = Cluster::start();
    // More than a listener has connections: some say nothing, some begin a request, and some ask for much and
    // read nothing.
    let many = "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n".repeat(200);
    let held: Vec<TcpStream> = (0..700)
        .map(|number| {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, cluster.http(1))).unwrap();
            // The node may have ended the connection already.
            let _ = match number % 3 {
                0 => Ok(()),
                1 => stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: "),
                _ => stream.write_all(many.as_bytes()),
            };
            stream
        })
        .collect();
    let begun = Instant::now();
    assert_eq!(cluster.get(1, "/livez").0, 200);
    // A listener that waits for connections to end would accept this one after five times the five seconds
    // of an idle connection: those that do not read keep their places for longer.
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert!(cluster.kv(&["put", "key", "value"]));
    drop(held);
}
