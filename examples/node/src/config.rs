//! The configuration files of a node and of a client.

pub(crate) mod address;
mod environment;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, de};
use x0_identity::{NodeId, SpiffeId};

use self::address::Address;
use crate::federation::EndpointConfig;
use crate::heal::config::HealConfig;
use crate::http::config::HttpConfig;
use crate::identity::renew::IssuerConfig;
use crate::mesh::LinkConfig;
use crate::observe::config::ObserveConfig;
use crate::observe::trace::receiver::Receiver;
use crate::rag::config::RagConfig;

/// The configuration of `x0-node run`. Paths in the file are relative to its folder.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeConfig {
    /// The id of this node, which is one of `members`.
    #[serde(deserialize_with = "node_id")]
    pub(crate) node: NodeId,
    /// The SPIFFE trust domain of all members.
    pub(crate) trust_domain: String,
    /// The UDP address to listen on.
    #[serde(deserialize_with = "address")]
    pub(crate) listen: SocketAddr,
    /// The folder of the log and the data, which is created if it is absent.
    pub(crate) data_dir: PathBuf,
    /// The storage engine.
    #[serde(default)]
    pub(crate) engine: Engine,
    /// Certificate chain and key, PEM.
    pub(crate) svid: PathBuf,
    /// The authorities that are trusted, PEM.
    pub(crate) bundle: PathBuf,
    /// The secret hash key of the CRDT keyspace, the same on all members; without it the node has no such
    /// keyspace.
    #[serde(default, deserialize_with = "crdt_key")]
    pub(crate) crdt_key: Option<[u8; 16]>,
    /// The space that is kept free on the disk of the data, in MiB: with less the node refuses writes.
    #[serde(default = "reserve_mib_default")]
    pub(crate) reserve_mib: u64,
    /// Whether the node sets a damaged data file aside and gets its data from the other members, instead of
    /// refusing to start.
    #[serde(default)]
    pub(crate) repair: bool,
    /// Whether the node joins a running cluster instead of founding one with the others.
    #[serde(default)]
    pub(crate) join: bool,
    /// The SPIFFE IDs of the operators, who may change the members and the leader.
    #[serde(default, deserialize_with = "spiffe_ids")]
    pub(crate) operators: Vec<SpiffeId>,
    /// Every node of the cluster, this one included. Members that are added later are in the member table of
    /// the cluster.
    pub(crate) members: Vec<Member>,
    /// The links of the node: with any, members are reached over the mesh, and their addresses are those for
    /// clients.
    #[serde(default)]
    pub(crate) links: Vec<LinkConfig>,
    /// A number for the place of the node, which all nodes of the mesh learn.
    #[serde(default)]
    pub(crate) region: u16,
    /// Whether the node forwards for others over its links.
    #[serde(default = "yes")]
    pub(crate) relay: bool,
    /// The listeners of the HTTP front.
    #[serde(default)]
    pub(crate) http: Vec<HttpConfig>,
    /// The limits of the probes, and the traces.
    #[serde(default)]
    pub(crate) observe: ObserveConfig,
    /// Retrieval over collections of documents.
    #[serde(default)]
    pub(crate) rag: Option<RagConfig>,
    /// The healer of the node.
    #[serde(default)]
    pub(crate) heal: HealConfig,
    /// The issuer that renews the SVID, and issues the first one.
    #[serde(default)]
    pub(crate) issuer: Option<IssuerConfig>,
    /// The endpoint from which other trust domains fetch the bundle of the cluster.
    #[serde(default)]
    pub(crate) bundle_endpoint: Option<EndpointConfig>,
}

/// The configuration of `x0-node kv`, `status`, `member` and `leader`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClientConfig {
    /// The SPIFFE trust domain of the cluster.
    pub(crate) trust_domain: String,
    /// Certificate chain and key, PEM. Any number of commands may use them at once.
    pub(crate) svid: PathBuf,
    /// The authorities that are trusted, PEM.
    pub(crate) bundle: PathBuf,
    /// The time after which an operation fails, in milliseconds.
    #[serde(default = "timeout_ms_default")]
    pub(crate) timeout_ms: u64,
    /// The receiver of the spans of traced commands (`kv --trace`); without it a trace has the spans of the
    /// nodes alone.
    #[serde(default)]
    pub(crate) traces: Option<Receiver>,
    /// The trust domain of the nodes, if it is another one than that of `svid`.
    #[serde(default)]
    pub(crate) cluster: Option<ClusterConfig>,
    /// Every node of the cluster.
    pub(crate) members: Vec<Member>,
}

