//! Injected faults on a real link: as many as asked for, and the very ones that the seed says.
#![cfg(all(feature = "ebpf", feature = "testing"))]
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::cast_possible_truncation)]

mod common;
mod kernel;

use std::collections::BTreeMap;
use std::net::IpAddr;

use kernel::granted;
use x0_ebpf::testing::{Frame, Generator, Namespace, Receiver, VethPair};
use x0_ebpf::{Direction, Fault, FaultInjector, Outcome, Share};

struct Wire {
    here: Namespace,
    there: Namespace,
    pair: VethPair,
}

fn wire() -> Option<Wire> {
    let (here, there) = (common::namespace()?, common::namespace()?);
    let pair = VethPair::new(&here, &there).expect("a pair");
    Some(Wire { here, there, pair })
}

fn percent(percent: u32) -> Share {
    Share::percent(percent).expect("a share")
}

/// Sends numbered frames and hands each that arrives to `arrived`; waits for as many as the seed says will
/// come.
fn send(
    wire: &Wire,
    fault: Fault,
    source: Option<std::net::Ipv4Addr>,
    count: u64,
    mut arrived: impl FnMut(u64, &[u8]),
) {
    let mut generator = Generator::open(&wire.here, wire.pair.left()).expect("a generator");
    let mut receiver = Receiver::open(&wire.there, wire.pair.right()).expect("a receiver");
    let mut due = 0;
    for start in (0..count).step_by(64) {
        for number in start..count.min(start + 64) {
            let mut frame = Frame::between(wire.pair.left(), wire.pair.right()).number(number).len(100);
            if let Some(source) = source {
                frame = frame.source(source);
            }
            generator.send(&frame.build()).expect("sent");
            if let Outcome::Arrives { twice, .. } = fault.outcome(number, 100) {
                due += 1 + u64::from(twice);
            }
        }
        while receiver.counted().packets < due {
            let bytes = common::until(|| receiver.receive().expect("received").map(<[u8]>::to_vec));
            arrived(Frame::number_of(&bytes).expect("a number"), &bytes);
        }
    }
    // Nothing that should have been dropped follows: a frame with another protocol number of ours ends the
    // stream.
    assert_eq!(receiver.counted().packets, due);
    assert!(receiver.receive().expect("received").is_none(), "more arrived than the seed says");
}

/// The 99.9 % interval of a binomial share by its normal approximation, good for these counts.
fn inside(successes: u64, trials: u64, share: f64) -> bool {
    let (n, k) = (trials as f64, successes as f64);
    (k - n * share).abs() <= 3.2905 * (n * share * (1.0 - share)).sqrt()
}

#[test]
fn the_seed_names_the_lost_packets() {
    let Some(wire) = wire() else { return };
    let Some(mut injector) = granted(FaultInjector::load()) else { return };
    let name = wire.pair.right().name();
    wire.there.run(|| injector.attach(name, Direction::In)).expect("entered").expect("attached");
    let count = 20_000;
    for share in [1, 10, 30, 50] {
        let fault =
            Fault { seed: common::seed() + u64::from(share), loss: percent(share), ..Fault::default() };
        let mut runs = Vec::new();
        for _ in 0..2 {
            injector.set(Direction::In, None, fault).expect("set");
            let mut seen = Vec::new();
            send(&wire, fault, None, count, |number, _| seen.push(number));
            runs.push(seen);
        }
        let expect: Vec<u64> =
            (0..count).filter(|number| fault.outcome(*number, 100) != Outcome::Dropped).collect();
        assert_eq!(runs[0], expect, "at {share} %");
        assert_eq!(runs[1], expect, "at {share} %, again");
        let counters = injector.counters(Direction::In, None).expect("read").expect("set");
        assert_eq!((counters.packets, counters.dropped), (count, count - expect.len() as u64));
        println!("asked for {share} %: {} of {count} dropped, twice the same", counters.dropped);
        assert!(inside(counters.dropped, count, f64::from(share) / 100.0), "{counters:?}");
    }
}

