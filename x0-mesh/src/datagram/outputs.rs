//! What the driver is to do, with frames and datagrams in batches.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::SocketAddr;

use x0_identity::NodeId;

use super::batch::Batch;
use super::{Ecn, Output, PortId};

/// Outputs in their order. What goes to the same place as the output before joins its batch.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    queue: VecDeque<Output>,
    /// How many items of the same length are likely to follow: room for them is reserved at once.
    pub(super) expected: usize,
}

impl Outputs {
    pub(super) fn push(&mut self, output: Output) {
        self.queue.push_back(output);
    }

    pub(super) fn pop(&mut self) -> Option<Output> {
        self.queue.pop_front()
    }

    /// A frame of its own.
    pub(super) fn control(&mut self, port: PortId, to: SocketAddr, frame: Vec<u8>) {
        self.push(Output::Transmit { port, to, frames: Batch::one(frame) });
    }

    /// Adds a frame of this length, which `write` appends; false if it does not, and nothing is added.
    pub(super) fn frame(
        &mut self,
        (port, to): (PortId, SocketAddr),
        len: usize,
        write: impl FnOnce(&mut Vec<u8>) -> Option<()>,
    ) -> bool {
        if let Some(Output::Transmit { port: last, to: address, frames }) = self.queue.back_mut()
            && (*last, *address) == (port, to)
            && frames.takes(len)
        {
            return write(frames.end()).is_some();
        }
        let mut frame = Vec::with_capacity(len * self.expected.max(1));
        let is_written = write(&mut frame).is_some();
        if is_written {
            self.control(port, to, frame);
        }
        is_written
    }

    /// Adds a datagram for this node.
    pub(super) fn datagram(&mut self, source: NodeId, ecn: Ecn, payload: &[u8]) {
        if let Some(Output::Datagrams { source: last, ecn: mark, payloads }) = self.queue.back_mut()
            && (*last, *mark) == (source, ecn)
            && payloads.takes(payload.len())
        {
            payloads.end().extend_from_slice(payload);
            return;
        }
        let mut bytes = Vec::with_capacity(payload.len() * self.expected.max(1));
        bytes.extend_from_slice(payload);
        self.push(Output::Datagrams { source, ecn, payloads: Batch::one(bytes) });
    }
}
