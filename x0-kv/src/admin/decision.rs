//! The leader's decision about a request: which changes are made, or why none is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use x0_consensus::{Membership, MembershipChange};
use x0_identity::NodeId;

use super::engine::Step;
use super::request::{
    AdminError, AdminRequest, MemberInfo, MemberList, MemberRole, PROMOTE_LAG_MAX, REACHED_LIMIT,
};
use crate::request::limits::MEMBERS_MAX;
use crate::request::member::{MemberChange, Members};

/// The group as its leader knows it.
#[derive(Debug, Clone)]
pub struct Group {
    /// The leader itself.
    pub local: NodeId,
    /// The term of the leader.
    pub term: u64,
    /// The last committed index.
    pub committed: u64,
    /// The membership.
    pub membership: Membership,
    /// The member table.
    pub members: Arc<Members>,
    /// The progress of the other members.
    pub progress: Vec<Progress>,
}

/// The progress of a member as its leader knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The member.
    pub node: NodeId,
    /// The last log index that is known to be on its disk.
    pub matched: u64,
    /// Whether it receives a snapshot.
    pub is_receiving_snapshot: bool,
    /// The time since the leader received its last message; `None` if it received none.
    pub silent_for: Option<Duration>,
}

/// The decision about a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Nothing: it is done already.
    Done,
    Members(MemberList),
    /// The leadership is handed over; for other requests than a transfer the next leader decides again.
    Transfer {
        to: NodeId,
    },
    /// Several changes, one after the other.
    Steps(Vec<Step>),
}

pub(super) fn decide(request: &AdminRequest, group: &Group) -> Result<Decision, AdminError> {
    match request {
        AdminRequest::Members => Ok(Decision::Members(group.list())),
        AdminRequest::Add { node, addresses } => group.add(*node, addresses),
        AdminRequest::Promote { node } => {
            if group.membership.voters.contains(node) {
                return Ok(Decision::Done);
            }
            group.check_learner(*node)?;
            let voters = group.membership.voters.iter().copied().chain([*node]).collect();
            group.check_quorum(&voters)?;
            Ok(Decision::Steps(vec![Step::Membership(MembershipChange::default().voter(*node))]))
        }
        AdminRequest::Demote { node } => group.demote(*node),
        AdminRequest::Remove { node } => group.remove(*node),
        AdminRequest::Replace { old, new } => group.replace(*old, *new),
        AdminRequest::Transfer { to } => group.transfer(*to),
        AdminRequest::Planned { voters, request: planned } => {
            request.check()?;
            // A joint membership is one of two, and neither is that of the plan.
            let is_same = group.membership.voters == *voters && group.membership.voters_outgoing.is_empty();
            let decision = decide(planned, group);
            match &decision {
                _ if is_same => decision,
                // The first step of this request may be what has changed the voters. The remaining steps
                // change no voter, so the plan cannot do harm.
                Ok(Decision::Done | Decision::Members(_)) => decision,
                Ok(Decision::Steps(steps)) if steps.iter().all(|step| matches!(step, Step::Member(_))) => {
                    decision
                }
                _ => Err(AdminError::Stale),
            }
        }
        AdminRequest::SetAddresses { node, addresses } => {
            if group.role(*node).is_none() {
                return Err(AdminError::NotAMember { node: *node });
            }
            if group.members.get(*node).is_some_and(|member| member.addresses == *addresses) {
                return Ok(Decision::Done);
            }
            Ok(Decision::Steps(vec![set_addresses(*node, addresses)]))
        }
    }
}

fn set_addresses(node: NodeId, addresses: &[String]) -> Step {
    Step::Member(MemberChange::Addresses { node, addresses: addresses.to_vec() })
}

impl Group {
    fn role(&self, node: NodeId) -> Option<MemberRole> {
        let Membership { voters, voters_outgoing, learners, learners_next, .. } = &self.membership;
        if voters.contains(&node) {
            Some(MemberRole::Voter)
        } else if voters_outgoing.contains(&node) {
            Some(MemberRole::Leaving)
        } else if learners.contains(&node) || learners_next.contains(&node) {
            Some(MemberRole::Learner)
        } else {
            None
        }
    }

