//! Revocations: what is no longer trusted before it expires.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};
use std::vec::Vec;

use crate::x509::{Certificate, to_system_time};
use crate::{EncodingError, SpiffeId};

/// The subject of an entry of a [`RevocationView`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Revoked {
    /// One certificate, by its issuer and serial number (RFC 5280 §4.1.2.2 makes the pair unique).
    Certificate {
        /// The DER content of the issuer's name.
        issuer: Vec<u8>,
        /// The serial number, as in the certificate.
        serial_number: Vec<u8>,
    },
    /// Every SVID of a SPIFFE ID.
    SpiffeId(SpiffeId),
    /// Everything that a key signs, by the DER of its `SubjectPublicKeyInfo`.
    Authority {
        /// The DER of the `SubjectPublicKeyInfo`.
        public_key_info: Vec<u8>,
    },
}

/// A set of revocations, bounded, each with the moment from which on it is not needed: the end of what it
/// names.
///
/// A view is a state-based CRDT: [`RevocationView::merge`] is commutative, associative and idempotent, so
/// that nodes may exchange views in any order, as a value of a key-value store or of their own. Nothing is
/// taken back; an entry ends by itself.
///
/// The view says what is revoked, not who may say so: take views only from peers that are authorized to
/// revoke, or from a store that only they write.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use x0_identity::{RevocationView, Revoked, SpiffeId};
///
/// let (now, hour) = (SystemTime::UNIX_EPOCH, Duration::from_secs(3600));
/// let stolen = SpiffeId::parse("spiffe://example.org/node/0000000000000007")?;
/// let mut view = RevocationView::new();
/// view.insert(Revoked::SpiffeId(stolen.clone()), now + hour)?;
///
/// let mut other = RevocationView::from_bytes(&view.to_bytes())?;
/// assert!(!other.merge(&view)?); // nothing new
/// other.remove_expired(now + hour);
/// assert!(other.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RevocationView {
    /// With the seconds since 1970 at which the entry is no longer needed.
    entries: BTreeMap<Revoked, u64>,
}

/// A revocation was not added; the view is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RevocationError {
    /// The view has [`RevocationView::ENTRIES_MAX`] entries.
    #[error(
        "the revocation view has 16384 entries: revoke an authority instead of many certificates, or remove expired entries"
    )]
    Entries,
    /// A name is longer than any certificate can hold.
    #[error(
        "the revocation names {len} bytes, more than the 16384 allowed: pass an issuer, a serial number or a key"
    )]
    Length {
        /// The length of the name, in bytes.
        len: usize,
    },
}

/// Bytes are not a revocation view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadRevocationsError {
    /// The version is not known.
    #[error("the revocation view has version {version}, and 1 is known: upgrade this node")]
    Version {
        /// The version.
        version: u8,
    },
    /// The bytes end early, have an unknown kind, are not in order, or go on.
    #[error("the revocation view is damaged at byte {position}: fetch it again")]
    Malformed {
        /// The offset of the byte.
        position: usize,
    },
    /// There are too many entries, or a name is too long.
    #[error(transparent)]
    Bound(#[from] RevocationError),
}

/// The longest name: that of a certificate of full length.
const NAME_LEN_MAX: usize = 16 * 1024;
const VERSION: u8 = 1;

impl Revoked {
    /// The leaf of a chain, given as DER.
    ///
    /// # Errors
    /// [`EncodingError`], when the bytes are not a certificate.
    pub fn certificate(certificate: &pki_types::CertificateDer<'_>) -> Result<Revoked, EncodingError> {
        let parsed = Certificate::parse(certificate)?;
        Ok(Revoked::Certificate {
            issuer: parsed.issuer.to_vec(),
            serial_number: parsed.serial_number.to_vec(),
        })
    }

    /// The key of an authority, given by any certificate with that key.
    ///
    /// # Errors
    /// [`EncodingError`], when the bytes are not a certificate.
    pub fn authority(certificate: &pki_types::CertificateDer<'_>) -> Result<Revoked, EncodingError> {
        let parsed = Certificate::parse(certificate)?;
        Ok(Revoked::Authority { public_key_info: parsed.public_key_info.to_vec() })
    }

    fn len(&self) -> usize {
        match self {
            Revoked::Certificate { issuer, serial_number } => issuer.len() + serial_number.len(),
            Revoked::SpiffeId(_) => SpiffeId::LEN_MAX,
            Revoked::Authority { public_key_info } => public_key_info.len(),
        }
    }
}

impl RevocationView {
    /// The most entries of a view.
    pub const ENTRIES_MAX: usize = 16_384;

    /// Builds an empty view.
    #[must_use]
    pub fn new() -> RevocationView {
        RevocationView::default()
    }

    /// Revokes something until `expires`, which is the end of what it names at the earliest: from then on the
    /// entry may be removed. Of two ends for one name the later counts. Says whether the view changed.
    ///
    /// # Errors
    /// [`RevocationError`], when the view is full or the name is too long.
    pub fn insert(&mut self, revoked: Revoked, expires: SystemTime) -> Result<bool, RevocationError> {
        // Up, so that no entry ends before what it names.
        let since = expires.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.insert_until(revoked, since.as_secs() + u64::from(since.subsec_nanos() > 0))
    }

    fn insert_until(&mut self, revoked: Revoked, expires: u64) -> Result<bool, RevocationError> {
        if revoked.len() > NAME_LEN_MAX {
            return Err(RevocationError::Length { len: revoked.len() });
        }
        if let Some(present) = self.entries.get_mut(&revoked) {
            let changed = expires > *present;
            *present = expires.max(*present);
            return Ok(changed);
        }
        if self.entries.len() == Self::ENTRIES_MAX {
            return Err(RevocationError::Entries);
        }
        self.entries.insert(revoked, expires);
        Ok(true)
    }

