//! Block and allow lists: rules for prefixes and hardware addresses, each with an action and counters.

mod front;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

pub(crate) use front::Front;

use crate::control::{Control, Lengths};
use crate::prefix::Prefix;
use crate::rate::Rate;
use crate::sys::Map;

/// Distinct prefix lengths that IPv6 rules may use at once: the program looks each of them up.
pub const LENGTHS_V6_MAX: usize = 33;

/// A hardware (Ethernet) address.
pub type Mac = [u8; 6];

/// The effect of a rule on a packet whose source matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Pass it, regardless of shorter prefixes and the default.
    Pass,
    /// Drop it.
    Drop,
    /// Pass packets up to a rate and drop the others.
    Limit(Rate),
}

/// The source of a packet that a rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// Packets from this network. The longest prefix that covers an address decides.
    Network(Prefix),
    /// Frames from this hardware address. Checked before any prefix; after [`Action::Pass`] the prefixes
    /// decide.
    Mac(Mac),
}

/// Packets and bytes that matched a rule, passed or dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RuleCounters {
    /// Packets.
    pub packets: u64,
    /// Bytes of the frames, including the Ethernet header.
    pub bytes: u64,
}

/// The failure to change a rule. The filter is unchanged unless a variant says otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// The program was loaded without a filter.
    #[error("the program was loaded without a filter: set LinkOptions::rules_max above 0")]
    Absent,
    /// The table is full.
    #[error(
        "the filter holds its {entries_max} rules of this kind: remove some, or raise LinkOptions::{option}"
    )]
    Full {
        /// The bound.
        entries_max: u32,
        /// The option that sets it.
        option: &'static str,
    },
    /// Too many different prefix lengths.
    #[error("IPv6 rules already use {LENGTHS_V6_MAX} different prefix lengths: use one of those")]
    Lengths,
    /// The kernel refused a change. Rules before it in the same call are in force.
    #[error("the kernel refused to read or change the filter; rules before it in the same call are in force")]
    System(#[from] io::Error),
}

/// `struct rule` of bpf/include/rules.h.
const RULE_LEN: usize = 32;

#[derive(Clone, Copy, Debug)]
struct Rule {
    action: Action,
    index: u32,
}

impl Rule {
    fn encode(self) -> [u8; RULE_LEN] {
        let (number, rate) = match &self.action {
            Action::Pass => (0u32, None),
            Action::Drop => (1, None),
            Action::Limit(rate) => (2, Some(rate)),
        };
        let mut bytes = [0; RULE_LEN];
        bytes[..4].copy_from_slice(&number.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.index.to_ne_bytes());
        bytes[8..].copy_from_slice(&Rate::encode(rate));
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let half = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let action = match half(0)? {
            0 => Action::Pass,
            1 => Action::Drop,
            _ => Action::Limit(Rate::decode(bytes.get(8..)?)?),
        };
        Some(Self { action, index: half(4)? })
    }
}

/// The indexes of rule counters. Rules with rates have the lowest ones, because a bucket has the index of its
/// rule.
#[derive(Debug)]
struct Indexes {
    limits_max: u32,
    end: u32,
    next_limit: u32,
    next_plain: u32,
    free_limits: Vec<u32>,
    free_plain: Vec<u32>,
}

impl Indexes {
    fn take(&mut self, limit: bool) -> Option<u32> {
        let (free, next, end) = if limit {
            (&mut self.free_limits, &mut self.next_limit, self.limits_max)
        } else {
            (&mut self.free_plain, &mut self.next_plain, self.end)
        };
        if let Some(index) = free.pop() {
            return Some(index);
        }
        if *next == end {
            return None;
        }
        *next += 1;
        Some(*next - 1)
    }

    fn give_back(&mut self, index: u32) {
        if index < self.limits_max { self.free_limits.push(index) } else { self.free_plain.push(index) }
    }
}

