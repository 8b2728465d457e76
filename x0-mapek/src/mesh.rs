//! A ready healer for the connections of a node to its peers on [`x0_mesh`] (feature `mesh`).
//!
//! The transport dials a peer whose connection is lost, and routes go around a bad link. Neither ends a
//! connection that is up and carries nothing, or keeps a peer away whose connection ends again and again.
//! Each node runs a [`Healer`]:
//!
//! | action | on what | needs |
//! |---|---|---|
//! | [`Act::Reconnect`] | a peer that owes messages and sends none, while its connection is up | – |
//! | [`Act::Quarantine`] | [`HealerOptions::flaps_max`] new connections within [`FLAP_WINDOW`] | a majority of the members that is still connected without it |
//!
//! A quarantine is timed, and of both ends: the peer is notified, and blocks its own end for the same time. A
//! healer takes such a notice from the peer itself alone, for at most [`HealerOptions::quarantine`], and not
//! if it would lose its majority. A peer that sends it without a reason cuts off nobody but itself. A
//! quarantine ends by itself, also in a loop that is paused; one that made it worse is taken back.
//!
//! # Use
//! [`Healer`] is a protocol engine. Its driver takes an [`Observation`] every [`SAMPLE`], and carries out
//! each [`Output`]:
//!
//! ```
//! use std::time::Duration;
//! use x0_identity::NodeId;
//! use x0_mapek::Mode;
//! use x0_mapek::mesh::{Healer, HealerOptions, Input, LinkSample, Observation, Output, SAMPLE};
//!
//! let peer = NodeId::new(2).ok_or("zero is no node")?;
//! let mut healer = Healer::new(&HealerOptions::new().mode(Mode::Active));
//! let mut reconnected = 0;
//! for step in 0..200 {
//!     let now = SAMPLE * step;
//!     // In a program: Observation::of(&peer_book.links(), &expected). This peer is silent for 19 s.
//!     let silent = Duration::from_millis(if reconnected == 0 { 19_000 } else { 10 });
//!     let link = LinkSample::new(peer).epoch(Some(1 + reconnected)).silent(Some(silent));
//!     healer.handle(now, Input::Sample(&Observation::new([link])))?;
//!     while let Some(output) = healer.poll_output() {
//!         match output {
//!             Output::Reconnect { id, .. } => {
//!                 // In a program: peer_book.reconnect(peer).
//!                 reconnected += 1;
//!                 healer.handle(now, Input::Outcome { id, result: Ok(()) })?;
//!             }
//!             // fault_handle.block(peer) and fault_handle.unblock(peer)
//!             Output::Block { .. } | Output::Unblock { .. } => {}
//!             // To the healer of this peer, which passes it to Input::Received.
//!             Output::Notify { .. } => {}
//!             Output::Record(record) => println!("{}", record.explain()),
//!             _ => {}
//!         }
//!     }
//! }
//! assert_eq!(reconnected, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod notice;
mod options;
#[cfg(test)]
mod tests;
mod view;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use x0_identity::NodeId;
use x0_mesh::quic::PeerLink;

use self::notice::Notice;
pub use self::options::HealerOptions;
pub use self::view::{CONNECTIONS, FLAP_WINDOW, PEERS_MAX, Peer, SILENCE, View};
use crate::adapter::candidate;
use crate::{Action, Command, Disruption, Expectation, HandleError, Loop, Plan, Policy, Record, WhyNot};

/// The distance of two samples.
pub const SAMPLE: Duration = Duration::from_millis(100);

/// The connection to one peer at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkSample {
    /// The peer.
    pub peer: NodeId,
    /// The epoch of the connection that is up; `None` while there is none.
    pub epoch: Option<u64>,
    /// The time since the last message of a peer that owes messages, such as heartbeats; `None` of another.
    pub silent: Option<Duration>,
}

impl LinkSample {
    /// A peer that is not connected and owes no messages.
    #[must_use]
    pub fn new(peer: NodeId) -> LinkSample {
        LinkSample { peer, epoch: None, silent: None }
    }

    /// Sets [`LinkSample::epoch`].
    #[must_use]
    pub fn epoch(mut self, epoch: Option<u64>) -> LinkSample {
        self.epoch = epoch;
        self
    }

    /// Sets [`LinkSample::silent`].
    #[must_use]
    pub fn silent(mut self, silent: Option<Duration>) -> LinkSample {
        self.silent = silent;
        self
    }
}

/// The connections of a node at one time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Observation {
    /// The peers; those beyond [`PEERS_MAX`] are left out.
    pub links: BTreeMap<NodeId, LinkSample>,
}

impl Observation {
    /// An observation of these connections.
    #[must_use]
    pub fn new(links: impl IntoIterator<Item = LinkSample>) -> Observation {
        Observation { links: links.into_iter().take(PEERS_MAX).map(|link| (link.peer, link)).collect() }
    }