    fn all(&self) -> BTreeSet<NodeId> {
        let Membership { voters, voters_outgoing, learners, learners_next, .. } = &self.membership;
        [voters, voters_outgoing, learners, learners_next].into_iter().flatten().copied().collect()
    }

    fn progress_of(&self, node: NodeId) -> Option<&Progress> {
        self.progress.iter().find(|progress| progress.node == node)
    }

    fn matched(&self, node: NodeId) -> u64 {
        self.progress_of(node).map_or(0, |progress| progress.matched)
    }

    fn is_reached(&self, node: NodeId) -> bool {
        let silent_for = self.progress_of(node).and_then(|progress| progress.silent_for);
        node == self.local || silent_for.is_some_and(|silent| silent <= REACHED_LIMIT)
    }

    fn list(&self) -> MemberList {
        let member = |node: NodeId| {
            let entry = self.members.get(node);
            Some(MemberInfo {
                node,
                role: self.role(node)?,
                addresses: entry.map(|entry| entry.addresses.clone()).unwrap_or_default(),
                incarnation: self.membership.incarnations.get(&node).map_or(0, |held| held.incarnation),
                matched: if node == self.local { self.committed } else { self.matched(node) },
                is_receiving_snapshot: self
                    .progress_of(node)
                    .is_some_and(|progress| progress.is_receiving_snapshot),
                is_reached: self.is_reached(node),
            })
        };
        let members = self.all().into_iter().take(MEMBERS_MAX).filter_map(member).collect();
        MemberList { leader: self.local, term: self.term, committed: self.committed, members }
    }

    fn add(&self, node: NodeId, addresses: &[String]) -> Result<Decision, AdminError> {
        let is_registered = self.members.get(node).is_some_and(|member| member.addresses == addresses);
        match self.role(node) {
            // A repeated request.
            Some(MemberRole::Learner) if is_registered => return Ok(Decision::Done),
            Some(_) => return Err(AdminError::AlreadyAMember { node }),
            None => {}
        }
        if self.all().len() >= MEMBERS_MAX {
            return Err(AdminError::Full);
        }
        // The addresses first: the new member is dialled as soon as it is a member.
        let learner = Step::Membership(MembershipChange::default().learner(node));
        Ok(Decision::Steps(vec![set_addresses(node, addresses), learner]))
    }

    fn demote(&self, node: NodeId) -> Result<Decision, AdminError> {
        match self.role(node) {
            None => return Err(AdminError::NotAMember { node }),
            // A repeated request.
            Some(MemberRole::Learner) => return Ok(Decision::Done),
            // The change in progress takes its vote, and another one cannot begin before.
            Some(MemberRole::Leaving) => return Err(AdminError::InProgress),
            Some(MemberRole::Voter) => {}
        }
        let voters = self.membership.voters.iter().copied().filter(|voter| *voter != node).collect();
        self.check_quorum(&voters)?;
        if node == self.local {
            return self.transfer(None);
        }
        Ok(Decision::Steps(vec![Step::Membership(MembershipChange::default().learner(node))]))
    }

    fn remove(&self, node: NodeId) -> Result<Decision, AdminError> {
        let forget = Step::Member(MemberChange::Remove { node });
        let Some(role) = self.role(node) else {
            // A repeated request, or one that was interrupted between its steps.
            return match self.members.get(node) {
                Some(_) => Ok(Decision::Steps(vec![forget])),
                None => Err(AdminError::NotAMember { node }),
            };
        };
        if role != MemberRole::Learner {
            let voters = self.membership.voters.iter().copied().filter(|voter| *voter != node).collect();
            self.check_quorum(&voters)?;
            if node == self.local {
                return self.transfer(None);
            }
        }
        let change = Step::Membership(MembershipChange::default().remove(node));
        Ok(Decision::Steps(vec![change, forget]))
    }

