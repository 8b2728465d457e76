//! The transport seam as futures.

use std::future::{Future, poll_fn};

use crate::{Next, PeerEvent, Received, RecvError, SendError, Transmit, Transport};

/// [`Transport`] for `async` code, under any runtime or none. Each future may be dropped at any time: a
/// message is then either sent as a whole or not at all, and no received message is lost.
pub trait TransportExt: Transport {
    /// Waits until the lane takes the message.
    ///
    /// # Errors
    /// [`SendError`]; nothing was sent.
    fn send(&mut self, transmit: &Transmit<'_>) -> impl Future<Output = Result<(), SendError>> + Send {
        poll_fn(move |cx| self.poll_send(cx, transmit))
    }

    /// Waits for a message.
    ///
    /// # Errors
    /// [`RecvError`], when there will never be another.
    fn recv(&mut self, payload: &mut Vec<u8>) -> impl Future<Output = Result<Received, RecvError>> + Send {
        poll_fn(move |cx| self.poll_recv(cx, payload))
    }

    /// Waits for an event.
    fn event(&mut self) -> impl Future<Output = PeerEvent> + Send {
        poll_fn(move |cx| self.poll_event(cx))
    }

    /// Waits for an event or a message, whichever comes first; events of an epoch come on the right side of
    /// its messages.
    ///
    /// # Errors
    /// [`RecvError`], when there will never be another message.
    fn next(&mut self, payload: &mut Vec<u8>) -> impl Future<Output = Result<Next, RecvError>> + Send {
        poll_fn(move |cx| self.poll_next(cx, payload))
    }
}

impl<T: Transport + ?Sized> TransportExt for T {}
