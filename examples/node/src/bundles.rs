//! The bundle of a running cluster: each next one is signed by an authority of the one before, and is a key
//! of the CRDT keyspace. A node writes it to its file, and what watches the file takes it into use.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use bytes::Bytes;
use x0_identity::{Identity, SignedBundle, TrustBundle, TrustDomain};
use x0_kv::crdt::CrdtEntry;
use x0_kv::{CrdtStore, Store};

use crate::follow::{Follower, follow};
use crate::init::write_public;
use crate::log::Log;

/// The keyspace in the CRDT store.
const KEYSPACE: &str = "x0-bundles";
/// The mark in the file of a bundle, before its sequence number.
const MARK: &str = "# sequence ";
/// The second line of a bundle that an issuer gave in the place of the published one of that number.
const OF_ISSUER: &str = "# of the issuer, in the place of the published bundle\n";

/// Held while the file of a bundle is read to be replaced: the follower and the renewal of the SVID are two
/// tasks of a node.
static REPLACING: Mutex<()> = Mutex::new(());

/// Lets this thread alone replace files of bundles until the guard is dropped.
pub(crate) fn replacing() -> MutexGuard<'static, ()> {
    REPLACING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The content of the file of a bundle at one moment: it may be replaced at any time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    /// The sequence number; 0 of one that was never published.
    pub(crate) sequence: u64,
    /// Whether the published bundle of the number is that of the file. Another one must not be served under
    /// it (Trust Domain and Bundle §4.1.1).
    pub(crate) is_published: bool,
    pub(crate) bundle: TrustBundle,
}

/// The keyspace of the bundles.
pub(crate) fn keyspace(store: &Store) -> Result<CrdtStore> {
    let crdt =
        store.crdt().context("bundles spread through the CRDT keyspace: set `crdt_key` on every member")?;
    Ok(crdt.keyspace(KEYSPACE)?)
}

/// The key of a bundle: keys are in the order of the numbers.
pub(crate) fn key(sequence: u64) -> String {
    format!("{sequence:020}")
}

/// The sequence number of the bundle in a file; 0 of one that was never published. The rest of the file may
/// be damaged, and need not be text.
pub(crate) fn sequence(path: &Path) -> Result<u64> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(sequence_of(&String::from_utf8_lossy(&bytes)))
}

/// Reads the file of a bundle.
pub(crate) fn read(path: &Path, trust_domain: TrustDomain) -> Result<Stored> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let bundle = TrustBundle::from_pem(trust_domain, text.as_bytes())
        .with_context(|| format!("{} is not a trust bundle", path.display()))?;
    Ok(Stored { sequence: sequence_of(&text), is_published: !text.contains(OF_ISSUER), bundle })
}

fn sequence_of(text: &str) -> u64 {
    text.strip_prefix(MARK).and_then(|rest| rest.lines().next()?.parse().ok()).unwrap_or(0)
}

/// Writes a bundle with its number.
pub(crate) fn write(path: &Path, sequence: u64, bundle: &TrustBundle) -> Result<()> {
    write_public(path, &format!("{MARK}{sequence}\n{}", bundle.to_pem()))
}

/// Writes a bundle that an issuer gave, in the place of the published one of this number. The next one that
/// is published replaces it.
pub(crate) fn write_of_issuer(path: &Path, sequence: u64, bundle: &TrustBundle) -> Result<()> {
    write_public(path, &format!("{MARK}{sequence}\n{OF_ISSUER}{}", bundle.to_pem()))
}

/// Follows the bundles on a task of the runtime, until the store is closed.
pub(crate) fn start(store: &Store, identity: &Identity, path: &Path, log: &Log) -> Result<()> {
    let (identity, path) = (identity.clone(), path.to_owned());
    let node = Bundles { identity, path, known: BTreeMap::new(), log: log.clone() };
    follow(keyspace(store)?, log.clone(), node)
}

struct Bundles {
    identity: Identity,
    path: PathBuf,
    /// By key: those that this node has verified.
    known: BTreeMap<String, Bytes>,
    log: Log,
}

impl Follower for Bundles {
    const UNREAD: &'static str = "bundle-unread";

