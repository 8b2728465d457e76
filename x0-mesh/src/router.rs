//! Routes over several hops: a feasible distance-vector protocol between neighbours.
//!
//! [`Router`] is a protocol engine. It learns from its neighbours which nodes they reach and at what
//! distance, and chooses for each destination the neighbour to send to. It sees links and messages of
//! routers, never packets: the layer that forwards a packet asks [`Router::forward`].
//!
//! # Safety: why there is no loop
//! A node uses a neighbour for *every* packet only if the neighbour's distance is better than the best that
//! the node itself ever advertised, its *feasibility distance* (RFC 8966 §2.4 and §3.5.1). Feasibility
//! distances then fall along every path, so that no path returns to a node: at every moment, with messages
//! lost, repeated and reordered, and also while some member lies. A route that is not feasible becomes so by
//! a newer *sequence number*, which only the destination can give (RFC 8966 §2.5): the node asks for it with
//! a request that travels towards the destination.
//!
//! A node that restarts has lost its feasibility distances. Its neighbours therefore drop all routes through
//! it before it can use theirs: each pair of neighbours has a *session*, which ends with either process. A
//! node that restarts with a sequence number below its old one takes over the higher one that a neighbour
//! shows, for a hold-down after its first link came up; from then on a higher one is a forgery.
//!
//! # Failover without a question
//! When a next hop is lost, a node takes, in this order and without sending anything first:
//! 1. another feasible neighbour (a *backup*; [`Route::backups`] counts them);
//! 2. a *detour*: a neighbour that is not feasible, but has a way that does not lead through this node. Such
//!    ways are known in advance, because each node advertises to its own next hop the best route that avoids
//!    it, where RFC 8966 would stay silent (split horizon). A packet on a detour carries a *bound*, the
//!    distance that the neighbour advertised, and each further hop must be nearer than the bound and lowers
//!    it. A number that falls with every hop ends every path, whatever the tables say.
//!
//! The request for a new sequence number runs at the same time, and turns the detour into a feasible route.
//!
//! # Control traffic
//! An update is sent when something changes, once, until it is acknowledged. Nothing is sent periodically:
//! whether the link still works is the business of the layer below. Small changes of a metric are not sent at
//! all, updates that follow each other closely are collected for longer and longer, and links that fail again
//! and again cost more (see [`RouterOptions`]).
//!
//! # Bounds
//! Tables and messages are bounded by [`RouterOptions`]. A destination without route is remembered until no
//! neighbour holds a route through this node and [`RouterOptions::hold_down`] is over. A member that
//! advertises false distances can attract packets and drop them, and can fill tables up to their bound; it
//! cannot make honest nodes loop. [`Report`] names what gives it away: a forged sequence number, and the
//! silence of a destination behind it.
//!
//! # Glossary
//! - *Destination*: a node that packets can be sent to.
//! - *Metric*: the length of a link or path. *Price*: what a GB over it costs, in money.
//! - *Distance*: sequence number and metric. *Advert*: a distance as a neighbour advertises it.
//! - *Feasible*: see above. *Starved*: without feasible neighbour.
//! - *Detour*, *bound*: see above. The *depth* of a detour is how often a packet is turned around on it.

mod audit;
mod damping;
mod distance;
mod engine;
mod error;
#[cfg(feature = "sim")]
mod falsify;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod io;
mod link;
mod message;
mod metric;
mod neighbour;
mod options;
mod table;

pub use audit::{RouteFault, route_faults};
pub use distance::Distance;
pub use engine::Router;
#[cfg(feature = "sim")]
pub(crate) use falsify::falsify;

pub use error::{HandleError, MessageError};
pub use io::{
    Failovers, ForwardError, Input, NextHop, Output, Packet, Report, Route, RouteKind, RouterStats, Session,
};
pub use link::{LinkCost, LinkId};
pub use metric::{Cost, Etx, LinkSample, Metric, Rtt, Throughput};
pub use options::RouterOptions;
