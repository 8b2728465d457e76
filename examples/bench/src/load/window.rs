//! The closed loop.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use tokio::task::JoinSet;

use super::serve::Client;
use super::{KeySpace, Measured, Operation, Window};
use crate::procfs;
use crate::random::Random;
use crate::statistics::Histogram;

/// Requests in flight while the key space is filled.
const FILL_CLIENTS: u32 = 64;
/// Entries of a range that is read beside puts: a page that x0-kv answers at once.
const RANGE_ENTRIES: u32 = 4096;

/// Writes every key once.
pub(crate) async fn fill<C: Client>(connections: &[C], keys: KeySpace) -> Result<()> {
    let client = connections.first().context("no connection")?;
    let next = Rc::new(Cell::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..FILL_CLIENTS {
        let (client, next) = (client.clone(), Rc::clone(&next));
        tasks.spawn_local(async move {
            loop {
                let number = next.get();
                if number >= keys.keys {
                    return Ok(());
                }
                next.set(number + 1);
                client.put(Bytes::from(keys.key(number)), value(keys, u64::from(number))).await?;
            }
        });
    }
    join(tasks).await
}

/// The state that the clients of a window share. They run on one thread, so that cells suffice.
struct Shared {
    operation: Operation,
    keys: KeySpace,
    /// Keys as bytes, created once: a client clones a handle.
    names: Vec<Bytes>,
    counting: Cell<bool>,
    ending: Cell<bool>,
    latency: RefCell<Histogram>,
}

/// Loads the system over `connections` and measures.
pub(crate) async fn run<C: Client>(connections: &[C], keys: KeySpace, window: &Window) -> Result<Measured> {
    let shared = Rc::new(Shared {
        operation: window.operation,
        keys,
        names: (0..keys.keys).map(|number| Bytes::from(keys.key(number))).collect(),
        counting: Cell::new(false),
        ending: Cell::new(false),
        latency: RefCell::new(Histogram::new()),
    });
    let own = [std::process::id()];
    let servers: &[u32] = if window.servers.is_empty() { &own } else { &window.servers };

    let mut tasks = JoinSet::new();
    let mut seeds = Random::new(window.seed);
    for connection in connections.iter().cycle().take(window.clients) {
        tasks.spawn_local(one_client(connection.clone(), Rc::clone(&shared), Random::new(seeds.next())));
    }
    if let (Operation::PutBesideRanges, Some(connection)) = (window.operation, connections.first()) {
        tasks.spawn_local(ranges(connection.clone(), Rc::clone(&shared)));
    }
    stay(&mut tasks, window.warm_up).await?;
    let cpu_before = (procfs::cpu(servers)?, procfs::cpu(&own)?);
    let begin = Instant::now();
    shared.counting.set(true);
    stay(&mut tasks, window.measure).await?;
    shared.counting.set(false);
    let elapsed = begin.elapsed();
    let cpu_after = (procfs::cpu(servers)?, procfs::cpu(&own)?);
    let resident_bytes = procfs::resident(servers)?;
    shared.ending.set(true);
    join(tasks).await?;

    let latency = shared.latency.borrow();
    let percentile =
        |share| latency.percentile(share).map(Duration::from_nanos).context("no operation was completed");
    Ok(Measured {
        operations: latency.total(),
        elapsed,
        p50: percentile(0.5)?,
        p99: percentile(0.99)?,
        server_cpu: cpu_after.0.saturating_sub(cpu_before.0),
        load_cpu: cpu_after.1.saturating_sub(cpu_before.1),
        resident_bytes,
    })
}

/// One request after the other. An operation counts if it ends within the measured part, with its whole
/// duration.
async fn one_client<C: Client>(client: C, shared: Rc<Shared>, mut random: Random) -> Result<()> {
    let mut before = Instant::now();
    while !shared.ending.get() {
        let number = random.below(shared.keys.keys);
        let key = shared.names[number as usize].clone();
        match shared.operation {
            Operation::Put | Operation::PutBesideRanges => {
                client.put(key, value(shared.keys, random.next())).await?;
            }
            Operation::Get => match client.get(key).await? {
                Some(len) if len == shared.keys.value_len => {}
                other => bail!("key {number} was read as {other:?}, not as {} bytes", shared.keys.value_len),
            },
        }
        let after = Instant::now();
        if shared.counting.get() {
            let nanoseconds = u64::try_from((after - before).as_nanos()).unwrap_or(u64::MAX);
            shared.latency.borrow_mut().record(nanoseconds);
        }
        before = after;
        // Without this yield a store that responds at once would starve the clock and the other clients.
        tokio::task::coop::consume_budget().await;
    }
    Ok(())
}

/// One range after the other, which do not count.
async fn ranges<C: Client>(client: C, shared: Rc<Shared>) -> Result<()> {
    while !shared.ending.get() {
        let expected = shared.keys.keys.min(RANGE_ENTRIES) as usize;
        let found = client.range(RANGE_ENTRIES).await?;
        if found != expected {
            bail!("a range has {found} entries, not {expected}");
        }
        tokio::task::coop::consume_budget().await;
    }
    Ok(())
}

/// Runs the clients for a time; an error of one of them ends it at once.
async fn stay(tasks: &mut JoinSet<Result<()>>, time: Duration) -> Result<()> {
    tokio::select! {
        () = tokio::time::sleep(time) => Ok(()),
        ended = tasks.join_next() => match ended {
            Some(ended) => ended?.and(Err(anyhow::anyhow!("a client ended early"))),
            None => bail!("no clients"),
        },
    }
}

async fn join(mut tasks: JoinSet<Result<()>>) -> Result<()> {
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

/// Random bytes, different for every write, so that nothing compresses or compares equal.
fn value(keys: KeySpace, seed: u64) -> Bytes {
    let mut random = Random::new(seed);
    let mut value = Vec::with_capacity(keys.value_len + 7);
    while value.len() < keys.value_len {
        value.extend_from_slice(&random.next().to_le_bytes());
    }
    value.truncate(keys.value_len);
    Bytes::from(value)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// A store that responds at once, or that loses one key.
    #[derive(Clone)]
    struct Fake {
        ready_at_once: bool,
        values: Rc<RefCell<BTreeMap<Bytes, Bytes>>>,
        under_way: Rc<Cell<(usize, usize)>>,
        forgets: Option<&'static str>,
    }

    impl Fake {
        async fn step(&self) {
            if self.ready_at_once {
                return;
            }
            let (now, most) = self.under_way.get();
            self.under_way.set((now + 1, most.max(now + 1)));
            tokio::task::yield_now().await;
            let (now, most) = self.under_way.get();
            self.under_way.set((now - 1, most));
        }
    }

    impl Client for Fake {
        async fn put(&self, key: Bytes, value: Bytes) -> Result<()> {
            self.step().await;
            self.values.borrow_mut().insert(key, value);
            Ok(())
        }

        async fn get(&self, key: Bytes) -> Result<Option<usize>> {
            self.step().await;
            let values = self.values.borrow();
            Ok(values.get(&key).filter(|_| self.forgets.is_none_or(|name| name != key)).map(Bytes::len))
        }
    }

    fn with(forgets: Option<&'static str>, operation: Operation) -> (Fake, Result<Measured>) {
        under(
            Fake { ready_at_once: false, values: Rc::default(), under_way: Rc::default(), forgets },
            operation,
        )
    }

    fn under(fake: Fake, operation: Operation) -> (Fake, Result<Measured>) {
        let keys = KeySpace { keys: 50, value_len: 100 };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let window = Window {
            operation,
            clients: 7,
            connections: 2,
            warm_up: Duration::from_millis(5),
            measure: Duration::from_millis(30),
            seed: 3,
            servers: Vec::new(),
        };
        let connections = [fake.clone(), fake.clone()];
        let measured = tokio::task::LocalSet::new().block_on(&runtime, async {
            fill(&connections, keys).await?;
            fake.under_way.set((0, 0));
            run(&connections, keys, &window).await
        });
        (fake, measured)
    }

    #[test]
    fn the_loop_is_closed_and_counts() {
        for operation in [Operation::Put, Operation::Get] {
            let (fake, measured) = with(None, operation);
            let measured = measured.unwrap();
            assert_eq!(fake.under_way.get(), (0, 7), "{operation:?}");
            assert_eq!(fake.values.borrow().len(), 50);
            assert!(fake.values.borrow().values().all(|value| value.len() == 100));
            assert!(measured.operations > 0 && measured.p50 <= measured.p99 && measured.resident_bytes > 0);
            assert!(measured.elapsed >= Duration::from_millis(30));
        }
    }

    #[test]
    fn a_store_that_answers_at_once_does_not_stop_the_clock() {
        let fake =
            Fake { ready_at_once: true, values: Rc::default(), under_way: Rc::default(), forgets: None };
        assert!(under(fake, Operation::Get).1.unwrap().elapsed < Duration::from_secs(5));
    }

    #[test]
    fn a_lost_key_fails_the_window() {
        let (_, measured) = with(Some("bench/00000007"), Operation::Get);
        let message = measured.unwrap_err().to_string();
        assert_eq!(message, "key 7 was read as None, not as 100 bytes");
    }
}
