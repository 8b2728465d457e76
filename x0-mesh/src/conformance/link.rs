//! The contract of [`Link`] as a suite that any implementation can be run against.
//!
//! ```
//! use std::task::{Context, Poll, Waker};
//! use x0_mesh::conformance::link::{self, LinkBench};
//! use x0_mesh::link::{Link, MemorySegment};
//!
//! struct Memory;
//!
//! impl LinkBench for Memory {
//!     fn pair(&mut self) -> [Box<dyn Link>; 2] {
//!         let segment = MemorySegment::new(1232);
//!         let [one, two] = [([127, 0, 0, 1], 1), ([127, 0, 0, 1], 2)].map(|address| segment.link(address.into()));
//!         [Box::new(one), Box::new(two)]
//!     }
//!
//!     fn wait(&mut self, poll: &mut dyn FnMut(&mut Context<'_>) -> Poll<()>) {
//!         assert!(poll(&mut Context::from_waker(Waker::noop())).is_ready());
//!     }
//! }
//!
//! assert_eq!(link::check(&mut Memory), 7);
//! ```

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a broken rule is a panic that names it, as in any test"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};

use crate::link::{Link, LinkSendError, ReceivedFrames};

/// Frames that are sent without receiving, to fill the queues of a link.
const FLOOD: usize = 3000;
/// How often a frame is sent until it counts as never arriving: links lose frames.
const ATTEMPTS: usize = 20;

/// Makes links of one kind, and lets them run.
pub trait LinkBench {
    /// Two links that reach each other, at the addresses that [`Link::local`] gives.
    fn pair(&mut self) -> [Box<dyn Link>; 2];

