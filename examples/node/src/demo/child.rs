//! A node as a child process, which ends with the demo.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::sync::mpsc;

use super::namespaces::Ring;
use crate::control::{Order, Reply};

/// The time in which a node must reply to an order.
const REPLY_LIMIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(5);

/// A running node. Dropping it kills the process and waits for its end.
#[derive(Debug)]
pub(crate) struct NodeProcess {
    number: usize,
    child: Child,
    /// `None` after the order to stop.
    orders: Option<ChildStdin>,
    replies: mpsc::UnboundedReceiver<String>,
    log: PathBuf,
}

/// The failure to start a node.
#[derive(Debug)]
pub(crate) enum StartError {
    /// Another program uses its port: another port may be tried.
    PortInUse,
    Other(anyhow::Error),
}

impl NodeProcess {
    /// Starts node `number` with the configuration in `folder`, in its namespace of the ring if there is one,
    /// and waits until it listens.
    pub(crate) async fn start(
        number: usize,
        folder: &Path,
        ring: Option<&Ring>,
    ) -> Result<NodeProcess, StartError> {
        let mut node = NodeProcess::spawn(number, folder, ring).map_err(StartError::Other)?;
        match node.reply().await.map_err(StartError::Other)? {
            Reply::Ready => Ok(node),
            Reply::Failed { is_port_in_use: true, .. } => Err(StartError::PortInUse),
            other => Err(StartError::Other(anyhow::anyhow!("node {number} did not start: {other:?}"))),
        }
    }

