//! Damage to what a node has acknowledged, and its way back.
//!
//! A node whose folder was damaged, emptied or rolled back has lost what the others count on. An emptied
//! folder gets a new incarnation, and the node rejoins by itself: it neither votes nor counts until the
//! leader has registered that incarnation. A damaged folder and a copy are refused by name, and the operator
//! does what the message says: empties the folder, or adopts the copy ([`World::recover`]). The group
//! survives this as long as a majority of the folders is intact, so one node at a time is damaged.

use super::context::{Trouble, violation};
use super::schedule::{Event, MILLISECOND, Place};
use super::world::World;
use super::{PlantedBug, id_of};

/// How long the operator waits between two steps.
const STEP: u64 = 200 * MILLISECOND;

/// The damage to the folder of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Damage {
    /// A bit of a file is flipped. The node may find it now, later or never: not every bit is read.
    Rot,
    /// The newest segment of the log is gone.
    MissingSegment,
    /// The folder is a copy that was made before, file by file.
    RolledBack,
    /// The whole disk is an earlier one, with the fingerprints of the original.
    DiskRolledBack,
}

/// How far the recovery of a damaged node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recovery {
    /// The node has refused its folder and is down until its operator acts.
    Refused,
    /// The node runs under another incarnation than the registered one.
    Rejoining,
}

impl World {
    /// Damages the folder of a node, if a majority of intact ones remains without it.
    pub(super) fn damage(&mut self, place: Place) -> Result<(), Trouble> {
        if !self.is_intact() || !self.can_lose(place) {
            return Ok(());
        }
        // The process ends and the power stays: after a power failure a flipped bit in the last batch looks
        // like a torn write, which no log that synchronises once for each batch can tell apart.
        match self.context.random.below(4) {
            0 => self.rot(place),
            1 => self.lose_segment(place),
            2 => self.empty(place),
            _ => self.roll_back(place),
        }
    }

