//! The verifier of peers' chains.

use std::sync::Arc;
#[cfg(feature = "issuer")]
use std::time::Duration;
use std::time::SystemTime;
use std::vec::Vec;

use pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, PeerIncompatible, SignatureScheme,
};

use super::Swap;
use crate::crypto::ring_provider;
use crate::path::{Usage, read_leaf, validate};
use crate::telemetry::VerifierTelemetry;
use crate::trace;
use crate::x509::Certificate;
#[cfg(feature = "issuer")]
use crate::x509::to_system_time;
use crate::{
    BundleSource, EncodingError, LeafError, PathError, RevocationView, Revoked, SpiffeId, TrustBundle,
    TrustBundleSet, X509Svid,
};

/// Accepts a peer that has an SVID of a trusted domain, as client and as server.
///
/// Checked are the rules of X509-SVID for the leaf and for each signer of the path, and the path itself as of
/// RFC 5280. The server name that a client dialled is **not** looked at: an SVID names a workload, not a
/// host. The caller authorizes the peer after the handshake, by the SPIFFE ID that it reads with
/// [`peer_spiffe_id`](crate::peer_spiffe_id) or [`peer_node_id`](crate::peer_node_id).
///
/// # Decisions
/// RFC 5280 and X509-SVID leave some questions open. This verifier decides them so:
/// - An authority's path length, name constraints, extended key usage and validity apply to the path, as in
///   OpenSSL and Go.
/// - The extended key usage of a signer bounds that of the leaf (X509-SVID §4.4): a client under a signer for
///   `serverAuth` only is refused.
/// - Name constraints are processed for URIs (on the host, RFC 5280 §4.2.1.10), DNS names, directory names,
///   e-mail addresses and IP addresses. A certificate with a constrained name of another form is refused.
/// - Names are compared without case and with spaces collapsed (RFC 5280 §7.1).
/// - Encodings are strict DER, except that a default FALSE may be written out.
/// - A critical CRL distribution point refuses the certificate: revocation lists are not read.
/// - TLS 1.2 is refused.
#[derive(Debug, Clone)]
pub struct Verifier {
    bundles: Arc<dyn BundleSource>,
    revocations: Arc<Swap<RevocationView>>,
    provider: Arc<CryptoProvider>,
    telemetry: VerifierTelemetry,
}

impl Verifier {
    /// Builds a verifier with a fixed bundle, for a caller that builds the rustls configuration.
    /// `Identity::verifier` gives one that follows the identity's bundle. Such a configuration must not
    /// resume sessions either: see `Identity`.
    #[must_use]
    pub fn new(bundle: TrustBundle) -> Verifier {
        Verifier::with_source(Arc::new(TrustBundleSet::from(bundle)))
    }

    /// Builds a verifier that reads the bundle of the peer's trust domain from a source at each handshake.
    #[must_use]
    pub fn with_source(bundles: Arc<dyn BundleSource>) -> Verifier {
        Verifier::with_provider(bundles, ring_provider())
    }

    /// Builds a verifier as [`Verifier::with_source`] does, whose signatures another provider verifies.
    #[must_use]
    pub fn with_provider(bundles: Arc<dyn BundleSource>, provider: Arc<CryptoProvider>) -> Verifier {
        Verifier::reading(bundles, Arc::new(Swap::new(RevocationView::new())), provider)
    }

    pub(super) fn reading(
        bundles: Arc<dyn BundleSource>,
        revocations: Arc<Swap<RevocationView>>,
        provider: Arc<CryptoProvider>,
    ) -> Verifier {
        Verifier { bundles, revocations, provider, telemetry: VerifierTelemetry::new() }
    }

    #[cfg(feature = "issuer")]
    pub(super) fn provider(&self) -> &Arc<CryptoProvider> {
        &self.provider
    }

