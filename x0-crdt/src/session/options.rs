//! What a session may spend.

use core::time::Duration;

/// What a session may spend. The defaults suit a local network; a radio wants its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionOptions {
    /// The longest datagram, in bytes. At least 128.
    pub datagram_len_max: usize,
    /// Bytes a second that the session may send; datagrams are spaced accordingly.
    pub bytes_per_second: u64,
    /// How long to wait for the first answer before asking again. At least the round trip of the link. A peer that is silent for four
    /// times as long is sent nothing more until it is heard of again.
    pub retry_min: Duration,
    /// The longest pause between repetitions while nothing is heard: what a link that is down costs.
    pub retry_max: Duration,
    /// How often to compare frontiers when all is quiet.
    pub greet_every: Duration,
    /// The most bytes of one transfer, and so what a peer can make this side hold before it is verified and taken in.
    pub transfer_len_max: usize,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            datagram_len_max: 1200,
            bytes_per_second: 12_500_000,
            retry_min: Duration::from_millis(100),
            retry_max: Duration::from_secs(10),
            greet_every: Duration::from_secs(10),
            transfer_len_max: 64 << 20,
        }
    }
}
