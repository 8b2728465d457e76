//! The nodes of the demo as processes on this machine, and their faults.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

#[cfg(unix)]
use super::child::SupervisedNode;
use super::child::{NodeProcess, StartError};
use super::namespaces::Ring;
use crate::config::{Engine, NodeConfig};
use crate::control::{CrdtState, Digest, MeshState, Order, Reply, Status};
use crate::init::{self, Layout};

pub(crate) const TRUST_DOMAIN: &str = "demo.x0";
const VALIDITY: Duration = Duration::from_secs(24 * 3600);
/// The number of attempts with other ports when another program takes one first.
const PORT_ATTEMPTS: usize = 5;
/// The time in which a node is started again while its port is in use.
const RESTART_LIMIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(5);
/// Healers that act. Ten seconds is the shortest silence after which a voter is replaced.
const HEAL: &str = "\n[heal]\nmode = \"active\"\nreplace_after_s = 10\n";

/// The nodes, numbered from 1.
#[derive(Debug)]
pub(crate) struct Cluster {
    layout: Layout,
    places: Vec<Place>,
    /// The ends of the links of a ring over the loopback.
    ends: Vec<SocketAddr>,
    /// The namespaces of the nodes, if they have namespaces of their own.
    ring: Option<Ring>,
}

/// The address and the process of a node.
#[derive(Debug)]
struct Place {
    address: SocketAddr,
    process: Option<NodeProcess>,
    /// When the last process served.
    started: Instant,
    /// Holds the port of a killed node, so that no other program takes it. Like a machine without power it
    /// replies to nothing.
    held: Option<UdpSocket>,
}

impl Cluster {
    /// Issues identities and starts `count` nodes below `root`, which reach each other over the links of a
    /// ring.
    pub(crate) async fn start(root: &Path, count: usize, ring: Option<Ring>) -> Result<Cluster> {
        if let Some(ring) = ring {
            let addresses: Vec<_> = (1..=count).map(|number| ring.address(number)).collect();
            let layout = init::init(root, TRUST_DOMAIN, &addresses, Engine::Redb, VALIDITY)?;
            for number in 1..=count {
                append(&layout.node_config(number), &(ring.links(number) + HEAL))?;
            }
            return match Cluster::start_on(layout, addresses, Vec::new(), Some(ring)).await {
                Ok(cluster) => Ok(cluster),
                Err(StartError::Other(error)) => Err(error),
                Err(StartError::PortInUse) => bail!("a port of a new network namespace is in use"),
            };
        }
        Cluster::start_each(root, count, 2 * count, &|number, ends| loopback_ring(number, ends) + HEAL).await
    }

    /// Issues identities and starts `count` nodes below `root`, which reach each other directly, with lines
    /// for the configuration of each node.
    pub(crate) async fn start_with(
        root: &Path,
        count: usize,
        extra: &dyn Fn(usize) -> String,
    ) -> Result<Cluster> {
        Cluster::start_each(root, count, 0, &|number, _| extra(number)).await
    }

    /// Starts nodes with lines for the configuration of each, which follow from its number and `ends_count`
    /// free addresses.
    async fn start_each(
        root: &Path,
        count: usize,
        ends_count: usize,
        extra: &dyn Fn(usize, &[SocketAddr]) -> String,
    ) -> Result<Cluster> {
        for _ in 0..PORT_ATTEMPTS {
            let mut addresses = free_addresses(count + ends_count)?;
            let ends = addresses.split_off(count);
            let layout = init::init(root, TRUST_DOMAIN, &addresses, Engine::Redb, VALIDITY)?;
            for number in 1..=count {
                append(&layout.node_config(number), &extra(number, &ends))?;
            }
            match Cluster::start_on(layout, addresses, ends, None).await {
                Ok(cluster) => return Ok(cluster),
                Err(StartError::Other(error)) => return Err(error),
                // The started nodes have ended, and their files name the wrong ports.
                Err(StartError::PortInUse) => empty(root)?,
            }
        }
        bail!("another program took a free port in each of {PORT_ATTEMPTS} attempts: run the demo again")
    }

    async fn start_on(
        layout: Layout,
        addresses: Vec<SocketAddr>,
        ends: Vec<SocketAddr>,
        ring: Option<Ring>,
    ) -> Result<Cluster, StartError> {
        let mut places = Vec::new();
        for (number, address) in (1..).zip(addresses) {
            let process = NodeProcess::start(number, &layout.node(number), ring.as_ref()).await?;
            places.push(Place { address, process: Some(process), started: Instant::now(), held: None });
        }
        Ok(Cluster { layout, places, ends, ring })
    }

