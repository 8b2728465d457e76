//! The server processes of x0-identity, each with one thread for its connections.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use x0_identity::workload_api::{EndpointAddress, Listener, Server, ServerOptions, SharedWorkload, Workload};
use x0_identity::{
    Authority, CaSigner, CaSignerOptions, ISSUANCE_BINDING_LABEL, ISSUANCE_REQUEST_LEN_MAX, Identity,
    IssuanceServer, IssuanceServerInput, IssuanceServerOptions, IssuanceServerOutput, MemoryRegistry,
    RegistrationEntry, SpiffeBundle, peer_spiffe_id,
};

use super::{DAY, id, streams};

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// Issues SVIDs over mutual TLS
    Issue,
    /// Answers each connection over mutual TLS with a page
    Page,
    /// The Workload API; each connection to the port rotates the SVID
    Workload,
}

impl Mode {
    pub(super) fn name(self) -> &'static str {
        match self {
            Mode::Issue => "issue",
            Mode::Page => "page",
            Mode::Workload => "workload",
        }
    }
}

/// A server process.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    #[arg(long)]
    mode: Mode,
    #[arg(long)]
    folder: PathBuf,
    #[arg(long)]
    port: u16,
}

/// Serves until it is killed.
pub(crate) fn run(options: &Options) -> Result<()> {
    let pem = std::fs::read(options.folder.join("authority.pem"))?;
    let authority = Authority::from_pem(&pem)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port))?;
    match options.mode {
        Mode::Issue => issue(&authority, &listener),
        Mode::Page => page(&authority, &listener),
        Mode::Workload => {
            workload(&authority, &listener, options.folder.join(streams::socket_name(options.mode.name())))
        }
    }
}

fn identity(authority: &Authority) -> Result<Identity> {
    Ok(Identity::new(authority.issue(&id("server")?, DAY)?, authority.bundle())?)
}

/// Calls `answer` for each connection. A connection that fails is the client's affair, such as the first one,
/// which only looks whether the server listens.
fn each_connection(
    listener: &TcpListener,
    config: &Arc<ServerConfig>,
    mut answer: impl FnMut(&mut StreamOwned<ServerConnection, TcpStream>) -> Result<()>,
) -> Result<()> {
    for stream in listener.incoming() {
        let stream = stream?;
        stream.set_nodelay(true)?;
        let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(config))?, stream);
        if answer(&mut stream).is_ok() {
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    }
    Ok(())
}

fn page(authority: &Authority, listener: &TcpListener) -> Result<()> {
    let identity = identity(authority)?;
    each_connection(listener, &identity.server_config(), |stream| {
        let mut request = [0; 1024];
        let len = stream.read(&mut request)?;
        if !request[..len].ends_with(b"\r\n\r\n") {
            bail!("a request in pieces");
        }
        stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")?;
        Ok(())
    })
}

fn issue(authority: &Authority, listener: &TcpListener) -> Result<()> {
    let identity = identity(authority)?;
    // The key is of this process.
    let signing = CaSignerOptions::default().check_every_signature(false);
    let signer = CaSigner::new(authority.certificate().clone(), Vec::new(), signing)?;
    let mut registry = MemoryRegistry::new();
    registry.insert(RegistrationEntry::new(id("web")?, DAY));
    let options = IssuanceServerOptions::default();
    let mut engine = IssuanceServer::new(signer, registry, authority.bundle(), options);
    let begun = Instant::now();
    let mut number = 0;
    each_connection(listener, &identity.issuance_server_config()?, |stream| {
        let mut bytes = read_message(stream)?;
        let peer = match stream.conn.peer_certificates() {
            Some(chain) => Some(peer_spiffe_id(chain)?),
            None => None,
        };
        let binding = stream.conn.export_keying_material([0; 32], ISSUANCE_BINDING_LABEL, None)?;
        loop {
            let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
            number += 1;
            let input = IssuanceServerInput::Request { id: number, peer: peer.clone(), binding, bytes, wall };
            engine.handle(begun.elapsed(), input)?;
            while let Some(output) = engine.poll_output() {
                match output {
                    IssuanceServerOutput::Sign { id, to_be_signed } => {
                        let signature = Some(authority.sign(&to_be_signed)?);
                        engine.handle(begun.elapsed(), IssuanceServerInput::Signed { id, signature })?;
                    }
                    IssuanceServerOutput::Answer { bytes, .. } => write_message(stream, &bytes)?,
                    other => bail!("no attestor for {other:?}"),
                }
            }
            // The client has no further request when it closes the connection.
            match read_message(stream) {
                Ok(next) => bytes = next,
                Err(_) => return Ok(()),
            }
        }
    })
}

pub(super) fn read_message(stream: &mut impl Read) -> Result<Vec<u8>> {
    let mut len = [0; 4];
    stream.read_exact(&mut len)?;
    let len = usize::try_from(u32::from_be_bytes(len))?;
    if len > ISSUANCE_REQUEST_LEN_MAX {
        bail!("a message of {len} bytes");
    }
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

pub(super) fn write_message(stream: &mut impl Write, bytes: &[u8]) -> Result<()> {
    let len = u32::try_from(bytes.len())?.to_be_bytes();
    stream.write_all(&[&len[..], bytes].concat())?;
    stream.flush()?;
    Ok(())
}

fn workload(authority: &Authority, listener: &TcpListener, socket: PathBuf) -> Result<()> {
    let current = || -> Result<Workload> {
        let svid = authority.issue(&id("web")?, DAY)?;
        Ok(Workload::new(SpiffeBundle::new(authority.bundle())).with_svid(svid, "")?)
    };
    let callers = SharedWorkload::new();
    callers.set(Some(current()?));
    let address = EndpointAddress::Unix(socket);
    let options = ServerOptions::default();
    let server = Server::start(Listener::bind(&address)?, Arc::new(callers.clone()), options)?;
    // The first connection looks whether the server listens.
    for (number, stream) in listener.incoming().enumerate() {
        let mut stream = stream.context("the control connection failed")?;
        if number > 0 {
            callers.set(Some(current()?));
            server.refresh();
            stream.write_all(&[0])?;
        }
    }
    std::thread::sleep(Duration::MAX);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_as_they_were_written_and_bounded() {
        let mut bytes = Vec::new();
        write_message(&mut bytes, b"one").unwrap();
        write_message(&mut bytes, b"").unwrap();
        let mut reader = &bytes[..];
        assert_eq!(read_message(&mut reader).unwrap(), b"one");
        assert_eq!(read_message(&mut reader).unwrap(), b"");
        read_message(&mut reader).unwrap_err();
        let too_long = u32::try_from(ISSUANCE_REQUEST_LEN_MAX + 1).unwrap().to_be_bytes();
        assert!(read_message(&mut &too_long[..]).unwrap_err().to_string().contains("a message of"));
    }
}
