//! Fault injection: seeded loss, duplicates, flipped bits and black holes, per peer and direction.

use std::io;
use std::net::IpAddr;

use crate::attach::{AttachError, Held, Point, attach_tc, index_of};
use crate::counters::Peer;
use crate::object;
use crate::program::{LoadError, Loaded, Recipe};
use crate::sys::Map;

/// Peers with faults at once, per direction.
pub const FAULTS_MAX: usize = 1024;

/// The direction of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// Received from the peer. Drops happen at TC ingress and are silent.
    In,
    /// Sent to the peer. Drops happen at TC egress, where the sender sees success.
    Out,
}

/// A probability, in parts of a million.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Share(u32);

impl Share {
    /// Never.
    pub const NEVER: Self = Self(0);
    /// Always.
    pub const ALWAYS: Self = Self(1_000_000);

    /// `millionths` of all; `None` above one million.
    #[must_use]
    pub const fn millionths(millionths: u32) -> Option<Self> {
        if millionths <= 1_000_000 { Some(Self(millionths)) } else { None }
    }

    /// A share in percent; `None` above 100.
    #[must_use]
    pub const fn percent(percent: u32) -> Option<Self> {
        match percent.checked_mul(10_000) {
            Some(millionths) => Self::millionths(millionths),
            None => None,
        }
    }

    /// Out of 2^32, rounded.
    fn threshold(self) -> u64 {
        ((u64::from(self.0) << 32) + 500_000) / 1_000_000
    }
}

/// The faults of one peer in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fault {
    /// The same seed has the same effect on the n-th packet.
    pub seed: u64,
    /// The share of packets that are dropped.
    pub loss: Share,
    /// The share of the others that arrive twice.
    pub duplicate: Share,
    /// The share of the others in which one bit is flipped, anywhere after the Ethernet header.
    pub corrupt: Share,
    /// Drops every packet.
    pub blackhole: bool,
}

/// The effect on one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// The packet is dropped.
    Dropped,
    /// The packet arrives.
    Arrives {
        /// The bit that is flipped, counted from the packet's first byte, lowest bit first.
        flipped: Option<u64>,
        /// Whether it arrives twice.
        twice: bool,
    },
}

