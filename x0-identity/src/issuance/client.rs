//! The workload's side of the exchange.

use core::fmt;
use std::collections::VecDeque;
use std::string::String;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use std::vec::Vec;

use pki_types::{CertificateDer, PrivateKeyDer};
use rustls::crypto::CryptoProvider;

use super::message::{
    Evidence, IssuanceAnswer, IssuanceMessageError, IssuanceRefusal, IssuanceRequest, IssuanceResponse,
};
use crate::crypto::ring_provider;
use crate::issuer::sign;
use crate::{
    BundleError, Renewal, RenewalError, RenewalInput, RenewalOptions, RenewalOutput, RequestKey,
    RequestKeyError, SpiffeId, SvidError, TrustBundle, X509Svid,
};

/// Why an exchange failed below the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExchangeFailure {
    /// The issuer was not reached, or the connection ended.
    Unreachable,
    /// The issuer did not accept the SVID of this workload in the TLS handshake.
    NotAccepted,
    /// The key of the request was not stored, and nothing was sent. The next use of a join token begins with
    /// [`IssuanceClientOutput::StoreKey`] again.
    NotStored,
    /// The issued SVID or its bundle was not stored, for instance because the disk is full.
    SvidNotStored,
    /// The issued SVID was not taken into use: its bundle does not trust it, or it is not valid now.
    Unusable,
}

/// An input of an [`IssuanceClient`]. `wall` is the time since 1970 by the system's clock. `exchange` is the
/// number in the output that the input answers.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum IssuanceClientInput {
    /// The workload has an SVID that it did not receive from this engine: at the start, or from a file.
    Holds {
        /// The SVID.
        svid: X509Svid,
        /// The system's clock.
        wall: Duration,
    },
    /// The authority of the SVID is being replaced: renew before the time.
    Replaced {
        /// The system's clock.
        wall: Duration,
    },
    /// The time of [`IssuanceClient::poll_timeout`] has come, or the driver looks earlier.
    Timeout {
        /// The system's clock.
        wall: Duration,
    },
    /// The issuer is connected and has proved its identity.
    Connected {
        /// The number of the exchange.
        exchange: u64,
        /// The bytes that both sides export with
        /// [`ISSUANCE_BINDING_LABEL`](crate::ISSUANCE_BINDING_LABEL).
        binding: [u8; 32],
        /// The system's clock.
        wall: Duration,
    },
    /// The answer has arrived.
    Answer {
        /// The number of the exchange.
        exchange: u64,
        /// The answer.
        bytes: Vec<u8>,
        /// The system's clock.
        wall: Duration,
    },
    /// The answer to [`IssuanceClientOutput::Challenged`].
    Response {
        /// The number of the exchange.
        exchange: u64,
        /// The response, or `None` if the device gave none: the exchange fails.
        response: Option<Vec<u8>>,
        /// The system's clock.
        wall: Duration,
    },
    /// The SVID of [`IssuanceClientOutput::Install`] is in use.
    Installed {
        /// The number of the exchange.
        exchange: u64,
        /// The system's clock.
        wall: Duration,
    },
    /// The exchange failed, or its SVID could not be used.
    Failed {
        /// The number of the exchange.
        exchange: u64,
        /// The reason.
        failure: ExchangeFailure,
        /// The system's clock.
        wall: Duration,
    },
}

/// An output of an [`IssuanceClient`].
#[derive(Clone)]
#[non_exhaustive]
pub enum IssuanceClientOutput {
    /// Store this private key (PKCS #8) durably, where only its owner reads it, before taking the next
    /// output: a join token is bound to the first key that it is used with. If it is not stored, answer the
    /// output that follows with [`ExchangeFailure::NotStored`]. A process that starts again gives the key to
    /// [`IssuanceClient::key`]. Remove it after [`IssuanceClientOutput::Install`].
    StoreKey {
        /// The key.
        pkcs8: Vec<u8>,
    },
    /// End the connection of an earlier exchange, and connect to the issuer.
    Dial {
        /// The number of the exchange.
        exchange: u64,
        /// Whether to authenticate with the current SVID.
        with_svid: bool,
    },
    /// Send the request.
    Send {
        /// The number of the exchange.
        exchange: u64,
        /// The request.
        bytes: Vec<u8>,
    },
    /// Have the TPM answer the challenge (`tpm::Tpm::answer`), and keep the connection.
    Challenged {
        /// The number of the exchange.
        exchange: u64,
        /// The bytes of `tpm::TpmChallenge`.
        challenge: Vec<u8>,
        /// The binding of the connection.
        binding: [u8; 32],
    },
    /// Use the bundle, and then the SVID; store both. The connection is not needed any more.
    Install {
        /// The number of the exchange.
        exchange: u64,
        /// The SVID.
        svid: X509Svid,
        /// The bundle of the trust domain, from the issuer.
        bundle: TrustBundle,
    },
}

