//! The ring of the demo as network namespaces that veth pairs join, on Linux and as root.
//!
//! The demo itself moves into a namespace, from which a pair leads to each node: for its clients, and not for
//! messages between nodes, because no namespace forwards.

use std::fmt::Write as _;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command};

use anyhow::{Context, Result};
use x0_ebpf::testing::{Namespace, VethEnd, VethPair};

/// Ports of a namespace are the node's alone.
const LISTEN: u16 = 7400;
const LINK: u16 = 7600;

/// A namespace for each node and for a spare one, and the pairs between them. Gone when it is dropped.
#[derive(Debug)]
pub(crate) struct Ring {
    /// By the number of the node; the last one is that of the spare.
    namespaces: Vec<Namespace>,
    /// The pair at position n joins the nodes n + 1 and n + 2 by its left and right end.
    ring: Vec<VethPair>,
    /// From the namespace of the demo to each node, and to the spare.
    direct: Vec<VethPair>,
    /// From nodes, by their position, to the spare.
    spare: Vec<(usize, VethPair)>,
}

impl Ring {
    /// Creates the namespaces and pairs for `count` nodes and a spare, and moves the calling thread into the
    /// namespace of the demo. After an error the thread is where it was, and nothing remains.
    pub(crate) fn new(count: usize) -> Result<Ring> {
        let own = Namespace::new()?;
        let namespaces = (0..=count).map(|_| Namespace::new()).collect::<Result<Vec<_>, _>>()?;
        let join = |left: &Namespace, right: &Namespace| {
            let mut pair = VethPair::new(left, right)?;
            pair.assign_addresses()?;
            anyhow::Ok(pair)
        };
        let ring = (0..count).map(|at| join(&namespaces[at], &namespaces[(at + 1) % count]));
        let ring = ring.collect::<Result<Vec<_>>>()?;
        let direct = namespaces.iter().map(|namespace| join(&own, namespace)).collect::<Result<Vec<_>>>()?;
        let spare = [0, 2].into_iter().map(|at| Ok((at, join(&namespaces[at], &namespaces[count])?)));
        let spare = spare.collect::<Result<Vec<_>>>()?;
        own.enter()?;
        Ok(Ring { namespaces, ring, direct, spare })
    }

    /// The address at which clients reach node `number`.
    pub(crate) fn address(&self, number: usize) -> SocketAddr {
        (self.direct[number - 1].right().address(), LISTEN).into()
    }

    /// The links of node `number`, as lines of its configuration. Both ends of the ring dial, so that a node
    /// that was started again waits for no other; the spare dials.
    pub(crate) fn links(&self, number: usize) -> String {
        let (at, count) = (number - 1, self.ring.len());
        let mut links = Vec::new();
        if at == count {
            links.extend(self.spare.iter().map(|(_, pair)| (pair.right(), Some(pair.left()))));
        } else {
            let (after, before) = (&self.ring[at], &self.ring[(at + count - 1) % count]);
            links.push((after.left(), Some(after.right())));
            links.push((before.right(), Some(before.left())));
            let to_spare = self.spare.iter().filter(|(node, _)| *node == at);
            links.extend(to_spare.map(|(_, pair)| (pair.left(), None)));
        }
        let address = |end: &VethEnd| SocketAddr::from((end.address(), LINK));
        let mut text = String::new();
        for (own, neighbour) in links {
            let neighbour = neighbour.map_or_else(String::new, |end| format!("\"{}\"", address(end)));
            let own = address(own);
            // Writing to a string does not fail.
            let _ = write!(text, "\n[[links]]\naddress = \"{own}\"\nneighbours = [{neighbour}]\n");
        }
        text
    }

    /// Starts a program in the namespace of node `number`.
    pub(crate) fn spawn(&self, number: usize, command: &mut Command) -> io::Result<Child> {
        // A program runs in the namespace of the thread that starts it.
        self.namespaces[number - 1].run(|| command.spawn()).map_err(io::Error::other)?
    }

    /// Holds the port of node `number`, which was killed: a machine without power replies to nothing.
    pub(crate) fn hold(&self, number: usize) -> Option<UdpSocket> {
        let address = self.address(number);
        self.namespaces[number - 1].run(|| UdpSocket::bind(address)).ok()?.ok()
    }

    /// Sets the link between node `number` and the next one down or up.
    pub(crate) fn set_cut(&mut self, number: usize, is_cut: bool) -> Result<()> {
        let pair = &mut self.ring[number - 1];
        let done = if is_cut { pair.cut() } else { pair.mend() };
        done.with_context(|| format!("cannot change the link after node {number}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The thread of the test moves, which ends with it.
    #[test]
    fn the_ends_of_a_ring_of_namespaces_reach_each_other() {
        let ring = match Ring::new(5) {
            Ok(ring) => ring,
            Err(error) => {
                assert!(std::env::var_os("CI").is_none(), "{error:#}");
                eprintln!("skipped: {error:#}");
                return;
            }
        };
        let addresses = |number| -> Vec<SocketAddr> {
            let text = ring.links(number);
            text.split('"').skip(1).step_by(2).map(|address| address.parse().unwrap()).collect()
        };
        // Each address that a node dials is one of a link of another node, and answers from there.
        for (number, dialled) in [(1, 2), (2, 2), (5, 2), (6, 2)] {
            let all = addresses(number);
            assert!(all.len() >= 2 * dialled, "{all:?}");
            for pair in all.chunks(2).take(dialled) {
                let [own, neighbour] = pair[..] else { unreachable!() };
                let other = (1..=6).find(|other| *other != number && addresses(*other).contains(&neighbour));
                let at = other.unwrap();
                let there = ring.namespaces[at - 1].run(|| UdpSocket::bind(neighbour)).unwrap().unwrap();
                let here = ring.namespaces[number - 1].run(|| UdpSocket::bind(own)).unwrap().unwrap();
                here.send_to(b"x", neighbour).unwrap();
                there.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
                assert_eq!(there.recv_from(&mut [0; 8]).unwrap(), (1, own));
            }
        }
        // The namespace of the demo, which is that of this thread now.
        for number in 1..=6 {
            let held = ring.hold(number).unwrap();
            held.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
            let client = UdpSocket::bind("0.0.0.0:0").unwrap();
            client.send_to(b"x", ring.address(number)).unwrap();
            assert_eq!(held.recv_from(&mut [0; 8]).unwrap().0, 1);
        }
    }
}
