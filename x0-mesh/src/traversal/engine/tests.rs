//! The rules of the engine.

use core::net::SocketAddr;
use core::time::Duration;

use x0_identity::NodeId;

use super::super::message::Message;
use super::super::{Traversal, TraversalInput, TraversalOptions, TraversalOutput};

const ZERO: Duration = Duration::ZERO;
const SECOND: Duration = Duration::from_secs(1);

fn node(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn end() -> Traversal {
    let mut end = Traversal::new(1, TraversalOptions::default());
    end.handle(ZERO, TraversalInput::Addresses { own: &[at("192.0.2.1:7001")] });
    end
}

fn message(is_call: bool, candidates: &[&str]) -> Vec<u8> {
    Message { is_call, candidates: candidates.iter().map(|text| at(text)).collect() }.encode()
}

/// Addresses that were dialled, and messages that were sent: to whom, and whether they are calls.
fn outputs(end: &mut Traversal) -> (Vec<SocketAddr>, Vec<(u64, bool)>) {
    let (mut dials, mut sent) = (Vec::new(), Vec::new());
    while let Some(output) = end.poll_output() {
        match output {
            TraversalOutput::Dial { address } => dials.push(address),
            TraversalOutput::Send { to, bytes } => {
                let message = Message::decode(&bytes).unwrap();
                assert_eq!(message.candidates, [at("192.0.2.1:7001")]);
                sent.push((to.get(), message.is_call));
            }
        }
    }
    (dials, sent)
}

#[test]
fn calls_become_rare_and_end_with_the_traffic() {
    let mut end = end();
    assert_eq!(end.poll_timeout(), None);
    end.handle(ZERO, TraversalInput::Relayed { peer: node(2) });
    let (mut now, mut times) = (ZERO, vec![ZERO]);
    assert_eq!(outputs(&mut end).1, [(2, true)]);
    // Traffic for 20 minutes.
    while let Some(due) = end.poll_timeout() {
        let tick = now + SECOND;
        now = if now < 1200 * SECOND { due.min(tick) } else { due };
        if now < 1200 * SECOND {
            end.handle(now, TraversalInput::Relayed { peer: node(2) });
        }
        end.handle(now, TraversalInput::Timeout);
        times.extend(outputs(&mut end).1.iter().map(|_| now));
    }
    let pauses: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses[0] >= SECOND && pauses[0] <= 2 * SECOND, "{pauses:?}");
    assert!(pauses[3] >= 8 * SECOND, "{pauses:?}");
    assert!(pauses.iter().all(|pause| *pause <= 450 * SECOND), "{pauses:?}");
    assert!(times.len() < 16, "{times:?}");
    assert_eq!(end.stats().calls, times.len() as u64);
    // After a pause of the traffic they begin again.
    now += 1000 * SECOND;
    end.handle(now, TraversalInput::Relayed { peer: node(2) });
    assert_eq!(outputs(&mut end).1, [(2, true)]);
    assert!(end.poll_timeout().unwrap() <= now + 2 * SECOND);
}

#[test]
fn a_neighbour_is_not_called_until_its_link_is_gone() {
    let mut end = end();
    end.handle(ZERO, TraversalInput::Neighbours { peers: &[node(2)] });
    end.handle(ZERO, TraversalInput::Relayed { peer: node(2) });
    end.handle(ZERO, TraversalInput::Message { from: node(2), bytes: &message(true, &["192.0.2.2:1"]) });
    assert_eq!(outputs(&mut end), (vec![], vec![]));
    end.handle(SECOND, TraversalInput::Neighbours { peers: &[] });
    end.handle(SECOND, TraversalInput::Relayed { peer: node(2) });
    assert_eq!(outputs(&mut end).1, [(2, true)]);
    // The direct path is made, and lost again.
    end.handle(2 * SECOND, TraversalInput::Neighbours { peers: &[node(2)] });
    assert_eq!(end.poll_timeout(), None);
    end.handle(20 * SECOND, TraversalInput::Neighbours { peers: &[] });
    assert_eq!(outputs(&mut end).1, [(2, true)]);
}

