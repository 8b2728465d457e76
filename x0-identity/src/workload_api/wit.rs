//! The profile WIT-SVID (§7): messages by the numbers of `workloadapi.proto`, the part of a workload that
//! they carry, and what a client reads in them.

use std::string::{String, ToString};
use std::sync::Arc;
use std::time::SystemTime;
use std::vec::Vec;

use rustls::crypto::CryptoProvider;

use super::messages::JwtBundlesResponse;
use super::workload::{HINT_LEN_MAX, WIT_SVIDS_LEN_MAX, Workload, WorkloadError, key_of};
use super::{ClientOptions, MessageError};
use crate::grpc::{Code, DecodeError, Reader, Status, Writer, frame_message};
use crate::wit::Parsed;
use crate::{SpiffeBundle, SpiffeId, WitKey, WitKeyError, WitSvid, WitSvidError};

/// The WIT-SVIDs of a workload, as messages.
#[derive(Debug, Clone, Default)]
pub(super) struct WitIdentities {
    held: Vec<HeldWit>,
}

#[derive(Clone)]
struct HeldWit {
    spiffe_id: SpiffeId,
    token: String,
    /// The private key as a JSON Web Key.
    key: String,
    hint: String,
}

impl HeldWit {
    fn len(&self) -> usize {
        self.spiffe_id.to_string().len() + self.token.len() + self.key.len() + self.hint.len()
    }
}

/// Without the private key.
impl core::fmt::Debug for HeldWit {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.debug_struct("HeldWit").field("spiffe_id", &self.spiffe_id).finish_non_exhaustive()
    }
}

impl Workload {
    /// Adds a WIT-SVID with the key that it names, for servers with
    /// [`ServerOptions::wit_svids`](super::ServerOptions::wit_svids). The hint says what the workload uses it
    /// for (§8); it may be empty. The caller builds the workload again before the token expires.
    ///
    /// # Errors
    /// [`WorkloadError`], when the WIT-SVID is of another trust domain, the bundle has no authority for
    /// WIT-SVIDs, the hint is too long or that of another WIT-SVID, the key is another one, or all WIT-SVIDs
    /// have more bytes than [`WIT_SVIDS_LEN_MAX`](super::WIT_SVIDS_LEN_MAX).
    pub fn with_wit_svid(
        mut self,
        svid: &WitSvid,
        key: &WitKey,
        hint: &str,
    ) -> Result<Workload, WorkloadError> {
        self.check_domain(svid.spiffe_id().trust_domain())?;
        if self.bundle().wit_authorities().is_empty() {
            return Err(WorkloadError::NoAuthority { trust_domain: self.bundle().trust_domain().clone() });
        }
        if hint.len() > HINT_LEN_MAX {
            return Err(WorkloadError::HintLength { len: hint.len() });
        }
        if !hint.is_empty() && self.wit().held.iter().any(|held| held.hint == hint) {
            return Err(WorkloadError::DuplicateHint { hint: hint.into() });
        }
        if key.confirmation() != svid.confirmation() {
            return Err(WorkloadError::Key { spiffe_id: svid.spiffe_id().clone() });
        }
        let held = HeldWit {
            spiffe_id: svid.spiffe_id().clone(),
            token: svid.token().into(),
            key: key.to_jwk(),
            hint: hint.into(),
        };
        let len: usize = self.wit().held.iter().chain([&held]).map(HeldWit::len).sum();
        if len > WIT_SVIDS_LEN_MAX {
            return Err(WorkloadError::WitSvidsLength { len });
        }
        self.wit_mut().held.push(held);
        Ok(self)
    }
}

impl WitIdentities {
    /// The message with all WIT-SVIDs, or those of one SPIFFE ID. `None`, when there is none.
    pub(super) fn svids(&self, wanted: Option<&SpiffeId>) -> Option<Arc<[u8]>> {
        let mut writer = Writer::new();
        let wanted = |held: &&HeldWit| wanted.is_none_or(|wanted| *wanted == held.spiffe_id);
        let mut held = self.held.iter().filter(wanted).peekable();
        held.peek()?;
        for held in held {
            let message = Writer::new()
                .string(1, &held.spiffe_id.to_string())
                .string(2, &held.token)
                .string(3, &held.key)
                .string(4, &held.hint);
            writer = writer.element(1, &message.finish());
        }
        Some(frame_message(&writer.finish()))
    }
}

/// The message with the keys for WIT-SVIDs of all trust domains. A `map<string, string>` has the encoding of
/// a `map<string, bytes>`.
pub(super) fn bundles<'a>(all: impl Iterator<Item = &'a SpiffeBundle>) -> Arc<[u8]> {
    let keys = |bundle: &SpiffeBundle| (key_of(bundle), bundle.wit_key_set().into_bytes());
    frame_message(&JwtBundlesResponse { bundles: all.map(keys).collect() }.encode())
}

/// The SPIFFE ID that a request asks for, if it does.
pub(super) fn wanted(request: &[u8]) -> Result<Option<SpiffeId>, Status> {
    let undecodable = |error: DecodeError| Status::new(Code::Internal, error.to_string());
    let (mut reader, mut text) = (Reader::new(request), String::new());
    while let Some((field, value)) = reader.field().map_err(undecodable)? {
        if field == 1 {
            text = value.string().map_err(undecodable)?;
        }
    }
    if text.is_empty() {
        return Ok(None);
    }
    let invalid = |error| Status::new(Code::InvalidArgument, std::format!("spiffe_id: {error}"));
    SpiffeId::parse(&text).map(Some).map_err(invalid)
}

