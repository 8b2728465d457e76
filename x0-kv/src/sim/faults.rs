//! The faults of a round.

use x0_consensus::MembershipChange;
use x0_consensus::sim::Fault;

use super::context::Trouble;
use super::disk::FileKind;
use super::id_of;
use super::network::Weather;
use super::process::Process;
use super::schedule::{Event, MILLISECOND, Mend, Place, SECOND, Time};
use super::worker::Host;
use super::world::World;

impl World {
    /// The next fault.
    pub(super) fn fault(&mut self) -> Result<(), Trouble> {
        let place = self.any_node();
        if self.context.random.chance(self.scenario.folder_faults) {
            return self.damage(place);
        }
        match self.context.random.below(105) {
            99..101 => {
                self.nodes[place].disk.take_copy();
                Ok(())
            }
            101..104 => {
                self.nodes[place].log_sink.block(true);
                Ok(())
            }
            0..10 => self.crash(place),
            10..15 => {
                let leader = self.leader().unwrap_or(place);
                self.crash(leader)
            }
            15..20 => self.crash_many(),
            20..25 => {
                self.stop(place, false)?;
                self.start_later(place);
                Ok(())
            }
            25..33 => {
                self.partition();
                Ok(())
            }
            33..41 => {
                let place = self.leader().unwrap_or(place);
                self.isolate(place);
                Ok(())
            }
            41..47 => {
                self.cut_one_way(place);
                Ok(())
            }
            47..57 => {
                self.weather();
                Ok(())
            }
            57..64 => {
                self.pause(place);
                Ok(())
            }
            64..70 => {
                self.plant(place);
                Ok(())
            }
            70..77 => {
                self.slow_down(place);
                Ok(())
            }
            77..83 => self.transfer(place),
            83..93 => self.change_membership(place),
            93..97 => self.replace_client(),
            97..99 => {
                self.reset(place);
                Ok(())
            }
            _ => {
                self.context.heal_links();
                Ok(())
            }
        }
    }

    /// The connections of a node to some others end, with all that was on the way.
    fn reset(&mut self, place: Place) {
        for other in 0..self.nodes.len() + self.outsides.len() {
            if other != place && self.context.random.chance(400) {
                self.context.report.connections_reset += 1;
                self.context.mesh.reset(id_of(place), id_of(other));
            }
        }
    }

    fn any_node(&mut self) -> Place {
        self.context.random.place(self.nodes.len())
    }

    fn mend_later(&mut self, mean: Time, mend: Mend) {
        let at = self.context.now + self.context.random.around(mean);
        self.context.schedule.put(at, Event::Mend { storm: self.storm, mend });
    }

    fn crash(&mut self, place: Place) -> Result<(), Trouble> {
        if self.nodes[place].running.is_none() {
            return Ok(());
        }
        // Half of them in the midst of one of the next operations of the disk.
        if self.context.random.chance(500) {
            let folder = &self.nodes[place].disk.folder;
            let operation = folder.operations() + self.context.random.below(8);
            folder.plant(operation, Fault::PowerLoss);
            return Ok(());
        }
        self.stop(place, true)?;
        // Some stay down until the storm is over.
        if !self.context.random.chance(150) {
            self.start_later(place);
        }
        // And some lose their power again while they recover.
        if self.context.random.chance(200) {
            let folder = &self.nodes[place].disk.folder;
            let operation = folder.operations() + self.context.random.below(6);
            folder.plant(operation, Fault::PowerLoss);
        }
        Ok(())
    }

    /// A majority at once, or all.
    fn crash_many(&mut self) -> Result<(), Trouble> {
        let spared = if self.context.random.chance(500) { 0 } else { self.nodes.len() / 3 };
        let first = self.any_node();
        for step in 0..self.nodes.len() - spared {
            let place = (first + step) % self.nodes.len();
            if self.nodes[place].running.is_some() {
                self.stop(place, true)?;
                self.start_later(place);
            }
        }
        Ok(())
    }

    /// Two sides that do not reach each other, clients on both.
    fn partition(&mut self) {
        self.context.report.partitions += 1;
        self.context.heal_links();
        let places = self.nodes.len() + self.outsides.len();
        let sides: Vec<bool> = (0..places).map(|_| self.context.random.chance(500)).collect();
        self.cut_between(&sides);
        self.mend_later(3 * SECOND, Mend::Links);
    }

    fn cut_between(&mut self, sides: &[bool]) {
        for (one, side) in sides.iter().enumerate() {
            for (other, other_side) in sides.iter().enumerate() {
                if side != other_side {
                    self.context.cut(one, other);
                }
            }
        }
        self.context.trace.note(9, sides.iter().fold(0, |bits, side| bits << 1 | u64::from(*side)));
    }

