//! `x0-node supervise`: a parent process that keeps a node running.
//!
//! The supervisor starts `x0-node run` as a child process with its control channel: orders on the child's
//! standard input, replies on its standard output. A node that ends without an order starts again; a node
//! that does not answer a heartbeat is killed and starts again. The heartbeat is answered on the thread of
//! the node's event loop. A wrong configuration ends the supervisor with exit code 78 (`EX_CONFIG`), so that
//! a service manager does not start it again (`RestartPreventExitStatus=78`). What else keeps a node from
//! starting, such as a full disk or a port in use, is tried again after pauses that grow to a minute. The
//! healer of a node may ask for a restart: the node is stopped in an orderly way and starts again, at most
//! three times a day.
//!
//! [`engine`] decides, this module carries out. The node stops by itself when the supervisor dies.

mod engine;
mod notify;

use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;

use self::engine::{End, Exit, Input, Notice, Options, Output, Supervisor};
use self::notify::ServiceManager;
use crate::causes::causes;
use crate::cli::SuperviseArgs;
use crate::config::NodeConfig;
use crate::control::{self, Order, Reply};
use crate::log::{self, Log};
use crate::{fatal, signals};

/// The exit code for a wrong configuration, as sysexits.h has it.
const EXIT_CONFIG: u8 = 78;
/// Orders that wait for a node that does not read. There is one heartbeat at a time.
const ORDERS_MAX: usize = 8;

/// Keeps a node running until a signal stops it.
///
/// # Errors
/// When no process can be started at all, or the environment of the service manager is wrong.
pub(crate) async fn supervise(args: &SuperviseArgs) -> Result<ExitCode> {
    let manager = ServiceManager::from_environment()?;
    let config = match NodeConfig::load(&args.config) {
        Ok(config) => config,
        Err(error) => {
            let text = format!("x0-node: {}\n", causes(&error.into()));
            log::last_words(&text, fatal::LOG_LIMIT);
            return Ok(ExitCode::from(EXIT_CONFIG));
        }
    };
    let log = Log::start(config.node, args.log).context("cannot start the thread of the log")?;
    let mut driver = Driver::new(args, manager, log)?;
    let end = driver.run().await?;
    driver.log.flush(fatal::LOG_LIMIT);
    Ok(match end {
        End::Stopped => ExitCode::SUCCESS,
        End::Killed => ExitCode::FAILURE,
        End::Config { .. } => ExitCode::from(EXIT_CONFIG),
    })
}

struct Driver<'a> {
    args: &'a SuperviseArgs,
    /// The path of this program at the start: a later start takes the program that is there then.
    program: PathBuf,
    manager: ServiceManager,
    log: Log,
    origin: Instant,
    engine: Supervisor,
    process: Option<Process>,
}

/// A child process with its control channel.
struct Process {
    child: Child,
    orders: mpsc::Sender<Order>,
    replies: mpsc::Receiver<Reply>,
}