    /// Whether the other voters are a majority of members that know each other's incarnations, and that know
    /// them after a power failure as well.
    pub(super) fn can_lose(&self, place: Place) -> bool {
        let Some(leader) = self.leader().and_then(|leader| self.nodes[leader].running.as_ref()) else {
            return false;
        };
        let membership = leader.status().membership;
        let others: Vec<_> = membership.voters.iter().filter(|voter| **voter != id_of(place)).collect();
        if membership.is_joint() || others.len() + 1 != membership.voters.len() || others.len() < 2 {
            return false;
        }
        let newest = membership.incarnations.values().map(|held| held.index).max().unwrap_or(0);
        leader.applied_index() >= self.context.entries()
            && self.nodes.iter().filter(|node| others.contains(&&id_of(node.place))).all(|node| {
                let held = membership.incarnations.get(&id_of(node.place));
                held.is_some_and(|held| held.incarnation == node.incarnation)
                    && node.running.as_ref().is_some_and(|running| running.applied_index() >= newest)
                    && node.disk.durable_commit() >= newest
            })
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
            node.keeps_incarnation = forgets;
        }
        self.start_later(place);
        Ok(())
    }

    fn empty(&mut self, place: Place) -> Result<(), Trouble> {
        self.context.report.folders_emptied += 1;
        self.stop(place, false)?;
        self.rejoin_empty(place);
        self.start_later(place);
        Ok(())
    }

    /// Empties the folder of a node that is down.
    pub(super) fn rejoin_empty(&mut self, place: Place) {
        let is_kept = self.context.is_planted(PlantedBug::EmptiedFolderVotes);
        let node = &mut self.nodes[place];
        node.disk.empty();
        node.acknowledged.clear();
        node.damage = None;
        node.keeps_incarnation = is_kept;
        self.rejoins(place);
    }

    fn rejoins(&mut self, place: Place) {
        self.nodes[place].recovery = Some(Recovery::Rejoining);
        self.recover_later(place);
    }

    fn roll_back(&mut self, place: Place) -> Result<(), Trouble> {
        if !self.nodes[place].disk.has_copy() {
            return Ok(());
        }
        self.context.report.folders_rolled_back += 1;
        self.stop(place, false)?;
        let node = &mut self.nodes[place];
        node.disk.roll_back();
        if node.disk.has_origin() {
            node.acknowledged.clear();
            node.damage = Some(Damage::RolledBack);
        } else {
            // The copy was made before the node had its log: nothing in it says which node it was.
            self.rejoin_empty(place);
        }
        self.start_later(place);
        Ok(())
    }

    /// A node refuses what its folder holds, at its start or later, and says why.
    pub(super) fn refuses(&mut self, place: Place, why: &str) -> Result<(), Trouble> {
        // The message names the folder or a file of it.
        if !why.contains("sim/") && !why.contains("sim is a copy") {
            return violation(format!("node {} refuses its folder and names no file: {why}", id_of(place)));
        }
        if self.nodes[place].damage.is_none() {
            return violation(format!("node {} refuses a folder that is intact: {why}", id_of(place)));
        }
        self.refuse(place)
    }

    /// The others know of acknowledgements that the log of a node lacks.
    pub(super) fn log_lost(&mut self, place: Place, why: &str) -> Result<(), Trouble> {
        match self.nodes[place].damage {
            // A flipped bit in the last record looks like a torn write, and the record is dropped.
            Some(Damage::DiskRolledBack | Damage::Rot) => self.refuse(place),
            damage => violation(format!("{why} (damage of its folder: {damage:?})")),
        }
    }

    /// The node stays down until its operator acts.
    pub(super) fn refuse(&mut self, place: Place) -> Result<(), Trouble> {
        self.stop(place, false)?;
        self.context.report.folders_refused += 1;
        self.nodes[place].recovery = Some(Recovery::Refused);
        self.recover_later(place);
        Ok(())
    }

    fn recover_later(&mut self, place: Place) {
        self.context.schedule.put(self.context.now + STEP, Event::Recover { place });
    }

    /// Damage that no read has found is repaired as well before the replicas are compared.
    pub(super) fn replace_damaged(&mut self) -> Result<(), Trouble> {
        for place in 0..self.nodes.len() {
            if self.nodes[place].damage.is_some() && self.nodes[place].recovery.is_none() {
                self.refuse(place)?;
            }
        }
        Ok(())
    }

    /// Whether no node is damaged or rejoining.
    pub(super) fn is_intact(&self) -> bool {
        self.nodes.iter().all(|node| node.damage.is_none() && node.recovery.is_none())
    }

    /// The next step of a recovery.
    pub(super) fn recover(&mut self, place: Place) -> Result<(), Trouble> {
        match self.nodes[place].recovery {
            None => Ok(()),
            Some(Recovery::Refused) => self.repair(place),
            Some(Recovery::Rejoining) => {
                if self.has_rejoined(place) {
                    self.nodes[place].recovery = None;
                    self.context.report.nodes_rejoined += 1;
                } else {
                    self.recover_later(place);
                }
                Ok(())
            }
        }
    }

    /// The operator adopts a copy, and empties any other folder.
    fn repair(&mut self, place: Place) -> Result<(), Trouble> {
        let is_kept = self.context.is_planted(PlantedBug::OlderCopyServes);
        let node = &mut self.nodes[place];
        match node.damage {
            Some(Damage::RolledBack | Damage::DiskRolledBack) => {
                if node.adopt(&mut self.context, is_kept).is_err() {
                    // The disk is full, or the power went: it comes again, as at the start of a node.
                    if node.disk.folder.is_down() {
                        node.disk.lose_power(&mut self.context.random);
                    }
                    node.disk.repair();
                    self.recover_later(place);
                    return Ok(());
                }
                node.damage = None;
                self.rejoins(place);
            }
            _ => self.rejoin_empty(place),
        }
        self.start(place)
    }

    /// Whether the present incarnation of a node is registered and the node knows it, or the node is no
    /// longer a member.
    fn has_rejoined(&self, place: Place) -> bool {
        let (Some(leader), Some(node)) = (self.leader(), self.nodes.get(place)) else { return false };
        let (Some(leader), Some(running)) = (&self.nodes[leader].running, &node.running) else {
            return false;
        };
        let membership = leader.status().membership;
        // A leader that is not one any more may know an earlier membership.
        if membership.is_joint() || leader.applied_index() < self.context.entries() {
            return false;
        }
        let held = membership.incarnations.get(&id_of(place));
        !membership.contains(id_of(place))
            || held.is_some_and(|held| {
                held.incarnation == node.incarnation && running.applied_index() >= held.index
            })
    }
}
