//! Real nodes whose files rot: the scrub finds it, the node serves no wrong value, and repairs its data from
//! another member.
#![cfg(all(feature = "mesh", feature = "redb"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "cluster/machine.rs"]
mod machine;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use x0_kv::cluster::{Node, NodeEvent, ScrubEvent, ScrubOptions};
use x0_kv::{Engine, RedbOptions, State};

use self::machine::{Machine, NODES, id, soon, until};

const KEYS: usize = 400;

type Events = Arc<Mutex<Vec<(u64, ScrubEvent)>>>;

fn start(machine: &mut Machine, number: u64, events: &Events) -> Node {
    // As a file that rots while the node runs: the start does not find it.
    let mut redb = RedbOptions::default().overlay_len_max(16 << 10).verify_on_open(false);
    redb.cache_len = 1 << 20;
    let events = Arc::clone(events);
    let scrub = ScrubOptions::default().bytes_per_second(1 << 30).pause(Duration::from_millis(200));
    let options = machine.options(number).engine(Engine::Redb(redb)).scrub(scrub).observe(move |event| {
        if let NodeEvent::Scrub(event) = event {
            events.lock().unwrap().push((number, event));
        }
    });
    let (mux, _) = machine.mux(number);
    Node::start(options, &mux).unwrap()
}

fn value(number: usize) -> String {
    format!("the value of key {number:04}, {}", "v".repeat(number % 100))
}

/// Flips a bit in every copy of the value of a key in the file.
fn rot(file: &Path, number: usize) -> usize {
    let mut bytes = std::fs::read(file).unwrap();
    let text = value(number);
    let places: Vec<usize> =
        (0..bytes.len() - text.len()).filter(|at| bytes[*at..*at + text.len()] == *text.as_bytes()).collect();
    for at in &places {
        bytes[at + 5] ^= 1;
    }
    std::fs::write(file, bytes).unwrap();
    places.len()
}

/// V1: a flipped bit in the value of a stopped node, which then starts. A follower and a leader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotten_value_is_never_served_and_is_repaired() {
    for is_leader in [false, true] {
        let (mut machine, all_events) = (Machine::new(), Events::default());
        let mut nodes: Vec<Node> =
            (1..=NODES).map(|number| start(&mut machine, number, &all_events)).collect();
        for number in 0..KEYS {
            let put = nodes[0].store().put(format!("key/{number:04}"), value(number));
            soon("a put", put).await.unwrap();
        }
        // Everything is applied, and the checkpoints hold most of it.
        let applied = nodes[0].status().committed;
        until("the last write", || nodes.iter().all(|node| node.status().applied >= applied)).await;
        let victim = 2;
        let stopped = nodes.pop().unwrap();
        stopped.shutdown().await.unwrap();
        let file = machine.path(NODES).join("data.redb");
        // Of a node that has shut down no read is left, not even one of the scrub.
        drop(State::redb(&file, RedbOptions::default()).unwrap());
        let rotten: Vec<usize> = (0..KEYS).step_by(17).filter(|number| rot(&file, *number) > 0).collect();
        assert!(rotten.len() > 3, "the checkpoint holds too little");
        nodes.push(start(&mut machine, NODES, &all_events));
        if is_leader {
            until("the transfer", || {
                nodes.iter().for_each(|node| node.transfer_leadership(id(NODES)));
                nodes[victim].status().is_leader()
            })
            .await;
        }
        // Reads by all ways: the right value or an error, never another one.
        for number in &rotten {
            let key = format!("key/{number:04}");
            for node in &nodes {
                for got in [node.store().get_local(key.clone()).await, node.store().get(key.clone()).await] {
                    let Ok(found) = got else { continue };
                    assert_eq!(found.expect("the key is lost").value, value(*number));
                }
            }
        }
        until("the repair", || {
            let status = nodes[victim].status().scrub;
            status.damaged >= rotten.len() as u64 && status.damaged == status.repaired
        })
        .await;
        for number in 0..KEYS {
            let found = nodes[victim].store().get_local(format!("key/{number:04}")).await.unwrap();
            assert_eq!(found.expect("the key is lost").value, value(number));
        }
        let passes = |node: &Node| node.status().scrub.passes;
        let before: u64 = nodes.iter().map(passes).sum();
        until("a pass", || nodes.iter().map(passes).sum::<u64>() > before + 1).await;
        let events = std::mem::take(&mut *all_events.lock().unwrap());
        let has = |wanted: fn(&ScrubEvent) -> bool| events.iter().any(|(_, event)| wanted(event));
        assert!(has(|event| matches!(event, ScrubEvent::Damaged { .. })));
        assert!(has(|event| matches!(event, ScrubEvent::Repaired { .. })));
        let is_completed = |event: &ScrubEvent| matches!(event, ScrubEvent::Completed { .. });
        let completed: Vec<_> = events.iter().filter(|(_, event)| is_completed(event)).collect();
        let is_whole = |event: &ScrubEvent| matches!(event, ScrubEvent::Completed { members: 2, entries, .. } if *entries >= KEYS as u64);
        assert!(completed.iter().any(|(_, event)| is_whole(event)), "{completed:?}");
        assert!(!has(|event| matches!(event, ScrubEvent::Diverged { .. })), "{events:?}");
        for node in nodes {
            node.shutdown().await.unwrap();
        }
    }
}