/// The foreign trust domain whose nodes a client dials: they federate with that of the client.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClusterConfig {
    /// The SPIFFE trust domain of the nodes.
    pub(crate) trust_domain: String,
    /// Its bundle as JSON, which `x0-node bundle federate export` prints.
    pub(crate) bundle: PathBuf,
}

/// A node of the cluster and its address.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Member {
    #[serde(deserialize_with = "node_id")]
    pub(crate) node: NodeId,
    pub(crate) address: Address,
}

/// The storage engine of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Engine {
    /// A file on disk: a start continues at the last checkpoint.
    #[default]
    Redb,
    /// Memory: a start replays the log and its snapshot.
    Memory,
}

impl Engine {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Engine::Redb => "redb",
            Engine::Memory => "memory",
        }
    }
}

/// The failure to load a configuration. Nothing was started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error(
        "cannot read the configuration {}; `x0-node init` writes one and prints its path",
        .path.display()
    )]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot parse the configuration {}: {reason}", .path.display())]
    Parse { path: PathBuf, reason: String },
    #[error(
        "{} is the configuration of {is}, and this command needs that of {needed}: name another file with --config",
        .path.display()
    )]
    Kind { path: PathBuf, is: &'static str, needed: &'static str },
    #[error("{}: node {node} is listed twice in `members`; give each node an id of its own", .path.display())]
    DuplicateNode { path: PathBuf, node: NodeId },
    #[error(
        "{}: nodes {first} and {second} have the same address {address}; give each an address of its own",
        .path.display()
    )]
    DuplicateAddress { path: PathBuf, address: Address, first: NodeId, second: NodeId },
    #[error("{}: `node` is {node}, which is not among `members`; add it there, with its address", .path.display())]
    NotAMember { path: PathBuf, node: NodeId },
    #[error("{}: `{field}` is empty; it needs at least one entry", .path.display())]
    Empty { path: PathBuf, field: &'static str },
    #[error("{}: `{field}` names {}, which does not exist; `x0-node issue` writes identities", .path.display(), .file.display())]
    Missing { path: PathBuf, field: &'static str, file: PathBuf },
    #[error("{}: {reason}", .path.display())]
    Section { path: PathBuf, reason: String },
}

impl NodeConfig {
    /// Reads and checks the file at `path`.
    pub(crate) fn load(path: &Path) -> Result<NodeConfig, ConfigError> {
        NodeConfig::load_with(path, |name| std::env::var(name).ok())
    }

    /// As [`load`](NodeConfig::load), with these variables of the environment.
    fn load_with(path: &Path, variable: impl Fn(&str) -> Option<String>) -> Result<NodeConfig, ConfigError> {
        let overrides = environment::overrides(variable)
            .map_err(|reason| ConfigError::Section { path: path.into(), reason })?;
        let text = text(path)?;
        let table: toml::Table = parse(path, &text)?;
        if overrides.is_empty() && table.contains_key("members") && !table.keys().any(|key| is_of_node(key)) {
            return Err(ConfigError::Kind { path: path.into(), is: CLIENT, needed: "a node" });
        }
        let mut config: NodeConfig = if overrides.is_empty() {
            parse(path, &text)?
        } else {
            let mut table = table;
            table.extend(overrides);
            table.try_into().map_err(|error: toml::de::Error| ConfigError::Parse {
                path: path.into(),
                reason: error.message().to_owned(),
            })?
        };
        check_members(path, &config.members)?;
        if !config.members.iter().any(|member| member.node == config.node) {
            return Err(ConfigError::NotAMember { path: path.into(), node: config.node });
        }
        for file in [&mut config.svid, &mut config.bundle, &mut config.data_dir] {
            *file = beside(path, file);
        }
        match &mut config.issuer {
            // The first SVID comes from the issuer.
            Some(issuer) => {
                for file in [&mut issuer.token, &mut issuer.tpm].into_iter().flatten() {
                    *file = beside(path, file);
                }
            }
            None => present(path, "svid", &config.svid)?,
        }
        present(path, "bundle", &config.bundle)?;
        config.check_sections(path).map_err(|reason| ConfigError::Section { path: path.into(), reason })?;
        Ok(config)
    }

    /// Checks `[[http]]`, `[observe]`, `[heal]` and `[rag]`, and makes their paths relative to the
    /// configuration.
    fn check_sections(&mut self, path: &Path) -> Result<(), String> {
        self.observe.check()?;
        self.heal.check()?;
        if let Some(endpoint) = &mut self.bundle_endpoint {
            endpoint.check()?;
            for file in [&mut endpoint.certificate, &mut endpoint.key].into_iter().flatten() {
                *file = beside(path, file);
            }
        }
        for listener in &mut self.http {
            listener.check(self.rag.is_some())?;
            for file in [&mut listener.certificate, &mut listener.key].into_iter().flatten() {
                *file = beside(path, file);
            }
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        self.rag.as_mut().map_or(Ok(()), |rag| rag.check(folder, self.crdt_key.is_some()))
    }

    /// The other members.
    pub(crate) fn peers(&self) -> impl Iterator<Item = Member> + '_ {
        self.members.iter().filter(|member| member.node != self.node).cloned()
    }
}

impl ClientConfig {
    /// Reads and checks the file at `path`.
    pub(crate) fn load(path: &Path) -> Result<ClientConfig, ConfigError> {
        let text = text(path)?;
        if parse::<toml::Table>(path, &text)?.keys().any(|key| is_of_node(key)) {
            return Err(ConfigError::Kind { path: path.into(), is: "a node", needed: CLIENT });
        }
        let mut config: ClientConfig = parse(path, &text)?;
        check_members(path, &config.members)?;
        config.svid = beside(path, &config.svid);
        present(path, "svid", &config.svid)?;
        config.bundle = beside(path, &config.bundle);
        present(path, "bundle", &config.bundle)?;
        if let Some(cluster) = &mut config.cluster {
            cluster.bundle = beside(path, &cluster.bundle);
            present(path, "cluster.bundle", &cluster.bundle)?;
        }
        Ok(config)
    }
}

/// The owners of the other kind of configuration.
const CLIENT: &str = "a client or an operator";

/// Whether this is a field of a node that clients do not have, and that no node can be without.
fn is_of_node(field: &str) -> bool {
    ["node", "listen", "data_dir"].contains(&field)
}

fn text(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })
}

