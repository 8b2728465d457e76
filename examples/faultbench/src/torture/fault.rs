//! The faults of a run.

use std::fmt;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(super) enum Fault {
    /// SIGKILL of a node
    Kill,
    /// SIGKILL of the leader
    KillLeader,
    /// SIGKILL of all nodes at once
    KillAll,
    /// SIGTERM of a node, which must end it in time
    Terminate,
    /// SIGSTOP of a node, then SIGCONT
    Pause,
    /// Two sides that do not reach each other, clients on one of them
    Partition,
    /// The leader reaches nobody
    IsolateLeader,
    /// The leader and the clients do not reach each other
    CutClients,
    /// One node's packets to another are lost, and not the other way
    OneWay,
    /// A share of all packets is lost
    Loss,
    /// The wall clock of a node jumps
    ClockJump,
    /// The disk of a node is full
    FullDisk,
    /// Nothing reads what a node writes to standard error
    BlockedLog,
    /// SIGKILL of a client process
    KillClient,
    /// Bits of a file of a stopped node are flipped
    FlipBits,
    /// The folder of a stopped node is emptied
    EmptyFolder,
    /// The folder of a stopped node is replaced by an older copy
    RollBack,
    /// The newest log segment of a stopped node is removed
    MissingSegment,
}

impl Fault {
    pub(super) const ALL: [Fault; 18] = [
        Fault::Kill,
        Fault::KillLeader,
        Fault::KillAll,
        Fault::Terminate,
        Fault::Pause,
        Fault::Partition,
        Fault::IsolateLeader,
        Fault::CutClients,
        Fault::OneWay,
        Fault::Loss,
        Fault::ClockJump,
        Fault::FullDisk,
        Fault::BlockedLog,
        Fault::KillClient,
        Fault::FlipBits,
        Fault::EmptyFolder,
        Fault::RollBack,
        Fault::MissingSegment,
    ];
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = clap::ValueEnum::to_possible_value(self);
        formatter.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}

/// The action that ends a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mend {
    Links,
    Resume(usize),
    Start(usize),
    Clock(usize),
    Disk(usize),
    Log(usize),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_listed_once_with_its_name() {
        let names: std::collections::BTreeSet<String> = Fault::ALL.iter().map(Fault::to_string).collect();
        assert_eq!(names.len(), <Fault as clap::ValueEnum>::value_variants().len());
        assert!(names.contains("kill-leader") && names.contains("roll-back"));
    }
}
