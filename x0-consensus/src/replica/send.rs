//! Snapshots for members whose next entry is no longer in the log.
//!
//! Chunks are numbered and sent in a window. The receiver keeps chunks that overtake others and acknowledges
//! the number that it needs next. That chunk is sent again when it is requested repeatedly, or after some
//! ticks. Chunks that are not acknowledged stay in memory, which the window bounds on both sides. The pace of
//! the transfers follows the latency of proposals.

use std::collections::VecDeque;

use bytes::Bytes;
use raft::SnapshotStatus;
use x0_identity::NodeId;

use super::{Class, Output, Replica};
use crate::codec::{Acknowledge, Chunk, Verdict};
use crate::entry::SnapshotMeta;

/// The ticks without progress after which the first chunk is sent again, and after which the transfer is
/// abandoned.
const RESEND_TICKS: u32 = 4;
const GIVE_UP_TICKS: u32 = 200;

/// The longest log that is kept for members that receive a snapshot, in lengths of the log between two
/// checkpoints.
const NEEDED_LOG_MAX: usize = 8;

/// The number of repeated requests after which a chunk counts as lost and not as overtaken (as in TCP, RFC
/// 5681 section 3.2).
const REPEATS_LOST: u32 = 3;

/// A snapshot that is being sent.
#[derive(Debug)]
pub(super) struct Sending {
    to: NodeId,
    transfer: u64,
    /// Known once the state machine has opened it.
    meta: Option<SnapshotMeta>,
    /// Whether `raft` waits for its result.
    begun: bool,
    /// Chunks that are not acknowledged, from this number on.
    first: u64,
    window: VecDeque<(Bytes, bool)>,
    /// Whether a chunk is being read, and whether the last one was read.
    reading: bool,
    read_all: bool,
    idle_ticks: u32,
    /// The number of requests for the first chunk of the window.
    repeats: u32,
}

impl Sending {
    /// The member that receives the snapshot.
    pub(super) fn to(&self) -> NodeId {
        self.to
    }
}

impl Replica {
    /// Opens a snapshot for a member that `raft` cannot supply with entries.
    pub(super) fn open_snapshot(&mut self, member: u64) {
        let Some(to) = NodeId::new(member) else { return };
        if !self.is_leader() || self.sending.iter().any(|sending| sending.to == to) {
            return;
        }
        self.transfers += 1;
        let transfer = self.transfers;
        self.sending.push(Sending {
            to,
            transfer,
            meta: None,
            begun: false,
            first: 0,
            window: VecDeque::new(),
            reading: false,
            read_all: false,
            idle_ticks: 0,
            repeats: 0,
        });
        self.outputs.push_back(Output::OpenSnapshot { transfer });
    }

    pub(super) fn snapshot_opened(&mut self, transfer: u64, index: u64) {
        let meta = self.meta_at(index).filter(|meta| meta.index > 0 && !meta.membership.is_empty());
        if self.saving == Some(transfer) {
            match meta {
                Some(meta) => self.outputs.push_back(Output::SaveSnapshot { transfer, meta }),
                None => {
                    self.saving = None;
                    self.outputs.push_back(Output::CloseSnapshot { transfer });
                }
            }
            return;
        }
        let sending = self.sending.iter_mut().find(|sending| sending.transfer == transfer);
        let (Some(sending), Some(meta)) = (sending, meta) else {
            self.outputs.push_back(Output::CloseSnapshot { transfer });
            return self.abort_sending(transfer);
        };
        // raft requests the snapshot again, finds it, and emits the message that starts the transfer.
        sending.meta = Some(meta.clone());
        let member = sending.to.get();
        self.node.mut_store().snapshots.push((member, meta));
        self.node.raft.ping();
    }

    /// Starts the transfer: `raft` has emitted the snapshot message.
    pub(super) fn begin_sending(&mut self, to: NodeId) {
        let Some(sending) = self.sending.iter_mut().find(|sending| sending.to == to) else {
            return self.node.report_snapshot(to.get(), SnapshotStatus::Failure);
        };
        sending.begun = true;
        self.read_chunks(to);
    }

