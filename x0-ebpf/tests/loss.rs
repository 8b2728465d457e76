//! Losses of a pair: in each direction by itself, of a share, and ended.
#![cfg(feature = "testing")]
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod common;

use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::time::Duration;

use x0_ebpf::testing::{Namespace, VethEnd, VethPair};

/// A socket of each end, connected to the other one.
struct Ends {
    pair: VethPair,
    left: UdpSocket,
    right: UdpSocket,
}

fn ends() -> Option<Ends> {
    if Command::new("nft").arg("--version").stdout(Stdio::null()).status().is_err() {
        assert!(std::env::var_os("CI").is_none(), "needs the program nft");
        println!("not tested: needs the program nft");
        return None;
    }
    let namespaces = [common::namespace()?, common::namespace()?];
    let mut pair = VethPair::new(&namespaces[0], &namespaces[1]).expect("a pair");
    pair.assign_addresses().expect("addresses");
    let open = |namespace: &Namespace, own: &VethEnd, other: &VethEnd| {
        let socket =
            namespace.run(|| UdpSocket::bind((own.address(), 7000))).expect("inside").expect("bound");
        socket.connect((other.address(), 7000)).expect("connected");
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
        socket
    };
    let left = open(&namespaces[0], pair.left(), pair.right());
    let right = open(&namespaces[1], pair.right(), pair.left());
    Some(Ends { pair, left, right })
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 16];
    let len = socket.recv(&mut buffer).expect("received");
    buffer[..len].to_vec()
}

#[test]
fn each_end_loses_what_it_is_set_to() {
    let Some(Ends { mut pair, left, right }) = ends() else { return };
    // Both know each other's hardware address from here on.
    for (from, to) in [(&left, &right), (&right, &left)] {
        from.send(b"before").expect("sent");
        assert_eq!(receive(to), b"before");
    }
    for [left_loss, right_loss] in [[0, 100], [100, 0], [100, 100], [0, 0], [0, 100], [0, 0]] {
        pair.set_loss(left_loss, right_loss).expect("rules");
        for (from, to, loss) in [(&left, &right, right_loss), (&right, &left, left_loss)] {
            from.send(b"while").expect("a sender notices nothing");
            if loss == 0 {
                assert_eq!(receive(to), b"while");
            }
        }
        // Frames of a pair keep their order: what has not come before this one is lost.
        pair.set_loss(0, 0).expect("rules");
        for (from, to) in [(&left, &right), (&right, &left)] {
            from.send(b"after").expect("sent");
            assert_eq!(receive(to), b"after", "losses of {left_loss} and {right_loss} percent");
        }
    }
}

#[test]
fn a_share_is_lost_at_random() {
    let Some(Ends { mut pair, left, right }) = ends() else { return };
    left.send(b"before").expect("sent");
    assert_eq!(receive(&right), b"before");
    pair.set_loss(0, 30).expect("rules");
    let mut arrived = 0;
    for _ in 0..100 {
        for _ in 0..20 {
            left.send(b"some").expect("sent");
        }
        // The queue of the receiver takes a hundred of them.
        right.set_nonblocking(true).expect("a mode");
        while right.recv(&mut [0; 16]).is_ok() {
            arrived += 1;
        }
    }
    right.set_nonblocking(false).expect("a mode");
    pair.set_loss(0, 0).expect("rules");
    left.send(b"end").expect("sent");
    while receive(&right) != b"end" {
        arrived += 1;
    }
    // 1400 of 2000, and eight times the standard deviation.
    assert!((1236..1564).contains(&arrived), "{arrived}");
}
