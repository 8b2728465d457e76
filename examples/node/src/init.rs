//! `x0-node init` and `issue`: the authority, identities and configurations of a cluster.

use std::fmt::Write as _;
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use x0_identity::{Authority, AuthorityOptions, NodeId, SpiffeId, TrustDomain};

use crate::config::address::Address;
use crate::config::{Engine, Member, NodeConfig};
use crate::issuer;
use crate::issuer::entries::Entries;

/// The paths of the SPIFFE IDs of the client and the operator.
const CLIENT_PATH: [&str; 2] = ["client", "1"];
const OPERATOR_PATH: [&str; 2] = ["operator", "1"];
const AUTHORITY_VALIDITY: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The paths in a folder of `init`: `authority/`, `node-1/` and so on, `client/`, `operator/`.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: &Path) -> Layout {
        Layout { root: root.to_owned() }
    }

    /// The folder of node `number`, counted from 1.
    pub(crate) fn node(&self, number: usize) -> PathBuf {
        self.root.join(format!("node-{number}"))
    }

    pub(crate) fn node_config(&self, number: usize) -> PathBuf {
        self.node(number).join("node.toml")
    }

    pub(crate) fn client_config(&self) -> PathBuf {
        self.client().join("client.toml")
    }

    pub(crate) fn operator_config(&self) -> PathBuf {
        self.operator().join("operator.toml")
    }

    fn operator(&self) -> PathBuf {
        self.root.join("operator")
    }

    fn client(&self) -> PathBuf {
        self.root.join("client")
    }

    pub(crate) fn authority(&self) -> PathBuf {
        self.root.join("authority/authority.pem")
    }

    pub(crate) fn bundle(&self) -> PathBuf {
        self.root.join("authority/bundle.pem")
    }

    /// An authority that does not issue yet.
    pub(crate) fn next_authority(&self) -> PathBuf {
        self.root.join("authority/next.pem")
    }

    /// The files with the bundle of the cluster that are not those of nodes.
    pub(crate) fn bundles(&self) -> [PathBuf; 3] {
        [self.bundle(), self.client().join("bundle.pem"), self.operator().join("bundle.pem")]
    }

    /// The folder of what was revoked, a file for each.
    pub(crate) fn revoked(&self) -> PathBuf {
        self.root.join("authority/revoked")
    }

    /// The relationships with other trust domains.
    pub(crate) fn federation(&self) -> PathBuf {
        self.root.join("authority/federation.json")
    }

    /// The registration entries of the issuer.
    pub(crate) fn entries(&self) -> PathBuf {
        self.root.join("authority/entries.json")
    }
}

/// The id of node `number`, counted from 1.
pub(crate) fn node_id(number: usize) -> Result<NodeId> {
    NodeId::new(u64::try_from(number)?).context("nodes are numbered from 1")
}

/// As [`init_with`], without an issuer.
pub(crate) fn init(
    root: &Path,
    trust_domain: &str,
    addresses: &[SocketAddr],
    engine: Engine,
    validity: Duration,
) -> Result<Layout> {
    init_with(root, trust_domain, addresses, engine, validity, None)
}

/// Writes an authority, a node for each address, a client and an operator. `root` must be empty or absent.
/// Nodes renew their SVIDs at the address of the issuer, if there is one.
pub(crate) fn init_with(
    root: &Path,
    trust_domain: &str,
    addresses: &[SocketAddr],
    engine: Engine,
    validity: Duration,
    issuer: Option<&Address>,
) -> Result<Layout> {
    let trust_domain = domain(trust_domain)?;
    let cannot = || format!("cannot create the folder {}; choose another one with --dir", root.display());
    std::fs::create_dir_all(root).with_context(cannot)?;
    if std::fs::read_dir(root).with_context(cannot)?.next().is_some() {
        bail!("the folder {} is not empty: name an empty or new one with --dir", root.display());
    }
    let layout = Layout::new(root);
    let authority = new_authority(&trust_domain)?;
    let bundle = authority.bundle().to_pem();
    write_private(&layout.authority(), &authority.to_pem())?;
    write_public(&layout.bundle(), &bundle)?;

    let members = (1..)
        .zip(addresses)
        .map(|(number, &address)| Ok(Member { node: node_id(number)?, address: address.into() }));
    let members = members.collect::<Result<Vec<_>>>()?;
    let crdt_key = random_key()?;
    let mut entries = Entries::open(&layout)?;
    for (number, member) in (1..).zip(&members) {
        let folder = layout.node(number);
        issue_to(&authority, &folder.join("svid.pem"), member.node, validity)?;
        entries.put(&SpiffeId::for_node(&trust_domain, member.node), validity, &[])?;
        write_public(&folder.join("bundle.pem"), &bundle)?;
        let (member, issuer) = (member.clone(), issuer.cloned());
        let own = OwnPart { member, engine, crdt_key: Some(crdt_key), is_joining: false, issuer };
        let config = node_toml(&own, &trust_domain, &[operator_id(&trust_domain)?], &members);
        write_private(&layout.node_config(number), &config)?;
    }
    issue_to_guests(&authority, &layout, validity)?;
    for guest in [client_id(&trust_domain)?, operator_id(&trust_domain)?] {
        entries.put(&guest, validity, &[])?;
    }
    entries.save()?;
    for (folder, config) in
        [(layout.client(), layout.client_config()), (layout.operator(), layout.operator_config())]
    {
        write_public(&folder.join("bundle.pem"), &bundle)?;
        write_public(&config, &client_toml(&trust_domain, &members))?;
    }
    Ok(layout)
}

