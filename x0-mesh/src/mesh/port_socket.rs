//! The socket of the QUIC endpoint of a port: packets that share a link with frames.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

use super::packets::Packets;
use crate::datagram::{Batch, Ecn};

/// Bytes of packets. Handshakes are small and rare.
const PACKETS_LEN_MAX: usize = 256 << 10;

#[derive(Debug)]
pub(super) struct PortSocket {
    local: Mutex<SocketAddr>,
    pub(super) incoming: Packets,
    pub(super) outgoing: Packets,
    driver: Mutex<Option<Waker>>,
}

impl PortSocket {
    pub(super) fn new(local: SocketAddr) -> PortSocket {
        PortSocket {
            local: Mutex::new(local),
            incoming: Packets::new(PACKETS_LEN_MAX),
            outgoing: Packets::new(PACKETS_LEN_MAX),
            driver: Mutex::default(),
        }
    }

    pub(super) fn local(&self) -> SocketAddr {
        *self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_local(&self, local: SocketAddr) {
        *self.local.lock().unwrap_or_else(PoisonError::into_inner) = local;
    }

    /// The driver is woken for each packet to send.
    pub(super) fn set_driver(&self, waker: &Waker) {
        let mut driver = self.driver.lock().unwrap_or_else(PoisonError::into_inner);
        match driver.as_mut() {
            Some(driver) => driver.clone_from(waker),
            None => *driver = Some(waker.clone()),
        }
    }
}

impl AsyncUdpSocket for PortSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.outgoing.push(transmit.destination, Ecn::NotCapable, Batch::from(transmit.contents));
        let driver = self.driver.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(driver) = driver {
            driver.wake();
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.incoming.poll_recv(cx, buffers, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local())
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
