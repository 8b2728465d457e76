//! A node of a cluster that federates: it takes the relationships that the authority signed, and fetches the
//! bundles of their trust domains.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use x0_identity::federation::{Client, ClientOptions, FederatedBundles, RelationshipStatus};
use x0_identity::{Identity, SignedStatement, SpiffeBundle, TrustDomain};
use x0_kv::crdt::CrdtEntry;
use x0_kv::{CrdtStore, Store};

use super::endpoint::Endpoint;
use super::relationships::{self, PURPOSE, Relationships, Row};
use crate::causes::causes;
use crate::config::NodeConfig;
use crate::follow::{Follower, follow};
use crate::identity::report::fingerprint;
use crate::init::write_public;
use crate::log::Log;

/// The file with the relationships, in the folder of the federation.
const FILE: &str = "relationships.json";

/// The state of the federation as a node reports it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FederationReport {
    /// The number of the statement that the node follows; 0 without one.
    pub(crate) sequence: u64,
    pub(crate) domains: Vec<FederatedRow>,
}

/// A foreign trust domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FederatedRow {
    pub(crate) trust_domain: String,
    /// The authorities of its bundle, by their fingerprints.
    pub(crate) authorities: Vec<String>,
    /// The sequence number of its bundle.
    pub(crate) bundle_sequence: Option<u64>,
    /// Whether a fetch has succeeded since the node started or the relationship changed.
    pub(crate) is_fetched: bool,
    /// Why the last fetch failed; `None` after a success.
    pub(crate) failure: Option<String>,
    /// The SPIFFE IDs that are admitted.
    pub(crate) clients: Vec<String>,
}

/// The federation of a node. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Federation(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    identity: Identity,
    folder: PathBuf,
    log: Log,
    client: Client,
    endpoint: Option<Endpoint>,
    /// The relationships that the node follows.
    current: Mutex<Relationships>,
}

/// Takes the bundles that are fetched: for the identity, and for the next start.
#[derive(Debug)]
struct Keeper {
    identity: Identity,
    folder: PathBuf,
    log: Log,
}

impl FederatedBundles for Keeper {
    fn updated(&self, bundle: &SpiffeBundle) {
        let domain = bundle.trust_domain();
        if let Err(error) = write_public(&file_of(&self.folder, domain), &bundle.to_json()) {
            self.log.event("federation-failed", format!("trust_domain={domain} why={}", causes(&error)));
        }
        FederatedBundles::updated(&self.identity, bundle);
        let count = bundle.trust_bundle().authorities().len();
        let sequence = bundle.sequence().map_or_else(|| "none".to_owned(), |sequence| sequence.to_string());
        self.log.event(
            "federated-bundle",
            format!(
                "trust_domain={domain} sequence={sequence} authorities={count} refused={}",
                bundle.refused().len()
            ),
        );
    }

    fn removed(&self, trust_domain: &TrustDomain) {
        FederatedBundles::removed(&self.identity, trust_domain);
        // Without the file, or with one that cannot be removed, nothing reads it: there is no relationship.
        let _ = std::fs::remove_file(file_of(&self.folder, trust_domain));
        self.log.event("federation-ended", format!("trust_domain={trust_domain}"));
    }
}

/// Names of trust domains have letters, digits, dots, dashes and underscores only.
fn file_of(folder: &Path, trust_domain: &TrustDomain) -> PathBuf {
    folder.join(format!("bundle-{trust_domain}.json"))
}