/// The maps of the filter and a copy of their rules.
#[derive(Debug)]
pub(crate) struct FilterState {
    v4: Map,
    v6: Map,
    macs: Map,
    hits: Map,
    buckets: Map,
    front_v4: Front,
    front_v6: Front,
    rules: BTreeMap<Source, Rule>,
    /// How many rules use each prefix length.
    lengths_v4: Vec<u32>,
    lengths_v6: Vec<u32>,
    indexes: Indexes,
    rules_max: u32,
    macs_max: u32,
}

pub(crate) struct FilterMaps {
    pub(crate) v4: Map,
    pub(crate) v6: Map,
    pub(crate) macs: Map,
    pub(crate) hits: Map,
    pub(crate) buckets: Map,
    pub(crate) front_v4: Map,
    pub(crate) front_v6: Map,
}

pub(crate) fn key_v4(address: u32, length: u8) -> [u8; 8] {
    let mut key = [0; 8];
    key[..4].copy_from_slice(&address.to_ne_bytes());
    key[4..].copy_from_slice(&u32::from(length).to_ne_bytes());
    key
}

pub(crate) fn key_v6(address: u128, length: u8) -> [u8; 24] {
    let mut key = [0; 24];
    let (high, low) = halves(address);
    key[..8].copy_from_slice(&high.to_ne_bytes());
    key[8..16].copy_from_slice(&low.to_ne_bytes());
    key[16..20].copy_from_slice(&u32::from(length).to_ne_bytes());
    key
}

/// The high and the low half of a 128-bit address.
pub(crate) fn halves(address: u128) -> (u64, u64) {
    let bytes = address.to_be_bytes();
    let half = |at: usize| bytes[at..at + 8].try_into().map_or(0, u64::from_be_bytes);
    (half(0), half(8))
}

/// The prefix lengths that occur.
#[cfg(feature = "testing")]
pub(crate) fn lengths_of<'a>(prefixes: impl Iterator<Item = &'a Prefix>) -> Lengths {
    let mut lengths = Lengths::default();
    for prefix in prefixes {
        if prefix.address().is_ipv4() {
            lengths.add_v4(prefix.length().into());
        } else {
            lengths.add_v6(prefix.length().into());
        }
    }
    lengths
}

