//! A ring of mesh nodes whose links can be cut.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;

use x0_ebpf::testing::{Namespace, VethPair};
use x0_mesh::link::{LinkFaultHandle, LinkFaultInjector, UdpLink, UdpLinkOptions};
use x0_mesh::mesh::{Mesh, MeshOptions, MeshPort};

use crate::machine::{Machine, id, soon};

/// Nodes 1 to 5. Link n, from 0, joins the nodes n + 1 and n + 2, and the last one joins node 5 and node 1.
pub(crate) const NODES_OF_RING: u64 = LINKS as u64;
const LINKS: usize = 5;
const PORT: u16 = 7100;

/// The ends of all links: at position n the left one (which dials) and the right one of link n.
type Ends = Vec<[UdpLink; 2]>;

/// How links are made and cut.
enum Wires {
    /// Network namespaces, and veth pairs between them.
    Veth { pairs: Vec<VethPair> },
    /// UDP ports of the loopback, each left end with a fault injector.
    Loopback { faults: Vec<LinkFaultHandle> },
}

pub(crate) struct Ring {
    wires: Wires,
    meshes: Vec<Arc<Mesh>>,
}

fn has_nft() -> bool {
    Command::new("nft").arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// The ends in namespaces of their own; `None` without the right to make them.
fn veth() -> Option<(Wires, Ends)> {
    let namespaces: Vec<Namespace> = (0..LINKS).map(|_| Namespace::new().ok()).collect::<Option<_>>()?;
    let mut ends = Vec::new();
    let mut pairs = Vec::new();
    for at in 0..LINKS {
        let places = [at, (at + 1) % LINKS];
        let mut pair = VethPair::new(&namespaces[places[0]], &namespaces[places[1]]).unwrap();
        pair.assign_addresses().unwrap();
        let addresses = [pair.left().address(), pair.right().address()];
        let runtime = tokio::runtime::Handle::current();
        ends.push([0, 1].map(|side| {
            let open = || {
                let _inside = runtime.enter();
                UdpLink::open(&UdpLinkOptions::new(SocketAddr::from((addresses[side], PORT)))).unwrap()
            };
            namespaces[places[side]].run(open).unwrap()
        }));
        pairs.push(pair);
    }
    Some((Wires::Veth { pairs }, ends))
}

fn loopback() -> Ends {
    let open = || UdpLink::open(&UdpLinkOptions::new(SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
    (0..LINKS).map(|_| [open(), open()]).collect()
}

impl Ring {
    pub(crate) fn start(machine: &Machine) -> Ring {
        let (mut wires, ends) = has_nft().then(veth).flatten().unwrap_or_else(|| {
            let faults = Vec::new();
            (Wires::Loopback { faults }, loopback())
        });
        let mut ports: Vec<Vec<MeshPort>> = (0..LINKS).map(|_| Vec::new()).collect();
        for (at, [left, right]) in ends.into_iter().enumerate() {
            let neighbour = x0_mesh::link::Link::local(&right);
            let left = match &mut wires {
                Wires::Veth { .. } => MeshPort::new(left),
                Wires::Loopback { faults } => {
                    let (left, handle) = LinkFaultInjector::new(left, at as u64);
                    faults.push(handle);
                    MeshPort::new(left)
                }
            };
            ports[at].push(left.neighbour(neighbour));
            ports[(at + 1) % LINKS].push(MeshPort::new(right));
        }
        let meshes = (1..).zip(ports).map(|(number, ports)| {
            let identity = machine.node_identity(number);
            let mut options =
                MeshOptions::new(id(number), identity.server_config(), identity.client_config());
            // The links are cut again and again, and have to be used in between.
            options.datagrams.router = options.datagrams.router.damping(false);
            Arc::new(Mesh::start(ports.into_iter().fold(options, MeshOptions::port)).unwrap())
        });
        let meshes = meshes.collect();
        Ring { wires, meshes }
    }

    pub(crate) fn kind(&self) -> &'static str {
        match self.wires {
            Wires::Veth { .. } => "veth pairs between network namespaces",
            Wires::Loopback { .. } => "UDP on the loopback with fault injectors",
        }
    }

    pub(crate) fn mesh(&self, number: u64) -> &Mesh {
        &self.meshes[usize::try_from(number - 1).unwrap()]
    }

    /// Waits until these nodes have these next hops: the node, the destination, the next hop.
    pub(crate) async fn settled(&self, paths: &[(u64, u64, u64)]) {
        for &(from, to, next) in paths {
            let is_used = |mesh: &Mesh| {
                mesh.paths().iter().any(|path| path.destination == id(to) && path.next == id(next))
            };
            soon("a path", self.mesh(from).until(is_used)).await;
        }
    }

    /// Begins or ends to lose all frames of a link, in both directions and without a sign.
    pub(crate) fn cut(&mut self, link: usize, is_on: bool) {
        match &mut self.wires {
            Wires::Loopback { faults } if is_on => faults[link].cut(),
            Wires::Loopback { faults } => faults[link].mend(),
            Wires::Veth { pairs } => {
                let percent = if is_on { 100 } else { 0 };
                pairs[link].set_loss(percent, percent).unwrap();
            }
        }
    }
}
