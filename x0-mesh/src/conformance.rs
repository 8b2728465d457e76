//! The contract of [`Transport`] as a suite that any implementation can be run against.
//!
//! Implement [`Bench`], which makes transports and lets them run, and call [`check`]. A broken rule is a
//! panic that names it, as in any test.
//!
#![cfg_attr(feature = "sim", doc = "```")]
#![cfg_attr(not(feature = "sim"), doc = "```ignore")]
//! use std::task::{Context, Poll, Waker};
//! use x0_identity::NodeId;
//! use x0_mesh::conformance::{self, Bench};
//! use x0_mesh::sim::{SimMesh, SimTransport};
//!
//! struct InVirtualTime(SimMesh);
//!
//! impl Bench for InVirtualTime {
//!     type Transport = SimTransport;
//!
//!     fn start(&mut self, node: NodeId) -> SimTransport {
//!         self.0.transport(node)
//!     }
//!
//!     fn wait(&mut self, poll: &mut dyn FnMut(&mut Context<'_>) -> Poll<()>) {
//!         let mut cx = Context::from_waker(Waker::noop());
//!         while poll(&mut cx).is_pending() {
//!             assert!(self.0.step(), "nothing will happen any more");
//!         }
//!     }
//! }
//!
//! let report = conformance::check(&mut InVirtualTime(SimMesh::new(7)));
//! assert!(report.skipped.is_empty());
//! ```

mod epochs;
mod lanes;
#[cfg(feature = "link")]
pub mod link;
mod pair;
mod pressure;
mod refusals;

use std::task::{Context, Poll};

use x0_identity::NodeId;

use crate::Transport;
use pair::Pair;

/// Makes transports of one kind, and lets them run.
pub trait Bench {
    /// The transport to be checked.
    type Transport: Transport;

    /// Starts this node: number 1 or 2. The nodes of a check must be able to reach each other. A node whose
    /// transport was dropped may be started again, under the same name and address.
    fn start(&mut self, node: NodeId) -> Self::Transport;

    /// Polls until it is ready, letting time pass and tasks run in between, and polling again at the latest
    /// when the waker was called.
    ///
    /// # Panics
    /// When it is not ready after a time that is far too long: so fails the check of a transport that stalls.
    fn wait(&mut self, poll: &mut dyn FnMut(&mut Context<'_>) -> Poll<()>);

    /// Whether a node that was dropped can be started again. Without it the rules about epochs are skipped.
    fn can_restart(&self) -> bool {
        true
    }
}

/// The rules that were checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Report {
    /// The rules that hold.
    pub passed: Vec<&'static str>,
    /// The rules that could not be checked, and why.
    pub skipped: Vec<(&'static str, &'static str)>,
}

type Rule<B> = (&'static str, fn(&mut Pair<'_, B>));

/// Checks every rule of [`Transport`], each with new transports.
///
/// # Panics
/// When a rule is broken; the message says which.
pub fn check<B: Bench>(bench: &mut B) -> Report {
    let rules: [Rule<B>; 14] = [
        ("a message arrives as it was sent, on each lane", lanes::round_trip),
        ("an empty message is a message", lanes::empty),
        ("the longest message is taken, one byte more is not", lanes::longest),
        ("an ordered lane keeps its order", lanes::order),
        ("a bulk message arrives once", lanes::bulk),
        ("poll_recv replaces the buffer when ready, and only then", lanes::buffer),
        ("a node does not send to itself", refusals::to_self),
        ("an unknown peer is named", refusals::unknown_peer),
        ("a lane that is not there is named", refusals::no_lane),
        ("a full lane is pending, takes nothing, and wakes", pressure::full_lane),
        ("a full lane does not stop another", pressure::other_lane),
        ("a future that is dropped has sent or received all or nothing", pressure::cancel),
        ("up comes before the first message", epochs::up_first),
        ("datagrams are not altered", lanes::datagram),
    ];
    let restarts: [Rule<B>; 2] = [
        ("down comes after the last message, and epochs rise", epochs::restart),
        ("between two epochs a peer is unreachable", epochs::unreachable),
    ];
    let mut report = Report::default();
    for (name, rule) in rules {
        run(bench, name, rule);
        report.passed.push(name);
    }
    for (name, rule) in restarts {
        if bench.can_restart() {
            run(bench, name, rule);
            report.passed.push(name);
        } else {
            report.skipped.push((name, "nodes cannot be started again"));
        }
    }
    report
}

fn run<B: Bench>(bench: &mut B, name: &'static str, rule: fn(&mut Pair<'_, B>)) {
    let mut pair = Pair::start(bench, name);
    pair.meet();
    rule(&mut pair);
}
