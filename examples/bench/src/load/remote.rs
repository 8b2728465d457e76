//! The side of x0-bench that sends orders.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{KeySpace, Measured, Order, Reply, Target, Window};
use crate::process::tied_to_us;

/// A load generator in its own process; killed on drop.
#[derive(Debug)]
pub(crate) struct Load {
    child: Child,
    orders: ChildStdin,
    replies: BufReader<ChildStdout>,
}

impl Load {
    /// Starts this program again as a generator for `target`.
    pub(crate) fn start(target: &Target, keys: KeySpace) -> Result<Self> {
        let own = std::env::current_exe().context("where this program is")?;
        let mut command = tied_to_us(&own);
        command.arg("load").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start the load generator")?;
        let orders = child.stdin.take().context("no pipe to the load generator")?;
        let replies = BufReader::new(child.stdout.take().context("no pipe from the load generator")?);
        let mut load = Self { child, orders, replies };
        load.send(&(target, keys))?;
        Ok(load)
    }

    /// Waits until the system responds. Returns its version.
    pub(crate) fn ready(&mut self, limit: Duration) -> Result<String> {
        match self.order(&Order::Await { limit })? {
            Reply::Ready { version } => Ok(version),
            other => bail!("the load generator answered {other:?}"),
        }
    }

    pub(crate) fn fill(&mut self) -> Result<()> {
        match self.order(&Order::Fill)? {
            Reply::Filled => Ok(()),
            other => bail!("the load generator answered {other:?}"),
        }
    }

    pub(crate) fn window(&mut self, window: &Window) -> Result<Measured> {
        match self.order(&Order::Window(window.clone()))? {
            Reply::Measured(measured) => Ok(measured),
            other => bail!("the load generator answered {other:?}"),
        }
    }

    fn order(&mut self, order: &Order) -> Result<Reply> {
        self.send(order)?;
        let mut line = String::new();
        self.replies.read_line(&mut line)?;
        if line.is_empty() {
            let status = self.child.wait()?;
            bail!("the load generator ended: {status}");
        }
        match serde_json::from_str(&line).with_context(|| format!("the load generator answered {line}"))? {
            Reply::Failed { why } => bail!("{why}"),
            reply => Ok(reply),
        }
    }

    fn send(&mut self, message: &impl serde::Serialize) -> Result<()> {
        let mut line = serde_json::to_string(message)?;
        line.push('\n');
        self.orders.write_all(line.as_bytes()).context("the load generator has gone")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Both fail only if the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
