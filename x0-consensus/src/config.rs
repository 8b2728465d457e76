//! What a replica is told when it is made.

use std::time::Duration;

use x0_identity::NodeId;

use crate::entry::Membership;

/// How a replica behaves. All replicas of a group should agree on the times.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// This replica.
    pub id: NodeId,
    /// Who founds the group. Counts only when the storage is empty; every founder must be given the same. Empty for a replica that
    /// joins a group: its members learn of it by a membership change.
    pub bootstrap: Membership,
    /// The unit of all times below. 50 ms unless set.
    pub tick: Duration,
    /// Ticks without a word from a leader before an election; the actual time is drawn between this and twice this. 10 unless set.
    pub election_ticks: u32,
    /// Ticks between two heartbeats of a leader. 2 unless set.
    pub heartbeat_ticks: u32,
    /// Where the random election times come from. Give each replica another one.
    pub seed: u64,
    /// Most bytes of entries in one message; an entry that is longer travels alone. 1 MiB unless set; at most 8 MiB.
    pub message_len_max: usize,
    /// Most append messages on their way to one follower. 256 unless set.
    pub in_flight_messages_max: usize,
    /// Most bytes of proposals that are not committed yet; beyond, proposals are refused. 64 MiB unless set; at least
    /// `message_len_max`.
    pub uncommitted_len_max: usize,
    /// Bytes of entries kept in memory for followers that are a little behind. What is not applied yet stays in any case. 32 MiB
    /// unless set.
    pub cache_len_max: usize,
    /// Bytes the log grows by before the state machine is asked for a checkpoint or a snapshot. 64 MiB unless set.
    pub checkpoint_log_len: usize,
    /// Entries kept behind a checkpoint, for followers that are behind. 16384 unless set.
    pub retained_entries: u64,
    /// Bytes in one piece of a snapshot. 256 KiB unless set; at most 1 MiB.
    pub chunk_len: usize,
    /// Pieces of a snapshot on their way before one is acknowledged. 8 unless set.
    pub chunks_in_flight_max: usize,
    /// Most proposals and reads that wait for their outcome. 65536 unless set.
    pub waiting_max: usize,
}

impl Config {
    /// The defaults, for a replica of this name.
    #[must_use]
    pub fn new(id: NodeId) -> Config {
        Config {
            id,
            bootstrap: Membership::default(),
            tick: Duration::from_millis(50),
            election_ticks: 10,
            heartbeat_ticks: 2,
            seed: id.get(),
            message_len_max: 1 << 20,
            in_flight_messages_max: 256,
            uncommitted_len_max: 64 << 20,
            cache_len_max: 32 << 20,
            checkpoint_log_len: 64 << 20,
            retained_entries: 16384,
            chunk_len: 256 << 10,
            chunks_in_flight_max: 8,
            waiting_max: 65536,
        }
    }

    /// With these founders.
    #[must_use]
    pub fn bootstrap(mut self, voters: impl IntoIterator<Item = NodeId>) -> Config {
        self.bootstrap = Membership::of_voters(voters);
        self
    }
}
