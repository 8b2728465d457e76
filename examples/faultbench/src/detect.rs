//! `x0-faultbench detect`: the time in which all members know of a dead or hung one, and the bytes that a
//! node sends when nothing happens, beside Serf with its profile for local networks.
//!
//! Each node has a network namespace of its own. Members know when the line of their log arrives here.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;

use crate::arena::{Arena, private_mounts};
use crate::layout::Layout;
use crate::program;
use crate::trial::median;

/// The members of a group.
const NODES: usize = 5;
/// The time in which a group must know all its members.
const START_LIMIT: Duration = Duration::from_secs(60);
/// The time after which a member that was not noticed counts as never noticed.
const NOTICE_LIMIT: Duration = Duration::from_secs(30);
/// The time for connections to settle.
const SETTLE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

/// The settings of the comparison.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Kills and hangs of each system
    #[arg(long, default_value_t = 10)]
    rounds: u64,
    /// How long the bytes of a calm group are counted, in seconds
    #[arg(long, default_value_t = 60)]
    calm_s: u64,
    /// Write the rows as a JSON array to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The program of a node; without it `X0_NODE`, then `x0-node` beside this program
    #[arg(long, value_name = "FILE")]
    node: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum System {
    X0,
    Serf,
}

impl System {
    fn name(self) -> &'static str {
        match self {
            System::X0 => "x0-node",
            System::Serf => "serf",
        }
    }

    /// The member that a line of a log says is down, or up. Members count from 1.
    fn news(self, line: &str) -> Option<(bool, usize)> {
        let (is_up, name) = match self {
            System::X0 => {
                let is_up = line.contains("event=peer-up");
                // What a majority of the members judges, before a connection ends.
                if !is_up && !line.contains("event=peer-suspect") {
                    return None;
                }
                let peer = line.split("peer=").nth(1)?.split_whitespace().next()?;
                return Some((is_up, usize::from_str_radix(peer, 16).ok()?));
            }
            System::Serf if line.contains("EventMemberJoin: ") => (true, line),
            System::Serf if line.contains("EventMemberFailed: ") => (false, line),
            System::Serf => return None,
        };
        let member = name.split("EventMember").nth(1)?.split_whitespace().nth(1)?;
        Some((is_up, member.strip_prefix('n')?.parse().ok()?))
    }
}

/// A line of a member: when it arrived, the member, whether the other one is up, and the other one.
type News = (Instant, usize, bool, usize);

/// A running group.
struct Group {
    arena: Arena,
    processes: Vec<Child>,
    news: Receiver<News>,
    /// Members that another one held for down although they ran, so often.
    false_alarms: u64,
    _folder: tempfile::TempDir,
}

impl Group {
    /// Starts a group, and waits until each member knows each other one.
    fn start(system: System, node: &Path) -> Result<Group> {
        let arena = Arena::new(NODES)?;
        let folder = tempfile::Builder::new().prefix("x0-faultbench-").tempdir()?;
        let layout = Layout::create(node, &folder.path().join("cluster"), &arena, NODES)?;
        let (sender, news) = channel();
        let mut group = Group { arena, processes: Vec::new(), news, false_alarms: 0, _folder: folder };
        for place in 0..NODES {
            let mut command = match system {
                System::X0 => {
                    let mut command = Command::new(node);
                    command.args(["run", "--config"]).arg(layout.node_config(place));
                    command
                }
                System::Serf => serf(&group.arena, place)?,
            };
            command.stdin(Stdio::null());
            // x0-node logs to standard error, Serf to standard output.
            let mut shell = Command::new("sh");
            shell.args(["-c", "exec \"$@\" 2>&1", "sh"]).arg(command.get_program()).args(command.get_args());
            shell.stdin(Stdio::null()).stdout(Stdio::piped());
            let mut process = group.arena.spawn(place, &mut shell)?;
            let output = process.stdout.take().context("a process has no output")?;
            follow(system, place + 1, output, sender.clone())?;
            group.processes.push(process);
        }
        let mut known = BTreeSet::new();
        let until = Instant::now() + START_LIMIT;
        while known.len() < NODES * (NODES - 1) {
            match group.news.recv_timeout(until.saturating_duration_since(Instant::now())) {
                // Serf's agents notice themselves, too, and a connection may be made twice.
                Ok((_, by, true, of)) if by != of => {
                    known.insert((by, of));
                }
                Ok(_) => {}
                Err(_) => {
                    let missing = NODES * (NODES - 1) - known.len();
                    bail!("{missing} members are not known to another one after {START_LIMIT:?}")
                }
            }
        }
        std::thread::sleep(SETTLE);
        group.note_false_alarms();
        Ok(group)
    }

