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
    /// The incarnation of a folder that has none yet: a random number that no earlier folder of this replica
    /// had. An existing folder keeps its own. Default 0, which means that the folder has no incarnation.
    pub incarnation: u64,
    /// Whether a copied folder is opened instead of refused with
    /// [`RecoverError::Copied`](crate::RecoverError::Copied). [`Wal::is_copy`](super::Wal::is_copy) reports
    /// it then, until [`Wal::adopt`](super::Wal::adopt). Default false.
    pub accepts_copy: bool,
}

setters! { WalOptions:
    segment_len: u64,
    batch_len_max: u64,
    spare_in_background: bool,
    incarnation: u64,
    accepts_copy: bool,
}

const LEN_MAX: u64 = 1 << 30;

impl Default for WalOptions {
    fn default() -> WalOptions {
        WalOptions {
            segment_len: 16 << 20,
            batch_len_max: 256 << 20,
            spare_in_background: true,
            incarnation: 0,
            accepts_copy: false,
        }
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