    /// One node, with some of the clients.
    fn isolate(&mut self, place: Place) {
        self.context.report.partitions += 1;
        let places = self.nodes.len() + self.outsides.len();
        let nodes = self.nodes.len();
        let with_clients = self.context.random.chance(600);
        let sides: Vec<bool> = (0..places)
            .map(|other| other == place || other >= nodes && with_clients && self.context.random.chance(500))
            .collect();
        self.cut_between(&sides);
        self.mend_later(2 * SECOND, Mend::Links);
    }

    /// Some others receive nothing from a node any more, or it receives nothing from them.
    fn cut_one_way(&mut self, place: Place) {
        self.context.report.asymmetric_cuts += 1;
        let hears = self.context.random.chance(500);
        for other in 0..self.nodes.len() {
            if other != place && self.context.random.chance(600) {
                let (from, to) = if hears { (place, other) } else { (other, place) };
                self.context.cut(from, to);
            }
        }
        self.mend_later(3 * SECOND, Mend::Links);
    }

    fn weather(&mut self) {
        let weather = Weather::BAD[self.context.random.place(Weather::BAD.len())];
        self.context.set_weather(weather);
        self.mend_later(4 * SECOND, Mend::Weather);
    }

    /// The process stands still, and does not know it.
    fn pause(&mut self, place: Place) {
        let place = if self.context.random.chance(400) { self.leader().unwrap_or(place) } else { place };
        self.context.report.pauses += 1;
        let until = self.context.now + self.context.random.around(1500 * MILLISECOND);
        self.nodes[place].paused_until = until;
    }

    /// One of the next operations of the disk fails, or is where the power goes, or the disk is full.
    fn plant(&mut self, place: Place) {
        let random = &mut self.context.random;
        let disk = &self.nodes[place].disk;
        let folder = &disk.folder;
        let operation = folder.operations() + random.below(30);
        match random.below(6) {
            0 | 1 => {
                disk.fill([None, Some(FileKind::Log), Some(FileKind::Checkpoint)][random.place(3)]);
                self.context.report.disks_full += 1;
                // A node that does not wait for space ends, and gets it when it starts again.
                self.mend_later(3 * SECOND, Mend::Space(place));
            }
            2 => folder.plant(operation, Fault::Error(std::io::ErrorKind::Other)),
            3 => folder.plant(operation, Fault::Half(std::io::ErrorKind::Other)),
            _ => folder.plant(operation, Fault::PowerLoss),
        }
    }

    fn slow_down(&mut self, place: Place) {
        let (disk, apply) = match self.context.random.below(5) {
            0 => (20 * MILLISECOND, 0),
            1 => (500 * MILLISECOND, 0),
            2 => (0, 100 * MILLISECOND),
            3 => (4 * SECOND, 0),
            _ => (50 * MILLISECOND, 50 * MILLISECOND),
        };
        self.nodes[place].slow_down(disk, apply);
        self.mend_later(3 * SECOND, Mend::Slowness(place));
    }

    fn transfer(&mut self, place: Place) -> Result<(), Trouble> {
        let Some(leader) = self.leader() else { return Ok(()) };
        self.context.report.transfers += 1;
        self.with(leader, None, |running, _| {
            running.transfer(id_of(place));
            Ok(())
        })
    }

    /// One member more, less or in another role, or two at once. Three voters stay.
    fn change_membership(&mut self, place: Place) -> Result<(), Trouble> {
        let (Some(leader), Some(membership)) = (self.leader(), self.membership()) else { return Ok(()) };
        let id = id_of(place);
        let can_spare = membership.voters.len() > 3;
        let change = if membership.voters.contains(&id) {
            let other = (0..self.nodes.len()).map(id_of).find(|other| !membership.voters.contains(other));
            match (other, self.context.random.below(3)) {
                (Some(other), 0) => MembershipChange::default().voter(other).remove(id),
                (_, 1) if can_spare => MembershipChange::default().learner(id),
                _ if can_spare => MembershipChange::default().remove(id),
                (Some(other), _) => MembershipChange::default().voter(other).learner(id),
                _ => return Ok(()),
            }
        } else if membership.learners.contains(&id) && self.context.random.chance(150) {
            MembershipChange::default().remove(id)
        } else if membership.learners.contains(&id) || self.context.random.chance(200) {
            MembershipChange::default().voter(id)
        } else {
            MembershipChange::default().learner(id)
        };
        self.with(leader, None, |running, _| {
            running.change(change);
            Ok(())
        })
    }

    /// A client's process ends, and another takes its place under the same name.
    fn replace_client(&mut self) -> Result<(), Trouble> {
        self.context.report.client_restarts += 1;
        let number = self.context.random.place(self.outsides.len());
        let place = self.nodes.len() + number;
        let members = (0..self.nodes.len()).map(id_of).collect();
        let start = self.outsides[number].start() + 1;
        self.outsides[number].kill();
        self.outsides[number] = Process::client(&mut self.context, place, members, start)?;
        for worker in 0..self.workers.len() {
            if self.workers[worker].host == Host::Outside(number) {
                self.forget(worker)?;
            }
        }
        Ok(())
    }
}