pub(crate) fn key_mac(mac: Mac) -> u64 {
    let [a, b, c, d, e, f] = mac;
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

impl FilterState {
    /// Reads the rules of adopted maps; new maps are empty.
    pub(crate) fn open(maps: FilterMaps, seed: u64, rules_max: u32, macs_max: u32) -> io::Result<Self> {
        let limits_max = maps.buckets.entries_max();
        let end = maps.hits.entries_max();
        let mut state = Self {
            front_v4: Front::open(maps.front_v4, seed)?,
            front_v6: Front::open(maps.front_v6, seed)?,
            v4: maps.v4,
            v6: maps.v6,
            macs: maps.macs,
            hits: maps.hits,
            buckets: maps.buckets,
            rules: BTreeMap::new(),
            lengths_v4: vec![0; 33],
            lengths_v6: vec![0; 129],
            indexes: Indexes {
                limits_max,
                end,
                next_limit: 0,
                next_plain: limits_max,
                free_limits: Vec::new(),
                free_plain: Vec::new(),
            },
            rules_max,
            macs_max,
        };
        state.read_back()?;
        Ok(state)
    }

    fn read_back(&mut self) -> io::Result<()> {
        let word = |bytes: &[u8], at: usize| -> Option<u64> {
            Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
        };
        let half = |bytes: &[u8], at: usize| -> Option<u32> {
            Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
        };
        let mut rules = BTreeMap::new();
        self.v4.for_each(4096, |key, value| {
            if let (Some(address), Some(length)) = (half(key, 0), half(key, 4))
                && let Ok(prefix) =
                    Prefix::new(IpAddr::V4(address.into()), u8::try_from(length).unwrap_or(u8::MAX))
                && let Some(rule) = Rule::decode(value)
            {
                rules.insert(Source::Network(prefix), rule);
            }
        })?;
        self.v6.for_each(4096, |key, value| {
            if let (Some(high), Some(low), Some(length)) = (word(key, 0), word(key, 8), half(key, 16))
                && let Ok(prefix) = Prefix::new(
                    IpAddr::V6((u128::from(high) << 64 | u128::from(low)).into()),
                    u8::try_from(length).unwrap_or(u8::MAX),
                )
                && let Some(rule) = Rule::decode(value)
            {
                rules.insert(Source::Network(prefix), rule);
            }
        })?;
        self.macs.for_each(4096, |key, value| {
            if let (Some(key), Some(rule)) = (word(key, 0), Rule::decode(value)) {
                let [_, _, mac @ ..] = key.to_be_bytes();
                rules.insert(Source::Mac(mac), rule);
            }
        })?;
        let mut used: Vec<u32> = rules.values().map(|rule| rule.index).collect();
        used.sort_unstable();
        for source in rules.keys() {
            if let Source::Network(prefix) = source {
                self.count_length(prefix, 1);
            }
        }
        // Indexes below the highest one in use that no rule has are free.
        let limits_max = self.indexes.limits_max;
        let next = |from: u32, to: u32| {
            used.iter().rev().find(|&&index| (from..to).contains(&index)).map_or(from, |&index| index + 1)
        };
        self.indexes.next_limit = next(0, limits_max);
        self.indexes.next_plain = next(limits_max, self.indexes.end);
        let is_free = |index: &u32| used.binary_search(index).is_err();
        self.indexes.free_limits = (0..self.indexes.next_limit).filter(is_free).collect();
        self.indexes.free_plain = (limits_max..self.indexes.next_plain).filter(is_free).collect();
        self.rules = rules;
        Ok(())
    }

    fn count_length(&mut self, prefix: &Prefix, change: i32) {
        let counts = if prefix.address().is_ipv4() { &mut self.lengths_v4 } else { &mut self.lengths_v6 };
        if let Some(count) = counts.get_mut(usize::from(prefix.length())) {
            *count = count.saturating_add_signed(change);
        }
    }

    fn lengths(&self) -> Lengths {
        let used = |counts: &[u32]| -> Vec<usize> {
            counts.iter().enumerate().filter(|(_, count)| **count > 0).map(|(length, _)| length).collect()
        };
        let mut lengths = Lengths::default();
        for length in used(&self.lengths_v4) {
            lengths.add_v4(length);
        }
        for length in used(&self.lengths_v6) {
            lengths.add_v6(length);
        }
        lengths
    }

    fn count_of(&self, v4: bool) -> usize {
        let counts = if v4 { &self.lengths_v4 } else { &self.lengths_v6 };
        counts.iter().map(|&count| count as usize).sum()
    }

    fn macs_len(&self) -> usize {
        self.rules.range(Source::Mac([0; 6])..).count()
    }

    /// Checks that a further rule for this source fits.
    fn check_room(&self, source: &Source) -> Result<(), FilterError> {
        match source {
            Source::Network(prefix) => {
                if self.count_of(prefix.address().is_ipv4()) >= self.rules_max as usize {
                    return Err(FilterError::Full { entries_max: self.rules_max, option: "rules_max" });
                }
                let in_use = self.lengths_v6.iter().filter(|count| **count > 0).count();
                let new = self.lengths_v6.get(usize::from(prefix.length())) == Some(&0);
                if prefix.address().is_ipv6() && new && in_use >= LENGTHS_V6_MAX {
                    return Err(FilterError::Lengths);
                }
            }
            Source::Mac(_) => {
                if self.macs_len() >= self.macs_max as usize {
                    return Err(FilterError::Full { entries_max: self.macs_max, option: "macs_max" });
                }
            }
        }
        Ok(())
    }
}

/// The filter of a loaded program: the longest prefix that covers a packet's source decides.
///
/// A change takes effect at once and as a whole, see [`Filter::insert_all`].
#[derive(Debug)]
pub struct Filter<'a> {
    pub(crate) state: &'a mut FilterState,
    pub(crate) control: &'a mut Control,
}

