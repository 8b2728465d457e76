//! Clocks of several nodes that tell each other the time, while the physical ones run fast, slow, and jump
//! both ways.

use x0_crdt::{Clock, Observed, Stamp};

use crate::random::Random;

const AHEAD_MAX_MS: u64 = 500;

struct Node {
    clock: Clock,
    now_ms: u64,
    /// The latest that its physical clock ever said.
    latest_ms: u64,
    /// The latest stamp taken or adopted.
    known: Stamp,
}

fn jump(now_ms: u64, random: &mut Random) -> u64 {
    match random.below(12) {
        0 => now_ms.saturating_sub(random.below(5_000)),
        1 => now_ms.saturating_add(random.below(5_000)),
        2 => random.below(100),
        // Once there, the counter is all that is left to go on with.
        3 if random.one_in(50) => u64::MAX - random.below(3),
        _ => now_ms.saturating_add(random.below(3)),
    }
}

#[test]
fn stamps_only_grow_and_stay_near_the_physical_time() {
    for seed in 0..500 {
        let mut random = Random::new(seed);
        let node = |now_ms| Node {
            clock: Clock::new(AHEAD_MAX_MS),
            now_ms,
            latest_ms: now_ms,
            known: Stamp::default(),
        };
        let mut nodes: Vec<Node> = (0..4).map(|_| node(random.below(2_000))).collect();
        let mut stamps = vec![Stamp::default()];
        let mut refused = 0;
        for _ in 0..400 {
            let at = random.index(nodes.len());
            let node = &mut nodes[at];
            node.now_ms = jump(node.now_ms, &mut random);
            node.latest_ms = node.latest_ms.max(node.now_ms);
            match random.below(5) {
                0 | 1 => {
                    let stamp = node.clock.tick(node.now_ms).unwrap();
                    assert!(stamp > node.known, "seed {seed}: later than all before");
                    assert!(stamp.time_ms >= node.now_ms);
                    assert!(stamp <= node.clock.limit(node.now_ms), "its own stamps are trusted");
                    node.known = stamp;
                    stamps.push(stamp);
                }
                2 | 3 => {
                    let remote = stamps[random.index(stamps.len())];
                    match node.clock.observe(remote, node.now_ms) {
                        Observed::Adopted => node.known = node.known.max(remote),
                        Observed::TooFarAhead { ahead_ms } => {
                            assert_eq!(ahead_ms, remote.time_ms - node.now_ms);
                            assert!(ahead_ms > AHEAD_MAX_MS);
                            refused += 1;
                        }
                    }
                }
                // A restart with what was stored.
                _ => node.clock = Clock::resume(node.clock.last(), AHEAD_MAX_MS),
            }
            assert_eq!(node.clock.last(), node.known, "seed {seed}");
            let furthest = node.latest_ms.saturating_add(AHEAD_MAX_MS);
            assert!(node.known.time_ms <= furthest, "seed {seed}: no one drags a clock further than allowed");
        }
        assert!(refused > 0, "seed {seed}: the jumps are large enough");
    }
}
