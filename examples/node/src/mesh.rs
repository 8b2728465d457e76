//! The mesh of a node with `[[links]]`: its links, and the service that answers `x0-node mesh`.

pub(crate) mod cli;
pub(crate) mod commands;
mod rows;
mod service;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use x0_identity::{Identity, NodeId};
use x0_mesh::Mux;
use x0_mesh::datagram::PathFacts;
use x0_mesh::discovery::{DiscoveryOptions, Multicast, MulticastOptions};
use x0_mesh::link::{Link, LinkFaultHandle, LinkFaultInjector, UdpLink, UdpLinkOptions};
use x0_mesh::mesh::{Mesh, MeshOptions, MeshPort};
use x0_mesh::quic::{QuicOptions, QuicTransport, udp_socket};
use x0_mesh::router::{Cost, Etx};
use x0_mesh::telemetry::PathGauges;

use crate::config::{NodeConfig, address};
use crate::control::MeshState;

/// A connection outlives the time in which the mesh finds another way.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// A link of a node: a UDP port, and neighbours on it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LinkConfig {
    /// The UDP address of the link.
    #[serde(deserialize_with = "address")]
    pub(crate) address: SocketAddr,
    /// The addresses of neighbours to dial. Others may dial this node.
    #[serde(default)]
    pub(crate) neighbours: Vec<SocketAddr>,
    /// Whether the node finds neighbours on the same network by multicast.
    #[serde(default)]
    pub(crate) discover: bool,
    /// The UDP port of the announcements, the same on all nodes of the network.
    #[serde(default = "discover_port_default")]
    pub(crate) discover_port: u16,
    /// Whether the node seeks direct paths to nodes that it reaches over a relay, also through NATs.
    #[serde(default)]
    pub(crate) traverse: bool,
    /// Addresses at which others reach the link, such as that of a port which a NAT forwards. Includes
    /// `traverse`.
    #[serde(default)]
    pub(crate) public: Vec<SocketAddr>,
    /// The longest frame, in bytes: the MTU of the path less the headers of IP and UDP.
    #[serde(default = "mtu_default")]
    pub(crate) mtu: usize,
    /// 0: used whenever it is the best; 1 to 3: used only while no path of a lower number exists.
    #[serde(default)]
    pub(crate) preference: u8,
    /// The price of a GB, in the smallest unit of a currency.
    #[serde(default)]
    pub(crate) price: u16,
}

fn mtu_default() -> usize {
    1232
}

fn discover_port_default() -> u16 {
    7830
}

/// The mesh of a node.
#[derive(Debug)]
pub(crate) struct NodeMesh {
    mesh: Mesh,
    /// One for each port, by its number; none unless the node was started with fault injectors.
    faults: Vec<LinkFaultHandle>,
}

impl NodeMesh {
    /// Begins or ends to lose all frames of the links to a neighbour, in both directions.
    pub(crate) fn set_cut(&self, peer: NodeId, is_cut: bool) -> Result<()> {
        let links = self.mesh.links().into_iter().filter(|link| link.peer == peer);
        let handles: Vec<_> = links
            .filter_map(|link| usize::try_from(link.port.0).ok().and_then(|port| self.faults.get(port)))
            .collect();
        if handles.is_empty() {
            bail!("cannot cut a link to node {peer}: there is none with a fault injector");
        }
        handles.into_iter().for_each(|handle| if is_cut { handle.cut() } else { handle.mend() });
        Ok(())
    }

    /// Sets the gauges of links and paths.
    pub(crate) fn publish(&self, gauges: &mut PathGauges) {
        gauges.publish(&self.mesh);
    }

    /// The next hop to each node that is reached, and the bytes that were relayed.
    pub(crate) fn state(&self) -> MeshState {
        let next = |path: PathFacts| (path.destination.get(), path.next.get());
        MeshState {
            next: self.mesh.paths().into_iter().map(next).collect(),
            relayed_bytes: self.mesh.stats().relayed_bytes,
        }
    }
}

/// The transport of a node: over its links to the members if it has any, and directly to clients.
pub(crate) fn transport(
    config: &NodeConfig,
    identity: &Identity,
    quic: QuicOptions,
    has_faults: bool,
) -> Result<(QuicTransport, Option<Arc<NodeMesh>>)> {
    if config.links.is_empty() {
        return Ok((QuicTransport::bind(quic)?, None));
    }
    let mut options = MeshOptions::new(config.node, identity.server_config(), identity.client_config())
        .trust_domain(identity.spiffe_id().trust_domain().clone());
    options.datagrams.router = options.datagrams.router.region(config.region);
    if !config.relay {
        options = options.relay(None);
    }
    let mut faults = Vec::new();
    for link in &config.links {
        let opened = UdpLink::open(&UdpLinkOptions::new(link.address).mtu(link.mtu))?;
        let local = opened.local();
        let metric = Cost::new(Etx).preference(link.preference).price(link.price);
        let port = if has_faults {
            let (opened, handle) = LinkFaultInjector::new(opened, u64::from(link.address.port()));
            faults.push(handle);
            MeshPort::new(opened)
        } else {
            MeshPort::new(opened)
        };
        let mut port = port.metric(metric);
        if link.discover {
            let groups = Multicast::open(&MulticastOptions::new(local).port(link.discover_port))?;
            port = port.discover(groups, DiscoveryOptions::new(&config.trust_domain));
        }
        if link.traverse {
            port = port.traverse();
        }
        port = link.public.iter().copied().fold(port, MeshPort::public);
        options = options.port(link.neighbours.iter().copied().fold(port, MeshPort::neighbour));
    }
    let mesh = Mesh::start(options).context("cannot start the mesh")?;
    let direct = udp_socket(config.listen)?;
    let transport = QuicTransport::bind_on(quic.idle_timeout(IDLE_TIMEOUT), mesh.socket_beside(direct))?;
    Ok((transport, Some(Arc::new(NodeMesh { mesh, faults }))))
}

/// Answers `x0-node mesh` until the mux ends.
pub(crate) fn serve(mux: &Mux, mesh: Option<Arc<NodeMesh>>) -> Result<()> {
    service::start(mux, mesh)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_has_usual_values() {
        let link: LinkConfig = toml::from_str("address = \"127.0.0.1:7601\"").unwrap();
        assert_eq!((link.mtu, link.preference, link.price, link.neighbours.len()), (1232, 0, 0, 0));
        assert_eq!((link.discover, link.discover_port), (false, 7830));
        assert_eq!((link.traverse, link.public.len()), (false, 0));
        let text =
            "address = \"127.0.0.1:7601\"\nneighbours = [\"192.0.2.1:7601\"]\nprice = 9\npreference = 1";
        let link: LinkConfig = toml::from_str(text).unwrap();
        assert_eq!((link.preference, link.price, link.neighbours.len()), (1, 9, 1));
        let text = "address = \"127.0.0.1:7601\"\ntraverse = true\npublic = [\"192.0.2.9:7601\"]";
        let link: LinkConfig = toml::from_str(text).unwrap();
        assert_eq!((link.traverse, link.public.len()), (true, 1));
        assert!(toml::from_str::<LinkConfig>("address = \"127.0.0.1:0\"").is_err());
        assert!(toml::from_str::<LinkConfig>("address = \"127.0.0.1:1\"\nneighbors = []").is_err());
    }
}
