//! Identities of running nodes: shown, renewed and re-rooted without a restart.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Cluster, Process, answer, replace, x0_node};
use x0_identity::{Authority, AuthorityOptions, SpiffeId, TrustDomain};

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

/// Commands that ask each node wait once for all nodes, and say why each of them is not reached.
#[test]
fn commands_without_nodes_end_soon_and_name_each_node() {
    let cluster = Cluster::init(5);
    let config = fs::read_to_string(cluster.path("client/client.toml")).unwrap();
    let addresses: Vec<&str> = config
        .lines()
        .filter_map(|line| line.strip_prefix("address = "))
        .map(|text| text.trim_matches('"'))
        .collect();
    assert_eq!(addresses.len(), 5);
    for command in [
        &["identity"][..],
        &["heal", "status"],
        &["mesh", "routes"],
        &["bundle", "show"],
        &["bundle", "federate", "list"],
    ] {
        let begun = Instant::now();
        let output = cluster.client(command);
        let took = begun.elapsed();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && text.contains("no node answered within 3 s"), "{text}");
        assert!(addresses.iter().all(|address| text.contains(&format!("at {address}: "))), "{text}");
        // 15 s if they waited for one node after the other.
        assert!(took < Duration::from_secs(10), "{command:?} takes {took:?}");
    }
    let output = cluster.client(&["identity"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("no answer"), "{output:?}");
}

/// The time of a line of the log, in milliseconds of its day.
fn time_of(line: &str) -> u64 {
    let clock = line.split_once('T').unwrap().1.get(..12).unwrap();
    let number = |from: usize, to: usize| clock[from..to].parse::<u64>().unwrap();
    ((number(0, 2) * 60 + number(3, 5)) * 60 + number(6, 8)) * 1000 + number(9, 12)
}

#[test]
fn a_revoked_node_loses_its_connections_within_a_second() {
    let cluster = Cluster::init(3);
    let mut nodes = [1, 2, 3].map(|number| cluster.start(number));
    cluster.put("before");
    let third = "peer=0000000000000003";
    for node in &mut nodes[..2] {
        node.logged_both("event=peer-up", third);
    }
    let revoke = |id: &str| {
        let mut command = x0_node(&["revoke", id, "--dir"]);
        command.arg(cluster.root()).arg("--config").arg(cluster.path("operator/operator.toml"));
        command.output().unwrap()
    };
    let output = revoke("3");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    assert!(text.contains("spiffe://test.example/node/0000000000000003 is revoked"), "{text}");
    assert!(text.contains("2 of 2"), "{text}");
    let [one, two, _] = &mut nodes;
    let mut times = Vec::new();
    for node in [one, two] {
        let taken = time_of(&node.logged("event=revoked"));
        let line = node.logged_both("event=peer-down", third);
        assert!(line.contains("is revoked"), "{line}");
        times.push((taken, time_of(&line)));
    }
    // Around midnight the numbers begin again.
    let first = times.iter().map(|(taken, _)| *taken).min().unwrap();
    let took = times.iter().map(|(_, down)| (down + 86_400_000 - first) % 86_400_000).max().unwrap();
    println!("the last connection ended {took} ms after the first node had the revocation");
    assert!(took < 1000, "{times:?}");
    nodes[2].logged("is revoked");

    // The others are a majority; the revoked one stays out, also of a node that starts again.
    cluster.put("without it");
    nodes[0].kill();
    nodes[0] = cluster.start(1);
    // From its own folder, and so before it listens.
    let log = nodes[0].read().to_vec();
    let place = |text: &str| log.iter().position(|line| line.contains(text)).unwrap();
    assert!(place("event=revoked") < place("event=listening"), "{log:#?}");
    cluster.put("after the restart");
    for row in &cluster.identities()[1..3] {
        assert_eq!(row["revocations"].as_array().unwrap().len(), 1, "{row}");
    }
    assert!(!nodes[0].read().iter().any(|line| line.contains("event=peer-up") && line.contains(third)));
    // Once more says the same, and makes no second revocation.
    let again = revoke("spiffe://test.example/node/0000000000000003");
    assert_eq!(String::from_utf8_lossy(&again.stdout).lines().next(), text.lines().next());
    let entries = answer(x0_node(&["entry", "list", "--dir"]).arg(cluster.root()));
    assert!(!entries.contains("0000000000000003") && entries.contains("0000000000000002"), "{entries}");
    for (id, words) in [
        ("spiffe://other.example/node", "cannot revoke"),
        ("nobody", "is not a node"),
        ("spiffe://", "is not a SPIFFE ID"),
    ] {
        let text = String::from_utf8_lossy(&revoke(id).stderr).into_owned();
        assert!(text.contains(words), "{text}");
    }
}

