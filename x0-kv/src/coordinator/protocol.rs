//! Messages between coordinators.
//!
//! A message is a version (1, or 2 if it has trace contexts), the sending and the receiving coordinator
//! ([`Header`]), and any number of frames: the requests and responses since the last message. A frame is a
//! tag, the requester's number of its request, and the fields of the tag. Integers and byte strings are
//! encoded as in the other formats of this crate. The bytes inside a frame are decoded only at their
//! destination: commands by the state machine, so that a write enters the log as it came; operations and
//! answers by the coordinator.

use bytes::{BufMut, Bytes, BytesMut};
use x0_identity::NodeId;

use crate::request::codec::{self, DecodeError, Decoder};
use crate::request::limits::{COMMAND_LEN_MAX, OUTCOME_LEN_MAX};
use crate::trace::Context;

/// The version of messages without trace contexts.
pub(crate) const PROTOCOL_VERSION: u8 = 1;
/// The version of messages with trace contexts.
pub(crate) const CONTEXTS_VERSION: u8 = 2;
/// The versions that this release speaks. From version 2 on, requests may have a trace context. A driver
/// negotiates a version with each peer and reports it with [`Input::Negotiated`](super::Input::Negotiated).
pub const PROTOCOL_VERSIONS: std::ops::RangeInclusive<u16> = 1..=2;
/// The tag of a context, which belongs to the frame after it.
const CONTEXT_TAG: u8 = 12;
/// How many bytes a frame with a context takes besides its own.
pub(crate) const CONTEXT_LEN: usize = 1 + Context::LEN;

/// The longest message: what a transport must be able to carry on an ordered lane.
pub const MESSAGE_LEN_MAX: usize =
    (if COMMAND_LEN_MAX > OUTCOME_LEN_MAX { COMMAND_LEN_MAX } else { OUTCOME_LEN_MAX }) + 64;

/// The head of a message. A node that starts again numbers its requests from the beginning, so that answers
/// to earlier ones must be distinguished from answers to later ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// The start of the sender, to which its requests belong.
    pub(crate) from: u64,
    /// The start of the receiver, to which the responses belong; 0 if the sender knows none.
    pub(crate) to: u64,
}

const HEADER_LEN: usize = 1 + 8 + 8;

/// One request or response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The requester's number for the request: the response repeats it.
    pub(crate) request: u64,
    /// The trace that the request belongs to.
    pub(crate) trace: Option<Context>,
    pub(crate) body: Body,
}

/// The content of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Body {
    /// A request to append this command to the log and to answer with its outcome.
    Propose { command: Bytes },
    /// A request to answer this read.
    Read { operation: Bytes },
    /// The operation was done, with this outcome.
    Answer { applied: Bytes },
    /// Nothing was done: this node is not the leader.
    NotLeader { leader: Option<NodeId> },
    /// Nothing was done: the node is busy, try again.
    Busy,
    /// The operation may or may not have been done.
    Unknown,
    /// Nothing was done, and repeating the request is useless: it cannot be decoded here, or is longer than
    /// an entry of the log may be.
    Rejected,
    /// Nothing was done: the disks have no space for it.
    NoSpace,
    /// Report the leader from now on. Not a request: its number means nothing, as that of `Leader`.
    Watch,
    /// The leader of this term, if there is one.
    Leader { term: u64, leader: Option<NodeId> },
    /// As `Propose`; a member that does not lead passes it on to the leader.
    RelayPropose { command: Bytes },
    /// As `Read`; a member that does not lead passes it on to the leader.
    RelayRead { operation: Bytes },
}

impl Body {
    fn tag(&self) -> u8 {
        match self {
            Body::Propose { .. } => 0,
            Body::Read { .. } => 1,
            Body::Answer { .. } => 2,
            Body::NotLeader { .. } => 3,
            Body::Busy => 4,
            Body::Unknown => 5,
            Body::Rejected => 6,
            Body::NoSpace => 7,
            Body::Watch => 8,
            Body::Leader { .. } => 9,
            Body::RelayPropose { .. } => 10,
            Body::RelayRead { .. } => 11,
        }
    }

    /// At most how many bytes the frame takes.
    pub(crate) fn len_max(&self) -> usize {
        24 + match self {
            Body::Propose { command: bytes }
            | Body::RelayPropose { command: bytes }
            | Body::Read { operation: bytes }
            | Body::RelayRead { operation: bytes }
            | Body::Answer { applied: bytes } => bytes.len(),
            _ => 0,
        }
    }
}

/// As [`put_traced`], without a trace.
#[cfg(test)]
pub(crate) fn put(to: &mut BytesMut, header: Header, request: u64, body: &Body) {
    put_traced(to, header, request, body, None);
}

