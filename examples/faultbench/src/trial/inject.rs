//! Injecting a fault into a cluster, keeping it up, and ending it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use super::VOTERS;
use super::cluster::Cluster;
use super::fault::Fault;
use super::machine::Machine;
use crate::arena::Place;

/// The parts of a period in which a starved machine does not run, and of the period.
const STARVED_MS: (u128, u128) = (350, 400);
/// The parts of a period in which a flapping link is cut, and of the period.
const FLAPPING_MS: (u128, u128) = (1000, 2000);
/// Writes a second of a slow disk: an fdatasync is two of them.
const SLOW_WRITES: u32 = 4;
/// The same if all disks are slow, which the service survives.
const ALL_SLOW_WRITES: u32 = 8;
/// The second machine of [`Fault::DeadVoter`] is switched off so long after the first one.
const SECOND_LOSS: Duration = Duration::from_secs(16);
/// The pause between two machines of a rolling restart.
const ROLLING: Duration = Duration::from_secs(4);
/// Of a thousand packets that arrive at a lossy place, how many are lost.
const LOST: u32 = 300;
/// The same for one of two links.
const LOST_ON_LINK: u32 = 600;
/// The memory of a process that leaks, what it loses each second, and the least that is left.
const LEAK_BEGIN: u64 = 160 << 20;
const LEAK_PER_SECOND: u64 = 16 << 20;
const LEAK_END: u64 = 4 << 20;
/// The validity of a short SVID.
const SHORT_SVID: Duration = Duration::from_secs(24);
/// A process that a supervisor was to start again has this long, when the fault is over.
const RESTART_LIMIT: Duration = Duration::from_secs(2);

/// A fault that is under way.
#[derive(Debug)]
pub(crate) struct Injection {
    fault: Fault,
    leader: Place,
    /// The other voters, in an order that the seed gives.
    others: [Place; VOTERS - 1],
    begun: Instant,
    /// The steps of the fault that are done.
    steps: usize,
    /// Whether the periodic part is on.
    is_on: bool,
    /// The process that loses memory, and since when.
    leaking: Option<(i32, Instant)>,
    /// A file that the fault has changed, and its text before.
    changed: Option<(PathBuf, String)>,
}

impl Injection {
    /// Injects a fault. `is_swapped` chooses the follower.
    pub(crate) fn begin(
        cluster: &mut Cluster,
        fault: Fault,
        leader: Place,
        is_swapped: bool,
    ) -> Result<Injection> {
        let (one, two) = ((leader + 1) % VOTERS, (leader + 2) % VOTERS);
        let others = if is_swapped { [two, one] } else { [one, two] };
        let begun = Instant::now();
        let mut injection =
            Injection { fault, leader, others, begun, steps: 0, is_on: false, leaking: None, changed: None };
        injection.inject(cluster)?;
        Ok(injection)
    }

    /// The nodes that the fault concerns, counted from 1.
    pub(crate) fn faulty(&self) -> Vec<u64> {
        let [one, two] = self.others;
        let places: &[Place] = match self.fault {
            Fault::KillFollower | Fault::HangFollower | Fault::BadConfig => &[one],
            Fault::TwoAtOnce => &[self.leader, one],
            Fault::DeadVoter => &[one, two],
            Fault::KillAll => &[self.leader, one, two],
            // Load and planned work are no fault of a node.
            Fault::Loss | Fault::AllSlow | Fault::ScaleOut | Fault::RollingRestart | Fault::Nothing => &[],
            _ => &[self.leader],
        };
        places.iter().map(|place| *place as u64 + 1).collect()
    }

