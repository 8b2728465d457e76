//! Three nodes in a line: the outer two reach each other over the middle one, and clients connect directly.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Generous: only a test that fails waits for it.
const LIMIT: Duration = Duration::from_secs(60);

/// Ends with the test, whatever happens.
struct Node(Child);

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn x0_node(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_x0-node"));
    command.args(arguments);
    command
}

/// Ports that are free now.
fn free<const COUNT: usize>() -> [u16; COUNT] {
    let held = [(); COUNT].map(|()| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    held.map(|socket| socket.local_addr().unwrap().port())
}

fn client(folder: &Path, arguments: &[&str]) -> Output {
    x0_node(arguments).arg("--config").arg(folder.join("client/client.toml")).output().unwrap()
}

fn config(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("node-{number}/node.toml"))
}

/// The metrics of the node that serves them on this port.
fn metrics_of(port: u16) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_node_relays_for_the_others_and_shows_the_mesh() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("cluster");
    let base = 20_000 + u16::try_from(std::process::id() % 20_000).unwrap();
    let init =
        ["init", "--trust-domain", "test.example", "--nodes", "3", "--base-port", &base.to_string(), "--dir"];
    assert!(x0_node(&init).arg(&dir).output().unwrap().status.success());
    let at = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let ports: [u16; 4] = free();
    let [group] = free();
    let metrics = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    // Node 1, two ports of node 2, node 3. Nodes 2 and 3 find each other.
    let links = [
        vec![(ports[0], Some(ports[1]), false)],
        vec![(ports[1], None, false), (ports[2], None, true)],
        vec![(ports[3], None, true)],
    ];
    for (number, links) in (1..).zip(links) {
        let path = config(&dir, number);
        let mut text = std::fs::read_to_string(&path).unwrap();
        for (port, neighbour, discovers) in links {
            text.push_str(&format!("\n[[links]]\naddress = \"{}\"\n", at(port)));
            if let Some(neighbour) = neighbour {
                text.push_str(&format!("neighbours = [\"{}\"]\n", at(neighbour)));
            }
            if discovers {
                text.push_str(&format!("discover = true\ndiscover_port = {group}\n"));
            }
        }
        if number == 1 {
            let http = at(metrics);
            text.push_str(&format!(
                "\n[[http]]\naddress = \"{http}\"\nroutes = [\"metrics\"]\ntls = \"off\"\n"
            ));
        }
        std::fs::write(path, text).unwrap();
    }
    let nodes: Vec<Node> = (1..=3)
        .map(|number| {
            let mut child = x0_node(&["run", "--config"])
                .arg(config(&dir, number))
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let log = child.stderr.take().unwrap();
            // So that the pipe never fills up.
            std::thread::spawn(move || BufReader::new(log).lines().count());
            Node(child)
        })
        .collect();

    // The outer two are connected, which only the middle one can do for them.
    let begun = Instant::now();
    loop {
        let status = client(&dir, &["status", "--json"]);
        let rows: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
        let reached = |row: &serde_json::Value| row["peers_reached"] == 2;
        if rows.as_array().is_some_and(|rows| rows.len() == 3 && rows.iter().all(reached)) {
            break;
        }
        assert!(begun.elapsed() < LIMIT, "not every node reaches the others: {rows}");
    }
    let put = client(&dir, &["kv", "put", "greeting", "over the mesh"]);
    assert!(put.status.success(), "{put:?}");
    let got = client(&dir, &["kv", "get", "greeting", "--raw"]);
    assert_eq!(String::from_utf8_lossy(&got.stdout), "over the mesh");

    let routes = client(&dir, &["mesh", "routes", "--json"]);
    assert!(routes.status.success(), "{routes:?}");
    let routes: serde_json::Value = serde_json::from_slice(&routes.stdout).unwrap();
    let id = |number: u64| format!("{number:016x}");
    let route = |from: u64, to: u64| {
        let is_wanted = |row: &&serde_json::Value| row["node"] == id(from) && row["destination"] == id(to);
        routes.as_array().unwrap().iter().find(is_wanted).expect("a route").clone()
    };
    let (near, far) = (route(1, 2), route(1, 3));
    assert_eq!((far["next"].as_str(), far["mtu"].as_u64()), (Some(&*id(2)), Some(1200)));
    assert_eq!(near["next"], id(2));
    let metric = |row: &serde_json::Value| row["metric"].as_u64().unwrap();
    assert!(metric(&near) > 0 && metric(&far) > metric(&near), "{routes}");
    let trace = client(&dir, &["mesh", "trace", "3", "--from", "1"]);
    let text = String::from_utf8_lossy(&trace.stdout).into_owned();
    let hops: Vec<Vec<&str>> =
        text.lines().skip(1).map(|line| line.split_whitespace().take(3).collect()).collect();
    assert_eq!(hops, [[id(1), id(3), id(2)], [id(2), id(3), id(3)]], "{text}");
    let links = client(&dir, &["mesh", "links"]);
    let text = String::from_utf8_lossy(&links.stdout).into_owned();
    assert_eq!(text.lines().filter(|line| line.contains(" up ")).count(), 4, "{text}");
    // Every series of the table that a node with links has.
    let table = include_str!("../../../x0-mesh/src/telemetry.rs");
    let names = table.lines().filter_map(|line| line.strip_prefix("//! | `")?.split('`').next());
    let of_links = [
        "x0_mesh_link_",
        "x0_mesh_path_",
        "x0_mesh_relayed_",
        "x0_mesh_route_",
        "x0_mesh_failovers_",
        "x0_mesh_flood_too_long_",
        "x0_mesh_forged_",
        "x0_mesh_unanswered_",
    ];
    let names: Vec<&str> =
        names.filter(|name| of_links.iter().any(|start| name.starts_with(start))).collect();
    assert!(names.len() >= 17, "{names:?}");
    // The quality of a link is known after some probes.
    loop {
        let text = metrics_of(metrics);
        let is_there = |name: &str| [' ', '{'].iter().any(|end| text.contains(&format!("\n{name}{end}")));
        let missing: Vec<&&str> = names.iter().filter(|name| !is_there(name)).collect();
        if missing.is_empty() {
            break;
        }
        assert!(begun.elapsed() < LIMIT, "{missing:?} {text}");
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(nodes);
    let none = client(&dir, &["mesh", "links"]);
    assert!(!none.status.success());
}
