//! Revocations of a running node: each is signed by the authority, and is a key of the CRDT keyspace, which
//! every node has. A node takes what is signed and passes on what it knows. It keeps that in a file of its
//! data folder, so that it refuses what is revoked from its first handshake on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use x0_identity::{Identity, RevocationView, SignedRevocations};
use x0_kv::crdt::CrdtEntry;
use x0_kv::{CrdtStore, Store};

use crate::causes::causes;
use crate::follow::{Follower, follow};
use crate::log::Log;

/// The keyspace in the CRDT store.
const KEYSPACE: &str = "x0-revocations";
/// The most signed revocations that a node keeps.
const COUNT_MAX: usize = 16_384;
/// Revocations are kept for so long after their end, for nodes with a clock that lags.
const KEEP: Duration = Duration::from_secs(600);
/// The file in the data folder.
const FILE: &str = "revocations";
/// The first bytes of the file: what it is, and the version of its format.
const MAGIC: &[u8; 8] = b"x0revo\0\x01";
/// The longest file that is read or written, in bytes.
const FILE_LEN_MAX: u64 = 64 << 20;
/// The length of the checksum (SHA-256) after [`MAGIC`].
const SUM_LEN: usize = 32;

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

/// The revocations that a node had verified before it ended.
pub(crate) struct Held {
    path: PathBuf,
    known: BTreeMap<String, SignedRevocations>,
    /// Whether the file has them: not if it was damaged.
    is_saved: bool,
}

/// Reads the revocations in the data folder and refuses what they name from now on: called before the first
/// handshake. A file that cannot be read is reported, and does not keep the node from its start, because the
/// other nodes pass the revocations on.
pub(crate) fn load(data_dir: &Path, identity: &Identity, log: &Log) -> Held {
    let path = data_dir.join(FILE);
    let known = read(&path).and_then(|known| {
        identity.set_revocations(view_of(&known)?);
        for (name, signed) in &known {
            log.event("revoked", format!("revocation={name} what={}", description(signed)));
        }
        Ok(known)
    });
    let is_saved = known.is_ok();
    let known = known.unwrap_or_else(|error| {
        let why = format!(
            "path={} why={}; the node learns its revocations from the other nodes and writes the file again",
            path.display(),
            causes(&error)
        );
        log.event("revocations-damaged", why);
        BTreeMap::new()
    });
    Held { path, known, is_saved }
}

fn read(path: &Path) -> Result<BTreeMap<String, SignedRevocations>> {
    let len = match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        found => found.context("cannot read the file")?.len(),
    };
    ensure!(len <= FILE_LEN_MAX, "the file has {len} bytes, more than the {FILE_LEN_MAX} that were written");
    decode(&std::fs::read(path).context("cannot read the file")?)
}

/// What [`encode`] wrote. Signatures are not verified again: the authority may be retired by now, and what it
/// revoked stays revoked.
fn decode(bytes: &[u8]) -> Result<BTreeMap<String, SignedRevocations>> {
    let body = bytes.strip_prefix(MAGIC).context("the file is not one of revocations of this version")?;
    let (sum, mut rest) = body.split_at_checked(SUM_LEN).context("the file is cut short")?;
    ensure!(Sha256::digest(rest).as_slice() == sum, "the checksum of the file is wrong");
    let mut known = BTreeMap::new();
    while let Some((len, after)) = rest.split_first_chunk::<4>() {
        let len = usize::try_from(u32::from_be_bytes(*len)).context("an entry is too long")?;
        let (entry, after) = after.split_at_checked(len).context("an entry is cut short")?;
        ensure!(known.len() < COUNT_MAX, "the file has more than {COUNT_MAX} entries");
        known.insert(name(entry), SignedRevocations::from_bytes(entry)?);
        rest = after;
    }
    ensure!(rest.is_empty(), "the file ends within an entry");
    Ok(known)
}

/// Magic, checksum of the rest, and each signed revocation after its length.
fn encode(known: &BTreeMap<String, SignedRevocations>) -> Result<Vec<u8>> {
    let mut entries = Vec::new();
    for signed in known.values() {
        let bytes = signed.to_bytes();
        entries.extend(u32::try_from(bytes.len()).context("an entry is too long")?.to_be_bytes());
        entries.extend(bytes);
    }
    let file = [&MAGIC[..], &Sha256::digest(&entries), &entries].concat();
    let len = file.len() as u64;
    ensure!(len <= FILE_LEN_MAX, "the revocations take {len} bytes, more than the {FILE_LEN_MAX} of a file");
    Ok(file)
}

/// All revocations as one.
fn view_of(known: &BTreeMap<String, SignedRevocations>) -> Result<RevocationView> {
    let mut view = RevocationView::new();
    for signed in known.values() {
        view.merge(signed.view()).context("too much is revoked: rotate the authority instead")?;
    }
    Ok(view)
}

/// Applies revocations on a task of the runtime, until the store is closed.
pub(crate) fn start(
    store: &Store,
    held: Held,
    identity: &Identity,
    applied: &Applied,
    log: &Log,
) -> Result<()> {
    let Held { path, known, is_saved } = held;
    let node = Revocations {
        identity: identity.clone(),
        is_saved,
        known,
        path,
        applied: Arc::clone(applied),
        log: log.clone(),
    };
    follow(keyspace(store)?, log.clone(), node)
}

