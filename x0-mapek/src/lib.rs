//! A self-healing control loop: Monitor, Analyze, Plan and Execute over shared Knowledge (MAPE-K).
//!
//! **Not built yet.** This page fixes the scope and the seam of the crate, so that the other crates of the
//! family leave room for it. The crate has no items.
//!
//! # Planned scope
//!
//! - `Policy`, the seam: a pure function of the knowledge that proposes a plan of actions. It performs no I/O
//!   and reads no clock.
//! - Guards that accept or refuse each action of a plan: rate limits, a limit on the share of nodes that one
//!   plan touches, and quorum safety.
//! - Executors that carry out the accepted actions.
//! - A record of each decision with the readings that led to it, so that an operator can ask why an action
//!   was taken.
//!
//! # Glossary
//!
//! | term | meaning |
//! |---|---|
//! | policy | a healing policy; permission is `Authorizer` in `x0-identity` |
//! | knowledge | the readings and derived facts that monitor and analyzer maintain and a policy reads |
//! | plan | the actions that a policy proposes in one round |
//! | guard | a check that accepts or refuses an action before it is executed |
//! | executor | the code that carries out an accepted action |
//!
//! # Place in the family
//!
//! The crate depends on no other x0 crate. Executors for the mesh, the replicated log and identities will be
//! behind features named after those crates.
#![cfg_attr(docsrs, feature(doc_cfg))]
