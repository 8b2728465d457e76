//! UDP sockets on tokio, for QUIC and for links.

#[cfg(target_os = "linux")]
mod lean;
#[cfg(not(target_os = "linux"))]
#[path = "udp/portable.rs"]
mod lean;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use quinn::AsyncUdpSocket;
use socket2::{Domain, Protocol, Socket, Type};

/// Binds an address, and makes quinn's socket of it. To be called on a tokio runtime. The lengths are those
/// of the buffers that the system is asked for, in bytes, for receiving and for sending.
///
/// # Errors
/// The error of the system; nothing is bound then.
pub(crate) fn bind(
    address: SocketAddr,
    (receive_len, send_len): (usize, usize),
) -> io::Result<Arc<dyn AsyncUdpSocket>> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    // Best effort: the system's bound may be lower. The default works, with more losses under load.
    let _ = socket.set_recv_buffer_size(receive_len);
    let _ = socket.set_send_buffer_size(send_len);
    socket.bind(&address.into())?;
    lean::wrap(UdpSocket::from(socket))
}
