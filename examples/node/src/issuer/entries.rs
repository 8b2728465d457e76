//! The registration entries and join tokens of an issuer: a file that commands and the issuer change under a
//! lock.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use x0_identity::tpm::TpmAttestor;
use x0_identity::{JoinTokens, MemoryRegistry, RegistrationEntry, Selector, SpiffeId, StoredToken};

use crate::init::{self, Layout};

/// The longest file that is read, in bytes.
const LEN_MAX: u64 = 64 << 20;

/// The entries and tokens while this process has the lock.
#[derive(Debug)]
pub(crate) struct Entries {
    layout: Layout,
    pub(crate) registry: MemoryRegistry,
    pub(crate) tokens: JoinTokens,
    /// Closed, and so unlocked, with this value.
    _lock: File,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    entries: Vec<EntryRow>,
    tokens: Vec<TokenRow>,
}

/// An entry. Times are in seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EntryRow {
    pub(crate) spiffe_id: String,
    pub(crate) selectors: Vec<String>,
    pub(crate) validity_seconds: u64,
    #[serde(default)]
    pub(crate) dns_names: Vec<String>,
    #[serde(default)]
    pub(crate) admitted_until: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenRow {
    /// SHA-256, in hexadecimal digits.
    hash: String,
    selector: String,
    expires: u64,
    /// The SHA-256 of the key that the token is bound to.
    #[serde(default)]
    redeemed_by: Option<String>,
}

impl Entries {
    /// Takes the lock and reads the file. Without a file there are no entries.
    pub(crate) fn open(layout: &Layout) -> Result<Entries> {
        let path = layout.entries();
        let lock_path = path.with_extension("lock");
        let cannot = || format!("cannot lock {}", lock_path.display());
        let lock = File::options().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.with_context(cannot)?;
        lock.lock().with_context(cannot)?;
        let stored = read(&path)?;
        let damaged = || format!("{} is damaged: restore it, or remove the entry", path.display());
        let mut registry = MemoryRegistry::new();
        for row in &stored.entries {
            registry.insert(row.entry().with_context(damaged)?);
        }
        let mut tokens = JoinTokens::new();
        for row in &stored.tokens {
            tokens.insert(row.token().with_context(damaged)?).with_context(damaged)?;
        }
        Ok(Entries { layout: layout.clone(), registry, tokens, _lock: lock })
    }

    /// Writes the file, without tokens that are expired.
    pub(crate) fn save(&mut self) -> Result<()> {
        self.tokens.remove_expired(SystemTime::now());
        let stored = Stored {
            entries: self.registry.iter().map(EntryRow::of).collect(),
            tokens: self.tokens.stored().into_iter().map(TokenRow::of).collect(),
        };
        let mut text = serde_json::to_string_pretty(&stored)?;
        text.push('\n');
        init::write_private(&self.layout.entries(), &text)
    }

    /// Puts an entry in the place of the one of its SPIFFE ID. A workload proves by a token of the ID, or by
    /// an SVID of it, that the entry is its own.
    pub(crate) fn put(&mut self, id: &SpiffeId, validity: Duration, dns_names: &[String]) -> Result<()> {
        self.put_with(id, validity, dns_names, [token_selector(id)?], None)
    }

    /// As [`put`](Entries::put), for a workload that has all of these selectors, or an SVID of the ID.
    /// Nothing is issued for it after `admitted_until`.
    pub(crate) fn put_with(
        &mut self,
        id: &SpiffeId,
        validity: Duration,
        dns_names: &[String],
        selectors: impl IntoIterator<Item = Selector>,
        admitted_until: Option<SystemTime>,
    ) -> Result<()> {
        let mut entry = RegistrationEntry::new(id.clone(), validity);
        if let Some(until) = admitted_until {
            entry = entry.admit_until(until);
        }
        for selector in selectors {
            entry = entry.selector(selector);
        }
        for name in dns_names {
            entry = entry.dns_name(name).with_context(|| format!("cannot register `{name}`"))?;
        }
        self.registry.insert(entry);
        Ok(())
    }
}

impl Entries {
    /// The TPMs that the entries name: those that may attest.
    pub(crate) fn enrolled(&self) -> TpmAttestor {
        let mut attestor = TpmAttestor::new();
        for selector in self.registry.iter().flat_map(RegistrationEntry::selectors) {
            let digest = selector.to_string().strip_prefix("tpm:ek:").and_then(|digits| unhex(digits).ok());
            digest.into_iter().for_each(|digest| attestor.enroll(digest));
        }
        attestor
    }
}

/// The selector of a workload that has the join token of an ID.
pub(crate) fn token_selector(id: &SpiffeId) -> Result<Selector> {
    Ok(Selector::parse(&format!("join_token:{}", id.path()))?)
}

