//! Certificates that keep the rules, certificates that break one, and handshakes without a network.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::error::Error;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, DnType, Issuer, KeyPair};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use time::OffsetDateTime;
use x0_identity::{TrustBundle, TrustDomain, X509Svid};

pub(crate) const DNS: u8 = 0x82;
pub(crate) const URI: u8 = 0x86;
pub(crate) const DIGITAL_SIGNATURE: u8 = 0x80;
pub(crate) const KEY_ENCIPHERMENT: u8 = 0x20;
pub(crate) const KEY_AGREEMENT: u8 = 0x08;
pub(crate) const KEY_CERT_SIGN: u8 = 0x04;
pub(crate) const CRL_SIGN: u8 = 0x02;
/// `id-kp-serverAuth`, `id-kp-clientAuth` and `anyExtendedKeyUsage` as DER.
pub(crate) const SERVER_AUTH: &[u8] = &[0x06, 8, 0x2b, 6, 1, 5, 5, 7, 3, 1];
pub(crate) const CLIENT_AUTH: &[u8] = &[0x06, 8, 0x2b, 6, 1, 5, 5, 7, 3, 2];
pub(crate) const ANY_USAGE: &[u8] = &[0x06, 4, 0x55, 0x1d, 37, 0];

/// The content of a certificate, extension by extension, so that each rule can be broken alone.
#[derive(Clone)]
pub(crate) struct Recipe {
    /// None leaves the basic constraints out.
    pub(crate) authority: Option<bool>,
    pub(crate) path_len: Option<u8>,
    /// Bits, and whether the extension is critical.
    pub(crate) key_usage: Option<(u8, bool)>,
    pub(crate) extended_key_usage: Option<Vec<&'static [u8]>>,
    /// Raw tag and content of each name.
    pub(crate) names: Vec<(u8, Vec<u8>)>,
    pub(crate) names_critical: bool,
    pub(crate) subject: Option<String>,
    /// Seconds from now.
    pub(crate) valid: (i64, i64),
    /// OID, content, critical.
    pub(crate) more: Vec<(Vec<u64>, Vec<u8>, bool)>,
}

impl Recipe {
    pub(crate) fn leaf(uri: &str) -> Recipe {
        Recipe {
            authority: Some(false),
            path_len: None,
            key_usage: Some((DIGITAL_SIGNATURE, true)),
            extended_key_usage: Some(vec![SERVER_AUTH, CLIENT_AUTH]),
            names: vec![(URI, uri.into())],
            names_critical: true,
            subject: None,
            valid: (-60, 3600),
            more: Vec::new(),
        }
    }

    pub(crate) fn signer(uri: &str, subject: &str) -> Recipe {
        Recipe {
            authority: Some(true),
            key_usage: Some((KEY_CERT_SIGN, true)),
            extended_key_usage: None,
            subject: Some(subject.into()),
            ..Recipe::leaf(uri)
        }
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Recipe)) -> Recipe {
        change(&mut self);
        self
    }

    fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some(subject) = &self.subject {
            params.distinguished_name.push(DnType::CommonName, subject.as_str());
        }
        let now = OffsetDateTime::now_utc();
        params.not_before = now + time::Duration::seconds(self.valid.0);
        params.not_after = now + time::Duration::seconds(self.valid.1);
        let mut add = |oid: &[u64], content: Vec<u8>, critical: bool| {
            let mut extension = CustomExtension::from_oid_content(oid, content);
            extension.set_criticality(critical);
            params.custom_extensions.push(extension);
        };
        if let Some(authority) = self.authority {
            // DER leaves out what is the default: FALSE.
            let mut content = if authority { tlv(0x01, &[0xff]) } else { Vec::new() };
            if let Some(len) = self.path_len {
                content.extend(tlv(0x02, &[len]));
            }
            add(&[2, 5, 29, 19], tlv(0x30, &content), true);
        }
        if let Some((bits, critical)) = self.key_usage {
            // trailing_zeros is at most 8, for no bit at all.
            let unused = u8::try_from(bits.trailing_zeros()).unwrap();
            let content = if bits == 0 { tlv(0x03, &[0]) } else { tlv(0x03, &[unused, bits]) };
            add(&[2, 5, 29, 15], content, critical);
        }
        if let Some(usages) = &self.extended_key_usage {
            add(&[2, 5, 29, 37], tlv(0x30, &usages.concat()), false);
        }
        if !self.names.is_empty() {
            let names: Vec<u8> = self.names.iter().flat_map(|(tag, name)| tlv(*tag, name)).collect();
            add(&[2, 5, 29, 17], tlv(0x30, &names), self.names_critical);
        }
        for (oid, content, critical) in &self.more {
            add(oid, content.clone(), *critical);
        }
        params
    }

    pub(crate) fn self_signed(&self) -> Issued {
        let key = KeyPair::generate().unwrap();
        let params = self.params();
        // A certificate without a subject still names an issuer (RFC 5280 §4.1.2.4).
        let mut issuer = params.clone();
        if self.subject.is_none() {
            issuer.distinguished_name.push(DnType::CommonName, "itself");
        }
        let certificate = params.signed_by(&key, &Issuer::from_params(&issuer, &key)).unwrap().der().clone();
        Issued { certificate, key, params }
    }

    pub(crate) fn signed_by(&self, signer: &Issued) -> Issued {
        let key = KeyPair::generate().unwrap();
        let params = self.params();
        let issuer = Issuer::from_params(&signer.params, &signer.key);
        let certificate = params.signed_by(&key, &issuer).unwrap().der().clone();
        Issued { certificate, key, params }
    }
}

