//! Entry of the fuzz target: any bytes as frames, and as the content of authentic frames.

use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use x0_identity::NodeId;

use super::frame::kind;
use super::{DatagramOptions, Datagrams, FrameKeys, Input, Output, PortId, PortOptions};

const PORT: PortId = PortId(0);

fn address(at: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], u16::try_from(at).unwrap_or(0)))
}

/// Two nodes that exchange what they want to, and then take any bytes.
pub(crate) struct Pair {
    ends: Vec<Datagrams>,
    now: Duration,
}

impl Pair {
    pub(crate) fn new() -> Pair {
        let nodes = [NodeId::from(core::num::NonZeroU64::MIN), NodeId::from(core::num::NonZeroU64::MAX)];
        let mut ends = Vec::new();
        for (at, local) in nodes.into_iter().enumerate() {
            let mut end = Datagrams::new(local, DatagramOptions::new(at as u64 + 1));
            end.add_port(PORT, PortOptions::new(1232));
            let keys = FrameKeys::new(&[3; FrameKeys::MATERIAL_LEN], at == 0);
            let input = Input::Keyed { port: PORT, peer: nodes[1 - at], address: address(1 - at), keys };
            // A first link is not refused.
            let _ = end.handle(Duration::ZERO, input);
            ends.push(end);
        }
        Pair { ends, now: Duration::ZERO }
    }

    /// Lets time pass; frames arrive at once.
    pub(crate) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            let mut is_busy = true;
            while core::mem::take(&mut is_busy) {
                for at in 0..2 {
                    while let Some(output) = self.ends[at].poll_output() {
                        is_busy = true;
                        if let Output::Transmit { mut frame, .. } = output {
                            let frame = &mut frame[..];
                            let _ = self.ends[1 - at]
                                .handle(self.now, Input::Frame { port: PORT, from: address(at), frame });
                        }
                    }
                }
            }
            let due = self.ends.iter().filter_map(Datagrams::poll_timeout).min().unwrap_or(until);
            self.now = due.clamp(self.now, until);
            for end in &mut self.ends {
                let _ = end.handle(self.now, Input::Timeout);
            }
        }
    }

    /// Bytes arrive on the link: as they are, and as the content of an authentic frame of each kind.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        let end = &mut self.ends[0];
        let mut frame = bytes.to_vec();
        let _ = end.handle(self.now, Input::Frame { port: PORT, from: address(1), frame: &mut frame });
        let ids: Vec<_> = end.links().map(|link| link.link).collect();
        for id in ids {
            for first in [kind::CONTROL, kind::SHORT, kind::LONG] {
                end.opened(id, first, 0, bytes);
            }
        }
    }

    #[cfg(test)]
    fn is_up(&self) -> bool {
        self.ends.iter().all(|end| end.paths().count() == 1)
    }
}

/// The first byte is the length of the next content, and so on.
pub(crate) fn run(bytes: &[u8]) {
    let mut pair = Pair::new();
    pair.run(Duration::from_secs(1));
    let mut rest = bytes;
    while let Some((len, more)) = rest.split_first() {
        let (content, more) = more.split_at(more.len().min(usize::from(*len)));
        pair.take(content);
        rest = more;
    }
    pair.run(Duration::from_millis(100));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;

    /// A short run of the fuzz target from a seed. The link works afterwards.
    #[test]
    fn any_bytes_are_taken() {
        let mut random = SplitMix64::new(11);
        let mut pair = Pair::new();
        pair.run(Duration::from_secs(1));
        assert!(pair.is_up());
        for round in 0..20_000 {
            let len = usize::try_from(random.next() % 64).unwrap();
            let mut bytes: Vec<u8> = (0..len).map(|_| random.next().to_le_bytes()[0]).collect();
            // Mostly known kinds of control frames.
            if let Some(first) = bytes.first_mut().filter(|_| round % 4 != 0) {
                *first %= 9;
            }
            pair.take(&bytes);
            if round % 100 == 0 {
                pair.run(Duration::from_millis(20));
            }
        }
        pair.run(Duration::from_secs(3));
        assert!(pair.is_up());
        run(&[3, 1, 2, 3, 9, 4]);
    }
}
