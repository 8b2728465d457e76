//! Three members and 64 clients on a mesh, a ring of five nodes: the link from the leader to both followers
//! is cut again and again, and no put fails and no term begins.
//!
//! As root, and with the program `nft`, each node has a network namespace and the links are veth pairs. Else
//! the links are UDP ports of the loopback, cut by fault injectors. The test prints which of the two ran.
//! `X0_KV_CUTS=20 cargo test -p x0-kv --all-features --test mesh -- --nocapture` prints the gaps of 20 cuts.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that prints what it measures, and fails by panicking"
)]

#[path = "cluster/machine.rs"]
mod machine;
#[path = "mesh/ring.rs"]
mod ring;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use x0_kv::cluster::{Node, NodeEvent};
use x0_kv::{Client, ClientOptions, Store};
use x0_mesh::quic::{QuicOptions, QuicTransport};
use x0_mesh::{Mux, MuxOptions, PeerEventKind, mesh};

use self::machine::{Machine, NODES, id, soon, until};
use self::ring::{NODES_OF_RING, Ring};

const CLIENTS: u64 = 64;
/// Between an acknowledgement and the next put of a client. Without it the clients would use all processors,
/// and the test would measure how late timers are: detection waits longer where they are.
const PAUSE: Duration = Duration::from_millis(20);
/// The first of the members in the ring: its link to the next one carries the traffic to both followers.
const LEADER: u64 = 1;
/// The link from the leader to the next member.
const LINK: usize = 0;
/// The paths between leader and followers while the link works. The other way round the ring is longer.
const PATHS: [(u64, u64, u64); 4] = [(1, 2, 2), (1, 3, 2), (2, 1, 1), (3, 1, 2)];
/// Each cut lasts so long: far longer than the mesh takes, and than an election timeout.
const CUT: Duration = Duration::from_millis(1500);

/// The puts of all clients.
struct Puts {
    acknowledged: AtomicU64,
    failed: Mutex<Vec<String>>,
    /// The longest time from a put of a client to its acknowledgement.
    gap: Mutex<Duration>,
    is_over: AtomicBool,
}

impl Puts {
    fn new() -> Puts {
        Puts {
            acknowledged: AtomicU64::new(0),
            failed: Mutex::default(),
            gap: Mutex::default(),
            is_over: AtomicBool::new(false),
        }
    }

