//! A self-healing control loop: Monitor, Analyze, Plan and Execute over shared Knowledge (MAPE-K).
//!
//! A loop takes readings, asks a policy what to do about them, lets guards decide, gives out the actions that
//! pass, and compares the state after each action with that before. An action that made it worse is taken
//! back. Every decision is a [`Record`] that explains itself, the refusals among them.
//!
//! | part | type | who provides it |
//! |---|---|---|
//! | Monitor, Analyze | [`Knowledge`], with the detectors of [`detect`] | you |
//! | Plan | [`Policy`] proposes [`Candidate`]s | you |
//! | guards | pause, grace, local health, storm, planned changes, stability, back-off, budget, one disruptive action, blast radius, precondition, safety, approval: [`Refusal`] | the loop |
//! | Execute | [`Output::Execute`] of your [`Action`] | you |
//! | verdict, undo, escalation, records | [`Event`], [`Record`] | the loop |
//!
//! Without features the crate depends on no other x0 crate. [`Loop`] is a protocol engine: it has no clock,
//! thread or source of randomness; the caller passes inputs with `now`, a time since any origin, and carries
//! out its outputs. The same inputs give the same records, byte for byte. The contract and an example are at
//! [`Loop`]; the example `pool` heals the threads of its own program.
//!
//! # Beside the loop
//! | module | for |
//! |---|---|
//! | [`detect`] | readings of one signal: has it changed? |
//! | [`diagnose`] | summaries of several observers: what is the cause? |
//! | `kv` (feature) | a ready healer for the nodes of a store on `x0-kv` |
//! | `mesh` (feature) | a ready healer for the connections of a node on `x0-mesh` |
//! | `process` (feature `mesh`) | a ready healer that asks the supervisor of a process for a restart |
//! | `ebpf` (feature) | a ready healer for links that `x0-ebpf` steers |
//! | `identity` (feature) | a ready healer for SVIDs whose renewal is late |
//! | [`limits`] | a ready healer with fixed limits, for a pool of workers |
//! | [`claim`] | several healers: one acts, and another takes over when it stops half-way |
//! | [`suspicion`] | a failure detector for the members of a group |
//! | [`record`] | decisions as data; replay with another policy, arithmetic repeated |
//! | [`telemetry`] | metrics |
//!
//! # Spans
//! With the feature `tracing` the parts of a round are spans: `mapek.monitor` (level trace, field `signal`),
//! `mapek.round`, `mapek.analyze`, `mapek.plan` and `mapek.guard` (debug, field `round`), `mapek.execute` and
//! `mapek.verify` (debug, fields `action` and `round`). Each record is a log line of level info with the
//! fields `record`, `round`, `action`, `kind`, `subject`, `cause` and `event`: the numbers are those of the
//! record.
//!
//! # Glossary
//!
//! | term | meaning |
//! |---|---|
//! | subject | a thing that can be healthy or not: a node, a link, a process, a disk |
//! | signal | a quantity of a subject that is measured again and again |
//! | reading | one value of a signal at one time |
//! | baseline | the level and spread of a signal while it is normal |
//! | policy | a healing policy; permission is `Authorizer` in `x0-identity` |
//! | knowledge | the readings and derived facts that monitor and analyzer maintain and a policy reads |
//! | plan | the actions that a policy proposes in one round |
//! | candidate | an action that a policy proposes, with its reasons |
//! | guard | a check that accepts or refuses an action before it is executed |
//! | executor | the code that carries out an accepted action |
//! | badness | the number that an action is to reduce, such as a latency |
//! | verdict | whether an action helped, changed nothing, or made it worse |
//! | storm | so many unhealthy subjects that a common cause is likely |
//! | fence | a number that says which claim an action belongs to: a store refuses actions with an old one |
#![cfg_attr(docsrs, feature(doc_cfg))]

mod action;
#[cfg(any(feature = "kv", feature = "mesh", feature = "ebpf", feature = "identity"))]
mod adapter;
pub mod claim;
mod codec;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod detect;
pub mod diagnose;
#[cfg(feature = "ebpf")]
pub mod ebpf;
mod engine;
mod guard;
#[cfg(feature = "identity")]
pub mod identity;
mod knowledge;
#[cfg(feature = "kv")]
pub mod kv;
pub mod limits;
#[cfg(feature = "mesh")]
pub mod mesh;
mod options;
mod plan;
#[cfg(feature = "mesh")]
pub mod process;
pub mod record;
pub mod suspicion;
pub mod telemetry;
mod trace;

pub use self::action::{Action, Disruption, Expectation};
pub use self::codec::{DecodeError, TEXT_LEN_MAX};
pub use self::engine::{ActionStatus, Command, HandleError, Input, Loop, LoopStatus, Output, WhyNot};
pub use self::guard::{DISRUPTION_GUARDS, GUARDS, Refusal};
pub use self::knowledge::{Knowledge, Reading};
pub use self::options::{LoopOptions, Mode};
pub use self::plan::{
    ALTERNATIVES_MAX, CANDIDATES_MAX, Candidate, Diagnosis, EVIDENCE_MAX, Evidence, Plan, Policy,
    UNKNOWN_CAUSE,
};
pub use self::record::{Event, Record};

/// The mutated inputs of a test against hostile bytes: 100,000, or `X0_MAPEK_MUTATIONS`.
#[cfg(test)]
fn mutations() -> u64 {
    let number = std::env::var("X0_MAPEK_MUTATIONS").ok().and_then(|number| number.parse().ok());
    number.unwrap_or(100_000)
}