    fn inject(&mut self, cluster: &mut Cluster) -> Result<()> {
        let (leader, [one, two]) = (self.leader, self.others);
        let clients = cluster.arena.clients();
        match self.fault {
            Fault::KillLeader => drop(cluster.machines[leader].signal(Signal::SIGKILL)),
            Fault::KillFollower => drop(cluster.machines[one].signal(Signal::SIGKILL)),
            Fault::HangLeader => drop(cluster.machines[leader].signal(Signal::SIGSTOP)),
            Fault::HangFollower => drop(cluster.machines[one].signal(Signal::SIGSTOP)),
            Fault::TwoAtOnce => {
                cluster.machines[leader].signal(Signal::SIGKILL);
                cluster.machines[one].signal(Signal::SIGSTOP);
            }
            Fault::KillAll => {
                for place in [leader, one, two] {
                    cluster.machines[place].signal(Signal::SIGKILL);
                }
            }
            Fault::SlowDiskLeader => cluster.machines[leader].throttle(Some(SLOW_WRITES))?,
            Fault::AllSlow => {
                for machine in &cluster.machines {
                    machine.throttle(Some(ALL_SLOW_WRITES))?;
                }
            }
            Fault::FullDiskLeader => cluster.machines[leader].fill(true)?,
            Fault::CutLeader => isolate(cluster, leader)?,
            Fault::OneWayLeader => {
                for other in [one, two] {
                    cluster.arena.cut(other, leader)?;
                }
            }
            Fault::CutClients => {
                cluster.arena.cut(leader, clients)?;
                cluster.arena.cut(clients, leader)?;
            }
            Fault::Loss => cluster.arena.lose(LOST)?,
            Fault::BadLinkLeader => cluster.arena.lose_on_link(leader, LOST_ON_LINK)?,
            Fault::ClockSkew => cluster.set_clock(leader, 3600)?,
            Fault::DeadVoter => cluster.machines[one].power_off()?,
            Fault::BadConfig => {
                self.change(cluster.layout.node_config(one), |text| {
                    format!("{text}\nno_such_setting = true\n")
                })?;
                cluster.machines[one].signal(Signal::SIGKILL);
            }
            Fault::WrongBundle => {
                let foreign = cluster.foreign_bundle()?;
                self.change(cluster.layout.node(leader).join("bundle.pem"), |_| foreign)?;
            }
            Fault::ShortSvid => {
                let short = cluster.layout.short_svid(leader, SHORT_SVID)?;
                self.change(cluster.layout.node(leader).join("svid.pem"), |_| short)?;
            }
            Fault::ScaleOut => cluster.add_spare()?,
            Fault::LeakLeader
            | Fault::StarvedLeader
            | Fault::Flapping
            | Fault::RollingRestart
            | Fault::Nothing => {}
        }
        Ok(())
    }

    /// Changes a file until the fault ends.
    fn change(&mut self, path: PathBuf, to: impl FnOnce(&str) -> String) -> Result<()> {
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        std::fs::write(&path, to(&text)).with_context(|| format!("cannot write {}", path.display()))?;
        self.changed = Some((path, text));
        Ok(())
    }

    /// Keeps up what changes with time. The machine that was stopped and started on purpose, if one was.
    pub(crate) fn tick(&mut self, cluster: &mut Cluster) -> Result<Option<Place>> {
        let elapsed = self.begun.elapsed();
        let is_within = |(part, whole): (u128, u128)| elapsed.as_millis() % whole < part;
        match self.fault {
            Fault::StarvedLeader => {
                let is_on = is_within(STARVED_MS);
                if is_on != std::mem::replace(&mut self.is_on, is_on) {
                    cluster.machines[self.leader].freeze(is_on)?;
                }
            }
            Fault::Flapping => {
                let is_on = is_within(FLAPPING_MS);
                if is_on != std::mem::replace(&mut self.is_on, is_on) {
                    if is_on { isolate(cluster, self.leader)? } else { cluster.arena.heal()? }
                }
            }
            Fault::LeakLeader => self.leak(&cluster.machines[self.leader])?,
            Fault::DeadVoter if self.steps == 0 && elapsed >= SECOND_LOSS => {
                self.steps = 1;
                cluster.machines[self.others[1]].power_off()?;
            }
            Fault::RollingRestart => {
                // The leader last, as an operator would.
                let order = [self.others[0], self.others[1], self.leader];
                let is_due = elapsed >= ROLLING * u32::try_from(self.steps)?;
                if let Some(place) = order.get(self.steps).copied().filter(|_| is_due) {
                    self.steps += 1;
                    cluster.machines[place].stop()?;
                    cluster.start(place)?;
                    return Ok(Some(place));
                }
            }
            _ => {}
        }
        Ok(None)
    }

