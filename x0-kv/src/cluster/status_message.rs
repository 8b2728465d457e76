//! Messages of the status service.
//!
//! A request is the version (3) and 0. A report of a client is the version, 2, and the members that let
//! attempts time out. An answer is the version, 1, and the fields of [`NodeStatus`] in their order; lists are
//! preceded by their length, times are microseconds. Integers are those of the other formats of this crate.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use x0_consensus::{Membership, Standing};
use x0_identity::NodeId;

use super::NodeStatus;
use super::waiting::WaitingStatus;
use crate::request::codec::{self, DecodeError, Decoder};
use crate::request::limits::MEMBERS_LEN_MAX;
use crate::request::member::Members;
use crate::scrub::ScrubStatus;
use crate::space::SpaceStatus;

const STATUS_VERSION: u8 = 3;
/// Most nodes in one of the lists.
const NODES_MAX: usize = 4096;

/// A message of the status service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    Request,
    Answer(Box<NodeStatus>),
    /// Members that let attempts of the sender time out since its last report.
    Unanswered(BTreeSet<NodeId>),
}

pub(super) fn encode_request() -> Bytes {
    Bytes::from_static(&[STATUS_VERSION, 0])
}

pub(super) fn encode_unanswered(nodes: &BTreeSet<NodeId>) -> Bytes {
    let mut to = BytesMut::with_capacity(32);
    to.put_u8(STATUS_VERSION);
    to.put_u8(2);
    put_nodes(&mut to, nodes);
    to.freeze()
}

pub(super) fn encode_answer(status: &NodeStatus) -> Bytes {
    let NodeStatus {
        node,
        leader,
        term,
        committed,
        applied,
        membership,
        members,
        reached,
        decode_errors,
        refused_messages,
        space,
        standing,
        acknowledged,
        scrub,
        set_aside,
        membership_index,
        last_message_ages,
        write_age,
        write_latency,
        apply_latency,
        waiting,
        reported,
    } = status;
    let mut to = BytesMut::with_capacity(128);
    to.put_u8(STATUS_VERSION);
    to.put_u8(1);
    for number in [node.get(), leader.map_or(0, NodeId::get), *term, *committed, *applied] {
        codec::put_u64(&mut to, number);
    }
    for nodes in
        [&membership.voters, &membership.voters_outgoing, &membership.learners, &membership.learners_next]
    {
        put_nodes(&mut to, nodes);
    }
    to.put_u8(membership.auto_leave.into());
    let mut table = BytesMut::new();
    members.encode(&mut table);
    codec::put_bytes(&mut to, &table);
    put_nodes(&mut to, reached);
    codec::put_u64(&mut to, *decode_errors);
    codec::put_u64(&mut to, *refused_messages);
    put_space(&mut to, space);
    put_standing(&mut to, standing);
    put_by_node(&mut to, acknowledged.iter().map(|(node, index)| (*node, *index)));
    put_scrub(&mut to, scrub);
    codec::put_u64(&mut to, *set_aside);
    codec::put_u64(&mut to, *membership_index);
    put_by_node(&mut to, last_message_ages.iter().map(|(node, age)| (*node, micros(*age))));
    codec::put_u64(&mut to, micros(*write_age));
    for latency in [write_latency, apply_latency] {
        to.put_u8(latency.is_some().into());
        codec::put_u64(&mut to, latency.map_or(0, micros));
    }
    let WaitingStatus { calls, requests, requests_max, requests_per_peer_max, unanswered } = waiting;
    for count in [*calls, *requests, *requests_max, *requests_per_peer_max] {
        codec::put_u64(&mut to, count);
    }
    put_by_node(&mut to, unanswered.iter().map(|(node, count)| (*node, *count)));
    put_by_node(&mut to, reported.iter().map(|(node, count)| (*node, *count)));
    to.freeze()
}

pub(super) fn decode(message: &Bytes) -> Result<Message, DecodeError> {
    let mut from = Decoder::new(message);
    let found = from.u8("version of a status message")?;
    if found != STATUS_VERSION {
        return Err(DecodeError::Version { found });
    }
    let decoded = match from.u8("kind of status message")? {
        0 => Message::Request,
        1 => Message::Answer(Box::new(status(&mut from)?)),
        2 => Message::Unanswered(nodes(&mut from)?),
        tag => return Err(DecodeError::Tag { what: "kind of status message", tag }),
    };
    from.finish()?;
    Ok(decoded)
}

