//! The driver of a workload, as a source of its SVID.

use core::fmt;
use std::boxed::Box;
use std::error::Error;
use std::io::{self, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::string::String;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant, SystemTime};
use std::vec::Vec;

use pki_types::ServerName;
use rustls::crypto::CryptoProvider;
use rustls::{AlertDescription, ClientConfig, ClientConnection, StreamOwned};

use super::{MESSAGE_MAX, Timed};
use crate::deadline::Deadline;
use crate::source::{SvidPoll, SvidSource, SvidSourceError, SvidState};
use crate::{
    ExchangeFailure, ISSUANCE_ANSWER_LEN_MAX, ISSUANCE_BINDING_LABEL, Identity, IdentityError,
    IssuanceClient, IssuanceClientInput, IssuanceClientOutput, IssuanceFailure, SpiffeId, TrustBundle,
    TrustBundleSet, Verifier, X509Svid, issuance_client_config,
};

/// Stores the key of a request (PKCS #8) before the issuer sees it; says whether it is stored.
pub type StoreKey = Box<dyn FnMut(&[u8]) -> bool + Send>;

/// Answers the challenge of an issuer by the TPM, with the binding of the connection; `None` if it cannot.
pub type TpmAnswers = Box<dyn FnMut(&[u8], &[u8; 32]) -> Option<Vec<u8>> + Send>;

type Stream = StreamOwned<ClientConnection, Deadline>;

/// The SVID that an issuer on the network issues, as a source: the first one by attestation, further ones
/// over mutual TLS. The connections are made while the source is asked.
///
/// ```no_run
/// use std::time::Duration;
/// use x0_identity::{IssuanceClient, IssuanceSource, RenewalOptions, SpiffeId, SvidFollower, TrustBundle};
///
/// # fn bundle() -> TrustBundle { unimplemented!() }
/// let web = SpiffeId::parse("spiffe://example.org/web")?;
/// let issuer = SpiffeId::parse("spiffe://example.org/issuer")?;
/// let client = IssuanceClient::new(web, RenewalOptions::default(), 7).token("of the operator".into());
/// let source = IssuanceSource::new(client, "issuer.example.org:7440", issuer, bundle());
/// let follower = SvidFollower::start(source, Duration::from_secs(60))?;
/// # drop(follower);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct IssuanceSource {
    client: IssuanceClient,
    address: String,
    issuer: SpiffeId,
    /// The newest bundle of the trust domain.
    bundle: TrustBundle,
    federated: TrustBundleSet,
    svid: Option<X509Svid>,
    /// Whether the SVID that the process started with is to be given.
    is_new: bool,
    store_key: Option<StoreKey>,
    /// A key that must be stored before the issuer sees it.
    unstored: Option<Vec<u8>>,
    tpm: Option<TpmAnswers>,
    /// Why the connection of the last exchange broke.
    broken: Option<Arc<io::Error>>,
    origin: Instant,
}

/// The last attempt of an [`IssuanceSource`] failed: what its [`SvidSourceError`] wraps. The cause is the
/// error of the connection if there is one, and else that of the failure.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct IssuanceSourceError {
    /// Why the engine has no SVID.
    pub failure: IssuanceFailure,
    /// Why the connection to the issuer broke.
    pub connection: Option<Arc<io::Error>>,
}

impl fmt::Display for IssuanceSourceError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.failure)
    }
}

impl Error for IssuanceSourceError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.connection {
            Some(error) => Some(&**error),
            None => self.failure.source(),
        }
    }
}

impl IssuanceSource {
    /// Builds a source from an engine, the address of the issuer (a name or an IP address, with a port), its
    /// SPIFFE ID, and the bundle that authenticates it.
    pub fn new(
        client: IssuanceClient,
        address: impl Into<String>,
        issuer: SpiffeId,
        bundle: TrustBundle,
    ) -> IssuanceSource {
        IssuanceSource {
            client,
            address: address.into(),
            issuer,
            bundle,
            federated: TrustBundleSet::new(),
            svid: None,
            is_new: false,
            store_key: None,
            unstored: None,
            tpm: None,
            broken: None,
            origin: Instant::now(),
        }
    }