    fn spawn(number: usize, folder: &Path, ring: Option<&Ring>) -> Result<NodeProcess> {
        let own = std::env::current_exe().context("cannot find the path of this program")?;
        let log = folder.join("node.log");
        let output = File::options().create(true).append(true).open(&log);
        let output = output.with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new(own);
        command.arg("run").arg("--control").arg("--config").arg(folder.join("node.toml"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(output);
        // A Ctrl-C in the terminal is for the demo, which then ends its nodes itself.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = spawn(number, &mut command, ring);
        let mut child = child.with_context(|| format!("cannot start node {number}"))?;
        let orders = child.stdin.take();
        let output = child.stdout.take().context("the child process has no standard output")?;
        Ok(NodeProcess { number, child, orders, replies: lines(output)?, log })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Carries out one order.
    pub(crate) async fn order(&mut self, order: &Order) -> Result<Reply> {
        let mut line = serde_json::to_string(order)?;
        line.push('\n');
        let orders = self.orders.as_mut().context("the node was ordered to stop")?;
        if let Err(error) = orders.write_all(line.as_bytes()) {
            bail!("node {} accepts no orders ({error}); its log ends with\n{}", self.number, self.log_end());
        }
        match self.reply().await? {
            Reply::Failed { why, .. } => bail!("node {} refused {order:?}: {why}", self.number),
            reply => Ok(reply),
        }
    }

    async fn reply(&mut self) -> Result<Reply> {
        match tokio::time::timeout(REPLY_LIMIT, self.replies.recv()).await {
            Ok(Some(line)) => Ok(serde_json::from_str(&line)?),
            Ok(None) => {
                bail!("node {} has ended; its log ends with\n{}", self.number, self.log_end())
            }
            Err(_) => bail!(
                "node {} did not reply within {REPLY_LIMIT:?}; its log ends with\n{}",
                self.number,
                self.log_end()
            ),
        }
    }

    /// Kills the process (SIGKILL) and waits for its end.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("cannot kill node {}", self.number))?;
        self.child.wait().with_context(|| format!("cannot wait for node {}", self.number))?;
        Ok(())
    }

    /// Stops the node in an orderly way. An error if it did not stop with success.
    pub(crate) async fn stop(mut self) -> Result<()> {
        // The end of its standard input orders the stop; the end of its standard output is the end of the
        // process.
        drop(self.orders.take());
        let ended = tokio::time::timeout(REPLY_LIMIT, async { while self.replies.recv().await.is_some() {} });
        if ended.await.is_err() {
            bail!(
                "node {} did not stop within {REPLY_LIMIT:?}; its log ends with\n{}",
                self.number,
                self.log_end()
            );
        }
        let status = self.child.wait().with_context(|| format!("cannot wait for node {}", self.number))?;
        if !status.success() {
            bail!("node {} ended with {status}; its log ends with\n{}", self.number, self.log_end());
        }
        Ok(())
    }

    fn log_end(&self) -> String {
        log_end(&self.log)
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        // Both fail only if the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A node under `x0-node supervise`. Dropping it kills the supervisor, whose end is that of the node.
#[derive(Debug)]
pub(crate) struct SupervisedNode {
    number: usize,
    supervisor: Child,
    log: PathBuf,
}

/// What the log of a supervisor says of its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Seen {
    /// How often the node served.
    pub(crate) ready: usize,
    /// The process of the last start.
    pub(crate) pid: Option<u32>,
}

impl SupervisedNode {
    /// Starts a supervisor with the configuration in `folder`, without waiting for its node.
    pub(crate) fn start(number: usize, folder: &Path, ring: Option<&Ring>) -> Result<SupervisedNode> {
        let own = std::env::current_exe().context("cannot find the path of this program")?;
        let log = folder.join("node.log");
        let output = File::options().create(true).append(true).open(&log);
        let output = output.with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new(own);
        command.arg("supervise").arg("--while-input").arg("--config").arg(folder.join("node.toml"));
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(output);
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let supervisor = spawn(number, &mut command, ring)
            .with_context(|| format!("cannot start the supervisor of node {number}"))?;
        Ok(SupervisedNode { number, supervisor, log })
    }

    /// What has happened so far.
    pub(crate) fn seen(&self) -> Seen {
        let log = std::fs::read(&self.log).unwrap_or_default();
        seen(&String::from_utf8_lossy(&log))
    }

    /// Waits until the node has served `count` times. Returns the process of its last start.
    pub(crate) async fn served(&self, count: usize, limit: Duration) -> Result<u32> {
        let begun = Instant::now();
        loop {
            match self.seen() {
                Seen { ready, pid: Some(pid) } if ready >= count => return Ok(pid),
                _ if begun.elapsed() > limit => bail!(
                    "node {} did not serve within {limit:?}; its log ends with\n{}",
                    self.number,
                    log_end(&self.log)
                ),
                _ => tokio::time::sleep(POLL).await,
            }
        }
    }

    /// Stops the supervisor and its node in an orderly way.
    pub(crate) async fn stop(mut self) -> Result<()> {
        drop(self.supervisor.stdin.take());
        let begun = Instant::now();
        loop {
            match self.supervisor.try_wait().context("cannot wait for a supervisor")? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("the supervisor of node {} ended with {status}", self.number),
                None if begun.elapsed() > REPLY_LIMIT => {
                    bail!("the supervisor of node {} did not stop within {REPLY_LIMIT:?}", self.number)
                }
                None => tokio::time::sleep(POLL).await,
            }
        }
    }
}

impl Drop for SupervisedNode {
    fn drop(&mut self) {
        // Both fail only if the process has ended already.
        let _ = self.supervisor.kill();
        let _ = self.supervisor.wait();
    }
}

/// Starts a program of node `number`, in its namespace of the ring if there is one.
fn spawn(number: usize, command: &mut Command, ring: Option<&Ring>) -> std::io::Result<Child> {
    match ring {
        Some(ring) => ring.spawn(number, command),
        None => command.spawn(),
    }
}

fn seen(log: &str) -> Seen {
    let mut seen = Seen::default();
    for line in log.lines() {
        let mut words = line.split(' ');
        match words.find_map(|word| word.strip_prefix("event=")) {
            Some("node-ready") => seen.ready += 1,
            Some("node-started") => {
                seen.pid = words.find_map(|word| word.strip_prefix("pid=")?.parse().ok());
            }
            _ => {}
        }
    }
    seen
}

fn log_end(log: &Path) -> String {
    let log = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(6)..].join("\n")
}

/// The lines of the output of a child; the channel closes with it.
fn lines(output: ChildStdout) -> Result<mpsc::UnboundedReceiver<String>> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let read = move || {
        for line in BufReader::new(output).lines() {
            let Ok(line) = line else { break };
            if sender.send(line).is_err() {
                break;
            }
        }
    };
    std::thread::Builder::new().name("node output".into()).spawn(read)?;
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_of_a_supervisor_tells_its_process() {
        assert_eq!(seen(""), Seen::default());
        let log = "time=1 event=node-started pid=17\ntime=2 node=6 event=listening address=x\ntime=3 event=node-ready after_ms=4\n\
                   time=5 event=node-hung silent_ms=2000\ntime=6 event=node-started pid=18\n";
        assert_eq!(seen(log), Seen { ready: 1, pid: Some(18) });
    }
}
