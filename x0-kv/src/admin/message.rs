//! Messages of the admin service.
//!
//! A message is the version (1), a kind, the number that the asker gave its request, and a request or a
//! result. Integers and byte strings are those of the other formats of this crate.

use std::collections::BTreeSet;

use bytes::{BufMut, Bytes, BytesMut};
use x0_identity::NodeId;

use super::request::{AdminError, AdminReply, AdminRequest, MemberInfo, MemberList, MemberRole};
use crate::request::codec::{self, DecodeError, Decoder};
use crate::request::limits::MEMBERS_MAX;
use crate::request::member::{addresses, node, put_addresses};

const ADMIN_VERSION: u8 = 1;
/// The longest message, in bytes.
pub(crate) const MESSAGE_LEN_MAX: usize = 512 << 10;

/// A message of the admin service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// A request of the sender itself.
    Request { number: u64, request: AdminRequest },
    /// A request that the sender, a member, has accepted from an operator.
    Forwarded { number: u64, request: AdminRequest },
    /// The result of a request of the receiver.
    Response { number: u64, result: Result<AdminReply, AdminError> },
}

pub(crate) fn encode(message: &Message) -> Bytes {
    let mut to = BytesMut::with_capacity(64);
    to.put_u8(ADMIN_VERSION);
    match message {
        Message::Request { number, request } => {
            to.put_u8(0);
            codec::put_u64(&mut to, *number);
            put_request(&mut to, request);
        }
        Message::Forwarded { number, request } => {
            to.put_u8(1);
            codec::put_u64(&mut to, *number);
            put_request(&mut to, request);
        }
        Message::Response { number, result } => {
            to.put_u8(2);
            codec::put_u64(&mut to, *number);
            match result {
                Ok(reply) => put_reply(&mut to, reply),
                Err(error) => put_error(&mut to, error),
            }
        }
    }
    to.freeze()
}

pub(crate) fn decode(message: &Bytes) -> Result<Message, DecodeError> {
    if message.len() > MESSAGE_LEN_MAX {
        let len = message.len() as u64;
        return Err(DecodeError::TooLong { what: "admin message", len, max: MESSAGE_LEN_MAX });
    }
    let mut from = Decoder::new(message);
    let found = from.u8("version of an admin message")?;
    if found != ADMIN_VERSION {
        return Err(DecodeError::Version { found });
    }
    let kind = from.u8("kind of admin message")?;
    let number = from.u64("number of a request")?;
    let decoded = match kind {
        0 => Message::Request { number, request: request(&mut from)? },
        1 => Message::Forwarded { number, request: request(&mut from)? },
        2 => Message::Response { number, result: result(&mut from)? },
        tag => return Err(DecodeError::Tag { what: "kind of admin message", tag }),
    };
    from.finish()?;
    Ok(decoded)
}

fn put_node(to: &mut BytesMut, kind: u8, node: NodeId) {
    to.put_u8(kind);
    codec::put_u64(to, node.get());
}

fn put_request(to: &mut BytesMut, request: &AdminRequest) {
    match request {
        AdminRequest::Members => to.put_u8(0),
        AdminRequest::Add { node, addresses } => {
            put_node(to, 1, *node);
            put_addresses(to, addresses);
        }
        AdminRequest::Promote { node } => put_node(to, 2, *node),
        AdminRequest::Remove { node } => put_node(to, 3, *node),
        AdminRequest::Replace { old, new } => {
            put_node(to, 4, *old);
            codec::put_u64(to, new.get());
        }
        AdminRequest::Transfer { to: next } => {
            to.put_u8(5);
            codec::put_u64(to, next.map_or(0, NodeId::get));
        }
        AdminRequest::SetAddresses { node, addresses } => {
            put_node(to, 6, *node);
            put_addresses(to, addresses);
        }
        AdminRequest::Demote { node } => put_node(to, 7, *node),
        AdminRequest::Planned { voters, request } => {
            to.put_u8(8);
            let voters = voters.iter().take(MEMBERS_MAX);
            codec::put_u64(to, voters.len() as u64);
            voters.for_each(|voter| codec::put_u64(to, voter.get()));
            put_request(to, request);
        }
    }
}

fn request(from: &mut Decoder<'_>) -> Result<AdminRequest, DecodeError> {
    match from.u8("kind of request")? {
        8 => {
            let count = from.len("count of voters", MEMBERS_MAX)?;
            let mut voters = BTreeSet::new();
            for _ in 0..count {
                let voter = node(from)?;
                if voters.last().is_some_and(|last| *last >= voter) {
                    return Err(DecodeError::Order { what: "voters" });
                }
                voters.insert(voter);
            }
            // One level: bytes from outside must not decide how deep the decoder goes.
            let kind = from.u8("kind of request")?;
            Ok(AdminRequest::Planned { voters, request: Box::new(plain_request(kind, from)?) })
        }
        kind => plain_request(kind, from),
    }
}

