//! How long the programs take, by test runs: printed, and held to the promised ratio.
//!
//! `cargo test --release -p x0-ebpf --all-features --test speed -- --ignored --nocapture`
#![cfg(all(feature = "ebpf", feature = "testing"))]
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::cast_possible_truncation)]

mod common;
mod kernel;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU64;

use common::Random;
use kernel::{load, udp4, udp6};
use x0_ebpf::testing::{LookupBench, LookupTable, Runner};
use x0_ebpf::{Action, LinkOptions, LinkProgram, PeerBy, Point, Prefix, Rate, Source};

/// The least of `rounds` interleaved with the empty program; both in nanoseconds.
fn measure(empty: &Runner, program: &Runner, packet: &[u8], rounds: u32) -> (u32, u32) {
    let (mut without, mut with) = (u32::MAX, u32::MAX);
    for _ in 0..rounds {
        without = without.min(empty.run(packet, 300_000).expect("a run").duration_ns);
        with = with.min(program.run(packet, 300_000).expect("a run").duration_ns);
    }
    (without, with)
}

fn line(name: &str, program: &mut LinkProgram, point: Point, packet: &[u8]) -> f64 {
    let empty = program.runner_empty().expect("a runner");
    let runner = program.runner(point).expect("a runner");
    let (without, with) = measure(&empty, &runner, packet, 7);
    let ratio = f64::from(with) / f64::from(without);
    println!("{name:<52} {with:>4} ns   empty {without:>3} ns   {ratio:.2} times");
    ratio
}

fn prefix(random: &mut Random, v6: bool, length: u8) -> Prefix {
    let bits = u128::from(random.next()) << 64 | u128::from(random.next());
    let address: IpAddr = if v6 {
        Ipv6Addr::from_bits(bits & u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)).into()
    } else {
        Ipv4Addr::from_bits(bits as u32 & u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)).into()
    };
    Prefix::new(address, length).expect("no host bits")
}

/// As many different prefixes of a few lengths, as block lists have them.
fn prefixes(random: &mut Random, v6: bool, count: usize) -> Vec<Prefix> {
    let lengths: &[u8] = if v6 { &[32, 48, 56, 64, 128] } else { &[16, 20, 22, 24, 32] };
    let mut all = BTreeSet::new();
    while all.len() < count {
        // Few of the short ones, or they cover everything.
        let length =
            if random.below(100) == 0 { lengths[random.below(3)] } else { lengths[3 + random.below(2)] };
        all.insert(prefix(random, v6, length));
    }
    all.into_iter().collect()
}

#[test]
#[ignore = "measures; run it alone and in release"]
fn the_link_program() {
    let Some(mut program) = load(LinkOptions::default()) else { return };
    let (v4, v6) = (udp4(0x0a00_0001, 1, 64), udp6(0x2001_0db8 << 96 | 1, 1, 84));
    let full = line("link: counters, peers, filter without rules, IPv4", &mut program, Point::Xdp, &v4);
    line("the same, IPv6", &mut program, Point::Xdp, &v6);
    let mut filter = program.filter().expect("a filter");
    for text in ["192.0.2.0/24", "198.51.100.0/24", "203.0.113.7/32", "2001:db8:1::/48"] {
        filter.insert(Source::Network(text.parse().expect("a prefix")), Action::Drop).expect("a rule");
    }
    let ruled = line("link with 4 rules that miss, IPv4", &mut program, Point::Xdp, &v4);
    line("the same, IPv6", &mut program, Point::Xdp, &v6);
    line("the same, blocked by a /24", &mut program, Point::Xdp, &udp4(0xc000_0201, 1, 64));
    let mut program =
        load(LinkOptions { peer_by: PeerBy::Nothing, ..LinkOptions::default() }).expect("loaded before");
    let mut filter = program.filter().expect("a filter");
    filter.insert(Source::Network("192.0.2.0/24".parse().expect("a prefix")), Action::Drop).expect("a rule");
    line("no peers: blocked by a /24", &mut program, Point::Xdp, &udp4(0xc000_0201, 1, 64));
    line("no peers: passed", &mut program, Point::Xdp, &v4);
    let mut program =
        load(LinkOptions { rules_max: 100_000, ..LinkOptions::default() }).expect("loaded before");
    let mut random = Random::new(common::seed());
    let rules = prefixes(&mut random, false, 100_000);
    let start = std::time::Instant::now();
    program
        .filter()
        .expect("a filter")
        .insert_all(rules.iter().map(|prefix| (Source::Network(*prefix), Action::Drop)))
        .expect("rules");
    println!("inserting 100000 rules took {:?}", start.elapsed());
    line("link with 100000 rules, one address again and again", &mut program, Point::Xdp, &v4);
    let mut program = load(LinkOptions { flows_max: 1024, ..LinkOptions::default() }).expect("loaded before");
    line("link with the flow table", &mut program, Point::Xdp, &v4);
    let mut program = load(LinkOptions { peer_rate: true, ..LinkOptions::default() }).expect("loaded before");
    program
        .set_peer_rate(Some(
            Rate::packets(NonZeroU64::new(1_000_000_000).expect("not 0"), 1000).expect("a rate"),
        ))
        .expect("set");
    line("link with a rate per peer", &mut program, Point::Xdp, &v4);
    assert!(full <= 3.0 && ruled <= 3.0, "the promise is 3 times: {full}, {ruled}");
}

#[test]
#[ignore = "measures; run it alone and in release"]
fn look_ups() {
    if load(LinkOptions::default()).is_none() {
        return;
    }
    let mut random = Random::new(common::seed());
    for v6 in [false, true] {
        for count in [1000, 10_000, 100_000] {
            let table = prefixes(&mut random, v6, count);
            let mut bench = LookupBench::new(&table).expect("a bench");
            let hits: Vec<IpAddr> = (0..65_536).map(|_| table[random.below(table.len())].address()).collect();
            let misses: Vec<IpAddr> = (0..65_536)
                .map(|_| {
                    let length = if v6 { 128 } else { 32 };
                    prefix(&mut random, v6, length).address()
                })
                .collect();
            for (name, addresses) in [("hit", &hits), ("random", &misses)] {
                let ours = bench.measure(LookupTable::Rules, addresses).expect("a measurement");
                let trie = bench.measure(LookupTable::KernelTrie, addresses).expect("a measurement");
                assert!((ours.found - trie.found).abs() < 1e-9, "{ours:?} and {trie:?} differ");
                println!(
                    "IPv{} {count:>6} prefixes, {name:<6} (found {:>5.1} %): ours {:>6.1} ns, kernel's trie {:>6.1} ns",
                    if v6 { 6 } else { 4 },
                    ours.found * 100.0,
                    ours.nanoseconds,
                    trie.nanoseconds
                );
            }
        }
    }
}

#[test]
#[ignore = "measures; run it alone and in release"]
fn a_snapshot() {
    if load(LinkOptions::default()).is_none() {
        return;
    }
    let times = x0_ebpf::testing::measure_snapshot(50_000).expect("a measurement");
    let ratio = times.iterator.as_secs_f64() / times.batches.as_secs_f64();
    println!(
        "{} entries: batches {:?}, aya's iterator {:?}, {ratio:.1} times",
        times.entries, times.batches, times.iterator
    );
    assert!(ratio >= 5.0, "the promise is 5 times");
}