    /// The connections of a transport, with the peers that owe messages: a leader owes heartbeats, and its
    /// followers owe answers to it.
    #[must_use]
    pub fn of(links: &[PeerLink], expected: &BTreeSet<NodeId>) -> Observation {
        let sample = |link: &PeerLink| LinkSample {
            peer: link.peer,
            epoch: link.up.map(|up| up.epoch),
            silent: link.last_message_age.filter(|_| expected.contains(&link.peer)),
        };
        Observation::new(links.iter().map(sample))
    }
}

/// An input of a [`Healer`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Input<'a> {
    /// The connections now. Every [`SAMPLE`].
    Sample(&'a Observation),
    /// A message of the healer of a peer: see [`Output::Notify`]. What is no message is ignored.
    Received {
        /// The peer, whose identity the transport has verified.
        from: NodeId,
        /// Its bytes.
        message: &'a [u8],
    },
    /// The result of [`Output::Reconnect`].
    Outcome {
        /// The number of the action.
        id: u64,
        /// Why it was not carried out.
        result: Result<(), String>,
    },
    /// An order of an operator.
    Command(Command<Peer>),
}

/// An output of a [`Healer`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Output {
    /// End the connection to the peer so that a new one is made, and pass the outcome back.
    Reconnect {
        /// The number of the action.
        id: u64,
        /// The peer.
        peer: NodeId,
    },
    /// Send nothing to the peer and receive nothing from it, until [`Output::Unblock`].
    Block {
        /// The peer.
        peer: NodeId,
    },
    /// The quarantine of the peer is over.
    Unblock {
        /// The peer.
        peer: NodeId,
    },
    /// Send these bytes to the healer of the peer, before a [`Output::Block`] of it that follows takes
    /// effect. If they are lost, this end alone is blocked.
    Notify {
        /// The peer.
        to: NodeId,
        /// A notice of a quarantine.
        message: Vec<u8>,
    },
    /// A decision or finding, to be kept.
    Record(Box<Record>),
}

/// What a healer does. The set is closed; an escalation is an output of the loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Act {
    /// `reconnect`: ends a connection that carries nothing, so that a new one is made.
    Reconnect {
        /// The peer.
        peer: Peer,
    },
    /// `quarantine`: no messages between this node and the peer for a while.
    Quarantine {
        /// The peer.
        peer: Peer,
    },
    /// `release`: ends a quarantine early. No policy proposes it: it takes a quarantine back.
    Release {
        /// The peer.
        peer: Peer,
    },
}

impl Action<View> for Act {
    fn kind(&self) -> &'static str {
        match self {
            Act::Reconnect { .. } => "reconnect",
            Act::Quarantine { .. } => "quarantine",
            Act::Release { .. } => "release",
        }
    }

    fn subject(&self) -> &Peer {
        let (Act::Reconnect { peer } | Act::Quarantine { peer } | Act::Release { peer }) = self;
        peer
    }

    fn disruption(&self) -> Disruption {
        Disruption::Brief
    }

    fn precondition(&self, view: &View) -> Result<(), Cow<'static, str>> {
        match self {
            Act::Reconnect { peer } if !view.is_up(peer.0) => Err("the peer is not connected".into()),
            Act::Quarantine { peer } if view.is_quarantined(peer.0) => Err("it is in quarantine".into()),
            Act::Reconnect { .. } | Act::Quarantine { .. } | Act::Release { .. } => Ok(()),
        }
    }

    fn is_safe(&self, view: &View) -> Result<(), Cow<'static, str>> {
        match self {
            Act::Quarantine { peer } if !view.has_majority_without(peer.0) => {
                Err("no majority of the members would be connected".into())
            }
            Act::Reconnect { .. } | Act::Quarantine { .. } | Act::Release { .. } => Ok(()),
        }
    }

    fn badness(&self, view: &View) -> Option<f64> {
        match self {
            // While there is no connection, it is not known whether the next one is better.
            Act::Reconnect { peer } => view.reading(peer.0, SILENCE).filter(|_| view.is_up(peer.0)),
            Act::Quarantine { peer } | Act::Release { peer } => view.reading(peer.0, CONNECTIONS),
        }
    }

    fn expectation(&self) -> Expectation {
        let within = match self {
            // A handshake, and a heartbeat after it.
            Act::Reconnect { .. } => Duration::from_secs(3),
            // Until then the connections from before are forgotten.
            Act::Quarantine { .. } | Act::Release { .. } => FLAP_WINDOW,
        };
        Expectation { within, improvement: 0.5 }
    }

    fn undo(&self) -> Option<Act> {
        match self {
            Act::Quarantine { peer } => Some(Act::Release { peer: *peer }),
            Act::Reconnect { .. } | Act::Release { .. } => None,
        }
    }
}

/// Ends connections that carry nothing, and keeps peers away whose connections do not last.
#[derive(Debug)]
struct Heal;

