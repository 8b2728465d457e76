//! Damage to what a node has acknowledged, and its safe replacement.
//!
//! A node whose folder was damaged, emptied or rolled back has lost what the others count on. It must refuse
//! to start, or be kept from it by its operator: here the operator is [`World::replace`]. It removes the node
//! from the membership, and only when that is committed the node starts with an empty folder and joins again.
//! The group survives this as long as a majority of the folders is intact, so one node at a time is damaged.

use x0_consensus::MembershipChange;

use super::context::{Trouble, violation};
use super::schedule::{Event, MILLISECOND, Place};
use super::world::World;
use super::{PlantedBug, id_of};

/// How long the operator waits between two steps of a replacement.
const STEP: u64 = 200 * MILLISECOND;

/// What was done to the folder of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Damage {
    /// A bit of a file is flipped. The node may find it now, later or never: not every bit is read.
    Rot,
    /// The newest segment of the log is gone.
    MissingSegment,
    /// The folder is empty.
    Emptied,
    /// The folder is a copy that was made before.
    RolledBack,
}

/// How far the replacement of a damaged node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replacement {
    /// The node is down, and to be removed from the membership.
    Remove,
    /// It runs with an empty folder, and is to become a voter again.
    Join,
}

impl World {
    /// Damages the folder of a node, if a majority of intact ones remains without it.
    pub(super) fn damage(&mut self, place: Place) -> Result<(), Trouble> {
        let Some(membership) = self.membership() else { return Ok(()) };
        let is_intact = |node: &super::node::Node| node.damage.is_none() && node.replacement.is_none();
        if !self.nodes.iter().all(is_intact)
            || membership.is_joint()
            || membership.voters.len() < 3
            || !membership.voters.contains(&id_of(place))
        {
            return Ok(());
        }
        let kind = self.context.random.below(4);
        // The process ends and the power stays: after a power failure a flipped bit in the last batch looks
        // like a torn write, which no log that synchronises once for each batch can tell apart.
        match kind {
            0 => self.rot(place)?,
            1 => self.lose_segment(place)?,
            2 => self.empty(place)?,
            _ => self.roll_back(place)?,
        }
        Ok(())
    }

    fn rot(&mut self, place: Place) -> Result<(), Trouble> {
        self.context.report.flipped_bits += 1;
        self.stop(place, false)?;
        let node = &mut self.nodes[place];
        node.damage = Some(Damage::Rot);
        node.disk.flip_bit(&mut self.context.random);
        self.start_later(place);
        Ok(())
    }

    fn lose_segment(&mut self, place: Place) -> Result<(), Trouble> {
        self.context.report.segments_lost += 1;
        self.stop(place, false)?;
        let forgets = self.context.is_planted(PlantedBug::IgnoreManifest);
        let node = &mut self.nodes[place];
        if node.disk.remove_segment(forgets) {
            node.damage = Some(Damage::MissingSegment);
        }
        self.start_later(place);
        Ok(())
    }

    fn empty(&mut self, place: Place) -> Result<(), Trouble> {
        self.context.report.folders_emptied += 1;
        self.stop(place, false)?;
        self.nodes[place].disk.empty();
        if self.context.is_planted(PlantedBug::EmptiedFolderVotes) {
            self.start_later(place);
            return Ok(());
        }
        self.nodes[place].damage = Some(Damage::Emptied);
        self.refuse(place)
    }

    fn roll_back(&mut self, place: Place) -> Result<(), Trouble> {
        if !self.nodes[place].disk.has_copy() {
            return Ok(());
        }
        self.context.report.folders_rolled_back += 1;
        self.stop(place, false)?;
        self.nodes[place].disk.roll_back();
        if self.context.is_planted(PlantedBug::OlderCopyServes) {
            self.start_later(place);
            return Ok(());
        }
        self.nodes[place].damage = Some(Damage::RolledBack);
        self.refuse(place)
    }

    /// A node refuses what its folder holds, at its start or later, and says why.
    pub(super) fn refuses(&mut self, place: Place, why: &str) -> Result<(), Trouble> {
        // The message names a file of the folder.
        if !why.contains("sim/") {
            return violation(format!("node {} refuses its folder and names no file: {why}", id_of(place)));
        }
        if self.nodes[place].damage.is_none() {
            return violation(format!("node {} refuses a folder that is intact: {why}", id_of(place)));
        }
        self.stop(place, false)?;
        self.refuse(place)
    }

    /// A leader counts on entries that the log of a node lacks. One that does not know yet that the node was
    /// replaced may do so, and the node starts again.
    pub(super) fn log_lost(&mut self, place: Place, why: String) -> Result<(), Trouble> {
        if !self.nodes[place].was_replaced {
            return violation(why);
        }
        self.stop(place, false)?;
        self.start_later(place);
        Ok(())
    }

    /// A node has refused its folder: the operator replaces it.
    pub(super) fn refuse(&mut self, place: Place) -> Result<(), Trouble> {
        self.context.report.folders_refused += 1;
        self.nodes[place].replacement = Some(Replacement::Remove);
        self.replace_later(place);
        Ok(())
    }

    fn replace_later(&mut self, place: Place) {
        self.context.schedule.put(self.context.now + STEP, Event::Replace { place });
    }

    /// Damage that no read has found is replaced as well before the replicas are compared.
    pub(super) fn replace_damaged(&mut self) -> Result<(), Trouble> {
        for place in 0..self.nodes.len() {
            if self.nodes[place].damage.is_some() && self.nodes[place].replacement.is_none() {
                self.stop(place, false)?;
                self.nodes[place].replacement = Some(Replacement::Remove);
                self.replace_later(place);
            }
        }
        Ok(())
    }

    /// Whether no node is damaged or being replaced.
    pub(super) fn is_intact(&self) -> bool {
        self.nodes.iter().all(|node| node.damage.is_none() && node.replacement.is_none())
    }

    /// The next step of a replacement.
    pub(super) fn replace(&mut self, place: Place) -> Result<(), Trouble> {
        let Some(replacement) = self.nodes[place].replacement else { return Ok(()) };
        self.replace_later(place);
        let Some(leader) = self.leader() else { return Ok(()) };
        let Some(running) = self.nodes[leader].running.as_ref() else { return Ok(()) };
        let (status, applied) = (running.status(), running.applied_index());
        // A leader that is not one any more may know a membership before this node was added.
        if status.membership.is_joint() || applied < self.context.entries() {
            return Ok(());
        }
        let id = id_of(place);
        let is_member = status.membership.contains(id);
        let change = match replacement {
            Replacement::Remove if is_member => MembershipChange::default().remove(id),
            Replacement::Remove => {
                let node = &mut self.nodes[place];
                node.disk.empty();
                node.is_founder = false;
                node.was_replaced = true;
                node.damage = None;
                node.replacement = Some(Replacement::Join);
                self.context.report.nodes_replaced += 1;
                return self.start(place);
            }
            Replacement::Join if status.membership.voters.contains(&id) => {
                self.nodes[place].replacement = None;
                return Ok(());
            }
            Replacement::Join => MembershipChange::default().voter(id),
        };
        self.with(leader, None, |running, _| {
            running.change(change);
            Ok(())
        })
    }
}
