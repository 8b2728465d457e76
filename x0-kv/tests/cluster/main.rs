//! Real nodes: QUIC on the loopback, files, threads.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking; its numbers are small"
)]

mod blobs;
mod faults;
mod figures;
mod machine;
mod own_channel;
mod versions;
