//! Connections over mutual TLS 1.3, beside nginx. The client is the same.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::load::{Kit, Running, get};
use super::worker::Mode;
use super::{CPU, DAY, Options, id, in_turns};
use crate::case::Case;
use crate::peer::debian;
use crate::process::find_program;

/// The most that a connection may take, as a multiple of nginx's in the same turn.
const MOST: f64 = 0.5;
const ROOT: &str = "nginx-bookworm";

/// nginx on PATH, or the one that was fetched.
pub(super) fn present() -> Option<PathBuf> {
    find_program("nginx")
        .or_else(|| Some(debian::root(ROOT).join("usr/sbin/nginx")).filter(|path| path.is_file()))
}

fn program() -> Result<PathBuf> {
    match present() {
        Some(program) => Ok(program),
        None => Ok(debian::fetch(ROOT, &["nginx"])?.join("usr/sbin/nginx")),
    }
}

fn nginx(kit: &Kit) -> Result<Running> {
    let folder = kit.folder.path();
    let svid = kit.authority.issue(&id("server")?, DAY)?;
    // The chain and the key in one file, which nginx reads as both.
    std::fs::write(folder.join("svid.pem"), svid.to_pem())?;
    std::fs::write(folder.join("bundle.pem"), kit.authority.bundle().to_pem())?;
    Running::start("nginx", &program()?, folder, |port| {
        let at = folder.display();
        let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|path| format!("{path}_temp_path {at}/{path};"))
            .concat();
        let text = format!(
            "daemon off; master_process off; pid {at}/nginx.pid; error_log stderr;\n\
             events {{ worker_connections 256; }}\n\
             http {{ access_log off; {paths}\n\
             server {{ listen 127.0.0.1:{port} ssl; ssl_protocols TLSv1.3; ssl_session_tickets off; ssl_session_cache off;\n\
             ssl_certificate {at}/svid.pem; ssl_certificate_key {at}/svid.pem;\n\
             ssl_client_certificate {at}/bundle.pem; ssl_verify_client on; location / {{ return 204; }} }} }}\n"
        );
        // nginx reports a configuration that it cannot read.
        let _ = std::fs::write(folder.join("nginx.conf"), text);
        ["-e", "stderr", "-p", &at.to_string(), "-c", &format!("{at}/nginx.conf")].map(str::to_owned).to_vec()
    })
}

pub(super) fn run(options: &Options) -> Result<Case> {
    let kit = Kit::new()?;
    let count = options.count(2_000);
    let how = format!(
        "{count} connections over mutual TLS 1.3 (ECDSA P-256) with one request in each turn, one at a time."
    );
    let systems = ["x0-identity with rustls", "nginx (Debian)"].map(str::to_owned).to_vec();
    let mut case = Case::new("identity", "a connection over mutual TLS", how, systems);
    let client = kit.identity("client")?.client_config();
    let mut own = kit.worker(Mode::Page)?;
    let mut peer = match nginx(&kit).context("nginx does not run") {
        Ok(peer) => Some(peer),
        Err(error) => {
            case.miss(1, format!("{error:#}"));
            None
        }
    };
    in_turns(
        &mut case,
        CPU,
        options.turns,
        &mut [&mut || own.cpu_of_each(count, |port| get(&client, port)), &mut || {
            peer.as_mut().context("no nginx")?.cpu_of_each(count, |port| get(&client, port))
        }],
    )?;
    let ratio = case.paired_ratio(CPU, 0, 1);
    case.aim("processor time of the server beside nginx in the same turn", ratio, MOST, "x");
    Ok(case)
}
