//! Certificates built field by field, so that any of them can be wrong.

use std::hash::{DefaultHasher, Hasher};
use std::sync::LazyLock;

use pki_types::{
    AlgorithmIdentifier, CertificateDer, InvalidSignature, PrivatePkcs8KeyDer,
    SignatureVerificationAlgorithm, alg_id,
};
use rcgen::{KeyPair, PublicKeyData, SigningKey};

/// A moment within the validity of every certificate that says nothing else: 2033-05-18T03:33:20Z.
pub(crate) const NOW: i64 = 2_000_000_000;

/// Keys: 12 of ECDSA P-256, then those of [`P384`] to [`RSA_SHA512`]. A certificate says which one is its own
/// and which one signs it.
static KEYS: LazyLock<Vec<KeyPair>> = LazyLock::new(|| {
    let rsa = PrivatePkcs8KeyDer::from(&include_bytes!("../data/rsa.der")[..]);
    let rsa = |algorithm| KeyPair::from_pkcs8_der_and_sign_algo(&rsa.clone_key(), algorithm).unwrap();
    let mut keys: Vec<KeyPair> = (0..12).map(|_| KeyPair::generate().unwrap()).collect();
    keys.push(KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap());
    keys.push(KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap());
    keys.extend([&rcgen::PKCS_RSA_SHA256, &rcgen::PKCS_RSA_SHA384, &rcgen::PKCS_RSA_SHA512].map(rsa));
    keys
});

pub(crate) const P384: usize = 12;
pub(crate) const ED25519: usize = 13;
/// The same key as [`RSA_SHA384`] and [`RSA_SHA512`], of 2048 bits.
pub(crate) const RSA_SHA256: usize = 14;
pub(crate) const RSA_SHA384: usize = 15;
pub(crate) const RSA_SHA512: usize = 16;

/// The `AlgorithmIdentifier` of the signatures of a key.
pub(crate) fn algorithm_of(key: usize) -> &'static [u8] {
    match key {
        P384 => ECDSA_SHA384,
        ED25519 => &[0x30, 5, 6, 3, 0x2b, 0x65, 0x70],
        RSA_SHA256 => &[0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11, 5, 0],
        RSA_SHA384 => &[0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 12, 5, 0],
        RSA_SHA512 => &[0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 13, 5, 0],
        _ => ECDSA_SHA256,
    }
}

/// The `SubjectPublicKeyInfo` of each.
static KEY_INFOS: LazyLock<Vec<Vec<u8>>> =
    LazyLock::new(|| KEYS.iter().map(PublicKeyData::subject_public_key_info).collect());

/// How a forge signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    Ecdsa,
    /// See [`Hashed`].
    Hashed,
}

/// A hash of key and message under the names of ECDSA with P-256: anybody can sign, and a signature takes
/// less than a microsecond. For comparisons of what verifiers decide beside the signatures.
#[derive(Debug)]
pub(crate) struct Hashed;

impl Hashed {
    fn sign(key: &[u8], message: &[u8]) -> Vec<u8> {
        let mut hasher = DefaultHasher::new();
        hasher.write(key);
        hasher.write(message);
        hasher.finish().to_be_bytes().to_vec()
    }
}

impl SignatureVerificationAlgorithm for Hashed {
    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        if Hashed::sign(key, message) == signature { Ok(()) } else { Err(InvalidSignature) }
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_P256
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_SHA256
    }
}

/// `AlgorithmIdentifier` of ecdsa-with-SHA256.
pub(crate) const ECDSA_SHA256: &[u8] = &[0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
pub(crate) const ECDSA_SHA384: &[u8] = &[0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3];

pub(crate) const DIGITAL_SIGNATURE: &[u8] = &[7, 0x80];
pub(crate) const KEY_CERT_SIGN: &[u8] = &[2, 0x04];
pub(crate) const SERVER_AUTH: &[u8] = &[0x06, 8, 0x2b, 6, 1, 5, 5, 7, 3, 1];
pub(crate) const CLIENT_AUTH: &[u8] = &[0x06, 8, 0x2b, 6, 1, 5, 5, 7, 3, 2];
pub(crate) const ANY_USAGE: &[u8] = &[0x06, 4, 0x55, 0x1d, 37, 0];

pub(crate) const LEAF_URI: &str = "spiffe://example.org/workload";

/// DER with the shortest length.
pub(crate) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut der = vec![tag];
    let len = content.len().to_be_bytes();
    let significant = len.iter().position(|byte| *byte != 0).unwrap_or(7);
    match content.len() {
        0..=0x7f => der.push(len[7]),
        _ => {
            der.push(0x80 | u8::try_from(8 - significant).unwrap());
            der.extend(&len[significant..]);
        }
    }
    der.extend(content);
    der
}

