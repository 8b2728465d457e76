//! Channels of a mux over the simulated network.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod mux_common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use mux_common::{Muxes, Service};
use x0_identity::NodeId;
use x0_mesh::conformance::{self, Bench};
use x0_mesh::sim::{LinkProfile, SimMesh};
use x0_mesh::{
    Channel, ChannelId, ChannelOptions, DownReason, Lane, Mux, MuxDriver, MuxOptions, Next, PeerEvent,
    PeerEventKind, RegisterError, SendError, Transmit, Transport,
};

fn node(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

const BAD: LinkProfile = LinkProfile {
    delay_min: Duration::from_micros(50),
    delay_max: Duration::from_millis(20),
    loss: 0.3,
    duplication: 0.2,
    reordering: 0.3,
};

struct Simulated {
    mesh: SimMesh,
    muxes: Muxes,
}

impl Bench for Simulated {
    type Transport = Service;

    fn start(&mut self, node: NodeId) -> Service {
        self.muxes.start(self.mesh.transport(node))
    }

    fn wait(&mut self, poll: &mut dyn FnMut(&mut Context<'_>) -> Poll<()>) {
        let mut cx = Context::from_waker(Waker::noop());
        while poll(&mut cx).is_pending() {
            self.muxes.drive(&mut cx);
            // A message that a mux sent while it was driven may be all that can happen.
            if poll(&mut cx).is_ready() {
                return;
            }
            assert!(self.mesh.step(), "nothing will happen any more");
        }
    }
}

#[test]
fn a_channel_keeps_the_contract_of_a_transport() {
    for seed in 0..4 {
        let mesh = SimMesh::new(seed);
        if seed % 2 == 1 {
            mesh.set_profile(BAD);
        }
        let report = conformance::check(&mut Simulated { mesh, muxes: Muxes::default() });
        assert_eq!((report.passed.len(), report.skipped.len()), (16, 0));
    }
}

/// Two nodes with a mux each.
struct Pair {
    mesh: SimMesh,
    one: Mux,
    two: Mux,
}

impl Pair {
    fn new(seed: u64) -> Pair {
        let mesh = SimMesh::new(seed);
        let mux = |number| Mux::new(mesh.transport(node(number)), MuxOptions::default().seed(seed));
        let (one, two) = (mux(1), mux(2));
        Pair { mesh, one, two }
    }

    /// Lets everything happen that happens by itself.
    fn settle(&self) {
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            let _ = self.one.poll_drive(&mut cx);
            let _ = self.two.poll_drive(&mut cx);
            if !self.mesh.step() {
                return;
            }
        }
    }

    fn both(&self, options: &ChannelOptions) -> (Channel, Channel) {
        let channels =
            (self.one.channel(options.clone()).unwrap(), self.two.channel(options.clone()).unwrap());
        self.settle();
        channels
    }
}

fn send(channel: &mut Channel, to: u64, lane: Lane, payload: &[u8]) -> Poll<Result<(), SendError>> {
    let mut cx = Context::from_waker(Waker::noop());
    channel.poll_send(&mut cx, &Transmit { to: node(to), lane, payload })
}

fn events(channel: &mut Channel) -> Vec<PeerEvent> {
    let mut cx = Context::from_waker(Waker::noop());
    let mut events = Vec::new();
    while let Poll::Ready(event) = channel.poll_event(&mut cx) {
        events.push(event);
    }
    events
}

fn messages(channel: &mut Channel) -> Vec<Vec<u8>> {
    let mut cx = Context::from_waker(Waker::noop());
    let (mut messages, mut payload) = (Vec::new(), Vec::new());
    while let Poll::Ready(next) = channel.poll_next(&mut cx, &mut payload) {
        if let Next::Message(_) = next.unwrap() {
            messages.push(std::mem::take(&mut payload));
        }
    }
    messages
}

const ORDERED: Lane = Lane::Ordered(0);

#[test]
fn a_name_is_registered_once() {
    let pair = Pair::new(1);
    let first = pair.one.channel(ChannelOptions::new("a")).unwrap();
    let channel = ChannelId::new("a").unwrap();
    assert_eq!(first.id(), channel);
    let second = pair.one.channel(ChannelOptions::new("a"));
    assert_eq!(second.unwrap_err(), RegisterError::Taken { channel });
    drop(first);
    pair.one.channel(ChannelOptions::new("a")).unwrap();
    let bad = pair.one.channel(ChannelOptions::new("no spaces"));
    assert_eq!(bad.unwrap_err(), RegisterError::Name { name: "no spaces".into() });
    for (options, field) in [
        (ChannelOptions::new("b").ordered_lanes(65), "ordered_lanes"),
        (ChannelOptions::new("b").lane_budget(4095), "lane_budget"),
        #[expect(clippy::reversed_empty_ranges, reason = "it is what is refused")]
        (ChannelOptions::new("b").versions(2..=1), "versions"),
    ] {
        match pair.one.channel(options).unwrap_err() {
            RegisterError::Limit { field: found, .. } => assert_eq!(found, field),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_channel_that_the_peer_lacks_is_refused_on_both_sides() {
    let pair = Pair::new(2);
    let mut chat = pair.one.channel(ChannelOptions::new("example.chat")).unwrap();
    pair.settle();
    let channel = ChannelId::new("example.chat").unwrap();
    let refused = SendError::NoChannel { peer: node(2), channel };
    assert_eq!(send(&mut chat, 2, ORDERED, b"hello"), Poll::Ready(Err(refused)));
    let found = events(&mut chat);
    assert!(
        matches!(&found[..], [PeerEvent { kind: PeerEventKind::Down { reason, .. }, .. }]
            if *reason == DownReason::NoChannel { channel }),
        "{found:?}"
    );
    assert_eq!(pair.two.stats().unknown_channels, 1);

    // Registered later, and after traffic has begun, it comes up.
    let mut late = pair.two.channel(ChannelOptions::new("example.chat")).unwrap();
    pair.settle();
    assert!(matches!(events(&mut chat)[..], [PeerEvent { kind: PeerEventKind::Up { .. }, .. }]));
    assert_eq!(send(&mut chat, 2, ORDERED, b"hello"), Poll::Ready(Ok(())));
    pair.settle();
    assert_eq!(messages(&mut late), [b"hello"]);

    // And down again when it is withdrawn.
    drop(late);
    pair.settle();
    assert_eq!(send(&mut chat, 2, ORDERED, b"hello"), Poll::Ready(Err(refused)));
    assert!(matches!(events(&mut chat)[..], [PeerEvent { kind: PeerEventKind::Down { .. }, .. }]));
}

#[test]
fn the_highest_version_of_both_is_agreed_on() {
    for (ours, theirs, agreed) in
        [(1..=1, 1..=1, Some(1)), (1..=4, 2..=9, Some(4)), (3..=3, 1..=7, Some(3)), (1..=2, 3..=4, None)]
    {
        let pair = Pair::new(3);
        let options = ChannelOptions::new("v");
        let mut one = pair.one.channel(options.clone().versions(ours.clone())).unwrap();
        let mut two = pair.two.channel(options.versions(theirs.clone())).unwrap();
        pair.settle();
        let channel = one.id();
        for (channel_end, peer, local, other) in
            [(&mut one, 2, &ours, &theirs), (&mut two, 1, &theirs, &ours)]
        {
            let found = events(channel_end);
            assert_eq!(channel_end.version(node(peer)), agreed);
            if agreed.is_none() {
                let reason = DownReason::ChannelVersion {
                    channel,
                    local: (*local.start(), *local.end()),
                    peer: (*other.start(), *other.end()),
                };
                assert!(
                    matches!(&found[..], [PeerEvent { kind: PeerEventKind::Down { reason: found, .. }, .. }] if *found == reason)
                );
                let refused = SendError::ChannelVersion { peer: node(peer), channel };
                assert_eq!(send(channel_end, peer, ORDERED, b""), Poll::Ready(Err(refused)));
            }
        }
    }
}

#[test]
fn a_channel_that_nobody_receives_from_blocks_no_other() {
    let pair = Pair::new(4);
    let options = ChannelOptions::new("slow").lane_budget(1 << 20);
    let (mut slow, mut slow_end) = pair.both(&options);
    let (mut quick, mut quick_end) = pair.both(&ChannelOptions::new("quick"));
    let mut taken = 0;
    for lane in [ORDERED, Lane::Bulk] {
        for _ in 0..1000 {
            while send(&mut slow, 2, lane, &[7; 30_000]) == Poll::Ready(Ok(())) {
                taken += 1;
            }
            pair.settle();
        }
    }
    // Two lanes of a mebibyte: what lies there is the budget, not more and hardly less.
    assert!((60..=70).contains(&taken), "{taken}");
    for number in 0..2000_u32 {
        assert_eq!(send(&mut quick, 2, ORDERED, &number.to_le_bytes()), Poll::Ready(Ok(())));
        assert_eq!(send(&mut quick, 2, Lane::Bulk, &[1; 5000]), Poll::Ready(Ok(())));
        pair.settle();
        assert_eq!(messages(&mut quick_end).len(), 2);
    }
    assert_eq!(messages(&mut slow_end).len(), taken);
    pair.settle();
    assert_eq!(send(&mut slow, 2, ORDERED, &[7; 30_000]), Poll::Ready(Ok(())));
}

/// Counts wake-ups.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Woken {
    /// How often since the last call.
    fn take(&self) -> usize {
        self.0.swap(0, Ordering::SeqCst)
    }
}

/// With a driver, a message wakes the driver's task, and that one the task of the channel which received it.
/// Without the driver the channels move messages themselves again.
#[test]
fn a_driver_wakes_only_the_channel_that_has_something() {
    let pair = Pair::new(3);
    let (mut sender, mut receiver) = pair.both(&ChannelOptions::new("test.one"));
    let (_kept, mut other) = pair.both(&ChannelOptions::new("test.two"));
    let mut driver = pair.two.driver().unwrap();
    assert!(pair.two.driver().is_none(), "a mux has one driver");
    let (drive, receive, idle) =
        (Arc::new(Woken::default()), Arc::new(Woken::default()), Arc::new(Woken::default()));
    let wakers = [&drive, &receive, &idle].map(|woken| Waker::from(Arc::clone(woken)));
    let mut payload = Vec::new();
    let mut listen = |channel: &mut Channel, waker: &Waker| {
        let mut cx = Context::from_waker(waker);
        // The events of the session first.
        while channel.poll_next(&mut cx, &mut payload).is_ready() {}
    };
    let poll = |driver: &mut MuxDriver| {
        assert!(driver.poll(&mut Context::from_waker(&wakers[0])).is_pending());
    };
    poll(&mut driver);
    listen(&mut receiver, &wakers[1]);
    listen(&mut other, &wakers[2]);
    poll(&mut driver);
    let counts = || [&drive, &receive, &idle].map(|woken| woken.take());
    counts();

    assert!(send(&mut sender, 2, ORDERED, b"one").is_ready());
    while pair.mesh.step() {}
    assert_eq!(counts(), [1, 0, 0]);
    poll(&mut driver);
    assert_eq!(counts(), [0, 1, 0]);
    assert_eq!(messages(&mut receiver), [b"one"]);

    // What has arrived when the driver goes is left to the channels.
    listen(&mut receiver, &wakers[1]);
    assert!(send(&mut sender, 2, ORDERED, b"two").is_ready());
    while pair.mesh.step() {}
    counts();
    drop(driver);
    assert_eq!(counts(), [0, 1, 1]);
    assert_eq!(messages(&mut receiver), [b"two"]);
    assert!(pair.two.driver().is_some());
}