impl Federation {
    /// Serves the bundle of the cluster, if the configuration says so, goes on with the relationships of the
    /// last start, and follows those of the store on a task of the runtime, until the store is closed.
    pub(crate) fn start(
        store: &Store,
        identity: &Identity,
        config: &NodeConfig,
        log: &Log,
    ) -> Result<Federation> {
        let folder = config.data_dir.join("federation");
        let keeper = Keeper { identity: identity.clone(), folder: folder.clone(), log: log.clone() };
        let client = Client::start(Arc::new(keeper), ClientOptions::default())?;
        let endpoint = config.bundle_endpoint.as_ref();
        let endpoint = endpoint.map(|endpoint| Endpoint::start(endpoint, identity, &config.bundle));
        let endpoint = endpoint.transpose()?;
        let (identity, log, current) = (identity.clone(), log.clone(), Mutex::default());
        let federation = Federation(Arc::new(Shared { identity, folder, log, client, endpoint, current }));
        if let Some(before) = federation.stored()? {
            federation.apply(before);
        }
        if config.crdt_key.is_some() {
            let reader = Reader { federation: federation.clone(), newest: None };
            follow(relationships::keyspace(store)?, federation.0.log.clone(), reader)?;
        }
        Ok(federation)
    }

    /// Serves the bundle that the node trusts now.
    pub(crate) fn publish(&self) -> Result<()> {
        self.0.endpoint.as_ref().map_or(Ok(()), Endpoint::publish)
    }

    pub(crate) fn report(&self) -> FederationReport {
        let (current, status) = (self.current().clone(), self.0.client.status());
        let row = |row: &Row| {
            let of = |status: &&RelationshipStatus| {
                status.relationship.trust_domain().as_str() == row.trust_domain
            };
            let status = status.iter().find(of);
            let bundle = status.and_then(|status| status.bundle.as_ref());
            let roots = bundle.map(|bundle| bundle.trust_bundle().authorities()).unwrap_or_default();
            let failure = status.and_then(|status| status.failure.clone());
            FederatedRow {
                trust_domain: row.trust_domain.clone(),
                authorities: roots.iter().map(|root| fingerprint(root)).collect(),
                bundle_sequence: bundle.and_then(SpiffeBundle::sequence),
                is_fetched: status.is_some_and(|status| status.fetched_at.is_some()),
                failure: failure.map(|failure| causes(&failure.into())),
                clients: row.clients.clone(),
            }
        };
        FederationReport {
            sequence: current.sequence,
            domains: current.relationships.iter().map(row).collect(),
        }
    }

    fn current(&self) -> MutexGuard<'_, Relationships> {
        self.0.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn own(&self) -> &TrustDomain {
        self.0.identity.spiffe_id().trust_domain()
    }

    /// The relationships of the last start, which were verified before they were written.
    fn stored(&self) -> Result<Option<Relationships>> {
        let path = self.0.folder.join(FILE);
        let cannot =
            || format!("cannot use {}: remove it, and the node follows the store again", path.display());
        match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            json => Relationships::from_json(self.own(), &json.with_context(cannot)?)
                .with_context(cannot)
                .map(Some),
        }
    }

    /// Follows these relationships in the place of the current ones. They were checked.
    fn apply(&self, next: Relationships) {
        let before = self.current().clone();
        for old in &before.relationships {
            if next.of(&old.trust_domain).is_none() && self.end(old).is_err() {
                self.0.log.event("federation-failed", format!("trust_domain={}", old.trust_domain));
            }
        }
        for row in &next.relationships {
            if let Err(error) = self.begin(before.of(&row.trust_domain), row) {
                let why = causes(&error);
                self.0.log.event("federation-failed", format!("trust_domain={} why={why}", row.trust_domain));
            }
        }
        *self.current() = next;
    }

    fn begin(&self, before: Option<&Row>, row: &Row) -> Result<()> {
        let domain = row.domain()?;
        // First of all: no moment is open to the whole domain.
        self.0.identity.restrict(&domain, Some(row.admitted()?))?;
        if before.is_some_and(|before| row.has_endpoint_of(before)) {
            return Ok(());
        }
        // A bundle that the operator has replaced counts from now on.
        let is_kept = before.is_none_or(|before| before.bundle == row.bundle);
        let stored = is_kept.then(|| std::fs::read(file_of(&self.0.folder, &domain)).ok()).flatten();
        let stored = stored.and_then(|json| SpiffeBundle::from_json(domain, &json).ok());
        self.0.client.establish(row.relationship(stored)?)?;
        Ok(())
    }

    fn end(&self, row: &Row) -> Result<()> {
        let domain = row.domain()?;
        // The bundle is gone when the call returns; then the restriction has nothing to restrict.
        self.0.client.terminate(domain.clone())?;
        Ok(self.0.identity.restrict(&domain, None)?)
    }

    fn verified(&self, bytes: &[u8]) -> Option<Relationships> {
        let identity = &self.0.identity;
        let signed = SignedStatement::from_bytes(PURPOSE, bytes).ok()?;
        let content = signed.verify(&identity.trust_bundle(), &identity.revocations()).ok()?;
        Relationships::from_json(self.own(), content).ok()
    }
}

