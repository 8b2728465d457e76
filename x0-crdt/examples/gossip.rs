//! A map that any number of programs write to at once, over plain UDP.
//!
//! `cargo run -p x0-crdt --example gossip -- 127.0.0.1:7001 127.0.0.1:7002` is one node, the first address
//! its own, the others those of its peers. Start one for each address, in any order. A line `key value`
//! writes, a line `key` removes, no matter who can be reached; what others write is printed. The datagrams
//! are not authenticated: among strangers, carry them over `x0_mesh` instead.
//!
//! Without arguments it tries itself: three nodes on this machine, every third datagram lost, each writing
//! and removing; and says what it took until all held the same.
#![allow(clippy::print_stdout, reason = "a program that talks to who started it")]

use std::collections::BTreeMap;
use std::error::Error;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use x0_crdt::{CausalMap, Entry, HashKey, ReplicaId, Session, SessionInput, SessionOptions, SessionOutput};

/// Known to members only.
const KEY: HashKey = HashKey::new(*b"gossip's own key");

fn main() -> Result<(), Box<dyn Error>> {
    let mut addresses = std::env::args().skip(1).map(|text| text.parse::<SocketAddr>());
    let Some(own) = addresses.next().transpose()? else { return try_out() };
    let peers = addresses.collect::<Result<Vec<_>, _>>()?;
    let mut node = Node::bind(own, &peers, 0)?;
    let lines = lines();
    loop {
        while let Ok(line) = lines.try_recv() {
            match line.trim().split_once(' ') {
                Some((key, value)) => node.put(key, value)?,
                None => node.remove(line.trim())?,
            }
        }
        for key in node.turn()? {
            let held = node.map.get(key.as_bytes());
            let values =
                held.iter().flat_map(Entry::siblings).map(|held| String::from_utf8_lossy(held.value));
            let values: Vec<_> = values.collect();
            println!("{key} = {}", if values.is_empty() { "nothing".into() } else { values.join(" | ") });
        }
    }
}

/// The lines of standard input, read by a thread, for reading them waits.
fn lines() -> Receiver<String> {
    let (to, lines) = mpsc::channel();
    thread::spawn(move || std::io::stdin().lines().map_while(Result::ok).try_for_each(|line| to.send(line)));
    lines
}

struct Node {
    map: CausalMap,
    /// One with each peer.
    sessions: BTreeMap<SocketAddr, Session>,
    socket: UdpSocket,
    origin: Instant,
    /// One datagram of so many is thrown away, for the try-out; none for 0.
    loses: u32,
    received: u32,
}

impl Node {
    fn bind(own: SocketAddr, peers: &[SocketAddr], loses: u32) -> Result<Node, Box<dyn Error>> {
        let socket = UdpSocket::bind(own)?;
        // Nothing is kept on disk, so each start is another incarnation: no event has two contents.
        let born = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let incarnation = u32::try_from(born.as_secs())?;
        let replica = ReplicaId::with_incarnation(socket.local_addr()?.port().into(), incarnation);
        let session = |peer: &SocketAddr| (*peer, Session::new(&SessionOptions::default(), born.as_secs()));
        Ok(Node {
            map: CausalMap::new(replica, KEY),
            sessions: peers.iter().map(session).collect(),
            socket,
            origin: Instant::now(),
            loses,
            received: 0,
        })
    }

