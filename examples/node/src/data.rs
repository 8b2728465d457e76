//! `x0-node data adopt`: accepts a data folder that was copied on purpose.

use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use x0_identity::NodeId;
use x0_kv::cluster::{Adoption, DataFolder};
use x0_kv::{Client, ClientOptions};
use x0_mesh::quic::{QuicOptions, QuicTransport};
use x0_mesh::{Mux, MuxOptions};

use crate::cli::AdoptArgs;
use crate::config::NodeConfig;
use crate::identity;

/// The time in which each of the other members must answer.
const LIMIT: Duration = Duration::from_secs(3);

/// Adopts the data folder of a node that does not run.
pub(crate) async fn adopt(args: &AdoptArgs) -> Result<()> {
    let config = NodeConfig::load(&args.config)?;
    let mut folder = DataFolder::open(&config.data_dir, config.node)
        .with_context(|| format!("cannot open the data in {}", config.data_dir.display()))?;
    let Some(part) = folder.is_copy() else {
        return print(&format!(
            "{} is the folder that node {} wrote: there is nothing to adopt.\n",
            config.data_dir.display(),
            config.node
        ));
    };
    let mut text = format!(
        "{} is a copy ({part} is not the original). Its log ends at index {}.\n",
        config.data_dir.display(),
        folder.last_index()
    );
    let mut highest = None;
    for (member, seen) in ask(&config).await? {
        match seen {
            Some(index) => {
                text.push_str(&format!(
                    "Node {member} saw this node acknowledge entries up to index {index}.\n"
                ));
                highest = highest.max(Some((index, member)));
            }
            None => text.push_str(&format!("Node {member} does not answer.\n")),
        }
    }
    let lacks = highest.filter(|(index, _)| *index > folder.last_index());
    if args.assume_latest
        && let Some((index, member)) = lacks
    {
        bail!(
            "{} lacks entries that this node has acknowledged: its log ends at index {}, and node {member} saw index {index} \
             acknowledged. Adopt it without --assume-latest: the node then gets the entries from the other members before it votes",
            config.data_dir.display(),
            folder.last_index()
        );
    }
    let adoption = if args.assume_latest { Adoption::Present } else { Adoption::New };
    folder.adopt(adoption).with_context(|| format!("cannot adopt {}", config.data_dir.display()))?;
    text.push_str(if args.assume_latest {
        "The copy is adopted as it is. The node votes at once.\n"
    } else {
        "The copy is adopted. The node starts without a vote, and votes again when the other members have brought it up to date.\n"
    });
    print(&text)
}

fn print(text: &str) -> Result<()> {
    std::io::stdout().lock().write_all(text.as_bytes()).context("cannot write to standard output")
}

/// The highest index that each other member saw acknowledged by this node; `None` if it does not answer.
async fn ask(config: &NodeConfig) -> Result<Vec<(NodeId, Option<u64>)>> {
    let identity = identity::load(&config.trust_domain, &config.svid, &config.bundle)?;
    let bind: SocketAddr = match config.listen.is_ipv6() {
        true => (Ipv6Addr::UNSPECIFIED, 0).into(),
        false => (Ipv4Addr::UNSPECIFIED, 0).into(),
    };
    let mut quic = QuicOptions::new(config.node, bind, identity.server_config(), identity.client_config());
    // A member whose name is not known now is not asked.
    quic.peers = config.peers().filter_map(|peer| Some((peer.node, peer.address.resolve().ok()?))).collect();
    let transport = QuicTransport::bind(quic).context("cannot open a socket")?;
    let others: Vec<NodeId> = config.peers().map(|peer| peer.node).collect();
    let options = ClientOptions::new(config.node, others.iter().copied());
    let client = Client::connect(options, &Mux::new(transport, MuxOptions::default()))?;
    let mut seen = Vec::new();
    for member in others {
        let status = client.status(member, LIMIT).await;
        let index = status.map(|status| status.acknowledged.get(&config.node).copied().unwrap_or(0));
        seen.push((member, index));
    }
    client.close().await;
    Ok(seen)
}
