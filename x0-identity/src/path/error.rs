//! The reasons that a path is not valid.

use core::fmt;
use std::string::String;
use std::time::SystemTime;

use crate::SigningError;

/// The position of a certificate in a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CertificateAt {
    /// The position in the chain as presented; the leaf has position 0.
    Chain(usize),
    /// The position in the bundle.
    Bundle(usize),
}

impl fmt::Display for CertificateAt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CertificateAt::Chain(position) => write!(formatter, "certificate {position} of the chain"),
            CertificateAt::Bundle(position) => write!(formatter, "authority {position} of the bundle"),
        }
    }
}

/// No valid path leads from the leaf to an authority of the bundle (RFC 5280 §6.1). Of several paths, the
/// error is that of the one that passed most checks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// No authority of the bundle and no certificate of the chain has the issuer's name (§6.1.3 (a) (4)).
    #[error(
        "the issuer of certificate {position} of the chain is neither in the bundle nor in the chain: present the missing intermediate, or add the authority to the bundle"
    )]
    UnknownIssuer {
        /// The position in the chain; the leaf has position 0.
        position: usize,
    },
    /// A signature is not by the issuer's key (§6.1.3 (a) (1)).
    #[error(
        "{at} is not signed by the key of {issuer}: present the issuer's current certificate, or issue it again"
    )]
    Signature {
        /// The certificate with the signature.
        at: CertificateAt,
        /// The certificate with the issuer's name.
        issuer: CertificateAt,
    },
    /// The provider has no algorithm for the signature and the issuer's key.
    #[error(
        "the signature algorithm of {at} or the key of {issuer} is not supported: use ECDSA with P-256 or P-384, Ed25519, or RSA of at least 2048 bits"
    )]
    SignatureAlgorithm {
        /// The certificate with the signature.
        at: CertificateAt,
        /// The certificate with the issuer's key.
        issuer: CertificateAt,
    },
    /// A certificate is not valid yet (§6.1.3 (a) (2)).
    #[error("{at} is not valid yet: check both clocks, or wait until {} s after 1970; it is {} s", seconds(*not_before), seconds(*now))]
    NotYetValid {
        /// The certificate.
        at: CertificateAt,
        /// The first second of its validity.
        not_before: SystemTime,
        /// The time of the validation.
        now: SystemTime,
    },
    /// A certificate is expired (§6.1.3 (a) (2)).
    #[error("{at} expired {} s ago: renew it, or check the clock", seconds(*now) - seconds(*not_after))]
    Expired {
        /// The certificate.
        at: CertificateAt,
        /// The last second of its validity.
        not_after: SystemTime,
        /// The time of the validation.
        now: SystemTime,
    },
    /// A signer breaks a rule of X509-SVID, or cannot be read (§6.1.4 (k), (n); X509-SVID §3.2, §4).
    #[error("{at} is not a valid signing certificate: replace it with a valid issuer of the one before")]
    Signer {
        /// The signer.
        at: CertificateAt,
        /// The rule that is broken.
        source: SigningError,
    },
    /// A signer or its key is revoked.
    #[error("{at} is revoked: renew the SVID by another authority")]
    Revoked {
        /// The signer.
        at: CertificateAt,
    },
    /// A path is longer than a signer allows (§6.1.4 (l), (m)).
    #[error(
        "{at} exceeds the path length that {signer} allows: sign by {signer} directly, or raise its path length"
    )]
    PathLen {
        /// The signer that is one too many.
        at: CertificateAt,
        /// The signer that limits the length.
        signer: CertificateAt,
    },
    /// A name lies outside the name constraints of a signer (§6.1.3 (b), (c)).
    #[error("a name of {at} violates the name constraints of {signer}: issue it with permitted names only")]
    NameConstraints {
        /// The certificate with the name.
        at: CertificateAt,
        /// The signer with the constraints.
        signer: CertificateAt,
    },
    /// The name constraints of a signer cannot be read (§4.2.1.10).
    #[error("the name constraints of {signer} are not valid DER: issue it again")]
    NameConstraintsEncoding {
        /// The signer.
        signer: CertificateAt,
    },
    /// The extended key usage of a signer does not allow what the leaf is used for.
    #[error(
        "the extended key usage of {at} does not allow this use of the leaf: issue it with id-kp-serverAuth and id-kp-clientAuth, or without the extension"
    )]
    ExtendedKeyUsage {
        /// The signer.
        at: CertificateAt,
    },
    /// No certificate policy is valid for the whole path, and a signer demands one (§6.1.3 (f), §6.1.5 (g)).
    #[error(
        "no certificate policy is valid from the authority to {at}, and a signer demands one: issue it with the policy of its issuer"
    )]
    Policy {
        /// The certificate at which the last policy was lost.
        at: CertificateAt,
    },
    /// A policy extension cannot be read, or holds what cannot be processed (§4.2.1.4, §4.2.1.5).
    #[error("the extension {extension} of {at} is not valid: issue the certificate again")]
    Extension {
        /// The certificate.
        at: CertificateAt,
        /// The name of the extension in RFC 5280 §4.2.1.
        extension: &'static str,
    },
    /// A critical extension is not processed (§6.1.4 (o), §6.1.5 (f)).
    #[error(
        "the critical extension {oid} of {at} is not supported: issue it without the extension, or not critical"
    )]
    CriticalExtension {
        /// The certificate.
        at: CertificateAt,
        /// The object identifier of the extension.
        oid: String,
    },
    /// Finding the path takes more than 24 signature checks.
    #[error(
        "finding the path takes more than 24 signature checks: give authorities of one trust domain different names"
    )]
    Signatures,
    /// The path takes more than 20,000 comparisons of names with name constraints, the reading of each
    /// constraint included.
    #[error("the path takes more than 20,000 comparisons with name constraints: use fewer constraints")]
    Comparisons,
    /// Finding the path takes more than 512 steps.
    #[error("the chain has too many possible paths: present one intermediate per issuer, in order")]
    Steps,
}

fn seconds(moment: SystemTime) -> i64 {
    let signed = |distance: std::time::Duration| i64::try_from(distance.as_secs()).unwrap_or(i64::MAX);
    match moment.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => signed(after),
        Err(before) => -signed(before.duration()),
    }
}
