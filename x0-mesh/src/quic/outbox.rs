//! Messages for one peer that QUIC has not taken yet.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Waker};

use bytes::{Bytes, BytesMut};

use super::spares::Spares;

/// Small messages share chunks of this length, so that many of them become one write and few packets.
const CHUNK_LEN: usize = 32 << 10;
/// How many bytes of datagrams wait for a peer that is being reached for the first time.
const EARLY_DATAGRAMS_LEN_MAX: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Outbox {
    /// The ordered lanes, then the bulk lane.
    pub(super) lanes: Vec<OutLane>,
    pub(super) datagrams: VecDeque<Bytes>,
    datagrams_len: usize,
}

#[derive(Debug, Default)]
pub(super) struct OutLane {
    content: Content,
    /// Bytes that QUIC has not taken yet.
    len: usize,
    /// The owner, when it waits for room.
    sender: Option<Waker>,
    /// The task that gives the bytes to QUIC, when it waits for some.
    writer: Option<Waker>,
}

#[derive(Debug)]
enum Content {
    /// Messages with their lengths, one after another.
    Stream(BytesMut),
    Messages(VecDeque<Bytes>),
}

impl Default for Content {
    fn default() -> Content {
        Content::Stream(BytesMut::new())
    }
}

impl Outbox {
    pub(super) fn new(ordered_lanes: u8) -> Outbox {
        let mut lanes: Vec<OutLane> = (0..ordered_lanes).map(|_| OutLane::default()).collect();
        lanes.push(OutLane { content: Content::Messages(VecDeque::new()), ..OutLane::default() });
        Outbox { lanes, datagrams: VecDeque::new(), datagrams_len: 0 }
    }

    /// Keeps a datagram for the first epoch, if there is room.
    pub(super) fn keep_datagram(&mut self, payload: &[u8], trailer: &[u8]) -> bool {
        // One more byte each, so that empty datagrams are bounded too.
        let len = self.datagrams_len + payload.len() + trailer.len() + 1;
        let has_room = len <= EARLY_DATAGRAMS_LEN_MAX;
        if has_room {
            self.datagrams_len = len;
            self.datagrams.push_back(joined(payload, trailer));
        }
        has_room
    }

    pub(super) fn take_datagrams(&mut self) -> VecDeque<Bytes> {
        self.datagrams_len = 0;
        std::mem::take(&mut self.datagrams)
    }

    /// Drops everything. Tasks that wait are woken, and find out that the epoch is over.
    pub(super) fn clear(&mut self, wakers: &mut Vec<Waker>) {
        self.take_datagrams();
        for lane in &mut self.lanes {
            match &mut lane.content {
                Content::Stream(stream) => *stream = BytesMut::new(),
                Content::Messages(messages) => messages.clear(),
            }
            lane.len = 0;
            wakers.extend(lane.sender.take());
            wakers.extend(lane.writer.take());
        }
    }
}

impl OutLane {
    /// Takes a message if there is room, and returns the task to wake for it; otherwise registers the owner's
    /// waker.
    pub(super) fn push(
        &mut self,
        cx: &Context<'_>,
        payload: &[u8],
        trailer: &[u8],
        len_max: usize,
        spares: &Arc<Spares>,
    ) -> Result<Option<Waker>, Full> {
        let message_len = payload.len() + trailer.len();
        let len = HEADER_LEN + message_len;
        // A message longer than the bound is taken by an empty outbox: each message of a legal length is
        // taken sooner or later.
        if self.len != 0 && self.len.saturating_add(len) > len_max {
            match &mut self.sender {
                Some(sender) => sender.clone_from(cx.waker()),
                sender => *sender = Some(cx.waker().clone()),
            }
            return Err(Full);
        }
        match &mut self.content {
            Content::Stream(stream) => {
                // Written bytes are handed out as slices of the same allocation; a new one is made when it is
                // used up.
                if stream.capacity() - stream.len() < len {
                    stream.reserve(len.max(CHUNK_LEN));
                }
                stream.extend_from_slice(&length(message_len));
                stream.extend_from_slice(payload);
                stream.extend_from_slice(trailer);
            }
            Content::Messages(messages) => messages.push_back(message(payload, trailer, spares)),
        }
        self.len += len;
        Ok(self.writer.take())
    }

    /// Removes what is to be written: everything on an ordered lane, one message on the bulk lane.
    pub(super) fn take(&mut self, cx: &Context<'_>) -> Option<Bytes> {
        let bytes = match &mut self.content {
            Content::Stream(stream) if stream.is_empty() => None,
            Content::Stream(stream) => Some(stream.split().freeze()),
            Content::Messages(messages) => messages.pop_front(),
        };
        // Registered only when there is nothing, so that a busy lane wakes no task.
        if bytes.is_none() {
            self.writer = Some(cx.waker().clone());
        }
        bytes
    }

    /// QUIC has taken bytes. Returns the owner's waker if half of the outbox is free: to wake it for each
    /// message would cost more.
    pub(super) fn written(&mut self, len: usize, len_max: usize) -> Option<Waker> {
        self.len = self.len.saturating_sub(len);
        if self.len <= len_max / 2 { self.sender.take() } else { None }
    }
}

/// The lane is full.
#[derive(Debug)]
pub(super) struct Full;

/// The length before a message, in bytes.
const HEADER_LEN: usize = 4;

/// A message's length as it stands before it; that it fits was checked when it was taken.
pub(super) fn length(len: usize) -> [u8; HEADER_LEN] {
    u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes()
}

/// A bulk message, in a buffer that an earlier one does not need any more, if there is one.
fn message(payload: &[u8], trailer: &[u8], spares: &Arc<Spares>) -> Bytes {
    let len = payload.len() + trailer.len();
    let mut bytes = spares.take(len).unwrap_or_else(|| Vec::with_capacity(len));
    bytes.extend_from_slice(payload);
    bytes.extend_from_slice(trailer);
    spares.lend(bytes)
}

pub(super) fn joined(payload: &[u8], trailer: &[u8]) -> Bytes {
    if trailer.is_empty() {
        return Bytes::copy_from_slice(payload);
    }
    let mut bytes = BytesMut::with_capacity(payload.len() + trailer.len());
    bytes.extend_from_slice(payload);
    bytes.extend_from_slice(trailer);
    bytes.freeze()
}
