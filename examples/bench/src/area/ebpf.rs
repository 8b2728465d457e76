//! x0-ebpf's programs in the kernel, by test runs: beside an empty program, xdp-filter, the kernel's prefix
//! trie and aya's iterator.
//!
//! The kernel measures the times (`BPF_PROG_TEST_RUN`), which therefore exclude system calls.
//! Systems take turns.

mod look_ups;
mod packet;
mod programs;
mod snapshot;
pub(crate) mod xdp_filter;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use x0_ebpf::{LinkOptions, LinkProgram};

use crate::case::Case;
use crate::row;

/// The programs of x0-ebpf in the kernel.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Write the rows as a JSON array to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Turns of each program in each case
    #[arg(long, default_value_t = 9)]
    pub(crate) turns: usize,
    /// Runs of a program in each turn
    #[arg(long, default_value_t = 500_000)]
    pub(crate) runs: u32,
    /// Seed of the prefixes and addresses
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

/// Measures, prints tables and writes the rows.
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(options.turns >= 5, "--turns must be at least 5 for a meaningful median");
    let probe = LinkProgram::load(LinkOptions::default());
    drop(probe.context("cannot load the eBPF programs of x0-ebpf, without which nothing can be measured")?);
    println!(
        "By test runs in this kernel; medians of {} turns, of {} runs each for packets.\n",
        options.turns, options.runs
    );
    let mut rows = Vec::new();
    for measure in [programs::measure, look_ups::measure, snapshot::measure] {
        for case in measure(options)? {
            println!("{case}");
            rows.extend(Case::rows(&case));
        }
    }
    if let Some(path) = &options.json {
        row::write(path, &rows)?;
    }
    Ok(())
}
