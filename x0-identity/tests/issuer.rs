//! Issuing to callers that keep their keys: requests, the two phases, registration entries and join tokens.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in its helpers as well")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::{Duration, SystemTime};

use common::{MINUTE, Recipe, connect, domain, root};
use pki_types::{CertificateDer, UnixTime};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SanType, SignatureAlgorithm, SigningKey,
};
use x0_identity::{
    CaSigner, CaSignerError, CaSignerOptions, CertificateRequest, CertificateRequestError, FinishError,
    Identity, IssueRequest, IssueRequestError, JoinTokenError, JoinTokens, MemoryRegistry, RegistrationEntry,
    RegistrationEntryError, Registry, RequestKey, Selector, SelectorError, SigningError, SpiffeId,
    TrustBundle, Verifier, X509Svid,
};

const HOUR: Duration = Duration::from_secs(3600);

struct Ca {
    params: CertificateParams,
    key: KeyPair,
    certificate: CertificateDer<'static>,
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.subject_alt_names = vec![SanType::URI("spiffe://example.org".try_into().unwrap())];
    params
}

impl Ca {
    fn root(algorithm: &'static SignatureAlgorithm) -> Ca {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let params = params("root");
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Ca { params, key, certificate }
    }

    fn below(&self, algorithm: &'static SignatureAlgorithm) -> Ca {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let params = params("intermediate");
        let issuer = Issuer::from_params(&self.params, &self.key);
        let certificate = params.signed_by(&key, &issuer).unwrap().der().clone();
        Ca { params, key, certificate }
    }

    fn signer(&self) -> CaSigner {
        CaSigner::new(self.certificate.clone(), Vec::new(), CaSignerOptions::default()).unwrap()
    }

    fn bundle(&self) -> TrustBundle {
        TrustBundle::new(domain("example.org"), vec![self.certificate.clone()]).unwrap()
    }
}

fn id() -> SpiffeId {
    SpiffeId::parse("spiffe://example.org/web").unwrap()
}

fn entry() -> RegistrationEntry {
    RegistrationEntry::new(id(), HOUR)
}

fn issue(ca: &Ca, signer: &CaSigner, entry: &RegistrationEntry) -> X509Svid {
    let key = RequestKey::generate().unwrap();
    let request = CertificateRequest::from_der(key.request()).unwrap();
    let request = IssueRequest::new(entry.spiffe_id().clone(), request, HOUR);
    let unsigned = signer.begin(entry, &request, SystemTime::now()).unwrap();
    let signature = ca.key.sign(unsigned.to_be_signed()).unwrap();
    key.into_svid(signer.finish(&unsigned, &signature).unwrap()).unwrap()
}

#[test]
fn every_algorithm_issues_and_peers_accept() {
    for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
        let root = Ca::root(algorithm);
        let svid = issue(&root, &root.signer(), &entry());
        assert_eq!(svid.chain().len(), 1);
        let intermediate = root.below(algorithm);
        let below = issue(&intermediate, &intermediate.signer(), &entry());
        assert_eq!(below.chain().len(), 2);
        assert_ne!(svid.serial_number(), below.serial_number());
        // The key belongs to the leaf, and both sides accept each other.
        let [one, two] = [svid, below].map(|svid| Identity::new(svid, root.bundle()).unwrap());
        connect(&one.client_config(), &two.server_config()).unwrap();
        connect(&two.client_config(), &one.server_config()).unwrap();
    }
}

