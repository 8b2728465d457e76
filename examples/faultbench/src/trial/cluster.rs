//! The cluster of a trial: machines in an arena, under a system.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::VOTERS;
use super::fault::Fault;
use super::machine::{Machine, succeed};
use super::system::{ETCD_CLIENT_PORT, System};
use crate::arena::{Arena, Place};
use crate::clock;
use crate::layout::{Layout, PORT};
use crate::load;

/// The time in which a cluster must have a leader after its start.
const START_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);
/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) arena: Arena,
    /// The voters, then a spare if the fault needs one.
    pub(crate) machines: Vec<Machine>,
    pub(crate) layout: Layout,
    system: System,
    program: PathBuf,
    has_clock: bool,
    started: Instant,
}

/// A row of `x0-node status --json`.
#[derive(Debug, Deserialize)]
struct Row {
    is_leader: bool,
}

impl Cluster {
    /// Writes the configurations, and starts all voters. Waits until they have a leader.
    pub(crate) fn start_all(system: System, fault: Fault, program: &Path, root: &Path) -> Result<Cluster> {
        let count = VOTERS + usize::from(fault.needs_spare());
        let mut arena = Arena::new(count)?;
        if fault.needs_two_links() {
            arena.add_network()?;
        }
        let layout = Layout::create(program, &root.join("cluster"), &arena, VOTERS)?;
        if fault.needs_spare() {
            layout.extend(program, &arena, VOTERS)?;
        }
        if fault.needs_two_links() {
            layout.add_links(&arena, count)?;
        }
        let mut machines = Vec::new();
        for place in 0..count {
            use std::io::Write as _;
            let mut config = std::fs::OpenOptions::new().append(true).open(layout.node_config(place))?;
            config.write_all(system.heal(&layout.renewal(program, place)?).as_bytes())?;
            machines.push(Machine::new(place, layout.node(place), system.service())?);
        }
        let (has_clock, program) = (fault == Fault::ClockSkew, program.to_owned());
        let mut cluster =
            Cluster { arena, machines, layout, system, program, has_clock, started: Instant::now() };
        for place in 0..VOTERS {
            cluster.start(place)?;
        }
        cluster.started = Instant::now();
        cluster.wait_for_leader()?;
        if fault == Fault::DeadVoter {
            cluster.add_spare()?;
        }
        Ok(cluster)
    }

    /// Starts the parent process on a machine.
    pub(crate) fn start(&mut self, place: Place) -> Result<()> {
        let machine = &self.machines[place];
        let mut command = self.system.prepare(&self.program, &self.layout, machine, &self.arena)?;
        if self.has_clock {
            clock::shift(&mut command, &machine.folder.join("clock"))?;
        }
        self.machines[place].start(&self.arena, &command)
    }

    /// Shifts the wall clock of the processes that a machine starts.
    pub(crate) fn set_clock(&self, place: Place, seconds: i64) -> Result<()> {
        clock::set(&self.machines[place].folder.join("clock"), seconds)
    }

    /// The trust bundle of an authority that is not that of this cluster.
    pub(crate) fn foreign_bundle(&self) -> Result<String> {
        let folder = tempfile::tempdir()?;
        let layout = Layout::create(&self.program, &folder.path().join("foreign"), &self.arena, VOTERS)?;
        std::fs::read_to_string(layout.node(0).join("bundle.pem")).context("cannot read a foreign bundle")
    }

    /// Starts the fourth machine, and adds it as a learner.
    pub(crate) fn add_spare(&mut self) -> Result<()> {
        self.start(VOTERS)?;
        let (number, address) = ((VOTERS + 1).to_string(), format!("{}:{PORT}", self.arena.address(VOTERS)));
        let begun = Instant::now();
        loop {
            let mut add = self.command(&["member", "add", &number, "--address", &address]);
            add.arg("--config").arg(self.layout.operator_config());
            match self.output(&mut add) {
                Ok(_) => return Ok(()),
                Err(error) if begun.elapsed() > START_LIMIT => {
                    return Err(error.context("cannot add the spare"));
                }
                Err(_) => std::thread::sleep(POLL),
            }
        }
    }

