//! The parsers on texts and bytes, the choice of a backend, and every backend against links that the test
//! made.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

mod common;

use std::net::{IpAddr, Ipv4Addr};

use x0_ebpf::LinkStats;
use x0_ebpf::stats::{
    BackendKind, EbpfNotAttached, PassedOver, PeerCounters, ProcNetDevSource, ReadError, Refusal,
    RtnetlinkSource, StatsSource, fuzz, open, open_plain,
};

#[test]
fn the_best_backend_is_opened_and_the_reasons_are_kept() {
    let stats = open_plain().unwrap();
    let backend = stats.backend();
    let text = if cfg!(feature = "ebpf") {
        "not eBPF: no programs are attached"
    } else {
        "not eBPF: x0-ebpf was compiled without the feature `ebpf`"
    };
    assert_eq!(backend.passed_over()[0].kind, BackendKind::Ebpf);
    if cfg!(feature = "netlink") {
        assert_eq!(backend.kind(), BackendKind::Rtnetlink);
        assert_eq!(backend.passed_over().len(), 1);
    } else {
        assert_eq!(backend.kind(), BackendKind::ProcNetDev);
        let skipped = &backend.passed_over()[1];
        assert_eq!(skipped.kind, BackendKind::Rtnetlink);
        assert!(matches!(skipped.reason, Refusal::NotBuilt { feature: "netlink" }), "{skipped}");
        assert!(backend.to_string().contains("enable it in Cargo.toml"), "{backend}");
    }
    assert!(backend.to_string().contains(text), "{backend}");
}

#[test]
fn the_callers_order_holds() {
    let stats = open(&[&ProcNetDevSource, &RtnetlinkSource]).unwrap();
    assert_eq!(stats.backend().kind(), BackendKind::ProcNetDev);
    assert!(stats.backend().passed_over().is_empty());
}

#[test]
fn every_reason_is_reported_if_no_source_opens() {
    struct Broken;
    impl StatsSource for Broken {
        fn kind(&self) -> BackendKind {
            BackendKind::Rtnetlink
        }
        fn open(&self, passed_over: &[PassedOver]) -> Result<Box<dyn LinkStats>, Refusal> {
            assert_eq!(passed_over.len(), 1, "each source receives the refusals before it");
            Err(Refusal::kernel("open it", &std::io::Error::from_raw_os_error(97)))
        }
    }
    let Err(error) = open(&[&EbpfNotAttached, &Broken]) else { panic!("opened") };
    assert_eq!(error.passed_over.len(), 2);
    let text = error.to_string();
    assert!(
        text.contains("not eBPF:") && text.contains("not rtnetlink:") && text.contains("errno 97"),
        "{text}"
    );
    let Err(error) = open(&[]) else { panic!("opened") };
    assert!(error.to_string().ends_with("no source was given"), "{error}");
}

#[test]
fn proc_net_dev_knows_no_peers_and_says_so() {
    let mut stats = open(&[&ProcNetDevSource]).unwrap();
    let mut peers = vec![PeerCounters::new(IpAddr::V4(Ipv4Addr::LOCALHOST))];
    let error = stats.peers(&mut peers).unwrap_err();
    assert!(matches!(error, ReadError::NotCounted { kind: BackendKind::ProcNetDev, .. }));
    assert!(peers.is_empty());
}

/// Texts and bytes that were recorded, then changed, cut and spliced: nothing panics and nothing is made of
/// nothing.
#[test]
fn bytes_from_the_kernel_are_bounded() {
    let mut random = common::Random::new(common::seed());
    let text = std::fs::read("/proc/net/dev").unwrap();
    let recorded = [common::recorded::link(), common::recorded::connection()];
    let seeds = [vec![text, Vec::new(), vec![0; 64], vec![0xff; 256]], recorded.into()].concat();
    for _ in 0..20_000 {
        let bytes = random.mutated(&seeds);
        fuzz::proc_net_dev(&bytes);
        #[cfg(feature = "netlink")]
        fuzz::netlink(&bytes);
    }
}

#[cfg(feature = "testing")]
mod privileged {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;
    use x0_ebpf::stats::LinkCounters;
    use x0_ebpf::testing::{Frame, Generator, Namespace, Receiver, VethPair};