    /// Reads the next chunk while the window has room.
    fn read_chunks(&mut self, to: NodeId) {
        let Some(sending) = self.sending.iter_mut().find(|sending| sending.to == to) else { return };
        if sending.begun
            && !sending.reading
            && !sending.read_all
            && sending.window.len() < self.options.chunks_in_flight_max
            && self.node.store().pace.may_send()
        {
            sending.reading = true;
            self.node.store().pace.charge(self.options.chunk_len as u64);
            let transfer = sending.transfer;
            self.outputs.push_back(Output::ReadChunk { transfer, len_max: self.options.chunk_len });
        }
    }

    /// Sends what the pace held back and allows from now on.
    pub(super) fn send_held(&mut self) {
        for held in self.node.store().take_held() {
            self.node.on_entries_fetched(held.context);
        }
        for to in self.sending.iter().map(Sending::to).collect::<Vec<_>>() {
            self.read_chunks(to);
        }
    }

    pub(super) fn chunk_read(&mut self, transfer: u64, bytes: Bytes, last: bool) {
        let Some(sending) = self.sending.iter_mut().find(|sending| sending.transfer == transfer) else {
            return;
        };
        sending.reading = false;
        sending.read_all = last;
        let number = sending.first + sending.window.len() as u64;
        sending.window.push_back((bytes.clone(), last));
        let to = sending.to;
        self.send_chunk(to, number, bytes, last);
        self.read_chunks(to);
    }

    fn send_chunk(&mut self, to: NodeId, number: u64, bytes: Bytes, last: bool) {
        let term = self.node.raft.term;
        let Some(sending) = self.sending.iter().find(|sending| sending.to == to) else { return };
        let Some(position) = sending.meta.clone() else { return };
        let chunk = Chunk { term, transfer: sending.transfer, number, last, position, bytes };
        self.send(to, Class::Snapshot, chunk.encode());
    }

    /// Repeats chunks that were not acknowledged for some ticks, and abandons transfers without an answer.
    pub(super) fn resend_chunks(&mut self) {
        let mut stuck = Vec::new();
        let mut again = Vec::new();
        for sending in &mut self.sending {
            sending.idle_ticks += 1;
            if sending.idle_ticks >= GIVE_UP_TICKS {
                stuck.push(sending.transfer);
            } else if sending.idle_ticks % RESEND_TICKS == 0
                && let Some((bytes, last)) = sending.window.front()
            {
                // The first chunk is enough: its acknowledgement has the number of the next one that is
                // missing.
                again.push((sending.to, sending.first, bytes.clone(), *last));
            }
        }
        for (to, number, bytes, last) in again {
            self.send_chunk(to, number, bytes, last);
        }
        for transfer in stuck {
            self.abort_sending(transfer);
        }
    }

    pub(super) fn chunk_acknowledged(&mut self, from: NodeId, acknowledge: &Acknowledge) {
        let Some(sending) = self
            .sending
            .iter_mut()
            .find(|sending| sending.to == from && sending.transfer == acknowledge.transfer)
        else {
            return;
        };
        match acknowledge.verdict {
            Verdict::Wanted => {
                let end = sending.first + sending.window.len() as u64;
                if acknowledge.next > end {
                    return;
                }
                if acknowledge.next < sending.first && sending.idle_ticks >= RESEND_TICKS {
                    // The receiver has restarted and lost the chunks that it had acknowledged.
                    return self.finish_sending(from, SnapshotStatus::Failure);
                }
                let advanced = acknowledge.next > sending.first;
                // The last chunk stays in the window until the receiver has confirmed the whole snapshot: it
                // is what is repeated until then.
                while sending.first < acknowledge.next
                    && sending.window.front().is_some_and(|(_, last)| !last)
                {
                    sending.window.pop_front();
                    sending.first += 1;
                }
                sending.repeats = if advanced { 0 } else { sending.repeats + 1 };
                if sending.repeats == REPEATS_LOST
                    && let Some((bytes, last)) = sending.window.front().cloned()
                {
                    let number = sending.first;
                    return self.send_chunk(from, number, bytes, last);
                }
                if advanced {
                    let was_stalled = sending.idle_ticks >= RESEND_TICKS;
                    sending.idle_ticks = 0;
                    if was_stalled {
                        let window: Vec<_> = sending.window.iter().cloned().zip(sending.first..).collect();
                        for ((bytes, last), number) in window {
                            self.send_chunk(from, number, bytes, last);
                        }
                    }
                }
                self.read_chunks(from);
            }
            Verdict::Done => self.finish_sending(from, SnapshotStatus::Finish),
            Verdict::Failed => self.finish_sending(from, SnapshotStatus::Failure),
        }
    }