fn read(path: &Path) -> Result<Stored> {
    let cannot = || format!("cannot read {}", path.display());
    match std::fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Stored::default()),
        Err(error) => return Err(error).with_context(cannot),
        Ok(metadata) if metadata.len() > LEN_MAX => {
            bail!("{} has more than {LEN_MAX} bytes: remove entries", path.display())
        }
        Ok(_) => {}
    }
    let text = std::fs::read_to_string(path).with_context(cannot)?;
    serde_json::from_str(&text).with_context(|| format!("{} is damaged: restore it", path.display()))
}

impl EntryRow {
    pub(crate) fn of(entry: &RegistrationEntry) -> EntryRow {
        EntryRow {
            spiffe_id: entry.spiffe_id().to_string(),
            selectors: entry.selectors().map(ToString::to_string).collect(),
            validity_seconds: entry.validity().as_secs(),
            dns_names: entry.dns_names().to_vec(),
            admitted_until: entry.admitted_until().map(seconds),
        }
    }

    fn entry(&self) -> Result<RegistrationEntry> {
        let id = SpiffeId::parse(&self.spiffe_id)?;
        let mut entry = RegistrationEntry::new(id, Duration::from_secs(self.validity_seconds));
        for selector in &self.selectors {
            entry = entry.selector(Selector::parse(selector)?);
        }
        for name in &self.dns_names {
            entry = entry.dns_name(name)?;
        }
        if let Some(until) = self.admitted_until {
            entry = entry.admit_until(moment(until)?);
        }
        Ok(entry)
    }
}

impl TokenRow {
    fn of(token: &StoredToken) -> TokenRow {
        TokenRow {
            hash: hex(&token.hash),
            selector: token.selector.to_string(),
            expires: seconds(token.expires),
            redeemed_by: token.redeemed_by.as_ref().map(|key| hex(key)),
        }
    }

    fn token(&self) -> Result<StoredToken> {
        let redeemed_by = self.redeemed_by.as_deref().map(unhex).transpose()?;
        let selector = Selector::parse(&self.selector)?;
        Ok(StoredToken::new(unhex(&self.hash)?, selector, moment(self.expires)?).redeemed_by(redeemed_by))
    }
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn moment(seconds: u64) -> Result<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).context("a time is too late")
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn unhex(text: &str) -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        bail!("a hash does not have 64 hexadecimal digits");
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits)?, 16)?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_and_tokens_are_read_as_they_were_saved() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        std::fs::create_dir(folder.path().join("authority")).unwrap();
        let id = SpiffeId::parse("spiffe://example.org/node/0000000000000004").unwrap();
        let mut entries = Entries::open(&layout).unwrap();
        assert_eq!(entries.registry.iter().count(), 0);
        let names = ["node-4.example.org".to_owned()];
        entries.put(&id, Duration::from_secs(3600), &names).unwrap();
        let error = entries.put(&id, Duration::from_secs(3600), &["-".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("cannot register `-`"), "{error}");
        let expires = SystemTime::now() + Duration::from_secs(60);
        let token = entries.tokens.issue(id.path(), expires).unwrap();
        entries.tokens.redeem(&token, b"key", SystemTime::now()).unwrap();
        entries.save().unwrap();
        drop(entries);
        let text = std::fs::read_to_string(layout.entries()).unwrap();
        assert!(!text.contains(&token), "{text}");

        let mut again = Entries::open(&layout).unwrap();
        let entry = again.registry.iter().next().unwrap().clone();
        assert_eq!((entry.spiffe_id(), entry.dns_names()), (&id, &names[..]));
        assert!(again.tokens.redeem(&token, b"other", SystemTime::now()).is_err());
        let selector = again.tokens.redeem(&token, b"key", SystemTime::now()).unwrap();
        assert!(entry.matches(&[selector].into(), SystemTime::now()));
        again.registry.remove(&id);
        again.save().unwrap();
        drop(again);
        assert_eq!(Entries::open(&layout).unwrap().registry.iter().count(), 0);

        for damage in [
            "{",
            "{\"entries\":[{\"spiffe_id\":\"x\",\"selectors\":[],\"validity_seconds\":1}],\"tokens\":[]}",
            "{\"entries\":[],\"tokens\":[{\"hash\":\"00\",\"selector\":\"a:b\",\"expires\":1}]}",
        ] {
            std::fs::write(layout.entries(), damage).unwrap();
            let error = format!("{:?}", Entries::open(&layout).unwrap_err());
            assert!(error.contains("is damaged"), "{error}");
        }
    }

    #[test]
    fn an_entry_keeps_its_end() {
        let row = EntryRow {
            spiffe_id: "spiffe://example.org/web".into(),
            selectors: vec!["a:b".into()],
            validity_seconds: 60,
            dns_names: Vec::new(),
            admitted_until: Some(2_000_000_000),
        };
        assert_eq!(EntryRow::of(&row.entry().unwrap()), row);
    }
}
