//! A whole cluster in virtual time, in one thread, with faults of every kind.
//!
//! [`run`] plays a [`Scenario`]: full nodes (replica, write-ahead log, state, coordinator) and clients
//! outside, on links and disks that fail. All chance comes from the scenario's seed, so that the same
//! scenario gives the same [`Report`], its [`trace_hash`](Report::trace_hash) included, and a [`Violation`]
//! can be seen again.
//!
//! A run goes in rounds. In each there is a storm first: nodes lose their power, writes are torn, processes
//! end or stand still, disks fail, fill up or get slow; links are cut in both directions or one, lose, delay,
//! repeat and reorder; leadership is handed over and members come and go. Folders are damaged, emptied and
//! rolled back, one at a time, and their nodes rejoin under a new incarnation, as those of the product do.
//! Log lines are not read. Then all is mended, and then must hold:
//!
//! - every client is answered, and can read; all members reach the same index with the same state, byte for
//!   byte;
//! - the answers of the round could have come from one store that does one operation after the other
//!   ([`linearizability`]), and each value was written once.
//!
//! At times the disk of a node is then rolled back as a whole, which the others detect by what they have kept
//! about it; and some histories end with the loss of a majority of the folders, after which the cluster must
//! refuse service and every node must report why.
//!
//! At every moment must hold: one leader per term; the same entry and the same outcome at an index on every
//! node; no replica stops by itself, no log that was not damaged is refused, and one that was is refused with
//! the name of the file.
//!
//! ```
//! use std::time::Duration;
//! use x0_kv::sim::{Scenario, run};
//!
//! let mut scenario = Scenario::new(1);
//! scenario.duration = Duration::from_secs(5);
//! let report = run(&scenario).unwrap_or_else(|violation| panic!("{violation}"));
//! assert_eq!(report, run(&scenario).unwrap());
//! ```

mod cable;
mod calm;
mod companion;
mod context;
mod damage;
mod disk;
mod faults;
mod history;
pub mod linearizability;
mod log_sink;
mod network;
mod node;
mod planted;
mod process;
mod random;
mod report;
mod schedule;
mod trace;
mod violation;
mod worker;
mod workers;
mod world;

use std::time::Duration;

use x0_identity::NodeId;

pub use self::companion::{COMPANION_EVERY, Companion, Companions};
pub use self::report::Report;
pub use self::violation::{Cause, Violation};

use self::schedule::Place;

/// The parameters of a simulation.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Scenario {
    /// The seed of all random choices.
    pub seed: u64,
    /// Nodes that found the cluster. 5 unless set.
    pub nodes: usize,
    /// Nodes that begin outside of the cluster and are let in at times. 1 unless set.
    pub spares: usize,
    /// How many operations are asked for at the same time. A quarter of them is asked for on the nodes. 8
    /// unless set.
    pub clients: usize,
    /// How much virtual time to play, at least: the last round is played to its end. One minute unless set.
    pub duration: Duration,
    /// How long the storm of a round is, on average.
    pub storm: Duration,
    /// How long from one fault to the next, on average.
    pub fault_every: Duration,
    /// Of a thousand faults, how many are of a folder: damaged, emptied, rolled back. 45 unless set.
    pub folder_faults: u64,
    /// Of a thousand storms, how many are followed by a disk that is rolled back as a whole, if there are
    /// three voters. 200 unless set.
    pub disk_rollbacks: u64,
    /// Of a thousand histories, how many end with the loss of a majority of the folders. 100 unless set.
    pub majority_losses: u64,
    /// How long a client waits between an answer and the next operation, on average.
    pub think: Duration,
    /// The unit of the replicas' times.
    pub tick: Duration,
    /// Ticks without a word from a leader before an election.
    pub election_ticks: u32,
    /// Ticks between two heartbeats.
    pub heartbeat_ticks: u32,
    /// A bug to put in, to see it found.
    pub planted: Option<PlantedBug>,
}

