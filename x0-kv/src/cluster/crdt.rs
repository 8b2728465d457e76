//! The hub's part in CRDT keyspaces: on a member the way to its own, on a client the calls that wait for a member.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use x0_identity::NodeId;

use super::mailbox::Mailbox;
use super::outgoing::Road;
use crate::crdt::wire::{self, Failure, Message};
use crate::crdt::{Crdt, CrdtOutcome, ReplyTo, Request};
use crate::request::codec::DecodeError;
use crate::request::error::OperationError;
use crate::request::pending::Completion;

/// Most calls of a client that may wait.
const CALLS_MAX: usize = 4096;

/// See the [module](self).
pub(crate) enum CrdtSide {
    /// There is none.
    None,
    /// A member's own.
    Member(Crdt),
    /// A client's calls.
    Client(CrdtCalls),
}

/// A message to send.
pub(super) type Letter = (NodeId, Bytes);

impl CrdtSide {
    /// A datagram of another member.
    pub(super) fn datagram(&self, from: NodeId, payload: Bytes) {
        if let CrdtSide::Member(crdt) = self {
            crdt.datagram(from, payload);
        }
    }

    /// A request or an answer. What is not answered at once is answered through the mailbox.
    pub(super) fn message(
        &mut self,
        mailbox: &Mailbox,
        from: NodeId,
        payload: &Bytes,
    ) -> Result<Option<Letter>, DecodeError> {
        match (wire::decode(payload)?, self) {
            (Message::Request { number, request }, CrdtSide::Member(crdt)) => {
                let encode = move |result: Result<_, OperationError>| {
                    let result = result.map_err(|error| Failure::of(&error));
                    wire::encode(&Message::Answer { number, result })
                };
                match request {
                    Request::Read(read) => Ok(Some((from, encode(crdt.read(&read))))),
                    Request::Write(write) => {
                        let mailbox = mailbox.clone();
                        let answer =
                            move |result| mailbox.crdt_message(from, Road::CrdtOperations, encode(result));
                        crdt.write(write, ReplyTo::Other(Box::new(answer)));
                        Ok(None)
                    }
                }
            }
            (Message::Request { number, .. }, _) => {
                let message = Message::Answer { number, result: Err(Failure::Unsupported) };
                Ok(Some((from, wire::encode(&message))))
            }
            (Message::Answer { number, result }, CrdtSide::Client(calls)) => {
                calls.answer(from, number, result.map_err(Failure::error));
                Ok(None)
            }
            (Message::Answer { .. }, _) => Ok(None),
        }
    }

    /// A call of this process, on a client.
    pub(super) fn call(
        &mut self,
        now: Duration,
        request: Request,
        completion: Completion<CrdtOutcome>,
    ) -> Option<Letter> {
        match self {
            CrdtSide::Client(calls) => calls.call(now, request, completion),
            _ => {
                completion.complete(Err(OperationError::Unsupported { what: "a CRDT store" }));
                None
            }
        }
    }

    pub(super) fn up(&mut self, node: NodeId) -> Vec<Letter> {
        match self {
            CrdtSide::None => Vec::new(),
            CrdtSide::Member(crdt) => {
                crdt.up(node);
                Vec::new()
            }
            CrdtSide::Client(calls) => calls.up(node),
        }
    }

    pub(super) fn down(&mut self, node: NodeId) -> Vec<Letter> {
        match self {
            CrdtSide::Client(calls) => calls.down(node),
            _ => Vec::new(),
        }
    }

    pub(super) fn members(&self, members: BTreeSet<NodeId>) {
        if let CrdtSide::Member(crdt) = self {
            crdt.members(members);
        }
    }

    /// When calls are to be given up.
    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        match self {
            CrdtSide::Client(calls) => calls.waiting.values().map(|call| call.deadline).min(),
            _ => None,
        }
    }

    pub(super) fn expire(&mut self, now: Duration) {
        if let CrdtSide::Client(calls) = self {
            calls.expire(now);
        }
    }
}

/// The calls of a client, which any member can answer.
#[derive(Debug)]
pub(crate) struct CrdtCalls {
    members: Vec<NodeId>,
    reached: BTreeSet<NodeId>,
    timeout: Duration,
    next: u64,
    waiting: BTreeMap<u64, Call>,
}

#[derive(Debug)]
struct Call {
    request: Request,
    completion: Completion<CrdtOutcome>,
    deadline: Duration,
    /// Who was asked, if anybody could be.
    asked: Option<NodeId>,
}

impl CrdtCalls {
    pub(crate) fn new(members: Vec<NodeId>, timeout: Duration) -> CrdtCalls {
        CrdtCalls { members, reached: BTreeSet::new(), timeout, next: 0, waiting: BTreeMap::new() }
    }

    /// The first of the members that is reached: always the same while it is, so that one reads what one wrote.
    fn member(&self) -> Option<NodeId> {
        self.members.iter().copied().find(|member| self.reached.contains(member))
    }

    fn call(
        &mut self,
        now: Duration,
        request: Request,
        completion: Completion<CrdtOutcome>,
    ) -> Option<Letter> {
        if self.waiting.len() >= CALLS_MAX {
            completion.complete(Err(OperationError::Overloaded));
            return None;
        }
        let number = self.next;
        self.next += 1;
        let asked = self.member();
        let message = wire::encode(&Message::Request { number, request: request.clone() });
        self.waiting.insert(number, Call { request, completion, deadline: now + self.timeout, asked });
        Some((asked?, message))
    }

    fn answer(&mut self, from: NodeId, number: u64, result: Result<CrdtOutcome, OperationError>) {
        if self.waiting.get(&number).is_some_and(|call| call.asked == Some(from))
            && let Some(call) = self.waiting.remove(&number)
        {
            call.completion.complete(result);
        }
    }

    fn up(&mut self, node: NodeId) -> Vec<Letter> {
        self.reached.insert(node);
        self.ask()
    }

    /// Asks for what nobody was asked for yet.
    fn ask(&mut self) -> Vec<Letter> {
        let Some(member) = self.member() else { return Vec::new() };
        let unasked = self.waiting.iter_mut().filter(|(_, call)| call.asked.is_none());
        unasked
            .map(|(number, call)| {
                call.asked = Some(member);
                let request = call.request.clone();
                (member, wire::encode(&Message::Request { number: *number, request }))
            })
            .collect()
    }

    fn down(&mut self, node: NodeId) -> Vec<Letter> {
        self.reached.remove(&node);
        let asked: Vec<u64> = self
            .waiting
            .iter()
            .filter(|(_, call)| call.asked == Some(node))
            .map(|(number, _)| *number)
            .collect();
        for number in asked {
            let Some(call) = self.waiting.get_mut(&number) else { continue };
            match call.request {
                // Another can answer as well.
                Request::Read(_) => call.asked = None,
                // It may have been done, and doing it again elsewhere would be another write.
                Request::Write(_) => self.give_up(number),
            }
        }
        self.ask()
    }

    fn expire(&mut self, now: Duration) {
        let due: Vec<u64> =
            self.waiting.iter().filter(|(_, call)| call.deadline <= now).map(|(number, _)| *number).collect();
        for number in due {
            self.give_up(number);
        }
    }

    fn give_up(&mut self, number: u64) {
        if let Some(call) = self.waiting.remove(&number) {
            let ambiguous = call.asked.is_some() && matches!(call.request, Request::Write(_));
            call.completion.complete(Err(OperationError::TimedOut { ambiguous }));
        }
    }
}