#[test]
fn openssl_accepts_the_request_and_the_host_name() {
    let folder = tempfile::tempdir().unwrap();
    let openssl = |arguments: &[&str]| {
        let output = Command::new("openssl").args(arguments).current_dir(folder.path()).output().unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        )
    };
    if Command::new("openssl").arg("version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "openssl is not installed");
        return;
    }
    let key = RequestKey::generate().unwrap();
    fs::write(folder.path().join("request.der"), key.request()).unwrap();
    let (verified, text) = openssl(&["req", "-inform", "DER", "-in", "request.der", "-noout", "-verify"]);
    assert!(verified, "{text}");
    // Requests that OpenSSL makes are read; names and extensions in them are ignored.
    for (arguments, readable) in [
        (&["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-sha256"][..], true),
        (&["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-sha384"], true),
        (&["-newkey", "ed25519"], true),
        (&["-newkey", "rsa:2048", "-sha256"], true),
        (&["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-521", "-sha512"], false),
        (&["-newkey", "rsa:2048", "-sha1"], false),
    ] {
        let common: [&str; 12] = [
            "req",
            "-new",
            "-nodes",
            "-keyout",
            "key.pem",
            "-outform",
            "DER",
            "-out",
            "new.der",
            "-subj",
            "/CN=evil.example.org",
            "-addext",
        ];
        let (made, text) =
            openssl(&[&common[..], &["subjectAltName=DNS:evil.example.org"], arguments].concat());
        assert!(made, "{text}");
        let request = CertificateRequest::from_der(&fs::read(folder.path().join("new.der")).unwrap());
        assert_eq!(request.is_ok(), readable, "{arguments:?}: {request:?}");
        let Ok(request) = request else { continue };
        let root = Ca::root(&PKCS_ECDSA_P256_SHA256);
        let entry = entry().dns_name("web.example.org").unwrap();
        let unsigned =
            root.signer().begin(&entry, &IssueRequest::new(id(), request, HOUR), SystemTime::now()).unwrap();
        let signature = root.key.sign(unsigned.to_be_signed()).unwrap();
        let chain = root.signer().finish(&unsigned, &signature).unwrap();
        assert_eq!(Verifier::new(root.bundle()).verify_client(&chain[0], &[], UnixTime::now()), Ok(id()));
        let leaf = TrustBundlePem(&chain[0]).to_pem();
        fs::write(folder.path().join("leaf.pem"), leaf).unwrap();
        fs::write(folder.path().join("root.pem"), root.bundle().to_pem()).unwrap();
        let verify = |name: &str| {
            openssl(&[
                "verify",
                "-x509_strict",
                "-purpose",
                "sslserver",
                "-CAfile",
                "root.pem",
                "-verify_hostname",
                name,
                "leaf.pem",
            ])
        };
        let (verified, text) = verify("web.example.org");
        assert!(verified, "{text}");
        // The names that the requester put into the request are not in the certificate.
        assert!(!verify("evil.example.org").0);
    }
}

struct TrustBundlePem<'a>(&'a CertificateDer<'static>);

impl TrustBundlePem<'_> {
    fn to_pem(&self) -> String {
        let key = pki_types::PrivateKeyDer::Pkcs8(vec![0x30, 0].into());
        let pem = X509Svid::from_der(vec![self.0.clone()], key).unwrap().to_pem();
        pem[..pem.find("-----BEGIN PRIVATE").unwrap()].to_owned()
    }
}

#[test]
fn a_request_without_proof_is_refused() {
    let key = RequestKey::generate().unwrap();
    let request = key.request();
    assert!(CertificateRequest::from_der(request).is_ok());
    let last = request.len() - 1;
    let with = |position: usize, byte: u8| {
        let mut changed = request.to_vec();
        changed[position] ^= byte;
        CertificateRequest::from_der(&changed)
    };
    assert_eq!(with(last, 1), Err(CertificateRequestError::Signature));
    // Each byte of the request matters.
    for position in 0..request.len() {
        assert!(with(position, 1).is_err(), "{position}");
    }
    assert_eq!(CertificateRequest::from_der(&request[..last]), Err(CertificateRequestError::Malformed));
    assert_eq!(
        CertificateRequest::from_der(&[request, &[0]].concat()),
        Err(CertificateRequestError::Malformed)
    );
    let long = vec![0; x0_identity::CERTIFICATE_REQUEST_LEN_MAX + 1];
    assert_eq!(CertificateRequest::from_der(&long), Err(CertificateRequestError::Length { len: long.len() }));
}

