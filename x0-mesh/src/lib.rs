//! Authenticated messages between the nodes of a mesh.

mod error;
mod gate;
mod lane;
mod message;
mod peer;
#[cfg(feature = "quic")]
pub mod quic;
#[cfg(any(feature = "metrics", feature = "quic"))]
pub mod telemetry;
mod transport;
mod transport_ext;

pub use error::{RecvError, SendError};
pub use gate::{Gate, GateHandle};
pub use lane::Lane;
pub use message::{Received, Transmit};
pub use peer::{DownReason, PeerEvent, PeerEventKind, Violation};
pub use transport::Transport;
pub use transport_ext::{Next, TransportExt};
