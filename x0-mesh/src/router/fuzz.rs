//! What bytes from a neighbour reach, for `fuzz/` and for the suite.

use alloc::vec::Vec;
use core::time::Duration;

use x0_identity::NodeId;

use super::message::{Header, Message};
use super::{Input, LinkCost, LinkId, Output, Packet, Router, RouterOptions};

/// The first byte chooses: bytes to be decoded, or messages for a running router.
pub(crate) fn run(bytes: &[u8]) {
    match bytes.split_first() {
        None => {}
        Some((0, body)) => decode(body),
        Some((seed, script)) => {
            drive(u64::from(*seed), script);
        }
    }
}

/// A message has one encoding: decoding and encoding gives the same bytes.
fn decode(body: &[u8]) {
    let Ok(message) = Message::decode(body) else { return };
    let acks: Vec<u32> = message.acks().collect();
    let mut bytes = Vec::new();
    message.header.encode(&acks, &mut bytes);
    for entry in message.entries() {
        entry.encode(&mut bytes);
    }
    assert_eq!(bytes, body);
}

/// Gives messages to a router with three neighbours: nothing panics, tables stay within their bounds. Returns
/// how many destinations the router knows in the end.
fn drive(seed: u64, mut script: &[u8]) -> usize {
    const DESTINATIONS_MAX: usize = 40;
    let node = |number: u64| NodeId::new(number);
    let Some(local) = node(1) else { return 0 };
    let mut router = Router::new(local, RouterOptions::new(seed).limits(DESTINATIONS_MAX, 4));
    let mut now = Duration::ZERO;
    let mut sessions = [0_u32; 3];
    for (link, number) in [(0, 2), (1, 3), (2, 4)] {
        let Some(peer) = node(number) else { return 0 };
        let cost = LinkCost::new(10 * link).price(1);
        let _ = router.handle(now, Input::LinkUp { link: LinkId(link), peer, cost });
    }
    while let Some((action, rest)) = script.split_first() {
        let (len, rest) = rest.split_first().unwrap_or((&0, rest));
        let (content, rest) = rest.split_at(usize::from(*len).min(rest.len()));
        script = rest;
        let link = u32::from(action % 3);
        let slot = usize::from(action % 3);
        let id = LinkId(link);
        let _ = match action / 3 % 8 {
            0 => router.handle(now, Input::Message { link: id, message: content }),
            1 => router.handle(now, Input::LinkDown { link: id }),
            2 => router.handle(now, Input::LinkDegraded { link: id }),
            3 => match node(u64::from(link) + 2) {
                Some(peer) => {
                    router.handle(now, Input::LinkUp { link: id, peer, cost: LinkCost::new(u32::from(*len)) })
                }
                None => Ok(()),
            },
            4 => {
                now = router.poll_timeout().unwrap_or(now).max(now);
                router.handle(now, Input::Timeout)
            }
            5 => {
                now += Duration::from_millis(u64::from(*len) << (action >> 6));
                router.handle(now, Input::Timeout)
            }
            // Entries in a header that the router accepts.
            _ => {
                let number = content.first().map_or(1, |byte| u32::from(*byte).max(1));
                let header = Header { session: 7 + link, to_session: sessions[slot], number: Some(number) };
                let mut message = Vec::new();
                header.encode(&[1, 2, number], &mut message);
                message.extend_from_slice(content.get(1..).unwrap_or(&[]));
                router.handle(now, Input::Message { link: id, message: &message })
            }
        };
        while let Some(output) = router.poll_output() {
            if let Output::Send { link, message, .. } = output {
                assert!(message.len() <= 1200);
                // A router understands every message that a router sends.
                let header = Message::decode(&message).map(|message| message.header);
                let session = sessions.get_mut(link.0 as usize);
                if let (Ok(header), Some(session)) = (header, session) {
                    *session = header.session;
                } else {
                    unreachable!("an own message is invalid");
                }
            }
        }
        assert!(router.stats().destinations <= DESTINATIONS_MAX);
        let routes: Vec<_> = router.routes().collect();
        for route in routes {
            let packet = Packet { destination: route.destination, from: None, bound: None };
            if let Ok(hop) = router.forward(&packet) {
                let bounded = Packet { bound: hop.bound, ..packet };
                let next = router.forward(&bounded).ok().and_then(|next| next.bound);
                assert!(next.is_none_or(|next| hop.bound.is_none_or(|bound| next < bound)));
            }
        }
    }
    router.stats().destinations
}

#[cfg(test)]
mod tests {
    use x0_identity::NodeId;

    use crate::random::SplitMix64;
    use crate::router::Distance;
    use crate::router::message::{Advert, Entry};

    /// A part of a script: one entry in a header that the router accepts, with a wrong bit in one of eight.
    fn part(random: &mut SplitMix64) -> Vec<u8> {
        let [kind, link, number, node, metric, seqno, damage, bit] = random.next().to_le_bytes();
        let node = NodeId::new(u64::from(node % 64) + 1).unwrap();
        // Only a neighbour itself is at no distance.
        let metric = if node.get() == u64::from(link % 3) + 2 { 0 } else { u32::from(metric) + 1 };
        let seqno = u32::from(seqno);
        let entry = match kind % 8 {
            0 => Entry::Retraction { node },
            1 => Entry::Request { node, seqno, hops: bit },
            _ => {
                let distance = Distance { seqno, metric };
                let advert = Advert { distance, price: number.into(), mtu: u16::MAX, depth: kind >> 4 };
                Entry::Update { node, advert, region: u16::from(damage) }
            }
        };
        let mut content = vec![number];
        entry.encode(&mut content);
        let len = u8::try_from(content.len()).unwrap();
        if damage.is_multiple_of(8) {
            content[usize::from(bit / 8 % len)] ^= 1 << (bit % 8);
        }
        [&[18 + link % 6, len], &content[..]].concat()
    }

    /// A short run of what `fuzz/` does, on scripts of valid and damaged parts.
    #[test]
    fn random_scripts() {
        let mut random = SplitMix64::new(11);
        let mut known = 0;
        for seed in 0..3000 {
            let mut script = Vec::new();
            let len = random.next() % 300;
            while script.len() < usize::try_from(len).unwrap() {
                if random.next().is_multiple_of(16) {
                    // A byte here mostly begins a part, whose content is the parts that follow.
                    script.push(random.next().to_le_bytes()[0]);
                } else {
                    script.extend_from_slice(&part(&mut random));
                }
            }
            known += super::drive(seed, &script) - 1;
        }
        assert!(known > 3000, "the entries of these scripts reach no table: {known}");
        for message in [&include_bytes!("../../tests/data/router_v1.bin")[..], &[]] {
            for position in 0..message.len() {
                for bit in 0..8 {
                    let mut changed = vec![0];
                    changed.extend_from_slice(message);
                    changed[position + 1] ^= 1 << bit;
                    super::run(&changed);
                }
            }
        }
    }
}