#[test]
fn both_ends_dial_and_answers_need_a_call() {
    let mut end = end();
    let answer = message(false, &["198.51.100.2:7002"]);
    end.handle(ZERO, TraversalInput::Message { from: node(2), bytes: &answer });
    assert_eq!(outputs(&mut end), (vec![], vec![]));
    end.handle(ZERO, TraversalInput::Relayed { peer: node(2) });
    assert_eq!(outputs(&mut end).1, [(2, true)]);
    end.handle(ZERO, TraversalInput::Message { from: node(3), bytes: &answer });
    assert_eq!(outputs(&mut end), (vec![], vec![]));
    end.handle(ZERO, TraversalInput::Message { from: node(2), bytes: &answer });
    assert_eq!(outputs(&mut end).0, [at("198.51.100.2:7002")]);
    // One answer to a call.
    end.handle(ZERO, TraversalInput::Message { from: node(2), bytes: &message(false, &["198.51.100.2:1"]) });
    assert_eq!(outputs(&mut end), (vec![], vec![]));
    assert_eq!(end.stats().dropped, 3);
    // A call is answered and dialled, but not twice within a second.
    let call = message(true, &["198.51.100.3:7003", "198.51.100.2:7002"]);
    end.handle(SECOND / 2, TraversalInput::Message { from: node(3), bytes: &call });
    assert_eq!(outputs(&mut end), (vec![at("198.51.100.3:7003")], vec![(3, false)]));
    end.handle(SECOND, TraversalInput::Message { from: node(3), bytes: &call });
    assert_eq!(outputs(&mut end), (vec![], vec![]));
    for (text, is_reached) in [("198.51.100.2:7002", true), ("198.51.100.3:7003", false)] {
        let address = at(text);
        if is_reached {
            end.handle(SECOND, TraversalInput::Reached { address });
            end.handle(SECOND, TraversalInput::Reached { address });
        }
        end.handle(SECOND, TraversalInput::Ended { address });
    }
    assert_eq!((end.stats().dials, end.stats().reached, end.stats().answers), (2, 1, 1));
    end.handle(3 * SECOND, TraversalInput::Message { from: node(3), bytes: &call });
    let (dials, sent) = outputs(&mut end);
    assert_eq!((dials.len(), sent), (2, vec![(2, true), (3, false)].into_iter().rev().collect()));
    end.handle(3 * SECOND, TraversalInput::Message { from: node(3), bytes: b"\x03" });
    assert_eq!(end.stats().malformed, 1);
}

#[test]
fn addresses_that_lead_nowhere_are_not_dialled() {
    let nowhere = ["0.0.0.0:1", "127.0.0.1:1", "255.255.255.255:1", "169.254.0.1:1", "[::]:1", "[fe80::1]:1"];
    let mut end = end();
    end.handle(ZERO, TraversalInput::Message { from: node(2), bytes: &message(true, &nowhere) });
    let more = ["224.0.0.1:1", "[ff02::1]:1", "[::1]:1", "192.0.2.1:7001"];
    end.handle(2 * SECOND, TraversalInput::Message { from: node(2), bytes: &message(true, &more) });
    assert_eq!(outputs(&mut end).0, []);
    // A node on the loopback has its peers there.
    let own = [at("127.0.0.1:7001")];
    end.handle(4 * SECOND, TraversalInput::Addresses { own: &own });
    end.handle(
        4 * SECOND,
        TraversalInput::Message { from: node(2), bytes: &message(true, &["127.0.0.1:1"]) },
    );
    let dial = TraversalOutput::Dial { address: at("127.0.0.1:1") };
    assert!(core::iter::from_fn(|| end.poll_output()).any(|output| output == dial));
}

/// A member sends calls in the name of many nodes.
#[test]
fn a_flood_of_calls_costs_little() {
    let mut end = end();
    end.handle(ZERO, TraversalInput::Relayed { peer: node(2) });
    for number in 0..10_000_u32 {
        let candidates: Vec<String> = (0..8).map(|n| format!("198.51.{}.{n}:9", number % 250)).collect();
        let candidates: Vec<&str> = candidates.iter().map(String::as_str).collect();
        let now = Duration::from_millis(number.into());
        let from = node(3 + u64::from(number));
        end.handle(now, TraversalInput::Message { from, bytes: &message(true, &candidates) });
        // There is traffic to a true one.
        end.handle(now, TraversalInput::Relayed { peer: node(2) });
    }
    assert_eq!(end.peers(), 64);
    assert_eq!(end.stats().dials, 16);
    assert!(end.peers.contains_key(&node(2)));
}