    /// Adds the entries of another view. Says whether this view changed.
    ///
    /// # Errors
    /// [`RevocationError::Entries`], when the two together have too many; this view is unchanged.
    pub fn merge(&mut self, other: &RevocationView) -> Result<bool, RevocationError> {
        let mut merged = self.clone();
        let mut changed = false;
        for (revoked, expires) in &other.entries {
            changed |= merged.insert_until(revoked.clone(), *expires)?;
        }
        *self = merged;
        Ok(changed)
    }

    /// Removes the entries that are no longer needed. Let some minutes pass, so that nodes with a clock that
    /// lags keep refusing.
    pub fn remove_expired(&mut self, now: SystemTime) {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.entries.retain(|_, expires| *expires > now);
    }

    /// Whether something is revoked.
    #[must_use]
    pub fn contains(&self, revoked: &Revoked) -> bool {
        self.entries.contains_key(revoked)
    }

    /// The entries with their ends, ordered.
    pub fn iter(&self) -> impl Iterator<Item = (&Revoked, SystemTime)> {
        self.entries.iter().map(|(revoked, expires)| {
            let seconds = i64::try_from(*expires).unwrap_or(i64::MAX);
            (revoked, to_system_time(seconds))
        })
    }

    /// The number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is revoked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry that names a leaf or its SPIFFE ID.
    #[cfg(feature = "rustls")]
    pub(crate) fn leaf(&self, certificate: &Certificate<'_>, spiffe_id: &SpiffeId) -> Option<Revoked> {
        if self.entries.is_empty() {
            return None;
        }
        let id = Revoked::SpiffeId(spiffe_id.clone());
        if self.entries.contains_key(&id) {
            return Some(id);
        }
        self.certificate(certificate)
    }

    /// The entry that names a signer or its key.
    #[cfg(feature = "rustls")]
    pub(crate) fn signer(&self, certificate: &Certificate<'_>) -> Option<Revoked> {
        if self.entries.is_empty() {
            return None;
        }
        let authority = Revoked::Authority { public_key_info: certificate.public_key_info.to_vec() };
        if self.entries.contains_key(&authority) {
            return Some(authority);
        }
        self.certificate(certificate)
    }

    #[cfg(feature = "rustls")]
    fn certificate(&self, certificate: &Certificate<'_>) -> Option<Revoked> {
        let revoked = Revoked::Certificate {
            issuer: certificate.issuer.to_vec(),
            serial_number: certificate.serial_number.to_vec(),
        };
        self.entries.contains_key(&revoked).then_some(revoked)
    }

    /// The view as bytes: the version, then each entry with its kind, end and names, in order. Equal views
    /// have equal bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = std::vec![VERSION];
        for (revoked, expires) in &self.entries {
            let mut write = |kind: u8, names: &[&[u8]]| {
                bytes.push(kind);
                bytes.extend(expires.to_be_bytes());
                for name in names {
                    // At most 16 KiB, as `insert_until` has checked.
                    bytes.extend(u16::try_from(name.len()).unwrap_or(u16::MAX).to_be_bytes());
                    bytes.extend(*name);
                }
            };
            match revoked {
                Revoked::Certificate { issuer, serial_number } => write(1, &[issuer, serial_number]),
                Revoked::SpiffeId(spiffe_id) => write(2, &[std::format!("{spiffe_id}").as_bytes()]),
                Revoked::Authority { public_key_info } => write(3, &[public_key_info]),
            }
        }
        bytes
    }

    /// Reads a view.
    ///
    /// # Errors
    /// [`ReadRevocationsError`], when the bytes are not those of a view. No entry is used then.
    pub fn from_bytes(bytes: &[u8]) -> Result<RevocationView, ReadRevocationsError> {
        let mut reader = Reader { bytes, position: 0 };
        let version = reader.take(1)?[0];
        if version != VERSION {
            return Err(ReadRevocationsError::Version { version });
        }
        let mut view = RevocationView::new();
        while reader.position < bytes.len() {
            let begin = reader.position;
            let kind = reader.take(1)?[0];
            let mut expires = [0; 8];
            expires.copy_from_slice(reader.take(8)?);
            let malformed = ReadRevocationsError::Malformed { position: begin };
            let revoked = match kind {
                1 => Revoked::Certificate { issuer: reader.name()?, serial_number: reader.name()? },
                2 => {
                    let name = reader.name()?;
                    let text = core::str::from_utf8(&name).map_err(|_| malformed)?;
                    Revoked::SpiffeId(SpiffeId::parse(text).map_err(|_| malformed)?)
                }
                3 => Revoked::Authority { public_key_info: reader.name()? },
                _ => return Err(malformed),
            };
            // One text for each view: entries are in order, and none occurs twice.
            if view.entries.last_key_value().is_some_and(|(last, _)| *last >= revoked) {
                return Err(malformed);
            }
            view.insert_until(revoked, u64::from_be_bytes(expires))?;
        }
        Ok(view)
    }

    /// The time until the next entry ends, for a caller that removes expired ones.
    #[must_use]
    pub fn next_expiry(&self, now: SystemTime) -> Option<Duration> {
        let end = Duration::from_secs(*self.entries.values().min()?);
        Some(end.saturating_sub(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()))
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], ReadRevocationsError> {
        let malformed = ReadRevocationsError::Malformed { position: self.position };
        let taken = self.bytes.get(self.position..).and_then(|rest| rest.get(..len)).ok_or(malformed)?;
        self.position += len;
        Ok(taken)
    }

    fn name(&mut self) -> Result<Vec<u8>, ReadRevocationsError> {
        let len = self.take(2)?;
        Ok(self.take(usize::from(u16::from_be_bytes([len[0], len[1]])))?.to_vec())
    }
}
