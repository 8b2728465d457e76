//! The link program on single packets: what it counts, and what the filter decides.
#![cfg(all(feature = "ebpf", feature = "testing"))]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::cast_possible_truncation
)]

mod kernel;

use std::net::Ipv4Addr;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use kernel::{load, udp4, udp6};
use x0_ebpf::testing::Verdict;
use x0_ebpf::{Action, FilterError, LinkOptions, LinkProgram, LoadError, Peer, Point, Prefix, Rate, Source};

fn network(text: &str) -> Source {
    Source::Network(text.parse::<Prefix>().expect("a prefix"))
}

fn v4(text: &str) -> u32 {
    text.parse::<Ipv4Addr>().expect("an address").to_bits()
}

fn v6(text: &str) -> u128 {
    text.parse::<std::net::Ipv6Addr>().expect("an address").to_bits()
}

#[test]
fn counts_interfaces_and_peers() {
    let Some(mut program) = load(LinkOptions::default()) else { return };
    for point in [Point::Xdp, Point::Ingress, Point::Egress] {
        let runner = program.runner(point).expect("a runner");
        let run = runner.run(&udp4(v4("10.0.0.1"), v4("10.0.0.2"), 100), 3).expect("a run");
        assert_eq!(run.verdict, Verdict::Pass);
        let counters = program.runner_counters(point).expect("counters");
        assert_eq!((counters.packets, counters.bytes, counters.dropped()), (3, 300, 0), "{point:?}");
    }
    let peers = program.peers().expect("peers");
    let came = peers[&Peer::Address("10.0.0.1".parse().expect("an address"))];
    let went = peers[&Peer::Address("10.0.0.2".parse().expect("an address"))];
    // XDP and TC ingress both ran, and each counts: the documentation says to attach one of them.
    assert_eq!((came.rx_packets, came.rx_bytes, came.tx_packets), (6, 600, 0));
    assert_eq!((went.rx_packets, went.tx_packets, went.tx_bytes), (0, 3, 300));
    assert_eq!(peers.len(), 2);
}

#[test]
fn the_longest_prefix_decides() {
    let Some(mut program) = load(LinkOptions::default()) else { return };
    let xdp = program.runner(Point::Xdp).expect("a runner");
    let tc = program.runner(Point::Ingress).expect("a runner");
    let check = |source: u32, expect: Verdict| {
        let packet = udp4(source, 1, 60);
        assert_eq!(xdp.run(&packet, 1).expect("a run").verdict, expect, "{}", Ipv4Addr::from(source));
        assert_eq!(tc.run(&packet, 1).expect("a run").verdict, expect, "{}", Ipv4Addr::from(source));
    };
    let check6 = |source: u128, expect: Verdict| {
        let packet = udp6(source, 1, 80);
        assert_eq!(xdp.run(&packet, 1).expect("a run").verdict, expect, "{source:x}");
        assert_eq!(tc.run(&packet, 1).expect("a run").verdict, expect, "{source:x}");
    };
    check(v4("10.1.2.3"), Verdict::Pass);
    {
        let mut filter = program.filter().expect("a filter");
        filter.insert(network("10.0.0.0/8"), Action::Drop).expect("a rule");
        filter.insert(network("10.1.0.0/16"), Action::Pass).expect("a rule");
        filter.insert(network("10.1.2.3"), Action::Drop).expect("a rule");
        filter.insert(network("2001:db8::/32"), Action::Drop).expect("a rule");
        filter.insert(network("2001:db8:1::/48"), Action::Pass).expect("a rule");
        filter.insert(network("2001:db8:1::7"), Action::Drop).expect("a rule");
    }
    check(v4("10.1.2.3"), Verdict::Drop);
    check(v4("10.1.2.4"), Verdict::Pass);
    check(v4("10.2.0.0"), Verdict::Drop);
    check(v4("11.0.0.0"), Verdict::Pass);
    check6(v6("2001:db8::1"), Verdict::Drop);
    check6(v6("2001:db8:1::8"), Verdict::Pass);
    check6(v6("2001:db8:1::7"), Verdict::Drop);
    check6(v6("2001:db9::"), Verdict::Pass);
    {
        let mut filter = program.filter().expect("a filter");
        let counters = filter.counters(&network("10.1.2.3")).expect("counters").expect("a rule");
        assert_eq!((counters.packets, counters.bytes), (2, 120));
        assert!(filter.remove(&network("10.1.2.3")).expect("removed"));
        assert!(!filter.remove(&network("10.1.2.3")).expect("nothing to remove"));
        assert!(filter.remove(&network("10.1.0.0/16")).expect("removed"));
        assert!(filter.remove(&network("2001:db8:1::/48")).expect("removed"));
        // The default: everything that no rule covers.
        filter.insert(network("0.0.0.0/0"), Action::Drop).expect("a rule");
        filter.insert(network("::/0"), Action::Drop).expect("a rule");
        filter.insert(network("192.0.2.0/24"), Action::Pass).expect("a rule");
    }
    check(v4("10.1.2.3"), Verdict::Drop);
    check(v4("192.0.2.9"), Verdict::Pass);
    check(v4("198.51.100.1"), Verdict::Drop);
    check6(v6("2001:db8:1::8"), Verdict::Drop);
    check6(v6("fe80::1"), Verdict::Drop);
    let counters = program.runner_counters(Point::Xdp).expect("counters");
    assert_eq!(counters.dropped(), counters.dropped_rule);
    assert!(counters.dropped_bytes > 0);
}