    fn put(&mut self, key: &str, value: &str) -> Result<(), Box<dyn Error>> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        self.map.put(key.as_bytes(), u64::try_from(now.as_millis())?, value.as_bytes())?;
        self.changed(None)
    }

    fn remove(&mut self, key: &str) -> Result<(), Box<dyn Error>> {
        self.map.remove(key.as_bytes());
        self.changed(None)
    }

    /// Tells every session, but the one that it came by, that the map has changed.
    fn changed(&mut self, by: Option<SocketAddr>) -> Result<(), Box<dyn Error>> {
        for (_, session) in self.sessions.iter_mut().filter(|(peer, _)| Some(**peer) != by) {
            session.handle(self.origin.elapsed(), SessionInput::Changed, &mut self.map)?;
        }
        Ok(())
    }

    /// Waits for a datagram, or until something is due, and does all there is to do. The keys that others
    /// have changed.
    fn turn(&mut self) -> Result<Vec<String>, Box<dyn Error>> {
        let due = self.sessions.values().filter_map(Session::poll_timeout).min().unwrap_or(Duration::MAX);
        // A typed line waits for no longer than this.
        let wait = due.saturating_sub(self.origin.elapsed()).min(Duration::from_millis(20));
        self.socket.set_read_timeout(Some(wait.max(Duration::from_millis(1))))?;
        let mut datagram = [0; 2048];
        match self.socket.recv_from(&mut datagram) {
            Ok((len, from)) => self.datagram(from, &datagram[..len]),
            // No datagram; or one of ours came to an address where nobody is yet.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(error.into()),
        }
        let mut keys = Vec::new();
        for peer in self.sessions.keys().copied().collect::<Vec<_>>() {
            let Some(session) = self.sessions.get_mut(&peer) else { continue };
            session.handle(self.origin.elapsed(), SessionInput::Timeout, &mut self.map)?;
            let mut joined = false;
            while let Some(output) = session.poll_output() {
                match output {
                    // Lost datagrams are made up for, so one that could not be sent is one of them.
                    SessionOutput::Send(datagram) => drop(self.socket.send_to(&datagram, peer)),
                    SessionOutput::Joined(news) => {
                        joined = true;
                        keys.extend(news.keys.iter().map(|key| String::from_utf8_lossy(key).into_owned()));
                    }
                    // Nothing is kept on disk.
                    SessionOutput::Staged(_) => {}
                }
            }
            if joined {
                self.changed(Some(peer))?;
            }
        }
        Ok(keys)
    }

    fn datagram(&mut self, from: SocketAddr, datagram: &[u8]) {
        self.received += 1;
        if self.loses > 0 && self.received.is_multiple_of(self.loses) {
            return;
        }
        // Strangers are not answered.
        let Some(session) = self.sessions.get_mut(&from) else { return };
        if let Err(error) =
            session.handle(self.origin.elapsed(), SessionInput::Datagram(datagram), &mut self.map)
        {
            println!("{from}: {error}");
        }
    }
}

/// Three nodes that write, remove, and lose every third datagram, until they hold the same.
pub(crate) fn try_out() -> Result<(), Box<dyn Error>> {
    // Ports that are free now, for nodes that must know each other before they begin.
    let free = (0..3).map(|_| UdpSocket::bind(("127.0.0.1", 0))).collect::<Result<Vec<_>, _>>()?;
    let addresses = free.iter().map(UdpSocket::local_addr).collect::<Result<Vec<_>, _>>()?;
    drop(free);
    let begun = Instant::now();
    let nodes = addresses.iter().map(|own| {
        let peers: Vec<_> = addresses.iter().copied().filter(|peer| peer != own).collect();
        Node::bind(*own, &peers, 3)
    });
    let mut nodes = nodes.collect::<Result<Vec<_>, _>>()?;
    for (number, node) in nodes.iter_mut().enumerate() {
        for key in 0..100 {
            node.put(&format!("key-{key:03}"), &format!("by node {number}"))?;
        }
        node.remove(&format!("key-{number:03}"))?;
    }
    while nodes.windows(2).any(|pair| pair[0].map.frontier() != pair[1].map.frontier()) {
        if begun.elapsed() > Duration::from_secs(60) {
            return Err("after a minute they do not hold the same".into());
        }
        for node in &mut nodes {
            node.turn()?;
        }
    }
    let sent: u64 = nodes.iter().flat_map(|node| node.sessions.values()).map(|s| s.stats().sent_bytes).sum();
    let (keys, values) = (nodes[0].map.len(), nodes[0].map.sibling_count());
    println!(
        "three nodes hold the same {keys} keys with {values} values after {:.1?} and {sent} bytes",
        begun.elapsed()
    );
    Ok(())
}
