//! QUIC on a path that loses packets by chance and is not congested: messages arrive late, and the connection
//! carries what its services send. And a process that ends without a word, because its last packets are lost.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that prints what it measures, and fails by panicking"
)]

mod quic_common;

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use quic_common::{Domain, node, soon, up};
use quinn::udp::{RecvMeta, Transmit as Packet};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, interval, sleep_until};
use x0_mesh::quic::{QuicOptions, QuicTransport, ResetKey};
use x0_mesh::{DownReason, Lane, Next, Transmit, TransportExt};

/// The time of a packet from one end to the other.
const DELAY: Duration = Duration::from_millis(1);

/// Packets that have arrived, and the task that waits for the next one.
type Arrived = (VecDeque<Vec<u8>>, Option<Waker>);
type Packets = (UnboundedSender<(Instant, Vec<u8>)>, UnboundedReceiver<(Instant, Vec<u8>)>);

/// One end of a path of two sockets.
#[derive(Debug)]
struct Lossy {
    local: SocketAddr,
    peer: SocketAddr,
    /// Of a thousand packets that leave, how many are lost.
    lost: Mutex<u64>,
    /// Whether the process that had it has ended: what arrives is for the next one.
    is_gone: AtomicBool,
    random: Mutex<u64>,
    out: UnboundedSender<(Instant, Vec<u8>)>,
    arrived: Arc<Mutex<Arrived>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lossy {
    fn path(seed: u64) -> [Arc<Lossy>; 2] {
        let [one, two]: [Packets; 2] = [unbounded_channel(), unbounded_channel()];
        let ends = [SocketAddr::from(([10, 0, 0, 1], 1)), SocketAddr::from(([10, 0, 0, 2], 1))];
        let end = |at: usize, out, mut packets: UnboundedReceiver<(Instant, Vec<u8>)>| {
            let arrived = Arc::<Mutex<Arrived>>::default();
            let queue = Arc::clone(&arrived);
            tokio::spawn(async move {
                while let Some((due, packet)) = packets.recv().await {
                    sleep_until(due).await;
                    let mut queue = lock(&queue);
                    queue.0.push_back(packet);
                    if let Some(waker) = queue.1.take() {
                        waker.wake();
                    }
                }
            });
            Arc::new(Lossy {
                is_gone: AtomicBool::new(false),
                local: ends[at],
                peer: ends[1 - at],
                lost: Mutex::new(0),
                random: Mutex::new(seed * 2 + at as u64),
                out,
                arrived,
            })
        };
        [end(0, one.0, two.1), end(1, two.0, one.1)]
    }

    /// The socket of the next process at this end.
    fn next(&self) -> Arc<Lossy> {
        self.is_gone.store(true, Ordering::SeqCst);
        lock(&self.arrived).1 = None;
        Arc::new(Lossy {
            is_gone: AtomicBool::new(false),
            local: self.local,
            peer: self.peer,
            lost: Mutex::new(0),
            random: Mutex::new(0),
            out: self.out.clone(),
            arrived: Arc::clone(&self.arrived),
        })
    }

    /// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
    fn is_lost(&self) -> bool {
        let mut state = lock(&self.random);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = *state;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (value ^ (value >> 31)) % 1000 < *lock(&self.lost)
    }
}

#[derive(Debug)]
struct Writable;

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncUdpSocket for Lossy {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable)
    }

    fn try_send(&self, packet: &Packet<'_>) -> io::Result<()> {
        if !self.is_lost() {
            let _ = self.out.send((Instant::now() + DELAY, packet.contents.to_vec()));
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        if self.is_gone.load(Ordering::SeqCst) {
            return Poll::Pending;
        }
        let mut arrived = lock(&self.arrived);
        let Some(packet) = arrived.0.pop_front() else {
            arrived.1 = Some(cx.waker().clone());
            return Poll::Pending;
        };
        buffers[0][..packet.len()].copy_from_slice(&packet);
        meta[0] =
            RecvMeta { addr: self.peer, len: packet.len(), stride: packet.len(), ecn: None, dst_ip: None };
        Poll::Ready(Ok(1))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }
}

fn options(domain: &Domain, number: u64, socket: &Lossy) -> QuicOptions {
    let identity = domain.identity(number);
    QuicOptions::new(node(number), socket.local, identity.server_config(), identity.client_config())
        .seed(number)
}

