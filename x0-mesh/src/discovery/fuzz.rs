//! What bytes from the network reach, for `fuzz/` and for the suite.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::BTreeSet;

use x0_identity::NodeId;

use super::announcement::{Announcement, realm_of};
use super::{Discovery, DiscoveryInput, DiscoveryOptions, DiscoveryOutput, HintState};

const DIALS_MAX: usize = 3;
const HINTS_MAX: usize = 20;
const PER_IP_MAX: usize = 5;

/// Datagrams, outcomes of dials and time, as the bytes say: nothing panics, tables stay within their bounds,
/// each dial is asked for once, and announcements keep their least pause.
pub(crate) fn run(mut script: &[u8]) {
    let local = NodeId::from(core::num::NonZeroU64::MIN);
    let options = DiscoveryOptions::new("fuzz").limits(DIALS_MAX, HINTS_MAX, PER_IP_MAX);
    let interval_min = options.interval_min;
    let mut end = Discovery::new(local, 7001, script.len() as u64, options);
    let mut now = Duration::ZERO;
    let mut announced: Option<Duration> = None;
    // Addresses that were dialled and have not ended.
    let mut busy: BTreeSet<SocketAddr> = BTreeSet::new();
    while let Some((action, rest)) = script.split_first() {
        let (content, rest) = rest.split_at(rest.len().min(24));
        let byte = |place: usize| content.get(place).copied().unwrap_or(0);
        let from = SocketAddr::from(([192, 0, 2, byte(0) % 8], 9));
        let mut used = 0;
        match action % 6 {
            0 => {
                end.handle(now, DiscoveryInput::Received { from, bytes: content });
                used = content.len();
            }
            // Valid ones.
            1 | 2 => {
                let node = NodeId::new(u64::from(byte(1) % 16) + 1).unwrap_or(local);
                let port = u16::from(byte(2)).max(1);
                let bytes = Announcement { realm: realm_of("fuzz"), node, port }.encode();
                end.handle(now, DiscoveryInput::Received { from, bytes: &bytes });
                used = 3;
            }
            3 => {
                let address = busy.iter().nth(usize::from(byte(0)) % busy.len().max(1)).copied();
                let address = address.unwrap_or(from);
                if byte(1) % 2 == 0 {
                    end.handle(now, DiscoveryInput::Reached { address });
                } else {
                    busy.remove(&address);
                    end.handle(now, DiscoveryInput::Ended { address });
                }
                used = 2;
            }
            4 => {
                let peers: Vec<NodeId> =
                    (2..6).filter(|node| byte(0) >> node & 1 == 1).filter_map(NodeId::new).collect();
                end.handle(now, DiscoveryInput::Neighbours { peers: &peers });
                used = 1;
            }
            _ => {
                now = end.poll_timeout().unwrap_or(now).max(now)
                    + Duration::from_millis(u64::from(action >> 3));
                end.handle(now, DiscoveryInput::Timeout);
            }
        }
        script = content.get(used..).map_or(rest, |_| &script[1 + used.min(content.len())..]);
        while let Some(output) = end.poll_output() {
            match output {
                DiscoveryOutput::Announce { .. } => {
                    assert!(announced.is_none_or(|at| now >= at + interval_min));
                    announced = Some(now);
                }
                DiscoveryOutput::Dial { address } => assert!(busy.insert(address), "{address} twice"),
            }
        }
        let hints: Vec<_> = end.hints().collect();
        let dialling = hints.iter().filter(|hint| hint.state == HintState::Dialling).count();
        assert!(dialling <= DIALS_MAX && hints.len() <= HINTS_MAX);
        for hint in &hints {
            let of_ip = hints.iter().filter(|other| other.address.ip() == hint.address.ip()).count();
            assert!(of_ip <= PER_IP_MAX);
            assert_eq!(busy.contains(&hint.address), hint.state != HintState::Waiting);
        }
        assert!(end.poll_timeout().is_some_and(|at| at > now));
    }
}

#[cfg(test)]
mod tests {
    use crate::random::SplitMix64;

    /// A short run of what `fuzz/` does.
    #[test]
    fn random_scripts() {
        let mut random = SplitMix64::new(7);
        for _ in 0..2000 {
            let len = random.below(600);
            let script: Vec<u8> = (0..len).map(|_| random.next().to_le_bytes()[0]).collect();
            super::run(&script);
        }
    }
}
