//! One certificate, parsed as far as RFC 5280 and X509-SVID need it.

use std::time::{Duration, SystemTime};
use std::vec::Vec;

use pki_types::CertificateDer;

use super::der::{
    BIT_STRING, BOOLEAN, INTEGER, Malformed, OBJECT_IDENTIFIER, OCTET_STRING, Reader, SEQUENCE, SET, bits,
    boolean, check_integer, check_oid, named_bits, only, small_integer, time, whole_bytes,
};

/// The longest certificate that is parsed, in bytes. An SVID with a SPIFFE ID of full length takes about 3
/// KiB.
pub const CERTIFICATE_LEN_MAX: usize = 16 * 1024;

/// Bytes are not a certificate that the rules can be applied to.
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
    /// The certificate names one signature algorithm inside the signed part and another outside (RFC 5280
    /// §4.1.1.2).
    #[error("the certificate names two different signature algorithms: issue it again")]
    SignatureAlgorithm,
    /// The certificate has an empty issuer (RFC 5280 §4.1.2.4), so that the issuer cannot be found by its
    /// name.
    #[error("the issuer of the certificate has no name: give the authority a subject, and issue it again")]
    Issuer,
    /// An extension occurs twice (RFC 5280 §4.2), so that two readers may see two certificates.
    #[error("the certificate has the same extension twice: issue it again without the duplicate")]
    DuplicateExtension,
    /// An extension that a rule depends on is not valid DER, or breaks its definition in RFC 5280 §4.2.1.
    #[error("the extension {extension} of the certificate is not valid DER: issue the certificate again")]
    Extension {
        /// The name of the extension in RFC 5280 §4.2.1.
        extension: &'static str,
    },
}

impl From<Malformed> for EncodingError {
    fn from(_: Malformed) -> EncodingError {
        EncodingError::Malformed
    }
}

/// The first and the last second of validity, both included, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
}

/// A moment in seconds since 1970. A moment that the platform cannot represent becomes 1970: an SVID that
/// expired long ago.
pub(crate) fn to_system_time(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let origin = SystemTime::UNIX_EPOCH;
    let moment = if seconds < 0 { origin.checked_sub(distance) } else { origin.checked_add(distance) };
    moment.unwrap_or(origin)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Criticality {
    Critical,
    NotCritical,
}

/// The bits of a key usage extension (RFC 5280 §4.2.1.3), the first bit highest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyUsage(u16);

impl KeyUsage {
    pub(crate) fn digital_signature(self) -> bool {
        self.0 & 0x8000 != 0
    }

    pub(crate) fn key_cert_sign(self) -> bool {
        self.0 & 0x0400 != 0
    }

    pub(crate) fn crl_sign(self) -> bool {
        self.0 & 0x0200 != 0
    }
}

/// The purposes of an extended key usage extension that concern TLS (RFC 5280 §4.2.1.12).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ExtendedKeyUsage {
    pub(crate) server_auth: bool,
    pub(crate) client_auth: bool,
    pub(crate) any: bool,
}

/// RFC 5280 §4.2.1.11.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PolicyConstraints {
    pub(crate) require_explicit: Option<u32>,
    pub(crate) inhibit_mapping: Option<u32>,
}

