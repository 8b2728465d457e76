//! The router alone: links, sessions, bounds, errors. Networks are in `tests/fabric.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use x0_identity::NodeId;
use x0_mesh::router::{
    ForwardError, HandleError, Input, LinkCost, LinkId, MessageError, Output, Packet, Report, Route,
    RouteKind, Router, RouterOptions,
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn node(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

/// Routers whose links deliver at once, unless they are muted.
struct Net {
    now: Duration,
    routers: Vec<Router>,
    /// Both ends, by position.
    links: Vec<(usize, usize)>,
    muted: Vec<bool>,
    messages: usize,
    reports: Vec<Report>,
}

impl Net {
    fn new(options: impl IntoIterator<Item = RouterOptions>) -> Net {
        let routers = options
            .into_iter()
            .zip(1..)
            .map(|(options, number)| Router::new(node(number), options))
            .collect();
        let (links, muted, reports) = (Vec::new(), Vec::new(), Vec::new());
        Net { now: SECOND, routers, links, muted, messages: 0, reports }
    }

    fn line(count: u64) -> Net {
        let mut net = Net::new((0..count).map(RouterOptions::new));
        for at in 1..usize::try_from(count).unwrap() {
            net.join(at - 1, at, LinkCost::new(100));
        }
        net.settle();
        net
    }

    fn join(&mut self, one: usize, other: usize, cost: LinkCost) -> LinkId {
        let link = LinkId(u32::try_from(self.links.len()).unwrap());
        self.links.push((one, other));
        self.muted.push(false);
        self.up(link, cost);
        link
    }

    fn up(&mut self, link: LinkId, cost: LinkCost) {
        let (one, other) = self.links[link.0 as usize];
        for (at, to) in [(one, other), (other, one)] {
            let peer = self.routers[to].local();
            self.routers[at].handle(self.now, Input::LinkUp { link, peer, cost }).unwrap();
        }
    }

    fn down(&mut self, link: LinkId) {
        let (one, other) = self.links[link.0 as usize];
        for at in [one, other] {
            self.routers[at].handle(self.now, Input::LinkDown { link }).unwrap();
        }
    }

    fn exchange(&mut self) {
        let mut is_busy = true;
        while std::mem::take(&mut is_busy) {
            for at in 0..self.routers.len() {
                while let Some(output) = self.routers[at].poll_output() {
                    is_busy = true;
                    match output {
                        Output::Send { link, message, .. } => {
                            self.messages += 1;
                            let (one, other) = self.links[link.0 as usize];
                            let to = if one == at { other } else { one };
                            if !self.muted[link.0 as usize] {
                                let _ = self.routers[to]
                                    .handle(self.now, Input::Message { link, message: &message });
                            }
                        }
                        Output::Report(report) => self.reports.push(report),
                        _ => {}
                    }
                }
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            self.exchange();
            let next = self.routers.iter().filter_map(Router::poll_timeout).min().unwrap_or(until);
            if next >= until {
                self.now = until;
                return;
            }
            self.now = self.now.max(next);
            for router in &mut self.routers {
                router.handle(self.now, Input::Timeout).unwrap();
            }
        }
    }

    fn settle(&mut self) {
        self.run(2 * SECOND);
    }

    fn route(&self, from: usize, to: usize) -> Option<Route> {
        self.routers[from].route(self.routers[to].local())
    }
}

fn packet(destination: NodeId) -> Packet {
    Packet { destination, from: None, bound: None }
}

#[test]
fn links_that_cannot_be_used_are_refused() {
    let mut router = Router::new(node(1), RouterOptions::new(0).limits(10, 1));
    let cost = LinkCost::new(1);
    let link = LinkId(3);
    let up = |link, number| Input::LinkUp { link, peer: node(number), cost };
    assert_eq!(router.local(), node(1));
    assert_eq!(router.handle(MS, up(link, 1)), Err(HandleError::LinkToSelf { link }));
    let unknown = Err(HandleError::UnknownLink { link });
    assert_eq!(router.handle(MS, Input::LinkDown { link }), unknown);
    assert_eq!(router.handle(MS, Input::LinkDegraded { link }), unknown);
    assert_eq!(router.handle(MS, Input::Message { link, message: &[] }), unknown);
    for number in 0..8 {
        router.handle(MS, up(LinkId(number), 2)).unwrap();
    }
    let what = "links to one neighbour";
    let full = HandleError::Full { link: LinkId(9), peer: node(2), what, limit: 8 };
    assert_eq!(router.handle(MS, up(LinkId(9), 2)), Err(full));
    let full = HandleError::Full { link: LinkId(9), peer: node(3), what: "neighbours", limit: 1 };
    assert_eq!(router.handle(MS, up(LinkId(9), 3)), Err(full));
    assert_eq!(router.stats().neighbours, 1);
    // Another node answers on the last link of a neighbour.
    for number in 1..8 {
        router.handle(MS, Input::LinkDown { link: LinkId(number) }).unwrap();
    }
    router.handle(MS, up(LinkId(0), 3)).unwrap();
    assert_eq!(router.stats().neighbours, 1);
    let error = router.handle(MS, Input::Message { link: LinkId(0), message: &[9] }).unwrap_err();
    assert_eq!(error, HandleError::Message { peer: node(3), source: MessageError::Version { version: 9 } });
    assert_eq!(router.stats().refused_messages, 2);
    assert!(error.to_string().contains("0000000000000003"));
}

/// A neighbour that claims to be at no distance from another node, or at some distance from itself.
#[test]
fn impossible_metrics_are_refused() {
    let mut router = Router::new(node(1), RouterOptions::new(0));
    let link = LinkId(0);
    router.handle(MS, Input::LinkUp { link, peer: node(2), cost: LinkCost::new(1) }).unwrap();
    for (destination, metric) in [(3_u8, 0_u8), (2, 5)] {
        let mut message = vec![1, 1, 7, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
        // An update of one byte each for node and sequence number.
        message.extend_from_slice(&[1, 0, destination, 1, metric]);
        let refused = router.handle(MS, Input::Message { link, message: &message });
        let destination = node(u64::from(destination));
        let metric = u32::from(metric);
        assert_eq!(refused, Err(HandleError::FalseMetric { peer: node(2), destination, metric }));
    }
    assert_eq!(router.routes().count(), 0);
}

#[test]
fn routes_carry_price_region_and_distance() {
    let relay = |price| Some(LinkCost::new(5).price(price));
    let mut net = Net::new([
        RouterOptions::new(1),
        RouterOptions::new(2).relay(relay(3)),
        RouterOptions::new(3).region(77),
    ]);
    net.join(0, 1, LinkCost::new(100).price(10).mtu(1400));
    let second = net.join(1, 2, LinkCost::new(200).price(20).mtu(1300));
    net.settle();
    let route = net.route(0, 2).unwrap();
    assert_eq!((route.next, route.distance.metric, route.price, route.region), (node(2), 305, 33, 77));
    assert_eq!((route.kind, route.backups), (RouteKind::Feasible, 0));
    // The least of both links; and it follows a change of either.
    assert_eq!((route.mtu, net.route(2, 0).unwrap().mtu), (1300, 1300));
    assert_eq!(net.route(1, 0).unwrap().mtu, 1400);
    let hop = net.routers[0].forward(&packet(node(3))).unwrap();
    assert_eq!((hop.peer, hop.bound, hop.price, hop.mtu), (node(2), None, 33, 1400));
    net.up(second, LinkCost::new(200).price(20).mtu(1200));
    net.settle();
    assert_eq!(net.route(0, 2).unwrap().mtu, 1200);
    let missing = net.routers[0].forward(&packet(node(9)));
    assert_eq!(missing, Err(ForwardError::NoRoute { destination: node(9) }));
    let bounded = Packet { bound: Some(1), ..packet(node(3)) };
    let refused = net.routers[0].forward(&bounded);
    assert_eq!(refused, Err(ForwardError::Bound { destination: node(3), bound: 1 }));
    assert_eq!(net.routers[0].routes().count(), 2);
}

/// A neighbour refuses a message with an MTU of 0, and with it all that the message says.
#[test]
fn a_link_with_an_mtu_of_zero_counts_as_one_byte() {
    let mut net = Net::new((0..3).map(RouterOptions::new));
    net.join(0, 1, LinkCost::new(100));
    let mut cost = LinkCost::new(100);
    cost.mtu = 0;
    net.join(1, 2, cost);
    net.settle();
    assert_eq!(net.route(0, 2).map(|route| route.mtu), Some(1));
    assert!(net.routers.iter().all(|router| router.stats().refused_messages == 0));
}

#[test]
fn a_node_that_does_not_relay_offers_itself_only() {
    let mut net = Net::new([RouterOptions::new(1), RouterOptions::new(2).relay(None), RouterOptions::new(3)]);
    net.join(0, 1, LinkCost::new(1));
    net.join(1, 2, LinkCost::new(1));
    net.settle();
    assert!(net.route(0, 1).is_some());
    assert_eq!(net.route(0, 2), None);
    assert!(net.route(1, 2).is_some());
}

/// Two ways from 0 to 3: over 1, which is cheaper, and over 2. The link of 0 to 1, that of 1 to 3, and the
/// net.
fn diamond() -> (Net, LinkId, LinkId) {
    let mut net = Net::new((0..4).map(RouterOptions::new));
    let near = net.join(0, 1, LinkCost::new(100));
    let far = net.join(1, 3, LinkCost::new(100));
    net.join(0, 2, LinkCost::new(200));
    net.join(2, 3, LinkCost::new(200));
    net.settle();
    assert_eq!(net.route(0, 3).unwrap().next, node(2));
    (net, near, far)
}

#[test]
fn failovers_are_counted_by_the_failure() {
    let counts = |net: &Net| {
        let stats = net.routers[0].stats();
        (stats.failovers.link_down, stats.failovers.link_degraded, stats.failovers.withdrawn)
    };
    // A link fails: node 1 itself and node 3 get another next hop.
    let (mut net, near, _) = diamond();
    let changes = net.routers[0].stats().route_changes;
    assert_eq!((changes, counts(&net)), (3, (0, 0, 0)));
    net.down(near);
    net.settle();
    assert_eq!((net.routers[0].stats().route_changes, counts(&net)), (changes + 2, (2, 0, 0)));
    // The link comes back: both routes are better over it, which is no failover.
    net.up(near, LinkCost::new(100));
    net.run(120 * SECOND);
    assert_eq!(net.route(0, 3).unwrap().next, node(2));
    assert_eq!(counts(&net), (2, 0, 0));
    // A link loses frames.
    let (mut net, near, _) = diamond();
    net.routers[0].handle(net.now, Input::LinkDegraded { link: near }).unwrap();
    net.settle();
    assert_eq!(counts(&net), (0, 2, 0));
    // The next hop lost its own way.
    let (mut net, _, far) = diamond();
    net.down(far);
    net.settle();
    assert_eq!((net.route(0, 3).unwrap().next, counts(&net)), (node(3), (0, 0, 1)));
}

#[test]
fn a_calm_router_has_no_timer() {
    let mut net = Net::line(3);
    net.run(10 * SECOND);
    let messages = net.messages;
    net.run(100 * SECOND);
    assert_eq!(net.messages, messages);
    assert!(net.routers.iter().all(|router| router.poll_timeout().is_none()));
}

#[test]
fn lost_messages_are_sent_again_and_less_and_less_often() {
    let mut net = Net::line(2);
    net.muted[0] = true;
    // A third node appears behind the second.
    net.routers.push(Router::new(node(3), RouterOptions::new(3)));
    net.join(1, 2, LinkCost::new(1));
    net.run(10 * SECOND);
    let sent = net.routers[1].stats().retransmissions;
    assert!((8..25).contains(&sent), "{sent}");
    assert_eq!(net.route(0, 2), None);
    net.muted[0] = false;
    net.run(2 * SECOND);
    assert!(net.route(0, 2).is_some());
}

#[test]
fn the_best_of_several_links_is_used() {
    let mut net = Net::new((0..2).map(RouterOptions::new));
    let slow = net.join(0, 1, LinkCost::new(300));
    let fast = net.join(0, 1, LinkCost::new(100));
    net.settle();
    let link = |net: &Net| net.routers[0].forward(&packet(node(2))).unwrap().link;
    assert_eq!(link(&net), fast);
    net.routers[0].handle(net.now, Input::LinkDegraded { link: fast }).unwrap();
    assert_eq!(link(&net), slow);
    net.up(fast, LinkCost::new(100));
    assert_eq!(link(&net), fast);
    let session = net.routers[0].session(node(2));
    net.down(fast);
    assert_eq!(link(&net), slow);
    // The session does not depend on a single link.
    assert_eq!(net.routers[0].session(node(2)), session);
    assert!(session.is_some());
}

/// After three failures in a short time a link costs more, and a while later it does not.
#[test]
fn a_link_that_fails_repeatedly_is_a_last_resort() {
    let mut net = Net::new((0..3).map(RouterOptions::new));
    let flapping = net.join(0, 1, LinkCost::new(100));
    net.join(1, 2, LinkCost::new(100));
    net.join(0, 2, LinkCost::new(100));
    net.settle();
    assert_eq!(net.route(0, 1).unwrap().next, node(2));
    for _ in 0..3 {
        net.down(flapping);
        net.run(100 * MS);
        assert_eq!(net.route(0, 1).unwrap().next, node(3));
        net.up(flapping, LinkCost::new(100));
        net.run(100 * MS);
    }
    assert_eq!(net.route(0, 1).unwrap().next, node(3));
    net.run(60 * SECOND);
    assert_eq!(net.route(0, 1).unwrap().next, node(2));
}

#[test]
fn damping_can_be_switched_off() {
    let mut net = Net::new((0..2).map(|seed| RouterOptions::new(seed).damping(false)));
    let flapping = net.join(0, 1, LinkCost::new(100));
    for _ in 0..5 {
        net.down(flapping);
        net.up(flapping, LinkCost::new(100));
        net.run(100 * MS);
    }
    assert_eq!(net.route(0, 1).unwrap().distance.metric, 100);
}

#[test]
fn a_full_table_ignores_and_reports() {
    let mut net = Net::new([
        RouterOptions::new(1).limits(3, 8),
        RouterOptions::new(2),
        RouterOptions::new(3),
        RouterOptions::new(4),
        RouterOptions::new(5),
    ]);
    for at in 1..5 {
        net.join(at - 1, at, LinkCost::new(1));
    }
    net.settle();
    let stats = net.routers[0].stats();
    assert_eq!((stats.destinations, stats.ignored_destinations >= 2), (3, true));
    let full = |report: &&Report| matches!(report, Report::TableFull { destinations_max: 3, .. });
    assert_eq!(net.reports.iter().filter(full).count(), 1);
    assert_eq!(net.routers[4].stats().destinations, 5);
}

/// A node that restarts with a sequence number below its old one is routed to within a second.
#[test]
fn a_node_catches_up_with_its_old_sequence_number() {
    let mut net = Net::new([RouterOptions::new(1), RouterOptions::new(2), RouterOptions::new(3).seqno(5000)]);
    net.join(0, 1, LinkCost::new(1));
    let last = net.join(1, 2, LinkCost::new(1));
    net.settle();
    assert_eq!(net.route(0, 2).unwrap().distance.seqno, 5000);
    net.down(last);
    net.routers[2] = Router::new(node(3), RouterOptions::new(99).seqno(7));
    net.run(SECOND);
    net.up(last, LinkCost::new(1));
    net.run(SECOND);
    let route = net.route(0, 2).unwrap();
    assert_eq!(route.kind, RouteKind::Feasible);
    assert!(route.distance.seqno > 5000, "{route:?}");
}

/// A node whose clock is lost begins at 1 while its neighbours remember seconds since 2020. The number is no
/// forgery, however late the node finds its first neighbour.
#[test]
fn a_node_without_a_clock_catches_up_with_the_seconds_of_its_old_one() {
    for alone in [Duration::ZERO, 30 * SECOND, 3600 * SECOND] {
        for old in [218_000_000, RouterOptions::SEQNO_LIMIT, u32::MAX] {
            let mut net =
                Net::new([RouterOptions::new(1), RouterOptions::new(2), RouterOptions::new(3).seqno(old)]);
            net.join(0, 1, LinkCost::new(1));
            let last = net.join(1, 2, LinkCost::new(1));
            net.settle();
            let old = old.min(RouterOptions::SEQNO_LIMIT);
            assert_eq!(net.route(0, 2).unwrap().distance.seqno, old);
            net.down(last);
            let mut router = Router::new(node(3), RouterOptions::new(99).seqno(1));
            // The neighbours are not notified of the time that passes for it.
            router.handle(net.now, Input::Timeout).unwrap();
            net.now += alone;
            net.routers[2] = router;
            net.up(last, LinkCost::new(1));
            net.run(SECOND);
            let route = net.route(0, 2).unwrap();
            assert_eq!(route.kind, RouteKind::Feasible, "{old} after {alone:?}");
            assert!(route.distance.seqno > old, "{route:?}");
            assert!(net.reports.is_empty(), "{:?}", net.reports);
        }
    }
}

/// Later a number that this node never used is a forgery, and so is one at any time that leaves no room for
/// newer ones: the node does not take it over.
#[test]
fn forged_sequence_numbers_do_not_use_up_those_of_a_node() {
    for (old, age, is_taken) in [
        (218_000_000, Duration::ZERO, true),
        (218_000_000, 61 * SECOND, false),
        (3_500_000_000, Duration::ZERO, false),
        (u32::MAX, Duration::ZERO, false),
    ] {
        let mut net = Net::new([RouterOptions::new(1), RouterOptions::new(2)]);
        net.join(0, 1, LinkCost::new(1));
        net.run(age + 200 * MS);
        let (link, session) = (LinkId(0), net.routers[1].session(node(1)).unwrap());
        // Version 1 with a number, no acknowledgements, and one update of node 1.
        let mut message = vec![1, 1];
        for field in [session.local, session.remote, 1 << 20] {
            message.extend(field.to_le_bytes());
        }
        // Four bytes of the sequence number; the metric is 9.
        message.extend([0, 1, 3 << 3, 1]);
        message.extend(u32::to_le_bytes(old));
        message.push(9);
        net.routers[0].handle(net.now, Input::Message { link, message: &message }).unwrap();
        net.run(SECOND);
        let own = net.route(1, 0).unwrap().distance.seqno;
        assert_eq!(own > old, is_taken, "{own} after {old}");
        let is_forged =
            |report: &Report| matches!(report, Report::ForgedSeqno { seqno, .. } if *seqno == old);
        assert_eq!(net.reports.iter().any(is_forged), !is_taken, "{:?}", net.reports);
        assert_eq!(net.routers[0].stats().forged_seqnos > 0, !is_taken);
        if !is_taken {
            assert!(own < 100, "{own}");
        }
    }
}

/// Two nodes that both forget each other, at any point of the handshake, find into one session.
#[test]
fn sessions_recover_from_one_sided_restarts() {
    let mut net = Net::line(2);
    for round in 0..6_u64 {
        let at = usize::try_from(round % 2).unwrap();
        let local = node(round % 2 + 1);
        let peer = node(2 - round % 2);
        net.routers[at] =
            Router::new(local, RouterOptions::new(100 + round).seqno(10 + u32::try_from(round).unwrap()));
        let cost = LinkCost::new(100);
        net.routers[at].handle(net.now, Input::LinkUp { link: LinkId(0), peer, cost }).unwrap();
        net.run(SECOND);
        let [one, other] = [0, 1].map(|at: usize| net.routers[at].session(node(2 - at as u64)).unwrap());
        assert_eq!((one.local, one.remote), (other.remote, other.local), "round {round}");
        assert_eq!(net.route(at, 1 - at).unwrap().kind, RouteKind::Feasible);
    }
}

/// Random and mutated messages into a running router.
#[test]
fn hostile_messages_change_nothing_that_is_not_theirs() {
    let mut net = Net::line(3);
    let mut random = 1_u64;
    let mut next = move || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        random >> 33
    };
    for _ in 0..20_000 {
        let len = usize::try_from(next() % 64).unwrap();
        let mut message: Vec<u8> = (0..len).map(|_| u8::try_from(next() % 256).unwrap()).collect();
        if let Some(version) = message.first_mut() {
            *version = 1;
        }
        let _ = net.routers[1].handle(net.now, Input::Message { link: LinkId(0), message: &message });
        while net.routers[1].poll_output().is_some() {}
    }
    let stats = net.routers[1].stats();
    assert!(stats.refused_messages > 10_000);
    assert_eq!(net.route(1, 2).unwrap().next, node(3));
}
