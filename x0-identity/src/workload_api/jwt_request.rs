//! Calls that need a key or the time of day: issuing and validating JWT-SVIDs.

use core::fmt;
use std::string::{String, ToString};
use std::sync::Arc;
use std::time::SystemTime;
use std::vec::Vec;

use rustls::crypto::CryptoProvider;

use super::Workload;
use super::messages::{
    JwtSvidMessage, JwtSvidRequest, JwtSvidResponse, ValidateJwtSvidRequest, ValidateJwtSvidResponse,
};
use crate::grpc::{Code, Status, frame_message};
use crate::{JwtSvidValidator, SpiffeId};

/// A call that a [`ServerConnection`](super::ServerConnection) passes to its driver, because its answer needs
/// a key or the time of day. The driver calls [`JwtRequest::answer`] and returns the result as an input.
pub struct JwtRequest {
    pub(super) stream: u32,
    pub(super) workload: Arc<Workload>,
    pub(super) call: JwtCall,
    pub(super) provider: Arc<CryptoProvider>,
}

pub(super) enum JwtCall {
    Issue(JwtSvidRequest),
    Validate(ValidateJwtSvidRequest),
}

/// The answer to a [`JwtRequest`].
pub struct JwtAnswer {
    pub(super) stream: u32,
    pub(super) result: Result<Arc<[u8]>, Status>,
}

impl JwtRequest {
    /// Signs or validates tokens. `now` is the time of day. ECDSA takes some ten microseconds per token, RSA
    /// about a millisecond.
    #[must_use]
    pub fn answer(self, now: SystemTime) -> JwtAnswer {
        let result = match &self.call {
            JwtCall::Issue(request) => issue(&self.workload, request, now),
            JwtCall::Validate(request) => validate(&self.workload, request, self.provider, now),
        };
        JwtAnswer { stream: self.stream, result: result.map(|message| frame_message(&message)) }
    }
}

/// Without tokens.
impl fmt::Debug for JwtRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("JwtRequest").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl fmt::Debug for JwtAnswer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("JwtAnswer").field("stream", &self.stream).finish_non_exhaustive()
    }
}

fn invalid(message: impl Into<String>) -> Status {
    Status::new(Code::InvalidArgument, message)
}

/// Workload API §6.2.1.
fn issue(workload: &Workload, request: &JwtSvidRequest, now: SystemTime) -> Result<Vec<u8>, Status> {
    // §4.5: a mandatory field has a default value.
    if request.audience.is_empty() || request.audience.iter().any(String::is_empty) {
        return Err(invalid("audience is empty: name the service that the token is presented to"));
    }
    let wanted = match request.spiffe_id.as_str() {
        "" => None,
        text => Some(SpiffeId::parse(text).map_err(|error| invalid(std::format!("spiffe_id: {error}")))?),
    };
    let denied = |message: &str| Status::new(Code::PermissionDenied, message);
    let jwt = workload.jwt().ok_or_else(|| denied("the workload receives no JWT-SVIDs"))?;
    let audience: Vec<&str> = request.audience.iter().map(String::as_str).collect();
    let mut response = JwtSvidResponse::default();
    for held in workload.identities() {
        let spiffe_id = held.svid.spiffe_id();
        if wanted.as_ref().is_some_and(|wanted| wanted != spiffe_id) {
            continue;
        }
        let svid =
            jwt.issuer.issue(spiffe_id, &audience, jwt.validity, now).map_err(|error| match error {
                crate::JwtIssueError::Length { .. } => invalid(error.to_string()),
                _ => Status::new(Code::Internal, error.to_string()),
            })?;
        response.svids.push(JwtSvidMessage {
            spiffe_id: spiffe_id.to_string(),
            svid: svid.token().into(),
            hint: held.hint.clone(),
        });
    }
    if response.svids.is_empty() {
        return Err(denied("the workload has no identity, or not the requested one"));
    }
    Ok(response.encode())
}

/// Workload API §6.2.3.
fn validate(
    workload: &Workload,
    request: &ValidateJwtSvidRequest,
    provider: Arc<CryptoProvider>,
    now: SystemTime,
) -> Result<Vec<u8>, Status> {
    if request.audience.is_empty() {
        return Err(invalid("audience is empty: name the validating service"));
    }
    if request.svid.is_empty() {
        return Err(invalid("svid is empty: pass the token"));
    }
    let validator = JwtSvidValidator::new(&request.audience).provider(provider);
    let svid = validator
        .validate(&request.svid, &workload.bundles(), now)
        .map_err(|error| invalid(error.to_string()))?;
    let response = ValidateJwtSvidResponse {
        spiffe_id: svid.spiffe_id().to_string(),
        claims: Some(svid.claims().clone()),
    };
    Ok(response.encode())
}
