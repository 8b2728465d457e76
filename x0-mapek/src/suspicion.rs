//! A failure detector: which members do not answer, by the judgement of a majority of their observers.
//!
//! A [`Detector`] runs beside each member. It tells a killed and a hung process within about a second, and
//! does not mistake a process that is starved, or that reads its messages late, for a witness.
//!
//! # From silence to a verdict
//! 1. **Heartbeats.** The members stand on a ring in an order that all of them compute alike. Each sends
//!    heartbeats to its two neighbours in turn, the *watchers*, so that the traffic of a member does not grow
//!    with the number of members.
//! 2. **Doubt.** A watcher that hears nothing for [`gap_min`](DetectorOptions::gap_min), and for longer than
//!    the arrivals so far explain ([`PhiAccrual`](crate::detect::PhiAccrual)), asks the other observers to
//!    look. A doubt is no accusation: it costs some messages and nothing else.
//! 3. **Probe.** The *jury* of a member are the three members before and the three after it on the ring. Each
//!    juror probes the member, and two others as a control.
//! 4. **Accusation.** A juror accuses a member that has not answered within
//!    [`answer_within`](DetectorOptions::answer_within), if a control has answered. Jurors report to all
//!    members, with a list of those that they accuse.
//! 5. **Verdict.** A member is suspect when a majority of its jury and itself accuses it. Before a detector
//!    believes a majority it asks the accusers once more, because their reports may be old.
//!
//! An accusation ends with the first message of the accused, and the verdict with the majority.
//!
//! # Starvation
//! A process that did not run for a while sees everybody silent. Its own timers were late then
//! ([`LocalHealth`](crate::detect::LocalHealth)): it accuses nobody before it has run for
//! [`answer_within`](DetectorOptions::answer_within) without a late timer, judges no silence from before,
//! and says that its older accusations are not sure. A process whose timers are punctual and whose messages
//! are late sees the answers of the controls late as well, and gives the member as much time again as the
//! control took.
//!
//! # Limits
//! Of two members neither can be suspect: there is no majority without one of them. A member that answers
//! probes and does nothing else is not suspect. A minority that is cut off accuses the others, and nobody
//! believes it; no member is suspect to a minority. One misbehaving member of five or more causes no
//! verdict.
//!
//! ```
//! use std::collections::BTreeSet;
//! use std::time::Duration;
//! use x0_mapek::suspicion::{Detector, DetectorOptions, Input, Output};
//!
//! let members = BTreeSet::from([1, 2, 3, 4, 5]);
//! let mut now = Duration::ZERO;
//! let mut detectors: Vec<_> = members
//!     .iter()
//!     .map(|member| Detector::new(*member, 7, DetectorOptions::new(), now))
//!     .collect();
//! for detector in &mut detectors {
//!     detector.handle(now, Input::Members(&members)).expect("five members are few enough");
//! }
//! let mut known_by = BTreeSet::new();
//! while now < Duration::from_secs(10) {
//!     now += Duration::from_millis(10);
//!     // Member 3 dies after five seconds.
//!     let is_dead = |member| member == 3 && now > Duration::from_secs(5);
//!     for at in 0..detectors.len() {
//!         let from = detectors[at].local();
//!         if is_dead(from) {
//!             continue;
//!         }
//!         detectors[at].handle(now, Input::Timeout).expect("a timeout is never refused");
//!         while let Some(output) = detectors[at].poll_output() {
//!             match output {
//!                 Output::Send { to, message } => {
//!                     for to in to.into_iter().filter(|to| !is_dead(*to)) {
//!                         let peer = detectors.iter_mut().find(|peer| peer.local() == to);
//!                         // A refused message is one of a stranger.
//!                         let received = Input::Received { from, message: &message };
//!                         let _ = peer.map(|peer| peer.handle(now, received));
//!                     }
//!                 }
//!                 Output::Suspect(suspect) => drop(known_by.insert((from, suspect.member))),
//!                 _ => {}
//!             }
//!         }
//!     }
//! }
//! assert_eq!(known_by, BTreeSet::from([(1, 3), (2, 3), (4, 3), (5, 3)]));
//! ```

mod engine;
mod message;
mod options;
mod peer;
mod ring;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;

use std::collections::BTreeSet;
use std::time::Duration;

pub use self::engine::Detector;
pub use self::options::DetectorOptions;
use crate::codec::DecodeError;

/// The most members of a group.
pub const MEMBERS_MAX: usize = 1024;

/// An input of a [`Detector`].
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Input<'a> {
    /// The members of the group, with or without this one, which may have changed. What is known of the ones
    /// that stay is kept.
    Members(&'a BTreeSet<u64>),
    /// A message of another detector. Its sender is authenticated by the transport.
    Received {
        /// The sender.
        from: u64,
        /// The message.
        message: &'a [u8],
    },
    /// Another sign of life of a member: a message of another service.
    Alive {
        /// The member.
        from: u64,
    },
    /// The time of [`Detector::poll_timeout`] has come.
    Timeout,
}

/// An output of a [`Detector`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// Send this message to these members, as a datagram that may be lost. A message that cannot be sent now
    /// is dropped: a later one says the same.
    Send {
        /// The members.
        to: Vec<u64>,
        /// The message.
        message: Vec<u8>,
    },
    /// A member does not answer, by the judgement of a majority.
    Suspect(Suspect),
    /// A suspect answers again, or its accusers are no majority any more.
    Cleared {
        /// The member.
        member: u64,
    },
}

/// A member that does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Suspect {
    /// The member.
    pub member: u64,
    /// When this detector came to know it, on the clock of [`Detector::handle`].
    pub since: Duration,
    /// Since when it has been silent, on the same clock: a watcher waited for its heartbeat for
    /// [`gap_min`](DetectorOptions::gap_min), and then the jury for
    /// [`answer_within`](DetectorOptions::answer_within).
    pub silent_since: Duration,
    /// The members that accuse it, ascending.
    pub accusers: Vec<u64>,
}

/// An input was not taken. The detector is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandleError {
    /// The bytes are not a message.
    #[error("the message of member {from} cannot be read: run compatible builds on all members")]
    Decode {
        /// The sender.
        from: u64,
        /// Why.
        #[source]
        source: DecodeError,
    },
    /// The sender is not a member.
    #[error("{from} is not a member of the group: pass `Input::Members` when the group has changed")]
    NotAMember {
        /// The sender.
        from: u64,
    },
    /// The group is too large.
    #[error("the group has {count} members, and at most {MEMBERS_MAX} are watched: divide the group")]
    MembersExceeded {
        /// The number of members.
        count: usize,
    },
}