/// The message of an error names the line and does not show it, nor a value: it may hold `crdt_key`.
fn parse<T: de::DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start));
        let line = before.map(|before| format!("line {}: ", before.matches('\n').count() + 1));
        let reason = format!("{}{}", line.unwrap_or_default(), without_value(error.message()));
        ConfigError::Parse { path: path.into(), reason }
    })
}

/// The message of an error without the value of a wrong type, such as "invalid type: integer `7`, expected a
/// string".
fn without_value(message: &str) -> Cow<'_, str> {
    let parts = || {
        let (before, rest) = message.split_once("invalid type: ")?;
        let (found, expected) = rest.rsplit_once(", expected ")?;
        Some((before, found.split(['`', '"']).next()?.trim_end(), expected))
    };
    match parts() {
        Some((before, kind, expected)) => format!("{before}invalid type: {kind}, expected {expected}").into(),
        None => message.into(),
    }
}

fn check_members(path: &Path, members: &[Member]) -> Result<(), ConfigError> {
    if members.is_empty() {
        return Err(ConfigError::Empty { path: path.into(), field: "members" });
    }
    let mut nodes = BTreeMap::new();
    let mut addresses = BTreeMap::new();
    for Member { node, address } in members {
        let node = *node;
        if nodes.insert(node, address).is_some() {
            return Err(ConfigError::DuplicateNode { path: path.into(), node });
        }
        if let Some(first) = addresses.insert(address, node) {
            let address = address.clone();
            return Err(ConfigError::DuplicateAddress { path: path.into(), address, first, second: node });
        }
    }
    Ok(())
}