/// Takes the statements of the store.
struct Reader {
    federation: Federation,
    /// The statement that the node follows, with its key.
    newest: Option<(String, Bytes)>,
}

impl Follower for Reader {
    const UNREAD: &'static str = "federation-unread";

    /// Takes the newest statement that an authority has signed.
    async fn take(&mut self, store: &CrdtStore, entries: Vec<CrdtEntry>) -> Result<()> {
        let Reader { federation, newest } = self;
        let mut found = None;
        for entry in &entries {
            let Some(all) = federation.verified(&entry.value) else { continue };
            if relationships::key(all.sequence).as_bytes() == &entry.key[..] {
                // Keys are in the order of the numbers.
                found = Some((all, entry.value.clone()));
            }
        }
        if let Some((all, bytes)) = found {
            let sequence = all.sequence;
            let is_known = newest.as_ref().is_some_and(|(key, _)| *key >= relationships::key(sequence));
            if !is_known && sequence >= federation.current().sequence {
                *newest = Some((relationships::key(sequence), bytes));
            }
            if sequence > federation.current().sequence {
                let follower = federation.clone();
                // Writing waits for the disk, and the client for its thread.
                let taken = tokio::task::spawn_blocking(move || -> Result<()> {
                    write_public(&follower.0.folder.join(FILE), &all.to_json()?)?;
                    follower.apply(all);
                    Ok(())
                });
                taken.await??;
                federation.0.log.event("federation-changed", format!("sequence={sequence}"));
            }
        }
        // Anyone who may write to the store may remove a key, and must not keep a statement from others with
        // it.
        if let Some((key, bytes)) = newest
            && !entries.iter().any(|entry| entry.key == key.as_bytes())
        {
            store.put(key.clone(), bytes.clone()).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use x0_identity::{Authority, AuthorityOptions, SpiffeId, TrustBundle};
    use x0_kv::{CrdtOptions, StoreOptions};

    use super::*;
    use crate::log::record::Format;

    const NODE: &str = "
        node = \"0000000000000001\"
        trust_domain = \"a.example\"
        listen = \"127.0.0.1:7401\"
        data_dir = \"data\"
        svid = \"svid.pem\"
        bundle = \"bundle.pem\"
        crdt_key = \"00000000000000000000000000000001\"
        [[members]]
        node = \"0000000000000001\"
        address = \"127.0.0.1:7401\"
    ";

    fn authority(domain: &str) -> Authority {
        Authority::new(domain.parse().unwrap(), &AuthorityOptions::default()).unwrap()
    }

    /// Nothing listens there: the bundle to begin with stays.
    fn row(of: &Authority, client: &str) -> Row {
        let bundle = SpiffeBundle::new(of.bundle()).to_json();
        Row {
            trust_domain: of.trust_domain().to_string(),
            url: "https://127.0.0.1:1/".into(),
            endpoint: Some(format!("spiffe://{}/endpoint", of.trust_domain())),
            bundle: Some(serde_json::from_str(&bundle).unwrap()),
            clients: vec![format!("spiffe://{}/{client}", of.trust_domain())],
        }
    }

    async fn until(condition: impl Fn() -> bool) {
        let waited = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), waited).await.unwrap();
    }