/// The fields that the rules read. Slices point into the certificate.
#[cfg_attr(not(feature = "rustls"), allow(dead_code, reason = "read by path validation"))]
#[derive(Debug, Clone)]
pub(crate) struct Certificate<'a> {
    /// The signed part, with tag and length.
    pub(crate) signed: &'a [u8],
    /// The content of the `AlgorithmIdentifier`.
    pub(crate) signature_algorithm: &'a [u8],
    pub(crate) signature: &'a [u8],
    pub(crate) serial_number: &'a [u8],
    /// The content of the issuer's `Name`.
    pub(crate) issuer: &'a [u8],
    pub(crate) validity: Validity,
    /// The content of the subject's `Name`.
    pub(crate) subject: &'a [u8],
    /// The `SubjectPublicKeyInfo`, with tag and length.
    pub(crate) public_key_info: &'a [u8],
    /// The content of the key's `AlgorithmIdentifier`.
    pub(crate) public_key_algorithm: &'a [u8],
    pub(crate) public_key: &'a [u8],
    pub(crate) authority: bool,
    pub(crate) path_len: Option<u32>,
    pub(crate) key_usage: Option<(KeyUsage, Criticality)>,
    pub(crate) extended_key_usage: Option<ExtendedKeyUsage>,
    /// The content of the `GeneralNames`.
    pub(crate) alternative_names: Option<(&'a [u8], Criticality)>,
    /// The content of each URI in the subject alternative name, of any bytes.
    pub(crate) uris: Vec<&'a [u8]>,
    /// The content of the `NameConstraints`.
    pub(crate) name_constraints: Option<&'a [u8]>,
    /// The content of the `CertificatePolicies`.
    pub(crate) policies: Option<(&'a [u8], Criticality)>,
    /// The content of the `PolicyMappings`.
    pub(crate) policy_mappings: Option<&'a [u8]>,
    pub(crate) policy_constraints: PolicyConstraints,
    pub(crate) inhibit_any_policy: Option<u32>,
    pub(crate) subject_key_id: Option<&'a [u8]>,
    pub(crate) authority_key_id: Option<&'a [u8]>,
    /// The object identifier of a critical extension that is not processed.
    pub(crate) unknown_critical: Option<&'a [u8]>,
}

/// `[0]`, `[1]`, `[2]` and `[3]` of `TBSCertificate` (RFC 5280 §4.1).
const VERSION: u8 = 0xa0;
const ISSUER_UNIQUE_ID: u8 = 0x81;
const SUBJECT_UNIQUE_ID: u8 = 0x82;
const EXTENSIONS: u8 = 0xa3;

impl<'a> Certificate<'a> {
    pub(crate) fn parse(der: &'a CertificateDer<'_>) -> Result<Certificate<'a>, EncodingError> {
        let der: &[u8] = der.as_ref();
        if der.len() > CERTIFICATE_LEN_MAX {
            return Err(EncodingError::Length { len: der.len() });
        }
        let mut outer = Reader::new(der);
        let certificate = outer.expect(SEQUENCE)?;
        if !outer.is_empty() {
            return Err(EncodingError::TrailingData { len: outer.rest().len() });
        }
        let mut parts = Reader::new(certificate);
        let signed = parts.element()?;
        if signed.tag != SEQUENCE {
            return Err(EncodingError::Malformed);
        }
        let signature_algorithm = parts.expect(SEQUENCE)?;
        let signature = whole_bytes(parts.expect(BIT_STRING)?)?;
        parts.finish()?;

        let mut fields = Reader::new(signed.content);
        // Version 1 is the default and therefore absent (X.690 §11.5).
        let version = fields.optional(VERSION)?.ok_or(EncodingError::Version)?;
        match only(version, INTEGER)? {
            [2] => {}
            [0 | 1] => return Err(EncodingError::Version),
            _ => return Err(EncodingError::Malformed),
        }
        let serial_number = fields.expect(INTEGER)?;
        check_integer(serial_number)?;
        if fields.expect(SEQUENCE)? != signature_algorithm {
            return Err(EncodingError::SignatureAlgorithm);
        }
        check_algorithm(signature_algorithm)?;
        let issuer = fields.expect(SEQUENCE)?;
        check_name(issuer)?;
        if issuer.is_empty() {
            return Err(EncodingError::Issuer);
        }
        let mut validity = Reader::new(fields.expect(SEQUENCE)?);
        let (not_before, not_after) = (time(validity.element()?)?, time(validity.element()?)?);
        validity.finish()?;
        let subject = fields.expect(SEQUENCE)?;
        check_name(subject)?;
        let public_key_info = fields.element()?;
        if public_key_info.tag != SEQUENCE {
            return Err(EncodingError::Malformed);
        }
        let mut key = Reader::new(public_key_info.content);
        let public_key_algorithm = key.expect(SEQUENCE)?;
        check_algorithm(public_key_algorithm)?;
        let public_key = whole_bytes(key.expect(BIT_STRING)?)?;
        key.finish()?;
        // §4.1.2.8: no authority issues unique identifiers; an application should be able to parse them.
        for tag in [ISSUER_UNIQUE_ID, SUBJECT_UNIQUE_ID] {
            if let Some(content) = fields.optional(tag)? {
                bits(content)?;
            }
        }
        let extensions = fields.optional(EXTENSIONS)?;
        fields.finish()?;

        let mut certificate = Certificate {
            signed: signed.whole,
            signature_algorithm,
            signature,
            serial_number,
            issuer,
            validity: Validity { not_before, not_after },
            subject,
            public_key_info: public_key_info.whole,
            public_key_algorithm,
            public_key,
            authority: false,
            path_len: None,
            key_usage: None,
            extended_key_usage: None,
            alternative_names: None,
            uris: Vec::new(),
            name_constraints: None,
            policies: None,
            policy_mappings: None,
            policy_constraints: PolicyConstraints::default(),
            inhibit_any_policy: None,
            subject_key_id: None,
            authority_key_id: None,
            unknown_critical: None,
        };
        if let Some(extensions) = extensions {
            certificate.read_extensions(only(extensions, SEQUENCE)?)?;
        }
        Ok(certificate)
    }

    fn read_extensions(&mut self, content: &'a [u8]) -> Result<(), EncodingError> {
        if content.is_empty() {
            // §4.1.2.9: "a sequence of one or more".
            return Err(EncodingError::Malformed);
        }
        let mut seen = Vec::new();
        let mut extensions = Reader::new(content);
        while !extensions.is_empty() {
            let mut extension = Reader::new(extensions.expect(SEQUENCE)?);
            let oid = extension.expect(OBJECT_IDENTIFIER)?;
            check_oid(oid)?;
            // DER leaves the default FALSE out; every peer accepts it written out, and it means one thing.
            let critical = extension.optional(BOOLEAN)?.map_or(Ok(false), boolean)?;
            let value = extension.expect(OCTET_STRING)?;
            extension.finish()?;
            seen.push(oid);
            let criticality = if critical { Criticality::Critical } else { Criticality::NotCritical };
            self.read_extension(oid, value, criticality)?;
        }
        // §4.2. Sorted, because a quadratic search takes milliseconds for the extensions that fit in.
        seen.sort_unstable();
        if seen.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(EncodingError::DuplicateExtension);
        }
        Ok(())
    }

    fn read_extension(
        &mut self,
        oid: &'a [u8],
        value: &'a [u8],
        criticality: Criticality,
    ) -> Result<(), EncodingError> {
        // id-ce, 2.5.29.
        let &[0x55, 0x1d, number] = oid else {
            self.leave_out(oid, criticality);
            return Ok(());
        };
        let named = |extension| move |Malformed| EncodingError::Extension { extension };
        match number {
            14 => {
                self.subject_key_id = Some(only(value, OCTET_STRING).map_err(named("SubjectKeyIdentifier"))?);
                self.leave_out(oid, criticality);
            }
            15 => {
                let usage = only(value, BIT_STRING).and_then(named_bits).map_err(named("KeyUsage"))?;
                self.key_usage = Some((KeyUsage(usage), criticality));
            }
            17 => {
                let names = only(value, SEQUENCE).map_err(named("SubjectAltName"))?;
                self.uris = uris(names).map_err(named("SubjectAltName"))?;
                self.alternative_names = Some((names, criticality));
            }
            19 => {
                (self.authority, self.path_len) =
                    basic_constraints(value).map_err(named("BasicConstraints"))?;
            }
            30 => {
                self.name_constraints = Some(only(value, SEQUENCE).map_err(named("NameConstraints"))?);
            }
            32 => {
                let policies = only(value, SEQUENCE).map_err(named("CertificatePolicies"))?;
                self.policies = Some((policies, criticality));
            }
            33 => self.policy_mappings = Some(only(value, SEQUENCE).map_err(named("PolicyMappings"))?),
            35 => {
                self.authority_key_id = authority_key_id(value).map_err(named("AuthorityKeyIdentifier"))?;
                self.leave_out(oid, criticality);
            }
            36 => {
                self.policy_constraints = policy_constraints(value).map_err(named("PolicyConstraints"))?;
            }
            37 => {
                self.extended_key_usage =
                    Some(extended_key_usage(value).map_err(named("ExtKeyUsageSyntax"))?);
            }
            54 => {
                let skip = only(value, INTEGER).and_then(small_integer);
                self.inhibit_any_policy = Some(skip.map_err(named("InhibitAnyPolicy"))?);
            }
            _ => self.leave_out(oid, criticality),
        }
        Ok(())
    }

    /// §4.2: a critical extension that is not processed refuses the certificate, but only where a path is
    /// validated. Key identifiers are among them: they are hints here, and RFC 5280 forbids marking them
    /// critical.
    fn leave_out(&mut self, oid: &'a [u8], criticality: Criticality) {
        if criticality == Criticality::Critical && self.unknown_critical.is_none() {
            self.unknown_critical = Some(oid);
        }
    }
}

