//! The profile WIT-SVID (§7): messages by the numbers of `workloadapi.proto`, and the part of a workload that
//! they carry.

use std::string::{String, ToString};
use std::sync::Arc;
use std::vec::Vec;

use super::messages::JwtBundlesResponse;
use super::workload::{HINT_LEN_MAX, WIT_SVIDS_LEN_MAX, Workload, WorkloadError, key_of};
use crate::grpc::{Code, DecodeError, Reader, Status, Writer, frame_message};
use crate::{SpiffeBundle, SpiffeId, WitKey, WitSvid};

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
