//! The issuer's side of the exchange.

use core::fmt;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::string::{String, ToString};
use std::time::{Duration, SystemTime};
use std::vec::Vec;

use pki_types::CertificateDer;

use super::message::{Evidence, IssuanceAnswer, IssuanceRefusal, IssuanceRequest, IssuanceResponse};
use crate::attest::UnixConnection;
use crate::telemetry::{IssuanceTelemetry, IssuedFor};
use crate::{
    CaSigner, CertificateRequest, IssueRequest, RegistrationEntry, Registry, Selector, SpiffeId, TrustBundle,
    UnsignedCertificate,
};

/// The settings of an [`IssuanceServer`]. Start from [`IssuanceServerOptions::default`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct IssuanceServerOptions {
    /// The most requests that wait for an attestor or a signer. Further ones are refused. The default is
    /// 1,024.
    pub pending_max: usize,
    /// A request without an answer of the attestor or the signer is refused after this time. The default is
    /// 10 seconds.
    pub answer_max: Duration,
}

impl Default for IssuanceServerOptions {
    fn default() -> IssuanceServerOptions {
        IssuanceServerOptions { pending_max: 1024, answer_max: Duration::from_secs(10) }
    }
}

impl IssuanceServerOptions {
    /// Sets [`IssuanceServerOptions::pending_max`].
    #[must_use]
    pub fn pending_max(mut self, pending_max: usize) -> IssuanceServerOptions {
        self.pending_max = pending_max;
        self
    }

    /// Sets [`IssuanceServerOptions::answer_max`].
    #[must_use]
    pub fn answer_max(mut self, answer_max: Duration) -> IssuanceServerOptions {
        self.answer_max = answer_max;
        self
    }
}

/// What an attestor found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Proof {
    /// The workload has these properties: the registration entry must match them.
    Selectors(BTreeSet<Selector>),
    /// The workload holds the key of an SVID of this SPIFFE ID, which it received before: the ID must be
    /// registered still.
    Holder(SpiffeId),
}

/// Evidence for an attestor. The engine has checked the proofs of possession.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PresentedEvidence {
    /// A join token: redeem it, bound to the requested key, so that a repeated request gets an answer.
    JoinToken {
        /// The token.
        token: String,
        /// The DER of the requested `SubjectPublicKeyInfo`.
        public_key_info: Vec<u8>,
    },
    /// A chain whose leaf has the requested SPIFFE ID by its text and whose key the workload holds. The
    /// attestor verifies the chain, and decides whether an expired one is accepted.
    Svid(Vec<CertificateDer<'static>>),
    /// The keys of a TPM: begin with `tpm::TpmAttestor::begin`, and give its challenge to
    /// [`IssuanceServerInput::Challenge`].
    Tpm {
        /// The bytes of `tpm::TpmEvidence`.
        evidence: Vec<u8>,
        /// The binding of the connection, which the quote of the TPM covers.
        binding: [u8; 32],
    },
    /// A chain of another authority, whose key the workload holds. The attestor verifies the chain.
    Certificate(Vec<CertificateDer<'static>>),
    /// The connection of a process on the same machine. A program that accepts such connections presents it;
    /// no request over the network has it. Without the feature `unix-peers` it has no value.
    Unix(UnixConnection),
}

/// An input of an [`IssuanceServer`]. `id` is a number that the driver gives to a request, and does not give
/// to another one.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum IssuanceServerInput {
    /// A request has arrived over TLS.
    Request {
        /// The number of the request.
        id: u64,
        /// The SPIFFE ID that the TLS connection has authenticated, if any.
        peer: Option<SpiffeId>,
        /// The bytes that both sides export with
        /// [`ISSUANCE_BINDING_LABEL`](crate::ISSUANCE_BINDING_LABEL).
        binding: [u8; 32],
        /// The request.
        bytes: Vec<u8>,
        /// The system's clock, since 1970.
        wall: Duration,
    },
    /// The answer to [`IssuanceServerOutput::Attest`] or [`IssuanceServerOutput::Examine`]: the evidence is
    /// good.
    Attested {
        /// The number of the request.
        id: u64,
        /// What it proves.
        proof: Proof,
        /// The system's clock, since 1970.
        wall: Duration,
    },
    /// An answer to [`IssuanceServerOutput::Attest`]: the workload has to answer a challenge first.
    Challenge {
        /// The number of the request.
        id: u64,
        /// The challenge: for a TPM the bytes of `tpm::TpmChallenge`.
        challenge: Vec<u8>,
    },
    /// The message that follows a challenge on its connection.
    Response {
        /// The number of the request.
        id: u64,
        /// The message.
        bytes: Vec<u8>,
    },
    /// The answer to [`IssuanceServerOutput::Attest`] or [`IssuanceServerOutput::Examine`]: the evidence is
    /// not accepted.
    NotAttested {
        /// The number of the request.
        id: u64,
        /// The reason and the remedy, for the operator of the workload.
        why: String,
    },
    /// The answer to [`IssuanceServerOutput::Sign`]: a signature, or `None` if the signer failed.
    Signed {
        /// The number of the request.
        id: u64,
        /// The signature.
        signature: Option<Vec<u8>>,
    },
    /// The connection of a request has ended: nobody waits for its answer.
    Gone {
        /// The number of the request.
        id: u64,
    },
    /// The time of [`IssuanceServer::poll_timeout`] has come.
    Timeout,
}

