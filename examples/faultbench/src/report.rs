//! `x0-faultbench report`: what a folder of results says, as a table, as rows of x0-bench and as one HTML
//! file.

mod html;
mod rows;
mod summary;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use self::summary::Summary;
use crate::trial::Outcome;

/// The results to report, and the forms of the report.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// The folder that `run --out` has filled
    folder: PathBuf,
    /// Write the HTML file here; without it to `report.html` in the folder
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write rows as those of x0-bench, as JSON, to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Writes the report, and prints the table.
pub(crate) fn run(options: &Options) -> Result<()> {
    let outcomes = Outcome::read_all(&options.folder)?;
    if outcomes.is_empty() {
        bail!("{} has no results: fill it with `x0-faultbench run --out`", options.folder.display());
    }
    let summary = Summary::new(&outcomes);
    print!("{}", summary.table());
    let path = options.html.clone().unwrap_or_else(|| options.folder.join("report.html"));
    std::fs::write(&path, html::page(&summary, &outcomes))
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("\n{}", path.display());
    if let Some(path) = &options.json {
        std::fs::write(path, rows::json(&summary)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
