//! A connection to a running cluster with one of the client's identities.

use std::fs::File;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::watch;
use x0_kv::{Client, ClientOptions, Store};
use x0_mesh::quic::{QuicOptions, QuicTransport};
use x0_mesh::{Mux, MuxOptions};

use crate::causes::causes;
use crate::config::{ClientConfig, Member};
use crate::identity;
use crate::reach::{Reach, Watched};

const POLL: Duration = Duration::from_millis(20);
/// The time that a command waits for an unused identity.
const IDENTITY_LIMIT: Duration = Duration::from_secs(30);

/// A client of the cluster.
#[derive(Debug)]
pub(crate) struct Connection {
    client: Client,
    members: Vec<Member>,
    reach: watch::Receiver<Reach>,
    /// Locked while its identity is in use: two processes with one identity would disconnect each other.
    _identity: File,
}

impl Connection {
    /// Opens a socket and starts to connect to the members, without waiting for them.
    pub(crate) async fn open(config: &ClientConfig) -> Result<Connection> {
        let (svid, locked) = free_identity(&config.svids).await?;
        let identity = identity::load(&config.trust_domain, &svid, &config.bundle)?;
        let local = identity.node_id().with_context(|| {
            format!(
                "{} is not the identity of a node; `x0-node issue` writes such identities",
                svid.display()
            )
        })?;
        let is_ipv6 = config.members.iter().any(|member| member.address.is_ipv6());
        let bind: SocketAddr =
            if is_ipv6 { (Ipv6Addr::UNSPECIFIED, 0).into() } else { (Ipv4Addr::UNSPECIFIED, 0).into() };
        let mut quic = QuicOptions::new(local, bind, identity.server_config(), identity.client_config());
        quic.peers = config.members.iter().map(|member| (member.node, member.address)).collect();
        let transport = QuicTransport::bind(quic).context("cannot open a socket")?;
        let mut options = ClientOptions::new(local, config.members.iter().map(|member| member.node));
        options.coordinator.call_timeout = Duration::from_millis(config.timeout_ms);
        let (transport, reach) = Watched::new(transport);
        let client = Client::connect(options, &Mux::new(transport, MuxOptions::default()))?;
        Ok(Connection { client, members: config.members.clone(), reach, _identity: locked })
    }

    pub(crate) fn store(&self) -> &Store {
        self.client.store()
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Returns when every member has refused this client, or this client them, so that waiting longer is
    /// useless.
    pub(crate) async fn refused(&self) -> anyhow::Error {
        let mut reach = self.reach.clone();
        let is_refused_by_all = |reach: &Reach| reach.is_refused_by_all(&self.members);
        if reach.wait_for(is_refused_by_all).await.is_err() {
            // The client has ended; its operations return the reason.
            std::future::pending::<()>().await;
        }
        anyhow::anyhow!(
            "no member and this client accept each other: check `trust_domain`, `svids` and `bundle` of the configuration"
        )
    }

    /// Adds the state of the connections to an error.
    pub(crate) fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let reached = self.client.reached();
        let count = self.members.iter().filter(|member| reached.contains(&member.node)).count();
        if count == self.members.len() {
            return error;
        }
        let why = self.reach.borrow().describe(&self.members);
        anyhow::anyhow!("{}; {count} of {} members are connected{why}", causes(&error), self.members.len())
    }

    pub(crate) async fn close(self) {
        self.client.close().await;
    }
}

/// The first identity that no other process uses.
async fn free_identity(svids: &[PathBuf]) -> Result<(PathBuf, File)> {
    let begun = std::time::Instant::now();
    loop {
        for svid in svids {
            let file = File::open(svid).with_context(|| format!("cannot read {}", svid.display()))?;
            if file.try_lock().is_ok() {
                return Ok((svid.clone(), file));
            }
        }
        if begun.elapsed() > IDENTITY_LIMIT {
            anyhow::bail!(
                "all {} identities of this client are in use by other commands: wait for these commands to end",
                svids.len()
            );
        }
        tokio::time::sleep(POLL).await;
    }
}