/// An output of an [`IssuanceServer`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum IssuanceServerOutput {
    /// Ask the attestor of this kind of evidence.
    Attest {
        /// The number of the request.
        id: u64,
        /// The requested SPIFFE ID.
        spiffe_id: SpiffeId,
        /// The evidence.
        evidence: PresentedEvidence,
    },
    /// Send the challenge, and keep the connection: the next message on it is for
    /// [`IssuanceServerInput::Response`].
    Challenge {
        /// The number of the request.
        id: u64,
        /// The message, as bytes of an [`IssuanceAnswer`].
        bytes: Vec<u8>,
    },
    /// Have the attestor examine the response to its challenge.
    Examine {
        /// The number of the request.
        id: u64,
        /// The response: for a TPM the bytes of `tpm::TpmAnswer`.
        response: Vec<u8>,
    },
    /// Sign these bytes with the authority's key: see [`UnsignedCertificate::to_be_signed`].
    Sign {
        /// The number of the request.
        id: u64,
        /// The bytes.
        to_be_signed: Vec<u8>,
    },
    /// Send the answer. The connection may stay for further requests, each with a number of its own, which
    /// are answered in their order: the handshake costs more than a renewal. Bound them.
    Answer {
        /// The number of the request.
        id: u64,
        /// The answer, as bytes of an [`IssuanceAnswer`].
        bytes: Vec<u8>,
        /// The SPIFFE ID, if an SVID was issued.
        issued: Option<SpiffeId>,
    },
}

/// An input was not expected. The state is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IssuanceServerError {
    /// Another request has the number.
    #[error("request {id} is in progress: number requests from a counter")]
    Duplicate {
        /// The number.
        id: u64,
    },
    /// No request of the number waits for this answer; it may be late.
    #[error("request {id} does not wait for this answer: drop it, it came after its time")]
    NotWaiting {
        /// The number.
        id: u64,
    },
}

/// The issuer's side of the exchange, as an engine: it reads requests, has evidence attested, looks entries
/// up, has certificates signed, and answers. Attestors, the store of entries and the key are elsewhere.
///
/// Several requests may share a connection, one after the other or ahead of their answers. Several identities
/// of one machine share one as well: TLS authenticates one of them, and each other one proves that it is held
/// by [`Evidence::Svid`], which is bound to the connection.
///
/// A renewal is a request over mutual TLS for the SPIFFE ID of the peer. It needs no attestor, and no more
/// than that the ID is registered still.
///
/// # Drain contract
/// After each [`IssuanceServer::handle`], with or without an error, take outputs until
/// [`IssuanceServer::poll_output`] returns `None`. Then wait until [`IssuanceServer::poll_timeout`] or an
/// input, whichever comes first. `now` is the time since any origin, from a clock that does not go back.
///
/// ```
/// use std::collections::BTreeSet;
/// use std::time::{Duration, SystemTime};
/// use x0_identity::*;
///
/// # fn run(signer: CaSigner, bundle: TrustBundle, ca_sign: impl Fn(&[u8]) -> Vec<u8>) -> Result<(), Box<dyn std::error::Error>> {
/// let id = SpiffeId::parse("spiffe://example.org/web")?;
/// let mut registry = MemoryRegistry::new();
/// registry.insert(RegistrationEntry::new(id.clone(), Duration::from_secs(3600)).selector(Selector::parse("join_token:web")?));
/// let mut tokens = JoinTokens::new();
/// let (wall, bytes, binding) = (Duration::from_secs(2_000_000_000), vec![1], [0; 32]);
///
/// let mut server = IssuanceServer::new(signer, registry, bundle, IssuanceServerOptions::default());
/// let now = Duration::ZERO;
/// server.handle(now, IssuanceServerInput::Request { id: 1, peer: None, binding, bytes, wall })?;
/// while let Some(output) = server.poll_output() {
///     match output {
///         IssuanceServerOutput::Attest { id, evidence: PresentedEvidence::JoinToken { token, public_key_info }, .. } => {
///             let selector = tokens.redeem(&token, &public_key_info, SystemTime::UNIX_EPOCH + wall)?;
///             let proof = Proof::Selectors(BTreeSet::from([selector]));
///             server.handle(now, IssuanceServerInput::Attested { id, proof, wall })?;
///         }
///         IssuanceServerOutput::Sign { id, to_be_signed } => {
///             let signature = Some(ca_sign(&to_be_signed));
///             server.handle(now, IssuanceServerInput::Signed { id, signature })?;
///         }
///         IssuanceServerOutput::Answer { bytes, .. } => drop(bytes), // to the workload
///         _ => {}
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct IssuanceServer<R> {
    signer: CaSigner,
    registry: R,
    bundle: TrustBundle,
    options: IssuanceServerOptions,
    pending: BTreeMap<u64, Pending>,
    outputs: VecDeque<IssuanceServerOutput>,
    telemetry: IssuanceTelemetry,
}

