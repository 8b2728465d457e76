//! The server of the same messages with tonic: a program of its own, in a workspace of its own, so that tonic
//! stays out of what is shipped. cargo builds it when it is first needed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use prost::Message;

use super::message::SvidResponse;
use super::socket_name;
use crate::area::identity::load::{Kit, Running};
use crate::area::identity::{DAY, id};
use crate::peer::debian;

pub(super) const NAME: &str = "tonic";
const PROGRAM: &str = "x0-foreign-server";
const FILE: &str = "message";

/// The program: the one in `X0_TONIC`, or one that is built now.
fn program() -> Result<PathBuf> {
    if let Some(program) = std::env::var_os("X0_TONIC") {
        return Ok(program.into());
    }
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../x0-identity/tests/foreign/Cargo.toml");
    let target = debian::cache().join("tonic");
    let mut command = Command::new("cargo");
    command.args(["build", "--release", "--quiet", "--locked", "--bin", PROGRAM, "--manifest-path"]);
    let status = command.arg(manifest).env("CARGO_TARGET_DIR", &target).status();
    if !status.context("cannot run cargo, which builds the server with tonic")?.success() {
        bail!("the server with tonic was not built: build it, and name it in X0_TONIC");
    }
    Ok(target.join("release").join(PROGRAM))
}

/// Writes a message with a new SVID, which the server sends after the next connection to its port.
pub(super) fn write_message(kit: &Kit) -> Result<()> {
    let svid = kit.authority.issue(&id("web")?, DAY)?;
    let message = SvidResponse::of(&svid, &kit.authority)?.encode_to_vec();
    let folder = kit.folder.path();
    let new = folder.join("message.new");
    std::fs::write(&new, message)?;
    Ok(std::fs::rename(new, folder.join(FILE))?)
}

/// Starts the server.
pub(super) fn start(kit: &Kit) -> Result<Running> {
    write_message(kit)?;
    let (program, folder) = (program()?, kit.folder.path());
    Running::start(NAME, &program, folder, |port| {
        let socket = folder.join(socket_name(NAME));
        vec![socket.display().to_string(), FILE.to_owned(), port.to_string()]
    })
}