/// The authority is replaced in four steps while clients write: no write fails, and no node starts again.
#[test]
fn the_authority_is_replaced_while_clients_write() {
    let address =
        std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let address = address.to_string();
    let cluster = Cluster::init_with(3, &["--issuer", &address]);
    let mut issuer = Process::start(x0_node(&["issuer", "--listen", &address, "--dir"]).arg(cluster.root()));
    issuer.logged("event=issuer-listening");
    let mut nodes = [1, 2, 3].map(|number| cluster.start(number));
    cluster.put("before");
    let step = |step: &str| {
        let mut command = x0_node(&["bundle", step, "--dir"]);
        command.arg(cluster.root()).arg("--config").arg(cluster.path("operator/operator.toml"));
        command
    };
    let shown = || {
        let output = cluster.client(&["bundle", "show", "--json"]);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap().as_array().unwrap().clone()
    };
    let first = shown()[0]["signed_by"].clone();
    let refused = |name: &str, words: &str| {
        let output = step(name).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(words), "{name}: {text}");
    };
    refused("publish", "begin with `x0-node bundle prepare`");
    answer(&mut step("prepare"));
    refused("prepare", "is prepared already");
    refused("activate", "not every member is ready");

    let is_over = AtomicBool::new(false);
    let (mut puts, mut failed) = (0, Vec::new());
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                puts += 1;
                let put = cluster.client(&["kv", "put", "key", &puts.to_string()]);
                if !put.status.success() {
                    failed.push(format!("{put:?}"));
                }
            }
        });
        let text = answer(&mut step("publish"));
        assert!(text.contains("(3 of 3)"), "{text}");
        let text = answer(&mut step("activate"));
        assert!(text.contains("(3 of 3)"), "{text}");
        let text = answer(&mut step("retire"));
        assert!(text.contains("(3 of 3)"), "{text}");
        is_over.store(true, Ordering::Relaxed);
        writer.join().unwrap();
    });
    println!("{puts} writes, {} failed", failed.len());
    assert!(failed.is_empty() && puts > 5, "{failed:#?}");
    for row in shown() {
        assert_eq!(row["authorities"], serde_json::json!([row["signed_by"]]), "{row}");
        assert_ne!(row["signed_by"], first, "{row}");
    }
    let table = String::from_utf8(cluster.client(&["bundle", "show"]).stdout).unwrap();
    assert!(table.contains("authorities trusted") && !table.contains("no answer"), "{table}");
    // A node that starts again has all of it on disk.
    nodes[0].kill();
    nodes[0] = cluster.start(1);
    cluster.put("after");
}

/// A node that joins after the configurations were written is a member like the others: no step of a
/// replacement goes on without it.
#[test]
fn a_replacement_waits_for_a_node_that_joined_later() {
    let cluster = Cluster::init(3);
    let _nodes = [1, 2, 3].map(|number| cluster.start(number));
    cluster.put("before");
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap().to_string();
    drop(socket);
    answer(x0_node(&["issue", "--node", "4", "--address", &address, "--dir"]).arg(cluster.root()));
    let mut fourth = cluster.start(4);
    let config = cluster.path("operator/operator.toml");
    answer(x0_node(&["member", "add", "4", "--address", &address, "--config"]).arg(&config));
    let step = |config: &str, step: &[&str]| {
        let mut command = x0_node(&["bundle"]);
        command.args(step).arg("--dir").arg(cluster.root()).arg("--config").arg(cluster.path(config));
        command
    };
    let operator = |name: &str| step("operator/operator.toml", &[name]);
    // Slow members may be named before the one that is meant.
    let refused = |command: &mut std::process::Command, words: &[&str]| {
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && words.iter().all(|words| text.contains(words)), "{text}");
    };
    answer(&mut operator("prepare"));
    fourth.kill();
    let publish = ["publish", "--wait-seconds", "4"];
    refused(&mut step("operator/operator.toml", &publish), &["not confirmed by", "0000000000000004"]);
    refused(&mut operator("activate"), &["not every member is ready", "0000000000000004"]);
    let _fourth = cluster.start(4);
    // With the configuration of a client, the operator of the folder reads the member table.
    let text = answer(&mut step("client/client.toml", &["publish"]));
    assert!(text.contains("(4 of 4)"), "{text}");
    let text = answer(&mut step("client/client.toml", &["show"]));
    assert!(text.contains("0000000000000004") && !text.contains("no answer"), "{text}");
    assert!(
        !String::from_utf8(cluster.client(&["bundle", "show"]).stdout).unwrap().contains("0000000000000004")
    );

    // The bundle of a file: the one from before the replacement, and one that trusts nobody.
    let both = fs::read_to_string(cluster.path("authority/bundle.pem")).unwrap();
    let first =
        &both[both.find("-----BEGIN").unwrap()..=both.find("-----END CERTIFICATE-----\n").unwrap() + 25];
    let (old, stranger) = (cluster.path("old.pem"), cluster.path("stranger.pem"));
    fs::write(&old, first).unwrap();
    let domain = TrustDomain::parse("test.example").unwrap();
    let unknown = Authority::new(domain, &AuthorityOptions::default()).unwrap();
    fs::write(&stranger, unknown.bundle().to_pem()).unwrap();
    let set = |file: &std::path::Path| step("operator/operator.toml", &["set", file.to_str().unwrap()]);
    refused(&mut set(&stranger), &["the authority that issues"]);
    let text = answer(&mut set(&old));
    assert!(text.contains("(4 of 4)"), "{text}");

    // A revocation is confirmed by all members as well.
    let mut revoke = x0_node(&["revoke", "spiffe://test.example/stolen", "--dir"]);
    let text = answer(revoke.arg(cluster.root()).arg("--config").arg(&config));
    assert!(text.contains("4 of 4"), "{text}");
}