#[test]
fn a_signature_of_another_key_issues_nothing() {
    let (root, other) = (Ca::root(&PKCS_ECDSA_P256_SHA256), Ca::root(&PKCS_ECDSA_P256_SHA256));
    let key = RequestKey::generate().unwrap();
    let request = IssueRequest::new(id(), CertificateRequest::from_der(key.request()).unwrap(), HOUR);
    let signer = root.signer();
    let unsigned = signer.begin(&entry(), &request, SystemTime::now()).unwrap();
    let signature = other.key.sign(unsigned.to_be_signed()).unwrap();
    assert_eq!(signer.finish(&unsigned, &signature), Err(FinishError::Signature));
    assert_eq!(signer.finish(&unsigned, &[]), Err(FinishError::Signature));
    let signature = root.key.sign(unsigned.to_be_signed()).unwrap();
    assert!(signer.finish(&unsigned, &signature).is_ok());
    // The check covers every signature, also after one that was right.
    assert_eq!(signer.finish(&unsigned, &[]), Err(FinishError::Signature));
}

/// A local key that is not that of the certificate issues nothing, even if the signer checks only once.
#[test]
fn the_first_signature_of_a_signer_is_checked_in_any_case() {
    let (root, other) = (Ca::root(&PKCS_ECDSA_P256_SHA256), Ca::root(&PKCS_ECDSA_P256_SHA256));
    let key = RequestKey::generate().unwrap();
    let request = IssueRequest::new(id(), CertificateRequest::from_der(key.request()).unwrap(), HOUR);
    let options = CaSignerOptions::default().check_every_signature(false);
    let signer = CaSigner::new(root.certificate.clone(), Vec::new(), options).unwrap();
    let unsigned = signer.begin(&entry(), &request, SystemTime::now()).unwrap();
    let wrong = other.key.sign(unsigned.to_be_signed()).unwrap();
    for _ in 0..2 {
        assert_eq!(signer.finish(&unsigned, &wrong), Err(FinishError::Signature));
    }
    let right = root.key.sign(unsigned.to_be_signed()).unwrap();
    let chain = signer.finish(&unsigned, &right).unwrap();
    // From here on the signer believes its key, in clones as well: only a peer finds a wrong signature.
    assert!(signer.clone().finish(&unsigned, &wrong).is_ok());
    assert_eq!(signer.finish(&unsigned, &right), Ok(chain));
}

#[test]
fn the_entry_and_the_authority_bound_what_is_issued() {
    let root = Ca::root(&PKCS_ECDSA_P256_SHA256);
    let signer = root.signer();
    assert_eq!(signer.trust_domain(), &domain("example.org"));
    let key = RequestKey::generate().unwrap();
    let request = CertificateRequest::from_der(key.request()).unwrap();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000);
    let validity = |entry: &RegistrationEntry, asked: Duration| {
        let request = IssueRequest::new(entry.spiffe_id().clone(), request.clone(), asked);
        let unsigned = signer.begin(entry, &request, now)?;
        let signature = root.key.sign(unsigned.to_be_signed()).unwrap();
        let chain = signer.finish(&unsigned, &signature).unwrap();
        let svid = X509Svid::from_der(chain, pki_types::PrivateKeyDer::Pkcs8(vec![0x30, 0].into())).unwrap();
        Ok::<_, IssueRequestError>((svid.not_before(), svid.not_after()))
    };
    assert_eq!(validity(&entry(), MINUTE), Ok((now - MINUTE, now + MINUTE)));
    assert_eq!(validity(&entry(), 9 * HOUR), Ok((now - MINUTE, now + HOUR)));
    let admitted = entry().admit_until(now + MINUTE);
    assert_eq!(validity(&admitted, HOUR), Ok((now - MINUTE, now + MINUTE)));
    assert_eq!(
        validity(&entry().admit_until(now - MINUTE), HOUR),
        Err(IssueRequestError::Admitted { spiffe_id: id() })
    );
    let foreign = SpiffeId::parse("spiffe://example.com/web").unwrap();
    assert!(matches!(
        validity(&RegistrationEntry::new(foreign, HOUR), HOUR),
        Err(IssueRequestError::TrustDomain { .. })
    ));
    let pathless = SpiffeId::parse("spiffe://example.org").unwrap();
    assert_eq!(validity(&RegistrationEntry::new(pathless, HOUR), HOUR), Err(IssueRequestError::RootPath));
    let other = SpiffeId::parse("spiffe://example.org/other").unwrap();
    let asked = IssueRequest::new(other.clone(), request.clone(), HOUR);
    assert_eq!(signer.begin(&entry(), &asked, now), Err(IssueRequestError::Entry { requested: other }));
    // rcgen's default ends in the year 4096.
    let late = signer.not_after() + MINUTE;
    let asked = IssueRequest::new(id(), request, HOUR);
    assert_eq!(signer.begin(&entry(), &asked, late), Err(IssueRequestError::Authority));
    assert!(signer.begin(&entry(), &asked, signer.not_after()).is_ok());
    assert_eq!(
        signer.begin(&entry(), &asked, SystemTime::UNIX_EPOCH - MINUTE),
        Err(IssueRequestError::Validity)
    );
}

