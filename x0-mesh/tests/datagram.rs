//! Nodes with datagrams over links in virtual time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BinaryHeap};
use std::net::SocketAddr;
use std::time::Duration;

use x0_identity::NodeId;
use x0_mesh::datagram::{
    Batch, DatagramError, DatagramOptions, Datagrams, Ecn, FrameKeys, HandleError, Input, Output, PortId,
    PortOptions,
};
use x0_mesh::liveness::LivenessState;
use x0_mesh::router::{LinkCost, Report, RouterOptions, Rtt, Throughput};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const PORT: PortId = PortId(0);
const MTU: usize = 1232;

fn node(number: usize) -> NodeId {
    NodeId::new(number as u64).unwrap()
}

fn address(number: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], u16::try_from(number).unwrap()))
}

/// A second address of a node: [`Net`] adds this to its number.
const OTHER: usize = 1000;

fn other_address(number: usize) -> SocketAddr {
    address(OTHER + number)
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Flying {
    at: std::cmp::Reverse<(Duration, u64)>,
    /// The second address if greater than [`OTHER`].
    from: usize,
    to: usize,
    frame: Vec<u8>,
}

/// Nodes are numbered from 1; each has one port, and frames take 1 ms.
struct Net {
    now: Duration,
    nodes: Vec<Datagrams>,
    flying: BinaryHeap<Flying>,
    sent: u64,
    sent_to: BTreeMap<usize, u64>,
    /// No frame passes from the first to the second.
    cut: BTreeMap<(usize, usize), bool>,
    /// Only control frames pass from the first to the second.
    swallowed: Option<(usize, usize)>,
    reports: Vec<(Duration, usize, Report)>,
    /// No longer frame passes from the first to the second.
    short: BTreeMap<(usize, usize), usize>,
    /// The frame with this number, from 0, from the first to the second is kept instead of being sent.
    watched: Option<(usize, usize, usize)>,
    caught: Option<Vec<u8>>,
    /// Where frames of a node come from, if not from its own address.
    moved: BTreeMap<usize, SocketAddr>,
    /// How long frames take between the first addresses of nodes.
    delay: Duration,
    /// The share of frames that are lost, in percent.
    loss: u64,
    random: u64,
    datagrams: Vec<(Duration, usize, NodeId, Vec<u8>)>,
    floods: Vec<(usize, NodeId, Vec<u8>)>,
    ended: usize,
    longest: usize,
    keys: u8,
}

impl Net {
    fn new(count: usize) -> Net {
        Net::with(count, |options| options)
    }

    fn with(count: usize, change: impl Fn(DatagramOptions) -> DatagramOptions) -> Net {
        let nodes = (1..=count).map(|number| {
            let mut node = Datagrams::new(node(number), change(DatagramOptions::new(number as u64)));
            node.add_port(PORT, PortOptions::new(MTU));
            node
        });
        Net {
            now: SECOND,
            nodes: nodes.collect(),
            flying: BinaryHeap::new(),
            sent: 0,
            sent_to: BTreeMap::new(),
            cut: BTreeMap::new(),
            swallowed: None,
            reports: Vec::new(),
            short: BTreeMap::new(),
            watched: None,
            caught: None,
            moved: BTreeMap::new(),
            delay: MS,
            loss: 0,
            random: 7,
            datagrams: Vec::new(),
            floods: Vec::new(),
            ended: 0,
            longest: 0,
            keys: 0,
        }
    }

    fn ring(count: usize) -> Net {
        let mut net = Net::new(count);
        for number in 1..=count {
            net.join(number, number % count + 1);
        }
        net.run(SECOND);
        net
    }

    fn line(count: usize) -> Net {
        let mut net = Net::new(count);
        for number in 1..count {
            net.join(number, number + 1);
        }
        net.run(SECOND);
        net
    }

    /// Of the first two.
    fn other(&self, node: &Datagrams) -> NodeId {
        let at = usize::from(node.local() == self.nodes[0].local());
        self.nodes[at].local()
    }

    /// As after a handshake in which the first one was the client.
    fn join(&mut self, one: usize, other: usize) {
        self.keys += 1;
        let mut material = [self.keys; FrameKeys::MATERIAL_LEN];
        material[0] = 1;
        self.key(one, other, &material, true);
        // A neighbour beyond the last node never answers.
        if other <= self.nodes.len() {
            self.key(other, one, &material, false);
        }
    }

    fn key(&mut self, at: usize, peer: usize, material: &[u8; FrameKeys::MATERIAL_LEN], is_client: bool) {
        let keys = FrameKeys::new(material, is_client);
        let input = Input::Keyed { port: PORT, peer: node(peer), number: 0, address: address(peer), keys };
        self.nodes[at - 1].handle(self.now, input).unwrap();
    }

    /// As after a handshake between the first two at their other addresses.
    fn join_again(&mut self) {
        let number = self.nodes[0].link_number(PORT, node(2), other_address(2)).unwrap();
        self.join_as(number, other_address);
    }

    /// As after a handshake between the first two at these addresses, in which the first one was the client.
    fn join_as(&mut self, number: u8, address: fn(usize) -> SocketAddr) {
        self.keys += 1;
        let mut material = [self.keys; FrameKeys::MATERIAL_LEN];
        material[0] = 1;
        for (at, peer) in [(1, 2), (2, 1)] {
            let keys = FrameKeys::new(&material, at == 1);
            let address = address(peer);
            let input = Input::Keyed { port: PORT, peer: node(peer), number, address, keys };
            self.nodes[at - 1].handle(self.now, input).unwrap();
        }
    }

    /// The links of the first node to the second one: address, state, and whether the path takes it.
    fn links(&self) -> Vec<(SocketAddr, LivenessState, bool)> {
        let used = self.nodes[0].path(node(2)).filter(|path| path.next == node(2)).map(|path| path.link);
        let links = self.nodes[0].links().filter(|link| link.peer == node(2));
        links.map(|link| (link.address, link.state, used == Some(link.link))).collect()
    }

    fn cut(&mut self, one: usize, other: usize, is_cut: bool) {
        self.cut.insert((one, other), is_cut);
        self.cut.insert((other, one), is_cut);
    }

    fn collect(&mut self) {
        for number in 1..=self.nodes.len() {
            while let Some(output) = self.nodes[number - 1].poll_output() {
                match output {
                    Output::Transmit { port, to, frames } => {
                        assert_eq!(port, PORT);
                        let to = usize::from(to.port());
                        let from = if to > OTHER { OTHER + number } else { number };
                        frames.items().for_each(|frame| self.fly(from, to, frame));
                    }
                    Output::Datagrams { source, payloads, .. } => {
                        let payloads = payloads.items().map(<[u8]>::to_vec);
                        self.datagrams.extend(payloads.map(|payload| (self.now, number, source, payload)));
                    }
                    Output::Report(report) => self.reports.push((self.now, number, report)),
                    Output::Flood { origin, payload } => self.floods.push((number, origin, payload)),
                    Output::LinkChanged { reason: None, .. } => self.ended += 1,
                    _ => {}
                }
            }
        }
    }

    fn fly(&mut self, from: usize, to: usize, frame: &[u8]) {
        self.sent += 1;
        *self.sent_to.entry(to).or_default() += 1;
        self.longest = self.longest.max(frame.len());
        if let Some((.., left)) = self.watched.as_mut().filter(|(one, two, _)| (*one, *two) == (from, to)) {
            let Some(next) = left.checked_sub(1) else {
                self.watched = None;
                self.caught = Some(frame.to_vec());
                return;
            };
            *left = next;
        }
        // See the wire format.
        if self.swallowed == Some((from, to)) && frame[0] != 0x10 {
            return;
        }
        let is_short = self.short.get(&(from, to)).is_some_and(|len| frame.len() > *len);
        // Knuth's MMIX; the upper bits are the better ones.
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let is_lost = (self.random >> 33) % 100 < self.loss;
        if !is_short && !is_lost && !self.cut.get(&(from, to)).copied().unwrap_or(false) {
            let delay = if to > OTHER { MS } else { self.delay };
            let at = std::cmp::Reverse((self.now + delay, self.sent));
            self.flying.push(Flying { at, from, to, frame: frame.to_vec() });
        }
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        // Rounds at one moment: a wake-up that changes nothing would be due again at once, for ever.
        let mut rounds = 0;
        loop {
            self.collect();
            let frame = self.flying.peek().map(|flying| flying.at.0.0);
            let timeout = self.nodes.iter().filter_map(Datagrams::poll_timeout).min();
            let next = frame.into_iter().chain(timeout).min().unwrap_or(until);
            if next > until {
                self.now = until;
                return;
            }
            rounds = if next > self.now { 0 } else { rounds + 1 };
            assert!(rounds < 1000, "the nodes want to be woken at {next:?} again and again");
            self.now = self.now.max(next);
            while let Some(flying) = self.flying.peek().filter(|flying| flying.at.0.0 <= self.now) {
                let (from, to) = (flying.from, flying.to);
                let mut frame = self.flying.pop().unwrap().frame;
                let from = self.moved.get(&from).copied().unwrap_or(address(from));
                let Some(node) = self.nodes.get_mut(to % OTHER - 1) else { continue };
                node.handle(self.now, Input::Frame { port: PORT, from, frame: &mut frame }).unwrap();
            }
            for node in &mut self.nodes {
                if node.poll_timeout().is_some_and(|at| at <= self.now) {
                    node.handle(self.now, Input::Timeout).unwrap();
                }
            }
        }
    }

    fn send(&mut self, from: usize, to: usize, payload: &[u8]) -> Result<(), DatagramError> {
        self.nodes[from - 1].send(self.now, node(to), payload)
    }

    /// Sends a datagram each millisecond; the longest pause between two that arrive.
    fn gap(&mut self, from: usize, to: usize, time: Duration) -> Duration {
        self.datagrams.clear();
        let (begin, until) = (self.now, self.now + time);
        while self.now < until {
            let _ = self.send(from, to, &[7; 100]);
            self.run(MS);
        }
        let times = self.datagrams.iter().filter(|(_, at, ..)| *at == to).map(|(at, ..)| *at);
        let all: Vec<Duration> = std::iter::once(begin).chain(times).chain(std::iter::once(until)).collect();
        all.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap()
    }
}

/// The batches of datagrams that a node sends, and the neighbours that they go to. Control frames are short.
fn batches(node: &mut Datagrams) -> Vec<(SocketAddr, Batch)> {
    let sent = std::iter::from_fn(|| node.poll_output()).filter_map(|output| match output {
        Output::Transmit { to, frames, .. } => Some((to, frames)),
        _ => None,
    });
    sent.filter(|(_, frames)| frames.item_len() > 200).collect()
}

/// Hands a batch over as a link does that has received it in one piece.
fn hand_over(net: &mut Net, from: usize, to: usize, batch: &Batch, is_late: bool) {
    let (mut bytes, frame_len) = (batch.bytes().to_vec(), batch.item_len());
    let input = Input::Frames { port: PORT, from: address(from), frames: &mut bytes, frame_len, is_late };
    net.nodes[to - 1].handle(net.now, input).unwrap();
}

/// A tenth of the reference costs ten times as much; an unknown throughput is a last resort.
#[test]
fn a_port_costs_what_its_throughput_says() {
    for (throughput, metric) in [(Some(100_000_000), 2560), (None, 16_384)] {
        let mut net = Net::new(2);
        let options = PortOptions::new(MTU).metric(Throughput::default());
        let options = match throughput {
            Some(rate) => options.throughput(rate),
            None => options,
        };
        net.nodes[0].add_port(PORT, options);
        net.join(1, 2);
        net.run(SECOND);
        let path = net.nodes[0].path(node(2)).unwrap();
        assert_eq!((path.metric, path.next), (metric, node(2)));
    }
}

/// A datagram of full length waits for its label when the link goes down: nothing wakes the node for it, and
/// it does not arrive when the link is up again.
#[test]
fn a_label_that_waits_does_not_outlive_its_link() {
    let mut net = Net::line(2);
    net.cut(1, 2, true);
    net.run(40 * MS);
    net.send(1, 2, &[7; 1200]).unwrap();
    net.run(2 * SECOND);
    assert!(net.nodes[0].poll_timeout().is_some_and(|at| at > net.now));
    assert_eq!(net.nodes[0].stats().unlabelled, 1);
    net.cut(1, 2, false);
    net.run(2 * SECOND);
    assert!(net.datagrams.is_empty());
    net.send(1, 2, &[7; 1200]).unwrap();
    net.run(SECOND);
    assert_eq!(net.datagrams.len(), 1);
}

#[test]
fn a_datagram_that_waits_for_its_label_is_counted_when_its_link_ends() {
    let mut net = Net::line(2);
    net.send(1, 2, &[7; 1200]).unwrap();
    let link = net.nodes[0].links().next().unwrap().link;
    net.nodes[0].handle(net.now, Input::Ended { link }).unwrap();
    assert_eq!(net.nodes[0].stats().unlabelled, 1);
}

/// Newer keys are in use while a label of the older ones waits.
#[test]
fn a_label_under_older_keys_does_not_wake_the_driver() {
    let mut net = Net::line(2);
    // The announcement is lost.
    net.cut(1, 2, true);
    net.send(1, 2, &[7; 1200]).unwrap();
    net.collect();
    net.cut(1, 2, false);
    net.join(1, 2);
    net.run(SECOND);
    assert!(net.nodes[0].poll_timeout().is_some_and(|at| at > net.now));
    net.send(1, 2, &[8; 1200]).unwrap();
    net.run(SECOND);
    assert!(net.datagrams.iter().any(|(_, at, _, payload)| *at == 2 && payload[..] == [8; 1200]));
}

#[test]
fn datagrams_that_are_sent_together_travel_together() {
    for (is_late, sent, arrived) in [
        (false, Ecn::Ect0, Ecn::Ect0),
        (true, Ecn::Ect0, Ecn::Congested),
        (true, Ecn::Ect1, Ecn::Congested),
        (true, Ecn::NotCapable, Ecn::NotCapable),
        (false, Ecn::Congested, Ecn::Congested),
    ] {
        let mut net = Net::line(3);
        // The short form is used once the label is known at each hop.
        net.send(1, 3, &[0; 100]).unwrap();
        net.run(SECOND);
        let payloads: Vec<u8> = (0..=255).cycle().take(10 * 1000 + 300).collect();
        net.nodes[0].send_many(net.now, node(3), sent, &payloads, 1000).unwrap();
        let first = batches(&mut net.nodes[0]);
        let [(to, batch)] = &first[..] else { panic!("one batch, not {first:?}") };
        assert_eq!(*to, address(2));
        assert_eq!(batch.items().map(<[u8]>::len).collect::<Vec<_>>(), [&[1032; 10][..], &[332]].concat());
        // The relay has a queue, and marks; the order of the frames is kept.
        hand_over(&mut net, 1, 2, batch, is_late);
        let second = batches(&mut net.nodes[1]);
        let [(to, batch)] = &second[..] else { panic!("one batch, not {second:?}") };
        assert_eq!((*to, batch.items().count(), batch.item_len()), (address(3), 11, 1032));
        hand_over(&mut net, 2, 3, batch, false);
        let found: Vec<_> = std::iter::from_fn(|| net.nodes[2].poll_output())
            .filter_map(|output| match output {
                Output::Datagrams { source, ecn, payloads } => Some((source, ecn, payloads)),
                _ => None,
            })
            .collect();
        let [(source, ecn, batch)] = &found[..] else { panic!("one batch, not {found:?}") };
        assert_eq!((*source, *ecn, batch.item_len()), (node(1), arrived, 1000));
        assert!(batch.bytes() == payloads);
        assert_eq!(
            [0, 1, 2].map(|at| net.nodes[at].stats()).map(|s| s.sent + s.relayed + s.received),
            [12; 3]
        );
    }
}

/// A batch is no more than its frames: each is judged by itself.
#[test]
fn a_batch_with_bad_frames_gives_the_good_ones() {
    let mut net = Net::line(2);
    net.send(1, 2, &[0; 100]).unwrap();
    net.run(SECOND);
    let payloads: Vec<u8> = (0..5).flat_map(|number| [number; 500]).collect();
    net.nodes[0].send_many(net.now, node(2), Ecn::Ect0, &payloads, 500).unwrap();
    let sent = batches(&mut net.nodes[0]);
    let (_, batch) = &sent[0];
    let (mut bytes, frame_len) = (batch.bytes().to_vec(), batch.item_len());
    bytes[frame_len + 100] ^= 1;
    bytes.copy_within(0..frame_len, 3 * frame_len);
    let before = net.nodes[1].stats();
    let input = Input::Frames { port: PORT, from: address(1), frames: &mut bytes, frame_len, is_late: false };
    net.nodes[1].handle(net.now, input).unwrap();
    net.datagrams.clear();
    net.collect();
    let found: Vec<u8> = net.datagrams.iter().map(|(.., payload)| payload[0]).collect();
    assert_eq!(found, [0, 2, 4]);
    let stats = net.nodes[1].stats();
    assert_eq!((stats.refused - before.refused, stats.replayed - before.replayed), (1, 1));
}

/// The space of a batch that was handled holds a later one, and no frame is another one for it.
#[test]
fn batches_that_are_given_back_change_no_frame() {
    let mut nets = [Net::line(3), Net::line(3)];
    for net in &mut nets {
        net.send(1, 3, &[0; 100]).unwrap();
        net.run(SECOND);
    }
    for round in 0_usize..200 {
        // Single datagrams and long batches, each with a last datagram of another length.
        let (count, len) = (round % 7 * (round % 11), 300 + 13 * (round % 60));
        let payloads = vec![u8::try_from(round).unwrap(); count * len + round % len + 250];
        let mut found = [Vec::new(), Vec::new()];
        for ((is_given_back, net), found) in [false, true].into_iter().zip(&mut nets).zip(&mut found) {
            net.nodes[0].send_many(net.now, node(3), Ecn::Ect0, &payloads, len).unwrap();
            for at in [1, 2] {
                for (to, mut batch) in batches(&mut net.nodes[at - 1]) {
                    found.push((to, batch.item_len(), batch.bytes().to_vec()));
                    hand_over(net, at, at + 1, &batch, false);
                    if is_given_back {
                        // The content of the space does not matter.
                        batch.items_mut().for_each(|frame| frame.fill(0xff));
                        net.nodes[at - 1].reuse(batch);
                    }
                }
            }
            while let Some(output) = net.nodes[2].poll_output() {
                if let Output::Datagrams { payloads, .. } = output {
                    found.push((address(3), payloads.item_len(), payloads.bytes().to_vec()));
                    if is_given_back {
                        net.nodes[2].reuse(payloads);
                    }
                }
            }
        }
        assert!(found[0] == found[1], "round {round}");
        assert!(found[1].iter().map(|(.., bytes)| bytes.len()).sum::<usize>() >= payloads.len());
    }
}

/// What node 2 knows and has done: its next hop to the last node, bytes of datagrams that it has sent to each
/// neighbour, and datagrams that it has relayed.
#[derive(Debug)]
struct View {
    next: Option<NodeId>,
    sent: BTreeMap<NodeId, u64>,
    relayed: u64,
}

impl View {
    fn of(net: &Net) -> View {
        let node_2 = &net.nodes[1];
        let last = node(net.nodes.len());
        View {
            next: node_2.router().route(last).map(|route| route.next),
            sent: node_2.links().map(|link| (link.peer, link.sent_bytes - link.control_bytes)).collect(),
            relayed: node_2.stats().relayed,
        }
    }
}

/// Node 1 sends to the last node over node 2, and then `change` begins something that node 1 notifies node 2
/// of. Each frame from node 1 to node 2 arrives once in the middle of a batch, between two datagrams that
/// were sent before. Returns what node 2 had seen and done before and after each such batch.
fn changes_within_a_batch(nodes: usize, change: impl Fn(&mut Net)) -> Vec<[View; 2]> {
    let mut views = Vec::new();
    for number in 0.. {
        let mut net = Net::line(nodes);
        // The label is known at each hop.
        net.send(1, nodes, &[0; 100]).unwrap();
        net.run(SECOND);
        let mut datagrams: BTreeMap<usize, Vec<Vec<u8>>> = BTreeMap::new();
        for len in 0..400 {
            for _ in 0..2 {
                net.send(1, nodes, &vec![7; len]).unwrap();
            }
        }
        while let Some(output) = net.nodes[0].poll_output() {
            if let Output::Transmit { frames, .. } = output {
                frames
                    .items()
                    .for_each(|frame| datagrams.entry(frame.len()).or_default().push(frame.to_vec()));
            }
        }
        change(&mut net);
        net.watched = Some((1, 2, number));
        for _ in 0..200 {
            net.run(MS);
            if net.caught.is_some() {
                break;
            }
        }
        let Some(frame) = net.caught.take() else { break };
        // The acknowledgement of a label is shorter than any datagram.
        let Some([first, second]) = datagrams.get(&frame.len()).map(Vec::as_slice) else { continue };
        let before = View::of(&net);
        let mut batch = [&first[..], &frame, second].concat();
        let frame_len = frame.len();
        let input =
            Input::Frames { port: PORT, from: address(1), frames: &mut batch, frame_len, is_late: false };
        net.nodes[1].handle(net.now, input).unwrap();
        views.push([before, View::of(&net)]);
    }
    views
}

/// The update of a neighbour is between two datagrams: the second one takes the new route.
#[test]
fn a_route_that_changes_within_a_batch_holds_for_the_rest_of_the_batch() {
    // Node 1 gets a link to the last node, which is shorter than the way over node 3.
    let views = changes_within_a_batch(5, |net| net.join(1, 5));
    let mut changed = 0;
    for [before, after] in &views {
        let ways = [before.next, after.next];
        let is_sent = [1, 3].map(|peer| after.sent[&node(peer)] > before.sent[&node(peer)]);
        assert_eq!(is_sent, [1, 3].map(|peer| ways.contains(&Some(node(peer)))), "{before:?} {after:?}");
        assert_eq!(after.relayed - before.relayed, 2);
        changed += usize::from(ways == [Some(node(3)), Some(node(1))]);
    }
    assert_eq!(changed, 1, "of {}", views.len());
}

/// The next hop of a node to another one.
fn next(net: &Net, from: usize, to: usize) -> NodeId {
    net.nodes[from - 1].paths().find(|path| path.destination == node(to)).unwrap().next
}

/// The state of the link of a node to a neighbour.
fn state(net: &Net, from: usize, to: usize) -> LivenessState {
    net.nodes[from - 1].links().find(|link| link.peer == node(to)).unwrap().state
}

#[test]
fn a_link_that_loses_long_frames_is_left_for_another_path() {
    for limit in [300, 1000, 1231] {
        let mut net = Net::ring(3);
        assert_eq!(next(&net, 1, 2), node(2));
        net.short.insert((1, 2), limit);
        // Long datagrams make the examination sooner than the clock does.
        net.datagrams.clear();
        for _ in 0..3000 {
            // The packet may be too long for a moment, until there is another path.
            let _ = net.send(1, 2, &[7; 1200]);
            net.run(MS);
        }
        assert_eq!((next(&net, 1, 2), state(&net, 1, 2)), (node(3), LivenessState::Degraded), "{limit}");
        // The other direction works, and is used.
        assert_eq!((next(&net, 2, 1), state(&net, 2, 1)), (node(1), LivenessState::Up));
        assert_eq!(net.nodes[0].mtu(node(2)), Some(1200));
        net.run(100 * MS);
        net.datagrams.clear();
        for _ in 0..100 {
            net.send(1, 2, &[7; 1200]).unwrap();
            net.run(MS);
        }
        net.run(10 * MS);
        assert_eq!(net.datagrams.len(), 100);
        // The link is used again after it was healed.
        net.short.clear();
        net.run(30 * SECOND);
        assert_eq!((next(&net, 1, 2), state(&net, 1, 2)), (node(2), LivenessState::Up));
    }
}

#[test]
fn the_only_path_carries_what_it_can_and_the_mtu_follows() {
    let mut net = Net::line(3);
    net.short.insert((2, 3), 700);
    net.send(1, 3, &[7; 1200]).unwrap();
    net.run(10 * SECOND);
    let mtu = net.nodes[0].mtu(node(3)).unwrap();
    assert!((700 - 32 - 16..=700 - 32).contains(&mtu), "{mtu}");
    net.datagrams.clear();
    net.send(1, 3, &vec![7; mtu]).unwrap();
    net.run(SECOND);
    assert_eq!(net.datagrams.len(), 1);
    let refused = net.send(1, 3, &[7; 1200]);
    assert_eq!(refused, Err(DatagramError::TooLong { len: 1200, mtu }));
    net.short.clear();
    net.run(30 * SECOND);
    assert_eq!(net.nodes[0].mtu(node(3)), Some(1200));
}

/// The link is usable, and carries less than its port: no path is left.
#[test]
fn a_path_with_a_smaller_mtu_than_its_port_is_measured() {
    let mut net = Net::new(2);
    for node in &mut net.nodes {
        node.add_port(PORT, PortOptions::new(8960));
    }
    net.short.insert((1, 2), 1472);
    net.join(1, 2);
    net.run(5 * SECOND);
    let mtu = net.nodes[0].mtu(node(2)).unwrap();
    assert!((1472 - 32 - 16..=1472 - 32).contains(&mtu), "{mtu}");
    assert_eq!(net.nodes[1].mtu(node(1)), Some(8960 - 32));
    assert_eq!([state(&net, 1, 2), state(&net, 2, 1)], [LivenessState::Up; 2]);
}

/// Loss is no reason to distrust long frames: ten minutes, a tenth of all frames lost in each direction.
#[test]
fn random_loss_does_not_shorten_a_link() {
    let mut net = Net::new(2);
    net.join(1, 2);
    net.loss = 10;
    for _ in 0..6000 {
        let _ = net.send(1, 2, &[7; 1200]);
        net.run(100 * MS);
        let mtu = net.nodes[0].links().next().unwrap().mtu;
        assert_eq!(mtu, 1200);
    }
}

/// Both ends dial at once, and each has the keys of the other one's connection last.
#[test]
fn ends_that_prefer_different_keys_exchange_long_datagrams() {
    let mut net = Net::new(2);
    let (mut one, mut other) = ([1; FrameKeys::MATERIAL_LEN], [2; FrameKeys::MATERIAL_LEN]);
    (one[0], other[0]) = (3, 3);
    net.key(1, 2, &one, true);
    net.key(2, 1, &other, true);
    net.key(1, 2, &other, false);
    net.key(2, 1, &one, false);
    net.run(SECOND);
    // The first labels of each end, which wait for their acknowledgements.
    for (from, to) in [(1, 2), (2, 1)] {
        net.send(from, to, &[7; 1200]).unwrap();
    }
    net.run(200 * MS);
    let mut arrived: Vec<_> = net.datagrams.iter().map(|(_, at, _, bytes)| (*at, bytes.len())).collect();
    arrived.sort_unstable();
    assert_eq!(arrived, [(1, 1200), (2, 1200)]);
}

#[test]
fn datagrams_cross_several_hops_and_fit_the_ipv6_minimum() {
    let mut net = Net::line(4);
    assert_eq!(net.nodes[0].mtu(node(4)), Some(1200));
    let payload: Vec<u8> = (0..=255).cycle().take(1200).collect();
    net.send(1, 4, &payload).unwrap();
    net.send(1, 4, &[]).unwrap();
    net.send(4, 1, b"back").unwrap();
    net.run(200 * MS);
    let mut arrived: Vec<_> =
        net.datagrams.iter().map(|(_, at, from, bytes)| (*at, *from, bytes.clone())).collect();
    arrived.sort();
    assert_eq!(arrived, [(1, node(4), b"back".to_vec()), (4, node(1), vec![]), (4, node(1), payload)]);
    // A frame of 1200 bytes is as long as the link allows: it had the short form on each of them.
    assert_eq!(net.longest, MTU);
    assert!(net.nodes[1].stats().relayed >= 3 && net.nodes[1].stats().relayed_bytes >= 1204);
    let refused = net.send(1, 4, &[0; 1201]);
    assert_eq!(refused, Err(DatagramError::TooLong { len: 1201, mtu: 1200 }));
    assert_eq!(net.send(1, 9, b""), Err(DatagramError::NoRoute { to: node(9) }));
    assert_eq!(net.send(1, 1, b""), Err(DatagramError::ToSelf { to: node(1) }));
}

#[test]
fn the_mtu_follows_the_path() {
    let mut net = Net::ring(5);
    assert_eq!(net.nodes[0].mtu(node(3)), Some(1200));
    let changed = Input::MtuChanged { port: PORT, mtu: 1000 };
    net.nodes[1].handle(net.now, changed).unwrap();
    net.run(SECOND);
    // Over node 2, whose links are short now.
    let path = net.nodes[0].paths().find(|path| path.destination == node(3)).unwrap();
    assert_eq!((path.next, path.mtu, path.backups), (node(2), 968, 0));
    assert_eq!(net.send(1, 3, &[0; 1000]), Err(DatagramError::TooLong { len: 1000, mtu: 968 }));
    net.cut(1, 2, true);
    net.run(SECOND);
    assert_eq!(net.nodes[0].mtu(node(3)), Some(1200));
}

/// Item 1 of the mesh's goals, in virtual time: probes each millisecond across the link that is cut.
#[test]
fn a_silent_cut_heals_within_80_ms() {
    for offset in 0..20 {
        let mut net = Net::ring(5);
        assert!(net.gap(2, 3, (500 + offset * 7) * MS) < 60 * MS);
        net.cut(2, 3, true);
        let gap = net.gap(2, 3, SECOND);
        assert!(gap <= 80 * MS, "offset {offset}: {gap:?}");
        net.cut(2, 3, false);
        let gap = net.gap(2, 3, SECOND);
        assert!(gap < 20 * MS, "offset {offset}, healed: {gap:?}");
    }
}

#[test]
fn a_cut_in_one_direction_is_left_by_both() {
    let mut net = Net::ring(5);
    net.gap(2, 3, 300 * MS);
    net.cut.insert((2, 3), true);
    assert!(net.gap(2, 3, SECOND) <= 100 * MS);
    assert!(net.gap(3, 2, SECOND) <= 60 * MS);
    for (at, peer) in [(1, 3), (2, 2)] {
        let facts = net.nodes[at].links().find(|link| link.peer == node(peer)).unwrap();
        assert_eq!(facts.state, LivenessState::Down);
    }
}

#[test]
fn a_single_path_is_back_within_100_ms_of_healing() {
    for cut in [200, 500, 1000, 1500, 20_000] {
        let mut net = Net::line(3);
        net.gap(1, 3, 300 * MS);
        net.cut(2, 3, true);
        net.run(cut * MS);
        net.cut(2, 3, false);
        let begin = net.now;
        net.gap(1, 3, SECOND);
        let first = net.datagrams.iter().find(|(_, at, ..)| *at == 3).unwrap().0;
        assert!(first - begin <= 125 * MS, "after a cut of {cut} ms: {:?}", first - begin);
    }
}

#[test]
fn frames_are_neither_replayed_nor_forged() {
    let mut net = Net::line(2);
    net.send(1, 2, b"once").unwrap();
    net.collect();
    let frames: Vec<Vec<u8>> = net.flying.iter().map(|flying| flying.frame.clone()).collect();
    net.run(100 * MS);
    assert_eq!(net.datagrams.len(), 1);
    let before = net.nodes[1].stats();
    for frame in &frames {
        let mut changed = frame.clone();
        changed[20] ^= 1;
        // Repeated, changed, cut off, and from a node without keys.
        for mut bytes in [frame.clone(), changed, frame[..frame.len() / 2].to_vec(), vec![0x11; 60]] {
            let input = Input::Frame { port: PORT, from: address(1), frame: &mut bytes };
            net.nodes[1].handle(net.now, input).unwrap();
        }
    }
    net.run(100 * MS);
    assert_eq!(net.datagrams.len(), 1);
    let after = net.nodes[1].stats();
    let (replayed, refused) = (after.replayed - before.replayed, after.refused - before.refused);
    assert_eq!(replayed + refused, 4 * frames.len() as u64);
    assert!(replayed >= 2 * frames.len() as u64 && refused >= frames.len() as u64);
}

/// A second address of a neighbour on the same port is a link of its own: traffic takes the better one, and
/// the other one as soon as it fails.
#[test]
fn two_addresses_of_a_neighbour_are_two_links() {
    let mut net = Net::new(2);
    for node in &mut net.nodes {
        node.add_port(PORT, PortOptions::new(MTU).metric(Rtt::default()));
    }
    net.delay = 40 * MS;
    net.join(1, 2);
    net.run(2 * SECOND);
    assert_eq!(net.links(), [(address(2), LivenessState::Up, true)]);
    // The second address is nearer.
    net.join_again();
    let gap = net.gap(1, 2, 3 * SECOND);
    assert!(gap <= 45 * MS, "{gap:?}");
    let (far, near) = ((address(2), LivenessState::Up), (other_address(2), LivenessState::Up));
    assert_eq!(net.links(), [(far.0, far.1, false), (near.0, near.1, true)]);
    assert_eq!(net.nodes[1].links().map(|link| link.number).collect::<Vec<_>>(), [0, 1]);

    net.cut(OTHER + 1, OTHER + 2, true);
    let gap = net.gap(1, 2, SECOND);
    assert!(gap <= 120 * MS, "{gap:?}");
    assert_eq!(net.links(), [(far.0, far.1, true), (near.0, LivenessState::Down, false)]);
    net.cut(OTHER + 1, OTHER + 2, false);
    let gap = net.gap(1, 2, 5 * SECOND);
    assert!(gap <= 45 * MS, "{gap:?}");
    assert_eq!(net.links(), [(far.0, far.1, false), (near.0, near.1, true)]);
}

/// Two links of an end that has restarted have other numbers than before: the end that has not restarted
/// gives up the link that nobody dials any more.
#[test]
fn a_link_that_leads_where_another_one_works_ends() {
    let mut net = Net::new(2);
    net.join_as(0, address);
    net.join_as(2, other_address);
    net.run(SECOND);
    let cut = |net: &mut Net, is_cut| {
        net.cut(1, 2, is_cut);
        net.cut(OTHER + 1, OTHER + 2, is_cut);
    };
    cut(&mut net, true);
    net.run(2 * SECOND);
    assert_eq!(net.links().len(), 2);
    net.join_as(1, other_address);
    // A link that does not work yet ends no other one.
    net.run(2 * SECOND);
    assert_eq!(net.links().len(), 3);
    // Only node 1 has the keys of link 2, as after a restart of node 2.
    let ended = net.nodes[1].link(PORT, node(1), 2).unwrap();
    net.nodes[1].handle(net.now, Input::Ended { link: ended }).unwrap();
    cut(&mut net, false);
    net.run(3 * SECOND);
    for node in &net.nodes {
        let links: Vec<_> = node.links().map(|link| (link.number, link.state)).collect();
        assert_eq!(links, [(0, LivenessState::Up), (1, LivenessState::Up)]);
    }
}

/// Two links over one path, with keys that both ends have, come up one after the other when an outage ends,
/// and not in the same order at each end: neither end gives up one of them.
#[test]
fn links_over_one_path_outlive_an_outage_in_any_phase() {
    for phase in 0..60 {
        let mut net = Net::new(2);
        net.delay = 40 * MS;
        net.join_as(0, address);
        net.run(phase % 7 * 9 * MS);
        net.join_as(1, address);
        net.run(SECOND + phase * 11 * MS);
        // The ends notice the outage at different times, and so probe in different phases.
        net.cut.insert((1, 2), true);
        net.run(phase % 5 * 13 * MS);
        net.cut.insert((2, 1), true);
        net.run(3 * SECOND);
        assert!(net.links().iter().all(|link| link.1 == LivenessState::Down), "phase {phase}");
        net.cut(1, 2, false);
        net.run(2 * SECOND);
        for node in &net.nodes {
            let links: Vec<_> = node.links().map(|link| (link.number, link.state)).collect();
            let up = LivenessState::Up;
            assert_eq!(links, [(0, up), (1, up)], "node {}, phase {phase}", node.local());
            assert_eq!(node.paths().count(), 1, "node {}, phase {phase}", node.local());
        }
    }
}

/// A path that has been left for another one delivers a frame late.
#[test]
fn a_late_frame_does_not_lead_a_link_back() {
    let mut net = Net::new(2);
    net.join_as(0, address);
    net.run(SECOND);
    net.watched = Some((2, 1, 0));
    while net.caught.is_none() {
        net.run(MS);
    }
    net.cut(1, 2, true);
    net.run(2 * SECOND);
    let down = (address(2), LivenessState::Down, false);
    assert_eq!(net.links(), [down]);
    net.join_as(0, other_address);
    net.run(SECOND);
    let up = (other_address(2), LivenessState::Up, true);
    assert_eq!(net.links(), [up]);
    let (mut frame, refused) = (net.caught.take().unwrap(), net.nodes[0].stats().refused);
    let input = Input::Frame { port: PORT, from: address(2), frame: &mut frame };
    net.nodes[0].handle(net.now, input).unwrap();
    assert_eq!(net.links(), [up]);
    assert_eq!(net.nodes[0].stats().refused, refused + 1);
}

/// The choice of the client: a link to the same address, one that is down, or a free number of its own.
#[test]
fn each_address_of_a_neighbour_has_a_number() {
    let mut net = Net::line(2);
    let number = |net: &Net, at: usize, address| net.nodes[at - 1].link_number(PORT, node(3 - at), address);
    assert_eq!([1, 2].map(|at| number(&net, at, address(3 - at))), [Some(0); 2]);
    assert_eq!([1, 2].map(|at| number(&net, at, other_address(3 - at))), [Some(1), Some(2)]);
    net.join_again();
    assert_eq!([1, 2].map(|at| number(&net, at, other_address(3 - at))), [Some(1); 2]);
    // New keys of a link that is not up yet: it is not taken for another address.
    assert_eq!([1, 2].map(|at| number(&net, at, address(9))), [Some(3), Some(2)]);
    net.run(SECOND);
    net.cut(OTHER + 1, OTHER + 2, true);
    net.run(3 * SECOND);
    // The other end has not chosen the number of the link that is down.
    assert_eq!([1, 2].map(|at| number(&net, at, address(9))), [Some(1), Some(2)]);
    net.cut(OTHER + 1, OTHER + 2, false);
    net.run(SECOND);
    for (number, port) in [(3, 11), (5, 12)] {
        let (keys, address) = (FrameKeys::new(&[number; FrameKeys::MATERIAL_LEN], true), address(port));
        let input = Input::Keyed { port: PORT, peer: node(2), number, address, keys };
        net.nodes[0].handle(net.now, input).unwrap();
    }
    assert_eq!(number(&net, 1, address(9)), None);
    let keys = FrameKeys::new(&[9; FrameKeys::MATERIAL_LEN], true);
    let input = Input::Keyed { port: PORT, peer: node(2), number: 7, address: address(9), keys };
    let refused = net.nodes[0].handle(net.now, input).unwrap_err();
    assert_eq!(refused, HandleError::Number { peer: node(2), number: 7, numbers: Datagrams::LINK_NUMBERS });
    assert!(refused.to_string().contains("link 7"), "{refused}");
}

/// A neighbour is where its newest frame comes from: a change of its address costs nothing.
#[test]
fn a_neighbour_may_move() {
    let mut net = Net::line(2);
    net.moved.insert(1, address(77));
    net.send(1, 2, b"moved").unwrap();
    net.run(20 * MS);
    let facts = net.nodes[1].links().next().unwrap();
    assert_eq!((facts.address, facts.state), (address(77), LivenessState::Up));
    // A forged frame from elsewhere moves nothing.
    let mut forged = vec![0x10; 60];
    let input = Input::Frame { port: PORT, from: address(66), frame: &mut forged };
    net.nodes[1].handle(net.now, input).unwrap();
    assert_eq!(net.nodes[1].links().next().unwrap().address, address(77));
}

#[test]
fn new_keys_replace_old_ones_without_loss() {
    let mut net = Net::line(2);
    for round in 0..8 {
        // Both dial in turn, and the client knows of the keys before the server.
        let mut material = [100 + round; FrameKeys::MATERIAL_LEN];
        material[40] = 3;
        let (client, server) = if round % 2 == 0 { (1, 2) } else { (2, 1) };
        net.key(client, server, &material, true);
        assert!(net.gap(1, 2, 50 * MS) < 10 * MS, "round {round}");
        net.key(server, client, &material, false);
        assert!(net.gap(1, 2, 700 * MS) < 10 * MS, "round {round}");
        assert!(net.gap(2, 1, 700 * MS) < 10 * MS, "round {round}");
    }
    assert_eq!(net.nodes[0].links().count(), 1);
}

#[test]
fn an_ended_link_takes_and_sends_nothing() {
    let mut net = Net::line(3);
    let link = net.nodes[0].link(PORT, node(2), 0).unwrap();
    net.nodes[0].handle(net.now, Input::Ended { link }).unwrap();
    assert_eq!(net.send(1, 3, b"x"), Err(DatagramError::NoRoute { to: node(3) }));
    let again = net.nodes[0].handle(net.now, Input::Ended { link });
    assert_eq!(again, Err(HandleError::UnknownLink { link }));
    net.run(2 * SECOND);
    assert_eq!((net.nodes[0].links().count(), net.nodes[0].paths().count(), net.ended), (0, 0, 1));
    assert!(net.nodes[0].stats().refused > 0);
    assert_eq!(net.nodes[2].mtu(node(1)), None);
    // The peer renews its SVID, and both make keys again.
    net.join(1, 2);
    net.run(SECOND);
    net.send(1, 3, b"again").unwrap();
    net.run(100 * MS);
    assert_eq!(net.datagrams.len(), 1);
}

/// The peer is up within 150 ms of healing after a cut of any length, as long as few links are down.
#[test]
fn a_link_is_up_soon_after_a_cut_of_an_hour() {
    // At each end, besides the link that heals.
    for (departed, cuts) in [(0, &[30, 61, 3600][..]), (15, &[61, 200])] {
        for (at, cut) in cuts.iter().enumerate() {
            let mut net = Net::line(2);
            for (number, peer) in (0..2 * departed).zip(3..) {
                net.join(1 + number % 2, peer);
            }
            net.cut(1, 2, true);
            net.run(*cut * SECOND + u32::try_from(at).unwrap() * 17 * MS);
            assert!(net.nodes.iter().all(|node| node.mtu(net.other(node)).is_none()));
            net.cut(1, 2, false);
            net.run(150 * MS);
            for node in &net.nodes {
                let link = node.link(PORT, net.other(node), 0).unwrap();
                assert_eq!(node.link_state(link), Some(LivenessState::Up), "{departed}, {cut} s");
            }
        }
    }
}

/// Neighbours that have departed get few probes in total, and one that comes back is up soon all the same.
#[test]
fn links_that_are_down_for_long_share_a_number_of_probes() {
    let mut net = Net::with(2, |options| options);
    for peer in 2..=129 {
        net.key(1, peer, &[1; FrameKeys::MATERIAL_LEN], true);
    }
    net.run(61 * SECOND);
    let before = net.sent;
    net.run(10 * SECOND);
    let each_second = (net.sent - before) / 10;
    assert!((100..=170).contains(&each_second), "{each_second} probes in a second");
    // Neighbour 2 returns, with the keys of its old process: its own probes are answered.
    net.key(2, 1, &[1; FrameKeys::MATERIAL_LEN], false);
    net.run(150 * MS);
    let link = net.nodes[0].link(PORT, node(2), 0).unwrap();
    assert_eq!(net.nodes[0].link_state(link), Some(LivenessState::Up));
    // The first minute of the next cut is not one of long ago.
    net.cut(1, 2, true);
    net.run(SECOND);
    let before = net.sent_to[&2];
    net.run(SECOND);
    assert!((19..=21).contains(&(net.sent_to[&2] - before)));
    // Nor is the time after a handshake.
    let before = net.sent_to[&129];
    net.key(1, 129, &[2; FrameKeys::MATERIAL_LEN], true);
    net.run(SECOND);
    assert!((19..=21).contains(&(net.sent_to[&129] - before)));
}

/// Departed neighbours do not keep out new ones; the one that has been down for longest is replaced.
#[test]
fn a_new_neighbour_replaces_the_link_that_is_down_for_longest() {
    let mut net = Net::with(2, |options| options.links_max(3));
    net.join(1, 2);
    net.key(1, 7, &[7; FrameKeys::MATERIAL_LEN], true);
    net.run(SECOND);
    net.key(1, 8, &[8; FrameKeys::MATERIAL_LEN], true);
    net.run(8 * SECOND);
    let add = |net: &mut Net, peer| {
        let keys = FrameKeys::new(&[9; FrameKeys::MATERIAL_LEN], true);
        let input = Input::Keyed { port: PORT, peer: node(peer), number: 0, address: address(peer), keys };
        net.nodes[0].handle(net.now, input)
    };
    let full = |peer| Err(HandleError::Full { peer: node(peer), links_max: 3 });
    assert_eq!(add(&mut net, 9), full(9));
    net.run(SECOND);
    assert_eq!(add(&mut net, 9), Ok(()));
    net.collect();
    assert_eq!(net.ended, 1);
    let peers = |net: &Net| net.nodes[0].links().map(|link| link.peer.get()).collect::<Vec<_>>();
    assert_eq!(peers(&net), [2, 8, 9]);
    // A handshake makes the link of neighbour 8 new again.
    net.run(SECOND);
    assert_eq!(add(&mut net, 8), Ok(()));
    net.run(8 * SECOND);
    assert_eq!(add(&mut net, 10), full(10));
    net.run(2 * SECOND);
    assert_eq!(add(&mut net, 10), Ok(()));
    assert_eq!(peers(&net), [2, 8, 10]);
    // A link that is up is never replaced.
    net.run(100 * SECOND);
    assert_eq!((add(&mut net, 11), add(&mut net, 12)), (Ok(()), Ok(())));
    assert_eq!(add(&mut net, 13), full(13));
    assert_eq!(peers(&net), [2, 11, 12]);
}

/// A relay that drops datagrams keeps its links and routes. The silence of the destination shows it, once.
#[test]
fn a_black_hole_is_reported() {
    let mut net = Net::line(3);
    let talk = |net: &mut Net, both: bool| {
        for _ in 0..100 {
            net.send(1, 3, b"question").unwrap();
            net.send(1, 2, b"to a neighbour that does not answer").unwrap();
            if both {
                net.send(3, 1, b"answer").unwrap();
            }
            net.run(50 * MS);
        }
    };
    talk(&mut net, true);
    assert_eq!(net.reports, []);
    net.swallowed = Some((2, 3));
    let begin = net.now;
    talk(&mut net, false);
    talk(&mut net, false);
    let [(at, 1, Report::NoAnswer { destination, next, silence })] = net.reports[..] else {
        panic!("{:?}", net.reports)
    };
    assert_eq!((destination, next), (node(3), node(2)));
    assert!((3 * SECOND..4 * SECOND).contains(&silence) && at <= begin + 4 * SECOND, "{silence:?}");
    assert_eq!(net.nodes[0].stats().unanswered, 1);
    // An answer ends it.
    net.swallowed = None;
    talk(&mut net, true);
    net.swallowed = Some((3, 2));
    talk(&mut net, true);
    let reports: Vec<usize> = net.reports.iter().map(|(_, at, _)| *at).collect();
    assert_eq!(reports, [1, 1]);
    // Both ends notice what is dropped in between.
    net.swallowed = Some((2, 3));
    talk(&mut net, true);
    assert_eq!(net.reports.last().map(|(_, at, _)| *at), Some(3));
}

/// A link for which the router has no room is no path, and becomes one when there is room.
#[test]
fn a_neighbour_beyond_the_limit_of_the_router_follows_one_that_is_gone() {
    let limited = |options: DatagramOptions| {
        let router = RouterOptions::new(options.router.seed).limits(100, 1);
        options.router(router)
    };
    for is_ended in [false, true] {
        let mut net = Net::with(4, limited);
        for other in 2..=4 {
            net.join(1, other);
            net.run(SECOND);
        }
        let mtus = |net: &Net| [2, 3, 4].map(|number| net.nodes[0].mtu(node(number)).is_some());
        assert_eq!(mtus(&net), [true, false, false]);
        assert!(net.nodes[0].links().all(|link| link.state == LivenessState::Up));
        // The link that is refused carries no flooded message either.
        net.nodes[0].flood(net.now, b"x").unwrap();
        net.run(50 * MS);
        assert_eq!(net.floods.iter().map(|(at, ..)| *at).collect::<Vec<_>>(), [2]);
        // One that is lost meanwhile is not offered later.
        net.cut(1, 3, true);
        net.run(2 * SECOND);
        if is_ended {
            let link = net.nodes[0].link(PORT, node(2), 0).unwrap();
            net.nodes[0].handle(net.now, Input::Ended { link }).unwrap();
        } else {
            net.cut(1, 2, true);
        }
        net.run(2 * SECOND);
        assert_eq!(mtus(&net), [false, false, true], "ended: {is_ended}");
        net.send(1, 4, b"x").unwrap();
        net.run(50 * MS);
        assert_eq!(net.datagrams.len(), 1);
    }
}

#[test]
fn what_cannot_be_a_link_is_refused() {
    let mut net = Net::with(2, |options| options.links_max(1));
    let keys = || FrameKeys::new(&[1; FrameKeys::MATERIAL_LEN], true);
    let input =
        |port, peer| Input::Keyed { port, peer: node(peer), number: 0, address: address(peer), keys: keys() };
    let node = &mut net.nodes[0];
    let unknown = PortId(9);
    assert_eq!(node.handle(net.now, input(unknown, 2)), Err(HandleError::UnknownPort { port: unknown }));
    assert_eq!(node.handle(net.now, input(PORT, 1)), Err(HandleError::LinkToSelf { port: PORT }));
    assert_eq!(node.handle(net.now, input(PORT, 2)), Ok(()));
    assert!(matches!(node.handle(net.now, input(PORT, 3)), Err(HandleError::Full { links_max: 1, .. })));
    let changed = Input::MtuChanged { port: unknown, mtu: 1 };
    assert_eq!(node.handle(net.now, changed), Err(HandleError::UnknownPort { port: unknown }));
}

#[test]
fn a_flood_reaches_each_node_once() {
    let mut net = Net::ring(6);
    net.join(1, 4);
    net.run(SECOND);
    net.nodes[2].flood(net.now, b"to all").unwrap();
    net.run(200 * MS);
    let mut reached: Vec<usize> = net.floods.iter().map(|(at, ..)| *at).collect();
    reached.sort_unstable();
    assert_eq!(reached, [1, 2, 4, 5, 6]);
    assert!(net.floods.iter().all(|(_, origin, payload)| (*origin, &payload[..]) == (node(3), b"to all")));
    let too_long = net.nodes[2].flood(net.now, &[0; 1300]);
    assert!(matches!(too_long, Err(DatagramError::TooLong { len: 1300, .. })));
}

/// A node that does not relay takes a flooded message, and does not send it on.
#[test]
fn a_flood_ends_at_a_node_that_does_not_relay() {
    let mut net = Net::new(0);
    for number in 1..=4 {
        let relay = (number != 2).then_some(LinkCost::new(0));
        let router = RouterOptions::new(number as u64).relay(relay);
        net.nodes.push(Datagrams::new(node(number), DatagramOptions::new(number as u64).router(router)));
        net.nodes[number - 1].add_port(PORT, PortOptions::new(MTU));
    }
    for (one, other) in [(1, 2), (2, 3), (1, 4)] {
        net.join(one, other);
    }
    net.run(SECOND);
    net.nodes[0].flood(net.now, b"to all").unwrap();
    net.nodes[1].flood(net.now, b"of its own").unwrap();
    net.run(200 * MS);
    let mut reached: Vec<(usize, usize)> = net.floods.iter().map(|(at, _, p)| (*at, p.len())).collect();
    reached.sort_unstable();
    assert_eq!(reached, [(1, 10), (2, 6), (3, 10), (4, 6), (4, 10)]);
}

/// A message that does not fit the best link to a neighbour takes another one, and is counted where none
/// fits.
#[test]
fn a_flood_that_is_too_long_for_a_link_is_counted() {
    let short = PortId(1);
    let mut nodes = [1, 2].map(|number| {
        let mut node = Datagrams::new(node(number), DatagramOptions::new(number as u64));
        node.add_port(PORT, PortOptions::new(MTU));
        node.add_port(short, PortOptions::new(300));
        node
    });
    let mut net = Net::new(3);
    net.join(1, 2);
    net.join(2, 3);
    net.run(SECOND);
    // What node 2 relays no longer fits its port, of which node 1 knows nothing.
    net.nodes[1].handle(net.now, Input::MtuChanged { port: PORT, mtu: 600 }).unwrap();
    net.nodes[0].flood(net.now, &[7; 1000]).unwrap();
    net.run(200 * MS);
    assert_eq!(net.floods.iter().map(|(at, ..)| *at).collect::<Vec<_>>(), [2]);
    assert_eq!(net.nodes[1].stats().flood_too_long, 1);
    // Two links to one neighbour, the short one being the better one.
    let (mut now, material) = (SECOND, [3; FrameKeys::MATERIAL_LEN]);
    for at in [0, 1] {
        for (number, port) in [(1, short), (2, PORT)] {
            let mut material = material;
            material[0] = number;
            let keys = FrameKeys::new(&material, at == 0);
            let (peer, address) = (node(2 - at), address(2 - at));
            nodes[at].handle(now, Input::Keyed { port, peer, number: 0, address, keys }).unwrap();
        }
    }
    let mut floods = 0;
    while now < 2 * SECOND {
        now += MS;
        for at in [0, 1] {
            nodes[at].handle(now, Input::Timeout).unwrap();
            while let Some(output) = nodes[at].poll_output() {
                match output {
                    Output::Transmit { port, mut frames, .. } => {
                        for frame in frames.items_mut() {
                            let from = address(at + 1);
                            nodes[1 - at].handle(now, Input::Frame { port, from, frame }).unwrap();
                        }
                    }
                    Output::Flood { .. } => floods += 1,
                    _ => {}
                }
            }
        }
        if now == SECOND + 900 * MS {
            // The shortest link bounds a message of this node; one that is relayed is not.
            assert!(nodes[0].flood(now, &[7; 500]).is_err());
            nodes[0].add_port(short, PortOptions::new(1000));
            nodes[0].handle(now, Input::MtuChanged { port: short, mtu: 1000 }).unwrap();
            nodes[0].flood(now, &[7; 500]).unwrap();
        }
    }
    assert_eq!(floods, 1);
}

#[test]
fn a_flood_ends_at_its_hop_limit() {
    let mut net = Net::with(5, |options| options.hop_limit(2));
    for number in 1..5 {
        net.join(number, number + 1);
    }
    net.run(SECOND);
    net.nodes[0].flood(net.now, b"near").unwrap();
    net.send(1, 3, b"near").unwrap();
    net.send(1, 4, b"far").unwrap();
    net.run(200 * MS);
    assert_eq!(net.floods.iter().map(|(at, ..)| *at).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(net.datagrams.iter().map(|(_, at, ..)| *at).collect::<Vec<_>>(), [3]);
    assert_eq!(net.nodes[2].stats().hop_limit, 1);
}

#[test]
fn a_node_that_relays_nothing_is_no_path() {
    let mut net = Net::with(3, |options| {
        let router = RouterOptions::new(options.router.seed).relay(None);
        options.router(router)
    });
    net.join(1, 2);
    net.join(2, 3);
    net.run(SECOND);
    assert_eq!(net.send(1, 3, b"x"), Err(DatagramError::NoRoute { to: node(3) }));
    net.send(1, 2, b"direct").unwrap();
    net.run(100 * MS);
    assert_eq!(net.datagrams.len(), 1);
}

/// Frames of an idle link, from both of its ends.
#[test]
fn an_idle_link_is_quieter_than_the_keepalive_of_quic() {
    let mut net = Net::line(2);
    net.run(30 * SECOND);
    let before = net.nodes.iter().flat_map(Datagrams::links).map(|link| (link.sent_frames, link.sent_bytes));
    let before = before.fold((0, 0), |sum, link| (sum.0 + link.0, sum.1 + link.1));
    net.run(600 * SECOND);
    let after = net.nodes.iter().flat_map(Datagrams::links).map(|link| (link.sent_frames, link.sent_bytes));
    let after = after.fold((0, 0), |sum, link| (sum.0 + link.0, sum.1 + link.1));
    let (frames, bytes) = (after.0 - before.0, after.1 - before.1);
    // The keepalive has 4.1 packets and 265 bytes a second, headers of IPv4 and UDP included.
    assert!(frames * 10 <= 600 * 41, "{frames} frames in 600 s");
    let bytes = bytes + frames * 28;
    assert!(bytes <= 600 * 250, "{bytes} bytes in 600 s");
    let before = net.nodes[0].links().next().unwrap();
    net.run(60 * SECOND);
    let after = net.nodes[0].links().next().unwrap();
    // A probe each 600 ms, one notification, and in some minutes the question and answer about long frames.
    assert!((100..=104).contains(&(after.sent_frames - before.sent_frames)));
}

/// Control traffic of an idle node, in bytes per second without headers of lower layers.
#[test]
fn an_idle_ring_is_quiet() {
    let mut net = Net::ring(5);
    net.run(5 * SECOND);
    let bytes = |net: &Net| net.nodes[0].links().map(|link| link.sent_bytes).sum::<u64>();
    let before = bytes(&net);
    net.run(20 * SECOND);
    let each = (bytes(&net) - before) / 20 / 2;
    assert!(each < 265, "{each} B/s for each neighbour");
}

/// A node behind a NAT learns its address there, also when the NAT changes it and the notification is lost.
#[test]
fn neighbours_notify_each_other_of_the_address_that_they_see() {
    let mut net = Net::line(2);
    let seen = |net: &Net| net.nodes[0].links().next().unwrap().seen_as;
    assert_eq!(seen(&net), Some(address(1)));
    let moved = SocketAddr::from(([10, 0, 0, 9], 1));
    net.moved.insert(1, moved);
    net.send(1, 2, b"from there").unwrap();
    net.run(10 * MS);
    assert_eq!(seen(&net), Some(moved));
    net.moved.remove(&1);
    net.cut.insert((2, 1), true);
    net.send(1, 2, b"from here").unwrap();
    net.run(10 * MS);
    net.cut.insert((2, 1), false);
    net.run(SECOND);
    assert_eq!(seen(&net), Some(moved));
    net.run(10 * SECOND);
    assert_eq!(seen(&net), Some(address(1)));
    assert_eq!(net.nodes[0].links().next().unwrap().state, LivenessState::Up);
}
