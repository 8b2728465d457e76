//! The backend that reads the counters of the link program.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::LinkStats;
use super::backend::{Backend, BackendKind, PassedOver, Refusal};
use super::counters::{DirectionCounters, LinkCounters, PeerCounters};
use super::error::ReadError;
use super::open::StatsSource;
use crate::{
    AttachError, AttachPolicy, Capabilities, Feature, LinkOptions, LinkProgram, LoadError, Peer, PeerBy,
    Point,
};

/// Loads the link program and attaches it to links, in the network namespace of the calling thread.
#[derive(Debug, Clone)]
pub struct EbpfSource {
    links: Vec<String>,
    options: LinkOptions,
    xdp: Option<AttachPolicy>,
}

impl EbpfSource {
    /// A source for these links, by name: TC in both directions, peers by address.
    #[must_use]
    pub fn new<T: Into<String>>(links: impl IntoIterator<Item = T>) -> Self {
        let links = links.into_iter().map(Into::into).collect();
        Self { links, options: LinkOptions::default(), xdp: None }
    }

    /// Sets the options of the link program.
    #[must_use]
    pub fn options(mut self, options: LinkOptions) -> Self {
        self.options = options;
        self
    }

    /// Counts received packets at XDP instead of TC: earlier, and on network cards before packets are merged.
    #[must_use]
    pub const fn xdp(mut self, policy: AttachPolicy) -> Self {
        self.xdp = Some(policy);
        self
    }

    fn attach(&self, program: &mut LinkProgram) -> Result<(), AttachError> {
        for link in &self.links {
            match self.xdp {
                Some(policy) => program.attach_xdp(link, policy)?,
                None => program.attach_tc(link, Point::Ingress)?,
            };
            program.attach_tc(link, Point::Egress)?;
        }
        Ok(())
    }
}

impl StatsSource for EbpfSource {
    fn kind(&self) -> BackendKind {
        BackendKind::Ebpf
    }

    fn open(&self, passed_over: &[PassedOver]) -> Result<Box<dyn LinkStats>, Refusal> {
        if self.links.is_empty() {
            return Err(Refusal::NotAttached);
        }
        let have = Capabilities::probe();
        // The XDP program is loaded with the others, even if it is not attached.
        for feature in [Feature::Xdp, Feature::TrafficControl] {
            have.can(feature).map_err(|missing| Refusal::Missing { missing })?;
        }
        let denied = || Refusal::Missing { missing: have.denied(Feature::Xdp) };
        let mut program = LinkProgram::load(self.options.clone()).map_err(|error| match error {
            LoadError::Denied => denied(),
            error => Refusal::Load(Arc::new(error)),
        })?;
        // Dropping the program detaches what was attached before the refusal.
        self.attach(&mut program).map_err(|error| match error {
            AttachError::Denied(_) => denied(),
            error => Refusal::Attach(Arc::new(error)),
        })?;
        Ok(Box::new(Ebpf::new(program, passed_over)))
    }
}

/// The backend that reads a [`LinkProgram`]: the links to which it is attached, and the peers that it saw
/// there. With the feature `netlink`, peers include TCP's measurements.
///
/// Bytes and packets count from the attachment on. Errors are packets that the program could not parse; drops
/// are its own.
pub struct Ebpf {
    backend: Backend,
    program: LinkProgram,
    #[cfg(feature = "netlink")]
    diag: Option<super::netlink::Connection>,
}

impl std::fmt::Debug for Ebpf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ebpf").field("backend", &self.backend).finish_non_exhaustive()
    }
}

impl Ebpf {
    /// A backend for a program that is attached or will be. TCP's measurements are those of the network
    /// namespace of the calling thread.
    #[must_use]
    pub fn new(program: LinkProgram, passed_over: &[PassedOver]) -> Self {
        Self {
            backend: Backend::new(BackendKind::Ebpf, passed_over),
            program,
            // Without this socket peers have no TCP measurements; the other counters remain available.
            #[cfg(feature = "netlink")]
            diag: super::netlink::Connection::open(netlink_sys::protocols::NETLINK_SOCK_DIAG).ok(),
        }
    }

    /// The link program, to attach it to further links or to use its filter.
    pub const fn program(&mut self) -> &mut LinkProgram {
        &mut self.program
    }

    #[cfg(feature = "netlink")]
    fn add_tcp(&mut self, peers: &mut BTreeMap<IpAddr, PeerCounters>) -> Result<(), ReadError> {
        let Some(diag) = &mut self.diag else { return Ok(()) };
        for peer in super::sock_diag::peers(diag)?.into_sorted() {
            peers.entry(peer.address).or_insert_with(|| PeerCounters::new(peer.address)).tcp = peer.tcp;
        }
        Ok(())
    }

    #[cfg(not(feature = "netlink"))]
    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "has the signature of the variant with the feature"
    )]
    fn add_tcp(&mut self, _: &mut BTreeMap<IpAddr, PeerCounters>) -> Result<(), ReadError> {
        Ok(())
    }
}

impl LinkStats for Ebpf {
    fn backend(&self) -> &Backend {
        &self.backend
    }

    fn links(&mut self, into: &mut Vec<LinkCounters>) -> Result<(), ReadError> {
        into.clear();
        for attached in self.program.attachments() {
            let counted = match self.program.interface(&attached.interface, attached.point) {
                Ok(counted) => counted,
                Err(error) => {
                    into.clear();
                    return Err(refused("read the counters of a program", error));
                }
            };
            let way = DirectionCounters {
                packets: counted.packets,
                bytes: counted.bytes,
                errors: counted.broken,
                drops: counted.dropped(),
            };
            let at = into.iter().position(|link| link.index == Some(attached.index)).unwrap_or(into.len());
            if at == into.len() {
                into.push(LinkCounters::new(Some(attached.index), attached.interface.clone()));
            }
            let Some(link) = into.get_mut(at) else { continue };
            match attached.point {
                Point::Egress => link.tx = way,
                // Ingress sees the packets again that XDP passed: the counters of XDP win.
                Point::Ingress if link.rx != DirectionCounters::default() => {}
                Point::Xdp | Point::Ingress => link.rx = way,
            }
        }
        into.sort_by_key(|link| link.index);
        Ok(())
    }

    fn peers(&mut self, into: &mut Vec<PeerCounters>) -> Result<(), ReadError> {
        into.clear();
        if self.program.options().peer_by != PeerBy::Address {
            return Err(ReadError::NotCounted { kind: BackendKind::Ebpf, what: "peers by address" });
        }
        let seen = self.program.peers().map_err(|error| refused("read the peers of a program", error))?;
        let mut peers = BTreeMap::new();
        for (peer, traffic) in seen {
            let Peer::Address(address) = peer else { continue };
            let rx = DirectionCounters {
                packets: traffic.rx_packets,
                bytes: traffic.rx_bytes,
                errors: 0,
                drops: traffic.dropped_packets,
            };
            let tx = DirectionCounters {
                packets: traffic.tx_packets,
                bytes: traffic.tx_bytes,
                ..DirectionCounters::default()
            };
            peers.insert(address, PeerCounters { rx: Some(rx), tx: Some(tx), ..PeerCounters::new(address) });
        }
        self.add_tcp(&mut peers)?;
        into.extend(peers.into_values());
        Ok(())
    }
}

fn refused(what: &'static str, error: crate::CountersError) -> ReadError {
    let source = match error {
        crate::CountersError::System(source) => source,
        other => std::io::Error::other(other),
    };
    ReadError::Kernel { what, source }
}