    /// Takes memory away from the process of a machine, less from one that has just begun.
    fn leak(&mut self, machine: &Machine) -> Result<()> {
        let Some(pid) = machine.service() else { return Ok(()) };
        let since = match self.leaking {
            Some((leaking, since)) if leaking == pid => since,
            _ => self.leaking.insert((pid, Instant::now())).1,
        };
        machine.limit_memory(Some(left_of_leak(since.elapsed())))
    }

    /// When the injection happened, and its later steps that are injections of their own.
    pub(crate) fn moments(&self) -> Vec<Duration> {
        match self.fault {
            Fault::DeadVoter => vec![Duration::ZERO, SECOND_LOSS],
            _ => vec![Duration::ZERO],
        }
    }

    /// Ends the fault, and starts what is down.
    pub(crate) fn end(mut self, cluster: &mut Cluster) -> Result<()> {
        cluster.arena.heal()?;
        if let Some((path, text)) = self.changed.take() {
            std::fs::write(path, text)?;
        }
        for machine in &cluster.machines {
            machine.freeze(false)?;
            machine.throttle(None)?;
            machine.limit_memory(None)?;
            machine.fill(false)?;
            machine.signal(Signal::SIGCONT);
        }
        if self.fault == Fault::ClockSkew {
            cluster.set_clock(self.leader, 0)?;
        }
        let until = Instant::now() + RESTART_LIMIT;
        while Instant::now() < until && cluster.machines.iter().any(|machine| machine.service().is_none()) {
            std::thread::sleep(Duration::from_millis(50));
        }
        for place in 0..VOTERS {
            if cluster.machines[place].service().is_none() {
                cluster.machines[place].power_off()?;
                cluster.start(place)?;
            }
        }
        Ok(())
    }
}

/// The memory that a leak has left of [`LEAK_BEGIN`] after this time.
fn left_of_leak(elapsed: Duration) -> u64 {
    let lost = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).saturating_mul(LEAK_PER_SECOND) / 1000;
    LEAK_BEGIN.saturating_sub(lost).max(LEAK_END)
}

/// Cuts a node off from all others and from the clients, in both directions.
fn isolate(cluster: &mut Cluster, place: Place) -> Result<()> {
    let ends = cluster.arena.clients() + 1;
    let sides: Vec<bool> = (0..ends).map(|other| other == place).collect();
    cluster.arena.partition(&sides)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faulty(fault: Fault) -> Vec<u64> {
        let begun = Instant::now();
        Injection {
            fault,
            leader: 2,
            others: [0, 1],
            begun,
            steps: 0,
            is_on: false,
            leaking: None,
            changed: None,
        }
        .faulty()
    }

    #[test]
    fn a_leak_ends_with_little_memory_and_not_with_none() {
        let left = |seconds| left_of_leak(Duration::from_secs(seconds)) >> 20;
        assert_eq!([left(0), left(1), left(9), left(60)], [160, 144, 16, 4]);
        assert_eq!(left_of_leak(Duration::MAX), LEAK_END);
    }

    #[test]
    fn load_and_planned_work_are_no_fault_of_a_node() {
        for fault in [Fault::Loss, Fault::AllSlow, Fault::ScaleOut, Fault::RollingRestart, Fault::Nothing] {
            assert!(faulty(fault).is_empty(), "{fault}");
        }
        assert_eq!(faulty(Fault::SlowDiskLeader), [3]);
        assert_eq!(faulty(Fault::HangFollower), [1]);
        assert_eq!(faulty(Fault::TwoAtOnce), [3, 1]);
        assert_eq!(faulty(Fault::DeadVoter), [1, 2]);
        let named = Fault::ALL.iter().filter(|fault| fault.to_string().ends_with("-leader"));
        assert!(named.clone().count() > 5 && named.copied().all(|fault| faulty(fault) == [3]));
    }
}