/// Position `number` of one stream of SplitMix64: `draw` of bpf/fault.bpf.c.
fn draw(seed: u64, number: u64, kind: u64) -> u64 {
    let mut z = (seed ^ kind.wrapping_mul(0xd134_2543_de82_ef95))
        .wrapping_add(number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

impl Fault {
    /// The effect on the packet with this number (from 0, per peer) and `len` bytes, including its Ethernet
    /// header.
    #[must_use]
    pub fn outcome(&self, number: u64, len: u64) -> Outcome {
        if self.blackhole || draw(self.seed, number, 1) >> 32 < self.loss.threshold() {
            return Outcome::Dropped;
        }
        let flipped = (draw(self.seed, number, 3) >> 32 < self.corrupt.threshold() && len > 14).then(|| {
            let place = draw(self.seed, number, 4);
            (14 + (place >> 8) % (len - 14)) * 8 + (place & 7)
        });
        let twice = draw(self.seed, number, 2) >> 32 < self.duplicate.threshold();
        Outcome::Arrives { flipped, twice }
    }

    fn encode(&self) -> [u8; 72] {
        let mut bytes = [0; 72];
        bytes[4..8].copy_from_slice(&u32::from(self.blackhole).to_ne_bytes());
        let words = [self.seed, self.loss.threshold(), self.duplicate.threshold(), self.corrupt.threshold()];
        for (slot, word) in bytes[8..40].chunks_exact_mut(8).zip(words) {
            slot.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }
}

/// The effects so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FaultCounters {
    /// Packets that the program has seen.
    pub packets: u64,
    /// Dropped.
    pub dropped: u64,
    /// Delivered twice.
    pub duplicated: u64,
    /// Delivered with a flipped bit.
    pub corrupted: u64,
}

/// The failure to set or remove a fault. All faults are unchanged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FaultError {
    /// Too many peers.
    #[error("{FAULTS_MAX} peers have faults in this direction, which is the maximum: lift some")]
    Full,
    /// The kernel refused the change.
    #[error("the kernel refused to read or change the faults, which are unchanged")]
    System(#[from] io::Error),
}

/// The fault program, at TC of each interface it is attached to.
///
/// The effect on a packet is a function of the peer's seed and of the number of earlier packets of that peer
/// on all interfaces. Where several CPUs receive from one peer, their order decides which packet is the n-th.
///
/// Delay is not implemented: it needs the `fq` queueing discipline and departure times at egress, and is
/// impossible at ingress. A flipped bit makes the receiver verify checksums again; a veth pair transfers
/// packets without checksums, so that the damage reaches the application.
///
/// A duplicate is made by sending the packet through the interface again with a mark (0x78306475) that is
/// removed later: the duplicate of a marked packet has no mark.
#[derive(Debug)]
pub struct FaultInjector {
    // Declared before `loaded`, so that attachments are dropped before their program.
    attached: Vec<(u32, Direction, Held)>,
    loaded: Loaded,
    faults_in: Map,
    faults_out: Map,
}

fn key_of(peer: Option<IpAddr>) -> [u8; 16] {
    let bits = peer.map_or(0, |address| Peer::Address(address).key());
    let (high, low) = crate::filter::halves(bits);
    let mut key = [0; 16];
    key[..8].copy_from_slice(&high.to_ne_bytes());
    key[8..].copy_from_slice(&low.to_ne_bytes());
    key
}

impl FaultInjector {
    /// Loads the program without attaching it.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load() -> Result<Self, LoadError> {
        let mut loaded = Loaded::new(object::FAULT, &Recipe::default())?;
        loaded.classifier("x0_fault_in")?;
        loaded.classifier("x0_fault_out")?;
        let (faults_in, faults_out) = (loaded.map("faults_in")?, loaded.map("faults_out")?);
        Ok(Self { attached: Vec::new(), loaded, faults_in, faults_out })
    }

    /// Attaches to an interface of this network namespace.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn attach(&mut self, interface: &str, direction: Direction) -> Result<(), AttachError> {
        let index = index_of(interface)?;
        if self.attached.iter().any(|(other, way, _)| (*other, *way) == (index, direction)) {
            return Err(AttachError::Already(interface.to_owned()));
        }
        let (name, point) = match direction {
            Direction::In => ("x0_fault_in", Point::Ingress),
            Direction::Out => ("x0_fault_out", Point::Egress),
        };
        let program = self.loaded.classifier(name)?;
        // At egress a filter rather than a TCX link: only a filter can drop a packet without ENOBUFS for the
        // sender.
        let link = attach_tc(program, interface, point, direction == Direction::Out)?;
        self.attached.push((index, direction, Held::Tc(link)));
        Ok(())
    }

    /// Detaches from an interface. Returns whether it was attached. Faults stay set for other interfaces.
    ///
    /// # Errors
    /// [`AttachError::NoInterface`].
    pub fn detach(&mut self, interface: &str, direction: Direction) -> Result<bool, AttachError> {
        let index = index_of(interface)?;
        let before = self.attached.len();
        self.attached.retain(|(other, way, _)| (*other, *way) != (index, direction));
        Ok(self.attached.len() < before)
    }

    fn map(&self, direction: Direction) -> &Map {
        match direction {
            Direction::In => &self.faults_in,
            Direction::Out => &self.faults_out,
        }
    }

    /// Sets the faults of `peer` from its next packet on, which is number 0. `None` stands for every peer
    /// without faults of its own and for packets that are not IP.
    ///
    /// # Errors
    /// [`FaultError`].
    pub fn set(
        &mut self,
        direction: Direction,
        peer: Option<IpAddr>,
        fault: Fault,
    ) -> Result<(), FaultError> {
        self.map(direction).update(&key_of(peer), &fault.encode()).map_err(|error| {
            match error.raw_os_error() {
                Some(libc::E2BIG | libc::ENOMEM) => FaultError::Full,
                _ => error.into(),
            }
        })
    }

    /// Removes the faults of `peer`. Returns whether it had any.
    ///
    /// # Errors
    /// [`FaultError::System`].
    pub fn lift(&mut self, direction: Direction, peer: Option<IpAddr>) -> Result<bool, FaultError> {
        Ok(self.map(direction).delete(&key_of(peer))?)
    }

    /// The effects on the packets of `peer` since its faults were set; `None` if it has none.
    ///
    /// # Errors
    /// [`FaultError::System`].
    pub fn counters(
        &self,
        direction: Direction,
        peer: Option<IpAddr>,
    ) -> Result<Option<FaultCounters>, FaultError> {
        let Some(value) = self.map(direction).lookup(&key_of(peer))? else { return Ok(None) };
        let [packets, dropped, duplicated, corrupted] = crate::counters::sum_words(&value, value.len(), 40);
        Ok(Some(FaultCounters { packets, dropped, duplicated, corrupted }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_exact_at_the_ends() {
        assert_eq!((Share::NEVER.threshold(), Share::ALWAYS.threshold()), (0, 1 << 32));
        assert_eq!(Share::percent(50).map(Share::threshold), Some(1 << 31));
        assert_eq!((Share::percent(101), Share::millionths(1_000_001)), (None, None));
        assert_eq!(Share::percent(u32::MAX), None);
    }

    #[test]
    fn streams_are_independent_and_seeded() {
        let percent = |percent| Share::percent(percent).expect("a share");
        let fault = Fault {
            seed: 1,
            loss: percent(30),
            duplicate: percent(30),
            corrupt: percent(30),
            blackhole: false,
        };
        let outcomes = |fault: Fault| (0..10_000).map(move |number| fault.outcome(number, 64));
        assert!(outcomes(fault).eq(outcomes(fault)));
        assert!(!outcomes(fault).eq(outcomes(Fault { seed: 2, ..fault })));
        let (mut dropped, mut flips, mut twices, mut both) = (0, 0, 0, 0);
        for outcome in outcomes(fault) {
            match outcome {
                Outcome::Dropped => dropped += 1,
                Outcome::Arrives { flipped, twice } => {
                    flips += i32::from(flipped.is_some());
                    twices += i32::from(twice);
                    both += i32::from(flipped.is_some() && twice);
                    assert!(flipped.is_none_or(|bit| (14 * 8..64 * 8).contains(&bit)));
                }
            }
        }
        // Within four standard deviations: 10,000 and then 7,000 trials at 30 %, and their product.
        assert!((2816..=3184).contains(&dropped), "{dropped}");
        assert!((1947..=2253).contains(&flips) && (1947..=2253).contains(&twices), "{flips} {twices}");
        assert!((534..=726).contains(&both), "{both}");
        assert!(outcomes(Fault { blackhole: true, ..fault }).all(|outcome| outcome == Outcome::Dropped));
    }
}