    /// Verifies the chain of a peer that acts as a client, the leaf first, and returns its SPIFFE ID.
    ///
    /// # Errors
    /// [`VerifyError`] names the first rule that is broken.
    pub fn verify_client(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<SpiffeId, VerifyError> {
        self.verify_until(end_entity, intermediates, now, Usage::Client).map(|(spiffe_id, _)| spiffe_id)
    }

    /// Verifies the chain of a peer that acts as a server, the leaf first, and returns its SPIFFE ID.
    ///
    /// # Errors
    /// [`VerifyError`] names the first rule that is broken.
    pub fn verify_server(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<SpiffeId, VerifyError> {
        self.verify_until(end_entity, intermediates, now, Usage::Server).map(|(spiffe_id, _)| spiffe_id)
    }

    /// Verifies a chain that expired at most `grace` ago, the leaf first, as it was when the leaf expired;
    /// one that is valid as it is now. Returns its SPIFFE ID. For an issuer that renews after the expiry;
    /// revocations apply.
    ///
    /// # Errors
    /// [`VerifyError`] names the first rule that is broken; a chain that expired earlier is expired.
    #[cfg(feature = "issuer")]
    pub fn verify_with_grace(
        &self,
        chain: &[CertificateDer<'_>],
        grace: Duration,
        now: SystemTime,
    ) -> Result<SpiffeId, VerifyError> {
        let (leaf, signers) = chain.split_first().ok_or(VerifyError::ChainLength { len: 0 })?;
        let not_after = to_system_time(read_leaf(leaf)?.1.validity.not_after);
        let at = if now > not_after && now <= not_after + grace { not_after } else { now };
        let at = UnixTime::since_unix_epoch(at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
        self.verify_client(leaf, signers, at)
    }

    /// As [`Verifier::verify_client`] and [`Verifier::verify_server`]; returns the last second in which the
    /// path is valid as well, in seconds since 1970.
    pub(super) fn verify_until(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: Usage,
    ) -> Result<(SpiffeId, i64), VerifyError> {
        self.telemetry.timed(|| self.verify(end_entity, intermediates, now, usage))
    }

    /// X509-SVID §5: the rules of the leaf first, because its trust domain selects the bundle, then path
    /// validation.
    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: Usage,
    ) -> Result<(SpiffeId, i64), VerifyError> {
        if intermediates.len() >= X509Svid::CHAIN_LEN_MAX {
            return Err(VerifyError::ChainLength { len: intermediates.len() + 1 });
        }
        let (certificate, leaf) = read_leaf(end_entity)?;
        let trust_domain = leaf.spiffe_id.trust_domain();
        // Trust Domain and Bundle §3. That the source gives the bundle of this domain is its contract, and
        // cheap to check.
        let bundle = self.bundles.bundle(trust_domain);
        let Some(bundle) = bundle.filter(|bundle| bundle.trust_domain() == trust_domain) else {
            return Err(VerifyError::TrustDomain { spiffe_id: leaf.spiffe_id });
        };
        if !self.bundles.admits(&leaf.spiffe_id) {
            return Err(VerifyError::NotAdmitted { spiffe_id: leaf.spiffe_id });
        }
        let revocations = self.revocations.load();
        if let Some(revoked) = revocations.leaf(&certificate, &leaf.spiffe_id) {
            return Err(VerifyError::Revoked { spiffe_id: leaf.spiffe_id, revoked });
        }
        let algorithms = self.provider.signature_verification_algorithms.all;
        let not_after = validate(&certificate, intermediates, &bundle, &revocations, algorithms, now, usage)?;
        Ok((leaf.spiffe_id, not_after))
    }

    /// With the key as this crate's decoder reads it, so that no second decoder has a say.
    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let certificate = Certificate::parse(certificate)
            .map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let key = SubjectPublicKeyInfoDer::from(certificate.public_key_info);
        verify_tls13_signature_with_raw_key(
            message,
            &key,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        trace::handshake("server", || self.verify_server(end_entity, intermediates, now))?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    /// None: the hints of a configuration that is built once would outlive a root rotation.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        trace::handshake("client", || self.verify_client(end_entity, intermediates, now))?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A chain is not trusted. The error of a failed handshake carries it inside
/// `rustls::CertificateError::Other`, except for those errors for which TLS has an alert of its own, such as
/// an expired certificate: they become the matching variant.
#[derive(Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The chain has more certificates than [`X509Svid::CHAIN_LEN_MAX`](crate::X509Svid::CHAIN_LEN_MAX).
    #[error(
        "the chain has {len} certificates, more than the 8 allowed: leave the root out, or use fewer intermediates"
    )]
    ChainLength {
        /// The number of certificates.
        len: usize,
    },
    /// The leaf breaks a rule of X509-SVID.
    #[error(transparent)]
    Leaf(#[from] LeafError),
    /// There is no bundle for the trust domain of the leaf.
    #[error(
        "no bundle is trusted for the trust domain of {spiffe_id}: present an SVID of another domain, or add its bundle"
    )]
    TrustDomain {
        /// The SPIFFE ID of the leaf.
        spiffe_id: SpiffeId,
    },
    /// The trust domain of the leaf is restricted to other workloads.
    #[error(
        "{spiffe_id} is not among the workloads of its trust domain that are admitted: present another SVID, or admit it"
    )]
    NotAdmitted {
        /// The SPIFFE ID of the leaf.
        spiffe_id: SpiffeId,
    },
    /// The leaf or its SPIFFE ID is revoked.
    #[error("the SVID of {spiffe_id} is revoked: issue a new one to a workload that is trusted again")]
    Revoked {
        /// The SPIFFE ID of the leaf.
        spiffe_id: SpiffeId,
        /// The entry that names it.
        revoked: Revoked,
    },
    /// No valid path leads from the leaf to an authority of the bundle (RFC 5280 §6.1).
    #[error(transparent)]
    Path(#[from] PathError),
}

/// The message with its causes: `rustls` shows the errors that it carries with `Debug`, and operators read
/// that text.
impl std::fmt::Debug for VerifyError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{self}")?;
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            write!(formatter, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl From<VerifyError> for rustls::Error {
    fn from(error: VerifyError) -> rustls::Error {
        let unix = |moment: SystemTime| {
            UnixTime::since_unix_epoch(moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
        };
        rustls::Error::InvalidCertificate(match error {
            VerifyError::Leaf(LeafError::Encoding(EncodingError::Malformed)) => CertificateError::BadEncoding,
            VerifyError::Path(PathError::Expired { not_after, now, .. }) => {
                CertificateError::ExpiredContext { time: unix(now), not_after: unix(not_after) }
            }
            VerifyError::Path(PathError::NotYetValid { not_before, now, .. }) => {
                CertificateError::NotValidYetContext { time: unix(now), not_before: unix(not_before) }
            }
            VerifyError::Revoked { .. } | VerifyError::Path(PathError::Revoked { .. }) => {
                CertificateError::Revoked
            }
            VerifyError::Path(PathError::UnknownIssuer { .. }) => CertificateError::UnknownIssuer,
            VerifyError::Path(PathError::Signature { .. }) => CertificateError::BadSignature,
            error => CertificateError::Other(OtherError(Arc::new(error))),
        })
    }
}
