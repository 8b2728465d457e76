//! Marks of congestion.

/// The congestion mark of a datagram, as IP packets have it (RFC 3168 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Ecn {
    /// The sender does not react to marks.
    #[default]
    NotCapable,
    /// The sender reacts to marks, as it says by the codepoint ECT(1).
    Ect1,
    /// The sender reacts to marks, as it says by the codepoint ECT(0).
    Ect0,
    /// A node on the way had a queue.
    Congested,
}

impl Ecn {
    pub(super) fn bits(self) -> u8 {
        match self {
            Ecn::NotCapable => 0,
            Ecn::Ect1 => 1,
            Ecn::Ect0 => 2,
            Ecn::Congested => 3,
        }
    }

    /// From the lower two bits.
    pub(super) fn from_bits(bits: u8) -> Ecn {
        match bits & 3 {
            0 => Ecn::NotCapable,
            1 => Ecn::Ect1,
            2 => Ecn::Ect0,
            _ => Ecn::Congested,
        }
    }

    /// The mark behind a queue: only senders that react to it are notified.
    pub(super) fn behind_queue(self) -> Ecn {
        if self == Ecn::NotCapable { self } else { Ecn::Congested }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codepoints_survive_and_only_capable_senders_are_marked() {
        for bits in 0..4 {
            let ecn = Ecn::from_bits(bits);
            assert_eq!(ecn.bits(), bits);
            assert_eq!(ecn.behind_queue(), if bits == 0 { Ecn::NotCapable } else { Ecn::Congested });
        }
    }
}
