//! A control loop that heals, and can explain why: Monitor, Analyze, Plan, Execute over shared Knowledge.
//!
//! **Not built yet.** This page fixes what the crate will be, so that the crates around it can leave the right gap; there
//! is nothing to call.
//!
//! # What it will be
//!
//! - `Policy` (the seam): pure; it reads the knowledge and proposes a plan. Guards decide, executors act. In this family
//!   the word "policy" means healing policy; permission is `Authorizer`, in `x0-identity`.
//! - Guards that bound what a loop may do: rates, blast radius, quorum safety.
//! - A record of each decision with the readings that led to it, so that "why did it do that" has an answer.
//!
//! # Where it stands in the family
//!
//! It depends on no other x0 crate. Executors for the mesh, the replicated log and identities live behind features named
//! after those crates.
