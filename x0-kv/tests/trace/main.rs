//! Traces of real nodes over QUIC: the tree of a write through a follower, reads, and operations that are not
//! traced.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../cluster/machine.rs"]
mod machine;
#[allow(dead_code, reason = "the same as that of x0-consensus")]
mod spans;

use std::sync::Arc;

use tracing::Instrument as _;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use x0_kv::CrdtOptions;
use x0_kv::cluster::Node;
use x0_kv::trace::Tracing;

use self::machine::{Machine, NODES, soon, until};
use self::spans::{Seen, Spans};

/// The paths below a span of the caller, once so many spans are closed.
async fn below(spans: &Spans, caller: &str, count: usize) -> Vec<String> {
    let found = || -> Vec<(Seen, String)> {
        let all = spans.all().into_iter().map(|span| (span.clone(), spans.path(&span)));
        all.filter(|(_, path)| path.starts_with(caller)).collect()
    };
    until("the spans of the tree", || {
        let found = found();
        found.len() >= count && found.iter().all(|(span, _)| span.is_closed)
    })
    .await;
    let mut paths: Vec<String> = found().into_iter().map(|(_, path)| path).collect();
    paths.sort();
    paths
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_through_a_follower_are_trees() {
    let spans = Spans::default();
    // Not the spans of connections, which a build of the whole workspace switches on.
    let of_links =
        |target: &str| ["quinn", "x0_identity", "x0_mesh"].iter().any(|name| target.starts_with(name));
    let of_operations = filter_fn(move |metadata| !of_links(metadata.target()));
    let subscriber = tracing_subscriber::registry().with(spans.clone().with_filter(of_operations));
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let tracing = Tracing::new(Arc::new(spans.clone()));
    let mut machine = Machine::new();
    let mut nodes = Vec::new();
    for number in 1..=NODES {
        let (mux, _) = machine.mux(number);
        let options = machine.options(number).tracing(tracing.clone()).crdt(CrdtOptions::new([7; 16]));
        nodes.push((Node::start(options, &mux).unwrap(), mux));
    }
    // Not within a span: nothing is traced. The node opens its session.
    for (node, _) in &nodes {
        soon("a write", node.store().put("key", "value")).await.unwrap();
    }
    let leader = nodes[0].0.status().leader.unwrap();
    let follower = nodes.iter().position(|(node, _)| node.id() != leader).unwrap();
    let store = nodes[follower].0.store().clone();
    let names = |spans: &Spans| spans.all().iter().map(|span| span.name).collect::<Vec<_>>();
    // Elections are traced always, with the entry that begins the term.
    assert!(!names(&spans).iter().any(|name| name.starts_with("kv.")), "{:?}", names(&spans));

    let put = async { store.put("key", "other").await }.instrument(tracing::info_span!("writer"));
    soon("a traced write", put).await.unwrap();
    let expected = [
        "writer",
        "writer/kv.put",
        "writer/kv.put/kv.write",
        "writer/kv.put/kv.write/consensus.propose",
        "writer/kv.put/kv.write/consensus.propose/consensus.append",
        "writer/kv.put/kv.write/consensus.propose/consensus.append",
        "writer/kv.put/kv.write/consensus.propose/consensus.append/log.write",
        "writer/kv.put/kv.write/consensus.propose/consensus.append/log.write",
        "writer/kv.put/kv.write/consensus.propose/consensus.apply",
        "writer/kv.put/kv.write/consensus.propose/consensus.apply",
        "writer/kv.put/kv.write/consensus.propose/consensus.apply",
        "writer/kv.put/kv.write/consensus.propose/consensus.commit",
        "writer/kv.put/kv.write/consensus.propose/log.write",
    ];
    assert_eq!(below(&spans, "writer", expected.len()).await, expected);

    let get = async { store.get("key").await }.instrument(tracing::info_span!("reader"));
    assert_eq!(soon("a traced read", get).await.unwrap().unwrap().value, "other");
    let expected = ["reader", "reader/kv.get", "reader/kv.get/kv.read"];
    assert_eq!(below(&spans, "reader", expected.len()).await, expected);

    // A local read asks no other node, and an error ends its span.
    let get = async { store.get_local("key").await }.instrument(tracing::info_span!("local"));
    soon("a traced read", get).await.unwrap();
    assert_eq!(below(&spans, "local", 2).await, ["local", "local/kv.get"]);
    let missing = store.keyspace("missing").unwrap();
    let get = async { missing.get("key").await }.instrument(tracing::info_span!("failing"));
    assert!(soon("a refused read", get).await.is_err());
    below(&spans, "failing", 3).await;

    // A write of a CRDT keyspace and its merges on the two other members.
    let crdt = store.crdt().unwrap();
    soon("an untraced write", crdt.put("key", "value")).await.unwrap();
    until("the members to be in sync", || {
        let status = |node: &Node| node.crdt_status().unwrap();
        nodes.iter().all(|(node, _)| status(node).keys == 1 && status(node).peers.values().all(|peer| *peer))
    })
    .await;
    let put = async { crdt.put("other", "value").await }.instrument(tracing::info_span!("crdt"));
    soon("a traced write", put).await.unwrap();
    let merge = "crdt/kv.crdt.put/crdt.merge";
    assert_eq!(below(&spans, "crdt", 4).await, ["crdt", "crdt/kv.crdt.put", merge, merge]);
    let get = async { crdt.get("other").await }.instrument(tracing::info_span!("look"));
    assert_eq!(soon("a traced read", get).await.unwrap().unwrap().value, "value");
    assert_eq!(below(&spans, "look", 2).await, ["look", "look/kv.crdt.get"]);

    assert!(nodes.iter().all(|(node, _)| node.status().decode_errors == 0));
}
