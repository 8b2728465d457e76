//! Replicas of [`Peers`] on a network in virtual time that loses, doubles and reorders.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use x0_crdt::{Dot, JoinError, Peers, PeersError, PeersInput, PeersOutput, Replicated, SessionError};

use super::random::Random;

/// The event by which an impostor was found. No other error is due to an honest peer.
fn impostor(handled: Result<(), PeersError<u64>>) -> Option<Dot> {
    match handled {
        Ok(()) | Err(PeersError::Unknown { .. }) => None,
        Err(PeersError::Session { source: SessionError::Join(JoinError::Impostor { dot, .. }), .. }) => {
            Some(dot)
        }
        Err(error) => panic!("no datagram of an honest peer is an error: {error:?}"),
    }
}

pub(crate) struct Net<R: Replicated> {
    pub(crate) random: Random,
    pub(crate) now: Duration,
    pub(crate) nodes: Vec<Peers<u64, R>>,
    /// How many of a hundred datagrams are lost; some more are doubled.
    pub(crate) loss: u64,
    /// Under way: when it arrives, a number to tell equal times apart, to, from.
    wire: BTreeMap<(Duration, u64), (u64, u64, Vec<u8>)>,
    sent: u64,
    /// How often a replica has learnt that it lacks events of its own.
    pub(crate) impostors: u64,
    /// The events of these reports, and those that joins found with two contents, as this reads them.
    pub(crate) reported: BTreeSet<Dot>,
    pub(crate) equivocating: fn(&R::Joined) -> Vec<Dot>,
}

impl<R: Replicated> Net<R> {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let loss = random.below(51);
        Self {
            random,
            now: Duration::ZERO,
            nodes: Vec::new(),
            loss,
            wire: BTreeMap::new(),
            sent: 0,
            impostors: 0,
            reported: BTreeSet::new(),
            equivocating: |_| Vec::new(),
        }
    }

    fn pump(&mut self) {
        for (from, node) in (0_u64..).zip(&mut self.nodes) {
            while let Some(output) = node.poll_output() {
                if let PeersOutput::Joined { joined, .. } = &output {
                    self.reported.extend((self.equivocating)(joined));
                }
                let PeersOutput::Send { to, bytes } = output else { continue };
                let copies = match self.random.below(100) {
                    dice if dice < self.loss => 0,
                    dice if dice < self.loss + 5 => 2,
                    _ => 1,
                };
                for _ in 0..copies {
                    self.sent += 1;
                    let arrives = self.now + Duration::from_millis(1 + self.random.below(40));
                    self.wire.insert((arrives, self.sent), (to, from, bytes.clone()));
                }
            }
        }
    }

    fn note(&mut self, handled: Result<(), PeersError<u64>>) {
        if let Some(dot) = impostor(handled) {
            self.impostors += 1;
            self.reported.insert(dot);
        }
    }

    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.pump();
            let timeout = self.nodes.iter().filter_map(Peers::poll_timeout).min().unwrap();
            let arrival = self.wire.keys().next().map_or(Duration::MAX, |(at, _)| *at);
            let next = timeout.min(arrival).max(self.now + Duration::from_micros(1));
            if next > end {
                self.now = end;
                return;
            }
            self.now = next;
            while let Some(entry) = self.wire.first_entry().filter(|entry| entry.key().0 <= next) {
                let (to, from, bytes) = entry.remove();
                let input = PeersInput::Datagram { from: &from, bytes: &bytes };
                let handled = self.nodes[to as usize].handle(next, input);
                self.note(handled);
            }
            for at in 0..self.nodes.len() {
                if self.nodes[at].poll_timeout().unwrap() <= next {
                    let handled = self.nodes[at].handle(next, PeersInput::Timeout);
                    self.note(handled);
                }
            }
        }
    }

    /// Runs until `is_done`, for an hour at most.
    pub(crate) fn run_until(&mut self, seed: u64, is_done: impl Fn(&[Peers<u64, R>]) -> bool) {
        let end = self.now + Duration::from_secs(3_600);
        while !is_done(&self.nodes) {
            assert!(self.now < end, "seed {seed}: not the same");
            self.run(Duration::from_millis(500));
        }
    }
}