/// Appends a frame to a message, which is begun if it is empty, with the trace that the request belongs to.
pub(crate) fn put_traced(
    to: &mut BytesMut,
    header: Header,
    request: u64,
    body: &Body,
    trace: Option<&Context>,
) {
    to.reserve(HEADER_LEN + body.len_max() + trace.map_or(0, |_| CONTEXT_LEN));
    if to.is_empty() {
        to.put_u8(PROTOCOL_VERSION);
        to.put_u64_le(header.from);
        to.put_u64_le(header.to);
    }
    if let Some(context) = trace {
        if let Some(version) = to.first_mut() {
            *version = CONTEXTS_VERSION;
        }
        to.put_u8(CONTEXT_TAG);
        to.put_slice(&context.to_bytes());
    }
    to.put_u8(body.tag());
    codec::put_u64(to, request);
    match body {
        Body::Propose { command: bytes }
        | Body::RelayPropose { command: bytes }
        | Body::Read { operation: bytes }
        | Body::RelayRead { operation: bytes }
        | Body::Answer { applied: bytes } => {
            codec::put_bytes(to, bytes);
        }
        Body::NotLeader { leader } => codec::put_u64(to, leader.map_or(0, NodeId::get)),
        Body::Leader { term, leader } => {
            codec::put_u64(to, *term);
            codec::put_u64(to, leader.map_or(0, NodeId::get));
        }
        Body::Busy | Body::Unknown | Body::Rejected | Body::NoSpace | Body::Watch => {}
    }
}

/// The frames of a message, one after the other. Ends with the first fault.
#[derive(Debug)]
pub(crate) struct Frames<'a> {
    from: Decoder<'a>,
    has_contexts: bool,
    is_ended: bool,
}

impl<'a> Frames<'a> {
    /// Reads the head of a message.
    pub(crate) fn new(message: &'a Bytes) -> Result<(Header, Frames<'a>), DecodeError> {
        let mut from = Decoder::new(message);
        let found = from.u8("version of a message")?;
        if found != PROTOCOL_VERSION && found != CONTEXTS_VERSION {
            return Err(DecodeError::Version { found });
        }
        let header = Header { from: instance(&mut from)?, to: instance(&mut from)? };
        Ok((header, Frames { from, has_contexts: found == CONTEXTS_VERSION, is_ended: false }))
    }

    fn read(&mut self) -> Result<Option<Frame>, DecodeError> {
        if self.from.remaining() == 0 {
            return Ok(None);
        }
        let mut tag = self.from.u8("kind of frame")?;
        let mut trace = None;
        if tag == CONTEXT_TAG && self.has_contexts {
            trace = Some(self.context()?);
            tag = self.from.u8("kind of frame")?;
        }
        let request = self.from.u64("number of a request")?;
        let body = match tag {
            0 => Body::Propose { command: self.from.bytes("command", COMMAND_LEN_MAX)? },
            1 => Body::Read { operation: self.from.bytes("operation", COMMAND_LEN_MAX)? },
            2 => Body::Answer { applied: self.from.bytes("answer", OUTCOME_LEN_MAX)? },
            3 => Body::NotLeader { leader: NodeId::new(self.from.u64("leader")?) },
            4 => Body::Busy,
            5 => Body::Unknown,
            6 => Body::Rejected,
            7 => Body::NoSpace,
            8 => Body::Watch,
            9 => Body::Leader { term: self.from.u64("term")?, leader: NodeId::new(self.from.u64("leader")?) },
            10 => Body::RelayPropose { command: self.from.bytes("command", COMMAND_LEN_MAX)? },
            11 => Body::RelayRead { operation: self.from.bytes("operation", COMMAND_LEN_MAX)? },
            tag => return Err(DecodeError::Tag { what: "kind of frame", tag }),
        };
        Ok(Some(Frame { request, trace, body }))
    }

    fn context(&mut self) -> Result<Context, DecodeError> {
        let mut bytes = [0; Context::LEN];
        for byte in &mut bytes {
            *byte = self.from.u8("trace context")?;
        }
        Context::from_bytes(&bytes).ok_or(DecodeError::Tag { what: "trace context", tag: 0 })
    }
}

fn instance(from: &mut Decoder<'_>) -> Result<u64, DecodeError> {
    let mut bytes = [0; 8];
    for byte in &mut bytes {
        *byte = from.u8("head of a message")?;
    }
    Ok(u64::from_le_bytes(bytes))
}

impl Iterator for Frames<'_> {
    type Item = Result<Frame, DecodeError>;

    fn next(&mut self) -> Option<Result<Frame, DecodeError>> {
        if self.is_ended {
            return None;
        }
        let frame = self.read().transpose();
        self.is_ended = !matches!(frame, Some(Ok(_)));
        frame
    }
}

#[cfg(test)]
mod tests;
