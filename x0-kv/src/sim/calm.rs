//! Damage between the storms, with a result that is certain: a disk that is rolled back as a whole, and the
//! loss of a majority of the folders.

use x0_consensus::Standing;

use super::damage::Damage;
use super::history::Asked;
use super::schedule::{Place, SECOND};
use super::worker::Host;
use super::world::{Failure, World};
use super::{Cause, PlantedBug, id_of};

/// An image of a node's disk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Image {
    place: Place,
    /// The incarnation of the folder, and the end of the log in it.
    incarnation: u64,
    last_index: u64,
}

impl World {
    /// Makes an image of the disk of some node, at times.
    pub(super) fn take_image(&mut self) -> Option<Image> {
        if !self.context.random.chance(self.scenario.disk_rollbacks) {
            return None;
        }
        let place = self.context.random.place(self.nodes.len());
        let node = &mut self.nodes[place];
        let last_index = node.running.as_ref()?.status().last_index;
        node.disk.take_image();
        Some(Image { place, incarnation: node.incarnation, last_index })
    }

    /// Rolls back the disk of a voter as a whole, if the leader has kept that the voter has acknowledged more
    /// than the image holds. No fingerprint shows it. After a restart of these two voters alone, the leader
    /// must detect it by what it has kept.
    ///
    /// With the third voter up, a leader that knows nothing about the image could bring it up to date
    /// unnoticed. That loses nothing, and shows nothing. Removed members are stopped as well, as their
    /// operator must do: one that does not know of its removal and an image of that time may be a majority of
    /// the former membership.
    pub(super) fn roll_back_disk(&mut self, image: Image) -> Result<(), Failure> {
        // What the leader knows is kept within a second.
        self.run_until(self.context.now + 2 * SECOND)?;
        let Image { place, incarnation, last_index } = image;
        if !self.is_one_of_three(image) {
            self.nodes[place].disk.drop_image();
            return Ok(());
        }
        let (Some(leader), id) = (self.leader(), id_of(place)) else { return Ok(()) };
        let kept = self.nodes[leader].acknowledged.get(&id);
        if !kept.is_some_and(|kept| kept.incarnation == incarnation && kept.index > last_index) {
            self.nodes[place].disk.drop_image();
            return Ok(());
        }
        let others: Vec<Place> = (0..self.nodes.len())
            .filter(|other| ![leader, place].contains(other) && self.nodes[*other].running.is_some())
            .collect();
        for stopped in others.iter().copied().chain([leader, place]) {
            self.stop(stopped, false)?;
        }
        let node = &mut self.nodes[place];
        if node.disk.restore_image() {
            node.acknowledged.clear();
            node.damage = Some(Damage::DiskRolledBack);
        }
        self.start(leader)?;
        self.start(place)?;
        self.wait("a disk that was rolled back is detected", |world| {
            world.nodes[place].damage != Some(Damage::DiskRolledBack) || world.nodes[place].recovery.is_some()
        })?;
        self.context.report.disks_rolled_back += 1;
        for other in others {
            self.start(other)?;
        }
        self.wait("a node with a disk that was rolled back is a member again", World::is_intact)?;
        self.wait("the replicas agree after that", World::is_converged)?;
        self.compare()?;
        Ok(())
    }

    /// Whether the node of the image is one of three voters, with its folder, and does not lead.
    fn is_one_of_three(&self, image: Image) -> bool {
        let Some(membership) = self.membership() else { return false };
        let is_there = membership.voters.contains(&id_of(image.place)) && self.leader() != Some(image.place);
        let is_same = self.nodes[image.place].incarnation == image.incarnation;
        membership.voters.len() == 3 && is_there && is_same && self.can_lose(image.place)
    }

    /// Empties the folders of a majority of the voters at once. From then on the cluster must refuse service,
    /// and every emptied node must report why.
    pub(super) fn lose_majority(&mut self) -> Result<(), Failure> {
        let Some(membership) = self.membership() else { return Ok(()) };
        let voters: Vec<Place> =
            (0..self.nodes.len()).filter(|place| membership.voters.contains(&id_of(*place))).collect();
        let skipped = self.context.random.place(voters.len());
        let count = voters.len() / 2 + 1;
        let emptied: Vec<Place> = voters.iter().cycle().skip(skipped).take(count).copied().collect();
        let knows = |place: &Place| {
            let running = self.nodes[*place].running.as_ref();
            !emptied.contains(place) && running.is_some_and(|running| running.status().last_index > 0)
        };
        // Founders that have all lost their folders found a new group: see the docs of `Replica`.
        if voters.len() < 3 || !(0..self.scenario.nodes).any(|founder| knows(&founder)) {
            return Ok(());
        }
        self.context.report.majorities_lost += 1;
        for place in &emptied {
            self.stop(*place, false)?;
        }
        for place in &emptied {
            self.rejoin_empty(*place);
            self.nodes[*place].keeps_incarnation |= self.context.is_planted(PlantedBug::LostMajorityServes);
            self.start(*place)?;
        }
        self.refused_service(&emptied)
    }

    fn refused_service(&mut self, emptied: &[Place]) -> Result<(), Failure> {
        self.storm += 1;
        self.context.history.begin(self.storm, 2);
        let acknowledged = self.context.report.acknowledged;
        for worker in 0..self.workers.len() {
            if matches!(self.workers[worker].host, Host::Outside(_)) {
                let value = self.asked + 1;
                let asked = if worker % 2 == 0 { Asked::Range } else { Asked::Put { key: 0, value } };
                self.ask_for(worker, asked, 10 * SECOND)?;
            }
        }
        self.run_until(self.context.now + 15 * SECOND)?;
        let refused = |what: &str| Cause::Invariant(format!("{what}:\n{}", self.describe()));
        if self.context.report.acknowledged > acknowledged || self.leader().is_some() {
            return Err(refused("a cluster serves without a majority of its folders").into());
        }
        let names_cause = |place: &Place| {
            let running = self.nodes[*place].running.as_ref();
            running.is_some_and(|running| !matches!(running.status().standing, Standing::Member))
        };
        match emptied.iter().all(names_cause) {
            true => Ok(()),
            false => {
                Err(refused("a node with an empty folder does not report why it refuses service").into())
            }
        }
    }
}