fn status(from: &mut Decoder<'_>) -> Result<NodeStatus, DecodeError> {
    Ok(NodeStatus {
        node: node(from)?,
        leader: NodeId::new(from.u64("leader")?),
        term: from.u64("term")?,
        committed: from.u64("committed index")?,
        applied: from.u64("applied index")?,
        membership: Membership {
            voters: nodes(from)?,
            voters_outgoing: nodes(from)?,
            learners: nodes(from)?,
            learners_next: nodes(from)?,
            auto_leave: from.bool("end of a joint membership")?,
            ..Membership::default()
        },
        members: members(from)?,
        reached: nodes(from)?,
        decode_errors: from.u64("count of messages")?,
        refused_messages: from.u64("count of messages")?,
        space: space(from)?,
        standing: standing(from)?,
        acknowledged: by_node(from, "acknowledged index")?,
        scrub: scrub(from)?,
        set_aside: from.u64("count of folders")?,
        membership_index: from.u64("membership index")?,
        last_message_ages: by_node(from, "age of a message")?
            .into_iter()
            .map(|(node, age)| (node, Duration::from_micros(age)))
            .collect(),
        write_age: Duration::from_micros(from.u64("age of a write")?),
        write_latency: latency(from)?,
        apply_latency: latency(from)?,
        waiting: WaitingStatus {
            calls: from.u64("count of calls")?,
            requests: from.u64("count of requests")?,
            requests_max: from.u64("limit of requests")?,
            requests_per_peer_max: from.u64("limit of requests")?,
            unanswered: by_node(from, "count of attempts")?,
        },
        reported: by_node(from, "count of clients")?,
    })
}

fn put_by_node(to: &mut BytesMut, numbers: impl ExactSizeIterator<Item = (NodeId, u64)>) {
    let count = numbers.len().min(NODES_MAX);
    codec::put_u64(to, count as u64);
    for (node, number) in numbers.take(count) {
        codec::put_u64(to, node.get());
        codec::put_u64(to, number);
    }
}

