//! Real nodes: QUIC on the loopback, files, threads. Their answers must be those of one store, while nodes
//! are cut off, stopped and started again; and an integrator's own channel shares their connections.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking; its numbers are small"
)]

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use x0_identity::{Authority, AuthorityOptions, Identity, NodeId, SpiffeId, TrustDomain};
use x0_kv::cluster::{Node, NodeOptions};
use x0_kv::linearizability::register::{Call, Register, Swapped};
use x0_kv::linearizability::{Interval, Verdict, check};
use x0_kv::{Client, ClientOptions, Expect, Store, Swap};
use x0_mesh::quic::{PeerBook, QuicOptions, QuicTransport};
use x0_mesh::{
    Channel, ChannelOptions, FaultHandle, FaultInjector, Lane, Mux, MuxOptions, Next, Transmit, Transport,
};

const NODES: u64 = 3;
const KEYS: u64 = 3;
/// Operations of each worker: short enough for the search, long enough to meet every fault.
const OPERATIONS: u64 = 120;
const WORKERS: u64 = 4;

fn id(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

struct Machine {
    authority: Authority,
    folder: tempfile::TempDir,
    addresses: Vec<(NodeId, SocketAddr)>,
    books: Vec<PeerBook>,
}

impl Machine {
    fn new() -> Machine {
        let domain = TrustDomain::parse("cluster.test").unwrap();
        let authority = Authority::new(domain, &AuthorityOptions::default()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        Machine { authority, folder, addresses: Vec::new(), books: Vec::new() }
    }

    fn mux(&mut self, number: u64) -> (Mux, FaultHandle) {
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
        let (gate, handle) = FaultInjector::new(transport);
        (Mux::new(gate, MuxOptions::default()), handle)
    }

    fn options(&self, number: u64) -> NodeOptions {
        NodeOptions::new(id(number), self.folder.path().join(number.to_string()))
            .founders((1..=NODES).map(id))
    }
}

/// Generous: only a test that fails waits for it.
async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(90), future)
        .await
        .unwrap_or_else(|_| panic!("{what} takes too long"))
}

/// One moment after the other, for invocations and returns of all workers.
#[derive(Default)]
struct Clock(AtomicU64);

impl Clock {
    fn now(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }
}

type History = Arc<Mutex<Vec<(u64, Interval<Call>)>>>;

fn value_of(bytes: &[u8]) -> u64 {
    std::str::from_utf8(bytes).unwrap().parse().unwrap()
}

/// Carries out one operation. `None` when its answer does not matter: it had none, and is a read or certain
/// to have done nothing.
async fn operation(store: &Store, key: &str, number: u64, last: &mut Option<u64>) -> Option<(Call, bool)> {
    match number % 4 {
        0 | 1 => {
            let answer = store.get(key.to_owned()).await.ok()?;
            *last = answer.map(|found| value_of(&found.value));
            Some((Call::Get { answer: *last }, true))
        }
        2 => match store.put(key.to_owned(), number.to_string()).await {
            Ok(_) => Some((Call::Put { value: number }, true)),
            Err(error) => error.is_ambiguous().then_some((Call::Put { value: number }, false)),
        },
        _ => {
            let expected = last.map(|value| value.to_string());
            let expect = expected.map_or(Expect::Absent, |value| Expect::Value(value.into()));
            let call = |answer| Call::CompareAndSwap { expect: *last, value: number, answer };
            match store.compare_and_swap(key.to_owned(), expect, number.to_string()).await {
                Ok(Swap::Swapped { .. }) => Some((call(Some(Swapped::Yes)), true)),
                Ok(Swap::Kept { current }) => {
                    let current = current.map(|found| value_of(&found.value));
                    Some((call(Some(Swapped::No { current })), true))
                }
                Err(error) => error.is_ambiguous().then_some((call(None), false)),
            }
        }
    }
}

