//! x0-crdt beside other CRDTs, all in this process: bytes on the wire, processor time and memory.
//!
//! In every case the systems take turns, each turn starts with another one, and the figure is the median over
//! the turns.

mod differences;
mod growth;
mod hostile;
mod in_sync;
mod joins;
mod random_keys;
mod slow_link;
mod space;
mod systems;
mod unknown;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};

use crate::case::Case;
use crate::random::Random;
use crate::row;
use systems::Pair;

/// x0-crdt beside automerge, yrs, loro and crdts.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Write the rows as a JSON array to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// A tenth of the keys and three turns, for a first look
    #[arg(long)]
    pub(crate) quick: bool,
    /// Turns of each system in each case
    #[arg(long, default_value_t = 5)]
    pub(crate) turns: usize,
    /// Keys of the map
    #[arg(long, default_value_t = 100_000)]
    pub(crate) keys: u32,
    /// Keys that are changed on one side
    #[arg(long, default_value_t = 1_000)]
    pub(crate) changes: u32,
    /// Seed of keys and values
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Only the cases of these names
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Part::ALL)]
    pub(crate) only: Vec<Part>,
}

/// A group of cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    Differences,
    Space,
    Growth,
    InSync,
    Unknown,
    Joins,
    SlowLink,
    Hostile,
    RandomKeys,
    Million,
}

impl Part {
    const ALL: [Self; 10] = [
        Self::Differences,
        Self::Space,
        Self::Growth,
        Self::InSync,
        Self::Unknown,
        Self::Joins,
        Self::SlowLink,
        Self::Hostile,
        Self::RandomKeys,
        Self::Million,
    ];

    fn measure(self, work: &Work<'_>) -> Result<Vec<Case>> {
        match self {
            Self::Differences => differences::measure(work),
            Self::Space => space::measure(work),
            Self::Growth => growth::measure(work),
            Self::InSync => in_sync::measure(work),
            Self::Unknown => unknown::measure(work),
            Self::Joins => joins::measure(work),
            Self::SlowLink => slow_link::measure(work),
            Self::Hostile => hostile::measure(work),
            Self::RandomKeys => random_keys::measure(work),
            Self::Million => random_keys::measure_million(work),
        }
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use clap::ValueEnum as _;
        let name = self.to_possible_value();
        f.write_str(name.as_ref().map_or("", |name| name.get_name()))
    }
}

/// The parameters of every case.
struct Work<'a> {
    options: &'a Options,
    progress: ProgressBar,
}

impl Work<'_> {
    /// Systems take turns: `measure` is called with the number of the turn and of the system, each turn
    /// beginning with another one.
    fn turns(
        &self,
        what: &str,
        systems: usize,
        mut measure: impl FnMut(usize, usize) -> Result<()>,
    ) -> Result<()> {
        for turn in 0..self.options.turns {
            for place in 0..systems {
                let system = (place + turn) % systems;
                self.progress.set_message(format!("{what}: turn {}, system {}", turn + 1, system + 1));
                measure(turn, system)?;
            }
        }
        Ok(())
    }

    /// `key-000000` and so on in order, each with a random value.
    fn fill(&self) -> Vec<Pair> {
        let mut random = Random::new(self.options.seed);
        (0..self.options.keys).map(|key| pair(key, &mut random)).collect()
    }

    /// New values for `count` keys that differ, in random order. Equal for equal turns.
    fn changes(&self, turn: usize, count: u32) -> Vec<Pair> {
        let mut random = Random::new(self.options.seed + 1_000 + turn as u64);
        let mut keys: Vec<u32> = (0..self.options.keys).collect();
        let count = count.min(self.options.keys) as usize;
        for place in 0..count {
            let rest = u32::try_from(keys.len() - place).unwrap_or(u32::MAX);
            keys.swap(place, place + random.below(rest) as usize);
        }
        keys.truncate(count);
        keys.into_iter().map(|key| pair(key, &mut random)).collect()
    }
}

fn pair(key: u32, random: &mut Random) -> Pair {
    // Random 32 bits.
    (format!("key-{key:06}"), (random.next() >> 32) as u32)
}

/// The processor time of this thread while `work` runs, in seconds, and its result.
fn processor_time<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let now = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
        Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), nanos)
    };
    let before = now();
    let done = work();
    (done, (now() - before).as_secs_f64())
}

/// log2 of n over k: the bits that identify k of n.
fn choose_bits(n: f64, k: u32) -> f64 {
    (0..k).map(|i| ((n - f64::from(i)) / f64::from(k - i)).log2()).sum()
}

/// Runs the comparison; prints it and writes the rows.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut options = options.clone();
    if options.quick {
        (options.turns, options.keys) = (options.turns.min(3), options.keys.min(10_000));
        options.changes = options.changes.min(options.keys / 100);
    }
    ensure!(options.turns > 0 && options.changes > 0, "turns and changes must be at least 1");
    ensure!(options.changes <= options.keys, "there are fewer keys than changes");
    ensure!(options.keys <= 1_000_000, "a key has six digits");
    let progress = ProgressBar::new(options.only.len() as u64);
    progress.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len}  {elapsed}  {wide_msg}")?);
    progress.enable_steady_tick(Duration::from_millis(500));
    let work = Work { options: &options, progress };
    println!(
        "In one process on this machine; {} keys `key-000000`... with random 32-bit values; medians of {} turns each.\n",
        options.keys, options.turns
    );
    let mut rows = Vec::new();
    for part in &options.only {
        for case in part.measure(&work)? {
            work.progress.suspend(|| println!("{case}"));
            rows.extend(case.rows());
        }
        work.progress.inc(1);
    }
    work.progress.finish_and_clear();
    if let Some(path) = &options.json {
        row::write(path, &rows)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_a_thousand_in_a_hundred_thousand_is_a_byte_each() {
        let bits = choose_bits(100_000.0, 1_000);
        assert!((8_070.0..8_080.0).contains(&bits), "{bits}");
        assert!((choose_bits(2_f64.powi(64), 1) - 64.0).abs() < 1e-9);
    }

    #[test]
    fn processor_time_counts_work() {
        let (sum, seconds) =
            processor_time(|| (0..5_000_000_u64).fold(0, |sum, n| std::hint::black_box(sum ^ n)));
        assert!(sum < 1 << 32 && seconds > 1e-4, "{seconds}");
    }
}