/// An object identifier, and parameters of any kind.
fn check_algorithm(content: &[u8]) -> Result<(), Malformed> {
    let mut algorithm = Reader::new(content);
    check_oid(algorithm.expect(OBJECT_IDENTIFIER)?)?;
    if !algorithm.is_empty() {
        algorithm.element()?;
    }
    algorithm.finish()
}

/// RFC 5280 §4.1.2.4: sets of at least one attribute, each an object identifier and a value. X.690 §11.6: the
/// encodings of the attributes of a set ascend.
fn check_name(content: &[u8]) -> Result<(), Malformed> {
    let mut sets = Reader::new(content);
    while !sets.is_empty() {
        let mut attributes = Reader::new(sets.expect(SET)?);
        if attributes.is_empty() {
            return Err(Malformed);
        }
        // No encoding begins with another one, so that the order of slices is that of X.690 §11.6.
        let mut before: &[u8] = &[];
        while !attributes.is_empty() {
            let element = attributes.element()?;
            if element.tag != SEQUENCE || element.whole < before {
                return Err(Malformed);
            }
            before = element.whole;
            let mut attribute = Reader::new(element.content);
            check_oid(attribute.expect(OBJECT_IDENTIFIER)?)?;
            attribute.element()?;
            attribute.finish()?;
        }
    }
    Ok(())
}