struct Revocations {
    identity: Identity,
    /// By name: those whose signature was verified.
    known: BTreeMap<String, SignedRevocations>,
    path: PathBuf,
    /// Whether the file has what is known.
    is_saved: bool,
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
        self.save().await;
        // Only what outlives the process is reported as applied, unless the disk fails.
        *self.applied.lock().unwrap_or_else(PoisonError::into_inner) = self.known.keys().cloned().collect();
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
        self.forget(store, now).await?;
        self.save().await;
        Ok(())
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
            self.log.event("revoked", format!("revocation={name} what={}", description(&signed)));
            self.known.insert(name, signed);
            self.is_saved = false;
        }
    }

    /// Writes the file, if it lacks something. It is tried again with the next look if that fails.
    async fn save(&mut self) {
        if self.is_saved {
            return;
        }
        let (path, known) = (self.path.clone(), self.known.clone());
        let write = move || crate::init::write_secret(&path, &encode(&known)?);
        let written = tokio::task::spawn_blocking(write).await;
        match written.context("the thread that writes ended").and_then(|written| written) {
            Ok(()) => self.is_saved = true,
            Err(error) => self.log.event("revocations-unsaved", format!("why={}", causes(&error))),
        }
    }

    fn apply(&self) -> Result<()> {
        let view = view_of(&self.known)?;
        if view != self.identity.revocations() {
            self.identity.set_revocations(view);
        }
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
            self.is_saved = false;
            store.delete(name).await?;
        }
        Ok(())
    }
}

/// The entries of signed revocations, for the log.
fn description(signed: &SignedRevocations) -> String {
    signed.view().iter().map(|(revoked, _)| describe(revoked)).collect::<Vec<_>>().join(",")
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
        let identity = Identity::new(identity_of(&authority), authority.bundle()).unwrap();
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
        let data = tempfile::tempdir().unwrap();
        start(&store, load(data.path(), &identity, &log), &identity, &applied, &log).unwrap();
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

        // The node starts again, before it reaches a store or another node: what is over is not in its file.
        until(|| read(&data.path().join(FILE)).unwrap().len() == 1).await;
        let again = Identity::new(identity_of(&authority), authority.bundle()).unwrap();
        let held = load(data.path(), &again, &log);
        assert_eq!(held.known.keys().collect::<Vec<_>>(), [&name(&good)]);
        assert_eq!(again.revocations(), identity.revocations());
        // The authority that revoked is retired meanwhile.
        let retired = Identity::new(identity_of(&stranger), stranger.bundle()).unwrap();
        load(data.path(), &retired, &log);
        assert_eq!(retired.revocations().len(), 1);
    }

    fn identity_of(authority: &Authority) -> x0_identity::X509Svid {
        let own = SpiffeId::parse("spiffe://example.org/own").unwrap();
        authority.issue(&own, Duration::from_secs(3600)).unwrap()
    }

    /// A damaged file is never half believed: each byte, each length.
    #[test]
    fn a_damaged_file_is_reported_and_taken_as_empty() {
        let domain = TrustDomain::parse("example.org").unwrap();
        let authority = Authority::new(domain, &AuthorityOptions::default()).unwrap();
        let identity = Identity::new(identity_of(&authority), authority.bundle()).unwrap();
        let log = Log::start("test", Format::Text).unwrap();
        let hour = SystemTime::now() + Duration::from_secs(3600);
        let all = ["one", "two"].map(|one| signed(&authority, one, hour));
        let known: BTreeMap<_, _> =
            all.iter().map(|bytes| (name(bytes), SignedRevocations::from_bytes(bytes).unwrap())).collect();
        let file = encode(&known).unwrap();
        assert_eq!(decode(&file).unwrap().keys().collect::<Vec<_>>(), known.keys().collect::<Vec<_>>());
        for position in 0..file.len() {
            let mut damaged = file.clone();
            damaged[position] ^= 1;
            assert!(decode(&damaged).is_err(), "byte {position}");
            assert!(decode(&file[..position]).is_err(), "{position} bytes");
        }
        // With a checksum that is right: a length beyond the file, and bytes that are no revocation.
        for entries in [&[0, 0, 0, 9, 1][..], &[0, 0, 0], &[0, 0, 0, 1, 1], &[0xff; 4]] {
            let file = [&MAGIC[..], &Sha256::digest(entries), entries].concat();
            assert!(decode(&file).is_err(), "{entries:?}");
        }

        let data = tempfile::tempdir().unwrap();
        let path = data.path().join(FILE);
        std::fs::write(&path, &file[1..]).unwrap();
        let held = load(data.path(), &identity, &log);
        // The file is written again, also if the store has no revocation.
        assert_eq!((held.known.len(), held.is_saved), (0, false));
        assert!(identity.revocations().is_empty());
        std::fs::File::create(&path).unwrap().set_len(FILE_LEN_MAX + 1).unwrap();
        assert!(load(data.path(), &identity, &log).known.is_empty());
        std::fs::write(&path, &file).unwrap();
        assert_eq!(load(data.path(), &identity, &log).known.len(), 2);
        assert_eq!(identity.revocations().len(), 2);
    }
}
