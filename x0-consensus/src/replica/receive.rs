//! Messages of peers, and snapshots that arrive in chunks.

use std::collections::BTreeMap;

use bytes::Bytes;
use raft::eraftpb::{Message, MessageType};
use x0_identity::NodeId;

use super::view::to_raft_snapshot;
use super::{Class, HandleError, Output, Replica, StageStep};
use crate::codec::{
    Acknowledge, Chunk, DecodeError, ENVELOPE_VERSION, Envelope, Fields, Hello, MESSAGE_LEN_MAX,
    MESSAGE_VERSION, Verdict, decode_raft, kind, split_contexts,
};
use crate::entry::SnapshotMeta;
use crate::trace::Context;

/// A snapshot that is being received.
#[derive(Debug)]
pub(super) struct Receiving {
    from: NodeId,
    term: u64,
    transfer: u64,
    meta: SnapshotMeta,
    /// The number of the next chunk.
    next: u64,
    /// Chunks that have overtaken it.
    early: BTreeMap<u64, (Bytes, bool)>,
    /// All chunks have arrived and are being made durable.
    finishing: bool,
    /// The number under which it is staged: transfers of two leaders may have the same number.
    stage: u64,
}

/// Index, term and context of the entries of a message that have a context.
fn traced(message: &Message, contexts: &[(u32, Context)]) -> Vec<(u64, u64, Context)> {
    let of_place = |(place, context): &(u32, Context)| {
        let entry = message.entries.get(*place as usize)?;
        Some((entry.index, entry.term, *context))
    };
    contexts.iter().filter_map(of_place).collect()
}

impl Replica {
    pub(super) fn receive(&mut self, from: NodeId, payload: Bytes) -> Result<(), HandleError> {
        if payload.len() > MESSAGE_LEN_MAX {
            let (len, max) = (payload.len() as u64, MESSAGE_LEN_MAX as u64);
            return Err(DecodeError::TooLong { field: "message", len, max }.into());
        }
        let mut payload = payload;
        let (found, contexts) = split_contexts(&mut payload)?;
        let envelope = Envelope::split(found, &mut payload)?;
        let mut fields = Fields::new(payload);
        fields.u8("version")?;
        if found != MESSAGE_VERSION && found != ENVELOPE_VERSION {
            return Err(DecodeError::Version { found }.into());
        }
        let kind = fields.u8("kind")?;
        self.note_sender(from, &envelope)?;
        match kind {
            kind::HELLO => {
                let hello = Hello::decode(&mut fields)?;
                fields.finish()?;
                self.receive_hello(from, &envelope, hello);
                Ok(())
            }
            kind::RAFT => {
                let mut message = decode_raft(&mut fields)?;
                fields.finish()?;
                // The sender is the authenticated peer, and not what the message claims.
                message.from = from.get();
                message.to = self.options.id.get();
                let traced = traced(&message, &contexts);
                self.step(message, &envelope)?;
                self.note_arrived(&traced);
                Ok(())
            }
            kind::CHUNK => {
                let chunk = Chunk::decode(&mut fields)?;
                fields.finish()?;
                self.check_sender(from.get(), chunk.term)?;
                if !self.is_founded(from, &envelope) {
                    return Ok(());
                }
                self.receive_chunk(from, chunk);
                Ok(())
            }
            kind::ACKNOWLEDGE => {
                let acknowledge = Acknowledge::decode(&mut fields)?;
                fields.finish()?;
                if acknowledge.term == self.node.raft.term && self.is_leader() {
                    self.chunk_acknowledged(from, &acknowledge);
                }
                Ok(())
            }
            _ => Err(DecodeError::Invalid { field: "kind" }.into()),
        }
    }

    fn step(&mut self, mut message: Message, envelope: &Envelope) -> Result<(), HandleError> {
        self.check_sender(message.from, message.term)?;
        let from = NodeId::new(message.from);
        if from.is_some_and(|from| !self.is_founded(from, envelope)) {
            return Ok(());
        }
        if !self.admit(&mut message, envelope) || !self.validate(&message, envelope)? {
            return Ok(());
        }
        if message.msg_type == MessageType::MsgAppend
            && message.term >= self.node.raft.term
            && self.is_outsider()
        {
            self.ask_for_snapshot(&message);
            self.silent_ticks = 0;
            return Ok(());
        }
        let from = message.from;
        // An error of raft, such as an answer of a removed member, leaves it unchanged.
        let _ = self.node.step(message);
        if from == self.node.raft.leader_id {
            self.silent_ticks = 0;
        }
        Ok(())
    }