/// A leaf presents the intermediate and its issuers, so that it outlives none of them.
#[test]
fn a_leaf_does_not_outlive_what_it_presents() {
    let root = root();
    let upper = Recipe::signer("spiffe://example.org", "upper").with(|upper| upper.valid = (-30, 600));
    let upper = upper.signed_by(&root);
    let lower = Recipe::signer("spiffe://example.org", "lower").signed_by(&upper);
    let take = |certificate: &CertificateDer<'static>, upstream: &CertificateDer<'static>| {
        CaSigner::new(certificate.clone(), vec![upstream.clone()], CaSignerOptions::default()).unwrap()
    };
    let signer = take(&lower.certificate, &upper.certificate);
    let key = RequestKey::generate().unwrap();
    let request = CertificateRequest::from_der(key.request()).unwrap();
    let request = IssueRequest::new(id(), request, HOUR);
    let now = SystemTime::now();
    let unsigned = signer.begin(&entry(), &request, now).unwrap();
    let svid =
        key.into_svid(signer.finish(&unsigned, &lower.key.sign(unsigned.to_be_signed()).unwrap()).unwrap());
    let svid = svid.unwrap();
    assert_eq!(svid.not_after(), signer.not_after());
    assert!(svid.not_after() <= now + 10 * MINUTE);
    assert!(svid.not_before() > now - MINUTE);
    assert_eq!(svid.chain().len(), 3);
    let later = signer.not_after() + MINUTE;
    assert_eq!(signer.begin(&entry(), &request, later), Err(IssueRequestError::Authority));
    // A root is not presented with its upstream, which does not bound what it issues.
    let signer = take(&root.certificate, &upper.certificate);
    assert!(signer.begin(&entry(), &request, later).is_ok());
}

#[test]
fn certificates_that_cannot_sign_are_no_signers() {
    let take = |certificate: CertificateDer<'static>, upstream| {
        CaSigner::new(certificate, upstream, CaSignerOptions::default().backdate(Duration::ZERO)).map(drop)
    };
    let leaf = Recipe::leaf("spiffe://example.org/a").self_signed().certificate;
    assert_eq!(take(leaf.clone(), vec![]), Err(CaSignerError::Signing(SigningError::NotAuthority)));
    let nameless =
        Recipe::signer("", "nameless").with(|signer| signer.names.clear()).self_signed().certificate;
    assert_eq!(take(nameless, vec![]), Err(CaSignerError::NoSpiffeId));
    let root = Ca::root(&PKCS_ECDSA_P256_SHA256).certificate;
    let error = CaSignerError::Upstream { position: 0, source: SigningError::NotAuthority };
    assert_eq!(take(root, vec![leaf]), Err(error));
}