    /// Starts with an SVID that the process had before, which may be expired.
    #[must_use]
    pub fn holds(mut self, svid: X509Svid) -> IssuanceSource {
        let input = IssuanceClientInput::Holds { svid: svid.clone(), wall: wall(SystemTime::now()) };
        // The engine accepts this input in each state.
        let _ = self.client.handle(self.origin.elapsed(), input);
        (self.svid, self.is_new) = (Some(svid), true);
        self
    }

    /// Adds the bundles of foreign trust domains.
    #[must_use]
    pub fn federated(mut self, bundles: TrustBundleSet) -> IssuanceSource {
        self.federated = bundles;
        self
    }

    /// Sets what stores the key of a request that uses a join token. Without it a token is lost with a
    /// process that ends before the answer.
    #[must_use]
    pub fn store_key(mut self, store_key: StoreKey) -> IssuanceSource {
        self.store_key = Some(store_key);
        self
    }

    /// Sets what answers challenges, for a client with a TPM.
    #[must_use]
    pub fn tpm(mut self, tpm: TpmAnswers) -> IssuanceSource {
        self.tpm = Some(tpm);
        self
    }

    fn state(&self, svid: X509Svid) -> SvidState {
        let mut bundles = self.federated.clone();
        bundles.insert(self.bundle.clone());
        SvidState::Held { svid: svid.into(), bundles }
    }

    /// Does what the engine wants, and returns the SVID that it installed.
    fn drain(&mut self) -> Option<X509Svid> {
        let (mut stream, mut installed) = (None, None);
        while let Some(output) = self.client.poll_output() {
            let wall = wall(SystemTime::now());
            let failed = |exchange, failure| IssuanceClientInput::Failed { exchange, failure, wall };
            let input = match output {
                IssuanceClientOutput::StoreKey { pkcs8 } => {
                    self.unstored = Some(pkcs8);
                    continue;
                }
                IssuanceClientOutput::Dial { exchange, .. } if !self.is_stored() => {
                    failed(exchange, ExchangeFailure::NotStored)
                }
                IssuanceClientOutput::Dial { exchange, with_svid } => match self.dial(with_svid) {
                    Ok((connected, binding)) => {
                        stream = Some(connected);
                        IssuanceClientInput::Connected { exchange, binding, wall }
                    }
                    Err(error) => failed(exchange, self.broke(error)),
                },
                IssuanceClientOutput::Send { exchange, bytes } => match ask(stream.as_mut(), &bytes) {
                    Ok(bytes) => IssuanceClientInput::Answer { exchange, bytes, wall },
                    Err(error) => failed(exchange, self.broke(error)),
                },
                IssuanceClientOutput::Challenged { exchange, challenge, binding } => {
                    let response = self.tpm.as_mut().and_then(|answer| answer(&challenge, &binding));
                    IssuanceClientInput::Response { exchange, response, wall }
                }
                IssuanceClientOutput::Install { exchange, svid, bundle } => {
                    if self.identity(svid.clone(), bundle.clone()).is_ok() {
                        self.bundle = bundle;
                        self.svid = Some(svid.clone());
                        installed = Some(svid);
                        IssuanceClientInput::Installed { exchange, wall }
                    } else {
                        failed(exchange, ExchangeFailure::Unusable)
                    }
                }
            };
            // An input that came too late is refused, and the next attempt follows.
            let _ = self.client.handle(self.origin.elapsed(), input);
        }
        installed
    }

    fn broke(&mut self, error: io::Error) -> ExchangeFailure {
        let failure = classify(&error);
        self.broken = Some(Arc::new(error));
        failure
    }

    /// Stores the key of the request. The engine gives it out again if it is not stored: evidence that needs
    /// no stored key is not kept from the issuer.
    fn is_stored(&mut self) -> bool {
        match (&mut self.store_key, self.unstored.take()) {
            (Some(store), Some(pkcs8)) => store(&pkcs8),
            _ => true,
        }
    }

