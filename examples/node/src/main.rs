//! `x0-node`: the reference node, its command line and the demo.

mod bundles;
mod causes;
mod cli;
mod client;
mod config;
mod control;
mod data;
mod demo;
mod doctor;
mod fatal;
mod federation;
mod follow;
mod heal;
mod http;
mod identity;
mod init;
mod issuer;
mod kv;
mod log;
mod member;
mod mesh;
mod observe;
mod rag;
mod reach;
mod report;
mod reset;
mod resolve;
mod revocations;
mod run;
mod signals;
mod slow_log;
mod status;
mod supervise;
mod verify;

use std::io::Write;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;

use self::cli::{Cli, Command, DataArgs, DataCommand, InitArgs, IssueArgs, ObserveArgs, ObserveCommand};

/// The exit code of `kv get` and `kv cas` if the key has no value or another one than expected.
const EXIT_NOT_AS_EXPECTED: u8 = 3;

/// The time for the message of a failed command.
const LAST_WORDS_LIMIT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let command = Cli::parse().command;
    // A panic must not end in the exit code of a success, or without a message.
    let outcome = catch_unwind(AssertUnwindSafe(|| dispatch(command))).unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().map(String::as_str);
        let message = message.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(anyhow::anyhow!(
            "stopped by an internal error: {message}; acknowledged writes are safe: run the command again, and report this message if \
             the error repeats"
        ))
    });
    match outcome {
        Ok(code) => code,
        Err(error) => {
            // Standard error may be a full pipe.
            log::last_words(&format!("x0-node: {}\n", causes::causes(&error)), LAST_WORDS_LIMIT);
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> Result<ExitCode> {
    match command {
        Command::Demo(args) => {
            let held = runtime()?.block_on(demo::run(args))?;
            Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Init(args) => init(&args).map(|()| ExitCode::SUCCESS),
        Command::Issue(args) => issue(&args).map(|()| ExitCode::SUCCESS),
        Command::Run(args) => runtime()?.block_on(run::run(&args)).map(|()| ExitCode::SUCCESS),
        Command::Supervise(args) => runtime()?.block_on(supervise::supervise(&args)),
        Command::Member(args) => runtime()?.block_on(member::member(args)).map(|()| ExitCode::SUCCESS),
        Command::Leader(args) => runtime()?.block_on(member::leader(args)).map(|()| ExitCode::SUCCESS),
        Command::Data(DataArgs { command: DataCommand::Adopt(args) }) => {
            runtime()?.block_on(data::adopt(&args)).map(|()| ExitCode::SUCCESS)
        }
        Command::Doctor(args) => {
            let is_sound = runtime()?.block_on(doctor::doctor(&args))?;
            Ok(if is_sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Observe(ObserveArgs { command: ObserveCommand::Up(args) }) => {
            runtime()?.block_on(observe::up::up(&args)).map(|()| ExitCode::SUCCESS)
        }
        Command::Issuer(args) => {
            runtime()?.block_on(issuer::commands::issuer(&args)).map(|()| ExitCode::SUCCESS)
        }
        Command::Entry(args) => issuer::commands::entry(&args).map(|()| ExitCode::SUCCESS),
        Command::Revoke(args) => {
            runtime()?.block_on(identity::revoke::revoke(&args)).map(|()| ExitCode::SUCCESS)
        }
        Command::Bundle(args) => {
            runtime()?.block_on(identity::bundle::bundle(&args)).map(|()| ExitCode::SUCCESS)
        }
        Command::Identity(args) => {
            runtime()?.block_on(identity::commands::identity(&args)).map(|()| ExitCode::SUCCESS)
        }
        Command::Status(args) => runtime()?.block_on(status::status(&args)).map(|()| ExitCode::SUCCESS),
        Command::Mesh(args) => runtime()?.block_on(mesh::commands::mesh(args)).map(|()| ExitCode::SUCCESS),
        Command::Rag(args) => {
            let held = runtime()?.block_on(rag::commands::rag(args))?;
            Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Heal(args) => runtime()?.block_on(heal::commands::heal(&args)).map(|()| ExitCode::SUCCESS),
        Command::Verify(args) => verify::verify(&args).map(|()| ExitCode::SUCCESS),
        Command::Kv(args) => {
            let is_as_expected = runtime()?.block_on(kv::kv(args))?;
            Ok(if is_as_expected { ExitCode::SUCCESS } else { ExitCode::from(EXIT_NOT_AS_EXPECTED) })
        }
    }
}

/// One thread runs the event loop; the log, the write-ahead log and checkpoints have threads of their own.
fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")
}

fn init(args: &InitArgs) -> Result<()> {
    let last = u32::from(args.base_port) + args.nodes - 1;
    if last > u32::from(u16::MAX) {
        bail!(
            "the last of {} nodes would have port {last}, above 65535: choose a lower --base-port",
            args.nodes
        );
    }
    let ports = (u32::from(args.base_port)..=last).map(u16::try_from).collect::<Result<Vec<_>, _>>()?;
    let addresses: Vec<_> = ports.into_iter().map(|port| SocketAddr::new(args.host, port)).collect();
    let layout = init::init_with(
        &args.dir,
        &args.trust_domain,
        &addresses,
        args.engine,
        args.validity.validity(),
        args.issuer.as_ref(),
    )?;
    let mut text = String::from("Start each node:\n");
    for number in 1..=addresses.len() {
        text.push_str(&format!("    x0-node run --config {}\n", layout.node_config(number).display()));
    }
    text.push_str(&format!(
        "Then write and read:\n    x0-node kv put greeting hello --config {0}\n    x0-node kv get greeting --config {0}\n\
         Show and change the members:\n    x0-node member list --config {2}\n\
         The key in {1} signs every identity: do not copy it to the nodes.\n",
        layout.client_config().display(),
        args.dir.join("authority").display(),
        layout.operator_config().display(),
    ));
    std::io::stdout().lock().write_all(text.as_bytes()).context("cannot write to standard output")
}

fn issue(args: &IssueArgs) -> Result<()> {
    let node = args.node.map(usize::try_from).transpose()?;
    if let (Some(number), Some(address)) = (node, args.address) {
        let path = init::extend(&args.dir, number, address, args.validity.validity())?;
        let text = format!(
            "Start the new node and add it:\n    x0-node run --config {}\n    x0-node member add {number} --address {address} --config {}\n",
            path.display(),
            init::Layout::new(&args.dir).operator_config().display(),
        );
        return std::io::stdout()
            .lock()
            .write_all(text.as_bytes())
            .context("cannot write to standard output");
    }
    init::issue(&args.dir, node, args.validity.validity())?;
    let text = match node {
        Some(number) => format!(
            "Node {number} has a new identity. Its process uses it as soon as the file is in its folder.\n"
        ),
        None => "The client and the operator have new identities.\n".to_owned(),
    };
    std::io::stdout().lock().write_all(text.as_bytes()).context("cannot write to standard output")
}