fn basic_constraints(value: &[u8]) -> Result<(bool, Option<u32>), Malformed> {
    let mut constraints = Reader::new(only(value, SEQUENCE)?);
    let authority = constraints.optional(BOOLEAN)?.map_or(Ok(false), boolean)?;
    let path_len = constraints.optional(INTEGER)?.map(small_integer).transpose()?;
    constraints.finish()?;
    Ok((authority, path_len))
}

fn extended_key_usage(value: &[u8]) -> Result<ExtendedKeyUsage, Malformed> {
    const ID_KP: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3];
    const ANY: &[u8] = &[0x55, 0x1d, 37, 0];
    let mut usage = ExtendedKeyUsage::default();
    let mut purposes = Reader::new(only(value, SEQUENCE)?);
    if purposes.is_empty() {
        return Err(Malformed);
    }
    while !purposes.is_empty() {
        let purpose = purposes.expect(OBJECT_IDENTIFIER)?;
        check_oid(purpose)?;
        match purpose.strip_prefix(ID_KP) {
            Some([1]) => usage.server_auth = true,
            Some([2]) => usage.client_auth = true,
            _ => usage.any |= purpose == ANY,
        }
    }
    Ok(usage)
}

/// §4.2.1.11: one of the two is present.
fn policy_constraints(value: &[u8]) -> Result<PolicyConstraints, Malformed> {
    let mut constraints = Reader::new(only(value, SEQUENCE)?);
    let require_explicit = constraints.optional(0x80)?.map(small_integer).transpose()?;
    let inhibit_mapping = constraints.optional(0x81)?.map(small_integer).transpose()?;
    constraints.finish()?;
    if require_explicit.is_none() && inhibit_mapping.is_none() {
        return Err(Malformed);
    }
    Ok(PolicyConstraints { require_explicit, inhibit_mapping })
}

/// The key identifier; the issuer and serial number beside it are hints that are not used.
fn authority_key_id(value: &[u8]) -> Result<Option<&[u8]>, Malformed> {
    let mut fields = Reader::new(only(value, SEQUENCE)?);
    let key_id = fields.optional(0x80)?;
    fields.optional(0xa1)?;
    fields.optional(0x82)?;
    fields.finish()?;
    Ok(key_id)
}

/// The tags of `GeneralName` (RFC 5280 §4.2.1.6). Another tag is not DER of it: `[6]` constructed, for one.
pub(crate) const OTHER_NAME: u8 = 0xa0;
pub(crate) const RFC822_NAME: u8 = 0x81;
pub(crate) const DNS_NAME: u8 = 0x82;
pub(crate) const X400_ADDRESS: u8 = 0xa3;
pub(crate) const DIRECTORY_NAME: u8 = 0xa4;
pub(crate) const EDI_PARTY_NAME: u8 = 0xa5;
pub(crate) const URI: u8 = 0x86;
pub(crate) const IP_ADDRESS: u8 = 0x87;
pub(crate) const REGISTERED_ID: u8 = 0x88;
/// Every tag of `GeneralName`.
#[cfg(feature = "rustls")]
pub(crate) const GENERAL_NAMES: [u8; 9] = [
    OTHER_NAME,
    RFC822_NAME,
    DNS_NAME,
    X400_ADDRESS,
    DIRECTORY_NAME,
    EDI_PARTY_NAME,
    URI,
    IP_ADDRESS,
    REGISTERED_ID,
];

/// The URIs of a subject alternative name, by their raw tags: a name with bytes that are not text counts like
/// any other, so that no second identity is visible to another parser and not to this one.
fn uris(names: &[u8]) -> Result<Vec<&[u8]>, Malformed> {
    let mut uris = Vec::new();
    let mut names = Reader::new(names);
    if names.is_empty() {
        // §4.2.1.6: "the sequence MUST contain at least one entry".
        return Err(Malformed);
    }
    while !names.is_empty() {
        let name = names.element()?;
        match name.tag {
            URI => uris.push(name.content),
            OTHER_NAME | RFC822_NAME | DNS_NAME | X400_ADDRESS | EDI_PARTY_NAME => {}
            DIRECTORY_NAME => check_name(only(name.content, SEQUENCE)?)?,
            IP_ADDRESS if matches!(name.content.len(), 4 | 16) => {}
            REGISTERED_ID => check_oid(name.content)?,
            _ => return Err(Malformed),
        }
    }
    Ok(uris)
}