#[test]
fn an_allow_list_drops_what_no_rule_covers_and_nothing_else() {
    let Some(mut program) = load(LinkOptions::default()) else { return };
    let runner = program.runner(Point::Xdp).expect("a runner");
    let mut filter = program.filter().expect("a filter");
    filter.insert(network("10.0.0.0/8"), Action::Pass).expect("a rule");
    filter.set_default_drop(true, false).expect("set");
    let arp = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], &[8, 6], &[0; 28]].concat();
    for (packet, expect) in [
        (udp4(v4("10.0.0.1"), 1, 60), Verdict::Pass),
        (udp4(v4("11.0.0.1"), 1, 60), Verdict::Drop),
        (udp6(v6("2001:db8::1"), 1, 80), Verdict::Pass),
        (arp, Verdict::Pass),
        // A truncated IPv4 header belongs to no peer and passes.
        (udp4(v4("11.0.0.1"), 1, 60)[..33].to_vec(), Verdict::Pass),
    ] {
        assert_eq!(runner.run(&packet, 1).expect("a run").verdict, expect, "{packet:x?}");
    }
    let counters = program.runner_counters(Point::Xdp).expect("counters");
    assert_eq!((counters.dropped_default, counters.broken), (1, 1));
}

#[test]
fn hardware_addresses_come_first() {
    let Some(mut program) = load(LinkOptions::default()) else { return };
    let runner = program.runner(Point::Xdp).expect("a runner");
    let mut filter = program.filter().expect("a filter");
    filter.insert(Source::Mac([2, 0, 0, 0, 0, 9]), Action::Drop).expect("a rule");
    filter.insert(network("10.0.0.0/8"), Action::Pass).expect("a rule");
    let mut packet = udp4(v4("10.0.0.1"), 1, 60);
    assert_eq!(runner.run(&packet, 1).expect("a run").verdict, Verdict::Pass);
    packet[11] = 9;
    assert_eq!(runner.run(&packet, 1).expect("a run").verdict, Verdict::Drop);
    assert_eq!(program.runner_counters(Point::Xdp).expect("counters").dropped_mac, 1);
}

#[test]
fn a_rate_lets_its_burst_pass_and_little_more() {
    let Some(mut program) = load(LinkOptions::default().peer_rate(true)) else { return };
    let runner = program.runner(Point::Xdp).expect("a runner");
    let second = NonZeroU64::new(1).expect("not zero");
    // One packet a second and ten saved up: within the microseconds of this test, ten pass.
    let rate = Rate::packets(second, 10).expect("a rate");
    program.filter().expect("a filter").insert(network("10.0.0.0/8"), Action::Limit(rate)).expect("a rule");
    runner.run(&udp4(v4("10.0.0.1"), 1, 60), 100).expect("a run");
    let counters = program.runner_counters(Point::Xdp).expect("counters");
    assert!((88..=90).contains(&counters.dropped_rate), "{counters:?}");
    // Another network is not touched, until every peer has a rate.
    runner.run(&udp4(v4("11.0.0.1"), 1, 60), 100).expect("a run");
    assert_eq!(program.runner_counters(Point::Xdp).expect("counters").dropped_rate, counters.dropped_rate);
    program
        .set_peer_rate(Some(Rate::bytes(NonZeroU64::new(8).expect("not zero"), 600).expect("a rate")))
        .expect("set");
    runner.run(&udp4(v4("11.0.0.1"), 1, 60), 100).expect("a run");
    let dropped = program.runner_counters(Point::Xdp).expect("counters").dropped_rate - counters.dropped_rate;
    assert!((88..=90).contains(&dropped), "{dropped} dropped");
    let peers = program.peers().expect("peers");
    let peer = peers[&Peer::Address("11.0.0.1".parse().expect("an address"))];
    assert_eq!((peer.rx_packets, peer.dropped_packets), (200, dropped));
}