/// Writes an identity and a configuration for one more node, which joins the cluster in `root`. Returns the
/// path of its configuration.
pub(crate) fn extend(root: &Path, number: usize, address: SocketAddr, validity: Duration) -> Result<PathBuf> {
    let layout = Layout::new(root);
    let authority = authority(&layout)?;
    let folder = layout.node(number);
    if folder.exists() {
        bail!("the folder {} exists: give the new node another number", folder.display());
    }
    // All nodes have the same settings. The first that is still there lends its own.
    let config = (1..number).map(|other| layout.node_config(other)).find(|path| path.is_file());
    let config = config.context("no folder of another node is here to copy the settings from")?;
    let config = NodeConfig::load(&config)?;
    let member = Member { node: node_id(number)?, address: address.into() };
    let mut members = config.members.clone();
    if let Some(taken) = members.iter().find(|other| other.address == member.address) {
        bail!("node {} has the address {address}: choose another one", taken.node);
    }
    members.push(member.clone());
    issue_to(&authority, &folder.join("svid.pem"), member.node, validity)?;
    let mut entries = Entries::open(&layout)?;
    entries.put(&SpiffeId::for_node(authority.trust_domain(), member.node), validity, &[])?;
    entries.save()?;
    drop(entries);
    let bundle = crate::identity::load_bundle(authority.trust_domain().clone(), &layout.bundle())?;
    write_public(&folder.join("bundle.pem"), &bundle.to_pem())?;
    let crdt_key = config.crdt_key.map(u128::from_be_bytes);
    let issuer = config.issuer.map(|issuer| issuer.address);
    let own = OwnPart { member, engine: config.engine, crdt_key, is_joining: true, issuer };
    let text = node_toml(&own, authority.trust_domain(), &config.operators, &members);
    write_private(&layout.node_config(number), &text)?;
    Ok(layout.node_config(number))
}

/// Creates an authority.
pub(crate) fn new_authority(trust_domain: &TrustDomain) -> Result<Authority> {
    let options = AuthorityOptions::default().validity(AUTHORITY_VALIDITY);
    Authority::new(trust_domain.clone(), &options).context("cannot create an authority")
}

/// The authority that `init` wrote.
pub(crate) fn authority(layout: &Layout) -> Result<Authority> {
    let path = layout.authority();
    let pem = std::fs::read(&path).with_context(|| {
        format!("cannot read {}; --dir names the folder that `x0-node init` wrote", path.display())
    })?;
    Authority::from_pem(&pem).with_context(|| format!("cannot use the authority in {}", path.display()))
}

/// Issues new identities with the authority in `root`: to a node, or to the client and the operator.
pub(crate) fn issue(root: &Path, node: Option<usize>, validity: Duration) -> Result<()> {
    let layout = Layout::new(root);
    let authority = authority(&layout)?;
    let Some(number) = node else { return issue_to_guests(&authority, &layout, validity) };
    let folder = layout.node(number);
    if !folder.is_dir() {
        bail!(
            "the folder {} does not exist: --node takes the number of a node that `x0-node init` wrote",
            folder.display()
        );
    }
    issue_to(&authority, &folder.join("svid.pem"), node_id(number)?, validity)
}

fn domain(name: &str) -> Result<TrustDomain> {
    name.parse().with_context(|| format!("`{name}` is not a valid trust domain"))
}

fn issue_to(authority: &Authority, path: &Path, node: NodeId, validity: Duration) -> Result<()> {
    issue_id(authority, path, &SpiffeId::for_node(authority.trust_domain(), node), validity)
}

fn issue_id(authority: &Authority, path: &Path, id: &SpiffeId, validity: Duration) -> Result<()> {
    let svid =
        issuer::sign(authority, id, validity).with_context(|| format!("cannot issue an identity to {id}"))?;
    write_private(path, &svid.to_pem())
}

