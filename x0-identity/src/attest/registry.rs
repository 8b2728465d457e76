//! Registration entries.

use core::fmt;
use std::collections::{BTreeMap, BTreeSet};
use std::string::String;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, SystemTime};
use std::vec::Vec;

use crate::SpiffeId;

/// A property of a workload that an attestor has proved, written as `kind:value`: `join_token:rack-7`,
/// `unix:uid:1000`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector(String);

/// A text is not a selector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SelectorError {
    /// There is no kind or no value.
    #[error("the selector has no kind or no value: write it as kind:value")]
    Form,
    /// The text is longer than 512 bytes.
    #[error("the selector has {len} bytes, more than the 512 allowed: shorten its value")]
    Length {
        /// The length of the text, in bytes.
        len: usize,
    },
}

impl Selector {
    /// Parses a selector.
    ///
    /// # Errors
    /// [`SelectorError`], when the kind or the value is missing, or the text is too long.
    pub fn parse(text: &str) -> Result<Selector, SelectorError> {
        if text.len() > 512 {
            return Err(SelectorError::Length { len: text.len() });
        }
        match text.split_once(':') {
            Some((kind, value)) if !kind.is_empty() && !value.is_empty() => Ok(Selector(text.into())),
            _ => Err(SelectorError::Form),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Selector({self})")
    }
}

/// Which workloads receive a SPIFFE ID, and with what: a workload matches if it has every selector of the
/// entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrationEntry {
    spiffe_id: SpiffeId,
    selectors: BTreeSet<Selector>,
    validity: Duration,
    dns_names: Vec<String>,
    admitted_until: Option<SystemTime>,
}

/// A registration entry is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistrationEntryError {
    /// The DNS name breaks the preferred name syntax (RFC 5280 §4.2.1.6, RFC 1034 §3.5).
    #[error(
        "the DNS name of the registration entry is not a host name: use labels of a-z, 0-9 and '-', separated by dots"
    )]
    DnsName,
    /// There are more than 64 DNS names.
    #[error("the registration entry has more than 64 DNS names: register several entries")]
    DnsNames,
}

impl RegistrationEntry {
    /// Builds an entry without selectors, which every attested workload matches, and without DNS names.
    /// `validity` is that of each SVID at most.
    #[must_use]
    pub fn new(spiffe_id: SpiffeId, validity: Duration) -> RegistrationEntry {
        RegistrationEntry {
            spiffe_id,
            selectors: BTreeSet::new(),
            validity,
            dns_names: Vec::new(),
            admitted_until: None,
        }
    }

    /// Adds a selector that a workload must have.
    #[must_use]
    pub fn selector(mut self, selector: Selector) -> RegistrationEntry {
        self.selectors.insert(selector);
        self
    }

    /// Adds a DNS name that each SVID has, for TLS clients that verify the host name.
    ///
    /// # Errors
    /// [`RegistrationEntryError`], when the name is not a host name in lower case, or there are too many.
    pub fn dns_name(mut self, name: &str) -> Result<RegistrationEntry, RegistrationEntryError> {
        let label = |label: &str| {
            matches!(label.len(), 1..=63)
                && label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if name.len() > 253 || !name.split('.').all(label) {
            return Err(RegistrationEntryError::DnsName);
        }
        if self.dns_names.len() == 64 {
            return Err(RegistrationEntryError::DnsNames);
        }
        self.dns_names.push(name.into());
        Ok(self)
    }

    /// Sets the moment after which no SVID is issued, and at which the last one ends.
    #[must_use]
    pub fn admit_until(mut self, moment: SystemTime) -> RegistrationEntry {
        self.admitted_until = Some(moment);
        self
    }

    /// The SPIFFE ID.
    #[must_use]
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.spiffe_id
    }

    /// The selectors that a workload must have.
    pub fn selectors(&self) -> impl Iterator<Item = &Selector> {
        self.selectors.iter()
    }

    /// The DNS names.
    #[must_use]
    pub fn dns_names(&self) -> &[String] {
        &self.dns_names
    }

    /// The longest validity of an SVID.
    #[must_use]
    pub fn validity(&self) -> Duration {
        self.validity
    }

    /// The moment after which no SVID is issued.
    #[must_use]
    pub fn admitted_until(&self) -> Option<SystemTime> {
        self.admitted_until
    }

    /// Whether a workload with these selectors matches at this time.
    #[must_use]
    pub fn matches(&self, selectors: &BTreeSet<Selector>, now: SystemTime) -> bool {
        self.admitted_until.is_none_or(|until| now <= until) && self.selectors.is_subset(selectors)
    }
}

/// The seam between issuing and whatever stores registration entries.
pub trait Registry {
    /// The entries that a workload with these selectors matches at this time, ordered by SPIFFE ID.
    fn matching(&self, selectors: &BTreeSet<Selector>, now: SystemTime) -> Vec<RegistrationEntry>;

    /// The entry of a SPIFFE ID, if it is admitted at this time: for a workload that renews.
    fn entry(&self, spiffe_id: &SpiffeId, now: SystemTime) -> Option<RegistrationEntry>;
}

/// Registration entries in memory, one for each SPIFFE ID.
#[derive(Debug, Clone, Default)]
pub struct MemoryRegistry {
    entries: BTreeMap<SpiffeId, RegistrationEntry>,
}

impl MemoryRegistry {
    /// Builds an empty registry.
    #[must_use]
    pub fn new() -> MemoryRegistry {
        MemoryRegistry::default()
    }

    /// Puts an entry in the place of the one that its SPIFFE ID has, and returns that.
    pub fn insert(&mut self, entry: RegistrationEntry) -> Option<RegistrationEntry> {
        self.entries.insert(entry.spiffe_id.clone(), entry)
    }

    /// Removes the entry of a SPIFFE ID. SVIDs that were issued stay valid until they expire or are revoked.
    pub fn remove(&mut self, spiffe_id: &SpiffeId) -> Option<RegistrationEntry> {
        self.entries.remove(spiffe_id)
    }

    /// The entries, ordered by SPIFFE ID.
    pub fn iter(&self) -> impl Iterator<Item = &RegistrationEntry> {
        self.entries.values()
    }
}

impl Registry for MemoryRegistry {
    fn matching(&self, selectors: &BTreeSet<Selector>, now: SystemTime) -> Vec<RegistrationEntry> {
        self.entries.values().filter(|entry| entry.matches(selectors, now)).cloned().collect()
    }

    fn entry(&self, spiffe_id: &SpiffeId, now: SystemTime) -> Option<RegistrationEntry> {
        let entry = self.entries.get(spiffe_id)?;
        entry.admitted_until.is_none_or(|until| now <= until).then(|| entry.clone())
    }
}

/// For a registry that changes while it is used.
impl<R: Registry> Registry for RwLock<R> {
    fn matching(&self, selectors: &BTreeSet<Selector>, now: SystemTime) -> Vec<RegistrationEntry> {
        self.read().unwrap_or_else(PoisonError::into_inner).matching(selectors, now)
    }

    fn entry(&self, spiffe_id: &SpiffeId, now: SystemTime) -> Option<RegistrationEntry> {
        self.read().unwrap_or_else(PoisonError::into_inner).entry(spiffe_id, now)
    }
}
