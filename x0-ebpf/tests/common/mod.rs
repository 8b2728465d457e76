//! Helpers of several test files.
#![allow(dead_code, unreachable_pub)]
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::cast_possible_truncation)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The seed of this run: `X0_SEED`, else one that never changes.
pub fn seed() -> u64 {
    std::env::var("X0_SEED").map_or(0x7830, |seed| seed.parse().expect("X0_SEED is a number"))
}

/// A namespace, where the process may make one. Under CI it must.
#[cfg(feature = "testing")]
pub fn namespace() -> Option<x0_ebpf::testing::Namespace> {
    match x0_ebpf::testing::Namespace::new() {
        Ok(namespace) => Some(namespace),
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "{error}");
            println!("not tested: {error}");
            None
        }
    }
}

/// Asks again and again until there is an answer.
pub fn until<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < give_up, "no answer within 20 s");
        std::thread::yield_now();
    }
}

/// Stops a thread, also when the test fails early: a scope waits for its threads.
pub struct Stop<'a>(pub &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// SplitMix64.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// One of the seeds, with some bytes changed, removed, doubled or replaced by another's.
    pub fn mutated(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = seeds[self.below(seeds.len())].clone();
        for _ in 0..=self.below(6) {
            let at = self.below(bytes.len());
            match self.below(6) {
                0 => bytes.truncate(at),
                1 if !bytes.is_empty() => bytes[at] = self.next() as u8,
                2 if !bytes.is_empty() => bytes[at] = [0, 1, 4, 0x7f, 0x80, 0xff][self.below(6)],
                3 if !bytes.is_empty() => {
                    bytes.remove(at);
                }
                4 => bytes.insert(at.min(bytes.len()), self.next() as u8),
                _ => {
                    let other = &seeds[self.below(seeds.len())];
                    let from = self.below(other.len());
                    let to = (from + self.below(64)).min(other.len());
                    bytes.extend_from_slice(&other[from..to]);
                }
            }
        }
        bytes
    }
}

/// Messages in the form of Linux 6.18 on a little-endian machine.
pub mod recorded {
    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&(4 + value.len() as u16).to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&(16 + body.len() as u32).to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&[2, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(body);
        bytes
    }

    /// A link: head, name, counters.
    pub fn link() -> Vec<u8> {
        let mut body = vec![0, 0, 1, 0, 7, 0, 0, 0, 0x43, 0x10, 1, 0, 0, 0, 0, 0];
        body.extend(attribute(3, b"veth0\0"));
        let counters: Vec<u8> = (1..=25u64).flat_map(u64::to_ne_bytes).collect();
        body.extend(attribute(23, &counters));
        message(16, &body)
    }

    /// A connection: head, TCP information.
    pub fn connection() -> Vec<u8> {
        let mut body = vec![0; 72];
        body[0] = 2;
        body[1] = 1;
        body[24..28].copy_from_slice(&[10, 0, 0, 2]);
        body.extend(attribute(2, &(0..=247).collect::<Vec<u8>>()));
        message(20, &body)
    }
}
