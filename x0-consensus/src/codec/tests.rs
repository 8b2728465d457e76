//! Messages there and back, damaged, and as format version 1 has them.

use bytes::Bytes;
use proptest::prelude::*;
use raft::eraftpb::{Message, MessageType};
use x0_identity::NodeId;

use super::{
    Acknowledge, Chunk, DecodeError, Fields, Verdict, decode_raft, encode_raft, kind, to_raft_entry,
};
use crate::entry::{Entry, EntryKind, Membership, SnapshotMeta};

/// Whatever bytes are a message of, as the replica takes them apart.
#[derive(Debug, Clone, PartialEq)]
enum Packet {
    Raft(Box<Message>),
    Chunk(Chunk),
    Acknowledge(Acknowledge),
}

fn decode(bytes: Bytes) -> Result<Packet, DecodeError> {
    let mut fields = Fields::new(bytes);
    let version = fields.u8("version")?;
    if version != super::MESSAGE_VERSION {
        return Err(DecodeError::Version { found: version });
    }
    let packet = match fields.u8("kind")? {
        kind::RAFT => Packet::Raft(Box::new(decode_raft(&mut fields)?)),
        kind::CHUNK => Packet::Chunk(Chunk::decode(&mut fields)?),
        kind::ACKNOWLEDGE => Packet::Acknowledge(Acknowledge::decode(&mut fields)?),
        _ => return Err(DecodeError::Invalid { field: "kind" }),
    };
    fields.finish()?;
    Ok(packet)
}

fn encode(packet: &Packet) -> Vec<u8> {
    match packet {
        Packet::Raft(message) => encode_raft(message).unwrap(),
        Packet::Chunk(chunk) => chunk.encode(),
        Packet::Acknowledge(acknowledge) => acknowledge.encode(),
    }
}

fn append() -> Message {
    let entry = |index, term, kind, payload: &'static [u8]| {
        to_raft_entry(&Entry { index, term, kind, payload: Bytes::from_static(payload) })
    };
    Message {
        msg_type: MessageType::MsgAppend,
        term: 300,
        log_term: 2,
        index: 40,
        commit: 39,
        entries: vec![
            entry(41, 2, EntryKind::Normal, b"put"),
            entry(42, 3, EntryKind::Normal, b""),
            entry(43, 300, EntryKind::Membership, b"\x00\x00\x01\x07"),
        ]
        .into(),
        ..Message::default()
    }
}

fn chunk() -> Chunk {
    let node = |number| NodeId::new(number).unwrap();
    Chunk {
        term: 9,
        transfer: 4,
        number: 130,
        last: true,
        position: SnapshotMeta {
            index: 1000,
            term: 8,
            membership: Membership {
                voters: [node(1), node(2)].into(),
                voters_outgoing: [node(3)].into(),
                learners: [node(4)].into(),
                auto_leave: true,
                ..Membership::default()
            },
        },
        bytes: Bytes::from_static(b"state"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Recorded when the format was made. The files must not change: members with two releases exchange messages
/// during an upgrade. For an intended change raise the version, keep the old files, and run this test with
/// `X0_RECORD_FORMAT` set to record the new ones.
#[test]
fn version_1_is_as_recorded() {
    let response = Message {
        msg_type: MessageType::MsgAppendResponse,
        term: 3,
        index: 7,
        reject: true,
        reject_hint: 5,
        log_term: 2,
        ..Message::default()
    };
    let acknowledge = Acknowledge { term: 9, transfer: 4, next: 131, verdict: Verdict::Done };
    for (name, packet) in [
        ("append", Packet::Raft(Box::new(append()))),
        ("append-response", Packet::Raft(Box::new(response))),
        ("chunk", Packet::Chunk(chunk())),
        ("acknowledge", Packet::Acknowledge(acknowledge)),
    ] {
        let file = format!("{}/tests/data/messages-v1/{name}", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("X0_RECORD_FORMAT").is_some() {
            std::fs::create_dir_all(std::path::Path::new(&file).parent().unwrap()).unwrap();
            std::fs::write(&file, encode(&packet)).unwrap();
        }
        let recorded = std::fs::read(&file).unwrap();
        assert_eq!(hex(&encode(&packet)), hex(&recorded), "{packet:?}");
        assert_eq!(decode(recorded.into()), Ok(packet));
    }
}

#[test]
fn every_cut_is_refused() {
    for packet in [Packet::Raft(Box::new(append())), Packet::Chunk(chunk())] {
        let bytes = Bytes::from(encode(&packet));
        for end in 0..bytes.len() {
            assert!(decode(bytes.slice(..end)).is_err(), "{end} of {} bytes", bytes.len());
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert_eq!(decode(longer.into()), Err(DecodeError::Trailing { extra: 1 }));
    }
}

fn arbitrary_message() -> impl Strategy<Value = Message> {
    let numbers = prop::array::uniform6(prop_oneof![0_u64..5, any::<u64>()]);
    let entries =
        prop::collection::vec((0_u64..3, any::<bool>(), prop::collection::vec(any::<u8>(), 0..40)), 0..8);
    (1_u8..=9, any::<bool>(), numbers, entries).prop_map(|(number, reject, numbers, entries)| {
        let [log_term, index, commit, commit_term, reject_hint, request_snapshot] = numbers;
        let mut message = Message {
            msg_type: super::message::type_of(number).unwrap(),
            reject,
            term: log_term.saturating_add(40),
            log_term,
            index,
            commit,
            commit_term,
            reject_hint,
            request_snapshot,
            context: Bytes::copy_from_slice(&index.to_be_bytes()),
            ..Message::default()
        };
        let mut term = log_term;
        if message.msg_type == MessageType::MsgAppend {
            let mut made = Vec::new();
            for (place, (later, is_change, payload)) in (1_u64..).zip(entries) {
                let (Some(index), Some(next)) = (index.checked_add(place), term.checked_add(later)) else {
                    break;
                };
                term = next;
                let kind = if is_change { EntryKind::Membership } else { EntryKind::Normal };
                made.push(to_raft_entry(&Entry { term, index, kind, payload: payload.into() }));
            }
            message.entries = made.into();
        }
        message.term = message.term.max(term);
        message
    })
}

proptest! {
    #[test]
    fn written_values_are_read_back(message in arbitrary_message()) {
        let packet = Packet::Raft(Box::new(message));
        prop_assert_eq!(decode(encode(&packet).into()), Ok(packet));
    }

    /// Bytes are refused or read as something that is written as the same bytes: one message has one
    /// encoding.
    #[test]
    fn whatever_is_read_is_written_alike(
        message in arbitrary_message(), is_chunk: bool, flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)
    ) {
        let packet = if is_chunk { Packet::Chunk(chunk()) } else { Packet::Raft(Box::new(message)) };
        let mut bytes = encode(&packet);
        for (place, byte) in flips {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Ok(read) = decode(bytes.clone().into()) {
            prop_assert_eq!(encode(&read), bytes);
        }
    }

    #[test]
    fn any_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(bytes.into());
    }
}