#[derive(Debug)]
struct Pending {
    step: Step,
    origin: Origin,
    until: Duration,
}

/// Where a request came from, for its telemetry.
#[derive(Debug, Clone, Copy)]
struct Origin {
    begun: Duration,
    issued_for: IssuedFor,
}

#[derive(Debug)]
enum Step {
    /// For the attestor.
    Attesting {
        request: IssuanceRequest,
        key: CertificateRequest,
    },
    /// For the response to a challenge.
    Challenged {
        request: IssuanceRequest,
        key: CertificateRequest,
    },
    Signing {
        spiffe_id: SpiffeId,
        unsigned: UnsignedCertificate,
    },
}

impl<R: Registry> IssuanceServer<R> {
    /// Builds an engine without requests. `bundle` goes to workloads with each SVID. Requests are verified
    /// with the signer's provider of cryptography.
    #[must_use]
    pub fn new(
        signer: CaSigner,
        registry: R,
        bundle: TrustBundle,
        options: IssuanceServerOptions,
    ) -> IssuanceServer<R> {
        let (pending, outputs) = (BTreeMap::new(), VecDeque::new());
        let telemetry = IssuanceTelemetry::new();
        IssuanceServer { signer, registry, bundle, options, pending, outputs, telemetry }
    }

    /// The registration entries, to be changed. The next lookup sees the change.
    pub fn registry_mut(&mut self) -> &mut R {
        &mut self.registry
    }

    /// Replaces the authority and the bundle. Requests that wait for a signature of the former authority are
    /// refused, and workloads try again. The provider of cryptography of the new signer is used from then on,
    /// also to verify requests.
    pub fn set_authority(&mut self, signer: CaSigner, bundle: TrustBundle) {
        (self.signer, self.bundle) = (signer, bundle);
        let signing: Vec<u64> = self
            .pending
            .iter()
            .filter(|(_, pending)| matches!(pending.step, Step::Signing { .. }))
            .map(|(id, _)| *id)
            .collect();
        for id in signing {
            self.pending.remove(&id);
            self.refuse(id, IssuanceRefusal::Busy, "the authority was replaced meanwhile: try again".into());
        }
    }

    /// Takes an input.
    ///
    /// # Errors
    /// [`IssuanceServerError`]; the state is unchanged. What a peer does wrong is no error, but an answer.
    pub fn handle(&mut self, now: Duration, input: IssuanceServerInput) -> Result<(), IssuanceServerError> {
        match input {
            IssuanceServerInput::Request { id, peer, binding, bytes, wall } => {
                if self.pending.contains_key(&id) {
                    return Err(IssuanceServerError::Duplicate { id });
                }
                self.request(now, id, peer, &binding, &bytes, wall);
            }
            IssuanceServerInput::Attested { id, proof, wall } => {
                let (request, key, origin) = self.attesting(id)?;
                self.attested(now, id, origin, &request, key, &proof, wall);
            }
            IssuanceServerInput::Challenge { id, challenge } => {
                let (request, key, origin) = self.attesting(id)?;
                self.wait(now, id, Step::Challenged { request, key }, origin);
                let bytes = IssuanceAnswer::Challenge(challenge).to_bytes();
                self.outputs.push_back(IssuanceServerOutput::Challenge { id, bytes });
            }
            IssuanceServerInput::Response { id, bytes } => self.responded(now, id, &bytes)?,
            IssuanceServerInput::NotAttested { id, why } => {
                self.attesting(id)?;
                self.refuse(id, IssuanceRefusal::NotAttested, why);
            }
            IssuanceServerInput::Signed { id, signature } => self.signed(now, id, signature)?,
            IssuanceServerInput::Gone { id } => _ = self.pending.remove(&id),
            IssuanceServerInput::Timeout => {
                let late: Vec<u64> = self
                    .pending
                    .iter()
                    .filter(|(_, pending)| pending.until <= now)
                    .map(|(id, _)| *id)
                    .collect();
                for id in late {
                    self.pending.remove(&id);
                    self.refuse(id, IssuanceRefusal::Busy, "the issuer took too long: try again".into());
                }
            }
        }
        Ok(())
    }

