//! `x0-node heal`: what the healer of a node on this machine decided, and why.

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::{Context, Result, bail};
use x0_mapek::Record;
use x0_mapek::record::GuardVerdict;

use super::{line, records};
use crate::cli::{HealArgs, HealCommand};
use crate::config::NodeConfig;

pub(crate) fn heal(args: &HealArgs) -> Result<()> {
    let path =
        args.config.as_ref().context("--config FILE is missing: name the configuration of the node")?;
    let folder = NodeConfig::load(path)?.data_dir.join("heal");
    let records = records::read(&folder)
        .with_context(|| format!("cannot read the records of the healer in {}", folder.display()))?;
    let text = match args.command {
        HealCommand::Log if args.json => records.iter().map(|record| record.to_json() + "\n").collect(),
        HealCommand::Log => records.iter().map(|record| line(record) + "\n").collect(),
        HealCommand::Why { number } => {
            let Some(record) = records.iter().rev().find(|record| record.number == number) else {
                bail!(
                    "{} has no record {number}: `x0-node heal log --config {}` lists the records that are kept",
                    folder.display(),
                    path.display()
                );
            };
            if args.json { record.to_json() + "\n" } else { why(record) }
        }
    };
    std::io::stdout().lock().write_all(text.as_bytes()).context("cannot write to standard output")
}

/// All that a record says, with the guards, and whether its numbers follow from each other.
pub(super) fn why(record: &Record) -> String {
    let mut text = record.explain() + "\n";
    let guards = record.guards();
    if !guards.is_empty() {
        let names = |verdict| {
            let names: Vec<_> =
                guards.iter().filter(|(_, of)| *of == verdict).map(|(name, _)| *name).collect();
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        };
        let _ = writeln!(
            text,
            "  guards passed: {}; refused: {}; not asked: {}",
            names(GuardVerdict::Passed),
            names(GuardVerdict::Refused),
            names(GuardVerdict::NotAsked)
        );
    }
    match record.recompute() {
        Ok(()) => text.push_str("  all numbers follow from the record\n"),
        Err(mismatch) => {
            let _ = writeln!(text, "  {mismatch}");
        }
    }
    text
}
