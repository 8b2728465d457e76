//! What holds for any bytes from outside, decoder by decoder: no panic, one encoding of what is accepted, and
//! no decoder that accepts what another one refuses. The targets in `fuzz/` run the same functions.

use std::io::{self, Cursor, Read, Write};
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use pki_types::{CertificateDer, PrivateKeyDer};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::json;
use x0_identity::federation::EndpointUrl;
use x0_identity::tpm::{Tpm, TpmAnswer, TpmChallenge, TpmEvidence};
use x0_identity::{
    Authority, AuthorityOptions, BundleMap, CertificateRequest, Evidence, IssuanceAnswer, IssuanceRequest,
    IssuanceResponse, JwtAlgorithm, JwtIssuer, JwtSvid, JwtSvidValidator, NodeId, RequestKey, RevocationView,
    SignedBundle, SignedRevocations, SignedStatement, SpiffeBundle, SpiffeId, TrustBundle, TrustDomain,
    WitIssuer, WitKey, WitSvid, WitSvidValidator, X509Svid, peer_not_after, spiffe_id_of,
    spiffe_id_of_signer,
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Longer than a run.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

pub(crate) fn domain() -> TrustDomain {
    TrustDomain::parse("example.org").unwrap()
}

pub(crate) fn workload() -> SpiffeId {
    SpiffeId::parse("spiffe://example.org/web").unwrap()
}

pub(crate) static AUTHORITY: LazyLock<Authority> =
    LazyLock::new(|| Authority::new(domain(), &AuthorityOptions::default()).unwrap());
pub(crate) static SVID: LazyLock<X509Svid> = LazyLock::new(|| AUTHORITY.issue(&workload(), YEAR).unwrap());

/// The key of the issuer of tokens, with which the properties sign what the issuer never would.
static TOKEN_KEY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
    pkcs8.unwrap().as_ref().to_vec()
});
static ISSUER: LazyLock<JwtIssuer> =
    LazyLock::new(|| JwtIssuer::from_pkcs8(domain(), "key", JwtAlgorithm::Es256, &TOKEN_KEY).unwrap());
pub(crate) static TOKEN: LazyLock<JwtSvid> =
    LazyLock::new(|| ISSUER.issue(&workload(), &["audience"], YEAR, SystemTime::now()).unwrap());

/// The keys of the issuer of WIT-SVIDs and of their workload.
static WIT_KEY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
    pkcs8.unwrap().as_ref().to_vec()
});
static WIT_ISSUER: LazyLock<WitIssuer> =
    LazyLock::new(|| WitIssuer::from_pkcs8(domain(), JwtAlgorithm::Es256, &WIT_KEY).unwrap());
pub(crate) static HOLDER: LazyLock<WitKey> =
    LazyLock::new(|| WitKey::from_pkcs8(JwtAlgorithm::Es256, &TOKEN_KEY).unwrap());
pub(crate) static WIT: LazyLock<WitSvid> =
    LazyLock::new(|| WIT_ISSUER.issue(&workload(), HOLDER.confirmation(), YEAR, SystemTime::now()).unwrap());
/// A proof of the holder for [`WIT`], of the beginning of the run.
pub(crate) static PROOF: LazyLock<String> =
    LazyLock::new(|| HOLDER.prove(WIT.token(), "target", PROOF_LIFETIME, *PROVED).unwrap());
static PROVED: LazyLock<SystemTime> = LazyLock::new(SystemTime::now);
const PROOF_LIFETIME: Duration = Duration::from_secs(60);

/// A bundle with a key of each kind.
pub(crate) fn spiffe_bundle() -> SpiffeBundle {
    let bundle = SpiffeBundle::new(AUTHORITY.bundle());
    let bundle = bundle.with_jwt_authorities(vec![ISSUER.authority().clone()]).unwrap();
    let bundle = bundle.with_wit_authorities(vec![WIT_ISSUER.authority().clone()]).unwrap();
    bundle.with_sequence(7).with_refresh_hint(Duration::from_secs(60))
}

