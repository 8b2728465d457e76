//! Spans of connections and routes, with the feature `tracing`.

#[cfg(not(feature = "tracing"))]
#[path = "trace/noop.rs"]
mod spans;
#[cfg(feature = "tracing")]
mod spans;

#[cfg(feature = "mesh")]
pub(crate) use self::spans::adapt;
#[cfg(feature = "quic")]
pub(crate) use self::spans::dial;