/// The path of `file` relative to the folder of the configuration at `path`.
fn beside(path: &Path, file: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).join(file)
}

fn present(path: &Path, field: &'static str, file: &Path) -> Result<(), ConfigError> {
    if file.is_file() {
        return Ok(());
    }
    Err(ConfigError::Missing { path: path.into(), field, file: file.into() })
}

fn yes() -> bool {
    true
}

fn reserve_mib_default() -> u64 {
    64
}

fn timeout_ms_default() -> u64 {
    10_000
}

fn node_id<'de, D: Deserializer<'de>>(from: D) -> Result<NodeId, D::Error> {
    String::deserialize(from)?.parse().map_err(de::Error::custom)
}

fn spiffe_ids<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<SpiffeId>, D::Error> {
    let parse = |text: String| {
        text.parse().map_err(|error| de::Error::custom(format!("`{text}` is not a SPIFFE ID: {error}")))
    };
    Vec::<String>::deserialize(from)?.into_iter().map(parse).collect()
}

fn crdt_key<'de, D: Deserializer<'de>>(from: D) -> Result<Option<[u8; 16]>, D::Error> {
    let text = String::deserialize(from)?;
    let key = u128::from_str_radix(&text, 16).ok().filter(|_| text.len() == 32 && !text.starts_with('+'));
    match key {
        Some(key) => Ok(Some(key.to_be_bytes())),
        // Without the text, which may be a secret with a typing mistake.
        None => Err(de::Error::custom(
            "`crdt_key` is not a key: write 32 hexadecimal digits, the same on every member",
        )),
    }
}