/// SPIFFE bundles and bundle maps (JSON Web Key Sets).
pub(crate) fn bundle(data: &[u8]) {
    if let Ok(bundle) = SpiffeBundle::from_json(domain(), data) {
        let text = bundle.to_json();
        let again = SpiffeBundle::from_json(domain(), text.as_bytes()).unwrap();
        assert_eq!(again.to_json(), text);
        assert!(again.refused().is_empty());
        // Authorities with a key that RFC 7518 does not define are not written.
        let authorities = bundle.trust_bundle().authorities();
        assert!(again.trust_bundle().authorities().iter().all(|authority| authorities.contains(authority)));
    }
    if let Ok(map) = BundleMap::from_json(data) {
        let text = map.to_json();
        assert_eq!(BundleMap::from_json(text.as_bytes()).unwrap().to_json(), text);
    }
}

/// Certificates, by everything that reads one.
pub(crate) fn certificate(data: &[u8]) {
    let certificate = CertificateDer::from(data.to_vec());
    let leaf = spiffe_id_of(&certificate);
    let signer = spiffe_id_of_signer(&certificate);
    assert!(leaf.is_err() || signer.is_err(), "both a leaf and a signer");
    let key = PrivateKeyDer::Pkcs8(data.to_vec().into());
    assert_eq!(X509Svid::from_der(vec![certificate.clone()], key).is_ok(), leaf.is_ok());
    assert_eq!(peer_not_after(std::slice::from_ref(&certificate)).is_ok(), leaf.is_ok());
    let bundle = TrustBundle::new(domain(), vec![certificate.clone()]);
    assert_eq!(bundle.is_ok(), signer.is_ok());
    if let Ok(bundle) = bundle {
        // As an element of a JSON Web Key Set, and in a signed bundle.
        let text = SpiffeBundle::new(bundle.clone()).to_json();
        let read = SpiffeBundle::from_json(domain(), text.as_bytes()).unwrap();
        assert!(read.refused().is_empty());
        assert!(read.trust_bundle() == &bundle || !text.contains("x5c"));
        let signed = SignedBundle::new(1, bundle, vec![1]);
        assert!(SignedBundle::from_bytes(domain(), &signed.to_bytes()).is_ok());
        other_reader(data, true, None);
    }
    if let Ok(id) = leaf {
        other_reader(data, false, Some(&id));
    }
}

/// x509-parser reads what we accept, and reads the same.
fn other_reader(der: &[u8], authority: bool, id: Option<&SpiffeId>) {
    let (rest, read) =
        X509Certificate::from_der(der).expect("x509-parser refuses a certificate that we accept");
    assert!(rest.is_empty());
    assert_eq!(read.is_ca(), authority);
    let usage = read.key_usage().unwrap().expect("a key usage").value;
    assert!(if authority {
        usage.key_cert_sign()
    } else {
        usage.digital_signature() && !usage.key_cert_sign()
    });
    let Some(id) = id else { return };
    let names = read.subject_alternative_name().unwrap().expect("alternative names").value;
    let uris = names.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    });
    assert_eq!(uris.collect::<Vec<_>>(), [id.to_string()]);
    let end = peer_not_after(&[CertificateDer::from(der.to_vec())]).unwrap();
    let ours = end.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |end| end.as_secs());
    assert_eq!(i64::try_from(ours).unwrap(), read.validity().not_after.timestamp().max(0));
}

/// Files with certificates and keys.
pub(crate) fn pem(data: &[u8]) {
    if let Ok(svid) = X509Svid::from_pem(data) {
        assert_eq!(X509Svid::from_pem(svid.to_pem().as_bytes()).unwrap().chain(), svid.chain());
    }
    if let Ok(bundle) = TrustBundle::from_pem(domain(), data) {
        assert_eq!(TrustBundle::from_pem(domain(), bundle.to_pem().as_bytes()).unwrap(), bundle);
    }
    let _ = Authority::from_pem(data);
}

