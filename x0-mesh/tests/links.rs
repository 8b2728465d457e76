//! The contract of `Link`, held against each implementation, and faults of a single link.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use x0_mesh::Direction;
use x0_mesh::conformance::link::{LinkBench, check};
use x0_mesh::link::{
    Link, LinkEvent, LinkFaultInjector, LinkRecvError, LinkSendError, MemorySegment, UdpLink, UdpLinkOptions,
};

fn at(number: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], number))
}

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

struct Memory;

impl LinkBench for Memory {
    fn pair(&mut self) -> [Box<dyn Link>; 2] {
        let segment = MemorySegment::new(1232);
        [1, 2].map(|number| Box::new(segment.link(at(number))) as Box<dyn Link>)
    }

    fn wait(&mut self, poll: &mut dyn FnMut(&mut Context<'_>) -> Poll<()>) {
        let _ = poll(&mut cx());
    }
}

struct Udp {
    runtime: tokio::runtime::Runtime,
    address: SocketAddr,
}

impl LinkBench for Udp {
    fn pair(&mut self) -> [Box<dyn Link>; 2] {
        let _inside = self.runtime.enter();
        [1, 2].map(|_| Box::new(UdpLink::open(&UdpLinkOptions::new(self.address)).unwrap()) as Box<dyn Link>)
    }

    fn wait(&mut self, poll: &mut dyn FnMut(&mut Context<'_>) -> Poll<()>) {
        // A frame that was lost is sent again by the suite.
        let _ = self
            .runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(2), poll_fn(poll)).await });
    }
}

/// One call sends frames of one length, and one call receives them.
#[cfg(target_os = "linux")]
#[test]
fn udp_frames_travel_in_batches() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut bench = Udp { runtime, address: "127.0.0.1:0".parse().unwrap() };
    let [mut one, mut two] = bench.pair();
    let frames: Vec<u8> = (0..=255).cycle().take(20 * 1200 + 7).collect();
    let (to, mut sent) = (two.local(), None);
    bench.wait(&mut |cx| one.poll_send_many(cx, to, &frames, 1200).map(|result| sent = Some(result)));
    assert_eq!(sent.unwrap().unwrap(), frames.len());
    let mut found = None;
    bench.wait(&mut |cx| {
        let mut buffer = Vec::new();
        let received = std::task::ready!(two.poll_recv_many(cx, &mut buffer)).unwrap();
        found = Some((received.from, received.frame_len, received.frames.to_vec()));
        Poll::Ready(())
    });
    assert!(found.unwrap() == (one.local(), 1200, frames));
}

#[test]
fn a_memory_link_keeps_the_contract() {
    assert_eq!(check(&mut Memory), 7);
}

#[test]
fn a_udp_link_keeps_the_contract() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let address: SocketAddr = address.parse().unwrap();
        assert_eq!(check(&mut Udp { runtime, address }), 7, "{address}");
    }
}

/// A fault injector without faults, and one that loses a third of all frames.
struct Faulty(f64);

impl LinkBench for Faulty {
    fn pair(&mut self) -> [Box<dyn Link>; 2] {
        Memory.pair().map(|link| {
            let (link, handle) = LinkFaultInjector::new(link, 7);
            handle.lose(Direction::Send, self.0);
            handle.lose(Direction::Receive, self.0);
            Box::new(link) as Box<dyn Link>
        })
    }

    fn wait(&mut self, poll: &mut dyn FnMut(&mut Context<'_>) -> Poll<()>) {
        let _ = poll(&mut cx());
    }
}

#[test]
fn a_faulty_link_keeps_the_contract() {
    assert_eq!(check(&mut Faulty(0.0)), 7);
    assert_eq!(check(&mut Faulty(0.3)), 7);
}

#[test]
fn faults_lose_frames_of_one_direction() {
    let segment = MemorySegment::new(100);
    let (mut one, handle) = LinkFaultInjector::new(segment.link(at(1)), 1);
    let mut two = segment.link(at(2));
    let mut exchange = || {
        assert!(matches!(one.poll_send(&mut cx(), at(2), b"to two"), Poll::Ready(Ok(()))));
        assert!(matches!(two.poll_send(&mut cx(), at(1), b"to one"), Poll::Ready(Ok(()))));
        let mut frame = Vec::new();
        (two.poll_recv(&mut cx(), &mut frame).is_ready(), one.poll_recv(&mut cx(), &mut frame).is_ready())
    };
    assert_eq!(exchange(), (true, true));
    handle.lose(Direction::Send, 1.0);
    assert_eq!(exchange(), (false, true));
    handle.mend();
    handle.lose(Direction::Receive, 1.0);
    assert_eq!(exchange(), (true, false));
    handle.cut();
    assert_eq!(exchange(), (false, false));
    assert_eq!(handle.dropped(), 4);
    handle.mend();
    assert_eq!(exchange(), (true, true));
}

#[test]
fn a_segment_changes_its_mtu_and_replaces_links() {
    let segment = MemorySegment::new(100);
    let mut one = segment.link(at(1));
    assert!(one.poll_event(&mut cx()).is_pending());
    segment.set_mtu(50);
    assert_eq!(one.poll_event(&mut cx()), Poll::Ready(LinkEvent::MtuChanged { mtu: 50 }));
    let refused = one.poll_send(&mut cx(), at(2), &[0; 51]);
    assert!(matches!(refused, Poll::Ready(Err(LinkSendError::TooLong { len: 51, mtu: 50 }))));
    let mut later = segment.link(at(1));
    let mut frame = Vec::new();
    assert!(matches!(one.poll_recv(&mut cx(), &mut frame), Poll::Ready(Err(LinkRecvError::Closed))));
    assert!(matches!(one.poll_send(&mut cx(), at(1), b"x"), Poll::Ready(Err(LinkSendError::Closed))));
    drop(one);
    assert!(later.poll_recv(&mut cx(), &mut frame).is_pending());
}

#[test]
fn a_port_in_use_is_an_error_that_names_it() {
    let options = UdpLinkOptions::new("127.0.0.1:0".parse().unwrap());
    assert!(UdpLink::open(&options).unwrap_err().to_string().contains("runtime"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let first = UdpLink::open(&options.mtu(1400)).unwrap();
    assert_eq!(first.mtu(), 1400);
    let taken = UdpLink::open(&UdpLinkOptions::new(first.local())).unwrap_err().to_string();
    assert!(taken.contains(&first.local().to_string()), "{taken}");
}