pub(crate) fn address<'de, D: Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(from)?;
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 => Ok(address),
        _ => Err(de::Error::custom(format!(
            "`{text}` is not an address: write IP:PORT with a port from 1 to 65535, such as 127.0.0.1:7401"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
node = "0000000000000001"
trust_domain = "example.org"
listen = "127.0.0.1:7401"
data_dir = "data"
svid = "svid.pem"
bundle = "bundle.pem"
[[members]]
node = "0000000000000001"
address = "127.0.0.1:7401"
[[members]]
node = "0000000000000002"
address = "127.0.0.1:7402"
"#;

    fn load(text: &str) -> Result<NodeConfig, String> {
        let folder = tempfile::tempdir().unwrap();
        for file in ["svid.pem", "bundle.pem"] {
            std::fs::write(folder.path().join(file), "").unwrap();
        }
        let path = folder.path().join("node.toml");
        std::fs::write(&path, text).unwrap();
        NodeConfig::load(&path).map_err(|error| crate::causes::causes(&error.into()))
    }

    #[test]
    fn a_good_file_is_read_and_its_paths_are_beside_it() {
        let config = load(GOOD).unwrap();
        assert_eq!((config.engine, config.join, config.members.len()), (Engine::Redb, false, 2));
        assert!(config.data_dir.is_absolute() && config.data_dir.ends_with("data"));
        assert_eq!(config.peers().map(|peer| peer.node.get()).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn the_environment_replaces_values_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        for file in ["svid.pem", "bundle.pem"] {
            std::fs::write(folder.path().join(file), "").unwrap();
        }
        let path = folder.path().join("node.toml");
        std::fs::write(&path, GOOD.replace("127.0.0.1:7402", "x0-1.x0:7402")).unwrap();
        let load = |pairs: &'static [(&str, &str)]| {
            NodeConfig::load_with(&path, |name| {
                pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            })
        };
        let config =
            load(&[("X0_NODE_ID", "x0-1"), ("X0_LISTEN", "127.0.0.1:9"), ("X0_DATA_DIR", "/var/x0")])
                .unwrap();
        assert_eq!((config.node.get(), config.listen.port()), (2, 9));
        assert_eq!(config.data_dir, Path::new("/var/x0"));
        assert_eq!(load(&[]).unwrap().members[1].address.to_string(), "x0-1.x0:7402");
        let config = load(&[("X0_MEMBERS", "1=a:1,2=b:2,3=c:3")]).unwrap();
        assert_eq!(config.members.len(), 3);
        // What the environment gives is checked as the file is.
        let error = load(&[("X0_NODE_ID", "x0-8")]).unwrap_err().to_string();
        assert!(error.contains("not among `members`"), "{error}");
        let error = load(&[("X0_NODE_ID", "pod")]).unwrap_err().to_string();
        assert!(error.contains("X0_NODE_ID"), "{error}");
    }

    /// Each bad file is refused, by a message that holds the words a person needs to find the cause.
    #[test]
    fn bad_files_are_refused_with_cause_and_remedy() {
        let check = |from: &str, to: &str, expect: &[&str]| {
            let message = load(&GOOD.replacen(from, to, 1)).unwrap_err();
            for word in expect {
                assert!(message.contains(word), "{message:?} lacks {word:?}");
            }
        };
        check("data_dir", "datadir", &["unknown field `datadir`", "`data_dir`", "line 5"]);
        check("listen = \"127.0.0.1:7401\"", "listen = \"127.0.0.1:70000\"", &["70000", "1 to 65535"]);
        check("listen = \"127.0.0.1:7401\"", "listen = \"127.0.0.1:0\"", &["1 to 65535"]);
        check("listen = \"127.0.0.1:7401\"", "listen = 7401", &["invalid type: integer", "line 4"]);
        check("listen = \"127.0.0.1:7401\"\n", "", &["missing field `listen`"]);
        check("0000000000000002", "0000000000000001", &["0000000000000001 is listed twice"]);
        check("127.0.0.1:7402", "127.0.0.1:7401", &["same address 127.0.0.1:7401"]);
        check("node = \"0000000000000001\"", "node = \"0000000000000007\"", &["not among `members`"]);
        check("node = \"0000000000000001\"", "node = \"1\"", &["16 hexadecimal digits"]);
        check("node = \"0000000000000001\"", "node = \"0000000000000000\"", &["number nodes from 1"]);
        check("svid.pem", "other.pem", &["`svid`", "other.pem", "does not exist", "x0-node issue"]);
        check("svid = ", "engine = \"tape\"\nsvid = ", &["unknown variant `tape`", "`redb`"]);
        check("svid = ", "operators = [\"bob\"]\nsvid = ", &["`bob` is not a SPIFFE ID", "spiffe://"]);
    }

    /// A secret in a file that is not understood is not shown, and a file for another command is named as
    /// such.
    #[test]
    fn a_file_of_another_kind_is_named_and_no_secret_is_shown() {
        let secret = "0123456789abcdef0123456789abcdef";
        let node = GOOD.replacen("data_dir", &format!("crdt_key = \"{secret}\"\ndata_dir"), 1);
        let folder = tempfile::tempdir().unwrap();
        for file in ["svid.pem", "bundle.pem"] {
            std::fs::write(folder.path().join(file), "").unwrap();
        }
        let path = folder.path().join("a.toml");
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        write(&node);
        let error = ClientConfig::load(&path).unwrap_err().to_string();
        assert!(error.contains("the configuration of a node") && error.contains("--config"), "{error}");
        write(&node.replacen("crdt_key", "crdt_kay", 1));
        let error = NodeConfig::load(&path).unwrap_err().to_string();
        assert!(error.contains("line 5: unknown field `crdt_kay`") && !error.contains(secret), "{error}");
        write(&GOOD.replacen("listen = ", "listen ", 1));
        let error = NodeConfig::load(&path).unwrap_err().to_string();
        assert!(error.contains("line 4: ") && !error.contains("7401\""), "{error}");
        // A key that lacks its quotes.
        write(&GOOD.replacen("data_dir", "crdt_key = 1234567890123456\ndata_dir", 1));
        let error = NodeConfig::load(&path).unwrap_err().to_string();
        assert!(error.contains("line 5: invalid type: integer, expected a string"), "{error}");
        assert!(!error.contains("1234567890123456"), "{error}");
        let members = GOOD.split_once("[[members]]").unwrap().1;
        let client =
            "trust_domain = \"example.org\"\nsvid = \"svid.pem\"\nbundle = \"bundle.pem\"\n[[members]]";
        write(&format!("{client}{members}"));
        assert_eq!(ClientConfig::load(&path).unwrap().members.len(), 2);
        let error = NodeConfig::load(&path).unwrap_err().to_string();
        assert!(error.contains("the configuration of a client or an operator"), "{error}");
    }

    #[test]
    fn the_healer_is_configured_or_refused() {
        use crate::heal::config::HealMode;
        assert_eq!(load(GOOD).unwrap().heal.mode, HealMode::DryRun);
        let config = load(&format!("{GOOD}[heal]\nmode = \"active\"\nslow_disk_ms = 500\n")).unwrap();
        assert_eq!((config.heal.mode, config.heal.slow_disk_ms), (HealMode::Active, 500));
        let check = |section: &str, expect: &[&str]| {
            let message = load(&format!("{GOOD}[heal]\n{section}\n")).unwrap_err();
            for word in expect {
                assert!(message.contains(word), "{message:?} lacks {word:?}");
            }
        };
        check("mode = \"brave\"", &["unknown variant `brave`", "`dry-run`", "`active`"]);
        check("slow_disk_ms = 7", &["`heal.slow_disk_ms` is 7", "at least 100"]);
        check("replace_after_s = 3", &["`heal.replace_after_s` is 3", "at least 10", "remove the line"]);
        check("voters = 4", &["`heal.voters` is 4", "write 1, 3, 5", "remove the line"]);
        check("voters = 0", &["`heal.voters` is 0"]);
        check("memory_max_mib = 63", &["`heal.memory_max_mib` is 63", "at least 64", "remove the line"]);
        check(
            "restart_isolated_s = 59",
            &["`heal.restart_isolated_s` is 59", "at least 60", "remove the line"],
        );
        check("slow = 7", &["unknown field `slow`", "`slow_disk_ms`"]);
        load(&format!("{GOOD}[heal]\nmemory_max_mib = 64\nrestart_isolated_s = 60\n")).unwrap();
    }

    #[test]
    fn sections_are_checked() {
        let section = "[[http]]\naddress = \"127.0.0.1:7501\"\nroutes = [\"rag\"]\ntls = \"off\"\n[rag]\n\
                       collections = [{ name = \"manuals\" }, { name = \"notes\" }]\n";
        let config = load(&format!("{GOOD}{section}")).unwrap();
        assert_eq!((config.http.len(), config.rag.unwrap().collections.len()), (1, 2));
        let check = |from: &str, to: &str, expect: &[&str]| {
            let message = load(&format!("{GOOD}{}", section.replacen(from, to, 1))).unwrap_err();
            for word in expect {
                assert!(message.contains(word), "{message:?} lacks {word:?}");
            }
        };
        check("127.0.0.1:7501", "0.0.0.0:7501", &["loopback", "\"mutual\""]);
        check("\"off\"", "\"server\"", &["`certificate` and `key`"]);
        check("\"off\"", "\"off\"\nkey = \"a\"", &["`certificate` and `key`"]);
        check("\"off\"", "\"none\"", &["unknown variant `none`"]);
        check("[\"rag\"]", "[]", &["no `routes`"]);
        check("\"notes\"", "\"manuals\"", &["listed twice"]);
        check("\"notes\"", "\"no tes\"", &["ASCII letters"]);
        check("\"notes\"", "\"notes\", store = \"crdt\"", &["crdt_key"]);
        check("[rag]", "[rag]\nmodel = \"missing\"", &["model.safetensors", "rag model"]);
        check(
            "collections = [{ name = \"manuals\" }, { name = \"notes\" }]",
            "collections = []",
            &["no `collections`"],
        );
        let start = section.find("[rag]").unwrap();
        let message = load(&format!("{GOOD}{}", &section[..start])).unwrap_err();
        assert!(message.contains("add the section [rag]"), "{message}");
    }

    #[test]
    fn a_missing_file_names_itself() {
        let error = NodeConfig::load(Path::new("/no/such.toml")).unwrap_err().to_string();
        assert!(error.contains("/no/such.toml") && error.contains("x0-node init"), "{error}");
    }
}
