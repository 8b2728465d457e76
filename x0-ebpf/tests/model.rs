//! The link program against a model of it, on random frames: truncated, tagged, fragmented, with chains of
//! headers, damaged.
//!
//! A short run by default; `X0_FRAMES=1000000 X0_SEED=... cargo test --release ... --test model` for a long
//! one.
#![cfg(all(feature = "ebpf", feature = "testing"))]
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::cast_possible_truncation)]

mod common;
mod kernel;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use common::Random;
use kernel::{load, udp4, udp6};
use x0_ebpf::testing::{Cause, Model, PACKET_LEN_MIN, Verdict};
use x0_ebpf::{Action, Flow, LinkOptions, LinkProgram, Peer, PeerBy, Point, Prefix, Source};

fn frames() -> u64 {
    std::env::var("X0_FRAMES").map_or(30_000, |count| count.parse().expect("X0_FRAMES is a number"))
}

/// Few different addresses, so that rules, peers and flows meet again and again.
fn v4(random: &mut Random) -> u32 {
    0x0a00_0000 | (random.below(4) as u32) << 16 | (random.below(4) as u32) << 8 | random.below(8) as u32
}

fn v6(random: &mut Random) -> u128 {
    match random.below(8) {
        // Mapped IPv4 in an IPv6 header is IPv6 to the rules.
        0 => Ipv4Addr::from_bits(v4(random)).to_ipv6_mapped().to_bits(),
        1 => random.below(3) as u128,
        _ => {
            0x2001_0db8 << 96
                | (random.below(3) as u128) << 80
                | (random.below(3) as u128) << 64
                | (random.below(3) as u128) << 63
                | random.below(4) as u128
        }
    }
}

fn protocol(random: &mut Random) -> u8 {
    [6, 17, 17, 1, 58, 132, 33, 136, 4, 255][random.below(10)]
}

fn ip4(random: &mut Random, out: &mut Vec<u8>) {
    let words = if random.below(4) == 0 { random.below(16) as u8 } else { 5 };
    let version = if random.below(40) == 0 { random.below(16) as u8 } else { 4 };
    let fragment: u16 = match random.below(6) {
        0 => random.next() as u16,
        1 => 0x2000,
        _ => 0,
    };
    out.extend([version << 4 | words, 0, 0, 60, 0, 0]);
    out.extend(fragment.to_be_bytes());
    out.extend([64, protocol(random), 0, 0]);
    out.extend(v4(random).to_be_bytes());
    out.extend(v4(random).to_be_bytes());
    out.resize(out.len() + usize::from(words.saturating_sub(5)) * 4, 7);
}

fn ip6(random: &mut Random, out: &mut Vec<u8>) {
    let version = if random.below(40) == 0 { random.below(16) as u8 } else { 6 };
    let chain: Vec<u8> = if random.below(2) == 0 {
        Vec::new()
    } else {
        (0..=random.below(8)).map(|_| [0, 43, 44, 51, 60][random.below(5)]).collect()
    };
    let last = if random.below(20) == 0 { 59 } else { protocol(random) };
    let mut kinds = chain.iter().copied().chain([last]);
    out.extend([version << 4, 0, 0, 0, 0, 60, kinds.next().expect("at least the last"), 64]);
    out.extend(v6(random).to_be_bytes());
    out.extend(v6(random).to_be_bytes());
    for (&kind, next) in chain.iter().zip(kinds) {
        let units = if random.below(10) == 0 { random.below(256) } else { random.below(3) } as u8;
        let len = match kind {
            44 => 8,
            51 => (usize::from(units) + 2) * 4,
            _ => (usize::from(units) + 1) * 8,
        };
        let begin = out.len();
        let offset: u16 = if random.below(3) == 0 { random.next() as u16 } else { 0 };
        out.extend([next, units]);
        out.extend(offset.to_be_bytes());
        // Longer headers than a frame holds are truncated below, like everything else.
        out.resize(begin + len.min(300), 0);
    }
}

fn frame(random: &mut Random) -> Vec<u8> {
    let mut out = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, random.below(5) as u8];
    let tags = if random.below(3) == 0 { random.below(7) } else { 0 };
    for _ in 0..tags {
        out.extend([[0x81, 0x00], [0x88, 0xa8]][random.below(2)]);
        out.extend([0, random.below(255) as u8]);
    }
    match random.below(20) {
        0 => out.extend([8, 6]),
        1 => out.extend((random.next() as u16).to_be_bytes()),
        2..=10 => {
            out.extend([8, 0]);
            ip4(random, &mut out);
        }
        _ => {
            out.extend([0x86, 0xdd]);
            ip6(random, &mut out);
        }
    }
    for _ in 0..20 {
        out.push(random.below(4) as u8);
    }
    if random.below(3) == 0 {
        out.truncate(random.below(out.len() + 1));
    }
    if random.below(8) == 0 {
        for _ in 0..=random.below(3) {
            let at = random.below(out.len());
            if let Some(byte) = out.get_mut(at) {
                *byte = random.next() as u8;
            }
        }
    }
    out.truncate(1500);
    out.resize(out.len().max(PACKET_LEN_MIN), 0);
    out
}

