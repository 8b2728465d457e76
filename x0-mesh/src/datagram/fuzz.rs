//! Entry of the fuzz target: any bytes as frames, and as the content of authentic frames.

use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use x0_identity::NodeId;

#[cfg(test)]
use super::frame::decode_outer;
use super::frame::kind;
#[cfg(test)]
use super::protection::Protection;
use super::{DatagramOptions, Datagrams, FrameKeys, Input, Output, PortId, PortOptions};

const PORT: PortId = PortId(0);

fn address(at: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], u16::try_from(at).unwrap_or(0)))
}

/// Two nodes that exchange what they want to, and then take any bytes.
pub(crate) struct Pair {
    ends: Vec<Datagrams>,
    now: Duration,
    /// The last frames of the second end.
    sent: alloc::collections::VecDeque<Vec<u8>>,
}

impl Pair {
    pub(crate) fn new() -> Pair {
        let nodes = [NodeId::from(core::num::NonZeroU64::MIN), NodeId::from(core::num::NonZeroU64::MAX)];
        let mut ends = Vec::new();
        for (at, local) in nodes.into_iter().enumerate() {
            let mut end = Datagrams::new(local, DatagramOptions::new(at as u64 + 1));
            end.add_port(PORT, PortOptions::new(1232));
            let keys = FrameKeys::new(&[3; FrameKeys::MATERIAL_LEN], at == 0);
            let input =
                Input::Keyed { port: PORT, peer: nodes[1 - at], number: 0, address: address(1 - at), keys };
            // A first link is not refused.
            let _ = end.handle(Duration::ZERO, input);
            ends.push(end);
        }
        Pair { ends, now: Duration::ZERO, sent: alloc::collections::VecDeque::new() }
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
                        let Output::Transmit { mut frames, .. } = output else { continue };
                        for frame in frames.items_mut() {
                            if at == 1 {
                                self.sent.truncate(63);
                                self.sent.push_front(frame.to_vec());
                            }
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

    /// One of the last frames of the second end arrives with some bits flipped.
    #[cfg(test)]
    fn take_mutated(&mut self, random: &mut crate::random::SplitMix64) {
        let mut draw = |count: usize| usize::try_from(random.next() % count.max(1) as u64).unwrap_or(0);
        let Some(mut frame) = self.sent.get(draw(self.sent.len())).cloned() else { return };
        for _ in 0..=draw(4) {
            let bit = draw(frame.len() * 8);
            frame[bit / 8] ^= 1 << (bit % 8);
        }
        let input = Input::Frame { port: PORT, from: address(1), frame: &mut frame };
        let _ = self.ends[0].handle(self.now, input);
    }

    /// What the last control frames of the second end contain: probes, router messages, and others.
    #[cfg(test)]
    fn contents(&self, material: &[u8; FrameKeys::MATERIAL_LEN]) -> Vec<Vec<u8>> {
        // As the first end opens them.
        let mut protection = Protection::new(FrameKeys::new(material, true));
        let mut contents = Vec::new();
        for frame in self.sent.iter().rev() {
            let Some((kind::CONTROL, _, low)) = decode_outer(frame) else { continue };
            let mut frame = frame.clone();
            let opened = protection.check(low).and_then(|number| protection.open(number, &mut frame, None));
            contents.extend(opened.map(|(plain, _)| plain.to_vec()));
        }
        contents
    }

    /// A control frame of the second end arrives, authentic and with another content: bits are flipped, or
    /// its end is missing, or bytes follow.
    #[cfg(test)]
    fn take_changed(&mut self, content: &[u8], random: &mut crate::random::SplitMix64) {
        let mut draw = |count: usize| usize::try_from(random.next() % count.max(1) as u64).unwrap_or(0);
        let mut content = content.to_vec();
        match draw(8) {
            0 => content.truncate(draw(content.len())),
            1 => content.extend((0..draw(40)).map(|_| 0x5a)),
            _ => {}
        }
        for _ in 0..draw(5) {
            if !content.is_empty() {
                let bit = draw(content.len() * 8);
                content[bit / 8] ^= 1 << (bit % 8);
            }
        }
        let ids: Vec<_> = self.ends[0].links().map(|link| link.link).collect();
        for id in ids {
            self.ends[0].opened(id, kind::CONTROL, 0, &content);
        }
        let _ = self.ends[0].handle(self.now, Input::Timeout);
    }

    /// Both links end, and have these keys from now on.
    #[cfg(test)]
    fn renew(&mut self, material: &[u8; FrameKeys::MATERIAL_LEN]) {
        let locals = [self.ends[0].local(), self.ends[1].local()];
        for (at, end) in self.ends.iter_mut().enumerate() {
            for link in end.links().map(|link| link.link).collect::<Vec<_>>() {
                let _ = end.handle(self.now, Input::Ended { link });
            }
            let keys = FrameKeys::new(material, at == 0);
            let input =
                Input::Keyed { port: PORT, peer: locals[1 - at], number: 0, address: address(1 - at), keys };
            let _ = end.handle(self.now, input);
        }
        self.sent.clear();
    }

    #[cfg(test)]
    fn is_up(&self) -> bool {
        let locals = [self.ends[0].local(), self.ends[1].local()];
        self.ends.iter().zip([1, 0]).all(|(end, peer)| end.mtu(locals[peer]).is_some())
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

    /// Resident memory of this process, in KiB; 0 where it is not known.
    fn resident() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0)
    }

    /// Probes and messages of the router that an authentic neighbour could send, but for some bits. Tables
    /// stay within their bounds, and new keys make the link work again.
    #[test]
    fn changed_contents_of_authentic_frames_are_taken() {
        let mut random = SplitMix64::new(5);
        let mut pair = Pair::new();
        let destinations_max = DatagramOptions::new(1).router.destinations_max;
        let mut kinds = alloc::collections::BTreeMap::new();
        for round in 0_u8..60 {
            let mut material = [round; FrameKeys::MATERIAL_LEN];
            material[0] = 7;
            pair.renew(&material);
            // Sessions begin, and routes are exchanged.
            pair.run(Duration::from_millis(if round % 2 == 0 { 60 } else { 400 }));
            let contents = pair.contents(&material);
            for _ in 0..500 {
                let draw = usize::try_from(random.next()).unwrap_or(0);
                let Some(content) = contents.get(draw % contents.len().max(1)) else { break };
                *kinds.entry(content[0]).or_insert(0) += 1;
                pair.take_changed(content, &mut random);
                let stats = pair.ends[0].router().stats();
                assert!(stats.destinations <= destinations_max && stats.neighbours <= 1, "{stats:?}");
            }
        }
        // Probes and router messages.
        assert!(kinds[&1] > 1000 && kinds[&2] > 1000, "{kinds:?}");
        assert!(pair.ends[0].router().stats().refused_messages > 1000);
        pair.renew(&[9; FrameKeys::MATERIAL_LEN]);
        pair.run(Duration::from_secs(3));
        assert!(pair.is_up());
    }

    /// A short run of the fuzz target from a seed, with mutated frames. The link works afterwards, and memory
    /// does not grow. `X0_MESH_FRAMES` sets the number of frames: each round has five.
    #[test]
    fn any_bytes_are_taken() {
        let frames: u64 =
            std::env::var("X0_MESH_FRAMES").ok().and_then(|frames| frames.parse().ok()).unwrap_or(100_000);
        let mut random = SplitMix64::new(11);
        let mut pair = Pair::new();
        pair.run(Duration::from_secs(1));
        assert!(pair.is_up());
        let mut before = 0;
        for round in 0..frames / 5 {
            if round == frames / 10 {
                before = resident();
            }
            pair.take_mutated(&mut random);
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
        let grown = resident().saturating_sub(before);
        assert!(grown < 16 << 10, "memory has grown by {grown} KiB in the second half");
        pair.run(Duration::from_secs(3));
        assert!(pair.is_up());
        std::println!("{frames} frames, {grown} KiB more in the second half");
        run(&[3, 1, 2, 3, 9, 4]);
    }
}
