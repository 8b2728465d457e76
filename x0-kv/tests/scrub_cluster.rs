//! Real nodes whose files rot: the scrub finds it, the node serves no wrong value, and repairs its data from
//! another member.
#![cfg(all(feature = "mesh", feature = "redb"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use x0_identity::{Authority, AuthorityOptions, Identity, NodeId, SpiffeId, TrustDomain};
use x0_kv::cluster::{Node, NodeEvent, NodeOptions, ScrubEvent, ScrubOptions};
use x0_kv::{Engine, RedbOptions, State};
use x0_mesh::quic::{PeerBook, QuicOptions, QuicTransport};
use x0_mesh::{Mux, MuxOptions};

const NODES: u64 = 3;
const KEYS: usize = 400;
/// Generous: only a test that fails waits for it.
const LIMIT: Duration = Duration::from_secs(90);

fn id(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

struct Machine {
    authority: Authority,
    folder: tempfile::TempDir,
    addresses: Vec<(NodeId, SocketAddr)>,
    books: Vec<PeerBook>,
    events: Arc<Mutex<Vec<(u64, ScrubEvent)>>>,
}

impl Machine {
    fn new() -> Machine {
        let domain = TrustDomain::parse("scrub.test").unwrap();
        Machine {
            authority: Authority::new(domain, &AuthorityOptions::default()).unwrap(),
            folder: tempfile::tempdir().unwrap(),
            addresses: Vec::new(),
            books: Vec::new(),
            events: Arc::default(),
        }
    }

    fn mux(&mut self, number: u64) -> Mux {
        let spiffe_id = SpiffeId::for_node(self.authority.trust_domain(), id(number));
        let svid = self.authority.issue(&spiffe_id, Duration::from_secs(3600)).unwrap();
        let identity = Identity::new(svid, self.authority.bundle()).unwrap();
        let bind = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut config =
            QuicOptions::new(id(number), bind, identity.server_config(), identity.client_config());
        config.peers = self.addresses.iter().filter(|(peer, _)| *peer != id(number)).copied().collect();
        let transport = QuicTransport::bind(config).unwrap();
        let address = transport.local_addr().unwrap();
        self.books.iter().for_each(|book| book.set_peer(id(number), address));
        self.books.push(transport.peers());
        self.addresses.retain(|(peer, _)| *peer != id(number));
        self.addresses.push((id(number), address));
        Mux::new(transport, MuxOptions::default())
    }

    fn start(&mut self, number: u64) -> Node {
        // As a file that rots while the node runs: the start does not find it.
        let mut redb = RedbOptions::default().overlay_len_max(16 << 10).verify_on_open(false);
        redb.cache_len = 1 << 20;
        let events = Arc::clone(&self.events);
        let scrub = ScrubOptions::default().bytes_per_second(1 << 30).pause(Duration::from_millis(200));
        let options = NodeOptions::new(id(number), self.folder.path().join(number.to_string()))
            .founders((1..=NODES).map(id))
            .engine(Engine::Redb(redb))
            .scrub(scrub)
            .observe(move |event| {
                if let NodeEvent::Scrub(event) = event {
                    events.lock().unwrap().push((number, event));
                }
            });
        let mux = self.mux(number);
        Node::start(options, &mux).unwrap()
    }
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

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < LIMIT, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// V1: a flipped bit in the value of a stopped node, which then starts. A follower and a leader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotten_value_is_never_served_and_is_repaired() {
    for is_leader in [false, true] {
        let mut machine = Machine::new();
        let mut nodes: Vec<Node> = (1..=NODES).map(|number| machine.start(number)).collect();
        for number in 0..KEYS {
            let put = nodes[0].store().put(format!("key/{number:04}"), value(number));
            tokio::time::timeout(LIMIT, put).await.unwrap().unwrap();
        }
        // Everything is applied, and the checkpoints hold most of it.
        let applied = nodes[0].status().committed;
        until("a node does not apply", async || nodes.iter().all(|node| node.status().applied >= applied))
            .await;
        let victim = 2;
        let stopped = nodes.pop().unwrap();
        stopped.shutdown().await.unwrap();
        let file = machine.folder.path().join(format!("{NODES}/data.redb"));
        // A read of the scrub that has not ended holds the file a little longer than the node: it is closed
        // when it can be opened.
        until("the file is not released", async || State::redb(&file, RedbOptions::default()).is_ok()).await;
        let rotten: Vec<usize> = (0..KEYS).step_by(17).filter(|number| rot(&file, *number) > 0).collect();
        assert!(rotten.len() > 3, "the checkpoint holds too little");
        nodes.push(machine.start(NODES));
        if is_leader {
            until("the leadership does not move", async || {
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
        until("the damage is not repaired", async || {
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
        until("no pass ends", async || nodes.iter().map(passes).sum::<u64>() > before + 1).await;
        let events = std::mem::take(&mut *machine.events.lock().unwrap());
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