/// PKCS #10.
pub(crate) fn certificate_request(data: &[u8]) {
    match CertificateRequest::from_der(data) {
        Ok(request) => assert!(!request.public_key_info().is_empty()),
        Err(error) => drop(error.to_string()),
    }
    let _ = RequestKey::from_pkcs8(data);
}

/// Requests, answers and responses of issuing over the network.
pub(crate) fn issuance(data: &[u8]) {
    if let Ok(request) = IssuanceRequest::from_bytes(data) {
        assert_eq!(request.to_bytes(), data);
    }
    if let Ok(answer) = IssuanceAnswer::from_bytes(data) {
        assert_eq!(answer.to_bytes(), data);
    }
    if let Ok(response) = IssuanceResponse::from_bytes(data) {
        assert_eq!(response.to_bytes(), data);
    }
}

/// Revocation views, signed ones and signed bundles.
pub(crate) fn revocations(data: &[u8]) {
    if let Ok(view) = RevocationView::from_bytes(data) {
        assert_eq!(view.to_bytes(), data);
    }
    if let Ok(signed) = SignedRevocations::from_bytes(data) {
        assert_eq!(signed.to_bytes(), data);
        assert!(signed.verify(&AUTHORITY.bundle(), &RevocationView::new()).is_err());
    }
    if let Ok(signed) = SignedStatement::from_bytes("test", data) {
        assert_eq!(signed.to_bytes(), data);
        assert!(signed.verify(&AUTHORITY.bundle(), &RevocationView::new()).is_err());
    }
    if let Ok(signed) = SignedBundle::from_bytes(domain(), data) {
        assert_eq!(signed.to_bytes(), data);
        assert!(signed.verify(&AUTHORITY.bundle(), &RevocationView::new()).is_err());
    }
}

struct Device(Cursor<Vec<u8>>);