    /// Issues an identity to one more node, with links to two nodes of the ring, and starts it under a
    /// supervisor. It is no member yet, and [`Cluster::take_over`] makes it a node of this cluster.
    #[cfg(unix)]
    pub(crate) fn start_spare(&self, root: &Path) -> Result<(SupervisedNode, SocketAddr)> {
        let number = self.len() + 1;
        let (address, links) = if let Some(ring) = &self.ring {
            (ring.address(number), ring.links(number))
        } else {
            let [address, link] = free_addresses(2)?[..] else { bail!("two addresses were asked for") };
            (address, spare_link(link, &self.ends))
        };
        let config = init::extend(root, number, address, VALIDITY)?;
        append(&config, &(links + HEAL))?;
        Ok((SupervisedNode::start(number, &self.layout.node(number), self.ring.as_ref())?, address))
    }

    /// Stops the supervisor of the spare node, and runs the node as the others are run. Returns its number.
    #[cfg(unix)]
    pub(crate) async fn take_over(&mut self, spare: SupervisedNode, address: SocketAddr) -> Result<usize> {
        spare.stop().await?;
        self.places.push(Place { address, process: None, started: Instant::now(), held: None });
        let number = self.len();
        self.restart(number).await?;
        Ok(number)
    }

    /// The settings of each node, and when its last process served.
    #[cfg(unix)]
    pub(crate) fn settings(&self) -> Result<Vec<(usize, NodeConfig, Instant)>> {
        let of = |(number, place): (usize, &Place)| {
            Ok((number, NodeConfig::load(&self.layout.node_config(number))?, place.started))
        };
        (1..).zip(&self.places).map(of).collect()
    }

    /// When the last process of a node served.
    pub(crate) fn started(&self, number: usize) -> Instant {
        self.places[number - 1].started
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.places.iter().filter_map(|place| place.process.as_ref()).map(NodeProcess::pid).collect()
    }

    /// The numbers of the running nodes except those in `without`.
    pub(crate) fn running(&self, without: &[usize]) -> Vec<usize> {
        let runs = |number: &usize| self.places[number - 1].process.is_some() && !without.contains(number);
        (1..=self.len()).filter(runs).collect()
    }

    pub(crate) async fn order(&mut self, number: usize, order: &Order) -> Result<Reply> {
        let process = self.places[number - 1].process.as_mut();
        process.with_context(|| format!("node {number} is not running"))?.order(order).await
    }

    pub(crate) async fn status(&mut self, number: usize) -> Result<Status> {
        match self.order(number, &Order::Status).await? {
            Reply::Status(status) => Ok(status),
            other => bail!("node {number} sent an unexpected reply: {other:?}"),
        }
    }

    pub(crate) async fn digest(&mut self, number: usize) -> Result<Digest> {
        match self.order(number, &Order::Digest).await? {
            Reply::Digest(digest) => Ok(digest),
            other => bail!("node {number} sent an unexpected reply: {other:?}"),
        }
    }

    pub(crate) async fn mesh(&mut self, number: usize) -> Result<MeshState> {
        match self.order(number, &Order::Mesh).await? {
            Reply::Mesh(state) => Ok(state),
            other => bail!("node {number} sent an unexpected reply: {other:?}"),
        }
    }

    /// Cuts or mends the link from node `number` to the next one, without a sign to the nodes.
    pub(crate) async fn set_link_cut(&mut self, number: usize, is_cut: bool) -> Result<()> {
        if let Some(ring) = &mut self.ring {
            return ring.set_cut(number, is_cut);
        }
        let peer = init::node_id(self.next(number))?.get();
        let order = if is_cut { Order::CutLink { peer } } else { Order::MendLink { peer } };
        self.order(number, &order).await.map(|_| ())
    }

    /// The bytes that the running nodes have relayed so far.
    pub(crate) async fn relayed_bytes(&mut self) -> Result<u64> {
        let mut relayed = 0;
        for number in self.running(&[]) {
            relayed += self.mesh(number).await?.relayed_bytes;
        }
        Ok(relayed)
    }

    /// The connections of the running nodes: the node, the peer, the epoch.
    pub(crate) async fn epochs(&mut self) -> Result<BTreeSet<(usize, u64, u64)>> {
        let mut epochs = BTreeSet::new();
        for number in self.running(&[]) {
            let peers = self.status(number).await?.peers;
            epochs.extend(peers.into_iter().map(|(peer, epoch)| (number, peer, epoch)));
        }
        Ok(epochs)
    }

    /// The node after node `number` in the ring.
    pub(crate) fn next(&self, number: usize) -> usize {
        number % self.len() + 1
    }

