//! Spans of identities, with the feature `tracing`.
//!
//! | span | level | fields |
//! |---|---|---|
//! | `identity.handshake` | debug | `peer`: client or server; `spiffe_id` of the peer, once its chain is verified; `refused`, why it is not |
//! | `identity.rotate` | debug | `spiffe_id`; `refused`, why the SVID was not taken |

#[cfg(feature = "tracing")]
mod spans;
#[cfg(not(feature = "tracing"))]
#[path = "trace/noop.rs"]
mod spans;

pub(crate) use spans::{handshake, rotate};
