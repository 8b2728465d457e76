//! `x0-faultbench`: real clusters under faults of every kind, with checked histories.
#![expect(clippy::print_stdout, reason = "the result is what this program is for")]

mod arena;
mod client;
mod clock;
mod detect;
mod disk;
mod history;
mod keeper;
mod layout;
mod load;
mod program;
mod random;
mod report;
mod sim;
mod torture;
mod trial;

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
    /// Print the faults and the systems of `run`, and why a system cannot run here
    List,
    /// Inject faults into clusters of several systems in turn, and measure from outside how they heal
    Run(trial::Options),
    /// Write what the results of `run` say: a table, an HTML file, rows as those of x0-bench
    Report(report::Options),
    /// Measure how fast all members of a group know of a dead or hung one, beside Serf
    Detect(detect::Options),
    /// Play the healers of a group in a model world of virtual time: healthy days, and faults
    Sim(sim::Options),
    /// Run x0-node processes in network namespaces under random faults, and check every history
    Torture(torture::Options),
    /// One client process of a run
    #[command(hide = true)]
    Client(client::Options),
    /// The client process of a trial
    #[command(hide = true)]
    Load(load::Options),
    /// The process that keeps a node of the system `static` running
    #[command(hide = true)]
    Keep(keeper::Options),
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
        Command::List => {
            trial::list();
            Ok(true)
        }
        Command::Run(options) => trial::run(&options),
        Command::Report(options) => report::run(&options).map(|()| true),
        Command::Detect(options) => detect::run(&options).map(|()| true),
        Command::Sim(options) => sim::run(&options),
        Command::Torture(options) => torture::run(&options),
        Command::Client(options) => client::run(&options).map(|()| true),
        Command::Load(options) => load::run(&options).map(|()| true),
        Command::Keep(options) => keeper::run(&options).map(|()| true),
    }
}