    async fn take(&mut self, store: &CrdtStore, entries: Vec<CrdtEntry>) -> Result<()> {
        let trust_domain = self.identity.spiffe_id().trust_domain();
        let (mut newest, mut current) = (sequence(&self.path)?, self.identity.trust_bundle());
        let begun = newest;
        let mut present = Vec::new();
        // In order, so that a node that was off follows from each to the next.
        for entry in &entries {
            let name = String::from_utf8_lossy(&entry.key).into_owned();
            present.push(name.clone());
            let Ok(signed) = SignedBundle::from_bytes(trust_domain.clone(), &entry.value) else { continue };
            if key(signed.sequence()) != name {
                continue;
            }
            let Ok(next) = signed.verify(&current, &self.identity.revocations()) else { continue };
            self.known.insert(name, entry.value.clone());
            if signed.sequence() > newest && !next.is_empty() {
                (newest, current) = (signed.sequence(), next.clone());
            }
        }
        if newest > begun {
            let path = self.path.clone();
            let bundle = current.clone();
            // Writing waits for the disk.
            let replace = move || {
                let _replacing = replacing();
                write(&path, newest, &bundle)
            };
            tokio::task::spawn_blocking(replace).await??;
            self.log.event("bundle-received", format!("sequence={newest}"));
        }
        // Anyone who may write to the store may remove a key, and must not keep a bundle from others with it.
        for (name, bytes) in &self.known {
            if !present.contains(name) {
                store.put(name.clone(), bytes.clone()).await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use x0_identity::{Authority, AuthorityOptions, SpiffeId};
    use x0_kv::{CrdtOptions, StoreOptions};

    use super::*;
    use crate::log::record::Format;

    #[tokio::test]
    async fn bundles_are_followed_in_order_and_only_from_trusted_authorities() {
        let folder = tempfile::tempdir().unwrap();
        let options = StoreOptions::new().crdt(CrdtOptions::new([1; 16]));
        let store = Store::open_with(folder.path().join("store"), &options).unwrap();
        let domain = || TrustDomain::parse("example.org").unwrap();
        let authority = || Authority::new(domain(), &AuthorityOptions::default()).unwrap();
        let (old, new, stranger) = (authority(), authority(), authority());
        let path = folder.path().join("bundle.pem");
        std::fs::write(&path, old.bundle().to_pem()).unwrap();
        assert_eq!(sequence(&path).unwrap(), 0);
        let own = SpiffeId::parse("spiffe://example.org/own").unwrap();
        let own = old.issue(&own, Duration::from_secs(3600)).unwrap();
        let identity = Identity::new(own, old.bundle()).unwrap();
        let keys = keyspace(&store).unwrap();
        let both = {
            let mut both = old.bundle();
            both.extend(&new.bundle()).unwrap();
            both
        };
        let publish = async |by: &Authority, number: u64, bundle: &TrustBundle| {
            let signature = by.sign(&SignedBundle::to_be_signed(number, bundle)).unwrap();
            let bytes = SignedBundle::new(number, bundle.clone(), signature).to_bytes();
            keys.put(key(number), bytes).await.unwrap();
        };
        let until = async |number: u64| {
            let waited = async {
                while sequence(&path).unwrap() != number {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(30), waited).await.unwrap();
        };
        // A node that was off: the second one is signed by what the first one introduces.
        publish(&old, 1, &both).await;
        publish(&new, 2, &new.bundle()).await;
        publish(&stranger, 3, &stranger.bundle()).await;
        start(&store, &identity, &path, &Log::start("test", Format::Text).unwrap()).unwrap();
        until(2).await;
        let held = TrustBundle::from_pem(domain(), &std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(held, new.bundle());
        // The process of the node takes the bundle from the file; the old authority has no say any more.
        identity.set_bundle(held).unwrap();
        publish(&old, 4, &old.bundle()).await;
        publish(&new, 5, &both).await;
        until(5).await;
        keys.delete(key(5)).await.unwrap();
        let back = async {
            while keys.get(key(5)).await.unwrap().is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), back).await.unwrap();
    }
}
