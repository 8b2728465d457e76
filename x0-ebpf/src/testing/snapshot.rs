//! The time to read a whole per-CPU map: in batches, and key by key as aya's iterator does.

use std::io;
use std::time::{Duration, Instant};

use aya::maps::{MapData, PerCpuHashMap};

use super::run::RunError;
use crate::sys::{self, Map};

/// The times of two ways to read the same map; the shortest of three each.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SnapshotTimes {
    /// Entries read, each with a value per CPU.
    pub entries: u32,
    /// The way of this crate.
    pub batches: Duration,
    /// The way of aya's iterator.
    pub iterator: Duration,
}

/// Fills a per-CPU hash with `entries` (1..=1,048,576) and reads it both ways; both see every entry.
///
/// # Errors
/// [`RunError`].
pub fn measure_snapshot(entries: u32) -> Result<SnapshotTimes, RunError> {
    let entries = entries.clamp(1, 1 << 20);
    let other = |error: aya::maps::MapError| RunError::System(io::Error::other(error));
    let fd = sys::map_create(sys::PER_CPU_HASH, 8, 8, entries)?;
    let theirs = MapData::from_fd(fd.try_clone()?).and_then(aya::maps::Map::from_map_data).map_err(other)?;
    let theirs: PerCpuHashMap<_, u64, u64> = theirs.try_into().map_err(other)?;
    let ours = Map::new(fd)?;
    let keys: Vec<u8> = (0..u64::from(entries)).flat_map(u64::to_ne_bytes).collect();
    let values: Vec<u8> =
        (0..u64::from(entries)).flat_map(|entry| entry.to_ne_bytes().repeat(ours.value_len() / 8)).collect();
    ours.update_batch(&keys, &values)?;
    let expect = u64::from(entries) * u64::from(entries - 1) / 2;
    let check = |count: u32, sum: u64| {
        if (count, sum) == (entries, expect) {
            return Ok(());
        }
        Err(RunError::System(io::Error::other(format!("read {count} of {entries} entries"))))
    };
    let (mut batches, mut iterator) = (Duration::MAX, Duration::MAX);
    for _ in 0..3 {
        let (start, mut count, mut sum) = (Instant::now(), 0, 0u64);
        ours.for_each(4096, |_, value| {
            count += 1;
            sum += value.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
        })?;
        batches = batches.min(start.elapsed());
        check(count, sum)?;
        let (start, mut count, mut sum) = (Instant::now(), 0, 0u64);
        for entry in &theirs {
            let (_, value) = entry.map_err(other)?;
            count += 1;
            sum += value.iter().next().copied().unwrap_or(0);
        }
        iterator = iterator.min(start.elapsed());
        check(count, sum)?;
    }
    Ok(SnapshotTimes { entries, batches, iterator })
}
