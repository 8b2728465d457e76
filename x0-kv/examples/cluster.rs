//! Three nodes in one process: QUIC between them, an SVID for each, one replicated store.
#![allow(clippy::print_stdout, reason = "a program that shows what it does")]

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use x0_identity::{Authority, AuthorityOptions, Identity, NodeId, SpiffeId, TrustDomain};
use x0_kv::cluster::{Node, NodeOptions};
use x0_mesh::quic::{QuicOptions, QuicTransport};
use x0_mesh::{Mux, MuxOptions};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let authority = Authority::new(TrustDomain::parse("example.org")?, &AuthorityOptions::default())?;
    let ids = [1, 2, 3].map(NodeId::new).map(Option::unwrap);
    let folder = std::env::temp_dir().join(format!("x0-cluster-{}", std::process::id()));

    // Bind first, so that each node can be given the addresses of the others.
    let mut transports = Vec::new();
    for id in ids {
        let spiffe_id = SpiffeId::for_node(authority.trust_domain(), id);
        let svid = authority.issue(&spiffe_id, Duration::from_secs(3600))?;
        let identity = Identity::new(svid, authority.bundle())?;
        let bind = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = QuicOptions::new(id, bind, identity.server_config(), identity.client_config());
        transports.push((id, QuicTransport::bind(config)?));
    }
    let addresses = transports
        .iter()
        .map(|(id, transport)| Ok((*id, transport.local_addr()?)))
        .collect::<Result<Vec<_>, std::io::Error>>()?;

    let mut nodes = Vec::new();
    for (id, transport) in transports {
        for (peer, address) in addresses.iter().filter(|(peer, _)| *peer != id) {
            transport.peers().set_peer(*peer, *address);
        }
        let options = NodeOptions::new(id, folder.join(id.to_string())).founders(ids);
        nodes.push(Node::start(options, &Mux::new(transport, MuxOptions::default()))?);
    }

    // Any node takes writes: they go to the leader. Reads are linearizable on every node.
    let revision = nodes[0].store().put("greeting", "hello from node 1").await?;
    let found = nodes[2].store().get("greeting").await?.ok_or("the write is lost")?;
    println!("node 3 reads {:?}, written at revision {revision:?}", found.value);
    for node in nodes {
        node.shutdown().await?;
    }
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
