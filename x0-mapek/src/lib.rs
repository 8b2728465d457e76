//! A self-healing control loop: Monitor, Analyze, Plan and Execute over shared Knowledge (MAPE-K).
//!
//! **In progress.** The detectors are complete: [`detect`]. The loop itself, with its policy seam, guards and
//! records, is being built.
//!
//! The crate depends on no other x0 crate. It has no clock, thread or source of randomness: the caller passes
//! readings and `now`, a time since any origin.
//!
//! ```
//! use std::time::Duration;
//! use x0_mapek::detect::{Cusum, CusumOptions};
//!
//! // The latency of a put in milliseconds. A threefold latency is a fault.
//! let mut latency = Cusum::new(CusumOptions::new());
//! let mut now = Duration::ZERO;
//! for reading in 0..500 {
//!     now += Duration::from_millis(100);
//!     let normal = 5.0 + f64::from(reading % 3);
//!     assert!(!latency.observe(now, normal)?.is_suspect());
//! }
//! let found = (0..20).find(|_| {
//!     now += Duration::from_millis(100);
//!     latency.observe(now, 18.0).is_ok_and(|verdict| verdict.is_suspect())
//! });
//! assert!(found.is_some_and(|readings| readings < 10));
//! # Ok::<(), x0_mapek::detect::ReadingError>(())
//! ```
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
//! | guard | a check that accepts or refuses an action before it is executed |
//! | executor | the code that carries out an accepted action |
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod detect;