#[test]
fn duplicates_and_flipped_bits_are_where_the_seed_says() {
    let Some(wire) = wire() else { return };
    let Some(mut injector) = granted(FaultInjector::load()) else { return };
    let name = wire.pair.right().name();
    wire.there.run(|| injector.attach(name, Direction::In)).expect("entered").expect("attached");
    let fault = Fault {
        seed: common::seed(),
        loss: percent(5),
        duplicate: percent(20),
        // Flipped bits may hit the number or the IP header: few enough that the test can still distinguish
        // frames.
        corrupt: percent(0),
        blackhole: false,
    };
    injector.set(Direction::In, None, fault).expect("set");
    let mut times: BTreeMap<u64, u32> = BTreeMap::new();
    send(&wire, fault, None, 5000, |number, _| *times.entry(number).or_default() += 1);
    for number in 0..5000 {
        let expect = match fault.outcome(number, 100) {
            Outcome::Arrives { twice, .. } => 1 + u32::from(twice),
            _ => 0,
        };
        assert_eq!(times.get(&number).copied().unwrap_or(0), expect, "packet {number}");
    }
    // A bit anywhere after the Ethernet header: compare with what was sent.
    let fault = Fault { seed: common::seed(), corrupt: percent(100), ..Fault::default() };
    injector.set(Direction::In, None, fault).expect("set");
    let mut next = 0;
    let mut flips = 0;
    send(&wire, fault, None, 5000, |_, bytes| {
        let sent = Frame::between(wire.pair.left(), wire.pair.right()).number(next).len(100).build();
        let Outcome::Arrives { flipped: Some(bit), .. } = fault.outcome(next, 100) else {
            panic!("not flipped")
        };
        let mut expect = sent;
        expect[(bit / 8) as usize] ^= 1 << (bit % 8);
        assert_eq!(bytes, expect, "packet {next}");
        next += 1;
        flips += 1;
    });
    let counters = injector.counters(Direction::In, None).expect("read").expect("set");
    assert_eq!((counters.packets, counters.corrupted, flips), (5000, 5000, 5000));
}

#[test]
fn faults_are_per_peer_and_direction() {
    let Some(wire) = wire() else { return };
    let Some(mut injector) = granted(FaultInjector::load()) else { return };
    let name = wire.pair.right().name();
    wire.there.run(|| injector.attach(name, Direction::In)).expect("entered").expect("attached");
    let (victim, other) =
        ("192.0.2.1".parse().expect("an address"), "192.0.2.2".parse().expect("an address"));
    let hole = Fault { blackhole: true, ..Fault::default() };
    injector.set(Direction::In, Some(IpAddr::V4(victim)), hole).expect("set");
    // The other direction has nothing to do with it.
    injector.set(Direction::Out, Some(IpAddr::V4(other)), hole).expect("set");
    send(&wire, hole, Some(victim), 100, |number, _| panic!("packet {number} arrived"));
    send(&wire, Fault::default(), Some(other), 100, |_, _| {});
    let counters = injector.counters(Direction::In, Some(IpAddr::V4(victim))).expect("read").expect("set");
    assert_eq!((counters.packets, counters.dropped), (100, 100));
    assert_eq!(injector.counters(Direction::In, Some(IpAddr::V4(other))).expect("read"), None);
    assert!(injector.lift(Direction::In, Some(IpAddr::V4(victim))).expect("lifted"));
    send(&wire, Fault::default(), Some(victim), 100, |_, _| {});
}

#[test]
fn a_drop_at_egress_is_silent() {
    let Some(wire) = wire() else { return };
    let Some(mut injector) = granted(FaultInjector::load()) else { return };
    let name = wire.pair.left().name();
    wire.here.run(|| injector.attach(name, Direction::Out)).expect("entered").expect("attached");
    let fault = Fault { seed: common::seed(), loss: percent(50), duplicate: percent(10), ..Fault::default() };
    injector.set(Direction::Out, Some(IpAddr::V4(wire.pair.right().address())), fault).expect("set");
    // `send` unwraps every send: a drop that the sender could see (ENOBUFS) would fail it.
    let mut seen = 0;
    send(&wire, fault, None, 2000, |_, _| seen += 1);
    assert!(seen > 500 && seen < 1500, "{seen}");
}
