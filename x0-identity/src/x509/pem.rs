//! Certificates and keys as text (RFC 7468).

use pki_types::pem::{PemObject, SectionKind};
use pki_types::{CertificateDer, PrivateKeyDer};
use std::string::String;
use std::vec::Vec;

use super::certificate::CERTIFICATE_LEN_MAX;
use crate::base64::{Alphabet, encode};

/// The longest PEM text that is parsed, in bytes.
pub const PEM_LEN_MAX: usize = 4 * 1024 * 1024;

/// A PEM text cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PemError {
    /// The text is longer than [`PEM_LEN_MAX`]; it was not parsed.
    #[error("the PEM text has {len} bytes, more than the {PEM_LEN_MAX} allowed: split it")]
    Length {
        /// The length of the text, in bytes.
        len: usize,
    },
    /// A section has no end line, or its content is not base64.
    #[error(
        "section {section} of the PEM text is damaged: its base64 or its end line is wrong; restore the file"
    )]
    Damaged {
        /// The position of the section, counted from zero.
        section: usize,
    },
    /// The text has more than one private key.
    #[error("the PEM text has more than one private key: keep the key of the leaf certificate")]
    Keys,
}

/// The certificates and the key of a PEM text. Sections of other kinds are skipped.
pub(crate) struct SvidParts {
    pub(crate) certificates: Vec<CertificateDer<'static>>,
    pub(crate) key: Option<PrivateKeyDer<'static>>,
}

pub(crate) fn read_parts(pem: &[u8]) -> Result<SvidParts, PemError> {
    if pem.len() > PEM_LEN_MAX {
        return Err(PemError::Length { len: pem.len() });
    }
    let mut parts = SvidParts { certificates: Vec::new(), key: None };
    for (section, item) in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem).enumerate() {
        let (kind, der) = item.map_err(|_| PemError::Damaged { section })?;
        let key = match kind {
            SectionKind::Certificate => {
                parts.certificates.push(der.into());
                continue;
            }
            SectionKind::PrivateKey => PrivateKeyDer::Pkcs8(der.into()),
            SectionKind::EcPrivateKey => PrivateKeyDer::Sec1(der.into()),
            SectionKind::RsaPrivateKey => PrivateKeyDer::Pkcs1(der.into()),
            _ => continue,
        };
        if parts.key.replace(key).is_some() {
            return Err(PemError::Keys);
        }
    }
    Ok(parts)
}

pub(crate) fn write_certificate(certificate: &CertificateDer<'_>, pem: &mut String) {
    write_section("CERTIFICATE", certificate, pem);
}

pub(crate) fn write_key(key: &PrivateKeyDer<'_>, pem: &mut String) {
    let label = match key {
        PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
        PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
        // PKCS #8, and any variant that pki-types adds: its documentation says that it will be a form of
        // PKCS #8.
        _ => "PRIVATE KEY",
    };
    write_section(label, key.secret_der(), pem);
}

/// RFC 7468 §2: base64 in lines of 64 characters, that is 48 bytes each.
fn write_section(label: &str, der: &[u8], pem: &mut String) {
    pem.reserve(der.len() * 4 / 3 + der.len() / 48 + 2 * label.len() + 40);
    pem.extend(["-----BEGIN ", label, "-----\n"]);
    for line in der.chunks(48) {
        pem.push_str(&encode(line, Alphabet::Standard));
        pem.push('\n');
    }
    pem.extend(["-----END ", label, "-----\n"]);
}

const _: () = assert!(PEM_LEN_MAX > 64 * CERTIFICATE_LEN_MAX * 4 / 3 + 64 * CERTIFICATE_LEN_MAX / 48);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_certificate_is_read_at_every_length() {
        for len in 0..200_u8 {
            let der: Vec<u8> = (0..len).map(|byte| byte.wrapping_mul(37)).collect();
            let mut pem = String::new();
            write_certificate(&der.clone().into(), &mut pem);
            assert!(pem.lines().all(|line| line.len() <= 64), "{pem}");
            let parts = read_parts(pem.as_bytes()).unwrap();
            assert_eq!(parts.certificates, [CertificateDer::from(der)], "length {len}");
        }
    }
}
