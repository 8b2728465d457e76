//! The mesh of a node with `[[links]]`: its links, and the service that answers `x0-node mesh`.

pub(crate) mod cli;
pub(crate) mod commands;
mod ethernet;
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

use self::ethernet::{MacAddressError, mac_address};
use crate::config::NodeConfig;
use crate::control::MeshState;

/// A connection outlives the time in which the mesh finds another way.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection outlives an interruption of all ways that is shorter.
const NO_ROUTE_TIMEOUT: Duration = Duration::from_secs(2);
/// Silence is reported after three of these pauses at the latest: before a follower holds an election, so
/// that it waits for a leader whose path is being replaced.
const KEEP_ALIVE: Duration = Duration::from_millis(100);

/// A link of a node, and neighbours on it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "LinkEntry")]
pub(crate) struct LinkConfig {
    pub(crate) kind: LinkKind,
    /// The addresses of neighbours to dial. Others may dial this node.
    pub(crate) neighbours: Vec<SocketAddr>,
    /// 0: used whenever it is the best; 1 to 3: used only while no path of a lower number exists.
    pub(crate) preference: u8,
    /// The price of a GB, in the smallest unit of a currency.
    pub(crate) price: u16,
}

/// The carrier of the frames of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LinkKind {
    /// A UDP port.
    Udp(UdpConfig),
    /// An Ethernet interface, without IP.
    Ethernet {
        interface: String,
        /// The longest frame, if it is to be shorter than the interface allows.
        mtu: Option<usize>,
    },
}

/// A UDP port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UdpConfig {
    pub(crate) address: SocketAddr,
    /// Whether the node finds neighbours on the same network by multicast.
    pub(crate) discover: bool,
    /// The UDP port of the announcements, the same on all nodes of the network.
    pub(crate) discover_port: u16,
    /// Whether the node seeks direct paths to nodes that it reaches over a relay, also through NATs.
    pub(crate) traverse: bool,
    /// Addresses at which others reach the link, such as that of a port which a NAT forwards. Includes
    /// `traverse`.
    pub(crate) public: Vec<SocketAddr>,
    /// The longest frame, in bytes: the MTU of the path less the headers of IP and UDP.
    pub(crate) mtu: usize,
}

/// A section `[[links]]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkEntry {
    #[serde(default)]
    kind: Kind,
    address: Option<SocketAddr>,
    interface: Option<String>,
    #[serde(default)]
    neighbours: Vec<String>,
    discover: Option<bool>,
    discover_port: Option<u16>,
    traverse: Option<bool>,
    public: Option<Vec<SocketAddr>>,
    mtu: Option<usize>,
    #[serde(default)]
    preference: u8,
    #[serde(default)]
    price: u16,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    #[default]
    Udp,
    Ethernet,
}

/// A section `[[links]]` is not valid.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkConfigError {
    #[error("a link of kind \"udp\" needs `address`: write the IP address and the UDP port of this node")]
    NoAddress,
    #[error("`{0}` is no address of a link: write IP:PORT with a port from 1 to 65535")]
    Port(SocketAddr),
    #[error("a link of kind \"ethernet\" needs `interface`: write the name of an interface, such as eth1")]
    NoInterface,
    #[error("a link of kind \"{kind}\" has no `{key}`: remove the key")]
    Key { kind: &'static str, key: &'static str },
    #[error("`{0}` is no neighbour of a UDP link: write IP:PORT")]
    Neighbour(String),
    #[error("a neighbour of an Ethernet link is not valid")]
    Mac(#[from] MacAddressError),
}

impl TryFrom<LinkEntry> for LinkConfig {
    type Error = LinkConfigError;