/// A bug in how the world carries out what the replicas want: what a driver could do wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PlantedBug {
    /// The log says that its bytes are durable without a synchronisation.
    SkipSync,
    /// A write is reported as durable as soon as it is requested.
    AcknowledgeBeforePersist,
    /// A leader answers reads without asking a quorum whether it still leads.
    ReadWithoutQuorum,
    /// Writes are applied as often as they were sent: their request ids are ignored.
    ApplyTwice,
    /// The event loop gives two outcomes that arrive together to each other's callers.
    WrongToken,
    /// The executor's worker discards a snapshot and reports that it restored it.
    RestoreWithoutIndex,
    /// The log returns entries from a disk that rots without verifying them.
    ReadUnverified,
    /// The log opens although the segment that its manifest names is missing.
    IgnoreManifest,
    /// An emptied folder keeps its incarnation, so that its node votes and acknowledges at once.
    EmptiedFolderVotes,
    /// An older copy of a folder is adopted under its old incarnation.
    OlderCopyServes,
    /// A node does not keep what it saw acknowledged by the others, so that a disk that was rolled back as a
    /// whole is not detected.
    ForgetAcknowledged,
    /// When a majority of the folders is lost at once, they keep their incarnations.
    LostMajorityServes,
    /// A write for which the log has no space is reported as durable.
    AcknowledgeWithoutSpace,
    /// A checkpoint for which there is no space is reported as saved.
    SaveWithoutSpace,
    /// The event loop waits until its log lines are read.
    WaitForLog,
    /// A write that takes longer than a second is reported as durable while it is under way.
    AcknowledgeSlowWrite,
}

impl PlantedBug {
    /// All of them.
    pub const ALL: [PlantedBug; 16] = [
        PlantedBug::SkipSync,
        PlantedBug::AcknowledgeBeforePersist,
        PlantedBug::ReadWithoutQuorum,
        PlantedBug::ApplyTwice,
        PlantedBug::WrongToken,
        PlantedBug::RestoreWithoutIndex,
        PlantedBug::ReadUnverified,
        PlantedBug::IgnoreManifest,
        PlantedBug::EmptiedFolderVotes,
        PlantedBug::OlderCopyServes,
        PlantedBug::ForgetAcknowledged,
        PlantedBug::LostMajorityServes,
        PlantedBug::AcknowledgeWithoutSpace,
        PlantedBug::SaveWithoutSpace,
        PlantedBug::WaitForLog,
        PlantedBug::AcknowledgeSlowWrite,
    ];
}

impl Scenario {
    /// Many faults and many operations in little time.
    #[must_use]
    pub fn new(seed: u64) -> Scenario {
        Scenario {
            seed,
            nodes: 5,
            spares: 1,
            clients: 8,
            duration: Duration::from_secs(60),
            storm: Duration::from_secs(10),
            fault_every: Duration::from_millis(700),
            folder_faults: 45,
            disk_rollbacks: 200,
            majority_losses: 100,
            think: Duration::from_millis(100),
            tick: Duration::from_millis(50),
            election_ticks: 10,
            heartbeat_ticks: 2,
            planted: None,
        }
    }

    /// A short history in which folders are damaged, emptied and rolled back all the time.
    #[must_use]
    pub fn amnesia(seed: u64) -> Scenario {
        Scenario {
            nodes: 3,
            clients: 4,
            duration: Duration::from_secs(5),
            storm: Duration::from_secs(5),
            fault_every: Duration::from_millis(400),
            folder_faults: 500,
            disk_rollbacks: 500,
            majority_losses: 250,
            ..Scenario::new(seed)
        }
    }

    /// One hour of a cluster to which something happens every few seconds, cheap enough to play thousands of
    /// them.
    #[must_use]
    pub fn hour(seed: u64) -> Scenario {
        Scenario {
            duration: Duration::from_secs(3600),
            storm: Duration::from_secs(60),
            fault_every: Duration::from_secs(5),
            think: Duration::from_secs(2),
            tick: Duration::from_millis(100),
            heartbeat_ticks: 3,
            ..Scenario::new(seed)
        }
    }
}

/// Plays a scenario to its end.
///
/// # Errors
/// At the first thing that must never be: see [`Violation`].
pub fn run(scenario: &Scenario) -> Result<Report, Box<Violation>> {
    world::run(scenario, None)
}

/// Plays a scenario to its end, with a program beside each node: its members take requests of operators, as
/// those of the product do.
///
/// # Errors
/// As [`run`].
pub fn run_with(scenario: &Scenario, companions: Companions) -> Result<Report, Box<Violation>> {
    world::run(scenario, Some(companions))
}

#[expect(clippy::expect_used, reason = "one more than a place is not zero")]
fn id_of(place: Place) -> NodeId {
    NodeId::new(place as u64 + 1).expect("not zero")
}