fn transport(domain: &Domain, number: u64, peer: u64, socket: Arc<Lossy>) -> QuicTransport {
    let options = options(domain, number, &socket).peer(node(peer), socket.peer);
    QuicTransport::bind_on(options, socket).unwrap()
}

/// The latencies of messages of a steady service while both directions lose packets, in order.
async fn latencies(
    seed: u64,
    lost_of_thousand: u64,
    messages: u32,
    pause: Duration,
    len: usize,
) -> Vec<Duration> {
    let domain = Domain::new("mesh.test");
    let sockets = Lossy::path(seed);
    let mut sender = transport(&domain, 1, 2, Arc::clone(&sockets[0]));
    let mut receiver = transport(&domain, 2, 1, Arc::clone(&sockets[1]));
    up(&mut sender, 2).await;
    up(&mut receiver, 1).await;
    for socket in &sockets {
        *lock(&socket.lost) = lost_of_thousand;
    }
    let begin = Instant::now();
    let receive = async {
        let mut payload = Vec::new();
        let mut found = Vec::new();
        while found.len() < messages as usize {
            match soon(receiver.next(&mut payload)).await.unwrap() {
                Next::Message(_) => {
                    let number = u32::from_le_bytes(payload[..4].try_into().unwrap());
                    found.push(begin.elapsed().saturating_sub(pause * number));
                }
                Next::Event(event) => println!("{event:?}"),
            }
        }
        found
    };
    let send = async {
        let mut pace = interval(pause);
        for number in 0..messages {
            pace.tick().await;
            let mut payload = vec![0; len];
            payload[..4].copy_from_slice(&number.to_le_bytes());
            sender.send(&Transmit { to: node(2), lane: Lane::Ordered(0), payload: &payload }).await.unwrap();
        }
        // Drives the transport until the other end has everything.
        loop {
            sender.event().await;
        }
    };
    let mut latencies = tokio::select! {
        found = receive => found,
        () = send => panic!("the sender does not end"),
    };
    latencies.sort_unstable();
    latencies
}

/// 30 % of the packets of each direction are lost, and 100 kB/s are sent. In virtual time. With a window that
/// losses shrink to two packets, the connection carries less than that, and soon nothing.
#[tokio::test(start_paused = true)]
async fn a_steady_service_outlives_the_loss_of_a_third_of_all_packets() {
    for seed in 1..=5 {
        let found = latencies(seed, 300, 4000, Duration::from_millis(5), 500).await;
        let [median, most] = [50, 99].map(|percent| found[found.len() * percent / 100]);
        println!("seed {seed}: median {median:?}, 99 % {most:?}, longest {:?}", found[found.len() - 1]);
        assert!(median < Duration::from_millis(30), "seed {seed}: {median:?}");
        assert!(most < Duration::from_millis(150), "seed {seed}: {most:?}");
    }
}

/// The time until a peer is connected to the next process of a node that has died without a word. In virtual
/// time.
async fn until_the_next_process(key: Option<ResetKey>) -> Duration {
    let domain = Domain::new("mesh.test");
    let [near, far] = Lossy::path(1);
    let mut peer = transport(&domain, 1, 2, near);
    let start = |socket: Arc<Lossy>| {
        let mut options = options(&domain, 2, &socket);
        options.reset_key = key.clone();
        QuicTransport::bind_on(options, socket).unwrap()
    };
    let died = start(Arc::clone(&far));
    let epoch = up(&mut peer, 2).await;
    *lock(&far.lost) = 1000;
    drop(died);
    let mut next = start(far.next());
    let begin = Instant::now();
    let reason = if key.is_some() { DownReason::Restarted } else { DownReason::TimedOut };
    assert_eq!(quic_common::down(&mut peer, 2).await, (epoch, reason));
    up(&mut peer, 2).await;
    up(&mut next, 1).await;
    begin.elapsed()
}

/// The packet that shows the peer that the connection is gone is its next one: at the latest, a keep-alive.
#[tokio::test(start_paused = true)]
async fn a_peer_learns_at_once_that_a_node_has_restarted() {
    let with_key = until_the_next_process(Some(ResetKey::new([7; ResetKey::LEN]))).await;
    let without = until_the_next_process(None).await;
    println!("{with_key:?} with a key, {without:?} without");
    assert!(with_key < Duration::from_millis(700), "{with_key:?}");
    assert!(without > Duration::from_millis(1400), "{without:?}");
}
