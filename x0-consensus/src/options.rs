//! The options of a replica.

use std::collections::BTreeMap;
use std::time::Duration;

use x0_identity::NodeId;

use crate::entry::Membership;
use crate::replica::Acknowledged;
use crate::trace::Tracing;

/// The options of a replica. All replicas of a group should have the same times.
///
/// ```
/// use std::time::Duration;
/// use x0_consensus::{NodeId, Options};
///
/// let id = NodeId::new(1).unwrap();
/// let options = Options::new(id).bootstrap([id]).tick(Duration::from_millis(20)).election_ticks(15);
/// assert_eq!(options.heartbeat_ticks, 2);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// The id of this replica.
    pub id: NodeId,
    /// The founders of the group. It has an effect only on an empty storage, and every founder must have the
    /// same value. Empty for a replica that joins an existing group: a membership change of that group adds
    /// it.
    pub bootstrap: Membership,
    /// The incarnation of this replica: a random number that belongs to its log and that is lost with it,
    /// such as [`Wal::incarnation`](crate::Wal::incarnation). All replicas of a group should have one, or
    /// none: see the docs of [`Replica`](crate::Replica#incarnations). Default 0, which means none: a replica
    /// that has lost its log may then vote, and a committed entry may be lost.
    pub incarnation: u64,
    /// The acknowledgements of other members that this replica knew of before it was started:
    /// [`Replica::acknowledged`](crate::Replica::acknowledged). Default: nothing.
    pub acknowledged: BTreeMap<NodeId, Acknowledged>,
    /// The unit of all times below. Default 50 ms.
    pub tick: Duration,
    /// The ticks without a message of a leader after which an election starts; the actual timeout is drawn
    /// between this and twice this. Default 10.
    pub election_ticks: u32,
    /// The ticks between two heartbeats of a leader. Default 2.
    pub heartbeat_ticks: u32,
    /// The seed of the election timeouts. Each replica should have its own. Default: the id.
    pub seed: u64,
    /// The most bytes of entries in one message; a longer entry travels alone. Default 1 MiB, at most 8 MiB.
    pub message_len_max: usize,
    /// The most append messages in flight to one follower. Default 256.
    pub in_flight_messages_max: usize,
    /// The most bytes of proposals that are not committed; further proposals are refused. Default 64 MiB, at
    /// least `message_len_max`.
    pub uncommitted_len_max: usize,
    /// The bytes of entries kept in memory for followers that lag a little. Entries that are not applied stay
    /// in any case. Default 32 MiB.
    pub cache_len_max: usize,
    /// The bytes by which the log grows before the state machine takes a checkpoint or a snapshot. Default 64
    /// MiB. The log that a member needs after a snapshot that is sent to it stays beyond, up to eight times
    /// this length.
    pub checkpoint_log_len: usize,
    /// The entries kept before a checkpoint, for followers that lag. Default 16384.
    pub retained_entries: u64,
    /// The bytes in one chunk of a snapshot. Default 256 KiB, at most 1 MiB.
    pub chunk_len: usize,
    /// The most chunks of a snapshot in flight without an acknowledgement. Default 8.
    pub chunks_in_flight_max: usize,
    /// The most proposals, and the most reads, that wait for their result. Default 65536.
    pub waiting_max: usize,
    /// Whether an executor waits for space when the disk is full: see
    /// [`Event::NoSpace`](crate::Event::NoSpace). Otherwise the replica stops with
    /// [`FatalError::Write`](crate::FatalError::Write). Default `false`.
    pub waits_for_space: bool,
    /// Whether and how an executor traces: see [`trace`](crate::trace). Default: off.
    pub tracing: Tracing,
}

impl Options {
    /// The defaults, for the replica of this id.
    #[must_use]
    pub fn new(id: NodeId) -> Options {
        Options {
            id,
            bootstrap: Membership::default(),
            incarnation: 0,
            acknowledged: BTreeMap::new(),
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
            waits_for_space: false,
            tracing: Tracing::default(),
        }
    }

    /// Sets the founders: see [`bootstrap`](field@Options::bootstrap).
    #[must_use]
    pub fn bootstrap(mut self, voters: impl IntoIterator<Item = NodeId>) -> Options {
        self.bootstrap = Membership::of_voters(voters);
        self
    }
}

/// Builder methods that set the field of the same name.
macro_rules! setters {
    ($options:ident: $($field:ident: $kind:ty),+ $(,)?) => {
        impl $options {
            $(
                #[doc = concat!("Sets [`", stringify!($field), "`](field@", stringify!($options), "::", stringify!($field), ").")]
                #[must_use]
                pub fn $field(mut self, $field: $kind) -> $options {
                    self.$field = $field;
                    self
                }
            )+
        }
    };
}

pub(crate) use setters;

setters! { Options:
    incarnation: u64,
    acknowledged: BTreeMap<NodeId, Acknowledged>,
    tick: Duration,
    election_ticks: u32,
    heartbeat_ticks: u32,
    seed: u64,
    message_len_max: usize,
    in_flight_messages_max: usize,
    uncommitted_len_max: usize,
    cache_len_max: usize,
    checkpoint_log_len: usize,
    retained_entries: u64,
    chunk_len: usize,
    chunks_in_flight_max: usize,
    waiting_max: usize,
    waits_for_space: bool,
    tracing: Tracing,
}