impl Policy<View, Act> for Heal {
    fn name(&self) -> &'static str {
        "heal-connections"
    }

    fn decide(&mut self, now: Duration, view: &View, plan: &mut Plan<Act>) {
        for peer in view.peers() {
            if let Some(evidence) = view.flapping(now, peer) {
                let action = Act::Quarantine { peer: Peer(peer) };
                plan.propose(candidate(action, "flapping", "cut", vec![evidence]));
            } else if let Some(evidence) = view.stuck(now, peer) {
                let action = Act::Reconnect { peer: Peer(peer) };
                plan.propose(candidate(action, "stuck-connection", "hung-peer", vec![evidence]));
            }
        }
    }
}

/// The healer of the connections of one node: the [`Loop`] with its readings, quarantines and notices.
#[derive(Debug)]
pub struct Healer {
    engine: Loop<View, Act>,
    quarantine: Duration,
    is_active: bool,
    outputs: VecDeque<Output>,
    sampled: Option<Duration>,
}

impl Healer {
    /// A healer that knows nothing yet.
    #[must_use]
    pub fn new(options: &HealerOptions) -> Healer {
        Healer {
            engine: options.engine(),
            quarantine: options.quarantine,
            is_active: options.mode == crate::Mode::Active,
            outputs: VecDeque::new(),
            sampled: None,
        }
    }

    /// The loop, with its state and its knowledge.
    #[must_use]
    pub fn engine(&self) -> &Loop<View, Act> {
        &self.engine
    }

    /// Why nothing is done about a peer.
    pub fn why_not(&mut self, now: Duration, peer: NodeId) -> WhyNot {
        self.engine.why_not(now, &Peer(peer))
    }

    /// Takes an input at `now`, a time since any origin.
    ///
    /// # Errors
    /// See [`HandleError`]: only a command or an outcome is refused. Nothing has changed then.
    pub fn handle(&mut self, now: Duration, input: Input<'_>) -> Result<(), HandleError> {
        let result = match input {
            Input::Sample(observation) => {
                self.sample(now, observation);
                Ok(())
            }
            Input::Received { from, message } => {
                self.received(now, from, message);
                Ok(())
            }
            Input::Outcome { id, result } => self.engine.handle(now, crate::Input::Outcome { id, result }),
            Input::Command(command) => self.engine.handle(now, crate::Input::Command(command)),
        };
        self.work(now);
        result
    }

    /// The next output; `None` when everything is done.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When the next [`Input::Sample`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Duration {
        self.sampled.map_or(Duration::ZERO, |sampled| sampled.saturating_add(SAMPLE))
    }

    fn sample(&mut self, now: Duration, observation: &Observation) {
        self.sampled = Some(now);
        for peer in self.engine.knowledge_mut().end_quarantines(now) {
            self.outputs.push_back(Output::Unblock { peer });
        }
        let readings = self.engine.knowledge_mut().set(now, observation);
        for reading in readings {
            // What is out of range is refused and counted by the loop.
            let _ = self.engine.handle(now, crate::Input::Reading(reading));
        }
        let _ = self.engine.handle(now, crate::Input::Timeout);
    }

    /// A peer keeps away from this node for a while. It cuts off itself, so that nothing is judged here.
    fn received(&mut self, now: Duration, from: NodeId, message: &[u8]) {
        let Ok(Notice { lasts }) = Notice::from_bytes(message) else { return };
        let view = self.engine.knowledge();
        let is_taken = self.is_active
            && view.peers().any(|peer| peer == from)
            && !view.is_quarantined(from)
            && view.has_majority_without(from);
        if is_taken {
            self.block(now, from, lasts.min(self.quarantine));
        }
    }

    fn block(&mut self, now: Duration, peer: NodeId, lasts: Duration) {
        self.engine.knowledge_mut().begin_quarantine(peer, now.saturating_add(lasts));
        self.outputs.push_back(Output::Block { peer });
    }

    /// Turns what the loop decided into outputs.
    fn work(&mut self, now: Duration) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                crate::Output::Execute { id, action, .. } | crate::Output::Undo { id, action, .. } => {
                    self.execute(now, id, action);
                }
                // Of each connection one end decides alone: nothing is claimed.
                crate::Output::Claim { id, .. } => {
                    let _ = self.engine.handle(now, crate::Input::Claim { id, fence: None });
                }
                crate::Output::Record(record) => self.outputs.push_back(Output::Record(record)),
                // The record says the same.
                crate::Output::Approve { .. } | crate::Output::Escalate { .. } => {}
            }
        }
    }

    fn execute(&mut self, now: Duration, id: u64, action: Act) {
        match action {
            Act::Reconnect { peer } => {
                self.outputs.push_back(Output::Reconnect { id, peer: peer.0 });
                return;
            }
            Act::Quarantine { peer } => {
                let message = Notice { lasts: self.quarantine }.to_bytes();
                self.outputs.push_back(Output::Notify { to: peer.0, message });
                self.block(now, peer.0, self.quarantine);
            }
            Act::Release { peer } => {
                if self.engine.knowledge_mut().end_quarantine(peer.0) {
                    self.outputs.push_back(Output::Unblock { peer: peer.0 });
                }
            }
        }
        // The loop may have given it up; it is done all the same.
        let _ = self.engine.handle(now, crate::Input::Outcome { id, result: Ok(()) });
    }
}
