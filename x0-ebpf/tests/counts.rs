//! A million packets over a veth pair: every backend says the same number, and the same bytes once headers are explained.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use x0_ebpf::LinkStats;
use x0_ebpf::stats::{DirectionCounters, ProcNetDevSource, RtnetlinkSource, StatsSource};
use x0_ebpf::testing::{Counted, Frame, Generator, Namespace, Receiver, VethEnd, VethPair};

const PACKETS: u64 = 1_000_000;
const PATIENCE: Duration = Duration::from_secs(20);

/// Two namespaces joined by a pair, and a million frames of all lengths from the left to the right.
struct Wire {
    here: Namespace,
    there: Namespace,
    pair: VethPair,
}

impl Wire {
    fn new() -> Option<Self> {
        let here = common::namespace()?;
        let there = Namespace::new().unwrap();
        let pair = VethPair::new(&here, &there).unwrap();
        Some(Self { here, there, pair })
    }

    /// Sends and receives them all; says what the sender knows to have sent.
    fn carry(&self) -> Counted {
        let mut generator = Generator::open(&self.here, self.pair.left()).unwrap();
        let mut receiver = Receiver::open(&self.there, self.pair.right()).unwrap();
        let frame = Frame::between(self.pair.left(), self.pair.right());
        let build = |number: u64| {
            // A step that has no divisor in common with the number of lengths: every length comes up.
            let len = 60 + usize::try_from(number * 97 % 1455).unwrap();
            frame.clone().number(number).len(len).build()
        };
        generator.send_counted(&mut receiver, PACKETS, PATIENCE, build).unwrap();
        assert_eq!(receiver.counted(), generator.counted());
        assert_eq!(generator.counted().packets, PACKETS);
        generator.counted()
    }

    /// What the backends say of both ends, sent at the left and received at the right.
    fn counted(&self) -> Vec<(&'static str, DirectionCounters, DirectionCounters)> {
        let sources: [&(dyn StatsSource + Sync); 2] = [&RtnetlinkSource, &ProcNetDevSource];
        sources
            .iter()
            .map(|source| {
                let name = source.kind().name();
                let tx = link(&self.here, *source, self.pair.left()).0;
                (name, tx, link(&self.there, *source, self.pair.right()).1)
            })
            .collect()
    }
}

/// What went out and what came in.
fn link(
    namespace: &Namespace,
    source: &(dyn StatsSource + Sync),
    end: &VethEnd,
) -> (DirectionCounters, DirectionCounters) {
    let mut stats: Box<dyn LinkStats> = namespace.run(|| source.open(&[])).unwrap().unwrap();
    let mut links = Vec::new();
    stats.links(&mut links).unwrap();
    let link = links.iter().find(|link| link.name == end.name()).unwrap();
    (link.tx, link.rx)
}

#[test]
fn the_kernels_counters_agree_with_the_wire_to_the_packet_and_to_the_byte() {
    let Some(wire) = Wire::new() else { return };
    let sent = wire.carry();
    for (name, tx, rx) in wire.counted() {
        println!("{name}: {tx:?} {rx:?}, sent {sent:?}");
        assert_eq!((tx.packets, tx.bytes), (sent.packets, sent.bytes), "{name}, sent");
        assert_eq!((rx.packets, rx.bytes), (sent.packets, sent.bytes), "{name}, received");
        assert_eq!((tx.errors, tx.drops, rx.errors, rx.drops), (0, 0, 0, 0), "{name}");
    }
}
