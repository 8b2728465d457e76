//! The report of a simulation.

use std::fmt;
use std::time::Duration;

/// Counts of a simulation, or of several: [`Report::add`].
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Report {
    /// How much virtual time passed.
    pub virtual_time: Duration,
    /// Rounds of faults, each with a check of its history at the end.
    pub rounds: u64,
    /// Operations asked for.
    pub operations: u64,
    /// Operations that were answered.
    pub acknowledged: u64,
    /// Operations that ended in an error that says that nothing was done.
    pub failed: u64,
    /// Writes of unknown fate.
    pub unknown: u64,
    /// Histories for which the search for an order ran out of steps.
    pub undecided: u64,
    /// Entries that the replicas applied, counted once each.
    pub entries: u64,
    /// Terms that had a leader.
    pub elections: u64,
    /// Nodes that lost their power, many at once counted each.
    pub crashes: u64,
    /// The crashes among them in the midst of an operation of the disk.
    pub torn_writes: u64,
    /// Node processes that ended while the power stayed.
    pub kills: u64,
    /// Nodes that stopped over an error of their disk or a full one.
    pub disk_errors: u64,
    /// Nodes that stood still for a while.
    pub pauses: u64,
    /// Clients that were replaced by new ones.
    pub client_restarts: u64,
    /// Partitions and isolations.
    pub partitions: u64,
    /// Links cut in one direction.
    pub asymmetric_cuts: u64,
    /// Reports of a node that a peer is silent, before the end of the connection.
    pub peers_silent: u64,
    /// Messages sent.
    pub messages: u64,
    /// Messages lost.
    pub messages_lost: u64,
    /// Messages that came twice.
    pub messages_twice: u64,
    /// Messages held back, so that later ones came first.
    pub messages_late: u64,
    /// Connections that were lost with all that was under way.
    pub connections_reset: u64,
    /// Snapshots that nodes wrote of their own state.
    pub snapshots_saved: u64,
    /// Snapshots that nodes took over from a leader.
    pub snapshots_installed: u64,
    /// Changes of membership that were carried out.
    pub membership_changes: u64,
    /// Handovers of leadership asked for.
    pub transfers: u64,
    /// Bits flipped in files of stopped nodes.
    pub flipped_bits: u64,
    /// Log segments removed from the folders of stopped nodes.
    pub segments_lost: u64,
    /// Folders that were emptied.
    pub folders_emptied: u64,
    /// Folders that were replaced by an older copy.
    pub folders_rolled_back: u64,
    /// Damaged folders that were refused.
    pub folders_refused: u64,
    /// Nodes that became members again under a new incarnation.
    pub nodes_rejoined: u64,
    /// Disks that were rolled back as a whole, and detected by what the others had kept.
    pub disks_rolled_back: u64,
    /// Histories that ended with the loss of a majority of the folders, and with refused service.
    pub majorities_lost: u64,
    /// Disks that were full, as a whole or for the log or checkpoints alone.
    pub disks_full: u64,
    /// Log lines that were dropped because nothing read them.
    pub log_lines_dropped: u64,
    /// Writes that took longer than a second.
    pub slow_writes: u64,
    /// Events carried out.
    pub events: u64,
    /// A hash of every message delivered, write, crash and answer: the same seed gives the same.
    pub trace_hash: u64,
}

impl Report {
    /// How much virtual time passed, in hours.
    #[must_use]
    pub fn virtual_hours(&self) -> f64 {
        self.virtual_time.as_secs_f64() / 3600.0
    }

    /// Adds what another simulation saw.
    pub fn add(&mut self, other: &Report) {
        self.virtual_time += other.virtual_time;
        self.trace_hash = self.trace_hash.rotate_left(1) ^ other.trace_hash;
        for ((_, count), (_, more)) in self.counts_mut().into_iter().zip(other.clone().counts_mut()) {
            *count += *more;
        }
    }

    /// Every count with its name, in the order in which a person would read them.
    #[must_use]
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        self.clone().counts_mut().into_iter().map(|(name, count)| (name, *count)).collect()
    }

    fn counts_mut(&mut self) -> [(&'static str, &mut u64); 38] {
        [
            ("rounds", &mut self.rounds),
            ("operations", &mut self.operations),
            ("acknowledged", &mut self.acknowledged),
            ("failed", &mut self.failed),
            ("unknown", &mut self.unknown),
            ("undecided", &mut self.undecided),
            ("entries", &mut self.entries),
            ("elections", &mut self.elections),
            ("crashes", &mut self.crashes),
            ("torn writes", &mut self.torn_writes),
            ("kills", &mut self.kills),
            ("disk errors", &mut self.disk_errors),
            ("pauses", &mut self.pauses),
            ("client restarts", &mut self.client_restarts),
            ("partitions", &mut self.partitions),
            ("asymmetric cuts", &mut self.asymmetric_cuts),
            ("peers silent", &mut self.peers_silent),
            ("messages", &mut self.messages),
            ("messages lost", &mut self.messages_lost),
            ("messages twice", &mut self.messages_twice),
            ("messages late", &mut self.messages_late),
            ("connections reset", &mut self.connections_reset),
            ("snapshots saved", &mut self.snapshots_saved),
            ("snapshots installed", &mut self.snapshots_installed),
            ("membership changes", &mut self.membership_changes),
            ("transfers", &mut self.transfers),
            ("flipped bits", &mut self.flipped_bits),
            ("segments lost", &mut self.segments_lost),
            ("folders emptied", &mut self.folders_emptied),
            ("folders rolled back", &mut self.folders_rolled_back),
            ("folders refused", &mut self.folders_refused),
            ("nodes rejoined", &mut self.nodes_rejoined),
            ("disks rolled back", &mut self.disks_rolled_back),
            ("majorities lost", &mut self.majorities_lost),
            ("disks full", &mut self.disks_full),
            ("log lines dropped", &mut self.log_lines_dropped),
            ("slow writes", &mut self.slow_writes),
            ("events", &mut self.events),
        ]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:.2} virtual hours", self.virtual_hours())?;
        for (name, count) in self.counts() {
            write!(formatter, ", {name} {count}")?;
        }
        write!(formatter, ", trace {:016x}", self.trace_hash)
    }
}
