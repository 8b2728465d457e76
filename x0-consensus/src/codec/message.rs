//! The encoding of the messages of Raft and their entries.

use bytes::Bytes;
use raft::eraftpb::{Entry as RaftEntry, EntryType, Message, MessageType};

use super::{DecodeError, Fields, MESSAGE_VERSION, PAYLOAD_LEN_MAX, kind, put_bytes, put_u64};
use crate::entry::{Entry, EntryKind};

/// The longest context of a message: the number of a read round.
const CONTEXT_LEN_MAX: usize = 16;
/// The least bytes of an entry: its kind, the difference of the terms and the length of the payload.
const ENTRY_LEN_MIN: usize = 3;
const ENTRIES_MAX: usize = 1 << 20;

/// The message types that are sent. Local messages of `raft`, forwarded proposals and whole snapshots are
/// not.
pub(super) fn type_of(number: u8) -> Option<MessageType> {
    Some(match number {
        1 => MessageType::MsgAppend,
        2 => MessageType::MsgAppendResponse,
        3 => MessageType::MsgRequestVote,
        4 => MessageType::MsgRequestVoteResponse,
        5 => MessageType::MsgHeartbeat,
        6 => MessageType::MsgHeartbeatResponse,
        7 => MessageType::MsgTimeoutNow,
        8 => MessageType::MsgRequestPreVote,
        9 => MessageType::MsgRequestPreVoteResponse,
        _ => return None,
    })
}

fn number_of(message_type: MessageType) -> Option<u8> {
    (1..=9).find(|number| type_of(*number) == Some(message_type))
}

/// An entry in the form of `raft`. The payload of a membership change is in the context, because `raft`
/// decodes the data of such an entry as protobuf.
pub(crate) fn to_raft_entry(entry: &Entry) -> RaftEntry {
    let mut raft = RaftEntry { term: entry.term, index: entry.index, ..RaftEntry::default() };
    match entry.kind {
        EntryKind::Normal => raft.data = entry.payload.clone(),
        EntryKind::Membership => {
            raft.entry_type = EntryType::EntryConfChangeV2;
            raft.context = entry.payload.clone();
        }
    }
    raft
}

/// An entry of `raft` in the form of this crate. A membership change without a payload is the one by which
/// `raft` leaves a joint phase.
pub(crate) fn from_raft_entry(raft: &RaftEntry) -> Entry {
    let (kind, payload) = match raft.entry_type {
        EntryType::EntryNormal => (EntryKind::Normal, raft.data.clone()),
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
            (EntryKind::Membership, raft.context.clone())
        }
    };
    Entry { term: raft.term, index: raft.index, kind, payload }
}

/// Encodes a message; `None` for a type that is not sent, and for entries that do not follow the position of
/// the message: the receiver would take them for others.
pub(crate) fn encode_raft(message: &Message) -> Option<Vec<u8>> {
    let number = number_of(message.msg_type)?;
    let follows = |(entry, index): (&RaftEntry, u64)| entry.index == index;
    if !message.entries.iter().zip(message.index.saturating_add(1)..).all(follows) {
        return None;
    }
    let payload_len: usize =
        message.entries.iter().map(|entry| entry.data.len() + entry.context.len() + 24).sum();
    let mut to = Vec::with_capacity(64 + payload_len);
    to.extend([MESSAGE_VERSION, kind::RAFT, number, u8::from(message.reject)]);
    for field in [
        message.term,
        message.log_term,
        message.index,
        message.commit,
        message.commit_term,
        message.reject_hint,
        message.request_snapshot,
    ] {
        put_u64(&mut to, field);
    }
    put_bytes(&mut to, &message.context);
    put_u64(&mut to, message.entries.len() as u64);
    let mut term = message.log_term;
    for raft in &message.entries {
        let entry = from_raft_entry(raft);
        to.push(match entry.kind {
            EntryKind::Normal => 0,
            EntryKind::Membership => 1,
        });
        // Terms do not decrease along a log and rarely change, so that the difference is one byte.
        put_u64(&mut to, entry.term.saturating_sub(term));
        term = entry.term;
        put_bytes(&mut to, &entry.payload);
    }
    Some(to)
}

/// Decodes the message after the version and kind bytes. Its entries continue the position of the message
/// without gaps, with terms that do not decrease and do not exceed the message's own.
pub(crate) fn decode_raft(from: &mut Fields) -> Result<Message, DecodeError> {
    let invalid = |field| DecodeError::Invalid { field };
    let mut message = Message {
        msg_type: type_of(from.u8("message type")?).ok_or(invalid("message type"))?,
        reject: from.bool("rejection")?,
        term: from.u64("term")?,
        log_term: from.u64("log term")?,
        index: from.u64("index")?,
        commit: from.u64("commit")?,
        commit_term: from.u64("commit term")?,
        reject_hint: from.u64("rejection hint")?,
        request_snapshot: from.u64("snapshot request")?,
        context: from.bytes("context", CONTEXT_LEN_MAX)?,
        ..Message::default()
    };
    let count = from.count("entries", ENTRY_LEN_MIN, ENTRIES_MAX)?;
    if count > 0 && message.msg_type != MessageType::MsgAppend {
        return Err(invalid("entries"));
    }
    let mut entries = Vec::with_capacity(count);
    let (mut term, mut index) = (message.log_term, message.index);
    for _ in 0..count {
        let kind = match from.u8("entry kind")? {
            0 => EntryKind::Normal,
            1 => EntryKind::Membership,
            _ => return Err(invalid("entry kind")),
        };
        term = term.checked_add(from.u64("entry term")?).ok_or(invalid("entry term"))?;
        index = index.checked_add(1).ok_or(invalid("entry index"))?;
        let payload: Bytes = from.bytes("payload", PAYLOAD_LEN_MAX)?;
        entries.push(to_raft_entry(&Entry { term, index, kind, payload }));
    }
    if term > message.term && message.msg_type == MessageType::MsgAppend {
        return Err(invalid("entry term"));
    }
    message.entries = entries.into();
    Ok(message)
}
