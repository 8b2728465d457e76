//! A node whose address changes, as by another network or by the NAT in front of it: QUIC over the mesh keeps
//! its epochs, whichever end dialled and whichever end moves.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that prints what it measures, and fails by panicking"
)]

mod quic_common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use quic_common::{Domain, node, soon, up};
use tokio::time::Instant;
use x0_mesh::link::{Link, LinkEvent, LinkRecvError, LinkSendError, MemoryLink, MemorySegment};
use x0_mesh::mesh::{Mesh, MeshOptions, MeshPort, address};
use x0_mesh::quic::{QuicOptions, QuicTransport};
use x0_mesh::{Lane, Next, PeerEventKind, Transmit, Transport, TransportExt};

const MOVES: usize = 4;

fn end(number: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], number))
}

/// A link with several addresses, of which one is in use: frames to the others are lost.
struct Moving {
    links: Vec<MemoryLink>,
    used: Arc<AtomicUsize>,
}

impl Moving {
    fn link(&mut self) -> &mut MemoryLink {
        let used = self.used.load(Ordering::SeqCst);
        &mut self.links[used]
    }
}

impl Link for Moving {
    /// As the node knows it: a NAT does not report a change.
    fn local(&self) -> SocketAddr {
        self.links[0].local()
    }

    fn mtu(&self) -> usize {
        self.links[0].mtu()
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        to: SocketAddr,
        frame: &[u8],
    ) -> Poll<Result<(), LinkSendError>> {
        self.link().poll_send(cx, to, frame)
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        frame: &mut Vec<u8>,
    ) -> Poll<Result<SocketAddr, LinkRecvError>> {
        let used = self.used.load(Ordering::SeqCst);
        let mut received = Poll::Pending;
        for (at, link) in self.links.iter_mut().enumerate() {
            // Each keeps the waker; what comes to an address that is not used is lost.
            while let Poll::Ready(result) = link.poll_recv(cx, frame) {
                if at == used {
                    received = Poll::Ready(result);
                    break;
                }
            }
        }
        received
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<LinkEvent> {
        self.link().poll_event(cx)
    }
}

fn transport(domain: &Domain, number: u64, peer: u64, port: MeshPort) -> (Mesh, QuicTransport) {
    let identity = domain.identity(number);
    let (server, client) = (identity.server_config(), identity.client_config());
    let mesh =
        Mesh::start(MeshOptions::new(node(number), server.clone(), client.clone()).port(port)).unwrap();
    let options = QuicOptions::new(node(number), address(node(number)), server, client)
        .peer(node(peer), address(node(peer)))
        .datagram_len_max(1200)
        .seed(number);
    let transport = QuicTransport::bind_on(options, mesh.socket()).unwrap();
    (mesh, transport)
}

/// Receives numbered messages until one of at least `until` has come; the longest pause between two.
async fn longest_pause(transport: &mut QuicTransport, until: u32, mut seen: Instant) -> Duration {
    let mut longest = Duration::ZERO;
    let mut payload = Vec::new();
    loop {
        match soon(transport.next(&mut payload)).await.unwrap() {
            Next::Message(_) => {
                longest = longest.max(seen.elapsed());
                seen = Instant::now();
                if u32::from_le_bytes(payload[..4].try_into().unwrap()) >= until {
                    return longest;
                }
            }
            Next::Event(event) => {
                assert!(!matches!(event.kind, PeerEventKind::Down { .. }), "an epoch has ended: {event:?}");
            }
        }
    }
}

/// `dials` says which of the two ends has the other one's first address, `moves` which end moves.
async fn moves(dials: [bool; 2], moves: usize) -> Duration {
    let domain = Domain::new("mesh.test");
    let segment = MemorySegment::new(1232);
    let used = [0, 1].map(|_| Arc::new(AtomicUsize::new(0)));
    let first = [end(100), end(200)];
    let mut ends = [0, 1].map(|at: usize| {
        let addresses = (0..=MOVES).map(|number| end(first[at].port() + u16::try_from(number).unwrap()));
        let links = addresses.map(|address| segment.link(address)).collect();
        let mut port = MeshPort::new(Moving { links, used: Arc::clone(&used[at]) });
        if dials[at] {
            port = port.neighbour(first[1 - at]);
        }
        Some(transport(&domain, at as u64 + 1, 2 - at as u64, port))
    });
    let [Some((one, mut sender)), Some((two, mut receiver))] = ends.each_mut().map(Option::take) else {
        panic!("both have started")
    };
    up(&mut sender, 2).await;
    up(&mut receiver, 1).await;
    let mut longest = Duration::ZERO;
    let mut number = 0_u32;
    for used_next in 1..=MOVES {
        used[moves].store(used_next, Ordering::SeqCst);
        let until = number + 50;
        let sending = async {
            let mut pace = tokio::time::interval(Duration::from_millis(10));
            // Without end: the receiver ends it.
            loop {
                pace.tick().await;
                number += 1;
                let payload = &number.to_le_bytes();
                let transmit = Transmit { to: node(2), lane: Lane::Ordered(0), payload };
                soon(sender.send(&transmit)).await.unwrap();
                while let Poll::Ready(event) =
                    sender.poll_event(&mut Context::from_waker(std::task::Waker::noop()))
                {
                    assert!(!matches!(event.kind, PeerEventKind::Down { .. }), "{event:?}");
                }
            }
        };
        let receiving = longest_pause(&mut receiver, until, Instant::now());
        tokio::select! {
            pause = receiving => longest = longest.max(pause),
            () = sending => {}
        }
    }
    drop((one, two));
    longest
}

/// In virtual time.
#[tokio::test(start_paused = true)]
async fn an_end_that_moves_keeps_its_epochs_whichever_dialled() {
    for dials in [[true, false], [false, true], [true, true]] {
        for moving in [0, 1] {
            let gap = moves(dials, moving).await;
            println!("dials {dials:?}, end {moving} moves {MOVES} times: the longest gap is {gap:?}");
            assert!(gap < Duration::from_millis(200), "{gap:?}");
        }
    }
}