    fn try_from(entry: LinkEntry) -> Result<LinkConfig, LinkConfigError> {
        let refuse = |kind, keys: &[(&'static str, bool)]| match keys.iter().find(|(_, is_given)| *is_given) {
            Some((key, _)) => Err(LinkConfigError::Key { kind, key }),
            None => Ok(()),
        };
        let (kind, neighbours) = match entry.kind {
            Kind::Udp => {
                refuse("udp", &[("interface", entry.interface.is_some())])?;
                let address = entry.address.ok_or(LinkConfigError::NoAddress)?;
                if address.port() == 0 {
                    return Err(LinkConfigError::Port(address));
                }
                let udp = UdpConfig {
                    address,
                    discover: entry.discover.unwrap_or_default(),
                    discover_port: entry.discover_port.unwrap_or(DISCOVER_PORT),
                    traverse: entry.traverse.unwrap_or_default(),
                    public: entry.public.unwrap_or_default(),
                    mtu: entry.mtu.unwrap_or(UDP_MTU),
                };
                let parse = |text: String| text.parse().map_err(|_| LinkConfigError::Neighbour(text));
                let neighbours: Result<_, _> = entry.neighbours.into_iter().map(parse).collect();
                (LinkKind::Udp(udp), neighbours?)
            }
            Kind::Ethernet => {
                let keys = [
                    ("address", entry.address.is_some()),
                    ("discover", entry.discover.is_some()),
                    ("discover_port", entry.discover_port.is_some()),
                    ("traverse", entry.traverse.is_some()),
                    ("public", entry.public.is_some()),
                ];
                refuse("ethernet", &keys)?;
                let interface = entry.interface.ok_or(LinkConfigError::NoInterface)?;
                let parse = |text: String| text.parse().map(mac_address);
                let neighbours: Result<_, _> = entry.neighbours.into_iter().map(parse).collect();
                (LinkKind::Ethernet { interface, mtu: entry.mtu }, neighbours?)
            }
        };
        Ok(LinkConfig { kind, neighbours, preference: entry.preference, price: entry.price })
    }
}

/// The longest frame of a UDP link: that of a path over IPv6 with an MTU of 1280 (RFC 8200 §5).
const UDP_MTU: usize = 1232;
const DISCOVER_PORT: u16 = 7830;

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
        let opened = open(link)?;
        let local = opened.local();
        let metric = Cost::new(Etx).preference(link.preference).price(link.price);
        let port = if has_faults {
            let (opened, handle) = LinkFaultInjector::new(opened, u64::from(local.port()));
            faults.push(handle);
            MeshPort::new(opened)
        } else {
            let link = link.clone();
            MeshPort::new(opened).reopen(move || Ok(open(&link)?))
        };
        let mut port = port.metric(metric);
        if let LinkKind::Udp(udp) = &link.kind {
            if udp.discover {
                let groups = Multicast::open(&MulticastOptions::new(local).port(udp.discover_port))?;
                port = port.discover(groups, DiscoveryOptions::new(&config.trust_domain));
            }
            if udp.traverse {
                port = port.traverse();
            }
            port = udp.public.iter().copied().fold(port, MeshPort::public);
        }
        options = options.port(link.neighbours.iter().copied().fold(port, MeshPort::neighbour));
    }
    let mut mesh = Mesh::start(options).context("cannot start the mesh")?;
    let direct = udp_socket(config.listen)?;
    let transport = QuicTransport::bind_on(over_links(quic), mesh.socket_beside(direct))?;
    mesh.end_without_route(transport.peers(), NO_ROUTE_TIMEOUT);
    mesh.dial_with_route(transport.peers());
    Ok((transport, Some(Arc::new(NodeMesh { mesh, faults }))))
}

fn over_links(quic: QuicOptions) -> QuicOptions {
    quic.idle_timeout(IDLE_TIMEOUT).keep_alive(KEEP_ALIVE)
}

fn open(link: &LinkConfig) -> Result<Box<dyn Link>> {
    match &link.kind {
        LinkKind::Udp(udp) => Ok(Box::new(UdpLink::open(&UdpLinkOptions::new(udp.address).mtu(udp.mtu))?)),
        LinkKind::Ethernet { interface, mtu } => ethernet::open(interface, *mtu),
    }
}