impl Filter<'_> {
    /// Adds a rule, or changes the action of the one with the same source. The counters of a new
    /// rule start at zero, those of a changed one continue.
    ///
    /// # Errors
    /// [`FilterError`]: a bound was reached, or the kernel refused.
    pub fn insert(&mut self, source: Source, action: Action) -> Result<(), FilterError> {
        self.insert_all([(source, action)])
    }

    /// Adds many rules with few system calls.
    ///
    /// The kernel receives the rule first, then its bit in the front filter, then its prefix length. A packet
    /// between two of these steps is treated as if the rule did not exist.
    ///
    /// # Errors
    /// [`FilterError`]: rules before the one that reached a bound are in force, the others are not.
    pub fn insert_all(
        &mut self,
        rules: impl IntoIterator<Item = (Source, Action)>,
    ) -> Result<(), FilterError> {
        let (mut keys_v4, mut values_v4) = (Vec::new(), Vec::new());
        let (mut keys_v6, mut values_v6) = (Vec::new(), Vec::new());
        let mut outcome = Ok(());
        for (source, action) in rules {
            let rule = match self.admit(source, action) {
                Ok(rule) => rule,
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            };
            match source {
                Source::Mac(mac) => self.state.macs.update(&key_mac(mac).to_ne_bytes(), &rule.encode())?,
                Source::Network(prefix) => match prefix.address() {
                    IpAddr::V4(address) => {
                        self.state.front_v4.add_v4(address.to_bits(), prefix.length());
                        keys_v4.extend(key_v4(address.to_bits(), prefix.length()));
                        values_v4.extend(rule.encode());
                    }
                    IpAddr::V6(address) => {
                        self.state.front_v6.add_v6(address.to_bits(), prefix.length());
                        keys_v6.extend(key_v6(address.to_bits(), prefix.length()));
                        values_v6.extend(rule.encode());
                    }
                },
            }
        }
        if !keys_v4.is_empty() {
            self.state.v4.update_batch(&keys_v4, &values_v4)?;
        }
        if !keys_v6.is_empty() {
            self.state.v6.update_batch(&keys_v6, &values_v6)?;
        }
        self.state.front_v4.flush()?;
        self.state.front_v6.flush()?;
        self.publish()?;
        outcome
    }

    /// Adds a rule to the copy in user space and assigns it an index with counters at zero.
    fn admit(&mut self, source: Source, action: Action) -> Result<Rule, FilterError> {
        let limit = matches!(action, Action::Limit(_));
        let old = self.state.rules.get(&source).copied();
        if let Some(old) = old
            && matches!(old.action, Action::Limit(_)) == limit
        {
            let rule = Rule { action, index: old.index };
            self.state.rules.insert(source, rule);
            return Ok(rule);
        }
        if old.is_none() {
            self.state.check_room(&source)?;
        }
        let Some(index) = self.state.indexes.take(limit) else {
            let (entries_max, option) = if limit {
                (self.state.indexes.limits_max, "limits_max")
            } else {
                (self.state.rules_max, "rules_max")
            };
            return Err(FilterError::Full { entries_max, option });
        };
        self.state.hits.update(&index.to_ne_bytes(), &vec![0; self.state.hits.value_len()])?;
        if limit {
            self.state.buckets.update(&index.to_ne_bytes(), &vec![0; self.state.buckets.value_len()])?;
        }
        let rule = Rule { action, index };
        match self.state.rules.insert(source, rule) {
            Some(old) => self.state.indexes.give_back(old.index),
            None => {
                if let Source::Network(prefix) = &source {
                    self.state.count_length(prefix, 1);
                }
            }
        }
        Ok(rule)
    }

    fn publish(&mut self) -> Result<(), FilterError> {
        self.control.set_lengths(self.state.lengths());
        self.control.set_macs(self.state.macs_len() as u64);
        Ok(self.control.write()?)
    }

    /// Removes a rule. Returns whether there was one. Packets after the return are not matched by it.
    ///
    /// # Errors
    /// [`FilterError::System`]: the rule is still in force.
    pub fn remove(&mut self, source: &Source) -> Result<bool, FilterError> {
        let Some(rule) = self.state.rules.get(source).copied() else { return Ok(false) };
        match source {
            Source::Mac(mac) => {
                self.state.macs.delete(&key_mac(*mac).to_ne_bytes())?;
            }
            Source::Network(prefix) => {
                match prefix.address() {
                    IpAddr::V4(address) => {
                        self.state.v4.delete(&key_v4(address.to_bits(), prefix.length()))?;
                    }
                    IpAddr::V6(address) => {
                        self.state.v6.delete(&key_v6(address.to_bits(), prefix.length()))?;
                    }
                }
                self.state.count_length(prefix, -1);
            }
        }
        self.state.rules.remove(source);
        self.state.indexes.give_back(rule.index);
        self.tidy()?;
        self.publish()?;
        Ok(true)
    }

    /// A bit of the front filter may belong to several rules, so that removal keeps it; the front filter is
    /// rebuilt when too many bits are stale.
    fn tidy(&mut self) -> Result<(), FilterError> {
        let state = &mut *self.state;
        let (front_v4, front_v6) = (&mut state.front_v4, &mut state.front_v6);
        for (front, v4) in [(front_v4, true), (front_v6, false)] {
            front.stale += 1;
            if front.stale * 4 < state.rules_max as usize {
                continue;
            }
            front.begin_again();
            for source in state.rules.keys() {
                match source {
                    Source::Network(prefix) => match prefix.address() {
                        IpAddr::V4(address) if v4 => front.add_v4(address.to_bits(), prefix.length()),
                        IpAddr::V6(address) if !v4 => front.add_v6(address.to_bits(), prefix.length()),
                        _ => {}
                    },
                    Source::Mac(_) => {}
                }
            }
            front.flush()?;
        }
        Ok(())
    }

    /// Sets the treatment of IP packets that no rule covers. `true` drops them: an allow list.
    ///
    /// Other frames, such as ARP, always pass. An IPv6 allow list needs a rule for `fe80::/10`, or neighbour
    /// discovery fails.
    ///
    /// # Errors
    /// [`FilterError::System`]: the default is unchanged.
    pub fn set_default_drop(&mut self, v4: bool, v6: bool) -> Result<(), FilterError> {
        let before = self.control.default_drop();
        self.control.set_default_drop(v4, v6);
        self.control.write().inspect_err(|_| self.control.set_default_drop(before.0, before.1))?;
        Ok(())
    }

    /// Every rule and its action, hardware addresses last.
    pub fn rules(&self) -> impl Iterator<Item = (Source, Action)> {
        self.state.rules.iter().map(|(source, rule)| (*source, rule.action))
    }

    /// The counters of a rule; `None` if there is no such rule.
    ///
    /// # Errors
    /// [`FilterError::System`].
    pub fn counters(&self, source: &Source) -> Result<Option<RuleCounters>, FilterError> {
        let Some(rule) = self.state.rules.get(source) else { return Ok(None) };
        let hits = &self.state.hits;
        let value = hits.lookup(&rule.index.to_ne_bytes())?.unwrap_or_default();
        let mut sum = RuleCounters::default();
        for cpu in value.chunks_exact(hits.stride()) {
            let word = |at: usize| {
                cpu.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_ne_bytes)
            };
            sum.packets += word(0);
            sum.bytes += word(8);
        }
        Ok(Some(sum))
    }
}