fn by_node(from: &mut Decoder<'_>, what: &'static str) -> Result<BTreeMap<NodeId, u64>, DecodeError> {
    let count = from.len("count of nodes", NODES_MAX)?;
    (0..count).map(|_| Ok((node(from)?, from.u64(what)?))).collect()
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn latency(from: &mut Decoder<'_>) -> Result<Option<Duration>, DecodeError> {
    let is_known = from.bool("presence of a latency")?;
    let micros = from.u64("latency")?;
    Ok(is_known.then_some(Duration::from_micros(micros)))
}

fn put_space(to: &mut BytesMut, space: &SpaceStatus) {
    let SpaceStatus { free, reserve, is_low, log_waits, checkpoint_waits, journal_waits } = *space;
    to.put_u8(free.is_some().into());
    codec::put_u64(to, free.unwrap_or(0));
    codec::put_u64(to, reserve);
    for condition in [is_low, log_waits, checkpoint_waits, journal_waits] {
        to.put_u8(condition.into());
    }
}

fn space(from: &mut Decoder<'_>) -> Result<SpaceStatus, DecodeError> {
    let is_known = from.bool("presence of the free space")?;
    let free = from.u64("free space")?;
    Ok(SpaceStatus {
        free: is_known.then_some(free),
        reserve: from.u64("reserve")?,
        is_low: from.bool("condition of the disk")?,
        log_waits: from.bool("condition of the disk")?,
        checkpoint_waits: from.bool("condition of the disk")?,
        journal_waits: from.bool("condition of the disk")?,
    })
}

fn members(from: &mut Decoder<'_>) -> Result<Arc<Members>, DecodeError> {
    let table = from.bytes("member table", MEMBERS_LEN_MAX)?;
    Members::decode(&mut Decoder::new(&table)).map(Arc::new)
}

fn put_standing(to: &mut BytesMut, standing: &Standing) {
    match standing {
        Standing::Founding { missing } => {
            to.put_u8(1);
            put_nodes(to, missing);
        }
        Standing::Rejoining { registered } => {
            to.put_u8(2);
            codec::put_u64(to, *registered);
        }
        Standing::Outsider => to.put_u8(3),
        _ => to.put_u8(0),
    }
}

fn standing(from: &mut Decoder<'_>) -> Result<Standing, DecodeError> {
    match from.u8("standing")? {
        0 => Ok(Standing::Member),
        1 => Ok(Standing::Founding { missing: nodes(from)? }),
        2 => Ok(Standing::Rejoining { registered: from.u64("registered incarnation")? }),
        3 => Ok(Standing::Outsider),
        tag => Err(DecodeError::Tag { what: "standing", tag }),
    }
}

fn put_scrub(to: &mut BytesMut, scrub: &ScrubStatus) {
    let ScrubStatus { passes, entries, damaged, repaired, diverged } = *scrub;
    for count in [passes, entries, damaged, repaired, diverged] {
        codec::put_u64(to, count);
    }
}

fn scrub(from: &mut Decoder<'_>) -> Result<ScrubStatus, DecodeError> {
    let mut count = || from.u64("count of the scrub");
    Ok(ScrubStatus {
        passes: count()?,
        entries: count()?,
        damaged: count()?,
        repaired: count()?,
        diverged: count()?,
    })
}

fn put_nodes(to: &mut BytesMut, nodes: &BTreeSet<NodeId>) {
    let count = nodes.len().min(NODES_MAX);
    codec::put_u64(to, count as u64);
    for node in nodes.iter().take(count) {
        codec::put_u64(to, node.get());
    }
}

fn nodes(from: &mut Decoder<'_>) -> Result<BTreeSet<NodeId>, DecodeError> {
    let count = from.len("count of nodes", NODES_MAX)?;
    (0..count).map(|_| node(from)).collect()
}

fn node(from: &mut Decoder<'_>) -> Result<NodeId, DecodeError> {
    NodeId::new(from.u64("node")?).ok_or(DecodeError::Tag { what: "node", tag: 0 })
}

/// A decoded message is encoded and decoded to itself.
#[cfg(fuzzing)]
pub(super) fn fuzz(message: &Bytes) {
    if let Ok(Message::Answer(status)) = decode(message) {
        assert_eq!(decode(&encode_answer(&status)), Ok(Message::Answer(status)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorded::recorded;
    use crate::request::member::MemberChange;

    fn status() -> NodeStatus {
        let node = |number| NodeId::new(number).unwrap();
        NodeStatus {
            node: node(1),
            leader: Some(node(2)),
            term: 3,
            committed: 400,
            applied: 399,
            membership: Membership {
                voters: [1, 2, u64::MAX].map(node).into(),
                learners: [node(7)].into(),
                auto_leave: true,
                ..Membership::default()
            },
            members: {
                let mut members = Members::default();
                let addresses = vec!["a:1".into(), "b:2".into()];
                members.change(&MemberChange::Addresses { node: node(1), addresses }).unwrap();
                Arc::new(members)
            },
            reached: [node(2)].into(),
            decode_errors: 5,
            space: SpaceStatus {
                free: Some(1 << 40),
                reserve: 300,
                log_waits: true,
                ..SpaceStatus::default()
            },
            refused_messages: 6,
            standing: Standing::Founding { missing: [node(3)].into() },
            acknowledged: [(node(2), 399)].into(),
            scrub: ScrubStatus { passes: 1, entries: 2000, damaged: 3, repaired: 2, diverged: 1 },
            set_aside: 4,
            membership_index: 77,
            last_message_ages: [(node(2), Duration::from_micros(1500)), (node(7), Duration::from_secs(9))]
                .into(),
            write_age: Duration::from_millis(3),
            write_latency: Some(Duration::from_micros(812)),
            apply_latency: None,
            waiting: WaitingStatus {
                calls: 8,
                requests: 300,
                requests_max: 4096,
                requests_per_peer_max: 1024,
                unanswered: [(node(2), 5)].into(),
            },
            reported: [(node(2), 3)].into(),
        }
    }

    #[test]
    fn recorded_messages_mean_what_they_meant() {
        let nodes = status().membership.voters;
        let messages = [encode_request(), encode_answer(&status()), encode_unanswered(&nodes)];
        let messages = recorded("status.hex", &messages);
        let decoded: Vec<_> = messages.iter().map(decode).collect();
        let answer = Message::Answer(Box::new(status()));
        assert_eq!(decoded, [Ok(Message::Request), Ok(answer), Ok(Message::Unanswered(nodes))]);
    }

    #[test]
    fn encoded_messages_are_decoded() {
        let answer = encode_answer(&status());
        assert_eq!(decode(&answer), Ok(Message::Answer(Box::new(status()))));
        assert_eq!(decode(&encode_request()), Ok(Message::Request));
    }

    /// Every byte damaged in turn, every length cut: refused or decoded as another message that can be
    /// encoded, never a panic.
    #[test]
    fn damaged_messages_do_no_harm() {
        let answer = encode_answer(&status());
        for position in 0..answer.len() {
            assert!(decode(&answer.slice(..position)).is_err());
            for bit in 0..8 {
                let mut damaged = answer.to_vec();
                damaged[position] ^= 1 << bit;
                if let Ok(Message::Answer(read)) = decode(&damaged.into()) {
                    assert_eq!(decode(&encode_answer(&read)), Ok(Message::Answer(read)));
                }
            }
        }
    }
}
