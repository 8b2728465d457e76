//! One node: its folder, its process and the faults that are under way there.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;

use crate::arena::{Arena, Place};
use crate::clock;

/// The time in which a node must be ready after its start.
const START_LIMIT: Duration = Duration::from_secs(60);
/// The time in which SIGTERM must end a node: five seconds by its documentation, and some for a busy machine.
pub(super) const STOP_LIMIT: Duration = Duration::from_secs(8);
/// See the [module](self).
#[derive(Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    /// Configuration, log and the folder `data`.
    pub(super) folder: PathBuf,
    process: Option<Process>,
    /// Something was done to the folder in this round that makes the node refuse it.
    pub(super) is_damaged: bool,
    /// Bits of the folder were flipped, and it was not emptied since.
    pub(super) has_flips: bool,
    /// The disk was full since the process started.
    pub(super) was_full: bool,
}

#[derive(Debug)]
struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    replies: mpsc::Receiver<String>,
    is_log_blocked: Arc<AtomicBool>,
    is_paused: bool,
}

/// A reply of the node's control channel, as far as this program needs it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Reply {
    reply: String,
    #[serde(default)]
    pub(super) is_leader: bool,
    #[serde(default)]
    pub(super) leader: Option<u64>,
    #[serde(default)]
    pub(super) committed: u64,
    #[serde(default)]
    pub(super) applied: u64,
    #[serde(default)]
    pub(super) entries: u64,
    #[serde(default)]
    pub(super) sum: u64,
    #[serde(default)]
    why: String,
}

/// How a start ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Start {
    Ready,
    /// The node refused, with this reason, and ended with a non-zero code.
    Refused(String),
}

impl Node {
    pub(super) fn new(place: Place, folder: PathBuf) -> Node {
        Node { place, folder, process: None, is_damaged: false, has_flips: false, was_full: false }
    }

    /// As a person counts them.
    pub(super) fn number(&self) -> u64 {
        self.place as u64 + 1
    }

    pub(super) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn log(&self) -> PathBuf {
        self.folder.join("node.log")
    }

    fn clock(&self) -> PathBuf {
        self.folder.join("clock")
    }

    pub(super) fn is_running(&self) -> bool {
        self.process.is_some()
    }

