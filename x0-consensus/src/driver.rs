//! Drivers: what carries out a replica's outputs with threads, tasks and clocks. They decide nothing.

mod applier;
mod event;
mod handle;
pub mod local;
#[cfg(feature = "tokio")]
mod log_thread;
mod outbox;
mod snapshots;
mod start;
#[cfg(feature = "tokio")]
pub mod tokio;

pub use self::event::{Event, FatalError, Observer};
pub use self::handle::Handle;
pub use self::outbox::{Congested, Outbox};
pub use self::start::OpenError;
