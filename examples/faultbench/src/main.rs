//! `x0-faultbench`: real clusters under faults of every kind, with checked histories.
#![expect(clippy::print_stdout, reason = "the result is what this program is for")]

mod arena;
mod client;
mod disk;
mod history;
mod layout;
mod program;
mod random;
mod torture;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Runs real clusters under faults of every kind and checks what their clients saw.
///
/// Exit code 0: no violation. 1: a violation, or the run could not go on; standard error says which. 2:
/// invalid command line.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run x0-node processes in network namespaces under random faults, and check every history
    Torture(torture::Options),
    /// One client process of a run
    #[command(hide = true)]
    Client(client::Options),
}

fn main() -> ExitCode {
    match dispatch(Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("x0-faultbench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether there was no violation.
fn dispatch(command: Command) -> Result<bool> {
    match command {
        Command::Torture(options) => torture::run(&options),
        Command::Client(options) => client::run(&options).map(|()| true),
    }
}