#[test]
fn a_rate_saves_up_its_burst_and_no_more() {
    let Some(mut program) = load(LinkOptions::default()) else { return };
    let runner = program.runner(Point::Xdp).expect("a runner");
    let (per_second, burst) = (1000, 10);
    let rate = Rate::packets(NonZeroU64::new(per_second).expect("not zero"), burst).expect("a rate");
    program.filter().expect("a filter").insert(network("10.0.0.0/8"), Action::Limit(rate)).expect("a rule");
    let packet = udp4(v4("10.0.0.1"), 1, 60);
    let passed = |repeat: u32| {
        (0..repeat).filter(|_| runner.run(&packet, 1).expect("a run").verdict == Verdict::Pass).count() as u64
    };
    assert!(passed(100) >= burst);
    // Time for ten bursts, of which one is kept.
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(100) {
        std::hint::spin_loop();
    }
    let begin = Instant::now();
    let again = passed(50);
    let meanwhile = begin.elapsed().as_millis() as u64 * per_second / 1000 + 1;
    assert!((burst..=burst + meanwhile).contains(&again), "{again} passed, {meanwhile} of them meanwhile");
}

#[test]
fn bounds_are_named() {
    let Some(mut program) = load(LinkOptions::default().rules_max(2).limits_max(1)) else {
        return;
    };
    let mut filter = program.filter().expect("a filter");
    filter.insert(network("10.0.0.0/8"), Action::Drop).expect("a rule");
    filter.insert(network("11.0.0.0/8"), Action::Drop).expect("a rule");
    let full = filter.insert(network("12.0.0.0/8"), Action::Drop).expect_err("full");
    assert!(matches!(full, FilterError::Full { entries_max: 2, option: "rules_max" }), "{full}");
    // Changing what is there needs no room.
    filter.insert(network("11.0.0.0/8"), Action::Pass).expect("a change");
    assert_eq!(filter.rules().count(), 2);
    let Err(error) = LinkProgram::load(LinkOptions::default().peers_max(1)) else {
        panic!("peers_max 1 was taken");
    };
    assert!(error.to_string().contains("peers_max"), "{error}");
}

#[test]
fn flows_have_ports_and_bounds() {
    let mut program = match LinkProgram::load(LinkOptions::default().flows_max(64)) {
        Err(error @ (LoadError::Denied | LoadError::Perfmon { .. })) if std::env::var_os("CI").is_none() => {
            println!("not tested: {error}");
            return;
        }
        other => other.expect("loaded"),
    };
    let runner = program.runner(Point::Xdp).expect("a runner");
    runner.run(&udp4(v4("10.0.0.1"), v4("10.0.0.2"), 60), 5).expect("a run");
    let flows = program.flows().expect("flows");
    let (flow, counters) = flows.iter().next().expect("a flow");
    assert_eq!((flow.source_port, flow.target_port, flow.protocol), (4000, 5000, 17));
    assert_eq!((counters.packets, counters.bytes), (5, 300));
    assert!(counters.first_ns <= counters.last_ns && counters.first_ns > 0);
    for last in 0..2000 {
        runner.run(&udp4(v4("10.1.0.0") + last, 1, 60), 1).expect("a run");
    }
    // The kernel frees a few entries at a time, so a little less than the bound is in use.
    assert!(program.flows().expect("flows").len() <= 64);
}

#[test]
fn values_that_leave_the_cache_are_still_counted() {
    let Some(mut program) = load(LinkOptions::default().peers_max(1 << 16)) else {
        return;
    };
    let runner = program.runner(Point::Xdp).expect("a runner");
    // The cache holds 4096: most fall out in every round, and come back in the next.
    for _ in 0..4 {
        for peer in 0..10_000 {
            // Once: for repeated runs the kernel patches itself first, which takes milliseconds.
            runner.run(&udp4(v4("10.1.0.0") + peer, 1, 60), 1).expect("a run");
        }
    }
    let peers = program.peers().expect("peers");
    assert_eq!(peers.len(), 10_000);
    for (peer, counters) in peers {
        assert_eq!((counters.rx_packets, counters.rx_bytes), (4, 240), "{peer}");
    }
}

/// With CAP_BPF and CAP_NET_ADMIN alone, too:
/// `setpriv --bounding-set=-all,+bpf,+net_admin <this test's program>`.
#[test]
fn every_object_loads() {
    let Some(_program) = load(LinkOptions::default().peer_rate(true)) else { return };
    kernel::granted(x0_ebpf::Steering::load()).expect("loaded");
    kernel::granted(x0_ebpf::FaultInjector::load()).expect("loaded");
    match LinkProgram::load(LinkOptions::default().flows_max(64)) {
        Ok(_) => {}
        Err(error) => assert!(matches!(error, LoadError::Perfmon { option: "flows_max" }), "{error}"),
    }
}

#[test]
fn objects_have_a_provenance() {
    for object in x0_ebpf::Object::ALL {
        let provenance = object.provenance().expect("a line of the manifest");
        assert!(provenance.compiler.contains("clang"));
        assert_eq!((provenance.source_sha256.len(), provenance.object_sha256.len()), (64, 64));
    }
}
