//! A client of the cluster, from the files that `x0-node init` wrote.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;
use x0_identity::{Identity, NodeId, TrustBundle, TrustDomain, X509Svid};
use x0_kv::{Client, ClientOptions};
use x0_mesh::quic::{QuicOptions, QuicTransport};
use x0_mesh::{Mux, MuxOptions};

/// The fields of `client.toml` that a client of this program needs.
#[derive(Debug, Deserialize)]
struct Config {
    trust_domain: String,
    svid: PathBuf,
    bundle: PathBuf,
    members: Vec<Member>,
}

#[derive(Debug, Deserialize)]
struct Member {
    node: String,
    address: SocketAddr,
}

/// A client of all members, or of one of them. Any number of processes share its identity.
pub(crate) fn connect(config_path: &Path, member: Option<u64>, timeout: Duration) -> Result<Client> {
    let folder = config_path.parent().context("the configuration has no folder")?;
    let text = String::from_utf8(read(config_path)?).context("the configuration is not text")?;
    let config: Config =
        toml::from_str(&text).with_context(|| format!("cannot parse {}", config_path.display()))?;
    let trust_domain: TrustDomain = config.trust_domain.parse()?;
    let svid = X509Svid::from_pem(&read(&folder.join(&config.svid))?)?;
    let bundle = TrustBundle::from_pem(trust_domain, &read(&folder.join(&config.bundle))?)?;
    let identity = Identity::new(svid, bundle)?;
    let mut members = Vec::new();
    for Member { node, address } in &config.members {
        let node: NodeId = node.parse()?;
        if member.is_none_or(|member| member == node.get()) {
            members.push((node, *address));
        }
    }
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let mut quic = QuicOptions::guest(any, identity.server_config(), identity.client_config());
    let local = quic.local;
    quic.peers.clone_from(&members);
    let transport = QuicTransport::bind(quic).context("cannot open a socket")?;
    let mut options = ClientOptions::new(local, members.iter().map(|(node, _)| *node));
    options.coordinator.call_timeout = timeout;
    Ok(Client::connect(options, &Mux::new(transport, MuxOptions::default()))?)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