    /// The next thing to do, until `None`.
    pub fn poll_output(&mut self) -> Option<IssuanceServerOutput> {
        self.outputs.pop_front()
    }

    /// When to give [`IssuanceServerInput::Timeout`] at the latest; `None` while no request waits.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.pending.values().map(|pending| pending.until).min()
    }

    fn request(
        &mut self,
        now: Duration,
        id: u64,
        peer: Option<SpiffeId>,
        binding: &[u8; 32],
        bytes: &[u8],
        wall: Duration,
    ) {
        let request = match IssuanceRequest::from_bytes(bytes) {
            Ok(request) => request,
            Err(error) => return self.refuse(id, IssuanceRefusal::Malformed, error.to_string()),
        };
        let key = match CertificateRequest::from_der_with_provider(
            &request.certificate_request,
            self.signer.provider(),
        ) {
            Ok(key) => key,
            Err(error) => return self.refuse(id, IssuanceRefusal::Malformed, error.to_string()),
        };
        let origin = |issued_for| Origin { begun: now, issued_for };
        let (issued_for, evidence) = match &request.evidence {
            Evidence::CurrentSvid => {
                let Some(peer) = peer.filter(|peer| *peer == request.spiffe_id) else {
                    let why = "the TLS connection does not present an SVID of the requested SPIFFE ID";
                    return self.refuse(id, IssuanceRefusal::NotAttested, why.into());
                };
                let origin = origin(IssuedFor::Renewal);
                return self.attested(now, id, origin, &request, key, &Proof::Holder(peer), wall);
            }
            Evidence::JoinToken(token) => {
                let (token, public_key_info) = (token.clone(), key.public_key_info().to_vec());
                (IssuedFor::JoinToken, PresentedEvidence::JoinToken { token, public_key_info })
            }
            Evidence::Tpm(evidence) => {
                let evidence = PresentedEvidence::Tpm { evidence: evidence.clone(), binding: *binding };
                (IssuedFor::Tpm, evidence)
            }
            Evidence::Svid { .. } | Evidence::Certificate { .. }
                if !request.is_proved(self.signer.provider(), binding) =>
            {
                let why =
                    "the proof is not signed by the key of the presented certificate for this connection";
                return self.refuse(id, IssuanceRefusal::NotAttested, why.into());
            }
            Evidence::Svid { chain, .. } => (IssuedFor::EarlierSvid, PresentedEvidence::Svid(chain.clone())),
            Evidence::Certificate { chain, .. } => {
                (IssuedFor::Certificate, PresentedEvidence::Certificate(chain.clone()))
            }
        };
        if self.pending.len() >= self.options.pending_max {
            return self.refuse(id, IssuanceRefusal::Busy, "too many requests wait: try again later".into());
        }
        let spiffe_id = request.spiffe_id.clone();
        self.wait(now, id, Step::Attesting { request, key }, origin(issued_for));
        self.outputs.push_back(IssuanceServerOutput::Attest { id, spiffe_id, evidence });
    }

    fn wait(&mut self, now: Duration, id: u64, step: Step, origin: Origin) {
        self.pending.insert(id, Pending { step, origin, until: now + self.options.answer_max });
    }

    /// The response to a challenge goes to the attestor. Each challenge has one response.
    fn responded(&mut self, now: Duration, id: u64, bytes: &[u8]) -> Result<(), IssuanceServerError> {
        let (request, key, origin) = match self.pending.remove(&id) {
            Some(Pending { step: Step::Challenged { request, key }, origin, .. }) => (request, key, origin),
            other => {
                self.pending.extend(other.map(|pending| (id, pending)));
                return Err(IssuanceServerError::NotWaiting { id });
            }
        };
        match IssuanceResponse::from_bytes(bytes) {
            Ok(IssuanceResponse { response }) => {
                self.wait(now, id, Step::Attesting { request, key }, origin);
                self.outputs.push_back(IssuanceServerOutput::Examine { id, response });
            }
            Err(error) => self.refuse(id, IssuanceRefusal::Malformed, error.to_string()),
        }
        Ok(())
    }

    /// Takes a request that waits for its attestor.
    fn attesting(
        &mut self,
        id: u64,
    ) -> Result<(IssuanceRequest, CertificateRequest, Origin), IssuanceServerError> {
        match self.pending.remove(&id) {
            Some(Pending { step: Step::Attesting { request, key }, origin, .. }) => {
                Ok((request, key, origin))
            }
            other => {
                self.pending.extend(other.map(|pending| (id, pending)));
                Err(IssuanceServerError::NotWaiting { id })
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one request, of which some are moved")]
    fn attested(
        &mut self,
        now: Duration,
        id: u64,
        origin: Origin,
        request: &IssuanceRequest,
        key: CertificateRequest,
        proof: &Proof,
        wall: Duration,
    ) {
        let wall = SystemTime::UNIX_EPOCH + wall;
        let spiffe_id = request.spiffe_id.clone();
        let entry = self.entry(&spiffe_id, proof, wall);
        let Some(entry) = entry else {
            let why = std::format!(
                "no registration entry of {spiffe_id} matches what was proved: add one, or correct its selectors"
            );
            return self.refuse(id, IssuanceRefusal::NotRegistered, why);
        };
        let request = IssueRequest::new(spiffe_id.clone(), key, request.validity);
        match self.signer.begin(&entry, &request, wall) {
            Err(error) => self.refuse(id, IssuanceRefusal::NotRegistered, error.to_string()),
            Ok(_) if self.pending.len() >= self.options.pending_max => {
                self.refuse(id, IssuanceRefusal::Busy, "too many requests wait: try again later".into());
            }
            Ok(unsigned) => {
                let to_be_signed = unsigned.to_be_signed().to_vec();
                self.wait(now, id, Step::Signing { spiffe_id, unsigned }, origin);
                self.outputs.push_back(IssuanceServerOutput::Sign { id, to_be_signed });
            }
        }
    }

    fn entry(&self, spiffe_id: &SpiffeId, proof: &Proof, wall: SystemTime) -> Option<RegistrationEntry> {
        match proof {
            Proof::Holder(holder) if holder == spiffe_id => self.registry.entry(spiffe_id, wall),
            Proof::Holder(_) => None,
            Proof::Selectors(selectors) => {
                let matching = self.registry.matching(selectors, wall);
                matching.into_iter().find(|entry| entry.spiffe_id() == spiffe_id)
            }
        }
    }

    fn signed(
        &mut self,
        now: Duration,
        id: u64,
        signature: Option<Vec<u8>>,
    ) -> Result<(), IssuanceServerError> {
        let (spiffe_id, unsigned, origin) = match self.pending.remove(&id) {
            Some(Pending { step: Step::Signing { spiffe_id, unsigned }, origin, .. }) => {
                (spiffe_id, unsigned, origin)
            }
            other => {
                self.pending.extend(other.map(|pending| (id, pending)));
                return Err(IssuanceServerError::NotWaiting { id });
            }
        };
        match signature.map(|signature| self.signer.finish(&unsigned, &signature)) {
            Some(Ok(chain)) => {
                let authorities = self.bundle.authorities().to_vec();
                let bytes = IssuanceAnswer::Issued { chain, authorities }.to_bytes();
                self.telemetry.issued(origin.issued_for, now.saturating_sub(origin.begun));
                self.outputs.push_back(IssuanceServerOutput::Answer { id, bytes, issued: Some(spiffe_id) });
            }
            Some(Err(error)) => self.refuse(id, IssuanceRefusal::Signer, error.to_string()),
            None => self.refuse(id, IssuanceRefusal::Signer, "the signer of the issuer failed".into()),
        }
        Ok(())
    }

    fn refuse(&mut self, id: u64, refusal: IssuanceRefusal, text: String) {
        self.telemetry.refused(refusal);
        let bytes = IssuanceAnswer::Refused { refusal, text }.to_bytes();
        self.outputs.push_back(IssuanceServerOutput::Answer { id, bytes, issued: None });
    }
}

/// Without the token.
impl fmt::Debug for PresentedEvidence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            PresentedEvidence::JoinToken { .. } => "JoinToken",
            PresentedEvidence::Svid(_) => "Svid",
            PresentedEvidence::Tpm { .. } => "Tpm",
            PresentedEvidence::Certificate(_) => "Certificate",
            PresentedEvidence::Unix(_) => "Unix",
        })
    }
}