impl Driver<'_> {
    fn new(args: &SuperviseArgs, manager: ServiceManager, log: Log) -> Result<Driver<'_>> {
        let program = std::env::current_exe().context("cannot find the path of this program")?;
        let engine = Supervisor::new(Duration::ZERO, Options::default().hang_after(args.hang_after));
        Ok(Driver { args, program, manager, log, origin: Instant::now(), engine, process: None })
    }

    async fn run(&mut self) -> Result<End> {
        let (mut stops, mut reloads) = (signals::Stops::new()?, signals::HangUps::new()?);
        let mut alive = self.manager.watchdog_every().map(tokio::time::interval);
        let mut input = match self.args.while_input {
            true => Some(control::orders().context("cannot read standard input")?),
            false => None,
        };
        loop {
            while let Some(output) = self.engine.poll_output() {
                if let Output::End(end) = output {
                    self.ended(&end);
                    return Ok(end);
                }
                self.carry_out(output);
            }
            let due = self.engine.poll_timeout();
            let input = tokio::select! {
                // In this order: an answer that has arrived counts before the timer that misses it.
                biased;
                () = stops.next() => Input::Stop,
                () = closed(&mut input) => Input::Stop,
                () = reloads.next() => Input::Reload,
                input = next(&mut self.process) => input,
                () = tick(&mut alive) => {
                    // The supervisor itself is alive, and acts on a node that is not.
                    self.manager.send("WATCHDOG=1");
                    continue;
                }
                () = sleep_until(self.origin, due) => Input::Timeout,
            };
            if let Input::Exited { .. } = input {
                self.process = None;
            }
            self.engine.handle(self.origin.elapsed(), input);
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Start => {
                let started = self.start();
                let input = match started {
                    Ok(process) => {
                        self.log.event("node-started", format!("pid={}", process.child.id().unwrap_or(0)));
                        self.process = Some(process);
                        Input::Started
                    }
                    Err(error) => Input::NotStarted { why: causes(&error) },
                };
                self.engine.handle(self.origin.elapsed(), input);
            }
            Output::Beat => self.order(Order::Status),
            Output::Reload => self.order(Order::Reload),
            Output::Stop => self.order(Order::Stop),
            Output::Refuse { why } => {
                self.log.event("node-restart-refused", format!("why={why}"));
                self.order(Order::RestartRefused { why });
            }
            Output::Kill => {
                if let Some(process) = &mut self.process {
                    // The call fails only if the process has ended already.
                    let _ = process.child.start_kill();
                }
            }
            Output::Notice(notice) => self.notice(&notice),
            // The caller has taken it.
            Output::End(_) => {}
        }
    }

    /// Queues an order. A full queue is that of a node that hangs: the heartbeat finds it out.
    fn order(&self, order: Order) {
        if let Some(process) = &self.process {
            let _ = process.orders.try_send(order);
        }
    }

    fn start(&self) -> Result<Process> {
        let mut command = Command::new(&self.program);
        command.args(["run", "--control", "--supervised", "--config"]).arg(&self.args.config);
        command.args(["--log", &self.args.log.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        // A Ctrl-C in the terminal is for the supervisor, which stops the node. Messages to the service
        // manager are those of the supervisor.
        #[cfg(unix)]
        command.process_group(0);
        for variable in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
            command.env_remove(variable);
        }
        let mut child =
            command.spawn().with_context(|| format!("cannot start {}", self.program.display()))?;
        let input = child.stdin.take().context("the child process has no standard input")?;
        let output = child.stdout.take().context("the child process has no standard output")?;
        let (orders, queue) = mpsc::channel(ORDERS_MAX);
        tokio::spawn(write_orders(input, queue));
        let (sender, replies) = mpsc::channel(ORDERS_MAX);
        tokio::spawn(read_replies(output, sender));
        Ok(Process { child, orders, replies })
    }

    fn notice(&self, notice: &Notice) {
        match notice {
            Notice::Ready { after } => {
                self.log.event("node-ready", format!("after_ms={}", after.as_millis()));
                self.manager.send("READY=1\nSTATUS=the node serves");
            }
            Notice::Failed { why } => self.log.event("node-failed", format!("why={why}")),
            Notice::Hung { silent } => {
                let effect = "it is killed and starts again";
                let silent = silent.as_millis();
                self.log.event("node-hung", format!("silent_ms={silent} effect={effect}"));
            }
            Notice::Asked { why } => {
                let effect = "it is stopped and starts again";
                self.log.event("node-asked", format!("why={why} effect={effect}"));
            }
            Notice::Restart { pause } => {
                self.log.event("node-restart", format!("in_ms={}", pause.as_millis()));
                self.manager.send("STATUS=the node starts again");
            }
            Notice::Stopping => self.manager.send("STOPPING=1\nSTATUS=the node stops"),
        }
    }

    fn ended(&self, end: &End) {
        match end {
            End::Stopped => self.log.event("supervisor-stopped", ""),
            End::Killed => {
                self.log.event("supervisor-stopped", "why=the node did not stop in time and was killed");
            }
            End::Config { why } => {
                let remedy = "correct the configuration and start the supervisor again";
                self.log.event("supervisor-failed", format!("why={why} remedy={remedy}"));
            }
        }
        self.manager.send("STOPPING=1");
    }
}

/// What the process does next. Never, if there is none.
async fn next(process: &mut Option<Process>) -> Input {
    let Some(Process { child, replies, .. }) = process else { return std::future::pending().await };
    match replies.recv().await {
        Some(Reply::Ready) => Input::Ready,
        Some(Reply::Failed { why, is_config, .. }) => Input::Refused { why, is_config },
        Some(Reply::Restart { why }) => Input::Asked { why },
        Some(_) => Input::Beat,
        // The output ends with the process, and what the node said before its end counts.
        None => Input::Exited { exit: child.wait().await.map_or(Exit::Code(-1), exit) },
    }
}

fn exit(status: ExitStatus) -> Exit {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return Exit::Signal(signal);
    }
    Exit::Code(status.code().unwrap_or(-1))
}

async fn sleep_until(origin: Instant, due: Option<Duration>) {
    match due {
        Some(due) => tokio::time::sleep(due.saturating_sub(origin.elapsed())).await,
        None => std::future::pending().await,
    }
}

/// Returns once when standard input has ended; never, if it is not watched. What is written there means
/// nothing.
async fn closed(input: &mut Option<mpsc::UnboundedReceiver<Result<Order, String>>>) {
    if let Some(lines) = input {
        while lines.recv().await.is_some() {}
        *input = None;
        return;
    }
    std::future::pending::<()>().await;
}

async fn tick(interval: &mut Option<tokio::time::Interval>) {
    match interval {
        Some(interval) => drop(interval.tick().await),
        None => std::future::pending().await,
    }
}

/// Writes orders to a node, until it or the supervisor ends. A task of its own: a node that hangs does not
/// read, and must not stop the supervision.
async fn write_orders(mut to: ChildStdin, mut orders: mpsc::Receiver<Order>) {
    while let Some(order) = orders.recv().await {
        let Ok(mut line) = serde_json::to_string(&order) else { continue };
        line.push('\n');
        if to.write_all(line.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Reads the replies of a node until it ends.
async fn read_replies(from: ChildStdout, replies: mpsc::Sender<Reply>) {
    let mut lines = BufReader::new(from).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        // Only the node writes there, so another line is a mistake of this program.
        let Ok(reply) = serde_json::from_str(&line) else { continue };
        if replies.send(reply).await.is_err() {
            return;
        }
    }
}
