//! A million packets over a veth pair: every backend says the same number, and the same bytes once headers
//! are explained.
#![cfg(feature = "testing")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

mod common;

use std::time::Duration;

use x0_ebpf::LinkStats;
use x0_ebpf::stats::{DirectionCounters, ProcNetDevSource, RtnetlinkSource, StatsSource};
use x0_ebpf::testing::{Counted, Frame, Generator, Namespace, Receiver, VethEnd, VethPair};

const PATIENCE: Duration = Duration::from_secs(20);

/// A million, or `X0_PACKETS`: an emulated machine takes its time.
fn packets() -> u64 {
    std::env::var("X0_PACKETS").map_or(1_000_000, |packets| packets.parse().expect("X0_PACKETS is a number"))
}

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
        generator.send_counted(&mut receiver, packets(), PATIENCE, build).unwrap();
        assert_eq!(receiver.counted(), generator.counted());
        assert_eq!(generator.counted().packets, packets());
        generator.counted()
    }

    /// The counts of the backends at both ends, sent at the left and received at the right.
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

/// The packets that went out and that came in.
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

#[cfg(feature = "ebpf")]
mod ebpf {
    use super::*;
    use x0_ebpf::stats::{BackendKind, EbpfSource, Refusal, open};
    use x0_ebpf::{
        AttachError, AttachMode, AttachPolicy, InterfaceCounters, LinkOptions, LinkProgram, Point,
    };

    const ETHERNET_LEN: u64 = 14;

    fn program() -> LinkProgram {
        LinkProgram::load(LinkOptions::default()).unwrap()
    }

    fn agree(counted: InterfaceCounters, sent: Counted) {
        assert_eq!((counted.packets, counted.bytes), (sent.packets, sent.bytes));
        assert_eq!((counted.dropped(), counted.broken), (0, 0));
    }

    #[test]
    fn tc_agrees_with_the_wire_in_both_directions() {
        let Some(wire) = Wire::new() else { return };
        let (mut out, mut into) = (program(), program());
        let (left, right) = (wire.pair.left().name(), wire.pair.right().name());
        wire.here.run(|| out.attach_tc(left, Point::Egress)).unwrap().unwrap();
        wire.there.run(|| into.attach_tc(right, Point::Ingress)).unwrap().unwrap();
        let sent = wire.carry();
        agree(out.interface(left, Point::Egress).unwrap(), sent);
        agree(into.interface(right, Point::Ingress).unwrap(), sent);
        for (name, tx, rx) in wire.counted() {
            assert_eq!((tx.packets, tx.bytes), (sent.packets, sent.bytes), "{name}, sent");
            assert_eq!((rx.packets, rx.bytes), (sent.packets, sent.bytes), "{name}, received");
        }
    }

    #[test]
    fn generic_xdp_agrees_with_the_wire() {
        let Some(wire) = Wire::new() else { return };
        let mut program = program();
        let right = wire.pair.right().name();
        let attached = wire.there.run(|| program.attach_xdp(right, AttachPolicy::Generic)).unwrap().unwrap();
        assert_eq!(attached.mode, Some(AttachMode::Generic));
        let sent = wire.carry();
        agree(program.interface(right, Point::Xdp).unwrap(), sent);
        for (name, tx, rx) in wire.counted() {
            assert_eq!((tx.packets, tx.bytes), (sent.packets, sent.bytes), "{name}, sent");
            assert_eq!((rx.packets, rx.bytes), (sent.packets, sent.bytes), "{name}, received");
        }
    }

    /// With a program in the driver the veth link itself counts what it receives after its Ethernet header is
    /// gone.
    #[test]
    fn native_xdp_agrees_with_the_wire_and_the_link_counts_without_the_header() {
        let Some(wire) = Wire::new() else { return };
        let mut program = program();
        let right = wire.pair.right().name();
        let attached = wire.there.run(|| program.attach_xdp(right, AttachPolicy::Native)).unwrap().unwrap();
        assert_eq!(attached.mode, Some(AttachMode::Native));
        let sent = wire.carry();
        agree(program.interface(right, Point::Xdp).unwrap(), sent);
        for (name, tx, rx) in wire.counted() {
            println!("{name}: {tx:?} {rx:?}, sent {sent:?}");
            let headless = sent.bytes - sent.packets * ETHERNET_LEN;
            assert_eq!((rx.packets, rx.bytes), (sent.packets, headless), "{name}, received");
            assert_eq!((tx.packets, tx.bytes), (sent.packets, headless), "{name}, sent");
        }
    }

    /// The same through the seam that an application uses, peers with them.
    #[test]
    fn the_backend_agrees_with_the_wire_by_link_and_by_peer() {
        let Some(wire) = Wire::new() else { return };
        let (left, right) = (wire.pair.left(), wire.pair.right());
        let open = |namespace: &Namespace, end: &VethEnd| {
            let source = EbpfSource::new([end.name()]);
            namespace.run(|| open(&[&source, &RtnetlinkSource])).unwrap().unwrap()
        };
        let (mut here, mut there) = (open(&wire.here, left), open(&wire.there, right));
        assert_eq!((here.backend().kind(), here.backend().passed_over().len()), (BackendKind::Ebpf, 0));
        let sent = wire.carry();
        let (mut links, mut peers) = (Vec::new(), Vec::new());
        for (stats, end, far, sends) in [(&mut here, left, right, true), (&mut there, right, left, false)] {
            stats.links(&mut links).unwrap();
            let [link] = &links[..] else { panic!("one link: {links:?}") };
            assert_eq!((link.name.as_str(), link.index), (end.name(), Some(end.index())));
            stats.peers(&mut peers).unwrap();
            let [peer] = peers[..] else { panic!("one peer: {peers:?}") };
            assert_eq!(peer.address, far.address());
            let (link, peer, quiet) = if sends {
                (link.tx, peer.tx.unwrap(), link.rx)
            } else {
                (link.rx, peer.rx.unwrap(), link.tx)
            };
            for counted in [link, peer] {
                assert_eq!((counted.packets, counted.bytes), (sent.packets, sent.bytes));
                assert_eq!((counted.errors, counted.drops), (0, 0));
            }
            assert_eq!(quiet, DirectionCounters::default());
        }
    }

    #[test]
    fn a_missing_link_is_a_reason_to_skip_the_source() {
        let Some(namespace) = common::namespace() else { return };
        let source = EbpfSource::new(["x0-none"]);
        let stats = namespace.run(|| open(&[&source, &ProcNetDevSource])).unwrap().unwrap();
        assert_eq!(stats.backend().kind(), BackendKind::ProcNetDev);
        assert!(
            stats.backend().to_string().contains("there is no interface `x0-none`"),
            "{}",
            stats.backend()
        );
        let [passed] = stats.backend().passed_over() else { panic!("{:?}", stats.backend()) };
        assert!(
            matches!(&passed.reason, Refusal::Attach(error) if matches!(**error, AttachError::NoInterface(_))),
            "{passed}"
        );
    }
}