impl Read for Device {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Device {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A TPM that answers with any bytes, and the messages of attestation.
pub(crate) fn tpm(data: &[u8]) {
    let _ = Tpm::over(Device(Cursor::new(data.to_vec()))).evidence();
    if let Ok(evidence) = TpmEvidence::from_bytes(data) {
        assert_eq!(evidence.to_bytes(), data);
    }
    if let Ok(challenge) = TpmChallenge::from_bytes(data) {
        assert_eq!(challenge.to_bytes(), data);
        let _ = Tpm::over(Device(Cursor::new(data.to_vec()))).answer(&challenge, &[0; 32]);
    }
    if let Ok(answer) = TpmAnswer::from_bytes(data) {
        assert_eq!(answer.to_bytes(), data);
    }
}

/// URLs of bundle endpoints, and the targets of redirects.
pub(crate) fn url(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let base = EndpointUrl::parse("https://example.org/a/b?c").unwrap();
    for url in [EndpointUrl::parse(text), base.join(text)].into_iter().flatten() {
        assert_eq!(EndpointUrl::parse(&url.to_string()).as_ref(), Ok(&url));
        assert!(
            url.path_and_query().starts_with('/') && !url.path_and_query().contains([' ', '\r', '\n', '#'])
        );
        assert!(!url.authority().contains(['@', '/', ' ', '\r', '\n']));
    }
}

/// Tokens: none but the one that the issuer has issued is valid. The first byte says whether the bytes are a
/// token, or damage of the valid one: position and byte in turn.
pub(crate) fn jwt(data: &[u8]) {
    let Some((how, data)) = data.split_first() else { return };
    let mut token = TOKEN.token().as_bytes().to_vec();
    if how % 2 == 0 {
        token = data.to_vec();
    } else {
        for damage in data.chunks_exact(3) {
            let position = usize::from(u16::from_le_bytes([damage[0], damage[1]])) % token.len();
            token[position] = damage[2];
        }
    }
    let token = String::from_utf8_lossy(&token);
    match validate(&token) {
        Ok(valid) => assert_eq!(valid.token(), TOKEN.token()),
        Err(error) => drop(error.to_string()),
    }
}

/// WIT-SVIDs, proofs of possession and private keys as JSON: text from outside, and damage of a valid one.
/// The first byte decides which.
pub(crate) fn wit(data: &[u8]) {
    let Some((how, data)) = data.split_first() else { return };
    let valid = [WIT.token(), PROOF.as_str(), HOLDER_JWK.as_str()][usize::from(how / 2 % 3)];
    let text = if how % 2 == 0 {
        String::from_utf8_lossy(data).into_owned()
    } else {
        let mut text = valid.as_bytes().to_vec();
        for damage in data.chunks_exact(3) {
            let position = usize::from(u16::from_le_bytes([damage[0], damage[1]])) % text.len();
            text[position] = damage[2];
        }
        String::from_utf8_lossy(&text).into_owned()
    };
    let mut bundles = BundleMap::new();
    bundles.insert(spiffe_bundle());
    let present = |token: &str| WitSvidValidator::new().validate(token, &bundles, *PROVED);
    match present(&text) {
        Ok(presented) => {
            assert_eq!(text, WIT.token());
            assert_eq!(presented.claimed_spiffe_id(), &workload());
        }
        Err(error) => drop(error.to_string()),
    }
    // No token of one kind is one of another.
    assert!(validate(&text).is_err() || text == TOKEN.token());
    let presented = present(WIT.token()).unwrap();
    match presented.with_proof(&text, "target", *PROVED) {
        Ok((svid, proof)) => {
            assert_eq!((text.as_str(), svid.token()), (PROOF.as_str(), WIT.token()));
            assert!(!proof.id().is_empty() && proof.expires() <= *PROVED + PROOF_LIFETIME);
        }
        Err(error) => drop(error.to_string()),
    }
    // A private key that is read is written as it is read again, and signs for its public half.
    if let Ok(key) = WitKey::from_jwk(&text) {
        let again = WitKey::from_jwk(&key.to_jwk()).unwrap();
        assert_eq!((again.to_jwk(), again.confirmation()), (key.to_jwk(), key.confirmation()));
        let svid = WIT_ISSUER.issue(&workload(), key.confirmation(), YEAR, *PROVED).unwrap();
        let signature = key.sign(b"message").unwrap();
        assert!(present(svid.token()).unwrap().with_signature(b"message", &signature, *PROVED).is_ok());
    }
}

static HOLDER_JWK: LazyLock<String> = LazyLock::new(|| HOLDER.to_jwk());

fn validate(token: &str) -> Result<JwtSvid, x0_identity::JwtSvidError> {
    let mut bundles = BundleMap::new();
    bundles.insert(spiffe_bundle());
    JwtSvidValidator::new("audience").validate(token, &bundles, SystemTime::now())
}

/// Names: what is read is written as it was read, and every decoder of a name says the same.
pub(crate) fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(node) = text.parse::<NodeId>() {
        assert_eq!(node.to_string(), text);
    }
    let domain = TrustDomain::parse(text);
    if let Ok(domain) = &domain {
        assert_eq!(domain.to_string(), text);
    }
    let key = json!({"trust_domains": {text: {"keys": []}}}).to_string();
    assert_eq!(BundleMap::from_json(key.as_bytes()).is_ok(), domain.is_ok(), "in a bundle map: {text:?}");
    let in_id = SpiffeId::parse(&format!("spiffe://{text}"));
    if !text.contains('/') {
        assert_eq!(in_id.is_ok(), domain.is_ok(), "in a SPIFFE ID: {text:?}");
    }
    for id in [text.to_owned(), format!("spiffe://{text}"), format!("spiffe://example.org/{text}")] {
        one_id(&id);
    }
}

/// Every decoder of SPIFFE IDs, on one text.
fn one_id(text: &str) {
    let id = SpiffeId::parse(text);
    if let Ok(id) = &id {
        assert_eq!(id.to_string(), text);
    }
    let field = |text: &str| {
        let len = u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes();
        [&len[..], text.as_bytes()].concat()
    };
    if text.len() < 16 * 1024 {
        let revoked = [&[1, 2][..], &[0; 8], &field(text)].concat();
        assert_eq!(RevocationView::from_bytes(&revoked).is_ok(), id.is_ok(), "in a revocation: {text:?}");
    }
    let request = [&[1, 2][..], &[0; 4], &field(text), &field("")].concat();
    let read = IssuanceRequest::from_bytes(&request);
    assert_eq!(read.is_ok(), id.is_ok(), "in a request: {text:?}");
    if let Ok(read) = read {
        assert_eq!(read.evidence, Evidence::CurrentSvid);
    }
    // Of the documents X509-SVID alone demands a path (§5.2).
    let of_workload = id.as_ref().is_ok_and(|id| !id.path().is_empty());
    let leaf = leaf_of(text);
    let read = spiffe_id_of(&leaf);
    assert_eq!(read.is_ok(), of_workload, "in a leaf: {text:?}: {read:?}");
    if let (Ok(id), Ok(read)) = (&id, read) {
        assert_eq!(&read, id);
    }
    let read = validate(&token_of(text));
    let ours = id.as_ref().is_ok_and(|id| *id.trust_domain() == domain());
    assert_eq!(read.is_ok(), ours, "in a token: {text:?}: {read:?}");
}

/// DER with the shortest length.
fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = content.len();
    let head = match len {
        0..0x80 => vec![tag, u8::try_from(len).unwrap()],
        0x80..0x100 => vec![tag, 0x81, u8::try_from(len).unwrap()],
        _ => [&[tag, 0x82][..], &u16::try_from(len).unwrap().to_be_bytes()].concat(),
    };
    [head, content.to_vec()].concat()
}