#[test]
fn dns_names_are_host_names() {
    for name in ["a", "web.example.org", "xn--bcher-kva.example", "1.2.3.4", &"a".repeat(63)] {
        assert!(entry().dns_name(name).is_ok(), "{name}");
    }
    let long = format!("{}.a", vec!["a".repeat(63); 4].join("."));
    for name in [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "-a",
        "a-",
        "A",
        "a_b",
        "*.a",
        "a b",
        "a\0",
        "é",
        &"a".repeat(64),
        &long,
    ] {
        assert_eq!(entry().dns_name(name), Err(RegistrationEntryError::DnsName), "{name}");
    }
    let full = (0..64).fold(entry(), |entry, number| entry.dns_name(&format!("a{number}")).unwrap());
    assert_eq!(full.dns_names().len(), 64);
    assert_eq!(full.dns_name("b"), Err(RegistrationEntryError::DnsNames));
}

#[test]
fn a_workload_matches_entries_whose_selectors_it_has() {
    let selector = |text: &str| Selector::parse(text).unwrap();
    let now = SystemTime::UNIX_EPOCH + HOUR;
    let mut registry = MemoryRegistry::new();
    let named = |path: &str| SpiffeId::parse(&format!("spiffe://example.org/{path}")).unwrap();
    let web = RegistrationEntry::new(named("web"), HOUR)
        .selector(selector("unix:uid:1000"))
        .selector(selector("unix:gid:7"));
    let node = RegistrationEntry::new(named("node"), HOUR).selector(selector("join_token:rack-7"));
    let past = RegistrationEntry::new(named("past"), HOUR).admit_until(now - MINUTE);
    for entry in [web.clone(), node.clone(), past] {
        assert_eq!(registry.insert(entry), None);
    }
    assert_eq!(registry.iter().count(), 3);
    let matching = |selectors: &[&str]| {
        let selectors: BTreeSet<Selector> = selectors.iter().map(|text| selector(text)).collect();
        registry.matching(&selectors, now)
    };
    assert_eq!(matching(&[]), []);
    assert_eq!(matching(&["unix:uid:1000"]), []);
    assert_eq!(matching(&["unix:uid:1000", "unix:gid:7", "unix:path:/bin/a"]), [web]);
    assert_eq!(matching(&["join_token:rack-7"]), [node]);
    assert_eq!(matching(&["join_token:rack-8"]), []);
    assert!(registry.remove(&named("web")).is_some());
    assert_eq!(registry.iter().count(), 2);
    for text in ["", "a", ":a", "a:", ":"] {
        assert_eq!(Selector::parse(text), Err(SelectorError::Form));
    }
    assert_eq!(Selector::parse(&"a:".repeat(257)), Err(SelectorError::Length { len: 514 }));
}

#[test]
fn a_join_token_admits_once() {
    let now = SystemTime::UNIX_EPOCH + HOUR;
    let mut tokens = JoinTokens::new();
    let token = tokens.issue("rack-7", now + MINUTE).unwrap();
    let expiring = tokens.issue("rack-8", now + MINUTE).unwrap();
    assert_eq!(token.len(), 43);
    assert_eq!(tokens.attest("guess", now), Err(JoinTokenError::Unknown));
    assert_eq!(tokens.attest(&token, now).unwrap().to_string(), "join_token:rack-7");
    assert_eq!(tokens.attest(&token, now), Err(JoinTokenError::Unknown));
    assert_eq!(tokens.attest(&expiring, now + MINUTE), Err(JoinTokenError::Expired));
    assert_eq!(tokens.attest(&expiring, now), Err(JoinTokenError::Unknown));
    assert!(tokens.is_empty());
    tokens.issue("a", now).unwrap();
    tokens.issue("b", now + MINUTE).unwrap();
    tokens.remove_expired(now);
    assert_eq!(tokens.len(), 1);
    assert!(matches!(tokens.issue("", now), Err(JoinTokenError::Name(SelectorError::Form))));
    let shown = format!("{tokens:?} {:?}", RequestKey::generate().unwrap());
    assert_eq!(shown, "JoinTokens { len: 1, .. } RequestKey { .. }");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, rng_seed: RngSeed::Fixed(0x5eed), ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_no_request(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        prop_assert!(CertificateRequest::from_der(&bytes).is_err());
    }
}
