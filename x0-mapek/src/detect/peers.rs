//! A comparison of one subject with others of its kind.

use super::{Scale, median};

/// The most subjects of one comparison.
pub const PEERS_MAX: usize = 128;
/// Fewer subjects cannot be compared: of two, either may be the odd one.
const PEERS_MIN: usize = 3;

/// The result of a comparison.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum PeersVerdict {
    /// Too few subjects have a usable reading.
    TooFew,
    /// The subject is like the others.
    Alike,
    /// The subject alone is different: it is `factor` times the median of the others. The cause lies with the
    /// subject.
    Alone {
        /// The reading, divided by the median of the others.
        factor: f64,
    },
    /// Most subjects are above what is normal: the cause is a common one, such as load.
    All {
        /// The median of all, divided by the normal value.
        factor: f64,
    },
}

/// Compares subjects of one kind by a reading of each, such as the latency of each member.
///
/// If all are slow, the cause is load and not a sick node; a healer that restarts one of them makes it worse.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Peers {
    factor: f64,
}

impl Peers {
    /// A comparison that finds a subject different from `factor` times the others on; 2 if it is not above 1.
    #[must_use]
    pub fn new(factor: f64) -> Peers {
        Peers { factor: if factor > 1.0 && factor.is_finite() { factor } else { 2.0 } }
    }

    /// Judges the subject at `place` in `readings`, of which each is positive. `normal` is the usual value of
    /// the kind. Readings that are not finite or not positive are left out, as are those beyond
    /// [`PEERS_MAX`].
    #[must_use]
    pub fn judge(&self, readings: &[f64], place: usize, normal: f64) -> PeersVerdict {
        let mut others = [0.0; PEERS_MAX];
        let mut count = 0;
        let mut own = None;
        for (index, reading) in readings.iter().enumerate().take(PEERS_MAX) {
            let Ok(log) = Scale::Log.of(*reading) else { continue };
            if index == place {
                own = Some(log);
            } else if let Some(slot) = others.get_mut(count) {
                *slot = log;
                count += 1;
            }
        }
        let (Some(own), Some(others), Ok(normal)) = (own, others.get_mut(..count), Scale::Log.of(normal))
        else {
            return PeersVerdict::TooFew;
        };
        if others.len() + 1 < PEERS_MIN {
            return PeersVerdict::TooFew;
        }
        // The median of the others: one more odd subject among them does not hide this one.
        let middle = median(others);
        let limit = self.factor.ln();
        if middle - normal >= limit && own - normal >= limit {
            return PeersVerdict::All { factor: (middle - normal).exp() };
        }
        if own - middle >= limit {
            return PeersVerdict::Alone { factor: (own - middle).exp() };
        }
        PeersVerdict::Alike
    }
}
