//! `x0-node verify`: verifies the data folder of a stopped node.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use x0_kv::verify::{FolderPart, FolderProgress, FolderReport, PartReport, verify_folder};

use crate::cli::VerifyArgs;
use crate::config::NodeConfig;

/// A part of the folder in the JSON output.
#[derive(Debug, Serialize)]
struct Row<'a> {
    part: &'static str,
    path: String,
    entries: u64,
    bytes: u64,
    is_intact: bool,
    damage: &'a [String],
}

/// Verifies the folder and prints what was found. An error if anything is damaged.
pub(crate) fn verify(args: &VerifyArgs) -> Result<()> {
    let folder = folder(args)?;
    let mut shown = Shown::new();
    let report = verify_folder(&folder, |progress| shown.update(progress))?;
    shown.end();
    let text = if args.json { json(&report)? } else { table(&report) };
    std::io::stdout().lock().write_all(text.as_bytes()).context("cannot write to standard output")?;
    if report.is_intact() {
        return Ok(());
    }
    let damage: Vec<&str> = report.parts.iter().flat_map(|part| &part.damage).map(String::as_str).collect();
    bail!(
        "{} is damaged: {}; replace this member, or restore its folder as the message of the file says",
        folder.display(),
        damage.join("; ")
    );
}

fn folder(args: &VerifyArgs) -> Result<PathBuf> {
    match (&args.data, &args.config) {
        (Some(folder), _) => Ok(folder.clone()),
        (None, Some(config)) => Ok(NodeConfig::load(config)?.data_dir),
        // The command line requires one of them.
        (None, None) => bail!("name the data folder with --data, or the node's configuration with --config"),
    }
}

fn row(part: &PartReport) -> Row<'_> {
    Row {
        part: part.part.name(),
        path: part.path.display().to_string(),
        entries: part.entries,
        bytes: part.bytes,
        is_intact: part.damage.is_empty(),
        damage: &part.damage,
    }
}

fn json(report: &FolderReport) -> Result<String> {
    let rows: Vec<Row<'_>> = report.parts.iter().map(row).collect();
    Ok(format!("{}\n", serde_json::to_string(&rows)?))
}

fn table(report: &FolderReport) -> String {
    let mut text = format!("{:<9}  {:>10}  {:>12}  {:<8}  path\n", "part", "entries", "bytes", "state");
    for part in report.parts.iter().map(row) {
        let state = if part.is_intact { "intact" } else { "DAMAGED" };
        let Row { part, path, entries, bytes, damage, .. } = part;
        text.push_str(&format!("{part:<9}  {entries:>10}  {bytes:>12}  {state:<8}  {path}\n"));
        for damage in damage {
            text.push_str(&format!("    {damage}\n"));
        }
    }
    text
}

/// The progress on standard error, if that is a terminal.
struct Shown {
    bar: ProgressBar,
    part: Option<FolderPart>,
}

impl Shown {
    fn new() -> Shown {
        let target = match std::io::stderr().is_terminal() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) =
            ProgressStyle::with_template("{msg:<9} {bar:40} {bytes}/{total_bytes} {bytes_per_sec}")
        {
            bar.set_style(style);
        }
        Shown { bar, part: None }
    }

    fn update(&mut self, progress: FolderProgress) {
        if self.part.replace(progress.part) != Some(progress.part) {
            self.bar.reset();
            self.bar.set_message(progress.part.name());
            self.bar.set_length(progress.bytes_total);
        }
        self.bar.set_position(progress.bytes.min(progress.bytes_total));
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}
