//! The UDP socket beneath quinn and links, on systems other than Linux: the one that quinn brings.

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;

use quinn::{AsyncUdpSocket, Runtime, TokioRuntime};

/// Makes quinn's socket of a bound one. To be called on a tokio runtime.
///
/// # Errors
/// Those of the system.
pub(super) fn wrap(socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
    TokioRuntime.wrap_udp_socket(socket)
}
