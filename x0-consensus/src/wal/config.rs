//! How a log lays itself out on the disk.

/// Bounds of a [`Wal`](super::Wal). Change what is needed of [`WalConfig::default`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct WalConfig {
    /// How long a segment file is, in bytes; room is given back to the disk in these units. 4 KiB to 1 GiB,
    /// default 16 MiB. A longer batch gets a segment of its own length. May differ from one opening to
    /// the next.
    pub segment_len: u64,
    /// The longest batch accepted, in bytes as encoded (payloads and 16 bytes per entry). Up to 1 GiB,
    /// default 256 MiB.
    pub batch_len_max: u64,
    /// Whether the next segment file is made ready ahead of need by a thread of its own, which lives only as
    /// long as that takes. Otherwise it is made when it is needed, by the write that needs it:
    /// deterministic, and slower by the time it takes to write a segment of zeros. Default true.
    pub spare_in_background: bool,
}

const LEN_MAX: u64 = 1 << 30;

impl Default for WalConfig {
    fn default() -> WalConfig {
        WalConfig { segment_len: 16 << 20, batch_len_max: 256 << 20, spare_in_background: true }
    }
}

impl WalConfig {
    /// Why it cannot work, if it cannot.
    pub(crate) fn refusal(&self) -> Option<&'static str> {
        if !(4096..=LEN_MAX).contains(&self.segment_len) {
            return Some("segment_len lies between 4 KiB and 1 GiB");
        }
        if !(4096..=LEN_MAX).contains(&self.batch_len_max) {
            return Some("batch_len_max lies between 4 KiB and 1 GiB");
        }
        None
    }
}