async fn work(store: Store, worker: u64, clock: Arc<Clock>, history: History) {
    let mut last = [None; KEYS as usize];
    for step in 0..OPERATIONS {
        let number = (step * WORKERS + worker) * 4 + (step * 7 + worker) % 4;
        let key = (step * 5 + worker) % KEYS;
        let invoked = clock.now();
        let done = operation(&store, &format!("key {key}"), number, &mut last[key as usize]).await;
        let returned = clock.now();
        if let Some((operation, is_answered)) = done {
            let interval = Interval { invoked, returned: is_answered.then_some(returned), operation };
            history.lock().unwrap().push((key, interval));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_nodes_under_faults_are_one_store() {
    let mut machine = Machine::new();
    let mut nodes = Vec::new();
    let mut gates = Vec::new();
    for number in 1..=NODES {
        let (mux, gate) = machine.mux(number);
        nodes.push(Node::start(machine.options(number), &mux).unwrap());
        gates.push(gate);
    }
    let (mux, _) = machine.mux(9);
    let client = Client::connect(ClientOptions::new(id(9), (1..=NODES).map(id)), &mux).unwrap();
    soon("the first write", client.store().put("ready", "")).await.unwrap();

    let (clock, history) = (Arc::new(Clock::default()), History::default());
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            tokio::spawn(work(client.store().clone(), worker, Arc::clone(&clock), Arc::clone(&history)))
        })
        .collect();
    let is_done = AtomicBool::new(false);
    let faults = async {
        for round in 0_usize.. {
            // The leader is cut off, then hands over, then a node is stopped and starts again from its
            // folder.
            let leader =
                nodes.iter().position(|node| node.status().is_leader()).unwrap_or(round % nodes.len());
            gates[leader].block_all();
            tokio::time::sleep(Duration::from_millis(1500)).await;
            gates[leader].unblock_all();
            tokio::time::sleep(Duration::from_millis(500)).await;
            let to = id((leader as u64 + 1) % NODES + 1);
            nodes.iter().for_each(|node| node.transfer_leadership(to));
            tokio::time::sleep(Duration::from_millis(200)).await;
            let number = round as u64 % NODES + 1;
            let stopped = nodes.remove(number as usize - 1);
            stopped.shutdown().await.unwrap();
            let (mux, gate) = machine.mux(number);
            nodes.insert(number as usize - 1, Node::start(machine.options(number), &mux).unwrap());
            gates[number as usize - 1] = gate;
            if is_done.load(Ordering::SeqCst) {
                break;
            }
        }
    };
    let finish = async {
        for worker in workers {
            worker.await.unwrap();
        }
        is_done.store(true, Ordering::SeqCst);
    };
    soon("the run", async { tokio::join!(faults, finish) }).await;

    let history = std::mem::take(&mut *history.lock().unwrap());
    assert!(history.len() as u64 > WORKERS * OPERATIONS / 2, "{} operations were answered", history.len());
    for key in 0..KEYS {
        let of_key: Vec<_> =
            history.iter().filter(|(of, _)| *of == key).map(|(_, interval)| interval.clone()).collect();
        assert!(!of_key.is_empty());
        match check(&Register, &of_key, 20_000_000) {
            Verdict::Linearizable { .. } => {}
            other => panic!("key {key}: {other:?}"),
        }
    }
}

/// Sends a message and receives one.
async fn talk(channel: &mut Channel, peer: NodeId) -> Vec<u8> {
    let (mut is_sent, mut is_received) = (false, false);
    let mut payload = Vec::new();
    poll_fn(|cx| {
        while !is_received {
            match channel.poll_next(cx, &mut payload) {
                Poll::Ready(Ok(Next::Message(received))) => {
                    assert_eq!(received.from, peer);
                    is_received = true;
                }
                Poll::Ready(Ok(_)) => continue,
                Poll::Ready(Err(error)) => panic!("{error}"),
                Poll::Pending => break,
            }
        }
        // The message of the peer may come before the channel takes the own one.
        if !is_sent {
            let hello = Transmit { to: peer, lane: Lane::Ordered(0), payload: b"hello" };
            match channel.poll_send(cx, &hello) {
                Poll::Ready(Ok(())) => is_sent = true,
                // Not up yet; an event follows.
                Poll::Ready(Err(_)) | Poll::Pending => {}
            }
        }
        if is_sent && is_received { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    payload
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_own_channel_shares_the_connections_of_a_running_cluster() {
    let mut machine = Machine::new();
    let (mut nodes, mut muxes) = (Vec::new(), Vec::new());
    for number in 1..=NODES {
        let (mux, _) = machine.mux(number);
        nodes.push(Node::start(machine.options(number), &mux).unwrap());
        muxes.push(mux);
    }
    soon("a write", nodes[0].store().put("key", "value")).await.unwrap();
    let channel = |number: usize| muxes[number].channel(ChannelOptions::new("cluster.test.chat")).unwrap();
    let (mut one, mut two) = (channel(0), channel(1));
    assert!(muxes[0].channel(ChannelOptions::new("cluster.test.chat")).is_err(), "the name is taken");
    assert!(muxes[0].channel(ChannelOptions::new("x0.kv.consensus")).is_err(), "the node holds its channels");
    let talked = async { tokio::join!(talk(&mut one, id(2)), talk(&mut two, id(1))) };
    assert_eq!(soon("the talk", talked).await, (b"hello".to_vec(), b"hello".to_vec()));
    assert_eq!(soon("a read", nodes[2].store().get("key")).await.unwrap().unwrap().value, "value");
    for node in nodes {
        node.shutdown().await.unwrap();
    }
}
