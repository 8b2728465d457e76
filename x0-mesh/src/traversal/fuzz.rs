//! What bytes from other nodes reach, for `fuzz/` and for the suite.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::BTreeMap;

use x0_identity::NodeId;

use super::message::Message;
use super::{Traversal, TraversalInput, TraversalOptions, TraversalOutput};

const DIALS_MAX: usize = 5;
const PEERS_MAX: usize = 4;

/// Messages, traffic, outcomes of dials and time, as the bytes say: nothing panics, tables stay within their
/// bounds, and no address is dialled twice at a time.
pub(crate) fn run(mut script: &[u8]) {
    let options = TraversalOptions::default().limits(DIALS_MAX, PEERS_MAX);
    let mut end = Traversal::new(script.len() as u64, options);
    let mut now = Duration::ZERO;
    // Addresses that were dialled and have not ended: whether they were reached.
    let mut dials: BTreeMap<SocketAddr, bool> = BTreeMap::new();
    while let Some((action, rest)) = script.split_first() {
        let (len, rest) = rest.split_first().unwrap_or((&0, rest));
        let (content, rest) = rest.split_at(usize::from(*len % 64).min(rest.len()));
        script = rest;
        let Some(from) = NodeId::new(u64::from(action >> 4) + 1) else { return };
        let address = |byte: u8| SocketAddr::from(([192, 0, 2, byte % 16], 7001));
        let addresses: Vec<SocketAddr> = content.iter().map(|byte| address(*byte)).collect();
        match action % 7 {
            0 => end.handle(now, TraversalInput::Message { from, bytes: content }),
            1 | 2 => {
                let candidates = addresses.into_iter().take(8).collect();
                let bytes = Message { is_call: action % 7 == 1, candidates }.encode();
                end.handle(now, TraversalInput::Message { from, bytes: &bytes });
            }
            3 => end.handle(now, TraversalInput::Relayed { peer: from }),
            4 => match dials.keys().nth(usize::from(*len) % dials.len().max(1)).copied() {
                Some(address) if content.len() % 2 == 0 => {
                    dials.insert(address, true);
                    end.handle(now, TraversalInput::Reached { address });
                }
                Some(address) => {
                    dials.remove(&address);
                    end.handle(now, TraversalInput::Ended { address });
                }
                None => end.handle(now, TraversalInput::Addresses { own: &addresses }),
            },
            5 => {
                let peers: Vec<NodeId> =
                    content.first().copied().and_then(|byte| NodeId::new(byte.into())).into_iter().collect();
                end.handle(now, TraversalInput::Neighbours { peers: &peers });
            }
            _ => {
                now = end.poll_timeout().unwrap_or(now).max(now) + Duration::from_millis(u64::from(*len));
                end.handle(now, TraversalInput::Timeout);
            }
        }
        while let Some(output) = end.poll_output() {
            match output {
                TraversalOutput::Send { bytes, .. } => assert!(Message::decode(&bytes).is_some()),
                TraversalOutput::Dial { address } => {
                    assert_eq!(dials.insert(address, false), None, "{address} twice");
                }
            }
        }
        assert!(dials.values().filter(|is_reached| !**is_reached).count() <= DIALS_MAX);
        assert!(end.peers() <= PEERS_MAX);
        assert!(end.poll_timeout().is_none_or(|at| at > now));
    }
}

#[cfg(test)]
mod tests {
    use crate::random::SplitMix64;

    /// A short run of what `fuzz/` does.
    #[test]
    fn random_scripts() {
        let mut random = SplitMix64::new(13);
        for _ in 0..2000 {
            let len = random.below(600);
            let script: Vec<u8> = (0..len).map(|_| random.next().to_le_bytes()[0]).collect();
            super::run(&script);
        }
    }
}
