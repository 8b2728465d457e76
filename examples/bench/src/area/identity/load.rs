//! What the parts with servers share: a folder with the keys, server processes, and clients.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use tempfile::TempDir;
use x0_identity::{Authority, Identity};

use super::worker::Mode;
use super::{DAY, authority, id};
use crate::process::{Server, free_ports};
use crate::procfs;

const START_MAX: Duration = Duration::from_secs(20);

/// The authority of a part, and a folder that its servers read: `authority.pem`.
pub(super) struct Kit {
    pub(super) authority: Authority,
    pub(super) folder: TempDir,
}

impl Kit {
    pub(super) fn new() -> Result<Kit> {
        let (authority, folder) = (authority()?, tempfile::tempdir()?);
        std::fs::write(folder.path().join("authority.pem"), authority.to_pem())?;
        Ok(Kit { authority, folder })
    }

    pub(super) fn identity(&self, name: &str) -> Result<Identity> {
        Ok(Identity::new(self.authority.issue(&id(name)?, DAY)?, self.authority.bundle())?)
    }

    /// Starts a server of x0-identity in a process of its own.
    pub(super) fn worker(&self, mode: Mode) -> Result<Running> {
        let own = std::env::current_exe()?;
        Running::start(mode.name(), &own, self.folder.path(), |port| {
            let folder = self.folder.path().display().to_string();
            let port = port.to_string();
            ["identity-worker", "--mode", mode.name(), "--folder", &folder, "--port", &port]
                .map(str::to_owned)
                .to_vec()
        })
    }
}

/// A server that answers on a port of the loopback address.
pub(super) struct Running {
    server: Server,
    pub(super) port: u16,
}

impl Running {
    pub(super) fn start(
        name: &str,
        program: &Path,
        folder: &Path,
        arguments: impl FnOnce(u16) -> Vec<String>,
    ) -> Result<Running> {
        let port = free_ports(1)?[0];
        let server = Server::start(name, program, folder, |command| {
            command.args(arguments(port)).current_dir(folder);
        })?;
        let mut running = Running { server, port };
        let begun = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            running.server.check()?;
            if begun.elapsed() > START_MAX {
                bail!("{name} does not listen after {START_MAX:?}: {}", running.server.log_end());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(running)
    }

    pub(super) fn cpu(&self) -> Result<Duration> {
        procfs::cpu(&[self.server.pid()])
    }

    pub(super) fn resident(&self) -> Result<u64> {
        procfs::resident(&[self.server.pid()])
    }

    /// The processor time of the server for each repetition, in microseconds.
    pub(super) fn cpu_of_each(
        &mut self,
        count: u32,
        mut repeat: impl FnMut(u16) -> Result<()>,
    ) -> Result<f64> {
        self.cpu_of_all(count, |port| (0..count).try_for_each(|_| repeat(port)))
    }

    /// The same of a load that makes all repetitions itself.
    pub(super) fn cpu_of_all(&mut self, count: u32, load: impl FnOnce(u16) -> Result<()>) -> Result<f64> {
        let before = self.cpu()?;
        if let Err(error) = load(self.port) {
            self.server.check()?;
            return Err(error.context(self.server.log_end()));
        }
        Ok((self.cpu()? - before).as_secs_f64() * 1e6 / f64::from(count))
    }
}

/// A new TLS connection, before its handshake.
pub(super) fn dial(
    config: &Arc<ClientConfig>,
    port: u16,
) -> Result<StreamOwned<ClientConnection, TcpStream>> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    let name = ServerName::from(std::net::IpAddr::from(Ipv4Addr::LOCALHOST));
    Ok(StreamOwned::new(ClientConnection::new(Arc::clone(config), name)?, stream))
}

/// Asks for a page over a new connection, and reads the answer to its end.
pub(super) fn get(config: &Arc<ClientConfig>, port: u16) -> Result<()> {
    let mut stream = dial(config, port)?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).context("the answer was cut short")?;
    if !answer.starts_with(b"HTTP/1.1 204 ") {
        bail!("unexpected answer: {}", String::from_utf8_lossy(&answer));
    }
    Ok(())
}
