//! x0-kv: a client of the cluster over QUIC with mutual TLS, or the store in this process.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bytes::Bytes;
use x0_identity::{Identity, NodeId, TrustBundle, TrustDomain, X509Svid};
use x0_kv::{Client as KvClient, ClientOptions, Keyspace, RangeQuery, Store};
use x0_mesh::quic::{QuicOptions, QuicTransport};
use x0_mesh::{Mux, MuxOptions};

use super::serve::{Client, System};

/// Clients of three nodes; a connection is a client with an identity, a socket and a session of its own.
pub(crate) struct X0 {
    members: Vec<(NodeId, SocketAddr)>,
    trust_domain: TrustDomain,
    folder: PathBuf,
    clients: Vec<KvClient>,
    stores: Vec<Store>,
}

impl X0 {
    /// `folder` is the client's folder that `x0-node init` wrote.
    pub(crate) fn new(ports: &[u16], trust_domain: &str, folder: PathBuf) -> Result<Self> {
        let member = |(number, port): (u64, &u16)| {
            let node = NodeId::new(number).context("nodes are numbered from 1")?;
            Ok((node, SocketAddr::from((Ipv4Addr::LOCALHOST, *port))))
        };
        let members = (1..).zip(ports).map(member).collect::<Result<_>>()?;
        let trust_domain = trust_domain.parse()?;
        Ok(Self { members, trust_domain, folder, clients: Vec::new(), stores: Vec::new() })
    }

    async fn open(&self) -> Result<KvClient> {
        let svid = X509Svid::from_pem(&read(&self.folder.join("svid.pem"))?)?;
        let bundle =
            TrustBundle::from_pem(self.trust_domain.clone(), &read(&self.folder.join("bundle.pem"))?)?;
        let identity = Identity::new(svid, bundle)?;
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut quic = QuicOptions::guest(any, identity.server_config(), identity.client_config());
        let local = quic.local;
        quic.peers.clone_from(&self.members);
        let transport = QuicTransport::bind(quic)?;
        let members = self.members.iter().map(|(node, _)| *node);
        let client = KvClient::connect(
            ClientOptions::new(local, members),
            &Mux::new(transport, MuxOptions::default()),
        )?;
        // Finds the leader, and opens the session.
        Keyspace::put(client.store(), "bench/ready", "").await?;
        Ok(client)
    }
}

impl System for X0 {
    type Client = Store;

    async fn ready(&mut self) -> Result<String> {
        self.connections(1).await?;
        Ok(env!("CARGO_PKG_VERSION").to_owned())
    }

    async fn connections(&mut self, count: usize) -> Result<&[Store]> {
        while self.clients.len() < count {
            let client = self.open().await?;
            self.stores.push(client.store().clone());
            self.clients.push(client);
        }
        Ok(&self.stores)
    }
}

/// The store in the process that uses it.
pub(crate) struct Embedded(Vec<Store>);

impl Embedded {
    pub(crate) fn new(folder: &Path) -> Result<Self> {
        Ok(Self(vec![Store::open(folder)?]))
    }
}

impl System for Embedded {
    type Client = Store;

    async fn ready(&mut self) -> Result<String> {
        Ok(env!("CARGO_PKG_VERSION").to_owned())
    }

    async fn connections(&mut self, count: usize) -> Result<&[Store]> {
        let store = self.0[0].clone();
        self.0.resize(self.0.len().max(count), store);
        Ok(&self.0)
    }
}

impl Client for Store {
    async fn put(&self, key: Bytes, value: Bytes) -> Result<()> {
        Ok(Keyspace::put(self, key, value).await.map(drop)?)
    }

    async fn get(&self, key: Bytes) -> Result<Option<usize>> {
        Ok(Keyspace::get(self, key).await?.map(|found| found.value.len()))
    }

    async fn range(&self, count: u32) -> Result<usize> {
        let range = RangeQuery { limit: count, ..RangeQuery::prefix("bench/") };
        Ok(Keyspace::range(self, range).await?.entries.len())
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
