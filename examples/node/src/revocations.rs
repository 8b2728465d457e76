//! Revocations of a running node: each is signed by the authority, and is a key of the CRDT keyspace, which
//! every node has. A node takes what is signed and passes on what it knows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use x0_identity::{Identity, RevocationView, SignedRevocations};
use x0_kv::crdt::CrdtEntry;
use x0_kv::{CrdtStore, Store};

use crate::follow::{Follower, follow};
use crate::log::Log;

/// The keyspace in the CRDT store.
const KEYSPACE: &str = "x0-revocations";
/// The most signed revocations that a node keeps.
const COUNT_MAX: usize = 16_384;
/// Revocations are kept for so long after their end, for nodes with a clock that lags.
const KEEP: Duration = Duration::from_secs(600);

/// The names of the revocations that a node applies.
pub(crate) type Applied = Arc<Mutex<Vec<String>>>;

/// The keyspace of the revocations.
pub(crate) fn keyspace(store: &Store) -> Result<CrdtStore> {
    let crdt = store.crdt().context("revocations need the CRDT keyspace: set `crdt_key` on every member")?;
    Ok(crdt.keyspace(KEYSPACE)?)
}

/// The key of signed revocations: the beginning of the SHA-256 of their bytes.
pub(crate) fn name(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Applies revocations on a task of the runtime, until the store is closed.
pub(crate) fn start(store: &Store, identity: &Identity, applied: &Applied, log: &Log) -> Result<()> {
    let node = Revocations {
        identity: identity.clone(),
        known: BTreeMap::new(),
        applied: Arc::clone(applied),
        log: log.clone(),
    };
    follow(keyspace(store)?, log.clone(), node)
}

struct Revocations {
    identity: Identity,
    /// By name: those whose signature was verified.
    known: BTreeMap<String, SignedRevocations>,
    applied: Applied,
    log: Log,
}

impl Follower for Revocations {
    const UNREAD: &'static str = "revocations-unread";

    async fn take(&mut self, store: &CrdtStore, entries: Vec<CrdtEntry>) -> Result<()> {
        let mut present = Vec::new();
        for entry in &entries {
            let key = String::from_utf8_lossy(&entry.key).into_owned();
            if !self.known.contains_key(&key) && key == name(&entry.value) {
                self.admit(key.clone(), &entry.value);
            }
            present.push(key);
        }
        self.apply()?;
        // Anyone who may write to the store may remove a key, and must not undo a revocation with it.
        let (now, mut lost) = (SystemTime::now(), Vec::new());
        for (name, signed) in &self.known {
            if !present.contains(name) {
                lost.push((name.clone(), Bytes::from(signed.to_bytes())));
            }
        }
        for (name, bytes) in lost {
            store.put(name, bytes).await?;
        }
        self.forget(store, now).await
    }
}

impl Revocations {
    /// Takes signed revocations, if an authority has signed them.
    fn admit(&mut self, name: String, bytes: &[u8]) {
        if self.known.len() >= COUNT_MAX {
            return;
        }
        let bundle = self.identity.trust_bundle();
        let signed = SignedRevocations::from_bytes(bytes);
        let verified = signed.and_then(|signed| {
            signed.verify(&bundle, &self.identity.revocations())?;
            Ok(signed)
        });
        // What is not signed may be signed by an authority that this node does not know yet: it is read
        // again.
        if let Ok(signed) = verified {
            let what =
                signed.view().iter().map(|(revoked, _)| describe(revoked)).collect::<Vec<_>>().join(",");
            self.log.event("revoked", format!("revocation={name} what={what}"));
            self.known.insert(name, signed);
        }
    }

    fn apply(&self) -> Result<()> {
        let mut view = RevocationView::new();
        for signed in self.known.values() {
            view.merge(signed.view()).context("too much is revoked: rotate the authority instead")?;
        }
        if view != self.identity.revocations() {
            self.identity.set_revocations(view);
        }
        *self.applied.lock().unwrap_or_else(PoisonError::into_inner) = self.known.keys().cloned().collect();
        Ok(())
    }

    /// Removes revocations of what has expired by itself.
    async fn forget(&mut self, store: &CrdtStore, now: SystemTime) -> Result<()> {
        let is_over = |signed: &SignedRevocations| {
            signed.view().last_expiry().is_none_or(|expires| expires + KEEP < now)
        };
        let over: Vec<String> =
            self.known.iter().filter(|(_, signed)| is_over(signed)).map(|(name, _)| name.clone()).collect();
        for name in over {
            self.known.remove(&name);
            store.delete(name).await?;
        }
        Ok(())
    }
}

/// What an entry names, for the log.
fn describe(revoked: &x0_identity::Revoked) -> String {
    match revoked {
        x0_identity::Revoked::SpiffeId(spiffe_id) => spiffe_id.to_string(),
        x0_identity::Revoked::Certificate { serial_number, .. } => {
            let digits: String = serial_number.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("certificate:{digits}")
        }
        _ => "authority".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use x0_identity::{Authority, AuthorityOptions, Revoked, SpiffeId, TrustDomain};
    use x0_kv::{CrdtOptions, StoreOptions};

    use super::*;
    use crate::log::record::Format;

    fn signed(by: &Authority, name: &str, expires: SystemTime) -> Bytes {
        let mut view = RevocationView::new();
        let id = SpiffeId::from_segments(by.trust_domain(), &[name]).unwrap();
        view.insert(Revoked::SpiffeId(id), expires).unwrap();
        let to_be_signed = SignedRevocations::to_be_signed(by.trust_domain(), &view);
        SignedRevocations::new(view, by.sign(&to_be_signed).unwrap()).to_bytes().into()
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
    async fn what_an_authority_signed_is_applied_and_put_back_when_it_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let options = StoreOptions::new().crdt(CrdtOptions::new([1; 16]));
        let store = Store::open_with(folder.path(), &options).unwrap();
        let domain = || TrustDomain::parse("example.org").unwrap();
        let authority = Authority::new(domain(), &AuthorityOptions::default()).unwrap();
        let stranger = Authority::new(domain(), &AuthorityOptions::default()).unwrap();
        let own = SpiffeId::parse("spiffe://example.org/own").unwrap();
        let own = authority.issue(&own, Duration::from_secs(3600)).unwrap();
        let identity = Identity::new(own, authority.bundle()).unwrap();
        let keys = keyspace(&store).unwrap();
        let hour = SystemTime::now() + Duration::from_secs(3600);
        let (good, forged) = (signed(&authority, "stolen", hour), signed(&stranger, "own", hour));
        let over = signed(&authority, "old", SystemTime::now() - 2 * KEEP);
        let misplaced = signed(&authority, "elsewhere", hour);
        for bytes in [&good, &forged, &over] {
            keys.put(name(bytes), bytes.clone()).await.unwrap();
        }
        keys.put("another name", misplaced).await.unwrap();

        let applied = Applied::default();
        let log = Log::start("test", Format::Text).unwrap();
        start(&store, &identity, &applied, &log).unwrap();
        let is_applied = |wanted: &[String]| *applied.lock().unwrap() == *wanted;
        until(|| is_applied(&[name(&good)]) || applied.lock().unwrap().len() == 2).await;
        // What is over is applied once, and removed.
        keys.put("a change", "x").await.unwrap();
        until(|| is_applied(&[name(&good)])).await;
        assert_eq!(identity.revocations().len(), 1);
        assert!(keys.get(name(&over)).await.unwrap().is_none());
        assert!(keys.get(name(&forged)).await.unwrap().is_some());

        keys.delete(name(&good)).await.unwrap();
        let back = async {
            while keys.get(name(&good)).await.unwrap().is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), back).await.unwrap();
        assert_eq!(identity.revocations().len(), 1);
    }
}
