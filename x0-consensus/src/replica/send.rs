//! Snapshots on their way to a member that is too far behind.
//!
//! Pieces are numbered and sent in a window; the receiver keeps those that overtake others and acknowledges the number it wants
//! next. That one is sent again when it is asked for repeatedly, or after a while. What is not acknowledged stays in memory, which the
//! window bounds on both sides.

use std::collections::VecDeque;

use bytes::Bytes;
use raft::SnapshotStatus;
use x0_identity::NodeId;

use super::{Class, Output, Replica};
use crate::codec::{Acknowledge, Chunk, Verdict};
use crate::entry::SnapshotMeta;

/// Ticks without progress after which the window is sent again, and after which the transfer is given up.
const RESEND_TICKS: u32 = 4;
const GIVE_UP_TICKS: u32 = 200;

/// How often a piece is asked for before it counts as lost, and not as overtaken (as TCP does, RFC 5681 §3.2).
const REPEATS_LOST: u32 = 3;

/// A snapshot that is being sent.
#[derive(Debug)]
pub(super) struct Sending {
    to: NodeId,
    transfer: u64,
    /// Known once the state machine has opened it.
    meta: Option<SnapshotMeta>,
    /// Whether raft waits for the end of it.
    begun: bool,
    /// Pieces that are not acknowledged, from this number on.
    first: u64,
    window: VecDeque<(Bytes, bool)>,
    /// Whether a piece is being read, and whether the last one was.
    reading: bool,
    read_all: bool,
    idle_ticks: u32,
    /// How often the first of the window was asked for.
    repeats: u32,
}

impl Replica {
    /// Raft found that only a snapshot helps this member.
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
        // Raft asks again, finds it, and tells us to send it.
        sending.meta = Some(meta.clone());
        let member = sending.to.get();
        self.node.mut_store().snapshots.push((member, meta));
        self.node.raft.ping();
    }

    /// Raft has sent the snapshot, as far as it is concerned.
    pub(super) fn begin_sending(&mut self, to: NodeId) {
        let Some(sending) = self.sending.iter_mut().find(|sending| sending.to == to) else {
            return self.node.report_snapshot(to.get(), SnapshotStatus::Failure);
        };
        sending.begun = true;
        self.read_chunks(to);
    }

    /// Asks for the next piece while the window has room.
    fn read_chunks(&mut self, to: NodeId) {
        let Some(sending) = self.sending.iter_mut().find(|sending| sending.to == to) else { return };
        if sending.begun
            && !sending.reading
            && !sending.read_all
            && sending.window.len() < self.config.chunks_in_flight_max
        {
            sending.reading = true;
            let transfer = sending.transfer;
            self.outputs.push_back(Output::ReadChunk { transfer, len_max: self.config.chunk_len });
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
        self.outputs.push_back(Output::Send { to, class: Class::Snapshot, payload: chunk.encode() });
    }

    /// Sends what was not acknowledged for some time again, and gives up what nobody answers.
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
                // The first is enough: its acknowledgement tells what else is missing.
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

    pub(super) fn acknowledged(&mut self, from: NodeId, acknowledge: &Acknowledge) {
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
                    // It has lost what it had: it was started anew.
                    return self.finish_sending(from, SnapshotStatus::Failure);
                }
                let advanced = acknowledge.next > sending.first;
                // The last piece stays until the whole is known to have arrived: there must be something to ask with.
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

    fn finish_sending(&mut self, to: NodeId, status: SnapshotStatus) {
        if let Some(at) = self.sending.iter().position(|sending| sending.to == to) {
            let ended = self.sending.remove(at);
            self.outputs.push_back(Output::CloseSnapshot { transfer: ended.transfer });
            self.node.mut_store().snapshots.retain(|(member, _)| *member != to.get());
            if ended.begun {
                self.node.report_snapshot(to.get(), status);
            }
            if let Some(progress) = self.node.raft.mut_prs().get_mut(to.get()) {
                // Raft forgets to, if the member has told of the snapshot by itself before.
                progress.pending_request_snapshot = raft::INVALID_INDEX;
            }
        }
    }

    /// The snapshot cannot be had: raft tries again later.
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

    /// Leadership is lost.
    pub(super) fn end_sending(&mut self) {
        for ended in std::mem::take(&mut self.sending) {
            self.outputs.push_back(Output::CloseSnapshot { transfer: ended.transfer });
        }
        self.node.mut_store().snapshots.clear();
    }
}