/// Why the last attempt gave no SVID. The engine tries again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IssuanceFailure {
    /// The issuer does not answer.
    #[error("the issuer does not answer: check its address and that it runs")]
    Unreachable,
    /// The issuer refused the SVID in the TLS handshake.
    #[error("the issuer does not accept the SVID of this workload: it may be expired or revoked")]
    NotAccepted,
    /// The key of the request was not stored.
    #[error("the key of the request cannot be stored, so that no join token is bound to it: check the disk")]
    NotStored,
    /// The issued SVID or its bundle was not stored.
    #[error(
        "the issued SVID cannot be stored, and the next attempt requests another one: free space on the disk, or correct the permissions of its folder"
    )]
    SvidNotStored,
    /// The issued SVID was not taken into use.
    #[error(
        "the issued SVID is not valid by the issuer's bundle and the clock of this machine: check the clock and the issuer"
    )]
    Unusable,
    /// The issuer refused the request.
    #[error("the issuer refused the request: {refusal}: {text}")]
    Refused {
        /// The reason.
        refusal: IssuanceRefusal,
        /// What the issuer says.
        text: String,
    },
    /// There is nothing to attest with.
    #[error(
        "there is neither a join token nor an earlier SVID to attest with: request a join token from the operator"
    )]
    NoEvidence,
    /// The TPM gave no answer to the challenge, or the issuer challenges a workload that did not present one.
    #[error("the challenge of the issuer has no answer: check the TPM of this machine")]
    Challenge,
    /// The answer cannot be read.
    #[error("the answer of the issuer cannot be read")]
    Message(#[from] IssuanceMessageError),
    /// The issued chain is not an SVID.
    #[error("the issuer has issued something that is not an SVID")]
    Svid(#[from] SvidError),
    /// The issued SVID is of another SPIFFE ID.
    #[error("the issuer has issued an SVID of {issued}: correct the issuer")]
    SpiffeId {
        /// The SPIFFE ID of the SVID.
        issued: SpiffeId,
    },
    /// The bundle in the answer breaks a rule.
    #[error("the bundle of the issuer breaks a rule")]
    Bundle(#[from] BundleError),
    /// No key was generated.
    #[error(transparent)]
    Key(#[from] RequestKeyError),
    /// The SVID ends before it begins.
    #[error(transparent)]
    Renewal(#[from] RenewalError),
}

/// An input was not expected. The state is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IssuanceClientError {
    /// The input is of an exchange that is over.
    #[error("exchange {exchange} is over: drop the input, and close its connection")]
    Over {
        /// The number of the exchange.
        exchange: u64,
    },
}

/// The workload's side of the exchange, as an engine: it decides when to request an SVID and with which
/// evidence, and checks what comes back. It contains a [`Renewal`] and never gives up.
///
/// A workload with a valid SVID renews it over mutual TLS. Without one it attests: with an SVID that it had
/// before, whose key proves the possession, with the TPM of its machine, with a certificate of its machine,
/// and with its join token; one after the other of those that it has.
///
/// # Drain contract
/// After each [`IssuanceClient::handle`], with or without an error, take outputs until
/// [`IssuanceClient::poll_output`] returns `None`. Then wait until [`IssuanceClient::poll_timeout`] or an
/// input, whichever comes first. `now` is the time since any origin, from a clock that does not go back; it
/// may stand still while the machine is suspended.
///
/// ```
/// use std::time::Duration;
/// use x0_identity::{IssuanceClient, IssuanceClientInput, IssuanceClientOutput, RenewalOptions, SpiffeId};
///
/// let id = SpiffeId::parse("spiffe://example.org/web")?;
/// let mut client = IssuanceClient::new(id, RenewalOptions::default(), 7).token("x".into());
/// let wall = Duration::from_secs(2_000_000_000);
/// client.handle(Duration::ZERO, IssuanceClientInput::Timeout { wall })?;
/// assert!(matches!(client.poll_output(), Some(IssuanceClientOutput::StoreKey { .. })));
/// assert!(matches!(client.poll_output(), Some(IssuanceClientOutput::Dial { exchange: 1, with_svid: false })));
/// client.handle(Duration::ZERO, IssuanceClientInput::Connected { exchange: 1, binding: [0; 32], wall })?;
/// assert!(matches!(client.poll_output(), Some(IssuanceClientOutput::Send { exchange: 1, .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct IssuanceClient {
    spiffe_id: SpiffeId,
    validity: Duration,
    token: Option<String>,
    tpm: Option<Vec<u8>>,
    /// A chain of another authority, and the key of its first certificate.
    certificate: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    provider: Arc<CryptoProvider>,
    renewal: Renewal,
    svid: Option<X509Svid>,
    key: Option<RequestKey>,
    /// Whether the driver was given the key to store, and has not failed, or gave it.
    key_is_stored: bool,
    /// The number of the last exchange.
    exchange: u64,
    step: Step,
    failure: Option<IssuanceFailure>,
    outputs: VecDeque<IssuanceClientOutput>,
}

/// What the exchange waits for.
#[derive(Debug, Clone)]
enum Step {
    Idle,
    Connecting(Kind),
    /// For the answer of the issuer; with the binding of the connection until a challenge.
    Answering(Kind, Option<[u8; 32]>),
    /// For the TPM.
    Challenged,
    Installing {
        not_before: Duration,
        not_after: Duration,
        svid: X509Svid,
    },
}

/// The evidence of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    CurrentSvid,
    EarlierSvid,
    Tpm,
    Certificate,
    JoinToken,
}

impl IssuanceClient {
    /// Builds an engine without an SVID. `seed` makes the jitter of one workload differ from that of others.
    #[must_use]
    pub fn new(spiffe_id: SpiffeId, options: RenewalOptions, seed: u64) -> IssuanceClient {
        IssuanceClient {
            spiffe_id,
            validity: Duration::from_secs(u32::MAX.into()),
            token: None,
            tpm: None,
            certificate: None,
            provider: ring_provider(),
            renewal: Renewal::new(options, seed),
            svid: None,
            key: None,
            key_is_stored: false,
            exchange: 0,
            step: Step::Idle,
            failure: None,
            outputs: VecDeque::new(),
        }
    }

    /// Sets the join token.
    #[must_use]
    pub fn token(mut self, token: String) -> IssuanceClient {
        self.token = Some(token);
        self
    }

    /// Sets the keys of the machine's TPM, as bytes of `tpm::TpmEvidence`.
    #[must_use]
    pub fn tpm(mut self, evidence: Vec<u8>) -> IssuanceClient {
        self.tpm = Some(evidence);
        self
    }

    /// Sets a certificate of another authority, such as that of the device: the chain, its own certificate
    /// first, and the private key of ECDSA, Ed25519 or RSA.
    #[must_use]
    pub fn certificate(
        mut self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> IssuanceClient {
        self.certificate = Some((chain, key));
        self
    }

    /// Sets the provider of cryptography, which generates keys and signs requests. An
    /// `IssuanceSource` of the client gives it to the identity that follows. The default is ring's.
    #[must_use]
    pub fn provider(mut self, provider: Arc<CryptoProvider>) -> IssuanceClient {
        self.provider = provider;
        self
    }

    #[cfg(feature = "issuance")]
    pub(super) fn crypto_provider(&self) -> &Arc<CryptoProvider> {
        &self.provider
    }

    /// Sets the requested validity, in whole seconds. Unless set it is what the registration entry allows.
    #[must_use]
    pub fn validity(mut self, validity: Duration) -> IssuanceClient {
        self.validity = validity;
        self
    }

    /// Sets the key that [`IssuanceClientOutput::StoreKey`] had stored.
    #[must_use]
    pub fn key(mut self, key: RequestKey) -> IssuanceClient {
        (self.key, self.key_is_stored) = (Some(key), true);
        self
    }

    /// Takes an input.
    ///
    /// # Errors
    /// [`IssuanceClientError`]; the state is unchanged.
    pub fn handle(&mut self, now: Duration, input: IssuanceClientInput) -> Result<(), IssuanceClientError> {
        match input {
            IssuanceClientInput::Holds { svid, wall } => self.holds(now, wall, svid),
            IssuanceClientInput::Replaced { wall } => {
                // This input is accepted in each state.
                let _ = self.renewal.handle(now, RenewalInput::Due { wall });
            }
            IssuanceClientInput::Timeout { wall } => {
                // A time-out is not an error of the engine.
                let _ = self.renewal.handle(now, RenewalInput::Timeout { wall });
                self.begin(now, wall);
            }
            IssuanceClientInput::Connected { exchange, binding, wall } => {
                match (self.current(exchange)?, &self.step) {
                    ((), Step::Connecting(kind)) => self.connected(now, wall, *kind, &binding),
                    _ => return Err(IssuanceClientError::Over { exchange }),
                }
            }
            IssuanceClientInput::Answer { exchange, bytes, wall } => {
                match (self.current(exchange)?, &self.step) {
                    ((), Step::Answering(kind, binding)) => {
                        self.answered(now, wall, *kind, *binding, &bytes);
                    }
                    _ => return Err(IssuanceClientError::Over { exchange }),
                }
            }
            IssuanceClientInput::Response { exchange, response, wall } => {
                match (self.current(exchange)?, &self.step) {
                    ((), Step::Challenged) => self.responded(now, wall, response),
                    _ => return Err(IssuanceClientError::Over { exchange }),
                }
            }
            IssuanceClientInput::Installed { exchange, wall } => {
                let (not_before, not_after) = match (self.current(exchange)?, &self.step) {
                    ((), Step::Installing { not_before, not_after, svid }) => {
                        self.svid = Some(svid.clone());
                        (*not_before, *not_after)
                    }
                    _ => return Err(IssuanceClientError::Over { exchange }),
                };
                (self.step, self.key, self.failure) = (Step::Idle, None, None);
                let issued = RenewalInput::Issued { wall, not_before, not_after };
                if let Err(error) = self.renewal.handle(now, issued) {
                    self.failure = Some(error.into());
                }
            }
            IssuanceClientInput::Failed { exchange, failure, wall } => {
                self.current(exchange)?;
                self.key_is_stored &= failure != ExchangeFailure::NotStored;
                let (failure, rejected) = match failure {
                    ExchangeFailure::Unreachable => (IssuanceFailure::Unreachable, false),
                    ExchangeFailure::NotAccepted => (IssuanceFailure::NotAccepted, true),
                    ExchangeFailure::NotStored => (IssuanceFailure::NotStored, false),
                    ExchangeFailure::SvidNotStored => (IssuanceFailure::SvidNotStored, false),
                    ExchangeFailure::Unusable => (IssuanceFailure::Unusable, false),
                };
                self.failed(now, wall, failure, rejected);
            }
        }
        Ok(())
    }

    /// The next thing to do, until `None`.
    pub fn poll_output(&mut self) -> Option<IssuanceClientOutput> {
        self.outputs.pop_front()
    }

    /// When to give [`IssuanceClientInput::Timeout`] at the latest. Never `None`: the engine does not end.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.renewal.poll_timeout()
    }

    /// The time since 1970 at which the current SVID is renewed.
    #[must_use]
    pub fn renew_at(&self) -> Option<Duration> {
        self.renewal.renew_at()
    }

    /// Why the last attempt failed; `None` after a success.
    #[must_use]
    pub fn failure(&self) -> Option<&IssuanceFailure> {
        self.failure.as_ref()
    }

    /// An input of the exchange in progress.
    fn current(&self, exchange: u64) -> Result<(), IssuanceClientError> {
        if exchange == self.exchange && !matches!(self.step, Step::Idle) {
            return Ok(());
        }
        Err(IssuanceClientError::Over { exchange })
    }

    fn holds(&mut self, now: Duration, wall: Duration, svid: X509Svid) {
        let (not_before, not_after) = validity_of(&svid);
        self.svid = Some(svid);
        self.step = Step::Idle;
        match self.renewal.handle(now, RenewalInput::Issued { wall, not_before, not_after }) {
            Ok(()) => self.failure = None,
            Err(error) => self.failure = Some(error.into()),
        }
        // An SVID that is due already is renewed at once: nothing else is in progress.
        self.begin(now, wall);
    }

    /// Begins the attempt that the renewal wants, in the place of one that has no answer.
    fn begin(&mut self, now: Duration, wall: Duration) {
        while let Some(output) = self.renewal.poll_output() {
            let kind = match output {
                RenewalOutput::Renew { .. } => Some(Kind::CurrentSvid),
                RenewalOutput::Attest { attempt } => self.evidence(attempt),
            };
            let Some(kind) = kind else {
                self.failed(now, wall, IssuanceFailure::NoEvidence, false);
                continue;
            };
            if let Err(error) = self.prepare(kind) {
                self.failed(now, wall, error.into(), false);
                continue;
            }
            self.exchange += 1;
            self.step = Step::Connecting(kind);
            let with_svid = kind == Kind::CurrentSvid;
            self.outputs.push_back(IssuanceClientOutput::Dial { exchange: self.exchange, with_svid });
        }
    }

    /// One kind after the other of those that this workload has.
    fn evidence(&self, attempt: u32) -> Option<Kind> {
        let kinds = [
            self.svid.is_some().then_some(Kind::EarlierSvid),
            self.tpm.is_some().then_some(Kind::Tpm),
            self.certificate.is_some().then_some(Kind::Certificate),
            self.token.is_some().then_some(Kind::JoinToken),
        ];
        let kinds: Vec<Kind> = kinds.into_iter().flatten().collect();
        // The first attempt has the number 1.
        let turn = usize::try_from(attempt.saturating_sub(1)).unwrap_or_default();
        kinds.get(turn.checked_rem(kinds.len())?).copied()
    }

    /// A key for the request. One that was used already stays: the answer to it may have been lost.
    fn prepare(&mut self, kind: Kind) -> Result<(), RequestKeyError> {
        let key = match &self.key {
            Some(key) => key,
            None => {
                self.key_is_stored = false;
                self.key.insert(RequestKey::generate_with_provider(&self.provider)?)
            }
        };
        // An earlier attempt with evidence of another kind may have made the key.
        if kind == Kind::JoinToken && !self.key_is_stored {
            self.key_is_stored = true;
            self.outputs.push_back(IssuanceClientOutput::StoreKey { pkcs8: key.pkcs8().to_vec() });
        }
        Ok(())
    }

    fn connected(&mut self, now: Duration, wall: Duration, kind: Kind, binding: &[u8; 32]) {
        // Made when the exchange began.
        let Some(key) = &self.key else { return };
        let certificate_request = key.request().to_vec();
        let evidence = match kind {
            Kind::CurrentSvid => Some(Evidence::CurrentSvid),
            Kind::JoinToken => self.token.clone().map(Evidence::JoinToken),
            Kind::Tpm => self.tpm.clone().map(Evidence::Tpm),
            Kind::Certificate => self.certificate.as_ref().and_then(|(chain, key)| {
                let proof =
                    IssuanceRequest::certificate_proof(&self.spiffe_id, binding, &certificate_request);
                sign(&self.provider, key, &proof)
                    .map(|signature| Evidence::Certificate { chain: chain.clone(), signature })
            }),
            Kind::EarlierSvid => self.svid.as_ref().and_then(|svid| {
                let proof = IssuanceRequest::proof(&self.spiffe_id, binding, &certificate_request);
                let chain: Vec<CertificateDer<'static>> = svid.chain().to_vec();
                sign(&self.provider, svid.key(), &proof).map(|signature| Evidence::Svid { chain, signature })
            }),
        };
        let Some(evidence) = evidence else {
            return self.failed(now, wall, IssuanceFailure::NoEvidence, false);
        };
        let request = IssuanceRequest {
            spiffe_id: self.spiffe_id.clone(),
            validity: self.validity,
            certificate_request,
            evidence,
        };
        self.step = Step::Answering(kind, (kind == Kind::Tpm).then_some(*binding));
        let bytes = request.to_bytes();
        self.outputs.push_back(IssuanceClientOutput::Send { exchange: self.exchange, bytes });
    }

    fn responded(&mut self, now: Duration, wall: Duration, response: Option<Vec<u8>>) {
        let Some(response) = response else {
            return self.failed(now, wall, IssuanceFailure::Challenge, false);
        };
        self.step = Step::Answering(Kind::Tpm, None);
        let bytes = IssuanceResponse { response }.to_bytes();
        self.outputs.push_back(IssuanceClientOutput::Send { exchange: self.exchange, bytes });
    }

    fn answered(
        &mut self,
        now: Duration,
        wall: Duration,
        kind: Kind,
        binding: Option<[u8; 32]>,
        bytes: &[u8],
    ) {
        let (chain, authorities) = match IssuanceAnswer::from_bytes(bytes) {
            Ok(IssuanceAnswer::Issued { chain, authorities }) => (chain, authorities),
            Ok(IssuanceAnswer::Refused { refusal, text }) => {
                // The next attempt attests.
                let rejected = kind == Kind::CurrentSvid && refusal == IssuanceRefusal::NotAttested;
                let text = text.chars().filter(|character| !character.is_control()).collect();
                return self.failed(now, wall, IssuanceFailure::Refused { refusal, text }, rejected);
            }
            Ok(IssuanceAnswer::Challenge(challenge)) => {
                // Once, and only for a TPM.
                let Some(binding) = binding else {
                    return self.failed(now, wall, IssuanceFailure::Challenge, false);
                };
                self.step = Step::Challenged;
                let exchange = self.exchange;
                return self.outputs.push_back(IssuanceClientOutput::Challenged {
                    exchange,
                    challenge,
                    binding,
                });
            }
            Err(error) => return self.failed(now, wall, error.into(), false),
        };
        match self.received(chain, authorities) {
            Ok((svid, bundle)) => {
                let (not_before, not_after) = validity_of(&svid);
                self.step = Step::Installing { not_before, not_after, svid: svid.clone() };
                let exchange = self.exchange;
                self.outputs.push_back(IssuanceClientOutput::Install { exchange, svid, bundle });
            }
            Err(error) => self.failed(now, wall, error, false),
        }
    }

    fn received(
        &self,
        chain: Vec<CertificateDer<'static>>,
        authorities: Vec<CertificateDer<'static>>,
    ) -> Result<(X509Svid, TrustBundle), IssuanceFailure> {
        let bundle = TrustBundle::new(self.spiffe_id.trust_domain().clone(), authorities)?;
        // Made when the exchange began.
        let key = self.key.as_ref().ok_or(IssuanceFailure::NoEvidence)?;
        let svid = X509Svid::from_der(chain, key.private_key())?;
        if *svid.spiffe_id() != self.spiffe_id {
            return Err(IssuanceFailure::SpiffeId { issued: svid.spiffe_id().clone() });
        }
        Ok((svid, bundle))
    }

    fn failed(&mut self, now: Duration, wall: Duration, failure: IssuanceFailure, rejected: bool) {
        self.failure = Some(failure);
        self.step = Step::Idle;
        let input = if rejected { RenewalInput::Rejected { wall } } else { RenewalInput::Failed { wall } };
        // Late: the attempt has ended by its time-out, and the next one is paused already.
        let _ = self.renewal.handle(now, input);
    }
}

fn validity_of(svid: &X509Svid) -> (Duration, Duration) {
    let since = |moment: SystemTime| moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    (since(svid.not_before()), since(svid.not_after()))
}

/// Without secrets.
impl fmt::Debug for IssuanceClient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("IssuanceClient")
            .field("spiffe_id", &self.spiffe_id)
            .field("exchange", &self.exchange)
            .field("step", &self.step)
            .field("failure", &self.failure)
            .finish_non_exhaustive()
    }
}

/// Without keys and tokens.
impl fmt::Debug for IssuanceClientOutput {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IssuanceClientOutput::StoreKey { .. } => formatter.write_str("StoreKey"),
            IssuanceClientOutput::Dial { exchange, with_svid } => formatter
                .debug_struct("Dial")
                .field("exchange", exchange)
                .field("with_svid", with_svid)
                .finish(),
            IssuanceClientOutput::Send { exchange, bytes } => {
                formatter.debug_struct("Send").field("exchange", exchange).field("len", &bytes.len()).finish()
            }
            IssuanceClientOutput::Challenged { exchange, .. } => {
                formatter.debug_struct("Challenged").field("exchange", exchange).finish_non_exhaustive()
            }
            IssuanceClientOutput::Install { exchange, svid, .. } => {
                formatter.debug_struct("Install").field("exchange", exchange).field("svid", svid).finish()
            }
        }
    }
}
