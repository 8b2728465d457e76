//! The settings that the link program reads for every packet: `struct control` of bpf/link.bpf.c.

use std::io;

use crate::rate::Rate;
use crate::sys::Map;

pub(crate) const SLOTS: u32 = 256;
const PROBES: u32 = 4;
/// The version of the layout of pinned maps. Increase it with any change of a layout.
pub(crate) const LAYOUT: u64 = 1;
const SLOTS_AT: usize = 96;
const LEN: usize = SLOTS_AT + 4 * SLOTS as usize;

/// The one value of the map `control`, and its copy here. The owner of the program is the only writer.
#[derive(Debug)]
pub(crate) struct Control {
    map: Map,
    value: Vec<u8>,
}

/// The prefix lengths in use: bit `32 - length` for IPv4; bit `128 - length` over three words for IPv6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lengths {
    pub(crate) v4: u64,
    pub(crate) v6: [u64; 3],
}

impl Lengths {
    /// `length` is at most 32.
    pub(crate) fn add_v4(&mut self, length: usize) {
        self.v4 |= 1 << 32usize.saturating_sub(length);
    }

    /// `length` is at most 128.
    pub(crate) fn add_v6(&mut self, length: usize) {
        let bit = 128usize.saturating_sub(length);
        self.v6[bit / 64] |= 1 << (bit % 64);
    }
}

impl Control {
    /// The settings in the kernel; `None` if the map has another layout than this version.
    pub(crate) fn open(map: Map) -> io::Result<Option<Self>> {
        if map.value_len() != LEN {
            return Ok(None);
        }
        let value = map.lookup(&0u32.to_ne_bytes())?.unwrap_or_else(|| vec![0; LEN]);
        let control = Self { map, value };
        let layout = control.word(0);
        Ok((layout == LAYOUT || layout == 0).then_some(control))
    }

    fn word(&self, at: usize) -> u64 {
        self.value.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_ne_bytes)
    }

    fn set_word(&mut self, at: usize, value: u64) {
        if let Some(bytes) = self.value.get_mut(at..at + 8) {
            bytes.copy_from_slice(&value.to_ne_bytes());
        }
    }

    /// The seed of the hashes in the kernel; 0 for a fresh map.
    pub(crate) fn seed(&self) -> u64 {
        self.word(8)
    }

    pub(crate) fn begin(&mut self, seed: u64) -> io::Result<()> {
        self.set_word(0, LAYOUT);
        self.set_word(8, seed);
        self.write()
    }

    /// Writes the settings to the kernel. Fields that did not change stay readable throughout.
    pub(crate) fn write(&self) -> io::Result<()> {
        self.map.update(&0u32.to_ne_bytes(), &self.value)
    }

    pub(crate) fn set_lengths(&mut self, lengths: Lengths) {
        self.set_word(16, lengths.v4);
        for (index, word) in lengths.v6.iter().enumerate() {
            self.set_word(24 + 8 * index, *word);
        }
    }

    pub(crate) fn set_macs(&mut self, count: u64) {
        self.set_word(48, count);
    }

    pub(crate) fn set_default_drop(&mut self, v4: bool, v6: bool) {
        self.set_word(56, v4.into());
        self.set_word(64, v6.into());
    }

    pub(crate) fn default_drop(&self) -> (bool, bool) {
        (self.word(56) != 0, self.word(64) != 0)
    }

    pub(crate) fn set_peer_rate(&mut self, rate: Option<&Rate>) {
        self.value[72..96].copy_from_slice(&Rate::encode(rate));
    }

    fn slot(&self, slot: u32) -> u32 {
        let at = SLOTS_AT + 4 * slot as usize;
        self.value.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_ne_bytes)
    }

    fn set_slot(&mut self, slot: u32, interface: u32) {
        let at = SLOTS_AT + 4 * slot as usize;
        if let Some(bytes) = self.value.get_mut(at..at + 4) {
            bytes.copy_from_slice(&interface.to_ne_bytes());
        }
    }

    fn places(interface: u32) -> impl Iterator<Item = u32> {
        (0..PROBES).map(move |probe| interface.wrapping_add(probe) % SLOTS)
    }

    /// The slot of an interface, if it has one.
    pub(crate) fn slot_of(&self, interface: u32) -> Option<u32> {
        Self::places(interface).find(|&slot| self.slot(slot) == interface)
    }

    /// Assigns a slot to an interface. Returns whether it is a new one. `None`: all slots that it may have
    /// are taken.
    pub(crate) fn take_slot(&mut self, interface: u32) -> Option<(u32, bool)> {
        if let Some(slot) = self.slot_of(interface) {
            return Some((slot, false));
        }
        let slot = Self::places(interface).find(|&slot| self.slot(slot) == 0)?;
        self.set_slot(slot, interface);
        Some((slot, true))
    }

    pub(crate) fn free_slot(&mut self, interface: u32) {
        if let Some(slot) = self.slot_of(interface) {
            self.set_slot(slot, 0);
        }
    }
}
