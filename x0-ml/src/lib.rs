//! Retrieval, adapters and federated learning for nodes that have no data centre to ask.
//!
//! **Not built yet.** This page fixes what the crate will be, so that the crates around it can leave the right gap; there
//! is nothing to call.
//!
//! # What it will be
//!
//! - Chunk, embed, index (HNSW by `hnsw_rs`) and retrieve, with the model behind a trait.
//! - LoRA adapters on `candle-core`, and a registry of models named by content.
//! - Federated rounds as an engine without I/O: who takes part, what is aggregated, and what a missing or lying
//!   participant does to the result.
//!
//! # Where it stands in the family
//!
//! It depends on no other x0 crate. Model bytes will travel by `x0-kv`'s blob exchange.