    /// Waits until every node is connected to every other, and two neighbours reach each other directly.
    pub(crate) async fn settled(&mut self, pair: [usize; 2], limit: Duration) -> Result<()> {
        let begun = Instant::now();
        loop {
            let connections = self.len() * (self.len() - 1);
            let mut is_settled = self.epochs().await?.len() == connections;
            for (from, to) in [(pair[0], pair[1]), (pair[1], pair[0])] {
                let to = init::node_id(to)?.get();
                is_settled &= self.mesh(from).await?.next.contains(&(to, to));
            }
            if is_settled {
                return Ok(());
            }
            if begun.elapsed() > limit {
                bail!("not every node is connected to every other after {limit:?}");
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Writes to the CRDT keyspace of node `number`.
    pub(crate) async fn crdt_write(
        &mut self,
        number: usize,
        prefix: &str,
        count: u32,
        amount: i64,
    ) -> Result<()> {
        let order = Order::CrdtWrite { prefix: prefix.to_owned(), count, amount };
        match self.order(number, &order).await? {
            Reply::Done => Ok(()),
            other => bail!("node {number} sent an unexpected reply: {other:?}"),
        }
    }

    pub(crate) async fn crdt_state(&mut self, number: usize) -> Result<CrdtState> {
        match self.order(number, &Order::CrdtState).await? {
            Reply::Crdt(state) => Ok(state),
            other => bail!("node {number} sent an unexpected reply: {other:?}"),
        }
    }

    /// Waits until the CRDT keyspaces of all running nodes are identical. Returns their state.
    pub(crate) async fn crdt_converged(&mut self, limit: Duration) -> Result<CrdtState> {
        let begun = Instant::now();
        loop {
            let mut states = Vec::new();
            for number in self.running(&[]) {
                states.push(self.crdt_state(number).await?);
            }
            let is_same = states.windows(2).all(|pair| pair[0].frontier == pair[1].frontier);
            match states.pop() {
                Some(state) if is_same => return Ok(state),
                _ if begun.elapsed() > limit => bail!("the CRDT keyspaces still differ after {limit:?}"),
                _ => tokio::time::sleep(POLL).await,
            }
        }
    }

    /// The leader of the highest term among these nodes, once it and most of the nodes report it.
    pub(crate) async fn leader(&mut self, among: &[usize], limit: Duration) -> Result<(usize, u64)> {
        let begun = Instant::now();
        loop {
            let mut statuses = Vec::new();
            for &number in among {
                statuses.push((number, self.status(number).await?));
            }
            let term = statuses.iter().map(|(_, status)| status.term).max().unwrap_or(0);
            let leads = statuses.iter().find(|(_, status)| status.is_leader && status.term == term);
            if let Some(&(leader, _)) = leads {
                let id = init::node_id(leader)?.get();
                let follow = statuses.iter().filter(|(_, status)| status.leader == Some(id)).count();
                if follow * 2 > self.len() {
                    return Ok((leader, term));
                }
            }
            if begun.elapsed() > limit {
                bail!("there is no leader after {limit:?}: {statuses:?}");
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Kills node `number` and keeps its port reserved.
    pub(crate) fn kill(&mut self, number: usize) -> Result<Instant> {
        let place = &mut self.places[number - 1];
        let process = place.process.take().with_context(|| format!("node {number} is not running"))?;
        let killed = Instant::now();
        process.kill()?;
        place.held = match &self.ring {
            Some(ring) => ring.hold(number),
            None => UdpSocket::bind(place.address).ok(),
        };
        Ok(killed)
    }

    /// Starts node `number` again, from its folder.
    pub(crate) async fn restart(&mut self, number: usize) -> Result<()> {
        let folder = self.layout.node(number);
        let place = &mut self.places[number - 1];
        let begun = Instant::now();
        drop(place.held.take());
        loop {
            match NodeProcess::start(number, &folder, self.ring.as_ref()).await {
                Ok(process) => {
                    place.process = Some(process);
                    place.started = Instant::now();
                    return Ok(());
                }
                Err(StartError::Other(error)) => return Err(error),
                Err(StartError::PortInUse) if begun.elapsed() > RESTART_LIMIT => {
                    bail!("another program took the port of node {number}, {}", place.address)
                }
                Err(StartError::PortInUse) => tokio::time::sleep(POLL).await,
            }
        }
    }

    /// Waits until node `number` has applied all entries up to `index`.
    pub(crate) async fn applied(&mut self, number: usize, index: u64, limit: Duration) -> Result<()> {
        let begun = Instant::now();
        loop {
            let status = self.status(number).await?;
            if status.applied >= index {
                return Ok(());
            }
            if begun.elapsed() > limit {
                bail!("node {number} has applied {} of {index} entries after {limit:?}", status.applied);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Issues a new identity to node `number` and waits until every other node has accepted it on a new
    /// connection.
    pub(crate) async fn rotate(&mut self, root: &Path, number: usize, limit: Duration) -> Result<()> {
        let before: BTreeMap<u64, u64> = self.status(number).await?.peers.into_iter().collect();
        let others = self.running(&[number]);
        let others = others.into_iter().map(|other| Ok(init::node_id(other)?.get()));
        let others = others.collect::<Result<Vec<_>>>()?;
        init::issue(root, Some(number), VALIDITY)?;
        self.order(number, &Order::Reload).await?;
        let begun = Instant::now();
        loop {
            let now: BTreeMap<u64, u64> = self.status(number).await?.peers.into_iter().collect();
            if others.iter().all(|other| now.get(other) > before.get(other)) {
                return Ok(());
            }
            if begun.elapsed() > limit {
                bail!("some nodes have not accepted the new identity of node {number} after {limit:?}");
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Stops every node in an orderly way.
    pub(crate) async fn stop(self) -> Result<()> {
        for place in self.places {
            if let Some(process) = place.process {
                process.stop().await?;
            }
        }
        Ok(())
    }
}

/// The links of node `number` in a ring: one to the next node and one to the node before. Both ends dial, so
/// that a node that was started again waits for no other.
fn loopback_ring(number: usize, ends: &[SocketAddr]) -> String {
    let count = ends.len() / 2;
    // Link n, from 0, joins the nodes n + 1 and n + 2 by the ends 2n and 2n + 1.
    let (after, before) = (number - 1, (number + count - 2) % count);
    let links = [(ends[2 * after], ends[2 * after + 1]), (ends[2 * before + 1], ends[2 * before])];
    let link =
        |(own, neighbour)| format!("\n[[links]]\naddress = \"{own}\"\nneighbours = [\"{neighbour}\"]\n");
    links.into_iter().map(link).collect()
}

/// The link of a spare node, with the first ends of two links of the ring as its neighbours.
#[cfg(unix)]
fn spare_link(own: SocketAddr, ends: &[SocketAddr]) -> String {
    let neighbours: Vec<_> = ends.iter().step_by(4).take(2).map(|end| format!("\"{end}\"")).collect();
    format!("\n[[links]]\naddress = \"{own}\"\nneighbours = [{}]\n", neighbours.join(", "))
}

/// Unused addresses below the range of ephemeral ports, so that the system assigns none of them to another
/// program while a node is down.
fn free_addresses(count: usize) -> Result<Vec<SocketAddr>> {
    const PORTS: std::ops::Range<u16> = 20_000..32_000;
    let mut held = Vec::new();
    // The start differs from run to run, so that concurrent runs do not collide.
    let begin = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id());
    let begin = u16::try_from(begin % u64::from(PORTS.end - PORTS.start))?;
    for offset in 0..PORTS.end - PORTS.start {
        let port = PORTS.start + (begin + offset) % (PORTS.end - PORTS.start);
        if let Ok(socket) = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)) {
            held.push(socket);
        }
        if held.len() == count {
            return held.iter().map(|socket| Ok(socket.local_addr()?)).collect();
        }
    }
    bail!(
        "fewer than {count} ports of 127.0.0.1 are free between {} and {}: stop other programs that use them",
        PORTS.start,
        PORTS.end
    )
}

fn append(path: &Path, lines: &str) -> Result<()> {
    use std::io::Write as _;
    let mut file = std::fs::File::options().append(true).open(path)?;
    file.write_all(lines.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}

fn empty(root: &Path) -> Result<()> {
    for entry in std::fs::read_dir(root)? {
        std::fs::remove_dir_all(entry?.path())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_distinct_and_free() {
        let mut addresses = free_addresses(9).unwrap();
        for address in &addresses {
            UdpSocket::bind(address).unwrap();
        }
        addresses.dedup();
        assert_eq!(addresses.len(), 9);
    }

    #[test]
    fn the_links_of_a_ring_join_each_node_with_the_next() {
        let end = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let ends: Vec<SocketAddr> = (0..6).map(end).collect();
        let links = |number| {
            let text = loopback_ring(number, &ends);
            let addresses: Vec<String> = text.split('"').skip(1).step_by(2).map(str::to_owned).collect();
            addresses.join(" ").replace("127.0.0.1:", "")
        };
        assert_eq!([1, 2, 3].map(links), ["0 1 5 4", "2 3 1 0", "4 5 3 2"]);
    }
}
