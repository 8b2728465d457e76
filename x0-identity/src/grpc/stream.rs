//! One stream: what is still to be sent, and how much the peer allows.

use std::sync::Arc;
use std::vec::Vec;

/// How a stream ends in the direction of sending.
#[derive(Debug)]
pub(super) enum End {
    /// With the last byte of the last message: a request.
    Data,
    /// With this block of trailers: a response.
    Trailers(Vec<u8>),
}

/// A message that is partly sent.
#[derive(Debug)]
pub(super) struct Sending {
    message: Arc<[u8]>,
    sent: usize,
}

/// The state of a stream that is open in at least one direction.
#[derive(Debug)]
pub(super) struct Stream {
    current: Option<Sending>,
    /// Follows `current`. A message that follows takes its place: each message is complete, so the newest one
    /// is enough, and a stream whose peer does not read keeps at most two.
    next: Option<Arc<[u8]>>,
    end: Option<End>,
    /// Bytes that the peer allows; negative after it reduced its setting (RFC 9113 §6.9.2).
    pub(super) window: i64,
    /// Bytes received since the last update of the window that the peer has.
    pub(super) received: u32,
    pub(super) recv_closed: bool,
    /// Whether the fields of the request or of the response came: the next ones are trailers.
    pub(super) fields_came: bool,
}

/// What a stream sends next.
pub(super) enum Next {
    Data { bytes: Vec<u8>, end: bool },
    Trailers(Vec<u8>),
}

impl Stream {
    pub(super) fn new(window: i64) -> Stream {
        Stream {
            current: None,
            next: None,
            end: None,
            window,
            received: 0,
            recv_closed: false,
            fields_came: false,
        }
    }

    pub(super) fn send(&mut self, message: Arc<[u8]>) {
        match &mut self.current {
            Some(current) if current.sent > 0 => self.next = Some(message),
            // Nothing of it is sent: the newer one takes its place.
            _ => self.current = Some(Sending { message, sent: 0 }),
        }
    }

    /// Ends the stream after the message that is partly sent, or after all messages.
    pub(super) fn end(&mut self, end: End, drop_messages: bool) {
        if drop_messages {
            self.next = None;
            self.current = self.current.take().filter(|current| current.sent > 0);
        }
        self.end = Some(end);
    }

    /// Whether everything up to the end is sent. A stream of a client has its end from the beginning.
    pub(super) fn is_sent(&self) -> bool {
        self.current.is_none() && self.end.is_none()
    }

    /// Whether the stream can send within a window of the connection.
    pub(super) fn is_ready(&self, connection_window: i64) -> bool {
        match &self.current {
            Some(_) => self.window > 0 && connection_window > 0,
            None => self.end.is_some(),
        }
    }

    /// The next frame, with at most `len_max` bytes of data. The end is taken only once.
    pub(super) fn take_next(&mut self, len_max: usize) -> Option<Next> {
        let Some(current) = &mut self.current else {
            return Some(match self.end.take()? {
                End::Data => Next::Data { bytes: Vec::new(), end: true },
                End::Trailers(block) => Next::Trailers(block),
            });
        };
        let left = &current.message[current.sent..];
        let bytes = left[..left.len().min(len_max)].to_vec();
        current.sent += bytes.len();
        if current.sent == current.message.len() {
            self.current = self.next.take().map(|message| Sending { message, sent: 0 });
        }
        let end = self.current.is_none() && matches!(self.end, Some(End::Data));
        if end {
            self.end = None;
        }
        Some(Next::Data { bytes, end })
    }
}
