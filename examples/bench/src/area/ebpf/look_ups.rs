//! Look-ups of the longest prefix.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Result, ensure};
use x0_ebpf::Prefix;
use x0_ebpf::testing::{LookupBench, LookupTable};

use super::Options;
use crate::case::{Case, Metric};
use crate::random::Random;

const TIME: Metric = Metric { name: "look-up", unit: "ns" };
/// The number of looked-up addresses, more than the caches of the processor hold.
const ADDRESSES: usize = 65_536;
const TABLES: [LookupTable; 2] = [LookupTable::Rules, LookupTable::KernelTrie];

pub(super) fn measure(options: &Options) -> Result<Vec<Case>> {
    let mut random = Random::new(options.seed);
    let mut cases = Vec::new();
    for v6 in [false, true] {
        for count in [1_000, 10_000, 100_000] {
            let table = prefixes(&mut random, v6, count)?;
            let pick = |random: &mut Random| table[random.below(count) as usize].address();
            let hits: Vec<IpAddr> = (0..ADDRESSES).map(|_| pick(&mut random)).collect();
            let length = if v6 { 128 } else { 32 };
            let misses = (0..ADDRESSES)
                .map(|_| Ok(prefix(&mut random, v6, length)?.address()))
                .collect::<Result<Vec<_>>>()?;
            let mut bench = LookupBench::new(&table)?;
            for (what, addresses) in [("of what is there", &hits), ("of anything", &misses)] {
                let family = if v6 { 6 } else { 4 };
                let name = format!("look-ups {what}, {count} IPv{family} prefixes");
                let how = format!(
                    "{ADDRESSES} different addresses in random order, the loop around them subtracted."
                );
                let systems = vec!["x0-ebpf".into(), "kernel's LPM trie".into()];
                let mut case = Case::new("ebpf", name, how, systems);
                for turn in 0..options.turns {
                    let mut found = [0.0; 2];
                    for place in 0..2 {
                        let system = (place + turn) % 2;
                        let took = bench.measure(TABLES[system], addresses)?;
                        found[system] = took.found;
                        case.add(TIME, system, took.nanoseconds);
                    }
                    ensure!(
                        (found[0] - found[1]).abs() < 1e-9,
                        "the two tables found differently: {found:?}"
                    );
                }
                cases.push(case);
            }
        }
    }
    Ok(cases)
}

/// As many different prefixes of a few lengths, as block lists have them: few of the short ones, or they
/// cover everything.
fn prefixes(random: &mut Random, v6: bool, count: u32) -> Result<Vec<Prefix>> {
    let lengths: [u8; 5] = if v6 { [32, 48, 56, 64, 128] } else { [16, 20, 22, 24, 32] };
    let mut all = BTreeSet::new();
    while all.len() < count as usize {
        let place = if random.below(100) == 0 { random.below(3) } else { 3 + random.below(2) };
        all.insert(prefix(random, v6, lengths[place as usize])?);
    }
    Ok(all.into_iter().collect())
}

fn prefix(random: &mut Random, v6: bool, length: u8) -> Result<Prefix> {
    let bits = u128::from(random.next()) << 64 | u128::from(random.next());
    // Left-aligned, the host's bits cut off.
    let bits = bits & u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
    let address: IpAddr = if v6 {
        Ipv6Addr::from_bits(bits).into()
    } else {
        Ipv4Addr::from_bits(u32::try_from(bits >> 96)?).into()
    };
    Ok(Prefix::new(address, length)?)
}
