//! A connection to a running cluster, under one of the client's identities.

use std::fs::File;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::watch;
use x0_kv::{Client, ClientOptions, Store};
use x0_mesh::quic::{QuicOptions, QuicTransport};

use crate::causes::causes;
use crate::config::{ClientConfig, Member};
use crate::identity;
use crate::reach::{Reach, Watched};

const POLL: Duration = Duration::from_millis(20);
/// How long a command waits for one of the identities to be free.
const IDENTITY_LIMIT: Duration = Duration::from_secs(30);

/// A client of the cluster.
#[derive(Debug)]
pub(crate) struct Connection {
    client: Client,
    members: Vec<Member>,
    reach: watch::Receiver<Reach>,
    /// Locked while we use its identity: the cluster takes two processes of one identity for one that has moved.
    _identity: File,
}

impl Connection {
    /// Prepares to talk to the members; does not wait for any.
    pub(crate) async fn open(config: &ClientConfig) -> Result<Connection> {
        let (svid, locked) = free_identity(&config.svids).await?;
        let identity = identity::load(&config.trust_domain, &svid, &config.bundle)?;
        let local = identity.node_id().with_context(|| {
            format!("{} names no node; `x0-node issue` writes identities", svid.display())
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
        let client = Client::connect(options, transport)?;
        Ok(Connection { client, members: config.members.clone(), reach, _identity: locked })
    }

    pub(crate) fn store(&self) -> &Store {
        self.client.store()
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Returns when every member has turned our identity away, or we theirs: waiting longer would not help.
    pub(crate) async fn refused(&self) -> anyhow::Error {
        let mut reach = self.reach.clone();
        let is_hopeless = |reach: &Reach| reach.is_hopeless(&self.members);
        if reach.wait_for(is_hopeless).await.is_err() {
            // The client has ended, and says so itself.
            std::future::pending::<()>().await;
        }
        anyhow::anyhow!(
            "no member accepts this client, or is accepted by it: check `trust_domain`, `svids` and `bundle` of the configuration"
        )
    }

    /// Adds what the connection knows about the cause.
    pub(crate) fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let reached = self.client.reached();
        let count = self.members.iter().filter(|member| reached.contains(&member.node)).count();
        if count == self.members.len() {
            return error;
        }
        let why = self.reach.borrow().describe(&self.members);
        anyhow::anyhow!("{}; {count} of {} members are reached{why}", causes(&error), self.members.len())
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
                "all {} identities of this client are in use by other commands: wait for those, or issue more",
                svids.len()
            );
        }
        tokio::time::sleep(POLL).await;
    }
}