/// The WIT-SVIDs of this workload, from one message. It takes the place of the one before as a whole (§4.4).
#[derive(Debug, Clone)]
pub struct WitContext {
    svids: Vec<FetchedWitSvid>,
}

/// A WIT-SVID of this workload with the key that it names. Its form was checked, and not its signature, which
/// recipients verify.
#[derive(Clone)]
#[non_exhaustive]
pub struct FetchedWitSvid {
    /// The SPIFFE ID.
    pub spiffe_id: SpiffeId,
    /// The token in the compact serialization.
    pub token: String,
    /// The key that proves the possession of the token.
    pub key: Arc<WitKey>,
    /// The moment from which on the token is not accepted.
    pub expires: SystemTime,
    /// The hint; empty if there is none.
    pub hint: String,
}

/// Without the token and the private key.
impl core::fmt::Debug for FetchedWitSvid {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter
            .debug_struct("FetchedWitSvid")
            .field("spiffe_id", &self.spiffe_id)
            .field("expires", &self.expires)
            .field("hint", &self.hint)
            .finish_non_exhaustive()
    }
}

/// A WIT-SVID of a message cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WitMessageError {
    /// The token is not a WIT-SVID.
    #[error("the WIT-SVID of {spiffe_id} breaks a rule: issue it again")]
    Token {
        /// The SPIFFE ID that the message names.
        spiffe_id: SpiffeId,
        /// The rule.
        source: WitSvidError,
    },
    /// The private key cannot be read.
    #[error("the key of the WIT-SVID of {spiffe_id} cannot be used: correct the server")]
    Key {
        /// The SPIFFE ID that the message names.
        spiffe_id: SpiffeId,
        /// The reason.
        source: WitKeyError,
    },
    /// The private key is not that of the public key in the token.
    #[error("the WIT-SVID of {spiffe_id} names another key than the message has: correct the server")]
    OtherKey {
        /// The SPIFFE ID that the message names.
        spiffe_id: SpiffeId,
    },
}

impl WitContext {
    pub(super) fn read(message: &[u8], provider: &CryptoProvider) -> Result<WitContext, MessageError> {
        let (mut reader, mut svids) = (Reader::new(message), Vec::new());
        while let Some((field, value)) = reader.field()? {
            if field == 1 {
                svids.push(FetchedWitSvid::read(value.bytes()?, provider)?);
            }
        }
        if svids.is_empty() {
            Err(MessageError::Missing { field: "svids" })
        } else {
            Ok(WitContext { svids })
        }
    }

    /// The WIT-SVIDs, never none, that of the default identity first (§8).
    #[must_use]
    pub fn svids(&self) -> &[FetchedWitSvid] {
        &self.svids
    }

    /// The first WIT-SVID with a hint (§7.2.1).
    #[must_use]
    pub fn svid_with_hint(&self, hint: &str) -> Option<&FetchedWitSvid> {
        self.svids.iter().find(|svid| svid.hint == hint)
    }
}

impl FetchedWitSvid {
    fn read(message: &[u8], provider: &CryptoProvider) -> Result<FetchedWitSvid, MessageError> {
        let (mut spiffe_id, mut token, mut key, mut hint) = Default::default();
        let mut reader = Reader::new(message);
        while let Some((field, value)) = reader.field()? {
            let text: &mut String = match field {
                1 => &mut spiffe_id,
                2 => &mut token,
                3 => &mut key,
                4 => &mut hint,
                _ => continue,
            };
            *text = value.string()?;
        }
        for (field, text) in [("spiffe_id", &spiffe_id), ("wit_svid", &token), ("wit_svid_key", &key)] {
            if text.is_empty() {
                return Err(MessageError::Missing { field });
            }
        }
        let named = SpiffeId::parse(&spiffe_id)?;
        let broken = |source| WitMessageError::Token { spiffe_id: named.clone(), source };
        let parsed = Parsed::read(&token).map_err(broken)?;
        let expires = parsed.expires().map_err(broken)?;
        if parsed.spiffe_id != named {
            return Err(MessageError::Mismatch { named, found: parsed.spiffe_id });
        }
        let key = WitKey::from_jwk_with_provider(&key, provider)
            .map_err(|source| WitMessageError::Key { spiffe_id: named.clone(), source })?;
        if *key.confirmation() != parsed.confirmation {
            return Err(WitMessageError::OtherKey { spiffe_id: named }.into());
        }
        Ok(FetchedWitSvid { spiffe_id: named, token, key: Arc::new(key), expires, hint })
    }
}

/// The request for the WIT-SVIDs of one identity, or of all.
pub(super) fn request(wanted: Option<&SpiffeId>) -> Vec<u8> {
    Writer::new().string(1, &wanted.map(ToString::to_string).unwrap_or_default()).finish()
}

impl ClientOptions {
    /// Sets whether the client receives the WIT-SVIDs of this workload, with their keys. It does not by
    /// default. An endpoint without the profile answers `Unimplemented`, which is final.
    #[must_use]
    pub fn wit_svids(mut self, wanted: bool) -> ClientOptions {
        self.wit_svids = wanted;
        self
    }

    /// Restricts the WIT-SVIDs to those of one identity.
    #[must_use]
    pub fn wit_spiffe_id(mut self, spiffe_id: SpiffeId) -> ClientOptions {
        self.wit_spiffe_id = Some(spiffe_id);
        self
    }

    /// Sets whether the client receives the keys for WIT-SVIDs. It does not by default.
    #[must_use]
    pub fn wit_bundles(mut self, wanted: bool) -> ClientOptions {
        self.wit_bundles = wanted;
        self
    }
}
