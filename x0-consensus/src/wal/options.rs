//! The options of a write-ahead log.

use crate::options::setters;

/// The options of a [`Wal`](super::Wal).
///
/// ```
/// use x0_consensus::WalOptions;
///
/// let options = WalOptions::default().segment_len(1 << 20);
/// assert!(options.spare_in_background);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct WalOptions {
    /// The length of a segment file, in bytes. Space is returned to the disk in these units. 4 KiB to 1 GiB,
    /// default 16 MiB. A longer batch gets a segment of its own length. The value may change from one opening
    /// to the next.
    pub segment_len: u64,
    /// The longest batch, in bytes as encoded (payloads and 16 bytes per entry). 4 KiB to 1 GiB, default 256
    /// MiB.
    pub batch_len_max: u64,
    /// Whether a short-lived thread creates the next segment file before it is needed. Otherwise the write
    /// that needs the file creates it, which is deterministic and slower by the time that it takes to write a
    /// segment of zeros. Default true.
    pub spare_in_background: bool,
}

setters! { WalOptions:
    segment_len: u64,
    batch_len_max: u64,
    spare_in_background: bool,
}

const LEN_MAX: u64 = 1 << 30;

impl Default for WalOptions {
    fn default() -> WalOptions {
        WalOptions { segment_len: 16 << 20, batch_len_max: 256 << 20, spare_in_background: true }
    }
}

impl WalOptions {
    /// The bound that is violated, if any.
    pub(crate) fn violation(&self) -> Option<&'static str> {
        if !(4096..=LEN_MAX).contains(&self.segment_len) {
            return Some("segment_len is between 4 KiB and 1 GiB");
        }
        if !(4096..=LEN_MAX).contains(&self.batch_len_max) {
            return Some("batch_len_max is between 4 KiB and 1 GiB");
        }
        None
    }
}