    /// Requests a snapshot: a log from the first entry does not contain the founders of the group, and a
    /// snapshot does. `raft` requests one by itself only if the log holds an entry of the term.
    fn ask_for_snapshot(&mut self, append: &Message) {
        let heartbeat = Message {
            msg_type: MessageType::MsgHeartbeat,
            from: append.from,
            to: append.to,
            term: append.term,
            ..Message::default()
        };
        let _ = self.node.step(heartbeat);
        self.node.raft.msgs.push(Message {
            msg_type: MessageType::MsgAppendResponse,
            from: append.to,
            to: append.from,
            term: append.term,
            index: append.index,
            reject: true,
            request_snapshot: 1,
            ..Message::default()
        });
    }

    /// Whether it is not a member of any group yet.
    fn is_outsider(&self) -> bool {
        self.membership_at(self.handed).is_empty() && self.node.raft.raft_log.last_index() == 0
    }

    fn receive_chunk(&mut self, from: NodeId, chunk: Chunk) {
        let raft = &self.node.raft;
        if chunk.term < raft.term || self.is_leader() {
            return;
        }
        let answer =
            |next, verdict| Acknowledge { term: chunk.term, transfer: chunk.transfer, next, verdict };
        // The log has everything that the snapshot has: the sender continues with entries.
        if chunk.position.index <= raft.raft_log.committed {
            return self.answer_chunk(from, answer(0, Verdict::Done));
        }
        if self.restoring.is_some() {
            // The storage keeps one snapshot, which the state machine has not read. The sender repeats the
            // chunk.
            return;
        }
        let found = self.receiving.as_ref().map(|found| (found.term, found.transfer, found.from));
        let wanted = (chunk.term, chunk.transfer, from);
        if found != Some(wanted) {
            // A transfer that is being made durable ends first, and an older transfer was abandoned by its
            // sender.
            let is_waited_for = self.receiving.as_ref().is_some_and(|receiving| receiving.finishing);
            if is_waited_for || found > Some(wanted) {
                return;
            }
            self.begin_receiving(from, &chunk);
        }
        let Some(receiving) = &mut self.receiving else { return };
        let ahead = chunk.number.checked_sub(receiving.next);
        if receiving.meta != chunk.position || receiving.finishing {
            return;
        }
        // Bounded by the window of the sender: a chunk further ahead is dropped and sent again.
        if ahead.is_some_and(|ahead| ahead < self.options.chunks_in_flight_max as u64) {
            receiving.early.insert(chunk.number, (chunk.bytes, chunk.last));
        }
        let transfer = receiving.stage;
        while !receiving.finishing
            && let Some((bytes, last)) = receiving.early.remove(&receiving.next)
        {
            receiving.next += 1;
            receiving.finishing = last;
            self.outputs.push_back(Output::Stage { transfer, step: StageStep::Write { bytes } });
            if last {
                self.outputs.push_back(Output::Stage { transfer, step: StageStep::Finish });
            }
        }
        let next = receiving.next;
        self.answer_chunk(from, answer(next, Verdict::Wanted));
    }

    fn begin_receiving(&mut self, from: NodeId, chunk: &Chunk) {
        self.transfers += 1;
        let (stage, meta) = (self.transfers, chunk.position.clone());
        let step = StageStep::Begin { meta: meta.clone() };
        self.outputs.push_back(Output::Stage { transfer: stage, step });
        self.receiving = Some(Receiving {
            from,
            term: chunk.term,
            transfer: chunk.transfer,
            meta,
            next: 0,
            early: BTreeMap::new(),
            finishing: false,
            stage,
        });
    }

    fn answer_chunk(&mut self, to: NodeId, acknowledge: Acknowledge) {
        self.send(to, Class::Message, acknowledge.encode());
    }

    /// The snapshot is durable: `raft` receives it as if it had arrived in one message (Ongaro 2014, section
    /// 5.1).
    pub(super) fn staged(&mut self, transfer: u64, ok: bool) -> Result<(), HandleError> {
        let Some(receiving) = self.receiving.take_if(|receiving| receiving.stage == transfer) else {
            return Ok(());
        };
        let ok = ok && self.restoring.is_none();
        let verdict = if ok { Verdict::Done } else { Verdict::Failed };
        let acknowledge =
            Acknowledge { term: receiving.term, transfer: receiving.transfer, next: receiving.next, verdict };
        if ok && receiving.meta.index > self.node.raft.raft_log.committed {
            let mut message = Message {
                msg_type: MessageType::MsgSnapshot,
                from: receiving.from.get(),
                to: self.options.id.get(),
                term: receiving.term,
                ..Message::default()
            };
            message.set_snapshot(to_raft_snapshot(&receiving.meta));
            self.arriving = Some(receiving.meta.clone());
            let _ = self.node.step(message);
        }
        self.answer_chunk(receiving.from, acknowledge);
        Ok(())
    }
}