pub(crate) struct Issued {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: KeyPair,
    params: CertificateParams,
}

impl Issued {
    pub(crate) fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.serialize_der().into())
    }

    /// With the signers between it and the root.
    pub(crate) fn svid(&self, signers: &[&Issued]) -> X509Svid {
        X509Svid::from_der(self.chain(signers), self.key_der()).unwrap()
    }

    pub(crate) fn chain(&self, signers: &[&Issued]) -> Vec<CertificateDer<'static>> {
        [self].into_iter().chain(signers.iter().copied()).map(|issued| issued.certificate.clone()).collect()
    }

    pub(crate) fn bundle(&self) -> TrustBundle {
        TrustBundle::new(domain("example.org"), vec![self.certificate.clone()]).unwrap()
    }
}

/// DER with a length of up to 65,535 bytes.
pub(crate) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = u16::try_from(content.len()).unwrap();
    let mut der = vec![tag];
    match len.to_be_bytes() {
        [0, len @ 0..=0x7f] => der.push(len),
        [0, len] => der.extend([0x81, len]),
        len => der.extend([0x82, len[0], len[1]]),
    }
    der.extend(content);
    der
}

pub(crate) fn domain(name: &str) -> TrustDomain {
    TrustDomain::parse(name).unwrap()
}

pub(crate) fn root() -> Issued {
    Recipe::signer("spiffe://example.org", "root").self_signed()
}

pub(crate) const MINUTE: Duration = Duration::from_secs(60);

pub(crate) fn seconds_since_1970(moment: SystemTime) -> u64 {
    moment.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// Takes a handshake to its end, and one message each way behind it, so that what a server sends late
/// (tickets) arrives.
pub(crate) fn handshake(
    client: &mut ClientConnection,
    server: &mut ServerConnection,
) -> Result<(), rustls::Error> {
    let mut asked = false;
    // A handshake takes three flights; each round carries one each way.
    for _ in 0..8 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut wire = &wire[..];
        while !wire.is_empty() {
            server.read_tls(&mut wire).unwrap();
            server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut wire = &wire[..];
        while !wire.is_empty() {
            client.read_tls(&mut wire).unwrap();
            client.process_new_packets()?;
        }
        if !asked && !client.is_handshaking() && !server.is_handshaking() {
            client.writer().write_all(b"ask").unwrap();
            server.writer().write_all(b"answer").unwrap();
            asked = true;
        }
    }
    assert!(asked, "the handshake did not end");
    Ok(())
}

/// A connection between two configurations, its handshake over.
pub(crate) fn connect(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let name = ServerName::try_from("nobody.invalid").unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name)?;
    let mut server = ServerConnection::new(Arc::clone(server))?;
    handshake(&mut client, &mut server)?;
    Ok((client, server))
}

/// The certificates of a peer that keeps no rule.
pub(crate) fn presenting(
    chain: Vec<CertificateDer<'static>>,
    key: &PrivateKeyDer<'static>,
) -> Arc<SingleCertAndKey> {
    let key = rustls::crypto::ring::sign::any_supported_type(key).unwrap();
    Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key)))
}

/// The error behind a failed handshake, if it is of this kind.
pub(crate) fn cause<E: Error + Clone + 'static>(error: &rustls::Error) -> Option<E> {
    match error {
        rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) => {
            other.0.downcast_ref::<E>().cloned()
        }
        _ => None,
    }
}
