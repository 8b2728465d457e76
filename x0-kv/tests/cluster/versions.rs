//! A rolling upgrade: members of the version before traces beside members that trace each operation, in
//! linearizable and CRDT keyspaces.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use x0_kv::CrdtOptions;
use x0_kv::cluster::Node;
use x0_kv::trace::{Context, Propagator, Tracing};

use crate::machine::{Machine, NODES, soon, until};

/// Traces everything, and counts the contexts that arrive.
#[derive(Default)]
struct Counting(AtomicUsize);

impl Propagator for Counting {
    fn current(&self) -> Option<Context> {
        Context::new([1; 16], [2; 8], Context::SAMPLED)
    }

    fn adopt(&self, _: &Context) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Writes on each node, with each node as the leader once. `old` is limited to the messages of the first
/// version.
async fn upgrade(old: Option<u64>) -> Vec<usize> {
    let counts: Vec<_> = (1..=NODES).map(|_| Arc::new(Counting::default())).collect();
    let mut machine = Machine::new();
    let mut nodes = Vec::new();
    for number in 1..=NODES {
        let (mux, _) = machine.mux(number);
        let mut options = machine.options(number).crdt(CrdtOptions::new([7; 16]));
        if Some(number) == old {
            options.message_version_max = 1;
        } else {
            options = options.tracing(Tracing::new(Arc::clone(&counts[number as usize - 1]) as _));
        }
        nodes.push((Node::start(options, &mux).unwrap(), mux));
    }
    for (leader, _) in &nodes {
        soon("a first write", leader.store().put("key", "value")).await.unwrap();
        until("the leadership", || {
            nodes.iter().for_each(|(node, _)| node.transfer_leadership(leader.id()));
            leader.status().is_leader()
        })
        .await;
        for round in 0..10 {
            for (number, (node, _)) in (1..).zip(&nodes) {
                let key = format!("{number}/{round}");
                soon("a write", node.store().put(key.clone(), "value")).await.unwrap();
                let read = soon("a read", node.store().get(key.clone())).await.unwrap();
                assert_eq!(read.unwrap().value, "value");
                soon("a CRDT write", node.store().crdt().unwrap().put(key, "value")).await.unwrap();
            }
        }
    }
    let applied = nodes.iter().map(|(node, _)| node.status().applied).max().unwrap();
    until("the followers", || nodes.iter().all(|(node, _)| node.status().applied >= applied)).await;
    let keys = NODES * 10;
    let crdt = |node: &Node| node.crdt_status().unwrap();
    until("the CRDT keyspaces", || nodes.iter().all(|(node, _)| crdt(node).keys as u64 == keys)).await;
    for (node, _) in &nodes {
        assert_eq!((node.status().decode_errors, crdt(node).totals.refused), (0, 0));
    }
    counts.iter().map(|count| count.0.load(Ordering::Relaxed)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_the_first_version_understand_members_that_trace() {
    // All of them read contexts.
    assert!(upgrade(None).await.iter().all(|count| *count > 0));
    // The old one neither gets nor passes on a context; the others do, whoever leads.
    let counts = upgrade(Some(2)).await;
    assert!(counts[0] > 0 && counts[1] == 0 && counts[2] > 0, "{counts:?}");
}