/// Issues an identity to the client and one to the operator.
pub(crate) fn issue_to_guests(authority: &Authority, layout: &Layout, validity: Duration) -> Result<()> {
    let domain = authority.trust_domain();
    issue_id(authority, &layout.client().join("svid.pem"), &client_id(domain)?, validity)?;
    issue_id(authority, &layout.operator().join("svid.pem"), &operator_id(domain)?, validity)
}

fn client_id(domain: &TrustDomain) -> Result<SpiffeId> {
    Ok(SpiffeId::from_segments(domain, &CLIENT_PATH)?)
}

fn operator_id(domain: &TrustDomain) -> Result<SpiffeId> {
    Ok(SpiffeId::from_segments(domain, &OPERATOR_PATH)?)
}

/// The part of a node's configuration that differs between nodes.
struct OwnPart {
    member: Member,
    engine: Engine,
    crdt_key: Option<u128>,
    is_joining: bool,
    issuer: Option<Address>,
}

fn random_key() -> Result<u128> {
    let mut key = [0; 16];
    getrandom::fill(&mut key).context("cannot read random bytes from the operating system")?;
    Ok(u128::from_be_bytes(key))
}

fn node_toml(
    own: &OwnPart,
    trust_domain: &TrustDomain,
    operators: &[SpiffeId],
    members: &[Member],
) -> String {
    let operators: Vec<String> = operators.iter().map(|operator| format!("\"{operator}\"")).collect();
    let crdt_key = own.crdt_key.map_or_else(String::new, |key| {
        format!("# A secret of the members, the same on each.\ncrdt_key = \"{key:032x}\"\n")
    });
    let issuer = own.issuer.as_ref().map_or_else(String::new, |address| {
        format!("\n# `x0-node issuer` renews the SVID. For a first SVID: token = FILE, from `x0-node entry add`.\n[issuer]\naddress = \"{address}\"\n")
    });
    let join = if own.is_joining { "# The node joins a running cluster.\njoin = true\n" } else { "" };
    format!(
        "# x0-node run --config this file. Paths are relative to its folder.\n\
         node = \"{}\"\n\
         trust_domain = \"{trust_domain}\"\n\
         listen = \"{}\"\n\
         data_dir = \"data\"\n\
         engine = \"{}\"\n\
         svid = \"svid.pem\"\n\
         bundle = \"bundle.pem\"\n\
         {crdt_key}\
         {join}\
         # SPIFFE IDs that may change the members and the leader.\n\
         operators = [{}]\n\
         {}\
         {issuer}",
        own.member.node,
        own.member.address,
        own.engine.name(),
        operators.join(", "),
        members_toml(members)
    )
}

fn client_toml(trust_domain: &TrustDomain, members: &[Member]) -> String {
    format!(
        "# x0-node kv, status, member and leader: --config this file.\n\
         trust_domain = \"{trust_domain}\"\n\
         svid = \"svid.pem\"\n\
         bundle = \"bundle.pem\"\n\
         timeout_ms = 10000\n\
         {}",
        members_toml(members)
    )
}

fn members_toml(members: &[Member]) -> String {
    let mut text = String::new();
    for Member { node, address } in members {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n[[members]]\nnode = \"{node}\"\naddress = \"{address}\"\n");
    }
    text
}

pub(crate) fn write_public(path: &Path, text: &str) -> Result<()> {
    write_bytes(path, text.as_bytes(), 0o644)
}

pub(crate) fn write_private(path: &Path, text: &str) -> Result<()> {
    write_bytes(path, text.as_bytes(), 0o600)
}

/// As [`write_private`], of bytes.
pub(crate) fn write_secret(path: &Path, bytes: &[u8]) -> Result<()> {
    write_bytes(path, bytes, 0o600)
}

/// Replaces the file atomically and durably: a concurrent reader sees the whole old or the whole new one, and
/// after a loss of power the new one is there.
fn write_bytes(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let cannot = || format!("cannot write {}", path.display());
    let folder = folder_of(path).with_context(cannot)?;
    std::fs::create_dir_all(folder).with_context(cannot)?;
    let mut file = tempfile::Builder::new();
    #[cfg(unix)]
    file.permissions(std::os::unix::fs::PermissionsExt::from_mode(mode));
    let mut file = file.tempfile_in(folder).with_context(cannot)?;
    file.write_all(bytes).with_context(cannot)?;
    file.as_file().sync_all().with_context(cannot)?;
    file.persist(path).with_context(cannot)?;
    // The new name is durable with its folder, and not before. Some file systems of a network synchronise
    // files alone, and refuse it.
    #[cfg(unix)]
    match std::fs::File::open(folder).and_then(|folder| folder.sync_all()) {
        Err(error) if !matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
            return Err(error).with_context(cannot);
        }
        _ => {}
    }
    Ok(())
}

