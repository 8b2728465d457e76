//! Lanes of a transport.

use std::fmt;

/// How a message travels to its peer. No lane waits for another, and no peer for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// May be lost, and may overtake. Never waits: where there is no room, the message is refused at once.
    Datagram,
    /// Arrives once, in the order it was sent among the messages of the same number, within one epoch.
    Ordered(u8),
    /// Arrives once, within one epoch, in no order. For long messages.
    Bulk,
}

impl fmt::Display for Lane {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lane::Datagram => formatter.write_str("datagram"),
            Lane::Ordered(number) => write!(formatter, "ordered {number}"),
            Lane::Bulk => formatter.write_str("bulk"),
        }
    }
}
