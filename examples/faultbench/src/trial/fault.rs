//! The faults of a comparison.

use std::fmt;

/// A fault, injected once in a trial and kept until its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub(crate) enum Fault {
    /// SIGKILL of the leader's process
    KillLeader,
    /// SIGKILL of a follower's process
    KillFollower,
    /// SIGSTOP of the leader's process
    HangLeader,
    /// SIGSTOP of a follower's process
    HangFollower,
    /// The machine of the leader runs for 50 of every 400 ms (freezer cgroup)
    StarvedLeader,
    /// Each fdatasync of the leader takes about 520 ms (blkio throttle on its own disk)
    SlowDiskLeader,
    /// The disk of the leader is filled to the last byte
    FullDiskLeader,
    /// The memory limit of the leader's process falls by 16 MiB a second until the kernel ends the process
    LeakLeader,
    /// The leader and all others do not reach each other
    CutLeader,
    /// The leader receives nothing from the other nodes, and they receive all from it
    OneWayLeader,
    /// The leader and the clients do not reach each other
    CutClients,
    /// 30 % of all packets between nodes and clients are lost
    Loss,
    /// 60 % of what arrives over one of two links of the leader is lost (x0-node with `[[links]]`)
    BadLinkLeader,
    /// The leader at the injection is cut off for one of every two seconds
    Flapping,
    /// SIGKILL of the leader's process and SIGSTOP of a follower's
    TwoAtOnce,
    /// SIGKILL of all processes at once
    KillAll,
    /// Each fdatasync of every node takes about 250 ms: load, and no sick node
    AllSlow,
    /// The wall clock of the leader's process jumps by an hour
    ClockSkew,
    /// The trust bundle of the leader is replaced by that of another authority
    WrongBundle,
    /// The leader's SVID is replaced by one of 24 s, which nothing renews by itself
    ShortSvid,
    /// A follower's machine is switched off for good while a spare is there, and another one's after 16 s
    DeadVoter,
    /// A follower's process ends, and starts with a configuration that is wrong
    BadConfig,
    /// Planned work: a fourth node joins
    ScaleOut,
    /// Planned work: each machine is stopped in order and started again
    RollingRestart,
    /// No fault: nothing happens
    #[value(name = "no-fault")]
    Nothing,
}

impl Fault {
    pub(crate) const ALL: [Fault; 25] = [
        Fault::KillLeader,
        Fault::KillFollower,
        Fault::HangLeader,
        Fault::HangFollower,
        Fault::StarvedLeader,
        Fault::SlowDiskLeader,
        Fault::FullDiskLeader,
        Fault::LeakLeader,
        Fault::CutLeader,
        Fault::OneWayLeader,
        Fault::CutClients,
        Fault::Loss,
        Fault::BadLinkLeader,
        Fault::Flapping,
        Fault::TwoAtOnce,
        Fault::KillAll,
        Fault::AllSlow,
        Fault::ClockSkew,
        Fault::WrongBundle,
        Fault::ShortSvid,
        Fault::DeadVoter,
        Fault::BadConfig,
        Fault::ScaleOut,
        Fault::RollingRestart,
        Fault::Nothing,
    ];

    /// What `--quick` plays: each is healed within ten seconds, or needs no healing.
    pub(crate) const QUICK: [Fault; 10] = [
        Fault::KillLeader,
        Fault::HangLeader,
        Fault::StarvedLeader,
        Fault::SlowDiskLeader,
        Fault::CutLeader,
        Fault::OneWayLeader,
        Fault::CutClients,
        Fault::KillAll,
        Fault::RollingRestart,
        Fault::Nothing,
    ];

    /// What `list` says.
    pub(crate) fn about(self) -> String {
        let value = clap::ValueEnum::to_possible_value(&self);
        value.and_then(|value| value.get_help().map(ToString::to_string)).unwrap_or_default()
    }

    /// Whether a fourth machine is there: a learner from the begin on, or one that joins.
    pub(crate) fn needs_spare(self) -> bool {
        matches!(self, Fault::DeadVoter | Fault::ScaleOut)
    }

    /// Whether the nodes have two networks, and links over both.
    pub(crate) fn needs_two_links(self) -> bool {
        self == Fault::BadLinkLeader
    }

    /// Whether only nodes of x0 can have it: etcd has no spare that takes over here, and a preloaded library
    /// does not reach a Go program.
    pub(crate) fn is_for_x0_only(self) -> bool {
        let is_of_x0 =
            matches!(self, Fault::ClockSkew | Fault::WrongBundle | Fault::ShortSvid | Fault::BadConfig);
        self.needs_spare() || self.needs_two_links() || is_of_x0
    }

    /// The least time, in seconds, that shows its effect.
    pub(crate) fn seconds_min(self) -> u64 {
        match self {
            Fault::DeadVoter => 22,
            // The SVID ends, and what follows.
            Fault::ShortSvid => 35,
            // Three machines, one after the other.
            Fault::RollingRestart => 15,
            _ => 5,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = clap::ValueEnum::to_possible_value(self);
        formatter.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_fault_is_listed_once_and_says_what_it_is() {
        let names: BTreeSet<String> = Fault::ALL.iter().map(Fault::to_string).collect();
        assert_eq!(names.len(), <Fault as clap::ValueEnum>::value_variants().len());
        assert!(Fault::ALL.iter().all(|fault| fault.about().len() > 10));
        assert!(Fault::QUICK.iter().all(|fault| !fault.needs_spare()));
        assert!(Fault::QUICK.len() >= 8);
    }
}
