//! The SPIFFE bundle: the authorities of a trust domain for all kinds of SVIDs, as a JSON Web Key Set.

use std::string::{String, ToString};
use std::time::Duration;
use std::vec::Vec;

use pki_types::CertificateDer;

use super::jwk::write_authority;
use super::{JwtAuthority, JwtKey, WitAuthority};
use crate::base64::{Alphabet, decode};
use crate::json::Json;
use crate::{BundleError, JsonError, TrustBundle, TrustDomain};

/// The longest bundle that is parsed, in bytes. 64 authorities of 16 KiB take 1.4 MiB.
pub const BUNDLE_LEN_MAX: usize = 2 * 1024 * 1024;

/// The authorities of a trust domain for X.509-SVIDs, JWT-SVIDs and WIT-SVIDs, with a sequence number and a
/// refresh hint (Trust Domain and Bundle §4).
///
/// An element of a bundle that cannot be used does not make the others unusable: it is left out, and
/// [`SpiffeBundle::refused`] says why. Members that no document defines (and the `crl` fields of proposals,
/// which are not enforced) are kept and written back.
///
/// ```
/// use x0_identity::{SpiffeBundle, TrustDomain};
///
/// let json = br#"{"spiffe_sequence": 7, "spiffe_refresh_hint": 300, "keys": [{"kty": "EC", "use": "other-svid"}]}"#;
/// let bundle = SpiffeBundle::from_json(TrustDomain::parse("example.org")?, json)?;
/// assert_eq!(bundle.sequence(), Some(7));
/// assert!(bundle.trust_bundle().is_empty()); // every SVID of example.org is untrusted
/// assert_eq!(bundle.refused()[0].to_string(), "element 0 of the bundle is left out");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpiffeBundle {
    trust_bundle: TrustBundle,
    jwt_authorities: Vec<JwtAuthority>,
    wit_authorities: Vec<WitAuthority>,
    sequence: Option<u64>,
    refresh_hint: Option<Duration>,
    pub(super) refused: Vec<Refused>,
    /// Members of the set that no document defines.
    further: Vec<(String, Json)>,
}

/// An element of a bundle that is left out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("element {position} of the bundle is left out")]
#[non_exhaustive]
pub struct Refused {
    /// The position in `keys`, counted from zero.
    pub position: usize,
    /// The reason.
    pub source: Refusal,
}

/// The reason that an element of a bundle is left out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// `use` is missing, or is none of `x509-svid`, `jwt-svid` and `wit-svid` (§4.2.2: MUST ignore).
    #[error("its use is none of x509-svid, jwt-svid and wit-svid: it is for another kind of SVID")]
    Use,
    /// `kty` is missing or unknown (§4.2.1: MUST ignore).
    #[error("its key type is missing or unknown: publish RSA or EC keys")]
    KeyType,
    /// The `kid` of a JWT or WIT authority is missing (JWT-SVID §6.1, WIT-SVID §6.1).
    #[error("it has no kid, which a jwt-svid or wit-svid key must have: publish it with a kid")]
    KeyId,
    /// The `kid` of a JWT or WIT authority occurs twice among both kinds (WIT-SVID §6.1).
    #[error("its kid occurs twice in the bundle: publish every key with a kid of its own")]
    DuplicateKeyId,
    /// A parameter of a key is missing or wrong.
    #[error(
        "its parameter {name} is missing, is not base64url, or has a wrong length: publish the key again"
    )]
    KeyParameter {
        /// The name of the parameter.
        name: &'static str,
    },
    /// `x5c` is missing or empty (X509-SVID §6.2: MUST ignore).
    #[error("it has no x5c value, which an x509-svid key must have: publish it with its certificate")]
    NoCertificate,
    /// The first value of `x5c` is not base64.
    #[error("the first value of its x5c is not base64: publish the certificate again")]
    CertificateEncoding,
    /// The certificate breaks a rule, or the bundle has too many.
    #[error(transparent)]
    Authority(BundleError),
    /// The bundle has more than 64 JWT authorities.
    #[error("the bundle has more than 64 jwt-svid keys: remove those that no longer sign")]
    JwtAuthorities,
    /// The bundle has more than 64 WIT authorities.
    #[error("the bundle has more than 64 wit-svid keys: remove those that no longer sign")]
    WitAuthorities,
}

/// A text is not a SPIFFE bundle. No part of it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpiffeBundleError {
    /// The text is longer than [`BUNDLE_LEN_MAX`]; it was not parsed.
    #[error("the bundle has {len} bytes, more than the {BUNDLE_LEN_MAX} allowed: remove authorities")]
    Length {
        /// The length of the text, in bytes.
        len: usize,
    },
    /// The text is not JSON.
    #[error("the bundle is not JSON: fetch or publish it again")]
    Json(#[from] JsonError),
    /// The text is not an object with an array of objects named `keys` (§4.1.3).
    #[error("the bundle has no array \"keys\" of objects: publish it as a JSON Web Key Set")]
    Keys,
    /// `spiffe_sequence` is not an integer from 0 to 2^64 - 1 (§4.1.1).
    #[error("spiffe_sequence of the bundle is not an integer of 64 bits: publish it as one")]
    Sequence,
    /// `spiffe_refresh_hint` is not an integer from 0 to 2^64 - 1 (§4.1.2).
    #[error("spiffe_refresh_hint of the bundle is not an integer of seconds: publish it as one")]
    RefreshHint,
}