fn plain_request(kind: u8, from: &mut Decoder<'_>) -> Result<AdminRequest, DecodeError> {
    Ok(match kind {
        0 => AdminRequest::Members,
        1 => AdminRequest::Add { node: node(from)?, addresses: addresses(from)? },
        2 => AdminRequest::Promote { node: node(from)? },
        3 => AdminRequest::Remove { node: node(from)? },
        4 => AdminRequest::Replace { old: node(from)?, new: node(from)? },
        5 => AdminRequest::Transfer { to: NodeId::new(from.u64("next leader")?) },
        6 => AdminRequest::SetAddresses { node: node(from)?, addresses: addresses(from)? },
        7 => AdminRequest::Demote { node: node(from)? },
        tag => return Err(DecodeError::Tag { what: "kind of request", tag }),
    })
}

fn put_reply(to: &mut BytesMut, reply: &AdminReply) {
    match reply {
        AdminReply::Done => to.put_u8(0),
        AdminReply::Members(list) => {
            to.put_u8(1);
            for number in [list.leader.get(), list.term, list.committed, list.members.len() as u64] {
                codec::put_u64(to, number);
            }
            for member in &list.members {
                codec::put_u64(to, member.node.get());
                to.put_u8(role_tag(member.role));
                put_addresses(to, &member.addresses);
                codec::put_u64(to, member.incarnation);
                codec::put_u64(to, member.matched);
                to.put_u8(member.is_receiving_snapshot.into());
                to.put_u8(member.is_reached.into());
            }
        }
    }
}

fn put_error(to: &mut BytesMut, error: &AdminError) {
    match error {
        AdminError::NotAnOperator => to.put_u8(0x80),
        AdminError::Stale => to.put_u8(0x8d),
        AdminError::NoLeader => to.put_u8(0x81),
        AdminError::Overloaded => to.put_u8(0x82),
        AdminError::InProgress => to.put_u8(0x83),
        AdminError::QuorumLost { voters, reached, needed } => {
            to.put_u8(0x84);
            [*voters, *reached, *needed].into_iter().for_each(|number| codec::put_u64(to, number));
        }
        AdminError::Lagging { node, lag } => {
            put_node(to, 0x85, *node);
            codec::put_u64(to, *lag);
        }
        AdminError::Unreached { node } => put_node(to, 0x86, *node),
        AdminError::NotAMember { node } => put_node(to, 0x87, *node),
        AdminError::WrongRole { node, expected } => {
            put_node(to, 0x88, *node);
            to.put_u8(role_tag(*expected));
        }
        AdminError::AlreadyAMember { node } => put_node(to, 0x89, *node),
        AdminError::Full => to.put_u8(0x8a),
        // A request with an address that breaks a limit, or with such a plan, is refused before it is sent.
        AdminError::Limit(_)
        | AdminError::NestedPlan
        | AdminError::PlanTooLarge { .. }
        | AdminError::NotUnderstood => to.put_u8(0x8b),
        // The others are errors of the asker itself.
        AdminError::Unknown | AdminError::NoMember | AdminError::Closed => to.put_u8(0x8c),
    }
}

fn result(from: &mut Decoder<'_>) -> Result<Result<AdminReply, AdminError>, DecodeError> {
    Ok(match from.u8("kind of result")? {
        0 => Ok(AdminReply::Done),
        1 => Ok(AdminReply::Members(member_list(from)?)),
        0x80 => Err(AdminError::NotAnOperator),
        0x81 => Err(AdminError::NoLeader),
        0x82 => Err(AdminError::Overloaded),
        0x83 => Err(AdminError::InProgress),
        0x84 => Err(AdminError::QuorumLost {
            voters: from.u64("count of voters")?,
            reached: from.u64("count of voters")?,
            needed: from.u64("count of voters")?,
        }),
        0x85 => Err(AdminError::Lagging { node: node(from)?, lag: from.u64("lag")? }),
        0x86 => Err(AdminError::Unreached { node: node(from)? }),
        0x87 => Err(AdminError::NotAMember { node: node(from)? }),
        0x88 => Err(AdminError::WrongRole { node: node(from)?, expected: role(from)? }),
        0x89 => Err(AdminError::AlreadyAMember { node: node(from)? }),
        0x8a => Err(AdminError::Full),
        0x8b => Err(AdminError::NotUnderstood),
        0x8c => Err(AdminError::Unknown),
        0x8d => Err(AdminError::Stale),
        tag => return Err(DecodeError::Tag { what: "kind of result", tag }),
    })
}

