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
//! The crate depends on no other x0 crate. [`Loop`] is a protocol engine: it has no clock, thread or source
//! of randomness; the caller passes inputs with `now`, a time since any origin, and carries out its outputs.
//! The same inputs give the same records, byte for byte. The contract and an example are at [`Loop`]; the
//! example `pool` heals the threads of its own program.
//!
//! # Limitations
//! Not built yet: adapters to the other crates of the family, diagnosis from several observers, replay of
//! records with another policy, a conformance suite for policies, telemetry.
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
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod detect;
mod engine;
mod guard;
mod knowledge;
mod options;
mod plan;
pub mod record;

pub use self::action::{Action, Disruption, Expectation};
pub use self::engine::{Command, HandleError, Input, Loop, Output};
pub use self::guard::Refusal;
pub use self::knowledge::{Knowledge, Reading};
pub use self::options::{LoopOptions, Mode};
pub use self::plan::{CANDIDATES_MAX, Candidate, Diagnosis, EVIDENCE_MAX, Evidence, Plan, Policy};
pub use self::record::{Event, Record};