/// Answers `x0-node mesh` until the mux ends.
pub(crate) fn serve(mux: &Mux, mesh: Option<Arc<NodeMesh>>) -> Result<()> {
    service::start(mux, mesh)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(text: &str) -> Result<LinkConfig, toml::de::Error> {
        toml::from_str(text)
    }

    fn udp(text: &str) -> UdpConfig {
        match link(text).unwrap().kind {
            LinkKind::Udp(udp) => udp,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn silence_over_links_is_reported_before_an_election() {
        let trust_domain = x0_identity::TrustDomain::parse("example.org").unwrap();
        let authority = x0_identity::Authority::new(trust_domain, &Default::default()).unwrap();
        let node = NodeId::new(1).unwrap();
        let spiffe_id = x0_identity::SpiffeId::for_node(authority.trust_domain(), node);
        let svid = authority.issue(&spiffe_id, Duration::from_secs(60)).unwrap();
        let identity = Identity::new(svid, authority.bundle()).unwrap();
        let (server, client) = (identity.server_config(), identity.client_config());
        let quic = over_links(QuicOptions::new(node, ([127, 0, 0, 1], 0).into(), server, client));
        let election = x0_consensus::Options::new(node);
        let shortest = election.tick * election.election_ticks;
        // As the docs of `quic` state it; half of the timeout is left for the report on its way.
        assert!(quic.keep_alive * 3 <= shortest * 2 / 3, "{:?}, {shortest:?}", quic.keep_alive);
        assert!(NO_ROUTE_TIMEOUT < quic.idle_timeout);
    }

    #[test]
    fn a_link_has_usual_values() {
        let text = "address = \"127.0.0.1:7601\"";
        assert_eq!(udp(text), udp(&format!("kind = \"udp\"\n{text}")));
        assert_eq!((udp(text).mtu, udp(text).discover, udp(text).discover_port), (1232, false, 7830));
        assert_eq!((udp(text).traverse, udp(text).public.len()), (false, 0));
        let usual = link(text).unwrap();
        assert_eq!((usual.preference, usual.price, usual.neighbours.len()), (0, 0, 0));
        let more =
            link(&format!("{text}\nneighbours = [\"192.0.2.1:7601\"]\nprice = 9\npreference = 1")).unwrap();
        assert_eq!((more.preference, more.price, more.neighbours.len()), (1, 9, 1));
        let public = udp(&format!("{text}\ntraverse = true\npublic = [\"192.0.2.9:7601\"]"));
        assert_eq!((public.traverse, public.public.len()), (true, 1));
    }

    #[test]
    fn a_link_that_is_not_valid_is_an_error_with_its_remedy() {
        for (text, part) in [
            ("", "needs `address`"),
            ("address = \"127.0.0.1:0\"", "port from 1"),
            ("address = \"127.0.0.1:1\"\nneighbors = []", "unknown field"),
            ("address = \"127.0.0.1:1\"\nneighbours = [\"02:00:00:00:00:01\"]", "IP:PORT"),
            ("address = \"127.0.0.1:1\"\ninterface = \"eth1\"", "has no `interface`"),
            ("kind = \"ethernet\"", "needs `interface`"),
            ("kind = \"ethernet\"\ninterface = \"eth1\"\ndiscover = true", "has no `discover`"),
            (
                "kind = \"ethernet\"\ninterface = \"eth1\"\nneighbours = [\"192.0.2.1:7\"]",
                "neighbour of an Ethernet",
            ),
            ("kind = \"token ring\"", "unknown variant"),
        ] {
            let error = link(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_ethernet_link_has_an_interface() {
        let text =
            "kind = \"ethernet\"\ninterface = \"absent0\"\nneighbours = [\"02:00:00:12:34:56\"]\nmtu = 1400";
        let link = link(text).unwrap();
        let LinkKind::Ethernet { interface, mtu } = &link.kind else { panic!("{link:?}") };
        assert_eq!((&**interface, *mtu), ("absent0", Some(1400)));
        assert_eq!(link.neighbours, ["[fe80::ff:fe12:3456]:34997".parse().unwrap()]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        let error = open(&link).map(|_| ()).unwrap_err();
        assert!(format!("{error:#}").contains("absent0"), "{error:#}");
    }
}
