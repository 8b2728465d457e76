//! The side of the load generator that executes orders.

use std::future::Future;
use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use super::{KeySpace, Order, Reply, Target, etcd, window, x0, zookeeper};

/// A system under load: how to reach it.
pub(crate) trait System {
    /// One connection; clones share it.
    type Client: Client;

    /// The version that it reports, once it has a leader and responds.
    fn ready(&mut self) -> impl Future<Output = Result<String>>;

    /// At least `count` connections to the current leader. Existing connections are kept while the leader
    /// stays.
    fn connections(&mut self, count: usize) -> impl Future<Output = Result<&[Self::Client]>>;
}

/// The operations of the closed loop. An error ends the window, which then has no figures.
pub(crate) trait Client: Clone + 'static {
    fn put(&self, key: Bytes, value: Bytes) -> impl Future<Output = Result<()>>;

    /// A linearizable read. The length of the value, `None` if there is none.
    fn get(&self, key: Bytes) -> impl Future<Output = Result<Option<usize>>>;

    /// A linearizable read of the first `count` entries. Their number.
    fn range(&self, count: u32) -> impl Future<Output = Result<usize>> {
        async move { bail!("ranges of {count} entries are measured with x0 alone") }
    }
}

/// Executes orders from standard input until it ends.
pub(crate) fn serve() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    let (lines, mut input) = mpsc::unbounded_channel();
    // A thread of its own reads standard input, so that connections are kept alive between orders.
    std::thread::spawn(move || std::io::stdin().lock().lines().try_for_each(|line| lines.send(line)));
    let (target, keys) = runtime.block_on(next(&mut input))?.context("no target given")?;
    match target {
        Target::Etcd { endpoints, tls } => {
            let system = etcd::Etcd::new(endpoints, tls.as_ref())?;
            local.block_on(&runtime, orders(system, keys, input))
        }
        Target::X0 { endpoints, trust_domain, client } => {
            let system = x0::X0::new(&endpoints, &trust_domain, client)?;
            local.block_on(&runtime, orders(system, keys, input))
        }
        Target::Embedded { folder } => {
            local.block_on(&runtime, orders(x0::Embedded::new(&folder)?, keys, input))
        }
        Target::Zookeeper { endpoints } => {
            local.block_on(&runtime, orders(zookeeper::Zookeeper::new(endpoints), keys, input))
        }
    }
}

/// Lines of standard input.
type Input = mpsc::UnboundedReceiver<std::io::Result<String>>;

async fn orders<S: System>(mut system: S, keys: KeySpace, mut input: Input) -> Result<()> {
    while let Some(order) = next::<Order>(&mut input).await? {
        let reply = match carry_out(&mut system, keys, order).await {
            Ok(reply) => reply,
            Err(error) => Reply::Failed { why: format!("{error:#}") },
        };
        let mut line = serde_json::to_string(&reply)?;
        line.push('\n');
        let mut output = std::io::stdout().lock();
        output.write_all(line.as_bytes())?;
        output.flush()?;
    }
    Ok(())
}

async fn carry_out<S: System>(system: &mut S, keys: KeySpace, order: Order) -> Result<Reply> {
    match order {
        Order::Await { limit } => ready(system, limit).await,
        Order::Fill => {
            let clients = system.connections(1).await?;
            window::fill(clients, keys).await.map(|()| Reply::Filled)
        }
        Order::Window(order) => {
            let clients = system.connections(order.connections).await?;
            window::run(&clients[..order.connections], keys, &order).await.map(Reply::Measured)
        }
    }
}

async fn ready<S: System>(system: &mut S, limit: Duration) -> Result<Reply> {
    let begin = Instant::now();
    loop {
        let left = limit.saturating_sub(begin.elapsed());
        match tokio::time::timeout(left, system.ready()).await {
            Ok(Ok(version)) => return Ok(Reply::Ready { version }),
            Ok(Err(error)) if left.is_zero() => {
                return Err(error.context(format!("not ready after {limit:?}")));
            }
            Err(_) => bail!("not ready after {limit:?}"),
            Ok(Err(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn next<T: serde::de::DeserializeOwned>(input: &mut Input) -> Result<Option<T>> {
    let Some(line) = input.recv().await.transpose()? else { return Ok(None) };
    Ok(Some(serde_json::from_str(&line).with_context(|| format!("not an order: {line}"))?))
}
