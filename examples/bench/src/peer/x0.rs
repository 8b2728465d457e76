//! Three x0 nodes, each a process of `x0-node run` with the files of `x0-node init`.

use std::io::Write;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{Cluster, SERVERS};
use crate::load::Target;
use crate::process::{Server, find_program, free_ports};

const TRUST_DOMAIN: &str = "x0-bench.test";
/// Attempts to find consecutive ports.
const PORT_ATTEMPTS: usize = 100;

/// The node's program: named by `X0_NODE`, beside this one, or on PATH.
pub(crate) fn present() -> Option<PathBuf> {
    let named = std::env::var_os("X0_NODE").map(PathBuf::from);
    let beside = || Some(std::env::current_exe().ok()?.with_file_name("x0-node"));
    named.or_else(|| beside().filter(|path| path.is_file())).or_else(|| find_program("x0-node"))
}

/// As `present`; under `cargo run` it is built first, so that the current sources are measured.
fn program() -> Result<PathBuf> {
    if let Some(cargo) = std::env::var_os("CARGO").filter(|_| std::env::var_os("X0_NODE").is_none()) {
        build(Path::new(&cargo)).context("cannot build x0-node")?;
    }
    present().context("there is no x0-node; run `cargo build --release -p x0-node`, or name it in X0_NODE")
}

/// Builds x0-node into the folder that this program is in.
fn build(cargo: &Path) -> Result<()> {
    let own = std::env::current_exe()?;
    let folder = own.parent().context("this program is in no folder")?;
    let target = folder.parent().context("this program is in no target folder")?;
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let mut command = Command::new(cargo);
    command
        .args(["build", "--quiet", "--package", "x0-node", "--profile", profile, "--target-dir"])
        .arg(target);
    run(command.current_dir(env!("CARGO_MANIFEST_DIR"))).map(drop)
}

/// The outputs for operators.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Outputs {
    /// A listener that serves `/metrics` and the probes.
    pub(crate) metrics: bool,
    /// JSON lines instead of text.
    pub(crate) json_logs: bool,
    /// The port of a receiver of traces on the loopback, and the share of the operations that are traced.
    pub(crate) traces: Option<(u16, f64)>,
    /// The mode of the healer, as `[heal]` has it; the default of the node without it.
    pub(crate) heal: Option<&'static str>,
}

/// Starts three nodes with the files of `x0-node init`: storage engine redb, mutual TLS 1.3 on every
/// connection.
pub(crate) fn start(data: &Path) -> Result<Cluster> {
    start_with(data, Outputs::default()).map(|(cluster, _)| cluster)
}

/// As `start`, with these outputs. Returns the ports that serve the metrics.
pub(crate) fn start_with(data: &Path, outputs: Outputs) -> Result<(Cluster, Vec<u16>)> {
    let program = program()?;
    let folder = tempfile::Builder::new().prefix("x0-").tempdir_in(data)?;
    let root = folder.path().join("cluster");
    let base = ports_in_a_row()?;
    let nodes = SERVERS.to_string();
    run(Command::new(&program)
        .args([
            "init",
            "--trust-domain",
            TRUST_DOMAIN,
            "--nodes",
            &nodes,
            "--base-port",
            &base.to_string(),
            "--dir",
        ])
        .arg(&root))?;
    for n in 1..=SERVERS {
        let path = root.join(format!("node-{n}/node.toml"));
        let mut file = std::fs::OpenOptions::new().append(true).open(&path)?;
        if let Some((port, ratio)) = outputs.traces {
            writeln!(file, "\n[observe]\ntraces = \"http://127.0.0.1:{port}\"\ntrace_ratio = {ratio}")?;
        }
        if let Some(mode) = outputs.heal {
            writeln!(file, "\n[heal]\nmode = \"{mode}\"")?;
        }
    }
    let metrics = if outputs.metrics { free_ports(SERVERS)? } else { Vec::new() };
    for (n, port) in (1..).zip(&metrics) {
        let path = root.join(format!("node-{n}/node.toml"));
        let mut file = std::fs::OpenOptions::new().append(true).open(&path)?;
        let routes = "routes = [\"metrics\", \"health\"]\ntls = \"off\"";
        writeln!(file, "\n[[http]]\naddress = \"127.0.0.1:{port}\"\n{routes}")?;
    }
    let servers = (1..=SERVERS).map(|n| {
        Server::start(&format!("x0-n{n}"), &program, folder.path(), |command| {
            command.arg("run").arg("--config").arg(root.join(format!("node-{n}/node.toml")));
            if outputs.json_logs {
                command.args(["--log", "json"]);
            }
        })
    });
    let servers = servers.collect::<Result<Vec<_>>>()?;
    let target = Target::X0 {
        endpoints: (base..).take(SERVERS).collect(),
        trust_domain: TRUST_DOMAIN.to_owned(),
        client: root.join("client"),
    };
    Ok((Cluster { name: "x0-kv".to_owned(), servers, target, _folder: folder }, metrics))
}

/// No servers: the load generator opens the store itself.
pub(crate) fn embedded(data: &Path) -> Result<Cluster> {
    let folder = tempfile::Builder::new().prefix("x0-embedded-").tempdir_in(data)?;
    let target = Target::Embedded { folder: folder.path().join("store") };
    Ok(Cluster { name: "x0-kv embedded".to_owned(), servers: Vec::new(), target, _folder: folder })
}

/// The output of the command; an error with its error output.
fn run(command: &mut Command) -> Result<String> {
    let output =
        command.output().with_context(|| format!("cannot start {}", command.get_program().display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} failed: {}", command.get_program().display(), said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The first of as many consecutive free ports as there are servers, as `x0-node init` assigns them.
fn ports_in_a_row() -> Result<u16> {
    for _ in 0..PORT_ATTEMPTS {
        for first in free_ports(1)? {
            let Some(last) = first.checked_add(u16::try_from(SERVERS)?) else { continue };
            if (first..last).all(|port| UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok()) {
                return Ok(first);
            }
        }
    }
    bail!("no {SERVERS} free ports in a row on loopback")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_in_a_row_are_free() {
        let first = ports_in_a_row().unwrap();
        let held: Vec<_> =
            (first..).take(SERVERS).map(|port| UdpSocket::bind((Ipv4Addr::LOCALHOST, port))).collect();
        assert!(held.iter().all(Result::is_ok));
    }
}