impl SpiffeBundle {
    /// The most keys for JWT-SVIDs.
    pub const JWT_AUTHORITIES_MAX: usize = 64;

    /// The most keys for WIT-SVIDs.
    pub const WIT_AUTHORITIES_MAX: usize = 64;

    /// Builds a bundle from the authorities for X.509-SVIDs, without a sequence number.
    #[must_use]
    pub fn new(trust_bundle: TrustBundle) -> SpiffeBundle {
        SpiffeBundle {
            trust_bundle,
            jwt_authorities: Vec::new(),
            wit_authorities: Vec::new(),
            sequence: None,
            refresh_hint: None,
            refused: Vec::new(),
            further: Vec::new(),
        }
    }

    /// Sets the authorities for JWT-SVIDs.
    ///
    /// # Errors
    /// [`Refused`] names the first that has the key id of an earlier one, or is one too many.
    pub fn with_jwt_authorities(mut self, authorities: Vec<JwtAuthority>) -> Result<SpiffeBundle, Refused> {
        self.jwt_authorities.clear();
        for (position, authority) in authorities.into_iter().enumerate() {
            self.add_jwt(authority).map_err(|source| Refused { position, source })?;
        }
        Ok(self)
    }

    /// Sets the authorities for WIT-SVIDs.
    ///
    /// # Errors
    /// [`Refused`] names the first that has the key id of an earlier one or of an authority for JWT-SVIDs, or
    /// is one too many.
    pub fn with_wit_authorities(mut self, authorities: Vec<WitAuthority>) -> Result<SpiffeBundle, Refused> {
        self.wit_authorities.clear();
        for (position, authority) in authorities.into_iter().enumerate() {
            self.add_wit(authority).map_err(|source| Refused { position, source })?;
        }
        Ok(self)
    }

    /// Sets the sequence number. A publisher raises it with every change (§4.1.1).
    #[must_use]
    pub fn with_sequence(mut self, sequence: u64) -> SpiffeBundle {
        self.sequence = Some(sequence);
        self
    }

    /// Sets the refresh hint; fractions of a second are dropped (§4.1.2).
    #[must_use]
    pub fn with_refresh_hint(mut self, refresh_hint: Duration) -> SpiffeBundle {
        self.refresh_hint = Some(Duration::from_secs(refresh_hint.as_secs()));
        self
    }

    /// Reads the bundle of a trust domain. The text does not contain the name of the domain (§3).
    ///
    /// # Errors
    /// [`SpiffeBundleError`], when the text is not a SPIFFE bundle. Single elements that cannot be used are
    /// left out instead.
    pub fn from_json(trust_domain: TrustDomain, json: &[u8]) -> Result<SpiffeBundle, SpiffeBundleError> {
        if json.len() > BUNDLE_LEN_MAX {
            return Err(SpiffeBundleError::Length { len: json.len() });
        }
        SpiffeBundle::read(trust_domain, Json::parse(json)?)
    }

    pub(super) fn read(trust_domain: TrustDomain, json: Json) -> Result<SpiffeBundle, SpiffeBundleError> {
        let Json::Object(members) = json else { return Err(SpiffeBundleError::Keys) };
        let mut keys = None;
        let mut bundle = SpiffeBundle::new(TrustBundle::empty(trust_domain));
        for (name, value) in members {
            match name.as_str() {
                "keys" => keys = Some(value),
                "spiffe_sequence" => {
                    bundle.sequence = Some(value.as_u64().ok_or(SpiffeBundleError::Sequence)?);
                }
                "spiffe_refresh_hint" => {
                    let seconds = value.as_u64().ok_or(SpiffeBundleError::RefreshHint)?;
                    bundle.refresh_hint = Some(Duration::from_secs(seconds));
                }
                _ => bundle.further.push((name, value)),
            }
        }
        let Some(Json::Array(keys)) = keys else { return Err(SpiffeBundleError::Keys) };
        if !keys.iter().all(|key| matches!(key, Json::Object(_))) {
            return Err(SpiffeBundleError::Keys);
        }
        // WIT-SVIDs are incubating: a key for them takes no key id from a key for JWT-SVIDs, in either order.
        let is_wit = |key: &Json| key.get("use").and_then(Json::as_str) == Some("wit-svid");
        let keys = || keys.iter().enumerate();
        let last = keys().filter(|(_, key)| is_wit(key));
        for (position, key) in keys().filter(|(_, key)| !is_wit(key)).chain(last) {
            if let Err(source) = bundle.read_key(key) {
                bundle.refused.push(Refused { position, source });
            }
        }
        bundle.refused.sort_by_key(|refused| refused.position);
        Ok(bundle)
    }

