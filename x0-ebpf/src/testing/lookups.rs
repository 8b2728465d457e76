//! How long a prefix look-up takes, here and in the kernel's own trie, over many different addresses.

use std::io;
use std::net::IpAddr;

use super::run::{RunError, Runner};
use crate::filter::{Front, halves, key_v4, key_v6, lengths_of};
use crate::object;
use crate::prefix::Prefix;
use crate::program::{Constant, Loaded, Recipe};
use crate::sys::Map;

/// Look-ups of one run of the program: `ROUND` of bpf/bench.bpf.c.
const ROUND: f64 = 64.0;
const ADDRESSES: usize = 65_536;
const PREFIXES_MAX: usize = 1 << 20;

/// The map of the look-ups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupTable {
    /// The filter's tables: a hash per family with a Bloom filter in front.
    Rules,
    /// `BPF_MAP_TYPE_LPM_TRIE`.
    KernelTrie,
}

/// The result of a measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Lookups {
    /// Nanoseconds per look-up, the loop around it subtracted.
    pub nanoseconds: f64,
    /// The share of look-ups that found a prefix.
    pub found: f64,
}

/// The same prefixes in both tables.
#[derive(Debug)]
pub struct LookupBench {
    loaded: Loaded,
    addresses: Map,
    state: Map,
    state_value: Vec<u8>,
    v6: bool,
}

fn refused(what: &str) -> RunError {
    RunError::System(io::Error::new(io::ErrorKind::InvalidInput, what))
}

impl LookupBench {
    /// Loads the tables with up to 1,048,576 prefixes, all of one family.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn new(prefixes: &[Prefix]) -> Result<Self, RunError> {
        let v6 = prefixes.first().is_some_and(|prefix| prefix.address().is_ipv6());
        if prefixes.is_empty()
            || prefixes.len() > PREFIXES_MAX
            || prefixes.iter().any(|prefix| prefix.address().is_ipv6() != v6)
        {
            return Err(refused("from 1 to 1048576 prefixes of one family"));
        }
        let entries = u32::try_from(prefixes.len()).map_err(io::Error::other)?;
        let seed = 0x9d2c_5680_1234_5677;
        let front = Front::words_of(entries);
        let recipe = Recipe {
            constants: vec![
                ("front_seed", Constant::U64(seed)),
                ("front_shift", Constant::U32(Front::shift_of(entries))),
            ],
            entries_max: vec![
                ("rules_v4", entries),
                ("rules_v6", entries),
                ("front_v4", front),
                ("front_v6", front),
                ("trie_v4", entries),
                ("trie_v6", entries),
            ],
            pinned: None,
        };
        let loaded = Loaded::new(object::BENCH, &recipe)?;
        let (rules, trie, words) = if v6 {
            (loaded.map("rules_v6")?, loaded.map("trie_v6")?, loaded.map("front_v6")?)
        } else {
            (loaded.map("rules_v4")?, loaded.map("trie_v4")?, loaded.map("front_v4")?)
        };
        let mut front = Front::open(words, seed)?;
        for prefix in prefixes {
            let (key, trie_key) = match prefix.address() {
                IpAddr::V4(address) => {
                    front.add_v4(address.to_bits(), prefix.length());
                    (key_v4(address.to_bits(), prefix.length()).to_vec(), address.octets().to_vec())
                }
                IpAddr::V6(address) => {
                    front.add_v6(address.to_bits(), prefix.length());
                    (key_v6(address.to_bits(), prefix.length()).to_vec(), address.octets().to_vec())
                }
            };
            rules.update(&key, &vec![0; rules.value_len()])?;
            let mut with_length = u32::from(prefix.length()).to_ne_bytes().to_vec();
            with_length.extend(trie_key);
            trie.update(&with_length, &1u32.to_ne_bytes())?;
        }
        front.flush()?;
        let lengths = lengths_of(prefixes.iter());
        let mut state_value = vec![0; 16];
        for word in [lengths.v4, lengths.v6[0], lengths.v6[1], lengths.v6[2]] {
            state_value.extend(word.to_ne_bytes());
        }
        let (addresses, state) = (loaded.map("addresses")?, loaded.map("state")?);
        Ok(Self { loaded, addresses, state, state_value, v6 })
    }

    /// Looks up `addresses` in turn, 6.4 million times in all, and says how long one took.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn measure(&mut self, table: LookupTable, addresses: &[IpAddr]) -> Result<Lookups, RunError> {
        if addresses.is_empty() {
            return Err(refused("at least one address"));
        }
        let keys: Vec<u8> =
            (0..ADDRESSES).flat_map(|index| u32::try_from(index).unwrap_or(0).to_ne_bytes()).collect();
        let values: Vec<u8> = addresses
            .iter()
            .cycle()
            .take(ADDRESSES)
            .flat_map(|address| {
                let bits = match address {
                    IpAddr::V4(address) => address.to_bits().into(),
                    IpAddr::V6(address) => address.to_bits(),
                };
                let (high, low) = halves(bits);
                [high.to_ne_bytes(), low.to_ne_bytes()].concat()
            })
            .collect();
        self.addresses.update_batch(&keys, &values)?;
        let name = match (table, self.v6) {
            (LookupTable::Rules, false) => "x0_bench_rules_v4",
            (LookupTable::Rules, true) => "x0_bench_rules_v6",
            (LookupTable::KernelTrie, false) => "x0_bench_trie_v4",
            (LookupTable::KernelTrie, true) => "x0_bench_trie_v6",
        };
        let program = Runner::new(self.loaded.descriptor(name)?, true);
        let loop_only = Runner::new(self.loaded.descriptor("x0_bench_none")?, true);
        let packet = [0; 64];
        // The least of some interleaved rounds: what the machine does besides only ever adds.
        let (mut with, mut without, mut found) = (f64::MAX, f64::MAX, 0.0);
        for _ in 0..5 {
            without = without.min(loop_only.run(&packet, 20_000)?.duration_ns.into());
            self.state.update(&0u32.to_ne_bytes(), &self.state_value)?;
            with = with.min(program.run(&packet, 20_000)?.duration_ns.into());
            let state = self.state.lookup(&0u32.to_ne_bytes())?.unwrap_or_default();
            let hits = state.get(8..16).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_ne_bytes);
            found = hits as f64 / (ROUND * 20_000.0);
        }
        Ok(Lookups { nanoseconds: (with - without) / ROUND, found })
    }
}