fn member_list(from: &mut Decoder<'_>) -> Result<MemberList, DecodeError> {
    let leader = node(from)?;
    let (term, committed) = (from.u64("term")?, from.u64("committed index")?);
    let count = from.len("count of members", MEMBERS_MAX)?;
    let mut members: Vec<MemberInfo> = Vec::new();
    for _ in 0..count {
        let member = MemberInfo {
            node: node(from)?,
            role: role(from)?,
            addresses: addresses(from)?,
            incarnation: from.u64("incarnation")?,
            matched: from.u64("matched index")?,
            is_receiving_snapshot: from.bool("state of a member")?,
            is_reached: from.bool("state of a member")?,
        };
        if members.last().is_some_and(|last| last.node >= member.node) {
            return Err(DecodeError::Order { what: "members" });
        }
        members.push(member);
    }
    Ok(MemberList { leader, term, committed, members })
}

fn role_tag(role: MemberRole) -> u8 {
    match role {
        MemberRole::Voter => 0,
        MemberRole::Learner => 1,
        MemberRole::Leaving => 2,
    }
}

fn role(from: &mut Decoder<'_>) -> Result<MemberRole, DecodeError> {
    match from.u8("role of a member")? {
        0 => Ok(MemberRole::Voter),
        1 => Ok(MemberRole::Learner),
        2 => Ok(MemberRole::Leaving),
        tag => Err(DecodeError::Tag { what: "role of a member", tag }),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn id(number: u64) -> NodeId {
        NodeId::new(number).unwrap()
    }

    /// One message of each kind, and one for each request, reply and error.
    pub(in super::super) fn messages() -> Vec<Message> {
        let addresses = || vec!["10.0.0.4:7401".to_owned()];
        let requests = [
            AdminRequest::Members,
            AdminRequest::Add { node: id(4), addresses: addresses() },
            AdminRequest::Promote { node: id(4) },
            AdminRequest::Remove { node: id(3) },
            AdminRequest::Replace { old: id(3), new: id(4) },
            AdminRequest::Transfer { to: None },
            AdminRequest::Transfer { to: Some(id(2)) },
            AdminRequest::SetAddresses { node: id(1), addresses: Vec::new() },
            AdminRequest::Demote { node: id(3) },
            AdminRequest::Planned {
                voters: [1, 2, 3].map(id).into(),
                request: Box::new(AdminRequest::Promote { node: id(4) }),
            },
        ];
        let member = |node, role| MemberInfo {
            node: id(node),
            role,
            addresses: addresses(),
            incarnation: 5,
            matched: 600,
            is_receiving_snapshot: node == 3,
            is_reached: node != 3,
        };
        let roles = [MemberRole::Voter, MemberRole::Leaving, MemberRole::Learner];
        let members = (1..).zip(roles).map(|(node, role)| member(node, role)).collect();
        let node = id(4);
        let results = [
            Ok(AdminReply::Done),
            Ok(AdminReply::Members(MemberList { leader: id(1), term: 7, committed: 700, members })),
            Err(AdminError::NotAnOperator),
            Err(AdminError::NoLeader),
            Err(AdminError::Overloaded),
            Err(AdminError::InProgress),
            Err(AdminError::QuorumLost { voters: 2, reached: 1, needed: 2 }),
            Err(AdminError::Lagging { node, lag: 5000 }),
            Err(AdminError::Unreached { node }),
            Err(AdminError::NotAMember { node }),
            Err(AdminError::WrongRole { node, expected: MemberRole::Learner }),
            Err(AdminError::AlreadyAMember { node }),
            Err(AdminError::Full),
            Err(AdminError::NotUnderstood),
            Err(AdminError::Unknown),
            Err(AdminError::Stale),
        ];
        let mut messages = vec![Message::Forwarded { number: 300, request: AdminRequest::Members }];
        messages.extend(requests.into_iter().map(|request| Message::Request { number: 1, request }));
        messages.extend(results.into_iter().map(|result| Message::Response { number: 2, result }));
        messages
    }

    #[test]
    fn what_is_written_is_read() {
        for message in messages() {
            assert_eq!(decode(&encode(&message)), Ok(message));
        }
    }

    /// Every bit flipped, every length cut: refused, or read as a message with this one encoding.
    #[test]
    fn damaged_messages_do_no_harm() {
        for message in messages() {
            let whole = encode(&message);
            for position in 0..whole.len() {
                assert!(decode(&whole.slice(..position)).is_err());
                for bit in 0..8 {
                    let mut damaged = whole.to_vec();
                    damaged[position] ^= 1 << bit;
                    let damaged = Bytes::from(damaged);
                    if let Ok(read) = decode(&damaged) {
                        assert_eq!(encode(&read), damaged);
                    }
                }
            }
        }
    }
}
