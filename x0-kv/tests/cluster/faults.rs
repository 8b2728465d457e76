//! Nodes that are cut off, stopped and started again answer as one store.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use x0_kv::cluster::Node;
use x0_kv::linearizability::register::{Call, Register, Swapped};
use x0_kv::linearizability::{Interval, Verdict, check};
use x0_kv::{Client, ClientOptions, Expect, Store, Swap};
use x0_mesh::FaultHandle;

use crate::machine::{Machine, NODES, id, soon, until};

const KEYS: u64 = 3;
/// Operations of each worker: short enough for the search, long enough to meet every fault.
const OPERATIONS: u64 = 120;
const WORKERS: u64 = 4;
const OPERATIONS_BETWEEN_FAULTS: usize = 20;

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
    let (mut nodes, mut handles): (Vec<Node>, Vec<FaultHandle>) = (Vec::new(), Vec::new());
    for number in 1..=NODES {
        let (mux, handle) = machine.mux(number);
        nodes.push(Node::start(machine.options(number), &mux).unwrap());
        handles.push(handle);
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
    // Between two faults the cluster works: otherwise the workers would meet faults alone.
    let progress = async || {
        let before = history.lock().unwrap().len();
        until("operations between faults", || {
            is_done.load(Ordering::SeqCst)
                || history.lock().unwrap().len() >= before + OPERATIONS_BETWEEN_FAULTS
        })
        .await;
    };
    let faults = async {
        for number in (1..=NODES).cycle() {
            // The leader is cut off until the others have another one, and all nodes agree again when it is
            // back.
            let mut leader = 0;
            until("a leader", || {
                leader = nodes.iter().position(|node| node.status().is_leader()).unwrap_or(leader);
                nodes[leader].status().is_leader()
            })
            .await;
            handles[leader].block_all();
            until("a leader of the others", || {
                nodes.iter().enumerate().any(|(at, node)| at != leader && node.status().is_leader())
            })
            .await;
            handles[leader].unblock_all();
            until("one leader for all nodes", || {
                let known = nodes[leader].status().leader;
                known.is_some() && nodes.iter().all(|node| node.status().leader == known)
            })
            .await;
            progress().await;
            // Then the leadership is transferred. A transfer is given up when the target lags.
            let to = (leader + 1) % nodes.len();
            until("the transfer", || {
                nodes.iter().for_each(|node| node.transfer_leadership(nodes[to].id()));
                nodes[to].status().is_leader()
            })
            .await;
            progress().await;
            // Then a node stops, and starts again from its folder.
            let at = number as usize - 1;
            nodes.remove(at).shutdown().await.unwrap();
            let (mux, handle) = machine.mux(number);
            nodes.insert(at, Node::start(machine.options(number), &mux).unwrap());
            handles[at] = handle;
            progress().await;
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
