//! Two clusters that federate, with real processes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::process::Output;
use std::time::Duration;

use common::{Cluster, answer, replace, x0_node};
use x0_identity::{Authority, AuthorityOptions, SpiffeId, TrustDomain};

fn federate(cluster: &Cluster, arguments: &[&str]) -> Output {
    let mut command = x0_node(&["bundle", "federate"]);
    command.args(arguments).arg("--dir").arg(cluster.root());
    command.arg("--config").arg(cluster.path("operator/operator.toml"));
    command.output().unwrap()
}

fn text_of(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn export(cluster: &Cluster) -> String {
    answer(x0_node(&["bundle", "federate", "export", "--dir"]).arg(cluster.root()))
}

/// The configuration with which a guest of one cluster dials the nodes of another.
fn abroad(home: &Cluster, guest: &str, host: &Cluster) -> std::path::PathBuf {
    let folder = home.path(guest);
    fs::write(folder.join("host.json"), export(host)).unwrap();
    let members = fs::read_to_string(host.path("client/client.toml")).unwrap();
    let members = &members[members.find("[[members]]").unwrap()..];
    let config = folder.join("abroad.toml");
    let text = format!(
        "trust_domain = \"b.example\"\nsvid = \"svid.pem\"\nbundle = \"bundle.pem\"\ntimeout_ms = 10000\n\
         [cluster]\ntrust_domain = \"a.example\"\nbundle = \"host.json\"\n{members}"
    );
    fs::write(&config, text).unwrap();
    config
}

#[test]
fn clients_of_a_federated_trust_domain_are_admitted_by_name() {
    let ours = Cluster::of_domain("a.example", 2, &[]);
    let theirs = Cluster::of_domain("b.example", 1, &[]);
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let config = theirs.path("node-1/node.toml");
    let section = format!("\n[bundle_endpoint]\naddress = \"127.0.0.1:{port}\"\nrefresh_hint_s = 10\n");
    fs::write(&config, fs::read_to_string(&config).unwrap() + &section).unwrap();
    let mut nodes = [1, 2].map(|number| ours.start(number));
    let mut foreign_node = theirs.start(1);
    let [client, operator] = ["client", "operator"].map(|guest| abroad(&theirs, guest, &ours));
    let put = |config: &std::path::Path, value: &str| {
        x0_node(&["kv", "put", "key", value, "--config"]).arg(config).output().unwrap()
    };
    let refused = put(&client, "too early");
    assert!(!refused.status.success() && text_of(&refused).contains("accept each other"), "{refused:?}");

    let first_bundle = theirs.path("b.json");
    fs::write(&first_bundle, export(&theirs)).unwrap();
    let url = format!("https://127.0.0.1:{port}/bundle.json");
    let endpoint = "spiffe://b.example/node/0000000000000001";
    let first = first_bundle.to_str().unwrap();
    let add = |more: &[&str]| {
        let fixed = ["add", "b.example", "--url", &url, "--endpoint", endpoint];
        federate(&ours, &[&fixed[..], more].concat())
    };
    let refuses = |output: &Output, words: &str| {
        let text = text_of(output);
        assert!(!output.status.success() && text.contains(words), "{text}");
    };
    let listed = ["--client", "spiffe://b.example/client/1"];
    refuses(&add(&listed), "--bundle FILE");
    refuses(&add(&["--bundle", first, "--client", "spiffe://a.example/client/1"]), "name a client of it");
    refuses(&federate(&ours, &["remove", "b.example"]), "there is no relationship with b.example");
    let wrong = ["add", "b.example", "--url", &url, "--endpoint", "spiffe://b.example/other"];
    let wrong = federate(&ours, &[&wrong[..], &["--bundle", first, "--wait-seconds", "1"], &listed].concat());
    refuses(&wrong, "not every node has fetched");
    refuses(&wrong, "did not prove its identity");
    let added = add(&[&["--bundle", first][..], &listed].concat());
    assert!(added.status.success() && text_of(&added).contains("(2 of 2)"), "{added:?}");

    // The one that is named, and no other; a node of the other domain is no member either.
    let accepted = put(&client, "from abroad");
    assert!(accepted.status.success(), "{accepted:?}");
    refuses(&put(&operator, "not named"), "accept each other");
    ours.put("from home");
    // The foreign client changes no members.
    let as_operator = x0_node(&["member", "remove", "2", "--config"]).arg(&client).output().unwrap();
    assert!(!as_operator.status.success(), "{as_operator:?}");
    let list = text_of(&federate(&ours, &["list"]));
    assert!(list.contains("b.example") && list.contains("spiffe://b.example/client/1"), "{list}");
    assert_eq!(list.matches("  fetched").count(), 2, "{list}");

    // The other side replaces its authority: both are published, then the SVIDs are new.
    let domain = TrustDomain::parse("b.example").unwrap();
    let authority = Authority::new(domain, &AuthorityOptions::default()).unwrap();
    let old = fs::read_to_string(theirs.path("authority/bundle.pem")).unwrap();
    let both = format!("# sequence 1\n{old}{}", authority.bundle().to_pem());
    for folder in ["node-1", "client"] {
        replace(&theirs.path(folder).join("bundle.pem"), &both);
    }
    foreign_node.logged("event=bundle-changed");
    for node in &mut nodes {
        node.logged_both("event=federated-bundle", "sequence=1 authorities=2");
    }
    let id = SpiffeId::parse("spiffe://b.example/client/1").unwrap();
    let svid = authority.issue(&id, Duration::from_secs(3600)).unwrap();
    replace(&theirs.path("client/svid.pem"), &svid.to_pem());
    let accepted = put(&client, "by the new authority");
    assert!(accepted.status.success(), "{accepted:?}");

    // Without the endpoint, and after a restart, the bundle that was fetched last counts.
    foreign_node.kill();
    nodes[0].kill();
    nodes[0] = ours.start(1);
    assert!(nodes[0].read().iter().any(|line| line.contains("sequence=1 authorities=2")));
    let accepted = put(&client, "after the restart");
    assert!(accepted.status.success(), "{accepted:?}");

    let removed = federate(&ours, &["remove", "b.example"]);
    assert!(removed.status.success() && text_of(&removed).contains("(2 of 2)"), "{removed:?}");
    refuses(&put(&client, "too late"), "accept each other");
    ours.put("from home again");
}