/// A leaf with the URI, and with a signature of nothing.
fn leaf_of(uri: &str) -> CertificateDer<'static> {
    let extension = |number: u8, value: &[u8]| {
        tlv(0x30, &[&[6, 3, 0x55, 0x1d, number, 1, 1, 0xff][..], &tlv(4, value)].concat())
    };
    let uri = &uri.as_bytes()[..uri.len().min(8 * 1024)];
    let extensions = [extension(15, &[3, 2, 7, 0x80]), extension(17, &tlv(0x30, &tlv(0x86, uri)))].concat();
    let algorithm = tlv(0x30, &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]);
    let validity = [tlv(0x17, b"250101000000Z"), tlv(0x17, b"450101000000Z")].concat();
    let key_algorithm =
        tlv(0x30, &[6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7]);
    let key = [key_algorithm, tlv(3, &[[0].as_slice(), &[4; 65]].concat())].concat();
    let signed = [
        &[0xa0, 3, 2, 1, 2, 2, 1, 1][..],
        &algorithm,
        // The common name `a`.
        &tlv(0x30, &tlv(0x31, &tlv(0x30, &[6, 3, 0x55, 4, 3, 0x0c, 1, b'a']))),
        &tlv(0x30, &validity),
        &tlv(0x30, &[]),
        &tlv(0x30, &key),
        &tlv(0xa3, &tlv(0x30, &extensions)),
    ];
    let signed = tlv(0x30, &signed.concat());
    tlv(0x30, &[signed, algorithm, tlv(3, &[0, 1])].concat()).into()
}

/// A token of the issuer with the subject.
fn token_of(subject: &str) -> String {
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &TOKEN_KEY, &random).unwrap();
    let header = json!({"alg": "ES256", "kid": "key", "typ": "JWT"}).to_string();
    let end = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs()) + 3600;
    let claims = json!({"sub": subject, "aud": ["audience"], "exp": end}).to_string();
    let signed = format!("{}.{}", base64url(header.as_bytes()), base64url(claims.as_bytes()));
    let signature = key.sign(&random, signed.as_bytes()).unwrap();
    format!("{signed}.{}", base64url(signature.as_ref()))
}

fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let byte = |index: usize| group.get(index).map_or(0, |byte| usize::from(*byte));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        text.extend((0..=group.len()).map(|index| char::from(ALPHABET[bits >> (18 - 6 * index) & 63])));
    }
    text
}