fn rules(random: &mut Random) -> Vec<(Source, Action)> {
    let action = |random: &mut Random| if random.below(2) == 0 { Action::Drop } else { Action::Pass };
    let mut rules = BTreeMap::new();
    for _ in 0..random.below(30) {
        let prefix = if random.below(2) == 0 {
            let length = [0, 8, 14, 15, 16, 23, 24, 30, 31, 32][random.below(10)];
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            Prefix::new(IpAddr::V4(Ipv4Addr::from_bits(v4(random) & mask)), length)
        } else {
            let length = [0, 1, 32, 47, 48, 63, 64, 65, 96, 127, 128][random.below(11)];
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            Prefix::new(IpAddr::V6(Ipv6Addr::from_bits(v6(random) & mask)), length)
        };
        rules.insert(Source::Network(prefix.expect("no host bits")), action(random));
    }
    for _ in 0..random.below(3) {
        rules.insert(Source::Mac([2, 0, 0, 0, 0, random.below(5) as u8]), action(random));
    }
    rules.into_iter().collect()
}

/// The counts that the model expects.
#[derive(Default, Debug, PartialEq, Eq)]
struct Expected {
    packets: u64,
    bytes: u64,
    rule: u64,
    default: u64,
    mac: u64,
    broken: u64,
    peers: BTreeMap<Peer, (u64, u64)>,
    flows: BTreeMap<Flow, u64>,
}

impl Expected {
    fn add(&mut self, model: &Model, frame: &[u8]) -> Verdict {
        let judgement = model.judge(frame);
        self.packets += 1;
        self.bytes += frame.len() as u64;
        self.broken += u64::from(judgement.broken);
        match judgement.dropped {
            Some(Cause::Rule) => self.rule += 1,
            Some(Cause::Default) => self.default += 1,
            Some(Cause::Mac) => self.mac += 1,
            None => {}
        }
        if let Some(peer) = judgement.peer {
            let entry = self.peers.entry(peer).or_default();
            entry.0 += 1;
            entry.1 += u64::from(judgement.dropped.is_some());
        }
        if let Some(flow) = judgement.flow {
            *self.flows.entry(flow).or_default() += 1;
        }
        if judgement.dropped.is_some() { Verdict::Drop } else { Verdict::Pass }
    }

    fn counted(program: &mut LinkProgram, point: Point) -> Self {
        let counters = program.runner_counters(point).expect("counters");
        let peers = if program.options().peer_by == PeerBy::Nothing {
            BTreeMap::new()
        } else {
            program.peers().expect("peers")
        };
        Self {
            packets: counters.packets,
            bytes: counters.bytes,
            rule: counters.dropped_rule,
            default: counters.dropped_default,
            mac: counters.dropped_mac,
            broken: counters.broken,
            peers: peers
                .into_iter()
                .map(|(peer, counters)| (peer, (counters.rx_packets, counters.dropped_packets)))
                .collect(),
            flows: program
                .flows()
                .expect("flows")
                .into_iter()
                .map(|(flow, counters)| (flow, counters.packets))
                .collect(),
        }
    }
}

/// Newer kernels make no packet of a cut IP header for a TC program; XDP programs get to see it.
fn not_run_at_tc(point: Point, frame: &[u8]) -> bool {
    let header = match frame[12..14] {
        [0x08, 0x00] => 20,
        [0x86, 0xdd] => 40,
        _ => 0,
    };
    point != Point::Xdp && frame.len() < 14 + header
}

/// Sets program and model up alike.
fn prepare(random: &mut Random, peer_by: PeerBy) -> Option<(LinkProgram, Model)> {
    let options = LinkOptions::default().peer_by(peer_by).peers_max(1 << 16).flows_max(1 << 18);
    let mut program = load(options)?;
    let model =
        Model { rules: rules(random), drop_v4: random.below(4) == 0, drop_v6: random.below(4) == 0, peer_by };
    let mut filter = program.filter().expect("a filter");
    filter.insert_all(model.rules.iter().copied()).expect("rules");
    filter.set_default_drop(model.drop_v4, model.drop_v6).expect("set");
    Some((program, model))
}

