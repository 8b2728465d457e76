//! What the driver is to do, with frames and datagrams in batches.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::SocketAddr;

use x0_identity::NodeId;

use super::batch::{BATCH_LEN_MAX, Batch};
use super::{Ecn, Output, PortId};

/// Batches that are expected to become so long get the space of the longest one: what follows joins them
/// without another allocation.
const LONG_LEN_MIN: usize = 8 << 10;
/// Spaces of long batches that are kept.
const SPACES_MAX: usize = 8;

/// Outputs in their order. What goes to the same place as the output before joins its batch.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    queue: VecDeque<Output>,
    /// How many items of the same length are likely to follow: room for them is reserved at once.
    pub(super) expected: usize,
    /// Spaces of long batches, for the next ones.
    spaces: Vec<Vec<u8>>,
}

impl Outputs {
    pub(super) fn push(&mut self, output: Output) {
        self.queue.push_back(output);
    }

    pub(super) fn pop(&mut self) -> Option<Output> {
        self.queue.pop_front()
    }

    /// Takes back a batch that was handled.
    pub(super) fn reuse(&mut self, batch: Batch) {
        if batch.space_len() >= BATCH_LEN_MAX && self.spaces.len() < SPACES_MAX {
            self.spaces.push(batch.into_space());
        }
    }

    /// Space for a batch that begins with an item of this length.
    fn space(&mut self, len: usize) -> Vec<u8> {
        let expected_len = len * self.expected.max(1);
        if expected_len < LONG_LEN_MIN {
            return Vec::with_capacity(expected_len);
        }
        // The last one was used last, and is in the caches of the processor.
        self.spaces.pop().unwrap_or_else(|| Vec::with_capacity(expected_len.max(BATCH_LEN_MAX)))
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
        let mut frame = self.space(len);
        let is_written = write(&mut frame).is_some();
        let frames = Batch::one(frame);
        if is_written {
            self.push(Output::Transmit { port, to, frames });
        } else {
            self.reuse(frames);
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
        let mut bytes = self.space(payload.len());
        bytes.extend_from_slice(payload);
        self.push(Output::Datagrams { source, ecn, payloads: Batch::one(bytes) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spaces of long batches are kept up to a bound; a short batch never occupies one.
    #[test]
    fn the_spaces_that_are_kept_are_bounded() {
        let mut outputs = Outputs { expected: 40, ..Outputs::default() };
        let place = (PortId(0), SocketAddr::from(([10, 0, 0, 1], 1)));
        let write = |frame: &mut Vec<u8>| {
            frame.extend_from_slice(&[7; 1200]);
            Some(())
        };
        for number in 0..2 * SPACES_MAX {
            let to = SocketAddr::from((place.1.ip(), u16::try_from(number).unwrap_or(0)));
            assert!(outputs.frame((place.0, to), 1200, write));
        }
        while let Some(Output::Transmit { frames, .. }) = outputs.pop() {
            outputs.reuse(frames);
        }
        assert_eq!(outputs.spaces.len(), SPACES_MAX);
        outputs.expected = 1;
        outputs.frame(place, 1200, write);
        assert_eq!(outputs.spaces.len(), SPACES_MAX);
        // A frame that is not written takes no space with it.
        outputs.expected = 40;
        assert!(!outputs.frame((PortId(1), place.1), 1200, |_| None));
        assert_eq!(outputs.spaces.len(), SPACES_MAX);
        assert!(outputs.frame((PortId(1), place.1), 1200, write));
        assert_eq!(outputs.spaces.len(), SPACES_MAX - 1);
    }
}
