//! One certificate, parsed as far as the SPIFFE rules need it.

use std::time::{Duration, SystemTime};
use std::vec::Vec;

use pki_types::CertificateDer;
use x509_parser::asn1_rs::{Any, Class, Tag};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{ExtendedKeyUsage, KeyUsage, ParsedExtension};
use x509_parser::oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Version;

/// The longest certificate that is parsed, in bytes. An SVID with a SPIFFE ID of full length takes about 3 KiB.
pub const CERTIFICATE_LEN_MAX: usize = 16 * 1024;

/// `[6] IMPLICIT IA5String` of `GeneralName` (RFC 5280 §4.2.1.6).
const URI_TAG: u32 = 6;

/// Bytes are not a certificate that the SPIFFE rules can be applied to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodingError {
    /// The certificate is longer than [`CERTIFICATE_LEN_MAX`]; it was not parsed.
    #[error(
        "the certificate has {len} bytes, more than the {CERTIFICATE_LEN_MAX} allowed: issue it with fewer names or extensions"
    )]
    Length {
        /// The length of the certificate, in bytes.
        len: usize,
    },
    /// The bytes are not the DER encoding of a certificate (RFC 5280 §4.1).
    #[error("the bytes are not the DER encoding of a certificate: re-encode it, or issue it again")]
    Malformed,
    /// Bytes follow the certificate.
    #[error("{len} extra bytes follow the certificate: pass the bytes of one certificate only")]
    TrailingData {
        /// The number of extra bytes.
        len: usize,
    },
    /// The certificate has version 1 or 2, which have no extensions (RFC 5280 §4.1.2.1).
    #[error("the certificate is not of X.509 version 3: issue it again with extensions")]
    Version,
    /// An extension occurs twice (RFC 5280 §4.2), so that two readers may see two certificates.
    #[error("the certificate has the same extension twice: issue it again without the duplicate")]
    DuplicateExtension,
    /// An extension that a SPIFFE rule depends on cannot be read.
    #[error("the extension {extension} of the certificate is not valid DER: issue the certificate again")]
    Extension {
        /// The name of the extension in RFC 5280 §4.2.1.
        extension: &'static str,
    },
}

/// The first and the last second of validity, both included, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
}

impl Validity {
    #[cfg(feature = "rustls")]
    pub(crate) fn holds_at(self, now: pki_types::UnixTime) -> bool {
        i64::try_from(now.as_secs()).is_ok_and(|now| (self.not_before..=self.not_after).contains(&now))
    }
}

/// A moment in seconds since 1970. A moment that the platform cannot represent becomes 1970: an SVID that expired long ago.
pub(crate) fn to_system_time(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let origin = SystemTime::UNIX_EPOCH;
    let moment = if seconds < 0 { origin.checked_sub(distance) } else { origin.checked_add(distance) };
    moment.unwrap_or(origin)
}

/// The fields that the rules read.
pub(crate) struct Certificate<'a> {
    pub(crate) authority: bool,
    pub(crate) key_usage: Option<(KeyUsage, Criticality)>,
    pub(crate) extended_key_usage: Option<ExtendedKeyUsage<'a>>,
    /// The content of each URI in the subject alternative name, whatever bytes it holds.
    pub(crate) uris: Vec<&'a [u8]>,
    pub(crate) alternative_name_critical: bool,
    pub(crate) subject_empty: bool,
    pub(crate) validity: Validity,
    pub(crate) serial_number: Vec<u8>,
    #[cfg(feature = "authority")]
    pub(crate) public_key: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Criticality {
    Critical,
    NotCritical,
}

impl<'a> Certificate<'a> {
    pub(crate) fn parse(der: &'a CertificateDer<'_>) -> Result<Certificate<'a>, EncodingError> {
        let der: &[u8] = der.as_ref();
        if der.len() > CERTIFICATE_LEN_MAX {
            return Err(EncodingError::Length { len: der.len() });
        }
        let (rest, parsed) = X509Certificate::from_der(der).map_err(|_| EncodingError::Malformed)?;
        if !rest.is_empty() {
            return Err(EncodingError::TrailingData { len: rest.len() });
        }
        if parsed.version() != X509Version::V3 {
            return Err(EncodingError::Version);
        }
        let mut certificate = Certificate {
            authority: false,
            key_usage: None,
            extended_key_usage: None,
            uris: Vec::new(),
            alternative_name_critical: false,
            subject_empty: parsed.subject().iter().next().is_none(),
            validity: Validity {
                not_before: parsed.validity().not_before.timestamp(),
                not_after: parsed.validity().not_after.timestamp(),
            },
            serial_number: parsed.raw_serial().to_vec(),
            #[cfg(feature = "authority")]
            public_key: parsed.public_key().subject_public_key.data.to_vec(),
        };
        let extensions = parsed.extensions();
        for (position, extension) in extensions.iter().enumerate() {
            // Quadratic in a number of extensions that the length of the certificate bounds to some hundreds.
            if extensions[..position].iter().any(|earlier| earlier.oid == extension.oid) {
                return Err(EncodingError::DuplicateExtension);
            }
            // Not through the parsed form, which leaves names that it cannot decode out of the count.
            if extension.oid == OID_X509_EXT_SUBJECT_ALT_NAME {
                certificate.uris = uris(extension.value)?;
                certificate.alternative_name_critical = extension.critical;
                continue;
            }
            match extension.parsed_extension() {
                ParsedExtension::BasicConstraints(constraints) => certificate.authority = constraints.ca,
                ParsedExtension::KeyUsage(usage) => {
                    let criticality =
                        if extension.critical { Criticality::Critical } else { Criticality::NotCritical };
                    certificate.key_usage = Some((*usage, criticality));
                }
                ParsedExtension::ExtendedKeyUsage(usage) => {
                    certificate.extended_key_usage = Some(usage.clone());
                }
                ParsedExtension::ParseError { .. } => {
                    if let Some(extension) = name_of(&extension.oid.to_id_string()) {
                        return Err(EncodingError::Extension { extension });
                    }
                }
                _ => {}
            }
        }
        Ok(certificate)
    }
}

/// The name of an extension that a rule depends on.
fn name_of(oid: &str) -> Option<&'static str> {
    match oid {
        "2.5.29.15" => Some("KeyUsage"),
        "2.5.29.19" => Some("BasicConstraints"),
        "2.5.29.37" => Some("ExtKeyUsageSyntax"),
        _ => None,
    }
}

/// The URIs of a subject alternative name, by their raw tags: a name with bytes that are no text counts like any other, so
/// that no second identity is visible to another parser and not to this one.
fn uris(value: &[u8]) -> Result<Vec<&[u8]>, EncodingError> {
    const MALFORMED: EncodingError = EncodingError::Extension { extension: "SubjectAltName" };
    let (behind, names) = Any::from_der(value).map_err(|_| MALFORMED)?;
    if names.tag() != Tag::Sequence || names.class() != Class::Universal || !behind.is_empty() {
        return Err(MALFORMED);
    }
    let mut uris = Vec::new();
    let mut rest = names.data;
    while !rest.is_empty() {
        let (behind, name) = Any::from_der(rest).map_err(|_| MALFORMED)?;
        if name.class() != Class::ContextSpecific {
            return Err(MALFORMED);
        }
        if name.tag().0 == URI_TAG {
            uris.push(name.data);
        }
        rest = behind;
    }
    Ok(uris)
}