#[test]
fn program_and_model_agree_on_random_frames() {
    let rounds = 10;
    for round in 0..rounds {
        let mut random = Random::new(common::seed().wrapping_add(round));
        let peer_by = [PeerBy::Address, PeerBy::Mac, PeerBy::Nothing][random.below(3)];
        let point = [Point::Xdp, Point::Ingress][round as usize % 2];
        let Some((mut program, model)) = prepare(&mut random, peer_by) else { return };
        let runner = program.runner(point).expect("a runner");
        let mut expected = Expected::default();
        for number in 0..frames() / rounds {
            let frame = frame(&mut random);
            if not_run_at_tc(point, &frame) {
                continue;
            }
            let verdict = runner.run(&frame, 1).map(|run| run.verdict);
            let Ok(verdict) = verdict else {
                panic!("round {round}, frame {number}: {verdict:?} of {frame:x?}")
            };
            let expect = expected.add(&model, &frame);
            assert_eq!(
                verdict, expect,
                "round {round}, frame {number}, {point:?}: {frame:x?} with {model:?}"
            );
        }
        let counted = Expected::counted(&mut program, point);
        if counted != expected {
            for (flow, count) in &expected.flows {
                assert_eq!(counted.flows.get(flow), Some(count), "round {round}: {flow:?}");
            }
            assert_eq!(counted, expected, "round {round}");
        }
        println!(
            "round {round}, {point:?}, peers by {peer_by:?}: {} frames, {} dropped, {} broken, {} peers, {} flows: agreed",
            expected.packets,
            expected.rule + expected.default + expected.mac,
            expected.broken,
            expected.peers.len(),
            expected.flows.len()
        );
    }
}

#[test]
fn truncated_at_every_byte() {
    let mut random = Random::new(common::seed());
    let Some((mut program, model)) = prepare(&mut random, PeerBy::Address) else { return };
    let mut whole = vec![udp4(0x0a00_0001, 0x0a01_0002, 90), udp6(0x2001_0db8 << 96 | 1, 2, 110)];
    for tags in 1..=5 {
        let mut tagged = whole[tags % 2].clone();
        for _ in 0..tags {
            tagged.splice(12..12, [0x81, 0, 0, 5]);
        }
        whole.push(tagged);
    }
    // Every kind of IPv6 extension header, then UDP.
    let mut chain = udp6(0x2001_0db8 << 96 | 1, 2, 110);
    chain[20] = 0;
    chain.splice(
        54..54,
        [[60, 0, 0, 0, 0, 0, 0, 0], [43, 0, 0, 0, 0, 0, 0, 0], [44, 0, 0, 0, 0, 0, 0, 0]].concat(),
    );
    chain.splice(78..78, [51, 0, 0, 1, 0, 0, 0, 9, 17, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    whole.push(chain);
    let expected: &mut [Expected; 2] = &mut Default::default();
    for (point, expected) in [Point::Xdp, Point::Ingress].into_iter().zip(expected) {
        let runner = program.runner(point).expect("a runner");
        for frame in &whole {
            for len in PACKET_LEN_MIN..=frame.len() {
                if not_run_at_tc(point, &frame[..len]) {
                    continue;
                }
                let expect = expected.add(&model, &frame[..len]);
                let run = runner.run(&frame[..len], 1).expect("a run");
                assert_eq!(run.verdict, expect, "{point:?}: {:x?}", &frame[..len]);
                assert_eq!(run.packet, &frame[..len], "the program changed a frame");
            }
        }
        let counters = program.runner_counters(point).expect("counters");
        assert_eq!((counters.packets, counters.broken), (expected.packets, expected.broken));
    }
}

/// No malformed packet may be dropped, regardless of the rules: an allow list without rules drops only
/// packets that it can parse.
#[test]
fn frames_that_cannot_be_parsed_pass() {
    let Some(mut program) = load(LinkOptions::default()) else { return };
    program.filter().expect("a filter").set_default_drop(true, true).expect("set");
    let runner = program.runner(Point::Xdp).expect("a runner");
    let check = |frame: &[u8], expect: Verdict| {
        assert_eq!(runner.run(frame, 1).expect("a run").verdict, expect, "{frame:x?}");
    };
    let (v4, v6) = (udp4(1, 2, 60), udp6(1, 2, 80));
    for len in PACKET_LEN_MIN..=v4.len() {
        check(&v4[..len], if len < 34 { Verdict::Pass } else { Verdict::Drop });
    }
    for len in PACKET_LEN_MIN..=v6.len() {
        check(&v6[..len], if len < 54 { Verdict::Pass } else { Verdict::Drop });
    }
    for tags in 0..=6 {
        let mut tagged = v4.clone();
        for _ in 0..tags {
            tagged.splice(12..12, [0x88, 0xa8, 0, 5]);
        }
        check(&tagged, if tags <= 4 { Verdict::Drop } else { Verdict::Pass });
    }
    let with = |at: usize, byte: u8, frame: &[u8]| {
        let mut frame = frame.to_vec();
        frame[at] = byte;
        frame
    };
    check(&with(14, 0x44, &v4), Verdict::Pass); // a header of four words
    check(&with(14, 0x65, &v4), Verdict::Pass); // version 6 under the number of IPv4
    check(&with(14, 0x45, &v6), Verdict::Pass); // and the other way round
    check(&with(13, 0x06, &v4), Verdict::Pass); // ARP
}