    fn dial(&self, with_svid: bool) -> io::Result<(Stream, [u8; 32])> {
        let stream = connect(&self.address)?;
        stream.set_nodelay(true)?;
        // rustls requires a name, and neither sends nor verifies it.
        let name = ServerName::try_from("issuer").map_err(io::Error::other)?;
        let tls = ClientConnection::new(self.config(with_svid)?, name).map_err(io::Error::other)?;
        let mut tls = StreamOwned::new(tls, Deadline { stream, by: Instant::now() + MESSAGE_MAX });
        while tls.conn.is_handshaking() {
            tls.conn.complete_io(&mut tls.sock)?;
        }
        let binding = tls.conn.export_keying_material([0; 32], ISSUANCE_BINDING_LABEL, None);
        Ok((tls, binding.map_err(io::Error::other)?))
    }

    fn identity(&self, svid: X509Svid, bundle: TrustBundle) -> Result<Identity, IdentityError> {
        Identity::new_with_provider(svid, bundle, Arc::clone(self.client.crypto_provider()))
    }

    fn config(&self, with_svid: bool) -> io::Result<Arc<ClientConfig>> {
        match &self.svid {
            Some(svid) if with_svid => {
                let identity = self.identity(svid.clone(), self.bundle.clone()).map_err(io::Error::other)?;
                Ok(identity.issuance_client_config(self.issuer.clone()))
            }
            _ => {
                let bundles = Arc::new(TrustBundleSet::from(self.bundle.clone()));
                let provider = Arc::clone(self.client.crypto_provider());
                let verifier = Arc::new(Verifier::with_provider(bundles, provider));
                issuance_client_config(verifier, self.issuer.clone()).map_err(io::Error::other)
            }
        }
    }
}

fn wall(now: SystemTime) -> Duration {
    now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// The addresses of the name, one after the other.
fn connect(address: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, MESSAGE_MAX) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn ask(stream: Option<&mut Stream>, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let stream = stream.ok_or(io::ErrorKind::NotConnected)?;
    stream.write_message(bytes)?;
    stream.flush()?;
    stream.read_message(ISSUANCE_ANSWER_LEN_MAX)
}

/// An issuer that refuses the SVID of the handshake says so in an alert: the next attempt attests.
fn classify(error: &io::Error) -> ExchangeFailure {
    let alert = error.get_ref().and_then(|source| source.downcast_ref::<rustls::Error>());
    match alert {
        Some(rustls::Error::AlertReceived(
            AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA,
        )) => ExchangeFailure::NotAccepted,
        _ => ExchangeFailure::Unreachable,
    }
}

impl SvidSource for IssuanceSource {
    fn poll(&mut self, now: SystemTime, _waker: &Waker) -> SvidPoll {
        if core::mem::take(&mut self.is_new)
            && let Some(svid) = self.svid.clone()
        {
            return SvidPoll::new(Ok(Some(self.state(svid))), Duration::ZERO);
        }
        let input = IssuanceClientInput::Timeout { wall: wall(now) };
        // The engine accepts this input in each state.
        let _ = self.client.handle(self.origin.elapsed(), input);
        let installed = self.drain();
        let change = match (installed, self.client.failure()) {
            (Some(svid), _) => Ok(Some(self.state(svid))),
            (None, Some(failure)) => {
                let connection = match failure {
                    IssuanceFailure::Unreachable | IssuanceFailure::NotAccepted => self.broken.clone(),
                    _ => None,
                };
                Err(SvidSourceError::new(IssuanceSourceError { failure: failure.clone(), connection }))
            }
            (None, None) => Ok(None),
        };
        let again =
            self.client.poll_timeout().map_or(MESSAGE_MAX, |due| due.saturating_sub(self.origin.elapsed()));
        SvidPoll::new(change, again)
    }

    fn provider(&self) -> Option<Arc<CryptoProvider>> {
        Some(Arc::clone(self.client.crypto_provider()))
    }
}

impl fmt::Debug for IssuanceSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("IssuanceSource")
            .field("client", &self.client)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}
