//! The faults of one round, and their end.

use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::cluster::Cluster;
use super::fault::{Fault, Mend};
use super::folder;
use super::node::Start;
use super::report::Report;
use crate::random::Random;
use crate::{disk, history};

const POLL: Duration = Duration::from_millis(20);
/// The pause between two faults, in milliseconds.
const PAUSE_MS: (u64, u64) = (200, 1500);
/// Bits flipped in one file.
const FLIPS_MAX: u64 = 200;
/// The longest time between an acknowledgement of a node and its arrival at the client, in nanoseconds.
const ON_ITS_WAY_NS: u64 = 1_000_000_000;

/// One round of faults.
pub(super) struct Storm<'a> {
    pub(super) cluster: &'a mut Cluster,
    pub(super) report: &'a mut Report,
    pub(super) random: &'a mut Random,
    pub(super) faults: &'a [Fault],
    pub(super) clients: &'a mut Vec<Child>,
    /// When each fault ends.
    mends: Vec<(Instant, Mend)>,
    /// The node whose folder suffers in this round, and when it has.
    victim: usize,
    lost_at: Option<u64>,
}

impl<'a> Storm<'a> {
    pub(super) fn new(
        cluster: &'a mut Cluster,
        report: &'a mut Report,
        random: &'a mut Random,
        faults: &'a [Fault],
        clients: &'a mut Vec<Child>,
    ) -> Result<Storm<'a>> {
        let victim = random.place(cluster.nodes.len());
        let node = &cluster.nodes[victim];
        if faults.contains(&Fault::RollBack) {
            // While all is well: the node acknowledges more after it.
            folder::copy(&node.data(), &node.folder.join("older"))?;
        }
        let mends = Vec::new();
        Ok(Storm { cluster, report, random, faults, clients, mends, victim, lost_at: None })
    }

    /// Faults until the time has come, then ends all of them. Returns when a folder was lost, if one was.
    pub(super) fn run(&mut self, lasts: Duration, mut tick: impl FnMut()) -> Result<Option<u64>> {
        let until = Instant::now() + lasts;
        let mut next = Instant::now() + self.random.milliseconds(PAUSE_MS.0, PAUSE_MS.1);
        while Instant::now() < until {
            std::thread::sleep(POLL);
            tick();
            self.look()?;
            let now = Instant::now();
            let due: Vec<Mend> =
                self.mends.iter().filter(|(at, _)| *at <= now).map(|(_, mend)| *mend).collect();
            self.mends.retain(|(at, _)| *at > now);
            due.into_iter().try_for_each(|mend| self.mend(mend))?;
            if now >= next {
                let fault = self.faults[self.random.place(self.faults.len())];
                if self.begin(fault)? {
                    self.report.fault(fault);
                }
                next = Instant::now() + self.random.milliseconds(PAUSE_MS.0, PAUSE_MS.1);
            }
        }
        self.end()?;
        Ok(self.lost_at)
    }

    /// Notes nodes that ended by themselves: only damage and a full disk may end them.
    fn look(&mut self) -> Result<()> {
        for place in 0..self.cluster.nodes.len() {
            let node = &mut self.cluster.nodes[place];
            let Some(status) = node.ended()? else { continue };
            let (is_expected, log_end) = (node.is_damaged || node.was_full, node.log_end());
            if !is_expected || status.success() {
                self.report
                    .violation(&format!("node {} ended by itself with {status}; {log_end}", place + 1));
            } else {
                self.report.stopped += 1;
            }
            self.mend_later(1000, 3000, Mend::Start(place));
        }
        Ok(())
    }

    fn mend_later(&mut self, low: u64, high: u64, mend: Mend) {
        let at = Instant::now() + self.random.milliseconds(low, high);
        self.mends.push((at, mend));
    }

    /// Begins a fault. Whether it could.
    fn begin(&mut self, fault: Fault) -> Result<bool> {
        let count = self.cluster.nodes.len();
        let place = self.random.place(count);
        match fault {
            Fault::Kill => return self.kill(place),
            Fault::KillLeader => {
                let leader = self.cluster.leader()?.unwrap_or(place);
                return self.kill(leader);
            }
            Fault::KillAll => {
                for place in 0..count {
                    self.kill(place)?;
                }
            }
            Fault::Terminate => {
                let node = &mut self.cluster.nodes[place];
                if !node.is_running() || node.is_paused() {
                    return Ok(false);
                }
                if let Err(why) = node.terminate()? {
                    self.report.violation(&format!("node {} was stopped by SIGTERM: {why}", place + 1));
                }
                self.mend_later(100, 2000, Mend::Start(place));
            }
            Fault::Pause => {
                self.cluster.nodes[place].pause(true)?;
                self.mend_later(300, 4000, Mend::Resume(place));
            }
            Fault::Partition => {
                let sides: Vec<bool> = (0..=count).map(|_| self.random.chance(50)).collect();
                self.cluster.arena.partition(&sides)?;
                self.mend_later(1000, 6000, Mend::Links);
            }
            Fault::IsolateLeader => {
                let leader = self.cluster.leader()?.unwrap_or(place);
                let sides: Vec<bool> = (0..=count).map(|other| other == leader).collect();
                self.cluster.arena.partition(&sides)?;
                self.mend_later(1000, 6000, Mend::Links);
            }
            Fault::CutClients => {
                let leader = self.cluster.leader()?.unwrap_or(place);
                let clients = self.cluster.arena.clients();
                self.cluster.arena.cut(leader, clients)?;
                self.cluster.arena.cut(clients, leader)?;
                self.mend_later(1000, 5000, Mend::Links);
            }
            Fault::OneWay => {
                let other = (place + 1 + self.random.place(count - 1)) % count;
                self.cluster.arena.cut(place, other)?;
                self.mend_later(1000, 6000, Mend::Links);
            }
            Fault::Loss => {
                let lost = u32::try_from(self.random.between(20, 300))?;
                self.cluster.arena.lose(lost)?;
                self.mend_later(1000, 6000, Mend::Links);
            }
            Fault::ClockJump => {
                let jumps = [-20, -3, 5, 60, 3600, 20 * 3600];
                self.cluster.nodes[place].set_clock(jumps[self.random.place(jumps.len())])?;
                self.mend_later(1000, 8000, Mend::Clock(place));
            }
            Fault::FullDisk => {
                let node = &mut self.cluster.nodes[place];
                node.was_full = true;
                disk::fill(&node.data())?;
                self.mend_later(1000, 5000, Mend::Disk(place));
            }
            Fault::BlockedLog => {
                self.cluster.nodes[place].block_log(true);
                self.mend_later(1000, 6000, Mend::Log(place));
            }
            Fault::KillClient => {
                let Some(mut client) = self.clients.pop() else { return Ok(false) };
                client.kill()?;
                client.wait()?;
            }
            Fault::FlipBits | Fault::EmptyFolder | Fault::RollBack | Fault::MissingSegment => {
                return self.damage(fault);
            }
        }
        Ok(true)
    }

    fn kill(&mut self, place: usize) -> Result<bool> {
        if !self.cluster.nodes[place].is_running() {
            return Ok(false);
        }
        self.cluster.nodes[place].kill()?;
        self.mend_later(100, 3000, Mend::Start(place));
        Ok(true)
    }

    /// Does something to the folder of the victim, once in a round.
    fn damage(&mut self, fault: Fault) -> Result<bool> {
        if self.lost_at.is_some() {
            return Ok(false);
        }
        let place = self.victim;
        let node = &mut self.cluster.nodes[place];
        node.kill()?;
        // An acknowledgement may be on its way to the client.
        self.lost_at = Some(history::now()? + ON_ITS_WAY_NS);
        node.is_damaged = true;
        let data = node.data();
        disk::release(&data)?;
        match fault {
            Fault::FlipBits => {
                let count = self.random.between(1, FLIPS_MAX);
                let file = folder::flip(&data, count, self.random)?;
                node.has_flips = true;
                self.report.note(format!("flipped {count} bits of {}", file.as_deref().unwrap_or("no file")));
            }
            Fault::EmptyFolder => folder::empty(&data)?,
            Fault::RollBack => folder::copy(&node.folder.join("older"), &data)?,
            _ => {
                let file = folder::remove_segment(&data)?;
                self.report.note(format!("removed {}", file.as_deref().unwrap_or("no segment")));
            }
        }
        self.mend_later(100, 2000, Mend::Start(place));
        Ok(true)
    }

    fn mend(&mut self, mend: Mend) -> Result<()> {
        match mend {
            Mend::Links => self.cluster.arena.heal(),
            Mend::Resume(place) => self.cluster.nodes[place].pause(false),
            Mend::Start(place) => self.start(place),
            Mend::Clock(place) => self.cluster.nodes[place].set_clock(0),
            Mend::Disk(place) => disk::release(&self.cluster.nodes[place].data()),
            Mend::Log(place) => {
                self.cluster.nodes[place].block_log(false);
                Ok(())
            }
        }
    }

    /// Starts a node that is down. One that refuses its damaged folder gets an empty one, as its message
    /// says, and joins again.
    fn start(&mut self, place: usize) -> Result<()> {
        if self.cluster.nodes[place].is_running() {
            return Ok(());
        }
        let Start::Refused(why) = self.cluster.start(place)? else { return Ok(()) };
        let node = &self.cluster.nodes[place];
        let disk_is_full = self.mends.iter().any(|(_, mend)| *mend == Mend::Disk(place));
        if node.is_damaged {
            self.report.refused += 1;
            self.report.note(format!("node {} refused its folder: {why}", place + 1));
            folder::empty(&node.data())?;
            self.cluster.nodes[place].has_flips = false;
        } else if !disk_is_full {
            self.report.violation(&format!("node {} does not start: {why}", place + 1));
        }
        self.mend_later(500, 1500, Mend::Start(place));
        Ok(())
    }

    /// Ends all faults, and starts what is down.
    fn end(&mut self) -> Result<()> {
        self.cluster.arena.heal()?;
        for place in 0..self.cluster.nodes.len() {
            let node = &mut self.cluster.nodes[place];
            node.pause(false)?;
            node.block_log(false);
            node.set_clock(0)?;
            disk::release(&node.data())?;
        }
        self.mends.clear();
        self.look()?;
        self.mends.clear();
        for place in 0..self.cluster.nodes.len() {
            // A damaged folder is refused once, and then empty.
            self.start(place)?;
            self.start(place)?;
        }
        Ok(())
    }
}
