//! Members whose connection is kept although nothing arrives at the moment.

use x0_identity::NodeId;

use super::Replica;

impl Replica {
    pub(super) fn path_degraded(&mut self, peer: NodeId) {
        // Only members: their number is bounded.
        if self.node.raft.prs().get(peer.get()).is_some() {
            self.degraded.entry(peer).or_insert(false);
        }
    }

    /// The ticks by which a follower of a leader on a degraded path waits longer. One election timeout: it
    /// covers a path that is about to heal, and bounds the delay after a leader that has failed.
    pub(super) fn grace_ticks(&self) -> u32 {
        let leader = NodeId::new(self.node.raft.leader_id);
        let is_degraded = leader.is_some_and(|leader| self.degraded.contains_key(&leader));
        if is_degraded { self.options.election_ticks } else { 0 }
    }

    /// Counts members on degraded paths as active once, in the check of the quorum that the next tick makes.
    /// Their followers wait as long, so that without this a leader would step down before they need another.
    pub(super) fn grant_grace(&mut self) {
        let election = self.options.election_ticks as usize;
        if !self.is_leader() || self.node.raft.election_elapsed + 1 < election {
            return;
        }
        let members = self.node.raft.mut_prs();
        for (peer, is_spent) in self.degraded.iter_mut().filter(|(_, is_spent)| !**is_spent) {
            if let Some(progress) = members.get_mut(peer.get()).filter(|progress| !progress.recent_active) {
                progress.recent_active = true;
                *is_spent = true;
            }
        }
    }
}