    async fn put_always(self: Arc<Puts>, store: Store, client: u64) {
        for number in 0_u64.. {
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
            let begun = Instant::now();
            match store.put(format!("client {client}"), number.to_string()).await {
                Ok(_) => {
                    self.acknowledged.fetch_add(1, Ordering::Relaxed);
                    let mut gap = self.gap.lock().unwrap();
                    *gap = gap.max(begun.elapsed());
                }
                Err(error) => {
                    self.failed.lock().unwrap().push(error.to_string());
                    return;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The longest time for which a client waited for an acknowledgement that came in this time, or that was
    /// missing at its end.
    async fn gap_during(&self, time: Duration) -> Duration {
        *self.gap.lock().unwrap() = Duration::ZERO;
        tokio::time::sleep(time).await;
        // Each client has one put in flight: after so many puts, a gap that was not over is over and counts.
        let ends = self.acknowledged.load(Ordering::Relaxed) + 5 * CLIENTS;
        until("puts", || self.acknowledged.load(Ordering::Relaxed) >= ends).await;
        *self.gap.lock().unwrap()
    }
}

/// A mux over the mesh, to the members.
fn mux(machine: &Machine, ring: &Ring, number: u64) -> Mux {
    let identity = machine.node_identity(number);
    let (server, client) = (identity.server_config(), identity.client_config());
    let mut options = QuicOptions::new(id(number), mesh::address(id(number)), server, client)
        .datagram_len_max(1200)
        .idle_timeout(Duration::from_secs(10))
        // Silence is reported within half of an election timeout, and gives the leader some time.
        .keep_alive(Duration::from_millis(100));
    for peer in (1..=NODES).filter(|peer| *peer != number) {
        options = options.peer(id(peer), mesh::address(id(peer)));
    }
    let transport = QuicTransport::bind_on(options, ring.mesh(number).socket()).unwrap();
    Mux::new(transport, MuxOptions::default())
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_link_of_the_leader_fails_no_put_and_deposes_no_leader() {
    let cuts: u64 = std::env::var("X0_KV_CUTS").ok().and_then(|cuts| cuts.parse().ok()).unwrap_or(3);
    let machine = Machine::new();
    let mut ring = Ring::start(&machine);
    println!("links: {}", ring.kind());
    // Epochs of members that ended.
    let lost = Arc::new(AtomicU64::new(0));
    let nodes: Vec<Node> = (1..=NODES)
        .map(|number| {
            let lost = Arc::clone(&lost);
            let options = machine.options(number).observe(move |event| {
                if let NodeEvent::Peer(event) = event
                    && let PeerEventKind::Down { .. } = event.kind
                    && event.peer.get() <= NODES
                {
                    lost.fetch_add(1, Ordering::Relaxed);
                }
            });
            Node::start(options, &mux(&machine, &ring, number)).unwrap()
        })
        .collect();
    // The nodes without a member are relays, and the clients' way into the mesh.
    let clients: Vec<Client> = (NODES + 1..=NODES_OF_RING)
        .map(|number| {
            let options = ClientOptions::new(id(number), (1..=NODES).map(id));
            Client::connect(options, &mux(&machine, &ring, number)).unwrap()
        })
        .collect();
    soon("the first write", clients[0].store().put("ready", "")).await.unwrap();
    let position = usize::try_from(LEADER - 1).unwrap();
    until("the transfer of the leadership", || {
        nodes.iter().for_each(|node| node.transfer_leadership(id(LEADER)));
        nodes.iter().all(|node| node.status().leader == Some(id(LEADER)))
    })
    .await;
    until("all members up", || {
        nodes.iter().all(|node| node.status().reached.iter().filter(|peer| peer.get() <= NODES).count() == 2)
    })
    .await;

    let puts = Arc::new(Puts::new());
    let writers: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let store = clients[usize::try_from(client).unwrap() % clients.len()].store().clone();
            tokio::spawn(Arc::clone(&puts).put_always(store, client))
        })
        .collect();
    ring.settled(&PATHS).await;
    let without = puts.gap_during(CUT).await;
    let term = nodes[position].status().term;
    lost.store(0, Ordering::Relaxed);
    let mut gaps = Vec::new();
    for number in 0..cuts {
        ring.settled(&PATHS).await;
        ring.cut(LINK, true);
        gaps.push(milliseconds(puts.gap_during(CUT).await));
        println!("cut {}: gap {} ms", number + 1, gaps[gaps.len() - 1]);
        let next = ring.mesh(LEADER).paths().into_iter().find(|path| path.destination == id(2));
        ring.cut(LINK, false);
        let statuses: Vec<_> = nodes.iter().map(Node::status).map(|now| (now.term, now.leader)).collect();
        assert_eq!(statuses, [(term, Some(id(LEADER))); 3], "after cut {}", number + 1);
        assert_eq!(next.map(|path| path.next), Some(id(NODES_OF_RING)), "the way round the ring is used");
    }
    puts.is_over.store(true, Ordering::Relaxed);
    for writer in writers {
        soon("the last put", writer).await.unwrap();
    }
    let after = nodes[position].status().term;
    gaps.sort_unstable();
    let failed = puts.failed.lock().unwrap();
    println!(
        "{cuts} cuts, {CLIENTS} clients: {} puts acknowledged, {} failed; term {term} before, {after} after; {} epochs lost; gap \
         median {} ms, longest {} ms, without a cut {} ms",
        puts.acknowledged.load(Ordering::Relaxed),
        failed.len(),
        lost.load(Ordering::Relaxed),
        gaps[gaps.len() / 2],
        gaps[gaps.len() - 1],
        milliseconds(without)
    );
    assert!(failed.is_empty(), "{:?}", failed.first());
    assert_eq!(lost.load(Ordering::Relaxed), 0, "epochs of members that ended");
    assert_eq!(after, term);
}