    #[tokio::test]
    async fn the_newest_statement_of_the_authority_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let options = StoreOptions::new().crdt(CrdtOptions::new([1; 16]));
        let store = Store::open_with(folder.path().join("store"), &options).unwrap();
        let (own, stranger, other) = (authority("a.example"), authority("a.example"), authority("b.example"));
        for (file, text) in
            [("svid.pem", String::new()), ("bundle.pem", own.bundle().to_pem()), ("node.toml", NODE.into())]
        {
            std::fs::write(folder.path().join(file), text).unwrap();
        }
        let config = NodeConfig::load(&folder.path().join("node.toml")).unwrap();
        let hour = Duration::from_secs(3600);
        let svid = own.issue(&SpiffeId::parse("spiffe://a.example/own").unwrap(), hour).unwrap();
        let identity = Identity::new(svid, own.bundle()).unwrap();
        let keys = relationships::keyspace(&store).unwrap();
        let put = async |by: &Authority, sequence: u64, rows: Vec<Row>, at: u64| {
            let all = Relationships { sequence, relationships: rows };
            keys.put(relationships::key(at), all.sign(by).unwrap().to_bytes()).await.unwrap();
        };
        let admits = |client: &str| {
            let id = SpiffeId::parse(&format!("spiffe://b.example/{client}")).unwrap();
            let svid = other.issue(&id, hour).unwrap();
            let now = std::time::SystemTime::now();
            identity.admit(svid.chain(), x0_identity::PeerRole::Client, now).is_ok()
        };
        put(&own, 1, vec![row(&other, "one")], 1).await;
        // Another authority, another place than its number says, and a rule that is broken.
        put(&stranger, 8, Vec::new(), 8).await;
        put(&own, 7, Vec::new(), 9).await;
        put(&own, 6, vec![row(&own, "one")], 6).await;
        let log = Log::start("test", Format::Text).unwrap();
        let federation = Federation::start(&store, &identity, &config, &log).unwrap();
        until(|| federation.report().sequence == 1).await;
        assert!(admits("one") && !admits("two"));
        until(|| federation.report().domains[0].failure.is_some()).await;
        let report = federation.report().domains.remove(0);
        assert_eq!(report.authorities, [fingerprint(other.certificate())]);
        assert!(!report.is_fetched && report.bundle_sequence.is_none(), "{report:?}");

        put(&own, 2, vec![row(&other, "two")], 2).await;
        until(|| federation.report().sequence == 2).await;
        assert!(!admits("one") && admits("two"));
        // An older one changes nothing, and the newest is put back.
        put(&own, 1, vec![row(&other, "one")], 1).await;
        keys.delete(relationships::key(2)).await.unwrap();
        let back = async {
            while keys.get(relationships::key(2)).await.unwrap().is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), back).await.unwrap();
        assert!(!admits("one") && admits("two"));

        // A node that starts again has them before it reads the store.
        let svid = own.issue(identity.spiffe_id(), hour).unwrap();
        let again = Identity::new(svid, own.bundle()).unwrap();
        let path = folder.path().join("other");
        let empty = Store::open_with(path, &options).unwrap();
        let restarted = Federation::start(&empty, &again, &config, &log).unwrap();
        assert_eq!(restarted.report().sequence, 2);
        let domain: TrustDomain = "b.example".parse().unwrap();
        assert!(
            again
                .verifier()
                .verify_with_grace(
                    other.issue(&SpiffeId::parse("spiffe://b.example/two").unwrap(), hour).unwrap().chain(),
                    Duration::ZERO,
                    std::time::SystemTime::now(),
                )
                .is_ok()
        );
        let file = file_of(&folder.path().join("data/federation"), &domain);
        assert!(file.is_file());

        put(&own, 3, Vec::new(), 3).await;
        until(|| federation.report().sequence == 3).await;
        assert!(!admits("two") && federation.report().domains.is_empty());
        assert!(!file.exists());
        // A bundle of the own trust domain is none of a relationship.
        assert_eq!(identity.trust_bundle(), TrustBundle::clone(&own.bundle()));
    }
}
