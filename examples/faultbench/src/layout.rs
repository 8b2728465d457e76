//! The folders of a cluster, as `x0-node init` writes them, with the addresses of an arena.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use x0_identity::{Authority, NodeId, X509Svid};

use crate::arena::{Arena, LINK_PORT, Place, SECOND_LINK_PORT};

/// The port of every node: each has an address of its own.
pub(crate) const PORT: u16 = 7401;
/// The first of the ports that `x0-node init` is given, which no configuration keeps.
const FIRST_PORT: u16 = 20_001;

/// See the [module](self).
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Writes identities and configurations of `count` nodes, of a client and of an operator.
    pub(crate) fn create(program: &Path, root: &Path, arena: &Arena, count: usize) -> Result<Layout> {
        let layout = Layout { root: root.to_owned() };
        let mut init = Command::new(program);
        init.args(["init", "--trust-domain", "faults.test", "--nodes", &count.to_string()]);
        init.args(["--base-port", &FIRST_PORT.to_string(), "--dir"]).arg(root);
        let output = init.output().with_context(|| format!("cannot run {}", program.display()))?;
        if !output.status.success() {
            bail!("x0-node init failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let nodes = (0..count).map(|place| layout.node_config(place));
        for path in nodes.chain([layout.client_config(), layout.operator_config()]) {
            address(&path, arena, count)?;
        }
        Ok(layout)
    }

    pub(crate) fn node(&self, place: Place) -> PathBuf {
        self.root.join(format!("node-{}", place + 1))
    }

    pub(crate) fn node_config(&self, place: Place) -> PathBuf {
        self.node(place).join("node.toml")
    }

    pub(crate) fn client_config(&self) -> PathBuf {
        self.root.join("client/client.toml")
    }

    pub(crate) fn operator_config(&self) -> PathBuf {
        self.root.join("operator/operator.toml")
    }

    /// Issues an identity to one more node, and writes its configuration.
    pub(crate) fn extend(&self, program: &Path, arena: &Arena, place: Place) -> Result<()> {
        let mut issue = Command::new(program);
        issue.args(["issue", "--node", &(place + 1).to_string()]);
        issue.args(["--address", &format!("{}:{PORT}", arena.address(place)), "--dir"]).arg(&self.root);
        let output = issue.output().with_context(|| format!("cannot run {}", program.display()))?;
        if !output.status.success() {
            bail!("x0-node issue failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    /// Adds links over both networks of the arena to the configurations of all nodes.
    pub(crate) fn add_links(&self, arena: &Arena, count: usize) -> Result<()> {
        let second = |place| arena.second_address(place).context("there is no second network");
        for place in 0..count {
            let (mut first_of, mut second_of) = (Vec::new(), Vec::new());
            for other in (0..count).filter(|other| *other != place) {
                first_of.push(format!("{}:{LINK_PORT}", arena.address(other)));
                second_of.push(format!("{}:{SECOND_LINK_PORT}", second(other)?));
            }
            let first = link(&format!("{}:{LINK_PORT}", arena.address(place)), &first_of);
            let links = first + &link(&format!("{}:{SECOND_LINK_PORT}", second(place)?), &second_of);
            let path = self.node_config(place);
            let text =
                std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            std::fs::write(&path, text + &links)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    /// The command that renews the SVID of a node.
    pub(crate) fn renewal(&self, program: &Path, place: Place) -> Result<Vec<String>> {
        let text = |path: &Path| path.to_str().map(ToOwned::to_owned).context("a path is not UTF-8");
        let node = (place + 1).to_string();
        Ok(vec![text(program)?, "issue".into(), "--node".into(), node, "--dir".into(), text(&self.root)?])
    }

    /// An SVID of a node, with its key, that is valid for a short time from now on.
    pub(crate) fn short_svid(&self, place: Place, validity: Duration) -> Result<String> {
        let authority = self.root.join("authority/authority.pem");
        let pem =
            std::fs::read(&authority).with_context(|| format!("cannot read {}", authority.display()))?;
        let svid = std::fs::read(self.node(place).join("svid.pem")).context("cannot read an SVID")?;
        let spiffe_id = X509Svid::from_pem(&svid)?.spiffe_id().clone();
        Ok(Authority::from_pem(&pem)?.issue(&spiffe_id, validity)?.to_pem())
    }

    /// Writes the configuration of a client that knows one node only, and returns its path. The node may be a
    /// spare, which the configuration of the other clients does not name.
    pub(crate) fn single_client(&self, arena: &Arena, place: Place) -> Result<PathBuf> {
        let all = self.client_config();
        let text = std::fs::read_to_string(&all).with_context(|| format!("cannot read {}", all.display()))?;
        let node = NodeId::new(place as u64 + 1).context("a place has a node")?;
        let single = single_member(&text, node, &format!("{}:{PORT}", arena.address(place)));
        let path = self.root.join(format!("client/client-{}.toml", place + 1));
        std::fs::write(&path, single).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

/// A client's configuration with this member in the place of all others.
fn single_member(text: &str, node: NodeId, address: &str) -> String {
    let head = text.split("[[members]]").next().unwrap_or_default();
    format!("{head}[[members]]\nnode = \"{node}\"\naddress = \"{address}\"\n")
}

/// A section of the configuration of a node.
fn link(own: &str, neighbours: &[String]) -> String {
    format!("\n[[links]]\naddress = \"{own}\"\nneighbours = {neighbours:?}\n")
}

/// Puts the addresses of the namespaces into a configuration.
fn address(path: &Path, arena: &Arena, count: usize) -> Result<()> {
    let mut text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    for place in 0..count {
        let port = FIRST_PORT + u16::try_from(place)?;
        let address = format!("{}:{PORT}", arena.address(place));
        text = text.replace(&format!("127.0.0.1:{port}"), &address);
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_a_section_of_its_own() {
        let text = link("10.0.0.2:7601", &["10.0.0.6:7601".into(), "10.0.0.10:7601".into()]);
        let parsed: toml::Table = toml::from_str(&text).unwrap();
        assert_eq!(parsed["links"][0]["neighbours"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn a_client_of_one_node_keeps_the_rest_of_the_configuration() {
        let text = "timeout_ms = 1\n\n[[members]]\nnode = \"1\"\n\n[[members]]\nnode = \"2\"\n";
        let spare = NodeId::new(4).unwrap();
        let parsed: toml::Table = toml::from_str(&single_member(text, spare, "10.0.0.4:7401")).unwrap();
        let members = parsed["members"].as_array().unwrap();
        assert_eq!((parsed["timeout_ms"].as_integer(), members.len()), (Some(1), 1));
        assert_eq!(members[0]["node"].as_str(), Some(&*spare.to_string()));
        assert_eq!(members[0]["address"].as_str(), Some("10.0.0.4:7401"));
    }
}