/// The folder of a file. A path without one is of the working directory, which cannot be opened as "".
fn folder_of(path: &Path) -> Option<&Path> {
    path.parent().map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ClientConfig, NodeConfig};

    #[test]
    fn a_file_without_a_folder_is_in_the_working_directory() {
        let folder = |path: &'static str| folder_of(Path::new(path)).map(|folder| folder.to_str().unwrap());
        assert_eq!(folder("svid.pem"), Some("."));
        assert_eq!(folder("node-1/svid.pem"), Some("node-1"));
        assert_eq!(folder("/svid.pem"), Some("/"));
        assert_eq!(folder("/"), None);
        std::fs::File::open(folder("svid.pem").unwrap()).unwrap();
    }

    const DAY: Duration = Duration::from_secs(86_400);

    fn addresses(count: u16) -> Vec<SocketAddr> {
        (0..count).map(|number| SocketAddr::from(([127, 0, 0, 1], 7401 + number))).collect()
    }

    #[test]
    fn files_of_init_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("new");
        let layout = init(&root, "example.org", &addresses(3), Engine::Memory, DAY).unwrap();
        for number in 1..=3 {
            let config = NodeConfig::load(&layout.node_config(number)).unwrap();
            assert_eq!(config.node, node_id(number).unwrap());
            assert_eq!((config.members.len(), config.engine), (3, Engine::Memory));
            assert!(config.crdt_key.is_some_and(|key| key != [0; 16]));
            crate::identity::load(&config.trust_domain, &config.svid, &config.bundle).unwrap();
        }
        for (config, path) in
            [(layout.client_config(), "/client/1"), (layout.operator_config(), "/operator/1")]
        {
            let config = ClientConfig::load(&config).unwrap();
            let identity = crate::identity::load(&config.trust_domain, &config.svid, &config.bundle).unwrap();
            assert_eq!(identity.spiffe_id().path(), path);
        }
    }

    #[test]
    fn one_more_node_has_the_settings_of_the_others_and_joins() {
        let folder = tempfile::tempdir().unwrap();
        let layout = init(folder.path(), "example.org", &addresses(3), Engine::Memory, DAY).unwrap();
        let address: SocketAddr = ([127, 0, 0, 1], 7404).into();
        let path = extend(folder.path(), 4, address, DAY).unwrap();
        let (new, old) =
            (NodeConfig::load(&path).unwrap(), NodeConfig::load(&layout.node_config(1)).unwrap());
        assert!(new.join && !old.join && new.listen == address);
        assert_eq!((new.engine, new.crdt_key, &new.operators), (old.engine, old.crdt_key, &old.operators));
        assert_eq!((new.operators.len(), new.members.len(), new.peers().count()), (1, 4, 3));
        crate::identity::load(&new.trust_domain, &new.svid, &new.bundle).unwrap();
        let again = extend(folder.path(), 4, address, DAY).unwrap_err().to_string();
        assert!(again.contains("exists"), "{again}");
        let taken = extend(folder.path(), 5, addresses(1)[0], DAY).unwrap_err().to_string();
        assert!(taken.contains("has the address"), "{taken}");
    }

    #[cfg(unix)]
    #[test]
    fn keys_are_for_their_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let layout = init(folder.path(), "example.org", &addresses(1), Engine::Redb, DAY).unwrap();
        let files = [
            layout.authority(),
            layout.node(1).join("svid.pem"),
            layout.node_config(1),
            layout.client().join("svid.pem"),
            layout.operator().join("svid.pem"),
        ];
        for key in files {
            assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{}", key.display());
        }
    }

    #[test]
    fn a_folder_that_is_not_empty_is_not_changed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("mine"), "x").unwrap();
        let error = init(folder.path(), "example.org", &addresses(1), Engine::Redb, DAY).unwrap_err();
        assert!(error.to_string().contains("not empty"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_bad_trust_domain_is_refused_before_anything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("new");
        let error = init(&root, "Example.org", &addresses(1), Engine::Redb, DAY).unwrap_err();
        assert!(error.to_string().contains("`Example.org` is not a valid trust domain"), "{error}");
        assert!(!root.exists());
    }

    #[test]
    fn issuing_again_changes_the_identity_and_keeps_the_name() {
        let folder = tempfile::tempdir().unwrap();
        let layout = init(folder.path(), "example.org", &addresses(2), Engine::Redb, DAY).unwrap();
        let config = NodeConfig::load(&layout.node_config(2)).unwrap();
        let identity = || crate::identity::load(&config.trust_domain, &config.svid, &config.bundle).unwrap();
        let before = identity();
        issue(folder.path(), Some(2), DAY).unwrap();
        assert_ne!(identity().svid_serial_number(), before.svid_serial_number());
        assert_eq!(identity().node_id(), before.node_id());
        assert!(issue(folder.path(), Some(3), DAY).unwrap_err().to_string().contains("node-3"));
        issue(folder.path(), None, DAY).unwrap();
    }
}