    fn replace(&self, old: NodeId, new: NodeId) -> Result<Decision, AdminError> {
        let forget = Step::Member(MemberChange::Remove { node: old });
        match (self.role(old), self.role(new)) {
            (None, Some(MemberRole::Voter)) if self.members.get(old).is_some() => {
                return Ok(Decision::Steps(vec![forget]));
            }
            (None, _) => return Err(AdminError::NotAMember { node: old }),
            _ => {}
        }
        self.check_learner(new)?;
        let voters: BTreeSet<NodeId> =
            self.membership.voters.iter().copied().filter(|voter| *voter != old).chain([new]).collect();
        self.check_quorum(&voters)?;
        if old == self.local {
            return self.transfer(None);
        }
        let change = Step::Membership(MembershipChange::default().voter(new).remove(old));
        Ok(Decision::Steps(vec![change, forget]))
    }

    fn transfer(&self, to: Option<NodeId>) -> Result<Decision, AdminError> {
        let others = self.membership.voters.iter().copied().filter(|voter| *voter != self.local);
        let best = others.filter(|voter| self.is_reached(*voter));
        // Of voters with equal logs the one with the lowest id.
        let best = best.max_by_key(|voter| (self.matched(*voter), std::cmp::Reverse(*voter)));
        let Some(to) = to.or(best) else {
            let voters = self.membership.voters.len() as u64;
            return Err(AdminError::QuorumLost { voters, reached: 1, needed: voters / 2 + 1 });
        };
        if to == self.local {
            return Ok(Decision::Done);
        }
        match self.role(to) {
            None => Err(AdminError::NotAMember { node: to }),
            Some(MemberRole::Learner | MemberRole::Leaving) => {
                Err(AdminError::WrongRole { node: to, expected: MemberRole::Voter })
            }
            Some(MemberRole::Voter) if !self.is_reached(to) => Err(AdminError::Unreached { node: to }),
            Some(MemberRole::Voter) => Ok(Decision::Transfer { to }),
        }
    }

    /// Whether the node is a learner that has caught up, so that it does not delay commits as a voter.
    fn check_learner(&self, node: NodeId) -> Result<(), AdminError> {
        match self.role(node) {
            None => return Err(AdminError::NotAMember { node }),
            Some(MemberRole::Learner) => {}
            Some(_) => return Err(AdminError::WrongRole { node, expected: MemberRole::Learner }),
        }
        if !self.is_reached(node) {
            return Err(AdminError::Unreached { node });
        }
        let lag = self.committed.saturating_sub(self.matched(node));
        if lag > PROMOTE_LAG_MAX { Err(AdminError::Lagging { node, lag }) } else { Ok(()) }
    }

