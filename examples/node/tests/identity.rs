//! Identities of running nodes: shown, renewed and re-rooted without a restart.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::time::Duration;

use common::{Cluster, replace};
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

#[test]
fn an_identity_command_without_nodes_says_so() {
    let cluster = Cluster::init(1);
    let output = cluster.client(&["identity"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && text.contains("no node answered"), "{text}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("no answer"), "{output:?}");
}