    /// The bytes that each node has sent so far.
    fn sent(&self) -> Result<u64> {
        let mut sent = 0;
        for place in 0..NODES {
            let read = || std::fs::read_to_string("/proc/thread-self/net/dev");
            sent += sent_of(&self.arena.run(place, read)??);
        }
        Ok(sent)
    }

    /// Counts what has come in a group in which all run.
    fn note_false_alarms(&mut self) {
        self.false_alarms += self.news.try_iter().filter(|(.., is_up, _)| !is_up).count() as u64;
    }

    /// The time from a signal to a member until all others know. `None` if one never does.
    fn notice(&mut self, victim: usize, signal: Signal) -> Result<Option<Duration>> {
        let pid = i32::try_from(self.processes[victim].id())?;
        self.note_false_alarms();
        let begun = Instant::now();
        kill(Pid::from_raw(pid), signal).context("cannot signal a process")?;
        let until = begun + NOTICE_LIMIT;
        let mut known = BTreeSet::new();
        while known.len() < NODES - 1 {
            match self.news.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok((at, by, false, of)) if of == victim + 1 && by != of => {
                    known.insert(by);
                    if known.len() == NODES - 1 {
                        return Ok(Some(at.saturating_duration_since(begun)));
                    }
                }
                Ok((_, by, false, of)) if of != victim + 1 && by != victim + 1 => self.false_alarms += 1,
                Ok(_) => {}
                Err(_) => return Ok(None),
            }
        }
        Ok(None)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // Fails only if it has ended.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// An agent of Serf with the profile for local networks.
fn serf(arena: &Arena, place: usize) -> Result<Command> {
    let program = program::peer("serf")
        .context("cannot find serf; install Debian's serf, or name its folder in X0_FAULTBENCH_PEERS")?;
    let address = |place: usize| -> Ipv4Addr { arena.address(place) };
    let mut command = Command::new(program);
    command.args(["agent", "-profile=lan", "-log-level=info", "-rpc-addr=127.0.0.1:7373"]);
    command.arg(format!("-node=n{}", place + 1)).arg(format!("-bind={}:7946", address(place)));
    command.arg(format!("-retry-join={}:7946", address(0))).arg("-retry-interval=1s");
    Ok(command)
}

/// Reports what the log of a member says, until it ends.
fn follow(system: System, by: usize, output: ChildStdout, news: Sender<News>) -> Result<()> {
    let run = move || {
        for line in BufReader::new(output).lines() {
            let Ok(line) = line else { return };
            let at = Instant::now();
            if let Some((is_up, of)) = system.news(&line)
                && news.send((at, by, is_up, of)).is_err()
            {
                return;
            }
        }
    };
    std::thread::Builder::new().spawn(run).context("cannot start a thread")?;
    Ok(())
}

/// The sent bytes of all interfaces but loopback, from `/proc/net/dev`.
fn sent_of(table: &str) -> u64 {
    let rows = table.lines().filter_map(|line| line.split_once(':'));
    let others = rows.filter(|(name, _)| name.trim() != "lo");
    others.filter_map(|(_, counts)| counts.split_whitespace().nth(8)?.parse::<u64>().ok()).sum()
}

/// What was seen of a system.
#[derive(Debug, Default)]
struct Seen {
    kills: Vec<Option<Duration>>,
    hangs: Vec<Option<Duration>>,
    /// Bytes a second that a node sends in a calm group.
    calm: f64,
    /// Members that another one held for down although they ran.
    false_alarms: u64,
}

/// A row of x0-bench (`examples/bench/src/row.rs`).
#[derive(Debug, Serialize)]
struct Row {
    area: &'static str,
    case: &'static str,
    metric: &'static str,
    unit: &'static str,
    x0: Option<f64>,
    peer: Option<f64>,
    peer_name: &'static str,
    ratio: Option<f64>,
}

/// Compares, and prints a table.
pub(crate) fn run(options: &Options) -> Result<()> {
    private_mounts()?;
    let node = program::node(options.node.as_deref())?;
    let mut seen = Vec::new();
    for system in [System::X0, System::Serf] {
        if system == System::Serf && program::peer("serf").is_none() {
            println!(
                "skipped: serf: install Debian's serf, or unpack it and name the folder in {}",
                program::PEERS
            );
            continue;
        }
        let of = measure(system, &node, options)?;
        println!(
            "{:8} kill {}; hang {}; {:.0} bytes/s sent by a node of a calm group; {} false alarms",
            system.name(),
            text(&of.kills),
            text(&of.hangs),
            of.calm,
            of.false_alarms
        );
        seen.push(of);
    }
    if let (Some(path), [x0, serf]) = (&options.json, &seen[..]) {
        let lines = rows(x0, serf).iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
        let text = format!("[\n{}\n]\n", lines.join(",\n"));
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn measure(system: System, node: &Path, options: &Options) -> Result<Seen> {
    let mut seen = Seen::default();
    for round in 0..options.rounds {
        for signal in [Signal::SIGKILL, Signal::SIGSTOP] {
            let mut group = Group::start(system, node)?;
            if round == 0 && signal == Signal::SIGKILL {
                let before = group.sent()?;
                let begun = Instant::now();
                while begun.elapsed() < Duration::from_secs(options.calm_s) {
                    std::thread::sleep(POLL);
                }
                let sent = group.sent()?.saturating_sub(before);
                seen.calm = sent as f64 / begun.elapsed().as_secs_f64() / NODES as f64;
            }
            let victim = usize::try_from(round)? % NODES;
            let noticed = group.notice(victim, signal)?;
            seen.false_alarms += group.false_alarms;
            match signal {
                Signal::SIGKILL => seen.kills.push(noticed),
                _ => seen.hangs.push(noticed),
            }
        }
    }
    Ok(seen)
}

fn milliseconds(times: &[Option<Duration>]) -> Vec<f64> {
    times.iter().flatten().map(|time| time.as_secs_f64() * 1000.0).collect()
}

/// The median and the longest time of the rounds.
fn text(times: &[Option<Duration>]) -> String {
    let all = milliseconds(times);
    let worst = all.iter().copied().fold(0.0, f64::max);
    let never = times.len() - all.len();
    let middle = median(all).unwrap_or(f64::NAN);
    format!("median {middle:.0} ms, longest {worst:.0} ms, never in {never} of {}", times.len())
}

/// All of them are better if they are less.
fn rows(x0: &Seen, serf: &Seen) -> Vec<Row> {
    let row = |case, metric, unit, x0: Option<f64>, peer: Option<f64>| {
        let ratio = x0.zip(peer).map(|(x0, peer)| peer / x0).filter(|ratio| ratio.is_finite());
        Row { area: "mapek", case, metric, unit, x0, peer, peer_name: "serf", ratio }
    };
    let middle = |times: &[Option<Duration>]| median(milliseconds(times));
    let count = |of: &Seen| Some(of.false_alarms as f64);
    vec![
        row("kill of one of five", "time until all know", "ms", middle(&x0.kills), middle(&serf.kills)),
        row("hang of one of five", "time until all know", "ms", middle(&x0.hangs), middle(&serf.hangs)),
        row("calm group of five", "bytes sent by a node", "B/s", Some(x0.calm), Some(serf.calm)),
        row("all rounds", "false alarms", "alarms", count(x0), count(serf)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_log_says_who_is_up_or_down() {
        let x0 = "2026-11-30T00:00:01.000Z node=0000000000000001 event=peer-suspect peer=000000000000000a accusers=x";
        assert_eq!(System::X0.news(x0), Some((false, 10)));
        assert_eq!(System::X0.news(&x0.replace("peer-suspect", "peer-up")), Some((true, 10)));
        assert_eq!(System::X0.news("event=leader leader=1"), None);
        let serf = "2026/11/30 00:00:01 [INFO] serf: EventMemberFailed: n2 10.0.0.2";
        assert_eq!(System::Serf.news(serf), Some((false, 2)));
        assert_eq!(System::Serf.news(&serf.replace("Failed", "Join")), Some((true, 2)));
        assert_eq!(System::Serf.news("[INFO] agent: Serf agent starting"), None);
    }

    #[test]
    fn sent_bytes_are_those_of_all_interfaces_but_loopback() {
        let table = "Inter-|   Receive  |  Transmit\n face |bytes packets\n  lo: 1 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0\n\
                     x0v1r: 5 1 0 0 0 0 0 0 70 1 0 0 0 0 0 0\n";
        assert_eq!(sent_of(table), 70);
    }

    #[test]
    fn a_member_that_is_never_noticed_is_counted() {
        let times = [Some(Duration::from_millis(10)), None, Some(Duration::from_millis(30))];
        assert!(text(&times).ends_with("longest 30 ms, never in 1 of 3"), "{}", text(&times));
        let of = |calm| Seen { kills: times.to_vec(), hangs: vec![None], calm, false_alarms: 2 };
        let rows = rows(&of(100.0), &of(200.0));
        assert_eq!((rows[2].ratio, rows[1].x0, rows.len()), (Some(2.0), None, 4));
        assert_eq!((rows[3].x0, rows[3].peer), (Some(2.0), Some(2.0)));
    }
}