pub(crate) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

/// A name of one common name, as `UTF8String`, or of nothing.
pub(crate) fn name(common: &str) -> Vec<u8> {
    if common.is_empty() { tlv(0x30, &[]) } else { tlv(0x30, &rdn(0x0c, common.as_bytes())) }
}

pub(crate) fn rdn(tag: u8, common: &[u8]) -> Vec<u8> {
    tlv(0x31, &sequence(&[&[6, 3, 0x55, 4, 3], &tlv(tag, common)]))
}

/// `UTCTime` until 2049, `GeneralizedTime` from then on.
pub(crate) fn moment(seconds: i64) -> Vec<u8> {
    let at = time::OffsetDateTime::from_unix_timestamp(seconds).unwrap();
    let rest = format!(
        "{:02}{:02}{:02}{:02}{:02}Z",
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second()
    );
    if (1950..2050).contains(&at.year()) {
        tlv(0x17, format!("{:02}{rest}", at.year() % 100).as_bytes())
    } else {
        tlv(0x18, format!("{:04}{rest}", at.year()).as_bytes())
    }
}

pub(crate) fn generalized(seconds: i64) -> Vec<u8> {
    let text = String::from_utf8(moment(seconds)[2..].to_vec()).unwrap();
    tlv(0x18, format!("20{text}").as_bytes())
}

/// An extension of `id-ce`.
pub(crate) fn extension(number: u8, critical: bool, value: &[u8]) -> Vec<u8> {
    extension_of(&[0x55, 0x1d, number], critical, value)
}

pub(crate) fn extension_of(oid: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if critical { &[1, 1, 0xff] } else { &[] };
    sequence(&[&tlv(6, oid), critical, &tlv(4, value)])
}

pub(crate) fn uri(text: &str) -> Vec<u8> {
    tlv(0x86, text.as_bytes())
}

#[derive(Clone)]
pub(crate) struct Forge {
    pub(crate) version: Vec<u8>,
    pub(crate) serial: Vec<u8>,
    pub(crate) algorithm: Vec<u8>,
    pub(crate) outer_algorithm: Option<Vec<u8>>,
    pub(crate) issuer: Vec<u8>,
    pub(crate) not_before: Vec<u8>,
    pub(crate) not_after: Vec<u8>,
    pub(crate) subject: Vec<u8>,
    /// The fields after the key: unique identifiers.
    pub(crate) unique: Vec<u8>,
    /// In order: the number under `id-ce`, 0 for others, and the whole extension.
    pub(crate) extensions: Vec<(u8, Vec<u8>)>,
    pub(crate) key: usize,
    pub(crate) signer: usize,
    /// A position in the signed part, of which the remainder by its length counts, and the byte there.
    pub(crate) mutation: Option<(usize, u8)>,
    /// The change of the signature.
    pub(crate) signature: fn(Vec<u8>) -> Vec<u8>,
    /// Bytes after the certificate.
    pub(crate) trailing: Vec<u8>,
}

impl Forge {
    fn new(subject: &str, issuer: &str, key: usize, signer: usize) -> Forge {
        Forge {
            version: tlv(0xa0, &[2, 1, 2]),
            serial: tlv(2, &[1 + u8::try_from(key).unwrap()]),
            algorithm: algorithm_of(signer).to_vec(),
            outer_algorithm: None,
            issuer: name(issuer),
            not_before: moment(NOW - 3600),
            not_after: moment(NOW + 3600),
            subject: name(subject),
            unique: Vec::new(),
            extensions: Vec::new(),
            key,
            signer,
            mutation: None,
            signature: |signature| signature,
            trailing: Vec::new(),
        }
    }