    pub(super) fn is_paused(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.is_paused)
    }

    /// Starts the process and waits until it listens or refuses.
    pub(super) fn start(&mut self, arena: &Arena, program: &Path) -> Result<Start> {
        self.was_full = false;
        let mut command = Command::new(program);
        command.arg("run").arg("--control").arg("--config").arg(self.folder.join("node.toml"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        clock::shift(&mut command, &self.clock())?;
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = arena.spawn(self.place, &mut command)?;
        let output = child.stdout.take().context("the node has no standard output")?;
        let errors = child.stderr.take().context("the node has no standard error")?;
        let is_log_blocked = Arc::new(AtomicBool::new(false));
        copy_log(errors, &self.log(), Arc::clone(&is_log_blocked))?;
        let (stdin, replies) = (child.stdin.take(), lines(output)?);
        self.process = Some(Process { child, stdin, replies, is_log_blocked, is_paused: false });
        match self.reply(START_LIMIT)? {
            Some(reply) if reply.reply == "ready" => Ok(Start::Ready),
            Some(reply) => {
                let why = reply.why;
                let status = self.end()?;
                if status.success() {
                    bail!("node {} refused to start with exit code 0: {why}", self.number());
                }
                Ok(Start::Refused(why))
            }
            None => match self.ended()? {
                Some(status) if status.success() => {
                    bail!("node {} ended at its start with exit code 0; {}", self.number(), self.log_end())
                }
                Some(status) => Ok(Start::Refused(format!(
                    "it ended with {status}; its log ends with\n{}",
                    self.log_end()
                ))),
                None => {
                    bail!("node {} was not ready within {START_LIMIT:?}; {}", self.number(), self.log_end())
                }
            },
        }
    }

    /// Shifts the wall clock of the process by so many seconds.
    pub(super) fn set_clock(&self, seconds: i64) -> Result<()> {
        clock::set(&self.clock(), seconds)
    }

    /// Waits for a reply, at most until `limit`. `None` if none came.
    fn reply(&mut self, limit: Duration) -> Result<Option<Reply>> {
        let Some(process) = &self.process else { return Ok(None) };
        match process.replies.recv_timeout(limit) {
            Ok(line) => {
                serde_json::from_str(&line).map(Some).with_context(|| format!("a node replied {line}"))
            }
            Err(_) => Ok(None),
        }
    }

    /// Gives an order on the control channel. `None` if there is no answer in time.
    pub(super) fn order(&mut self, order: &str, limit: Duration) -> Result<Option<Reply>> {
        let Some(process) = self.process.as_mut().filter(|process| !process.is_paused) else {
            return Ok(None);
        };
        // Late replies to earlier orders.
        while process.replies.try_recv().is_ok() {}
        let Some(stdin) = &mut process.stdin else { return Ok(None) };
        if writeln!(stdin, "{{\"order\":\"{order}\"}}").is_err() {
            return Ok(None);
        }
        Ok(self.reply(limit)?.filter(|reply| reply.reply != "failed"))
    }

    pub(super) fn status(&mut self) -> Result<Option<Reply>> {
        self.order("status", Duration::from_secs(1))
    }

    /// The status of a process that has ended by itself.
    pub(super) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let Some(process) = &mut self.process else { return Ok(None) };
        let ended = process.child.try_wait().context("cannot wait for a node")?;
        if ended.is_some() {
            self.process = None;
        }
        Ok(ended)
    }

    fn end(&mut self) -> Result<ExitStatus> {
        let Some(mut process) = self.process.take() else { bail!("the node does not run") };
        drop(process.stdin.take());
        let until = Instant::now() + STOP_LIMIT;
        while Instant::now() < until {
            if let Some(status) = process.child.try_wait()? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(20));
        }
        process.child.kill()?;
        process.child.wait()?;
        bail!("node {} did not end within {STOP_LIMIT:?}; {}", self.number(), self.log_end())
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.child.kill().context("cannot kill a node")?;
            process.child.wait().context("cannot wait for a node")?;
        }
        Ok(())
    }

    /// SIGTERM, which must end the process in time and with success.
    pub(super) fn terminate(&mut self) -> Result<Result<(), String>> {
        let Some(process) = &self.process else { return Ok(Ok(())) };
        let begun = Instant::now();
        signal(&process.child, Signal::SIGTERM)?;
        let (was_full, log_end) = (self.was_full, self.log_end());
        let Some(mut process) = self.process.take() else { return Ok(Ok(())) };
        while begun.elapsed() < STOP_LIMIT {
            if let Some(status) = process.child.try_wait()? {
                let is_fine = status.success() || was_full;
                return Ok(is_fine.then_some(()).ok_or_else(|| format!("it ended with {status}; {log_end}")));
            }
            thread::sleep(Duration::from_millis(10));
        }
        process.child.kill()?;
        process.child.wait()?;
        Ok(Err(format!("it did not end within {STOP_LIMIT:?} of SIGTERM; {log_end}")))
    }

    /// SIGSTOP or SIGCONT.
    pub(super) fn pause(&mut self, is_paused: bool) -> Result<()> {
        if let Some(process) = &mut self.process {
            signal(&process.child, if is_paused { Signal::SIGSTOP } else { Signal::SIGCONT })?;
            process.is_paused = is_paused;
        }
        Ok(())
    }

    /// Stops or resumes reading what the node writes to standard error, so that the pipe fills.
    pub(super) fn block_log(&mut self, is_blocked: bool) {
        if let Some(process) = &self.process {
            process.is_log_blocked.store(is_blocked, Ordering::SeqCst);
        }
    }

    /// The last lines of the log, for messages.
    pub(super) fn log_end(&self) -> String {
        let log = std::fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = text.lines().collect();
        format!(
            "the log of node {} ends with\n{}",
            self.number(),
            lines[lines.len().saturating_sub(8)..].join("\n")
        )
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Fails only if the process has ended already.
        let _ = self.kill();
    }
}

fn signal(child: &Child, signal: Signal) -> Result<()> {
    let pid = i32::try_from(child.id()).context("a process id is out of range")?;
    kill(Pid::from_raw(pid), signal).with_context(|| format!("cannot send {signal} to a node"))
}

/// The lines of the output of a child; the channel closes with it.
fn lines(output: impl Read + Send + 'static) -> Result<mpsc::Receiver<String>> {
    let (sender, receiver) = mpsc::channel();
    let read = move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    };
    thread::Builder::new().name("node output".into()).spawn(read)?;
    Ok(receiver)
}

/// Appends what a node writes to its log file, while the log is not blocked.
fn copy_log(mut from: impl Read + Send + 'static, path: &Path, is_blocked: Arc<AtomicBool>) -> Result<()> {
    let mut file = File::options().create(true).append(true).open(path)?;
    let copy = move || {
        let mut buffer = vec![0; 16 << 10];
        loop {
            while is_blocked.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(20));
            }
            match from.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(len) if file.write_all(&buffer[..len]).is_err() => break,
                Ok(_) => {}
            }
        }
    };
    thread::Builder::new().name("node log".into()).spawn(copy)?;
    Ok(())
}