    fn find<'a>(links: &'a [LinkCounters], name: &str) -> &'a LinkCounters {
        links.iter().find(|link| link.name == name).unwrap_or_else(|| panic!("no {name} in {links:?}"))
    }

    fn read(stats: &mut dyn LinkStats) -> Vec<LinkCounters> {
        let mut links = vec![LinkCounters::new(None, "left over")];
        stats.links(&mut links).unwrap();
        links
    }

    #[test]
    fn a_backend_stays_in_the_namespace_in_which_it_was_opened() {
        let Some(namespace) = common::namespace() else { return };
        let other = Namespace::new().unwrap();
        let pair = VethPair::new(&namespace, &other).unwrap();
        for source in [&RtnetlinkSource as &(dyn StatsSource + Sync), &ProcNetDevSource] {
            let mut stats = namespace.run(|| source.open(&[])).unwrap().unwrap();
            // Read by a thread that is in the machine's own namespace.
            let links = read(&mut *stats);
            let mut names: Vec<_> = links.iter().map(|link| link.name.as_str()).collect();
            names.sort_unstable();
            assert_eq!(names, ["lo", pair.left().name()], "{:?}", source.kind());
        }
    }

    #[test]
    fn a_link_that_goes_is_gone_and_indices_are_the_kernels() {
        let Some(namespace) = common::namespace() else { return };
        let mut stats = namespace.run(|| RtnetlinkSource.open(&[])).unwrap().unwrap();
        let pair = VethPair::new(&namespace, &namespace).unwrap();
        let links = read(&mut *stats);
        assert_eq!(links.len(), 3);
        assert_eq!(find(&links, pair.left().name()).index, Some(pair.left().index()));
        assert_eq!(find(&links, "lo").index, Some(1));
        drop(pair);
        assert_eq!(read(&mut *stats).len(), 1);
    }

    #[test]
    fn a_frame_for_a_link_that_is_down_is_not_received() {
        let Some(here) = common::namespace() else { return };
        let there = Namespace::new().unwrap();
        let mut pair = VethPair::new(&here, &there).unwrap();
        let mut generator = Generator::open(&here, pair.left()).unwrap();
        let mut receiver = Receiver::open(&there, pair.right()).unwrap();
        let frame = Frame::between(pair.left(), pair.right()).build();
        let patience = Duration::from_secs(5);
        generator.send_counted(&mut receiver, 10, patience, |_| frame.clone()).unwrap();
        pair.cut().unwrap();
        let mut stats = there.run(|| RtnetlinkSource.open(&[])).unwrap().unwrap();
        let before = find(&read(&mut *stats), pair.right().name()).rx;
        let _ = generator.send(&frame);
        let after = find(&read(&mut *stats), pair.right().name()).rx;
        // The packet may count as dropped there: the wire is part of the machine.
        assert_eq!((after.packets, after.bytes), (before.packets, before.bytes));
        pair.mend().unwrap();
        // A packet socket reports once that its link was down.
        assert!(receiver.receive().is_err());
        generator.send_counted(&mut receiver, 10, patience, |_| frame.clone()).unwrap();
        assert_eq!(receiver.counted().packets, 20);
    }

    #[test]
    fn tcp_tells_the_round_trip_and_what_was_sent_again() {
        let Some(here) = common::namespace() else { return };
        let there = Namespace::new().unwrap();
        let mut pair = VethPair::new(&here, &there).unwrap();
        pair.assign_addresses().unwrap();
        let address = (pair.right().address(), 4000);
        let listener = there.run(|| TcpListener::bind(address)).unwrap().unwrap();
        let mut near = here.run(|| TcpStream::connect(address)).unwrap().unwrap();
        let mut other = here.run(|| TcpStream::connect(address)).unwrap().unwrap();
        let (mut far, _) = listener.accept().unwrap();
        near.write_all(&[1; 1000]).unwrap();
        other.write_all(&[1; 1]).unwrap();
        far.read_exact(&mut [0; 1000]).unwrap();
        far.write_all(&[2; 300]).unwrap();
        near.read_exact(&mut [0; 300]).unwrap();

        let mut stats = here.run(|| RtnetlinkSource.open(&[])).unwrap().unwrap();
        let mut peers = Vec::new();
        // An acknowledgement may still be on its way.
        let (address, tcp) = common::until(|| {
            stats.peers(&mut peers).unwrap();
            let [peer] = peers[..] else { panic!("one peer: {peers:?}") };
            let tcp = peer.tcp.expect("asked");
            (tcp.bytes_acknowledged >= 1001).then_some((peer.address, tcp))
        });
        assert_eq!(address, IpAddr::V4(pair.right().address()));
        assert_eq!((tcp.connections, tcp.bytes_received, tcp.retransmits), (2, 300, 0));
        let rtt = tcp.rtt.expect("measured");
        assert!(rtt > Duration::ZERO && rtt < Duration::from_secs(1), "{rtt:?}");

        pair.cut().unwrap();
        near.write_all(&[3; 100]).unwrap();
        common::until(|| {
            stats.peers(&mut peers).unwrap();
            peers[0].tcp.filter(|tcp| tcp.retransmits > 0)
        });
        pair.mend().unwrap();
        far.read_exact(&mut [0; 100]).unwrap();
    }

    #[test]
    fn a_namespace_and_its_links_end_with_their_owner_also_by_a_panic() {
        let Some(outer) = common::namespace() else { return };
        let mut stats = outer.run(|| RtnetlinkSource.open(&[])).unwrap().unwrap();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let inner = Namespace::new().unwrap();
            let _pair = VethPair::new(&outer, &inner).unwrap();
            inner.run(|| panic!("from a task")).unwrap();
        }));
        assert_eq!(*panicked.unwrap_err().downcast::<&str>().unwrap(), "from a task");
        assert_eq!(read(&mut *stats).len(), 1, "the loopback link only");
    }
}
