//! The nodes of a run, from `x0-node init` to a cluster that is well.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};

use super::node::{Node, Start};
use crate::arena::Arena;
use crate::layout::Layout;

/// The disk of a node: a log, a journal and their spare files, and room for the data.
const DISK: &str = "size=448m";
const POLL: Duration = Duration::from_millis(100);

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) arena: Arena,
    pub(super) nodes: Vec<Node>,
    pub(super) program: PathBuf,
    layout: Layout,
}

impl Cluster {
    /// Writes identities and configurations, and gives each node a disk of its own.
    pub(super) fn new(program: PathBuf, root: &Path, count: usize) -> Result<Cluster> {
        let arena = Arena::new(count)?;
        let layout = Layout::create(&program, &root.join("cluster"), &arena, count)?;
        let nodes = (0..count).map(|place| Node::new(place, layout.node(place))).collect();
        let cluster = Cluster { nodes, arena, program, layout };
        for node in &cluster.nodes {
            std::fs::create_dir_all(node.data())?;
            let flags = MsFlags::empty();
            mount(Some("x0-torture"), &node.data(), Some("tmpfs"), flags, Some(DISK))
                .with_context(|| format!("cannot mount a disk at {}", node.data().display()))?;
        }
        Ok(cluster)
    }

    pub(super) fn client_config(&self) -> PathBuf {
        self.layout.client_config()
    }

    /// Starts a node that is down.
    pub(super) fn start(&mut self, place: usize) -> Result<Start> {
        self.nodes[place].start(&self.arena, &self.program)
    }

    /// The node that leads, as it says itself.
    pub(super) fn leader(&mut self) -> Result<Option<usize>> {
        for node in &mut self.nodes {
            if node.status()?.is_some_and(|status| status.is_leader) {
                return Ok(Some(node.place));
            }
        }
        Ok(None)
    }

    /// Waits until all nodes have one leader and have applied the same. A reason if they do not in time.
    pub(super) fn wait_until_well(&mut self, limit: Duration) -> Result<Result<(), String>> {
        let begun = Instant::now();
        loop {
            let why = match self.trouble()? {
                None => return Ok(Ok(())),
                Some(why) => why,
            };
            if begun.elapsed() > limit {
                return Ok(Err(why));
            }
            std::thread::sleep(POLL);
        }
    }

    /// Why the cluster is not well; `None` if it is.
    fn trouble(&mut self) -> Result<Option<String>> {
        let mut seen = Vec::new();
        for node in &mut self.nodes {
            if let Some(status) = node.ended()? {
                return Ok(Some(format!("node {} ended with {status}; {}", node.number(), node.log_end())));
            }
            let Some(status) = node.status()? else {
                return Ok(Some(format!("node {} gives no status; {}", node.number(), node.log_end())));
            };
            seen.push((node.number(), status));
        }
        let Some((_, first)) = seen.first() else { return Ok(None) };
        let is_same = seen.iter().all(|(_, status)| {
            status.leader.is_some()
                && status.leader == first.leader
                && status.applied == first.applied
                && status.applied == status.committed
        });
        let words = seen.iter().map(|(number, status)| {
            let leader = status.leader.map_or_else(|| "none".to_owned(), |leader| leader.to_string());
            format!(
                "node {number}: leader {leader}, committed {}, applied {}",
                status.committed, status.applied
            )
        });
        Ok((!is_same).then(|| words.collect::<Vec<_>>().join("; ")))
    }

    /// Compares all keys and values of the replicas. A reason if they differ.
    pub(super) fn compare(&mut self) -> Result<Result<(), String>> {
        let mut digests = Vec::new();
        for node in &mut self.nodes {
            let digest = node.order("digest", Duration::from_secs(30))?;
            let Some(digest) = digest else {
                return Ok(Err(format!("node {} gives no digest; {}", node.number(), node.log_end())));
            };
            digests.push((digest.applied, digest.entries, digest.sum));
        }
        // Nothing is written at this time, so that all have applied the same entries.
        let is_same = digests.windows(2).all(|two| two[0] == two[1]);
        Ok(is_same
            .then_some(())
            .ok_or_else(|| format!("the replicas differ (applied, keys, hash): {digests:?}")))
    }
}
