//! Messages between coordinators.
//!
//! A message is a version (1), the sending and the receiving coordinator ([`Header`]), and any number of
//! frames: the requests and responses since the last message. A frame is a tag, the requester's number of its
//! request, and the fields of the tag. Integers and byte strings are encoded as in the other formats of this
//! crate. The bytes inside a frame are decoded only at their destination: commands by the state machine, so
//! that a write enters the log as it came; operations and answers by the coordinator.

use bytes::{BufMut, Bytes, BytesMut};
use x0_identity::NodeId;

use crate::request::codec::{self, DecodeError, Decoder};
use crate::request::limits::{COMMAND_LEN_MAX, OUTCOME_LEN_MAX};

/// The version of the messages.
pub(crate) const PROTOCOL_VERSION: u8 = 1;

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

/// Appends a frame to a message, which is begun if it is empty.
pub(crate) fn put(to: &mut BytesMut, header: Header, request: u64, body: &Body) {
    to.reserve(HEADER_LEN + body.len_max());
    if to.is_empty() {
        to.put_u8(PROTOCOL_VERSION);
        to.put_u64_le(header.from);
        to.put_u64_le(header.to);
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
    is_ended: bool,
}

impl<'a> Frames<'a> {
    /// Reads the head of a message.
    pub(crate) fn new(message: &'a Bytes) -> Result<(Header, Frames<'a>), DecodeError> {
        let mut from = Decoder::new(message);
        let found = from.u8("version of a message")?;
        if found != PROTOCOL_VERSION {
            return Err(DecodeError::Version { found });
        }
        let header = Header { from: instance(&mut from)?, to: instance(&mut from)? };
        Ok((header, Frames { from, is_ended: false }))
    }

    fn read(&mut self) -> Result<Option<Frame>, DecodeError> {
        if self.from.remaining() == 0 {
            return Ok(None);
        }
        let tag = self.from.u8("kind of frame")?;
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
        Ok(Some(Frame { request, body }))
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
