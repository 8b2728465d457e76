//! The budget of a session.

use core::time::Duration;

/// The budget of a session: bytes, pauses and limits. The defaults suit a local network; a radio needs its
/// own.
///
/// ```
/// use core::time::Duration;
/// use x0_crdt::SessionOptions;
///
/// let radio =
/// SessionOptions::default().datagram_len_max(256).bytes_per_second(1_000).retry_min(Duration::from_millis(200));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionOptions {
    /// The longest datagram, in bytes. At least 128.
    pub datagram_len_max: usize,
    /// Bytes a second that the session may send; datagrams are spaced accordingly.
    pub bytes_per_second: u64,
    /// The pause before the first repetition of a request. At least the round trip of the link. A peer that
    /// is silent for four times as long is sent nothing more until it sends something.
    pub retry_min: Duration,
    /// The longest pause between repetitions while the peer is silent: what a link that is down costs.
    pub retry_max: Duration,
    /// The pause between two comparisons of frontiers while nothing changes.
    pub announce_every: Duration,
    /// The most bytes of one transfer, 8 MiB by default, and so the most that a peer can make this side hold
    /// unverified of each kind: a delta, a version, members, hashes. Of versions and members 64 KiB at least.
    /// A longer map is transferred by key ranges of at most 512 KiB, and a longer composed type by slices of
    /// at most 1 MiB.
    pub transfer_len_max: usize,
    /// About how many items of a delta of a map one call of [`Session::handle`](crate::Session::handle)
    /// joins, at least 1. A longer delta is joined in several calls, and becomes visible with the last one.
    pub join_items_max: usize,
}

impl SessionOptions {
    /// Sets [`datagram_len_max`](Self#structfield.datagram_len_max).
    #[must_use]
    pub const fn datagram_len_max(mut self, bytes: usize) -> Self {
        self.datagram_len_max = bytes;
        self
    }

    /// Sets [`bytes_per_second`](Self#structfield.bytes_per_second).
    #[must_use]
    pub const fn bytes_per_second(mut self, bytes: u64) -> Self {
        self.bytes_per_second = bytes;
        self
    }

    /// Sets [`retry_min`](Self#structfield.retry_min).
    #[must_use]
    pub const fn retry_min(mut self, pause: Duration) -> Self {
        self.retry_min = pause;
        self
    }

    /// Sets [`retry_max`](Self#structfield.retry_max).
    #[must_use]
    pub const fn retry_max(mut self, pause: Duration) -> Self {
        self.retry_max = pause;
        self
    }

    /// Sets [`announce_every`](Self#structfield.announce_every).
    #[must_use]
    pub const fn announce_every(mut self, pause: Duration) -> Self {
        self.announce_every = pause;
        self
    }

    /// Sets [`transfer_len_max`](Self#structfield.transfer_len_max).
    #[must_use]
    pub const fn transfer_len_max(mut self, bytes: usize) -> Self {
        self.transfer_len_max = bytes;
        self
    }

    /// Sets [`join_items_max`](Self#structfield.join_items_max).
    #[must_use]
    pub const fn join_items_max(mut self, items: usize) -> Self {
        self.join_items_max = items;
        self
    }
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            datagram_len_max: 1200,
            bytes_per_second: 12_500_000,
            retry_min: Duration::from_millis(100),
            retry_max: Duration::from_secs(10),
            announce_every: Duration::from_secs(10),
            transfer_len_max: 8 << 20,
            join_items_max: 1024,
        }
    }
}
