//! TCP's own measurements per peer, of a connection over a real link.
#![cfg(all(feature = "ebpf", feature = "testing"))]
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::cast_possible_truncation)]

mod common;

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread;

use x0_ebpf::testing::VethPair;
use x0_ebpf::{
    Direction, Fault, FaultInjector, LoadError, ProbeError, ProbeProgram, Share, SocketError, SocketProgram,
};

/// The mount point of a cgroup (version 2).
fn cgroup() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
    let found = mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (folder, kind) = (words.next()?, words.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(folder))
    });
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "no cgroup v2 is mounted");
        println!("not tested: no cgroup v2 is mounted");
    }
    found
}

#[test]
fn round_trips_retransmits_and_bytes() {
    let (Some(here), Some(there), Some(cgroup)) = (common::namespace(), common::namespace(), cgroup()) else {
        return;
    };
    let program = match SocketProgram::attach(&cgroup, 64) {
        Ok(program) => program,
        Err(error @ (SocketError::Denied | SocketError::Load(LoadError::Denied)))
            if std::env::var_os("CI").is_none() =>
        {
            println!("not tested: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let mut pair = VethPair::new(&here, &there).expect("a pair");
    pair.assign_addresses().expect("addresses");
    // Lost packets, so that something must be sent again.
    let mut injector = FaultInjector::load().expect("loaded");
    let name = pair.right().name();
    there.run(|| injector.attach(name, Direction::In)).expect("entered").expect("attached");
    let loss = Share::percent(5).expect("a share");
    injector.set(Direction::In, None, Fault { seed: common::seed(), loss, ..Fault::default() }).expect("set");

    let (client, server) = (IpAddr::V4(pair.left().address()), IpAddr::V4(pair.right().address()));
    let listener = there.run(|| TcpListener::bind((server, 0))).expect("entered").expect("bound");
    let port = listener.local_addr().expect("bound").port();
    let len = 4 << 20;
    let receiver = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accepted");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("read");
        bytes.len()
    });
    let mut stream = here.run(|| TcpStream::connect((server, port))).expect("entered").expect("connected");
    stream.write_all(&vec![7; len]).expect("written");
    drop(stream);
    assert_eq!(receiver.join().expect("the receiver"), len);

    // Closing goes on in the kernel after both ends have let go.
    let to_server = common::until(|| {
        let counters = program.peers().expect("peers").get(&server).copied()?;
        (counters.closed == 1).then_some(counters)
    });
    println!("to {server}: {to_server:?}");
    assert_eq!(to_server.opened, 1);
    assert_eq!(to_server.bytes_acknowledged, len as u64 + 2, "the payload, the SYN and the FIN");
    assert!(
        to_server.bytes_received <= 1,
        "the other end's FIN, unless the closing socket was done before it"
    );
    assert!(to_server.samples > 10 && to_server.retransmits > 0);
    let (rtt, rtt_min) = (to_server.rtt.expect("measured"), to_server.rtt_min.expect("measured"));
    assert!(rtt.as_secs() < 10 && rtt_min <= rtt);
    let to_client = common::until(|| {
        let counters = program.peers().expect("peers").get(&client).copied()?;
        (counters.closed == 1).then_some(counters)
    });
    println!("to {client}: {to_client:?}");
    assert_eq!((to_client.opened, to_client.bytes_received), (1, len as u64 + 1), "the payload and the FIN");
}

#[test]
fn a_folder_that_is_no_cgroup_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let error = SocketProgram::attach(folder.path(), 64).expect_err("not a cgroup");
    let text = error.to_string();
    assert!(text.contains("cgroup") || matches!(error, SocketError::Load(_)), "{text}");
    let error = SocketProgram::attach(folder.path(), 1).expect_err("too few");
    assert!(matches!(error, SocketError::Load(LoadError::Option { option: "peers_max", .. })), "{error}");
}

/// A connection that was open before the program was attached.
#[test]
fn the_tracepoint_knows_connections_from_before() {
    let (Some(here), Some(there)) = (common::namespace(), common::namespace()) else { return };
    let mut pair = VethPair::new(&here, &there).expect("a pair");
    pair.assign_addresses().expect("addresses");
    let (client, server) = (IpAddr::V4(pair.left().address()), IpAddr::V4(pair.right().address()));
    let listener = there.run(|| TcpListener::bind((server, 0))).expect("entered").expect("bound");
    let port = listener.local_addr().expect("bound").port();
    let mut stream = here.run(|| TcpStream::connect((server, port))).expect("entered").expect("connected");
    let (mut accepted, _) = listener.accept().expect("accepted");
    let program = match ProbeProgram::attach(64) {
        Ok(program) => program,
        Err(error @ (ProbeError::Denied | ProbeError::Absent | ProbeError::Load(LoadError::Denied)))
            if std::env::var_os("CI").is_none() =>
        {
            println!("not tested: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let mut byte = [0];
    for _ in 0..20 {
        stream.write_all(&[1]).expect("written");
        accepted.read_exact(&mut byte).expect("read");
        accepted.write_all(&byte).expect("written");
        stream.read_exact(&mut byte).expect("read");
    }
    let peers = program.peers().expect("peers");
    for address in [server, client] {
        let counters = peers[&address];
        println!("{address}: {counters:?}");
        assert!(counters.segments >= 20, "{counters:?}");
        assert!(
            counters.rtt.is_some_and(|rtt| rtt.as_secs() < 10) && counters.congestion_window > 0,
            "{counters:?}"
        );
    }
    assert!(matches!(
        ProbeProgram::attach(1),
        Err(ProbeError::Load(LoadError::Option { option: "peers_max", .. }))
    ));
}
