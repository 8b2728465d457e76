//! The transport seam.

use std::task::{Context, Poll};

use x0_identity::NodeId;

use crate::{Lane, Next, PeerEvent, Received, RecvError, SendError, Transmit};

/// Messages between authenticated nodes.
///
/// The owner is one task (or one loop) that polls all methods. The sections below are the contract of an
/// implementation; the module `conformance` (feature of that name) checks it.
///
/// # Sending and back-pressure
/// * `Ready(Ok(()))`: the whole message was taken. It arrives in the current epoch of the peer, or is lost
///   with that epoch (on [`Lane::Datagram`]: or is just lost).
/// * `Pending`: the lane to this peer is full. **Nothing was taken**; the owner offers the message again once
///   the waker of `cx` is called. Other lanes and other peers are not affected. `Datagram` is never pending.
/// * `Ready(Err(_))`: nothing was taken, and waiting does not help. [`SendError`] says why.
/// * While a peer is being reached for the first time, messages for it are taken as far as there is room, and
///   travel in its first epoch. Between `Down` and the next `Up` they are [`SendError::Unreachable`].
///
/// A message of up to [`Transport::message_len_max`] bytes is always taken sooner or later, a longer one
/// never; one of no bytes is a message. A message that was taken travels without further polling, but not
/// faster than the peer takes it: a receiver that does not receive from one lane fills it, in the end up to
/// the sender's `Pending`, and only that lane.
///
/// # Receiving
/// `poll_recv` **replaces** what `payload` holds when it is `Ready(Ok(_))`, and leaves it alone otherwise.
/// The buffer may be exchanged for another allocation. Lanes and peers that have messages take turns. After
/// an error the transport is over, and each further call gives an error; messages that arrived before are
/// given first.
///
/// # Epochs
/// The connection to a peer comes up and goes down, and messages that are on the way when it goes down are
/// lost. An epoch is the time between:
/// * Epochs of one peer rise strictly in the life of a transport. They mean nothing to other nodes.
/// * Within an epoch nothing is lost, repeated or reordered on an ordered lane: the messages that arrive are
///   those that were sent, from the first one on, without gap. `Bulk` loses and repeats nothing. `Down`
///   follows when something does not arrive.
/// * `Up { e }` can be polled before the first message of `e` can be received. `Down { e }` can be polled
///   **after** the last message of `e` has been received, and before the first of the next epoch can be: an
///   owner that stops receiving gets no `Down` either. An owner that drains the events before each message
///   knows the epoch of each message.
/// * Sending uses the epoch that is current inside the transport, which may be later than the one that was
///   polled.
///
/// # Wakers
/// Each of `poll_recv`, `poll_event` and, per peer and lane, `poll_send` keeps the waker of its last call
/// that was pending, and calls it once when another call may bring something. Calls that were not needed are
/// allowed.
///
/// # Cancelling
/// A call has either had its whole effect when it returns, or none. A future that is dropped loses nothing.
pub trait Transport: Send {
    /// This node.
    fn local(&self) -> NodeId;

    /// The longest message of this lane, in bytes; zero when there is no such lane. It does not change.
    fn message_len_max(&self, lane: Lane) -> usize;

    /// Sends a message, or registers the waker for the time when the lane has room.
    ///
    /// # Errors
    /// [`SendError`]; nothing was sent.
    fn poll_send(&mut self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<Result<(), SendError>>;

    /// Receives a message into `payload`, or registers the waker for the time when there is one.
    ///
    /// # Errors
    /// [`RecvError`], when there will never be another.
    fn poll_recv(&mut self, cx: &mut Context<'_>, payload: &mut Vec<u8>)
    -> Poll<Result<Received, RecvError>>;

    /// Takes the next event of a peer, or registers the waker for the time when there is one.
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<PeerEvent>;

    /// Takes the next event or, if there is none, receives a message: an owner that polls nothing else knows
    /// the epoch of each message. Pending registers the waker for both.
    ///
    /// # Errors
    /// [`RecvError`], when there will never be another message.
    fn poll_next(&mut self, cx: &mut Context<'_>, payload: &mut Vec<u8>) -> Poll<Result<Next, RecvError>> {
        if let Poll::Ready(event) = self.poll_event(cx) {
            return Poll::Ready(Ok(Next::Event(event)));
        }
        self.poll_recv(cx, payload).map_ok(Next::Message)
    }

    /// Sends `transmit.payload` followed by `trailer`, as one message. A layer that adds bytes to each
    /// message, such as [`Mux`](crate::Mux), uses it. The provided method copies both into one buffer; a
    /// transport that copies anyway should override it.
    ///
    /// # Errors
    /// [`SendError`]; nothing was sent.
    fn poll_send_with_trailer(
        &mut self,
        cx: &mut Context<'_>,
        transmit: &Transmit<'_>,
        trailer: &[u8],
    ) -> Poll<Result<(), SendError>> {
        let payload = [transmit.payload, trailer].concat();
        self.poll_send(cx, &Transmit { payload: &payload, ..*transmit })
    }
}

impl<T: Transport + ?Sized> Transport for &mut T {
    fn local(&self) -> NodeId {
        (**self).local()
    }

    fn message_len_max(&self, lane: Lane) -> usize {
        (**self).message_len_max(lane)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<Result<(), SendError>> {
        (**self).poll_send(cx, transmit)
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        payload: &mut Vec<u8>,
    ) -> Poll<Result<Received, RecvError>> {
        (**self).poll_recv(cx, payload)
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<PeerEvent> {
        (**self).poll_event(cx)
    }

    fn poll_next(&mut self, cx: &mut Context<'_>, payload: &mut Vec<u8>) -> Poll<Result<Next, RecvError>> {
        (**self).poll_next(cx, payload)
    }

    fn poll_send_with_trailer(
        &mut self,
        cx: &mut Context<'_>,
        transmit: &Transmit<'_>,
        trailer: &[u8],
    ) -> Poll<Result<(), SendError>> {
        (**self).poll_send_with_trailer(cx, transmit, trailer)
    }
}

impl<T: Transport + ?Sized> Transport for Box<T> {
    fn local(&self) -> NodeId {
        (**self).local()
    }

    fn message_len_max(&self, lane: Lane) -> usize {
        (**self).message_len_max(lane)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<Result<(), SendError>> {
        (**self).poll_send(cx, transmit)
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        payload: &mut Vec<u8>,
    ) -> Poll<Result<Received, RecvError>> {
        (**self).poll_recv(cx, payload)
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<PeerEvent> {
        (**self).poll_event(cx)
    }

    fn poll_next(&mut self, cx: &mut Context<'_>, payload: &mut Vec<u8>) -> Poll<Result<Next, RecvError>> {
        (**self).poll_next(cx, payload)
    }

    fn poll_send_with_trailer(
        &mut self,
        cx: &mut Context<'_>,
        transmit: &Transmit<'_>,
        trailer: &[u8],
    ) -> Poll<Result<(), SendError>> {
        (**self).poll_send_with_trailer(cx, transmit, trailer)
    }
}
