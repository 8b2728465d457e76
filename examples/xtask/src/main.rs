//! The maintainer's checks of this workspace: `cargo xtask --help`.
//!
//! Each command works on the checkout that it was built from and needs nothing but Rust.

mod api;
mod comments;
mod diagram;
mod musts;
mod record;
mod sbom;
mod unused;
mod workspace;

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use self::workspace::Workspace;

/// The maintainer's checks of the x0 workspace.
///
/// Exit code 0: the check passed or the files were written. 1: standard error names each finding and the
/// remedy.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write the public API of each library crate to its `public-api.txt`
    Api {
        /// Compare with the committed files instead of writing them
        #[arg(long)]
        check: bool,
    },
    /// Find dependencies that no source file mentions, and entries of the workspace table that no crate uses
    Unused,
    /// Write a CycloneDX bill of materials of the library crates and the reference node
    Sbom {
        /// The file to write
        #[arg(long, default_value = "target/sbom/x0.cdx.json")]
        out: std::path::PathBuf,
    },
    /// Find comment lines that are longer than `max_width` of rustfmt.toml
    Comments {
        /// Wrap the paragraphs that hold such lines
        #[arg(long)]
        fix: bool,
        /// Only files whose path begins with one of these
        paths: Vec<String>,
    },
    /// Gather the rules of the SPIFFE specifications and their tests into `x0-identity/MUSTS.md`
    Musts {
        /// Compare with the committed file instead of writing it
        #[arg(long)]
        check: bool,
    },
    /// Draw the library crates and their dependencies as SVG
    Diagram {
        /// The file to write
        #[arg(long, default_value = ".github/pictures/crates.svg")]
        out: String,
    },
    /// Run a command and draw its output as an animated terminal (SVG)
    Record {
        /// The file to write
        #[arg(long, default_value = ".github/pictures/demo.svg")]
        out: String,
        /// The command line to show above the output
        #[arg(long)]
        title: String,
        /// The command to run
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

fn main() -> ExitCode {
    match api::as_rustdoc() {
        Some(Ok(true)) => return ExitCode::SUCCESS,
        Some(Ok(false)) => return ExitCode::FAILURE,
        Some(Err(error)) => {
            say(&format!("xtask: {error:#}"));
            return ExitCode::FAILURE;
        }
        None => {}
    }
    match run(Cli::parse().command) {
        Ok(findings) if findings.is_empty() => ExitCode::SUCCESS,
        Ok(findings) => {
            say(&findings.join("\n"));
            ExitCode::FAILURE
        }
        Err(error) => {
            say(&format!("xtask: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<Vec<String>> {
    let workspace = Workspace::find()?;
    match command {
        Command::Api { check } => api::run(&workspace, check),
        Command::Unused => unused::run(&workspace),
        Command::Sbom { out } => sbom::run(&workspace, &out),
        Command::Comments { fix, paths } => comments::run(&workspace, fix, &paths),
        Command::Musts { check } => musts::run(&workspace, check),
        Command::Diagram { out } => diagram::run(&workspace, &out),
        Command::Record { out, title, command } => record::run(&workspace, &out, &title, &command),
    }
}

/// Writes a line to standard error. A closed standard error is no reason to fail.
fn say(text: &str) {
    let _ = std::io::stderr().lock().write_all(format!("{text}\n").as_bytes());
}
