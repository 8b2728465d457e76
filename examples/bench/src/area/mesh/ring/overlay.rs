//! x0-mesh on the ring: a node in each namespace, a UDP link on each end of a pair.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use tokio::runtime::Runtime;
use x0_identity::{Authority, AuthorityOptions, Identity, NodeId, SpiffeId, TrustDomain};
use x0_mesh::link::{UdpLink, UdpLinkOptions};
use x0_mesh::mesh::{Mesh, MeshOptions, MeshPort};

use super::{FROM, NODES, Rig, System, TO, VICTIM};

const PORT: u16 = 7100;

struct Overlay {
    meshes: Vec<Arc<Mesh>>,
    // After the meshes, which it drives.
    runtime: Runtime,
}

fn node(at: usize) -> Result<NodeId> {
    NodeId::new(at as u64 + 1).ok_or_else(|| anyhow!("zero names no node"))
}

pub(super) fn start(rig: &Rig) -> Result<Box<dyn System>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let authority = Authority::new(TrustDomain::parse("bench.example.org")?, &AuthorityOptions::default())?;
    let mut meshes = Vec::new();
    for at in 0..NODES {
        let spiffe_id = SpiffeId::for_node(authority.trust_domain(), node(at)?);
        let svid = authority.issue(&spiffe_id, std::time::Duration::from_secs(24 * 3600))?;
        let identity = Identity::new(svid, authority.bundle())?;
        let mut options = MeshOptions::new(node(at)?, identity.server_config(), identity.client_config());
        // The link is cut again and again, and has to be used in between.
        options.datagrams.router = options.datagrams.router.damping(false);
        let (left, right) = (&rig.pairs[at], &rig.pairs[(at + NODES - 1) % NODES]);
        // The left end dials.
        for (local, neighbour) in
            [(left.left().address(), Some(left.right().address())), (right.right().address(), None)]
        {
            let handle = runtime.handle().clone();
            let link = rig.namespaces[at].run(|| {
                let _inside = handle.enter();
                UdpLink::open(&UdpLinkOptions::new(SocketAddr::from((local, PORT))))
            })??;
            let port = MeshPort::new(link);
            options = options.port(match neighbour {
                Some(neighbour) => port.neighbour(SocketAddr::from((neighbour, PORT))),
                None => port,
            });
        }
        let _inside = runtime.enter();
        meshes.push(Arc::new(Mesh::start(options)?));
    }
    Ok(Box::new(Overlay { meshes, runtime }))
}

impl System for Overlay {
    fn is_settled(&mut self, _: &Rig) -> Result<bool> {
        let leads = |at: usize, to: usize, next: usize| {
            let (to, next) = (node(to)?, node(next)?);
            let paths = self.meshes[at].paths();
            Ok::<_, anyhow::Error>(paths.iter().any(|path| path.destination == to && path.next == next))
        };
        Ok(leads(VICTIM, TO, TO)? && leads(FROM, TO, VICTIM)? && leads(TO, FROM, VICTIM)?)
    }

    fn sender(&mut self, _: &Rig) -> Result<Box<dyn FnMut(u64) + Send>> {
        let (mesh, to) = (Arc::clone(&self.meshes[FROM]), node(TO)?);
        Ok(Box::new(move |number| {
            // A probe without a route is a missing one.
            let _ = mesh.send(to, &number.to_le_bytes());
        }))
    }

    fn receive(&mut self, until: Instant) -> Result<Option<u64>> {
        let receiving = self.meshes[TO].recv();
        let received =
            self.runtime.block_on(async { tokio::time::timeout_at(until.into(), receiving).await });
        let Ok((_, probe)) = received else { return Ok(None) };
        Ok(Some(u64::from_le_bytes(probe.try_into().ok().context("a probe of 8 bytes")?)))
    }

    fn control(&mut self, _: &Rig) -> Result<u64> {
        Ok(self.meshes.iter().flat_map(|mesh| mesh.links()).map(|link| link.control_bytes).sum())
    }
}
