//! The actions of a healer, and the policy that proposes them.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Duration;

use x0_identity::NodeId;

use super::view::{LEADER_SHARE, Member, OwnCause, Place, View};
use crate::adapter::candidate;
use crate::{Action, Disruption, Expectation, Plan, Policy};

/// A kind of action, as records and configurations name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ActionKind {
    /// `transfer-leadership`: a leader that is slow itself hands the leadership over.
    TransferLeadership,
    /// `take-over`: a voter campaigns although there is a leader, because a majority of the voters sees that
    /// leader run only part of the time.
    TakeOver,
    /// `replace-voter`: the leader makes a learner a voter in the place of a dead one.
    ReplaceVoter,
    /// `promote-spare`: the leader makes a learner a voter, because there are too few.
    PromoteSpare,
    /// `demote-voter`: the leader makes a voter a learner, because there are too many.
    DemoteVoter,
}

impl ActionKind {
    /// All kinds.
    pub const ALL: [ActionKind; 5] = [
        ActionKind::TransferLeadership,
        ActionKind::TakeOver,
        ActionKind::ReplaceVoter,
        ActionKind::PromoteSpare,
        ActionKind::DemoteVoter,
    ];

    /// The name in records and in configurations.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ActionKind::TransferLeadership => "transfer-leadership",
            ActionKind::TakeOver => "take-over",
            ActionKind::ReplaceVoter => "replace-voter",
            ActionKind::PromoteSpare => "promote-spare",
            ActionKind::DemoteVoter => "demote-voter",
        }
    }
}

/// What a healer does. The set is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Act {
    /// Hands the leadership over, because this node is slow.
    Transfer {
        /// This node, which leads.
        from: Member,
        /// The next leader.
        to: NodeId,
        /// What is wrong with this node.
        cause: OwnCause,
    },
    /// Campaigns in spite of a leader that runs only part of the time. It needs no answer of that leader: it
    /// needs the suspicion of a majority of the voters instead of a claim, and one successor.
    TakeOver {
        /// The leader.
        leader: Member,
        /// Its term.
        term: u64,
    },
    /// Makes a learner that has caught up a voter in the place of a dead one, in one change.
    Replace {
        /// The dead voter.
        dead: Member,
        /// The learner.
        spare: NodeId,
    },
    /// Makes a learner that has caught up a voter: there are fewer voters than
    /// [`HealerOptions::voters`](super::HealerOptions::voters).
    Promote {
        /// The learner.
        spare: Member,
    },
    /// Makes a voter a learner: there are more voters than that.
    Demote {
        /// The voter, a dead one first.
        voter: Member,
        /// Whether it is dead, so that others must say so too.
        is_dead: bool,
    },
}

impl Act {
    /// The voters after the action.
    pub(super) fn voters_after(&self, place: &Place) -> BTreeSet<NodeId> {
        let (gone, new) = match *self {
            Act::Replace { dead, spare } => (Some(dead.0), Some(spare)),
            Act::Promote { spare } => (None, Some(spare.0)),
            Act::Demote { voter, .. } => (Some(voter.0), None),
            Act::Transfer { .. } | Act::TakeOver { .. } => (None, None),
        };
        place.voters.iter().copied().filter(|voter| Some(*voter) != gone).chain(new).collect()
    }

    /// Its kind.
    #[must_use]
    pub fn action_kind(&self) -> ActionKind {
        match self {
            Act::Transfer { .. } => ActionKind::TransferLeadership,
            Act::TakeOver { .. } => ActionKind::TakeOver,
            Act::Replace { .. } => ActionKind::ReplaceVoter,
            Act::Promote { .. } => ActionKind::PromoteSpare,
            Act::Demote { .. } => ActionKind::DemoteVoter,
        }
    }
}