    /// A leaf with key 0, signed by the key of `issuer`.
    pub(crate) fn leaf(issuer: &Forge) -> Forge {
        let mut forge = Forge::new("", "", 0, issuer.key);
        forge.issuer.clone_from(&issuer.subject);
        forge
            .set(15, true, &tlv(3, DIGITAL_SIGNATURE))
            .set(37, false, &sequence(&[SERVER_AUTH, CLIENT_AUTH]))
            .set(17, true, &sequence(&[&uri(LEAF_URI)]))
    }

    pub(crate) fn signer(subject: &str, key: usize, issuer: &Forge) -> Forge {
        let mut forge = Forge::root(subject, key);
        forge.issuer.clone_from(&issuer.subject);
        forge.signer = issuer.key;
        forge.algorithm = algorithm_of(issuer.key).to_vec();
        forge
    }

    pub(crate) fn root(subject: &str, key: usize) -> Forge {
        Forge::new(subject, subject, key, key)
            .set(19, true, &sequence(&[&[1, 1, 0xff]]))
            .set(15, true, &tlv(3, KEY_CERT_SIGN))
            .set(17, false, &sequence(&[&uri("spiffe://example.org")]))
    }

    /// Another key of its own.
    pub(crate) fn key(mut self, key: usize) -> Forge {
        self.key = key;
        self
    }

    /// Replaces the extension, or adds it.
    pub(crate) fn set(mut self, number: u8, critical: bool, value: &[u8]) -> Forge {
        let whole = extension(number, critical, value);
        match self.extensions.iter_mut().find(|(present, _)| *present == number) {
            Some(present) => present.1 = whole,
            None => self.extensions.push((number, whole)),
        }
        self
    }

    pub(crate) fn without(mut self, number: u8) -> Forge {
        self.extensions.retain(|(present, _)| *present != number);
        self
    }

    pub(crate) fn more(mut self, whole: Vec<u8>) -> Forge {
        self.extensions.push((0, whole));
        self
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Forge)) -> Forge {
        change(&mut self);
        self
    }

    pub(crate) fn names(self, names: &[&[u8]]) -> Forge {
        self.set(17, true, &sequence(names))
    }

    pub(crate) fn path_len(self, len: u8) -> Forge {
        self.set(19, true, &sequence(&[&[1, 1, 0xff], &[2, 1, len]]))
    }

    pub(crate) fn valid(mut self, from: i64, to: i64) -> Forge {
        (self.not_before, self.not_after) = (moment(from), moment(to));
        self
    }

    pub(crate) fn build(&self) -> CertificateDer<'static> {
        self.build_with(Scheme::Ecdsa)
    }

    pub(crate) fn build_with(&self, scheme: Scheme) -> CertificateDer<'static> {
        let extensions: Vec<u8> = self.extensions.iter().flat_map(|(_, whole)| whole.clone()).collect();
        let extensions = if extensions.is_empty() { Vec::new() } else { tlv(0xa3, &tlv(0x30, &extensions)) };
        let mut signed = sequence(&[
            &self.version,
            &self.serial,
            &self.algorithm,
            &self.issuer,
            &sequence(&[&self.not_before, &self.not_after]),
            &self.subject,
            &KEY_INFOS[self.key],
            &self.unique,
            &extensions,
        ]);
        if let Some((position, byte)) = self.mutation {
            let position = position % signed.len();
            signed[position] = byte;
        }
        let signature = match scheme {
            Scheme::Ecdsa => KEYS[self.signer].sign(&signed).unwrap(),
            Scheme::Hashed => Hashed::sign(KEYS[self.signer].der_bytes(), &signed),
        };
        let signature = (self.signature)(signature);
        let algorithm = self.outer_algorithm.as_ref().unwrap_or(&self.algorithm);
        let mut der = sequence(&[&signed, algorithm, &tlv(3, &[&[0], &signature[..]].concat())]);
        der.extend(&self.trailing);
        der.into()
    }
}