    /// Polls until it is ready, letting time pass and tasks run in between, and polling again at the latest
    /// when the waker was called. It may also return after a while without readiness: a frame may be lost.
    fn wait(&mut self, poll: &mut dyn FnMut(&mut Context<'_>) -> Poll<()>);
}

/// Checks all rules, and returns how many there are.
///
/// # Panics
/// If a rule is broken; the text names it.
pub fn check(bench: &mut dyn LinkBench) -> usize {
    let rules: [fn(&mut Pair<'_>); 7] = [
        frames_arrive_whole_with_their_sender,
        both_directions_work_at_once,
        the_longest_frame_arrives_and_a_longer_one_is_refused,
        a_frame_replaces_what_the_buffer_held,
        many_frames_arrive_as_one_by_one,
        a_neighbour_that_does_not_exist_harms_nothing,
        a_receiver_that_does_not_receive_harms_nothing_for_ever,
    ];
    for rule in rules {
        let links = bench.pair();
        rule(&mut Pair { bench, links });
    }
    rules.len()
}

struct Pair<'a> {
    bench: &'a mut dyn LinkBench,
    links: [Box<dyn Link>; 2],
}

impl Pair<'_> {
    fn send(&mut self, from: usize, to: SocketAddr, frame: &[u8]) -> Result<(), LinkSendError> {
        let link = &mut self.links[from];
        let mut sent = None;
        self.bench.wait(&mut |cx| link.poll_send(cx, to, frame).map(|result| sent = Some(result)));
        sent.expect("a link that is busy takes a frame some time later")
    }

    /// Sends a frame until it arrives; returns the address that it came from.
    fn carry(&mut self, from: usize, frame: &[u8]) -> SocketAddr {
        let to = self.links[1 - from].local();
        for _ in 0..ATTEMPTS {
            self.send(from, to, frame).expect("a link takes a frame to a neighbour");
            let link = &mut self.links[1 - from];
            let mut buffer = b"to be replaced".to_vec();
            let mut found = None;
            self.bench.wait(&mut |cx| {
                loop {
                    match link.poll_recv(cx, &mut buffer) {
                        Poll::Ready(Ok(address)) if buffer == frame => {
                            found = Some(address);
                            return Poll::Ready(());
                        }
                        // A frame of an earlier attempt.
                        Poll::Ready(Ok(_)) => {}
                        Poll::Ready(Err(error)) => panic!("a link ends by itself: {error}"),
                        Poll::Pending => return Poll::Pending,
                    }
                }
            });
            if let Some(address) = found {
                return address;
            }
        }
        panic!("a frame of {} bytes never arrives", frame.len());
    }
}

fn frames_arrive_whole_with_their_sender(pair: &mut Pair<'_>) {
    for len in [1, 2, 16, 700, pair.links[0].mtu() - 1] {
        let frame: Vec<u8> = (0..=255).cycle().take(len).collect();
        assert_eq!(pair.carry(0, &frame), pair.links[0].local(), "a frame has the address of its sender");
    }
}

fn both_directions_work_at_once(pair: &mut Pair<'_>) {
    for turn in 0..20_u8 {
        pair.carry(usize::from(turn % 2), &[turn, 1]);
    }
}

fn the_longest_frame_arrives_and_a_longer_one_is_refused(pair: &mut Pair<'_>) {
    let mtu = pair.links[0].mtu();
    let to = pair.links[1].local();
    match pair.send(0, to, &vec![7; mtu + 1]) {
        Err(LinkSendError::TooLong { len, mtu: limit }) => assert_eq!((len, limit), (mtu + 1, mtu)),
        other => panic!("a frame that is longer than the MTU is refused as that, not {other:?}"),
    }
    pair.carry(0, &vec![8; mtu]);
}

fn a_frame_replaces_what_the_buffer_held(pair: &mut Pair<'_>) {
    pair.carry(0, b"a longer frame");
    pair.carry(0, b"short");
    // Nothing is there: the buffer is left alone, and the waker is called for the next frame.
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut buffer = b"kept".to_vec();
    let is_pending = pair.links[1].poll_recv(&mut Context::from_waker(&waker), &mut buffer).is_pending();
    if is_pending {
        assert_eq!(buffer, b"kept", "a receive that is pending leaves the buffer alone");
        // By another task than the one that waits; its own receive is not polled.
        let to = pair.links[1].local();
        for _ in 0..ATTEMPTS {
            pair.send(0, to, b"wake").expect("a link takes a frame to a neighbour");
            let seen = Arc::clone(&woken);
            pair.bench
                .wait(&mut |_| if seen.0.load(Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending });
            if woken.0.load(Ordering::SeqCst) {
                return;
            }
        }
        panic!("a receive that is pending is woken by a frame");
    }
}

fn many_frames_arrive_as_one_by_one(pair: &mut Pair<'_>) {
    let mtu = pair.links[0].mtu();
    let [from, to] = [0, 1].map(|at| pair.links[at].local());
    // The last one is shorter, or there is only one.
    for (frame_len, count, last_len) in [(mtu, 70, 9), (mtu, 5, mtu), (20, 100, 1), (300, 1, 300)] {
        let frames: Vec<Vec<u8>> = (0..count)
            .map(|number| vec![number; if number + 1 == count { last_len } else { frame_len }])
            .collect();
        let all = frames.concat();
        let mut missing: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
        for _ in 0..ATTEMPTS {
            let mut rest = &all[..];
            while !rest.is_empty() {
                let link = &mut pair.links[0];
                let mut taken = None;
                pair.bench.wait(&mut |cx| {
                    link.poll_send_many(cx, to, rest, frame_len).map(|result| taken = Some(result))
                });
                let taken = taken.expect("a link that is busy takes a frame some time later");
                let taken = taken.expect("a link takes frames to a neighbour");
                let is_whole = taken == rest.len() || taken.is_multiple_of(frame_len);
                assert!(taken > 0 && is_whole, "a link takes whole frames, and at least one");
                rest = &rest[taken..];
                take_many(&mut pair.links[1], from, &mut missing);
            }
            if missing.is_empty() {
                break;
            }
            let link = &mut pair.links[1];
            pair.bench.wait(&mut |cx| {
                let mut buffer = Vec::new();
                let received = ready!(link.poll_recv_many(cx, &mut buffer));
                forget(&received.expect("a link goes on"), from, &mut missing);
                Poll::Ready(())
            });
            take_many(&mut pair.links[1], from, &mut missing);
        }
        assert!(
            missing.is_empty(),
            "{} of {count} frames that are sent together never arrive",
            missing.len()
        );
    }
    // Frames that are too long are refused as one is.
    let too_long = vec![7; 2 * (mtu + 1)];
    let link = &mut pair.links[0];
    let mut refused = false;
    pair.bench.wait(&mut |cx| {
        link.poll_send_many(cx, to, &too_long, mtu + 1)
            .map(|result| refused = matches!(result, Err(LinkSendError::TooLong { .. })))
    });
    assert!(refused, "frames that are longer than the MTU are refused as that");
}

/// Receives what is there.
fn take_many(link: &mut Box<dyn Link>, from: SocketAddr, missing: &mut Vec<&[u8]>) {
    let mut buffer = Vec::new();
    while let Poll::Ready(received) =
        link.poll_recv_many(&mut Context::from_waker(Waker::noop()), &mut buffer)
    {
        forget(&received.expect("a link goes on"), from, missing);
    }
}

/// Crosses frames off that have arrived.
fn forget(received: &ReceivedFrames<'_>, from: SocketAddr, missing: &mut Vec<&[u8]>) {
    assert_eq!(received.from, from, "frames have the address of their sender");
    assert!(!received.frames.is_empty() && received.frame_len > 0, "there is at least one frame");
    for frame in received.frames.chunks(received.frame_len) {
        missing.retain(|one| *one != frame);
    }
}

fn a_neighbour_that_does_not_exist_harms_nothing(pair: &mut Pair<'_>) {
    let mut nowhere = pair.links[1].local();
    nowhere.set_port(9);
    for _ in 0..5 {
        // Taken and lost, or refused by the system.
        if let Err(LinkSendError::Closed | LinkSendError::TooLong { .. }) = pair.send(0, nowhere, b"lost") {
            panic!("a neighbour that does not exist ends no link");
        }
        pair.carry(0, b"there");
        pair.carry(1, b"back");
    }
}

fn a_receiver_that_does_not_receive_harms_nothing_for_ever(pair: &mut Pair<'_>) {
    let to = pair.links[1].local();
    let mut cx = Context::from_waker(Waker::noop());
    for number in 0..FLOOD {
        // Taken, lost or not taken.
        let _ = pair.links[0].poll_send(&mut cx, to, &number.to_le_bytes());
    }
    let mut buffer = Vec::new();
    while pair.links[1].poll_recv(&mut cx, &mut buffer).is_ready() {}
    pair.carry(0, b"after the flood");
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}