    /// Whether the leader reaches a majority of `voters`, which the change leaves.
    fn check_quorum(&self, voters: &BTreeSet<NodeId>) -> Result<(), AdminError> {
        let count = voters.len() as u64;
        let reached = voters.iter().filter(|voter| self.is_reached(**voter)).count() as u64;
        let needed = count / 2 + 1;
        if reached >= needed {
            Ok(())
        } else {
            Err(AdminError::QuorumLost { voters: count, reached, needed })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> NodeId {
        NodeId::new(number).unwrap()
    }

    /// Leader 1 with voters 1 to 3 and learner 4; `silent` are not heard of.
    fn group(silent: &[u64], matched_of_4: u64) -> Group {
        let progress = |number: u64| Progress {
            node: id(number),
            matched: if number == 4 { matched_of_4 } else { 10_000 },
            is_receiving_snapshot: false,
            silent_for: Some(Duration::from_secs(if silent.contains(&number) { 3 } else { 1 })),
        };
        let mut members = Members::default();
        for node in 1..=4 {
            let addresses = vec![format!("10.0.0.{node}:1")];
            members.change(&MemberChange::Addresses { node: id(node), addresses }).unwrap();
        }
        Group {
            local: id(1),
            term: 5,
            committed: 10_000,
            membership: Membership {
                voters: [1, 2, 3].map(id).into(),
                learners: [id(4)].into(),
                ..Membership::default()
            },
            members: Arc::new(members),
            progress: [2, 3, 4].map(progress).into(),
        }
    }

    fn steps(decision: Result<Decision, AdminError>) -> Vec<Step> {
        match decision {
            Ok(Decision::Steps(steps)) => steps,
            other => panic!("{other:?}"),
        }
    }

    fn forget(number: u64) -> Step {
        Step::Member(MemberChange::Remove { node: id(number) })
    }

    #[test]
    fn a_change_that_loses_the_quorum_is_refused() {
        let check = |request: AdminRequest, silent: &[u64], expect: Result<usize, (u64, u64, u64)>| {
            let decided = decide(&request, &group(silent, 10_000));
            match expect {
                Ok(count) => assert_eq!(steps(decided).len(), count, "{request:?}"),
                Err((voters, reached, needed)) => {
                    let error = AdminError::QuorumLost { voters, reached, needed };
                    assert_eq!(decided, Err(error), "{request:?}");
                }
            }
        };
        check(AdminRequest::Remove { node: id(2) }, &[], Ok(2));
        // Of the two that would remain one is silent.
        check(AdminRequest::Remove { node: id(2) }, &[3], Err((2, 1, 2)));
        check(AdminRequest::Remove { node: id(3) }, &[3], Ok(2));
        check(AdminRequest::Promote { node: id(4) }, &[], Ok(1));
        check(AdminRequest::Promote { node: id(4) }, &[3], Ok(1));
        check(AdminRequest::Replace { old: id(3), new: id(4) }, &[3], Ok(2));
        check(AdminRequest::Replace { old: id(2), new: id(4) }, &[2, 3], Ok(2));
        check(AdminRequest::Remove { node: id(4) }, &[2, 3, 4], Ok(2));
        check(AdminRequest::Demote { node: id(2) }, &[], Ok(1));
        check(AdminRequest::Demote { node: id(2) }, &[3], Err((2, 1, 2)));
        check(AdminRequest::Demote { node: id(3) }, &[3], Ok(1));
        check(AdminRequest::Promote { node: id(4) }, &[2, 3], Err((4, 2, 3)));
    }

    #[test]
    fn a_lagging_or_silent_learner_is_not_promoted() {
        for request in
            [AdminRequest::Promote { node: id(4) }, AdminRequest::Replace { old: id(3), new: id(4) }]
        {
            let lagging = decide(&request, &group(&[], 10_000 - PROMOTE_LAG_MAX - 1));
            assert_eq!(lagging, Err(AdminError::Lagging { node: id(4), lag: PROMOTE_LAG_MAX + 1 }));
            assert!(decide(&request, &group(&[], 10_000 - PROMOTE_LAG_MAX)).is_ok());
            let silent = decide(&request, &group(&[4], 10_000));
            assert_eq!(silent, Err(AdminError::Unreached { node: id(4) }));
        }
        let expected = MemberRole::Learner;
        let voter = decide(&AdminRequest::Replace { old: id(3), new: id(2) }, &group(&[], 0));
        assert_eq!(voter, Err(AdminError::WrongRole { node: id(2), expected }));
        let done = decide(&AdminRequest::Promote { node: id(2) }, &group(&[], 0));
        assert_eq!(done, Ok(Decision::Done), "a repetition does no harm");
        let stranger = decide(&AdminRequest::Promote { node: id(9) }, &group(&[], 0));
        assert_eq!(stranger, Err(AdminError::NotAMember { node: id(9) }));
    }

    #[test]
    fn a_leader_hands_over_before_it_is_removed() {
        let to = id(2);
        for request in
            [AdminRequest::Remove { node: id(1) }, AdminRequest::Replace { old: id(1), new: id(4) }]
        {
            assert_eq!(decide(&request, &group(&[], 10_000)), Ok(Decision::Transfer { to }));
        }
        let silent = decide(&AdminRequest::Remove { node: id(1) }, &group(&[2], 0));
        assert_eq!(silent, Err(AdminError::QuorumLost { voters: 2, reached: 1, needed: 2 }));
    }

    #[test]
    fn leadership_goes_to_a_voter_that_is_reached() {
        let transfer = |to: Option<u64>, silent: &[u64]| {
            decide(&AdminRequest::Transfer { to: to.map(id) }, &group(silent, 0))
        };
        assert_eq!(transfer(Some(1), &[]), Ok(Decision::Done));
        assert_eq!(transfer(Some(3), &[]), Ok(Decision::Transfer { to: id(3) }));
        assert_eq!(transfer(None, &[2]), Ok(Decision::Transfer { to: id(3) }));
        assert_eq!(transfer(Some(2), &[2]), Err(AdminError::Unreached { node: id(2) }));
        let expected = MemberRole::Voter;
        assert_eq!(transfer(Some(4), &[]), Err(AdminError::WrongRole { node: id(4), expected }));
        assert_eq!(transfer(Some(9), &[]), Err(AdminError::NotAMember { node: id(9) }));
        assert!(matches!(transfer(None, &[2, 3]), Err(AdminError::QuorumLost { .. })));
    }

    #[test]
    fn a_new_member_gets_its_addresses_first() {
        let addresses = vec!["10.0.0.5:1".to_owned()];
        let add = AdminRequest::Add { node: id(5), addresses: addresses.clone() };
        let expected = vec![
            Step::Member(MemberChange::Addresses { node: id(5), addresses }),
            Step::Membership(MembershipChange::default().learner(id(5))),
        ];
        assert_eq!(steps(decide(&add, &group(&[], 0))), expected);
        let repeated = AdminRequest::Add { node: id(4), addresses: vec!["10.0.0.4:1".into()] };
        assert_eq!(decide(&repeated, &group(&[], 0)), Ok(Decision::Done));
        let voter = AdminRequest::Add { node: id(2), addresses: Vec::new() };
        assert_eq!(decide(&voter, &group(&[], 0)), Err(AdminError::AlreadyAMember { node: id(2) }));
    }

    #[test]
    fn a_planned_request_is_refused_on_other_voters() {
        let planned = |voters: &[u64]| AdminRequest::Planned {
            voters: voters.iter().copied().map(id).collect(),
            request: Box::new(AdminRequest::Promote { node: id(4) }),
        };
        assert_eq!(steps(decide(&planned(&[1, 2, 3]), &group(&[], 10_000))).len(), 1);
        for voters in [&[1, 2][..], &[1, 2, 3, 4], &[]] {
            assert_eq!(decide(&planned(voters), &group(&[], 10_000)), Err(AdminError::Stale));
        }
        let mut joint = group(&[], 10_000);
        joint.membership.voters_outgoing = [1, 2].map(id).into();
        assert_eq!(decide(&planned(&[1, 2, 3]), &joint), Err(AdminError::Stale));
        // The other checks hold as well.
        let lagging = decide(&planned(&[1, 2, 3]), &group(&[], 0));
        assert_eq!(lagging, Err(AdminError::Lagging { node: id(4), lag: 10_000 }));
        let voters: BTreeSet<NodeId> = [1, 2, 3].map(id).into();
        let twice = AdminRequest::Planned { voters, request: Box::new(planned(&[1, 2, 3])) };
        assert_eq!(decide(&twice, &group(&[], 10_000)), Err(AdminError::NestedPlan));
    }

    #[test]
    fn a_voter_is_demoted_in_one_change() {
        let demote = |number| AdminRequest::Demote { node: id(number) };
        let change = MembershipChange::default().learner(id(2));
        assert_eq!(steps(decide(&demote(2), &group(&[], 0))), vec![Step::Membership(change)]);
        // The leader itself hands over first, and the next one decides again.
        assert_eq!(
            decide(&demote(1), &group(&[3], 0)),
            Err(AdminError::QuorumLost { voters: 2, reached: 1, needed: 2 })
        );
        assert_eq!(decide(&demote(1), &group(&[], 0)), Ok(Decision::Transfer { to: id(2) }));
        assert_eq!(decide(&demote(4), &group(&[], 0)), Ok(Decision::Done), "a repeated request");
        assert_eq!(decide(&demote(9), &group(&[], 0)), Err(AdminError::NotAMember { node: id(9) }));
        let mut only = group(&[], 0);
        only.membership.voters = [id(1)].into();
        assert_eq!(
            decide(&demote(1), &only),
            Err(AdminError::QuorumLost { voters: 0, reached: 0, needed: 1 })
        );
        let mut joint = group(&[], 0);
        joint.membership.voters.remove(&id(3));
        joint.membership.voters_outgoing = [1, 2, 3].map(id).into();
        assert_eq!(decide(&demote(3), &joint), Err(AdminError::InProgress));
    }

    #[test]
    fn an_interrupted_removal_is_completed() {
        let mut group = group(&[], 0);
        group.membership.voters.remove(&id(3));
        let again = AdminRequest::Remove { node: id(3) };
        assert_eq!(steps(decide(&again, &group)), vec![forget(3)]);
        let again = AdminRequest::Replace { old: id(3), new: id(2) };
        assert_eq!(steps(decide(&again, &group)), vec![forget(3)]);
        let stranger = AdminRequest::Remove { node: id(9) };
        assert_eq!(decide(&stranger, &group), Err(AdminError::NotAMember { node: id(9) }));
    }

    /// The first step of a planned request changes the voters on which it was planned.
    #[test]
    fn an_interrupted_planned_request_is_completed() {
        let mut group = group(&[], 0);
        group.membership.voters.remove(&id(3));
        let planned = |request: AdminRequest| AdminRequest::Planned {
            voters: [1, 2, 3].map(id).into(),
            request: Box::new(request),
        };
        let removal = planned(AdminRequest::Remove { node: id(3) });
        assert_eq!(steps(decide(&removal, &group)), vec![forget(3)]);
        let replacement = planned(AdminRequest::Replace { old: id(3), new: id(2) });
        assert_eq!(steps(decide(&replacement, &group)), vec![forget(3)]);
        let promotion = planned(AdminRequest::Promote { node: id(2) });
        assert_eq!(decide(&promotion, &group), Ok(Decision::Done));
        let other = planned(AdminRequest::Remove { node: id(4) });
        assert_eq!(decide(&other, &group), Err(AdminError::Stale), "a learner is a member as well");
    }

    #[test]
    fn the_list_has_every_member_once() {
        let Ok(Decision::Members(list)) = decide(&AdminRequest::Members, &group(&[3], 500)) else { panic!() };
        let seen: Vec<_> = list.members.iter().map(|it| (it.node.get(), it.role, it.is_reached)).collect();
        let voter = MemberRole::Voter;
        let expected =
            [(1, voter, true), (2, voter, true), (3, voter, false), (4, MemberRole::Learner, true)];
        assert_eq!(seen, expected);
        assert_eq!((list.leader, list.committed, list.members[3].matched), (id(1), 10_000, 500));
    }

    #[test]
    fn a_member_sets_its_addresses_once() {
        let same = AdminRequest::SetAddresses { node: id(2), addresses: vec!["10.0.0.2:1".into()] };
        assert_eq!(decide(&same, &group(&[], 0)), Ok(Decision::Done));
        let other = AdminRequest::SetAddresses { node: id(2), addresses: vec!["10.0.0.9:1".into()] };
        assert_eq!(steps(decide(&other, &group(&[], 0))).len(), 1);
        let stranger = AdminRequest::SetAddresses { node: id(9), addresses: Vec::new() };
        assert_eq!(decide(&stranger, &group(&[], 0)), Err(AdminError::NotAMember { node: id(9) }));
    }
}