    /// The time since all machines were started.
    pub(crate) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments);
        command
    }

    /// Runs a program where the clients are.
    fn output(&self, command: &mut Command) -> Result<Vec<u8>> {
        self.arena.run(self.arena.clients(), || succeed(command))?
    }

    /// The machine whose node leads, as it says itself. `None` if none says so.
    pub(crate) fn leader(&self) -> Result<Option<Place>> {
        if self.system.is_etcd() {
            let leads =
                |place: &Place| self.arena.run(self.arena.clients(), || etcd_leads(self.etcd(*place)));
            for place in 0..VOTERS {
                if leads(&place)? {
                    return Ok(Some(place));
                }
            }
            return Ok(None);
        }
        let mut status = self.command(&["status", "--json", "--config"]);
        status.arg(self.layout.client_config());
        let Ok(output) = self.output(&mut status) else { return Ok(None) };
        let rows: Vec<Row> =
            serde_json::from_slice(&output).context("cannot read the status of the nodes")?;
        Ok(rows.iter().position(|row| row.is_leader))
    }

    fn etcd(&self, place: Place) -> SocketAddr {
        (self.arena.address(place), ETCD_CLIENT_PORT).into()
    }

    pub(crate) fn wait_for_leader(&self) -> Result<Place> {
        let begun = Instant::now();
        loop {
            if let Some(leader) = self.leader()? {
                return Ok(leader);
            }
            if begun.elapsed() > START_LIMIT {
                let logs: Vec<String> = self.machines.iter().map(Machine::log_end).collect();
                bail!("there is no leader after {START_LIMIT:?}; the logs end with\n{}", logs.join("\n"));
            }
            std::thread::sleep(POLL);
        }
    }

    /// Starts the client process.
    pub(crate) fn client(&self, requests: &Path, mode: &[&str]) -> Result<Child> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("load");
        if self.system.is_etcd() {
            let members: Vec<String> = (0..VOTERS).map(|place| self.etcd(place).to_string()).collect();
            command.args(["--etcd", &members.join(",")]);
        } else {
            command.arg("--config").arg(self.layout.client_config());
        }
        command.arg("--requests").arg(requests).args(mode);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.arena.spawn(self.arena.clients(), &mut command)
    }

    /// The lines of `x0-node heal log --json` of a node.
    pub(crate) fn heal_log(&self, place: Place) -> Result<String> {
        self.heal(place, "log").map(Option::unwrap_or_default)
    }

    /// How many records of a node are kept, and what does not follow from one of them alone.
    pub(crate) fn heal_check(&self, place: Place) -> Result<Checked> {
        match self.heal(place, "check")? {
            Some(checked) => serde_json::from_str(&checked).context("cannot read what `heal check` found"),
            None => Ok(Checked::default()),
        }
    }

    /// The JSON output of a command about the records of a node; `None` without records.
    fn heal(&self, place: Place, what: &str) -> Result<Option<String>> {
        if !self.machines[place].data().join("heal").exists() {
            return Ok(None);
        }
        let mut command = self.command(&["heal", what, "--json", "--config"]);
        command.arg(self.layout.node_config(place));
        let output = succeed(&mut command).context("cannot read the records of a healer")?;
        String::from_utf8(output).map(Some).context("the records of a healer are not text")
    }
}

/// The output of `x0-node heal check --json`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Checked {
    pub(crate) records: u64,
    pub(crate) wrong: Vec<String>,
}

/// Whether a member of etcd says that it leads.
fn etcd_leads(member: SocketAddr) -> bool {
    let answer = load::post(member, "/v3/maintenance/status", "{}", Duration::from_secs(1));
    answer.is_ok_and(|answer| is_leader(&answer))
}

/// Whether the answer to a status is that of the leader.
fn is_leader(answer: &[u8]) -> bool {
    let Ok(status) = serde_json::from_slice::<serde_json::Value>(answer) else { return false };
    let own = status["header"]["member_id"].as_str();
    own.is_some() && own == status["leader"].as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leader_is_the_member_that_names_itself() {
        assert!(is_leader(br#"{"header":{"member_id":"7"},"leader":"7"}"#));
        assert!(!is_leader(br#"{"header":{"member_id":"7"},"leader":"8"}"#));
        assert!(!is_leader(br#"{"header":{}}"#) && !is_leader(b""));
    }
}