    fn read_key(&mut self, key: &Json) -> Result<(), Refusal> {
        let known = |name| key.get(name).and_then(Json::as_str);
        match (known("use"), known("kty")) {
            (Some("x509-svid"), Some("RSA" | "EC" | "OKP")) => {
                let der = first_certificate(key)?;
                self.trust_bundle.push(der).map_err(Refusal::Authority)
            }
            (Some("jwt-svid"), Some("RSA" | "EC")) => self.add_jwt(JwtAuthority::read(key)?),
            (Some("wit-svid"), Some("RSA" | "EC")) => self.add_wit(WitAuthority::read(key)?),
            (Some("x509-svid" | "jwt-svid" | "wit-svid"), _) => Err(Refusal::KeyType),
            _ => Err(Refusal::Use),
        }
    }

    pub(super) fn add_jwt(&mut self, authority: JwtAuthority) -> Result<(), Refusal> {
        self.check_key_id(authority.key_id())?;
        if self.jwt_authorities.len() == Self::JWT_AUTHORITIES_MAX {
            return Err(Refusal::JwtAuthorities);
        }
        self.jwt_authorities.push(authority);
        Ok(())
    }

    pub(super) fn add_wit(&mut self, authority: WitAuthority) -> Result<(), Refusal> {
        self.check_key_id(authority.key_id())?;
        if self.wit_authorities.len() == Self::WIT_AUTHORITIES_MAX {
            return Err(Refusal::WitAuthorities);
        }
        self.wit_authorities.push(authority);
        Ok(())
    }

    /// WIT-SVID §6.1: a key id occurs once among the keys of both kinds.
    fn check_key_id(&self, key_id: &str) -> Result<(), Refusal> {
        let jwt = self.jwt_authorities.iter().map(JwtAuthority::key_id);
        let wit = self.wit_authorities.iter().map(WitAuthority::key_id);
        if jwt.chain(wit).any(|present| present == key_id) { Err(Refusal::DuplicateKeyId) } else { Ok(()) }
    }

    /// The bundle as JSON. An X.509 authority with a key that RFC 7518 does not define is not in it.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = String::new();
        self.write(true).write(&mut text);
        text
    }

    pub(super) fn write(&self, with_hint: bool) -> Json {
        let mut members = Vec::new();
        let number = |name: &str, number: u64| (name.to_string(), Json::Number(number.to_string()));
        members.extend(self.sequence.map(|sequence| number("spiffe_sequence", sequence)));
        if with_hint {
            members.extend(self.refresh_hint.map(|hint| number("spiffe_refresh_hint", hint.as_secs())));
        }
        let authorities = self.trust_bundle.authorities().iter().filter_map(write_authority);
        let authorities = authorities.chain(self.jwt_authorities.iter().map(JwtAuthority::write));
        let keys = authorities.chain(self.wit_authorities.iter().map(WitAuthority::write)).collect();
        members.push(("keys".into(), Json::Array(keys)));
        members.extend(self.further.iter().cloned());
        Json::Object(members)
    }

    pub(super) fn without_hint(mut self) -> SpiffeBundle {
        self.refresh_hint = None;
        self
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        self.trust_bundle.trust_domain()
    }

    /// The authorities for X.509-SVIDs.
    #[must_use]
    pub fn trust_bundle(&self) -> &TrustBundle {
        &self.trust_bundle
    }

    /// The authorities for JWT-SVIDs.
    #[must_use]
    pub fn jwt_authorities(&self) -> &[JwtAuthority] {
        &self.jwt_authorities
    }

    /// The authorities for WIT-SVIDs; none, when the trust domain does not support them (WIT-SVID §6.2).
    #[must_use]
    pub fn wit_authorities(&self) -> &[WitAuthority] {
        &self.wit_authorities
    }

    /// The key of a JWT authority.
    #[must_use]
    pub fn jwt_key(&self, key_id: &str) -> Option<&JwtKey> {
        self.jwt_authorities.iter().find(|authority| authority.key_id() == key_id).map(JwtAuthority::key)
    }

    /// The sequence number.
    #[must_use]
    pub fn sequence(&self) -> Option<u64> {
        self.sequence
    }

    /// The interval at which the publisher suggests to fetch the bundle again.
    #[must_use]
    pub fn refresh_hint(&self) -> Option<Duration> {
        self.refresh_hint
    }

    /// The elements that were left out, in order.
    #[must_use]
    pub fn refused(&self) -> &[Refused] {
        &self.refused
    }
}

/// X509-SVID §6.2: the first value of `x5c`; all but the first are ignored.
fn first_certificate(key: &Json) -> Result<CertificateDer<'static>, Refusal> {
    let Some(Json::Array(values)) = key.get("x5c") else { return Err(Refusal::NoCertificate) };
    let text = values.first().ok_or(Refusal::NoCertificate)?.as_str().ok_or(Refusal::CertificateEncoding)?;
    Ok(decode(text, Alphabet::Standard).ok_or(Refusal::CertificateEncoding)?.into())
}