impl Action<View> for Act {
    fn kind(&self) -> &'static str {
        self.action_kind().name()
    }

    fn subject(&self) -> &Member {
        match self {
            Act::Transfer { from: subject, .. }
            | Act::TakeOver { leader: subject, .. }
            | Act::Replace { dead: subject, .. }
            | Act::Promote { spare: subject }
            | Act::Demote { voter: subject, .. } => subject,
        }
    }

    fn disruption(&self) -> Disruption {
        match self {
            Act::Transfer { .. } | Act::TakeOver { .. } => Disruption::Brief,
            Act::Replace { .. } | Act::Promote { .. } | Act::Demote { .. } => Disruption::Irreversible,
        }
    }

    fn accuses_other(&self) -> bool {
        matches!(self, Act::TakeOver { .. } | Act::Replace { .. } | Act::Demote { is_dead: true, .. })
    }

    fn precondition(&self, view: &View) -> Result<(), Cow<'static, str>> {
        let place = view.place();
        match self {
            Act::TakeOver { leader, term } if (place.leader, place.term) != (Some(leader.0), *term) => {
                Err("there is another leader".into())
            }
            Act::TakeOver { .. } => Ok(()),
            _ if !place.is_leader => Err("this node is not the leader".into()),
            Act::Replace { dead, .. } if place.reached.contains(&dead.0) => {
                Err("the voter is reached again".into())
            }
            Act::Promote { spare } if place.voters.contains(&spare.0) => Err("it is a voter already".into()),
            Act::Promote { .. } if view.missing_voters() == 0 => Err("there are enough voters".into()),
            Act::Demote { voter, .. } if !place.voters.contains(&voter.0) => Err("it is no voter".into()),
            Act::Demote { .. } if view.surplus_voters() == 0 => Err("there are not too many voters".into()),
            Act::Demote { voter, is_dead: true } if place.reached.contains(&voter.0) => {
                Err("the voter is reached again".into())
            }
            Act::Transfer { .. } | Act::Replace { .. } | Act::Promote { .. } | Act::Demote { .. } => Ok(()),
        }
    }

    fn is_safe(&self, view: &View) -> Result<(), Cow<'static, str>> {
        let place = view.place();
        match *self {
            // An heir that lags or has just returned makes it worse (CockroachDB #115659).
            Act::Transfer { to, .. } if place.heir != Some(to) => {
                Err("the next leader lags or is not reached".into())
            }
            Act::Transfer { to, cause: OwnCause::SlowDisk, .. } if view.is_other_pressed(to) => {
                Err("the writes of the next leader wait for its disk, too".into())
            }
            // If many are slow, the cause is the load, and the next leader is slow as well.
            Act::Transfer { cause: OwnCause::SlowDisk, .. } if is_common(view.others_pressed()) => {
                let (pressed, others) = view.others_pressed();
                Err(format!("the writes of {pressed} of {others} other voters wait for their disks, too")
                    .into())
            }
            Act::Transfer { .. } => Ok(()),
            // A minority acts on nobody but itself, and two successors would disturb each other.
            Act::TakeOver { .. } if view.successor_now() != Some(view.node()) => {
                Err("no majority of the voters suspects the leader, or another voter takes over".into())
            }
            Act::TakeOver { .. } if !place.has_quorum(view.node(), &place.voters) => {
                Err("a majority of the voters is not reached".into())
            }
            Act::TakeOver { .. } => Ok(()),
            Act::Replace { spare, .. } | Act::Promote { spare: Member(spare) }
                if place.spare != Some(spare) =>
            {
                Err("the spare lags or is not reached".into())
            }
            // The leader hands over before it loses its vote, and then the next one decides.
            Act::Demote { voter, .. } if voter.0 == view.node() => Err("this node leads".into()),
            Act::Replace { .. } | Act::Promote { .. } | Act::Demote { .. } => {
                if place.has_quorum(view.node(), &self.voters_after(place)) {
                    Ok(())
                } else {
                    Err("a majority of the voters after the change is not reached".into())
                }
            }
        }
    }

    fn badness(&self, view: &View) -> Option<f64> {
        match self {
            // The group waits for its leader alone; the next leader has a healer of its own, which judges the
            // other node.
            Act::Transfer { .. } if !view.place().is_leader => Some(0.0),
            Act::Transfer { from, cause, .. } => view.reading(from.0, cause.signal()),
            // Another leader is judged by its own readings.
            Act::TakeOver { leader, .. } if view.place().leader != Some(leader.0) => Some(0.0),
            Act::TakeOver { leader, .. } => view.reading(leader.0, LEADER_SHARE),
            // The redundancy that is missing.
            Act::Replace { dead: gone, .. } | Act::Demote { voter: gone, .. } => {
                Some(f64::from(u8::from(view.place().voters.contains(&gone.0))))
            }
            Act::Promote { spare } => Some(f64::from(u8::from(!view.place().voters.contains(&spare.0)))),
        }
    }

    /// A voter is replaced after a silence that is long enough: it has lasted.
    fn stability(&self) -> Option<Duration> {
        matches!(self, Act::Replace { .. }).then_some(Duration::ZERO)
    }

    fn expectation(&self) -> Expectation {
        Expectation { within: Duration::from_secs(3), improvement: 0.5 }
    }
}

/// Whether at least half of the other voters are slow.
fn is_common((slow, others): (usize, usize)) -> bool {
    slow > 0 && slow * 2 >= others
}

/// A leader that is slow itself hands the leadership over, replaces dead voters, and keeps the number of
/// voters; other voters take over from a leader that runs only part of the time.
#[derive(Debug)]
pub(super) struct Heal;

impl Policy<View, Act> for Heal {
    fn name(&self) -> &'static str {
        "heal-group"
    }

    fn decide(&mut self, now: Duration, view: &View, plan: &mut Plan<Act>) {
        let place = view.place();
        if !place.is_leader {
            if let Some((leader, evidence)) = view.leader_cause(now)
                && view.successor(now) == Some(view.node())
            {
                let action = Act::TakeOver { leader: Member(leader), term: place.term };
                plan.propose(candidate(action, OwnCause::Starved.name(), "cut-off", evidence));
            }
            return;
        }
        if let (Some((cause, evidence)), Some(to)) = (view.own_cause(now), place.heir) {
            let action = Act::Transfer { from: Member(view.node()), to, cause };
            plan.propose(candidate(action, cause.name(), "overload", evidence));
        }
        // Of too many voters a dead one is demoted, and needs no spare.
        if let Some(spare) = place.spare.filter(|_| view.surplus_voters() == 0) {
            for (dead, evidence) in view.dead(now) {
                plan.propose(candidate(
                    Act::Replace { dead: Member(dead), spare },
                    "dead",
                    "cut-off",
                    vec![evidence],
                ));
            }
        }
        if let Some((action, cause, evidence)) = view.voters_due(now) {
            plan.propose(candidate(action, cause, "operator", evidence));
        }
    }
}