    /// Ends the transfer to a member whose log is another one now.
    pub(super) fn stop_sending(&mut self, to: NodeId) {
        self.finish_sending(to, SnapshotStatus::Failure);
    }

    fn finish_sending(&mut self, to: NodeId, status: SnapshotStatus) {
        if let Some(at) = self.sending.iter().position(|sending| sending.to == to) {
            let ended = self.sending.remove(at);
            self.outputs.push_back(Output::CloseSnapshot { transfer: ended.transfer });
            self.node.mut_store().snapshots.retain(|(member, _)| *member != to.get());
            if status == SnapshotStatus::Finish
                && let Some(meta) = &ended.meta
            {
                self.continuing.insert(to, meta.index);
            }
            if ended.begun {
                self.node.report_snapshot(to.get(), status);
            }
            if let Some(progress) = self.node.raft.mut_prs().get_mut(to.get()) {
                // raft does not reset it if the member has reported the snapshot by itself before.
                progress.pending_request_snapshot = raft::INVALID_INDEX;
            }
        }
    }

    /// Ends a transfer whose snapshot cannot be opened, read or saved. `raft` tries again later.
    pub(super) fn abort_sending(&mut self, transfer: u64) {
        if self.saving == Some(transfer) {
            self.saving = None;
        }
        if let Some(to) =
            self.sending.iter().find(|sending| sending.transfer == transfer).map(|found| found.to)
        {
            self.finish_sending(to, SnapshotStatus::Failure);
        }
    }

    /// The log from this index on is needed by a member that receives a snapshot, or that has received one
    /// and has not caught up since. `None`: by no member, or it has become too long. Without it a member
    /// would get one snapshot after another while the log grows faster than snapshots are sent.
    pub(super) fn needed_log(&mut self) -> Option<u64> {
        let (raft, retained) = (&self.node.raft, self.options.retained_entries);
        let lags = |member: NodeId, from: u64| {
            let progress = raft.prs().get(member.get()).filter(|progress| progress.recent_active);
            progress.is_some_and(|progress| {
                progress.matched.max(from).saturating_add(retained) < raft.raft_log.committed
            })
        };
        self.continuing.retain(|member, from| lags(*member, *from));
        let sent = self.sending.iter().filter_map(|sending| Some(sending.meta.as_ref()?.index));
        let needed = |(member, from): (&NodeId, &u64)| {
            raft.prs().get(member.get()).map_or(*from, |progress| progress.matched.max(*from))
        };
        let needed = sent.chain(self.continuing.iter().map(needed)).min();
        let len_max = self.options.checkpoint_log_len.saturating_mul(NEEDED_LOG_MAX);
        needed.filter(|_| self.log_kept < len_max)
    }

    /// Ends all transfers: the leadership is lost.
    pub(super) fn end_sending(&mut self) {
        self.continuing.clear();
        self.node.mut_store().pace.reset();
        for ended in std::mem::take(&mut self.sending) {
            self.outputs.push_back(Output::CloseSnapshot { transfer: ended.transfer });
        }
        self.node.mut_store().snapshots.clear();
    }
}
