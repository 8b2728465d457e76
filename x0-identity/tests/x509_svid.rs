//! One test for each MUST of X509-SVID.md, and for what Trust Domain and Bundle says of an empty bundle.
//!
//! | MUST | Section | Rule | Test |
//! |---|---|---|---|
//! | X509 1 | 2 | an SVID MUST contain exactly one URI SAN | `x509_svid_2_exactly_one_uri` |
//! | X509 2 | 2 | more than one URI SAN MUST be rejected | `x509_svid_2_more_than_one_uri_is_rejected` |
//! | X509 – | 2 | MAY contain other SAN types | `x509_svid_2_other_names_are_allowed` |
//! | X509 3 | 3.1 | a leaf's SPIFFE ID MUST have a non-root path | `x509_svid_3_1_leaf_has_a_path` |
//! | X509 4 | 3.1 | the SAN MUST be critical if Subject is omitted | `x509_svid_3_1_names_critical_without_subject` |
//! | X509 5 | 3.2 | a signer's SPIFFE ID MUST NOT have a path | `x509_svid_3_2_signer_has_no_path` |
//! | X509 6 | 3.2 | signing certificates MUST NOT be used for authentication | `x509_svid_3_2_signer_does_not_authenticate` |
//! | X509 7 | 4.1 | signing certificates MUST set `cA` to true | `x509_svid_4_1_signer_is_an_authority` |
//! | X509 8 | 4.1 | leaf certificates MUST set `cA` to false | `x509_svid_4_1_leaf_is_no_authority` |
//! | X509 – | 4.1 | MAY set `pathLenConstraint` | `x509_svid_4_1_path_len_is_kept` |
//! | X509 9 | 4.2 | SPIFFE IDs MUST be located within name constraints | `x509_svid_4_2_name_constraints` |
//! | X509 10 | 4.3 | key usage MUST be set on all SVIDs | `x509_svid_4_3_key_usage_is_set` |
//! | X509 11 | 4.3 | key usage MUST be critical | `x509_svid_4_3_key_usage_is_critical` |
//! | X509 12 | 4.3 | signing certificates MUST set `keyCertSign` | `x509_svid_4_3_signer_has_key_cert_sign` |
//! | X509 13 | 4.3 | leaves MUST set `digitalSignature` | `x509_svid_4_3_leaf_has_digital_signature` |
//! | X509 – | 4.3 | leaves MAY set `keyEncipherment`, `keyAgreement` | `x509_svid_4_3_leaf_may_have_key_encipherment` |
//! | X509 14 | 4.3 | leaves MUST NOT set `keyCertSign` or `cRLSign` | `x509_svid_4_3_leaf_has_no_key_cert_sign`, `x509_svid_4_3_leaf_has_no_crl_sign` |
//! | X509 15 | 4.4 | EKU MUST set `id-kp-serverAuth` and `id-kp-clientAuth` | `x509_svid_4_4_extended_key_usage_server`, `x509_svid_4_4_extended_key_usage_client` |
//! | X509 16 | 5.1 | path validation MUST follow RFC 5280 | `x509_svid_5_1_*`, `tests/path.rs` |
//! | X509 17 | 5.2 | validator MUST ensure `cA`, `keyCertSign` and `cRLSign` are not set | same as X509 8 and 14, by handshake |
//! | X509 18 | 5.2 | validator MUST ensure the scheme is `spiffe` | `x509_svid_5_2_scheme_is_spiffe` |
//! | X509 19 | 5.2 | validator MUST ensure a non-root path | same as X509 3, by handshake |
//! | X509 20 | 5.2 | more than one URI SAN MUST be rejected | same as X509 2, by handshake |
//! | TDB – | 3 | the bundle of the SVID's trust domain is chosen | `trust_domain_and_bundle_3_other_domain_same_key` |
//! | TDB – | 4.1.3 | an empty bundle makes all SVIDs untrusted, by handshake | `trust_domain_and_bundle_4_1_3_empty_bundle` |
//!
//! `tests/bundle.rs` has the rules of sections 6.1 and 6.2.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in its helpers as well")]

mod common;

use common::{
    ANY_USAGE, CLIENT_AUTH, CRL_SIGN, DIGITAL_SIGNATURE, DNS, Issued, KEY_AGREEMENT, KEY_CERT_SIGN,
    KEY_ENCIPHERMENT, Recipe, SERVER_AUTH, URI, cause, connect, domain, presenting, root, tlv,
};
use pki_types::{CertificateDer, UnixTime};
use rustls::client::danger::ServerCertVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, ServerConfig};
use std::sync::Arc;
use x0_identity::CertificateAt::{Bundle, Chain};
use x0_identity::{
    BundleError, EncodingError, Identity, LeafError, ParseSpiffeIdError, ParseTrustDomainError, PathError,
    SigningError, SpiffeId, SvidError, TrustBundle, Verifier, VerifyError, X509Svid, spiffe_id_of,
    spiffe_id_of_signer,
};

const ID: &str = "spiffe://example.org/workload";

fn leaf() -> Recipe {
    Recipe::leaf(ID)
}

/// The result of the verifier called directly, and of handshakes.
type Judgements = (Vec<Result<SpiffeId, VerifyError>>, Vec<Result<SpiffeId, rustls::Error>>);

/// Each way a chain can come before the verifier, as client and as server: directly, and in a handshake with
/// an honest peer whose configuration is an `Identity`'s.
fn verify_everywhere(leaf: &Issued, signers: &[&Issued], bundle: &TrustBundle) -> Judgements {
    let chain = leaf.chain(signers);
    let now = UnixTime::now();
    let verifier = Verifier::new(bundle.clone());
    let direct = vec![
        verifier.verify_client(&chain[0], &chain[1..], now),
        verifier.verify_server(&chain[0], &chain[1..], now),
    ];

    let honest_root = root();
    let honest = Recipe::leaf("spiffe://example.org/honest").signed_by(&honest_root);
    let identity = Identity::new(honest.svid(&[]), honest_root.bundle()).unwrap();
    identity.set_bundle(bundle.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let trusting = Verifier::new(honest_root.bundle());
    let presented = presenting(chain, &leaf.key_der());

    let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(trusting.clone()))
        .with_client_cert_resolver(presented.clone());
    let server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_client_cert_verifier(Arc::new(trusting))
        .with_cert_resolver(presented);
    let handshakes = [
        connect(&Arc::new(client), &identity.server_config())
            .map(|(_, server)| server.peer_certificates().unwrap()[0].clone()),
        connect(&identity.client_config(), &Arc::new(server))
            .map(|(client, _)| client.peer_certificates().unwrap()[0].clone()),
    ];
    let named = |certificate: CertificateDer<'_>| spiffe_id_of(&certificate).unwrap();
    (direct, handshakes.into_iter().map(|connected| connected.map(named)).collect())
}

fn accepted(leaf: &Issued, signers: &[&Issued], bundle: &TrustBundle) {
    let (direct, handshakes) = verify_everywhere(leaf, signers, bundle);
    for result in direct {
        assert_eq!(result, Ok(SpiffeId::parse(ID).unwrap()));
    }
    for result in handshakes {
        assert_eq!(result, Ok(SpiffeId::parse(ID).unwrap()));
    }
}

/// Refused in every way, with an error that the closure accepts. A handshake carries that error, or has an
/// alert for it.
#[track_caller]
fn refused_with(
    leaf: &Issued,
    signers: &[&Issued],
    bundle: &TrustBundle,
    expected: impl Fn(&VerifyError) -> bool,
) {
    let (direct, handshakes) = verify_everywhere(leaf, signers, bundle);
    for result in &direct {
        let error = result.as_ref().unwrap_err();
        assert!(expected(error), "{error:?}");
    }
    for result in handshakes {
        let error = result.unwrap_err();
        match cause::<VerifyError>(&error) {
            Some(error) => assert!(expected(&error), "{error:?}"),
            None => assert_eq!(
                std::mem::discriminant(&reason(&error)),
                std::mem::discriminant(&reason(&direct[0].clone().unwrap_err().into())),
                "{error}"
            ),
        }
    }
}

fn reason(error: &rustls::Error) -> CertificateError {
    match error {
        rustls::Error::InvalidCertificate(reason) => reason.clone(),
        error => panic!("{error}"),
    }
}

#[track_caller]
fn refused(leaf: &Issued, signers: &[&Issued], bundle: &TrustBundle, error: &VerifyError) {
    refused_with(leaf, signers, bundle, |refusal| refusal == error);
}

#[track_caller]
fn path_refused(leaf: &Issued, signers: &[&Issued], bundle: &TrustBundle, error: PathError) {
    refused(leaf, signers, bundle, &VerifyError::Path(error));
}

/// A leaf with a valid signature that every reader refuses.
#[track_caller]
fn leaf_refused(recipe: &Recipe, error: LeafError) {
    let root = root();
    let leaf = recipe.signed_by(&root);
    assert_eq!(spiffe_id_of(&leaf.certificate), Err(error));
    assert_eq!(X509Svid::from_der(leaf.chain(&[]), leaf.key_der()).unwrap_err(), SvidError::Leaf(error));
    refused(&leaf, &[], &root.bundle(), &VerifyError::Leaf(error));
}

fn leaf_accepted(recipe: &Recipe) {
    let root = root();
    let leaf = recipe.signed_by(&root);
    assert_eq!(leaf.svid(&[]).spiffe_id(), &SpiffeId::parse(ID).unwrap());
    accepted(&leaf, &[], &root.bundle());
}

/// A signer that every bundle refuses, and that is refused as an intermediate.
#[track_caller]
fn signer_refused(recipe: &Recipe, error: SigningError) {
    let root = root();
    let signer = recipe.signed_by(&root);
    assert_eq!(spiffe_id_of_signer(&signer.certificate), Err(error));
    let bundle =
        TrustBundle::new(domain("example.org"), vec![root.certificate.clone(), signer.certificate.clone()]);
    assert_eq!(bundle, Err(BundleError::Authority { position: 1, source: error }));
    let leaf = leaf().signed_by(&signer);
    assert_eq!(
        X509Svid::from_der(leaf.chain(&[&signer]), leaf.key_der()).unwrap_err(),
        SvidError::Signer { position: 1, source: error }
    );
    path_refused(&leaf, &[&signer], &root.bundle(), PathError::Signer { at: Chain(1), source: error });
}

fn intermediate() -> Recipe {
    Recipe::signer("spiffe://example.org", "intermediate")
}

/// The leaf or its signer, as the error says it.
const UNKNOWN: PathError = PathError::UnknownIssuer { position: 0 };

#[test]
fn certificates_that_keep_every_rule_are_accepted() {
    leaf_accepted(&leaf());
    let root = root();
    let signer = intermediate().signed_by(&root);
    let inner = Recipe::signer("spiffe://example.org", "inner").signed_by(&signer);
    accepted(&leaf().signed_by(&signer), &[&signer], &root.bundle());
    accepted(&leaf().signed_by(&inner), &[&inner, &signer], &root.bundle());
}

#[test]
fn x509_svid_2_exactly_one_uri() {
    leaf_refused(&leaf().with(|leaf| leaf.names.clear()), LeafError::UriCount { count: 0 });
    leaf_refused(
        &leaf().with(|leaf| leaf.names = vec![(DNS, b"example.org".to_vec())]),
        LeafError::UriCount { count: 0 },
    );
    leaf_refused(&leaf().with(|leaf| leaf.names = vec![(URI, vec![0xff, 0xfe])]), LeafError::UriNotText);
    leaf_refused(
        &leaf().with(|leaf| leaf.names = vec![(URI, Vec::new())]),
        LeafError::SpiffeId(ParseSpiffeIdError::Scheme),
    );
}

#[test]
fn x509_svid_2_more_than_one_uri_is_rejected() {
    for second in [
        ID.as_bytes().to_vec(),
        b"spiffe://example.org/other".to_vec(),
        b"https://example.org".to_vec(),
        // No text: webpki passes it over in `valid_uri_names`.
        vec![0xff, 0xfe],
        b"spiffe://example.org/\xff".to_vec(),
        Vec::new(),
    ] {
        let second = (URI, second);
        leaf_refused(&leaf().with(|leaf| leaf.names.push(second.clone())), LeafError::UriCount { count: 2 });
        leaf_refused(&leaf().with(|leaf| leaf.names.insert(0, second)), LeafError::UriCount { count: 2 });
    }
    leaf_refused(
        &leaf().with(|leaf| leaf.names = vec![leaf.names[0].clone(); 5]),
        LeafError::UriCount { count: 5 },
    );
    // The same tag in its long form, and as a constructed value: no DER, but some reader may take it.
    let long_form = |leaf: &mut Recipe| leaf.names.push((0x9f, vec![]));
    let mut certificate = leaf().with(long_form).signed_by(&root()).certificate.to_vec();
    let end = certificate.windows(2).rposition(|window| window == [0x9f, 0]).unwrap();
    certificate[end + 1] = 0x06;
    assert!(spiffe_id_of(&certificate.into()).is_err());
    leaf_refused(
        &leaf().with(|leaf| leaf.names.push((URI | 0x20, vec![]))),
        LeafError::Encoding(EncodingError::Extension { extension: "SubjectAltName" }),
    );

    signer_refused(
        &intermediate().with(|signer| signer.names.push(signer.names[0].clone())),
        SigningError::UriCount { count: 2 },
    );
}

#[test]
fn x509_svid_2_other_names_are_allowed() {
    leaf_accepted(&leaf().with(|leaf| {
        leaf.names.insert(0, (DNS, b"host.example.org".to_vec()));
        leaf.names.push((DNS, b"*.example.org".to_vec()));
        leaf.names.push((0x87, vec![127, 0, 0, 1]));
        leaf.names.push((0x81, b"someone@example.org".to_vec()));
    }));
}

#[test]
fn x509_svid_3_1_leaf_has_a_path() {
    leaf_refused(&Recipe::leaf("spiffe://example.org"), LeafError::RootPath);
    leaf_refused(
        &Recipe::leaf("spiffe://example.org/"),
        LeafError::SpiffeId(ParseSpiffeIdError::TrailingSlash),
    );
}

#[test]
fn x509_svid_3_1_names_critical_without_subject() {
    leaf_refused(&leaf().with(|leaf| leaf.names_critical = false), LeafError::AlternativeNameNotCritical);
    leaf_accepted(&leaf().with(|leaf| {
        leaf.names_critical = false;
        leaf.subject = Some("workload".into());
    }));
    leaf_accepted(&leaf().with(|leaf| leaf.subject = Some("workload".into())));
}

#[test]
fn x509_svid_3_2_signer_has_no_path() {
    let recipe = |uri| Recipe::signer(uri, "intermediate");
    signer_refused(&recipe("spiffe://example.org/authority"), SigningError::Path);
    signer_refused(
        &recipe("spiffe://example.org/"),
        SigningError::SpiffeId(ParseSpiffeIdError::TrailingSlash),
    );
    // A signing certificate SHOULD, not MUST, be an SVID, and of the trust domain that it signs for.
    let root = root();
    for signer in [recipe("spiffe://example.com"), intermediate().with(|signer| signer.names.clear())] {
        let signer = signer.signed_by(&root);
        accepted(&leaf().signed_by(&signer), &[&signer], &root.bundle());
    }
}

#[test]
fn x509_svid_3_2_signer_does_not_authenticate() {
    let root = root();
    let signer = intermediate().signed_by(&root);
    refused(&signer, &[], &root.bundle(), &VerifyError::Leaf(LeafError::Authority));
    refused(&root, &[], &root.bundle(), &VerifyError::Leaf(LeafError::Authority));
}

#[test]
fn x509_svid_4_1_signer_is_an_authority() {
    for authority in [Some(false), None] {
        let recipe = intermediate().with(|signer| signer.authority = authority);
        let root = root();
        let signer = recipe.signed_by(&root);
        assert_eq!(spiffe_id_of_signer(&signer.certificate), Err(SigningError::NotAuthority));
        assert!(TrustBundle::new(domain("example.org"), vec![signer.certificate.clone()]).is_err());
        path_refused(
            &leaf().signed_by(&signer),
            &[&signer],
            &root.bundle(),
            PathError::Signer { at: Chain(1), source: SigningError::NotAuthority },
        );
    }
}

#[test]
fn x509_svid_4_1_leaf_is_no_authority() {
    leaf_refused(&leaf().with(|leaf| leaf.authority = Some(true)), LeafError::Authority);
    // FALSE is the default of cA, and DER writes no defaults.
    leaf_accepted(&leaf().with(|leaf| leaf.authority = None));
}

#[test]
fn x509_svid_4_1_path_len_is_kept() {
    let root =
        Recipe::signer("spiffe://example.org", "root").with(|root| root.path_len = Some(0)).self_signed();
    accepted(&leaf().signed_by(&root), &[], &root.bundle());
    let trusted = common::root();
    let signer = intermediate().with(|signer| signer.path_len = Some(0)).signed_by(&trusted);
    accepted(&leaf().signed_by(&signer), &[&signer], &trusted.bundle());
    let inner = Recipe::signer("spiffe://example.org", "inner").signed_by(&signer);
    path_refused(
        &leaf().signed_by(&inner),
        &[&inner, &signer],
        &trusted.bundle(),
        PathError::PathLen { at: Chain(1), signer: Chain(2) },
    );
    // A self-issued certificate does not count (RFC 5280 §6.1.4 (l)).
    let again = intermediate().signed_by(&signer);
    accepted(&leaf().signed_by(&again), &[&again, &signer], &trusted.bundle());
}

/// Gap 1 of webpki: it keeps no path length of an anchor.
#[test]
fn x509_svid_4_1_path_len_of_an_authority_is_kept() {
    let root =
        Recipe::signer("spiffe://example.org", "root").with(|root| root.path_len = Some(0)).self_signed();
    let signer = intermediate().signed_by(&root);
    path_refused(
        &leaf_of(&signer),
        &[&signer],
        &root.bundle(),
        PathError::PathLen { at: Chain(1), signer: Bundle(0) },
    );
    let root =
        Recipe::signer("spiffe://example.org", "root").with(|root| root.path_len = Some(1)).self_signed();
    let signer = intermediate().signed_by(&root);
    accepted(&leaf_of(&signer), &[&signer], &root.bundle());
}

/// Gap 3 of webpki: it refuses every chain under constraints on URIs. RFC 5280 §4.2.1.10 applies them to the
/// host.
#[test]
fn x509_svid_4_2_name_constraints() {
    let constrained = |host: &str| {
        let subtree = tlv(0x30, &tlv(URI, host.as_bytes()));
        let constraints = tlv(0x30, &tlv(0xa0, &subtree));
        move |signer: &mut Recipe| signer.more.push((vec![2, 5, 29, 30], constraints, true))
    };
    for (host, permitted) in [
        ("example.com", false),
        ("example.org", true),
        ("Example.ORG", true),
        (".example.org", false),
        ("org", false),
    ] {
        let root = root();
        let signer = intermediate().with(constrained(host)).signed_by(&root);
        let constrained_root =
            Recipe::signer("spiffe://example.org", "root").with(constrained(host)).self_signed();
        if permitted {
            accepted(&leaf_of(&signer), &[&signer], &root.bundle());
            accepted(&leaf_of(&constrained_root), &[], &constrained_root.bundle());
        } else {
            let error = |signer| PathError::NameConstraints { at: Chain(0), signer };
            path_refused(&leaf_of(&signer), &[&signer], &root.bundle(), error(Chain(1)));
            path_refused(&leaf_of(&constrained_root), &[], &constrained_root.bundle(), error(Bundle(0)));
        }
    }
    // Constraints on other names do not concern SPIFFE IDs.
    let constraints = tlv(0x30, &tlv(0xa0, &tlv(0x30, &tlv(DNS, b"example.com"))));
    let root = root();
    let signer = intermediate()
        .with(|signer| signer.more.push((vec![2, 5, 29, 30], constraints, true)))
        .signed_by(&root);
    accepted(&leaf().signed_by(&signer), &[&signer], &root.bundle());
}

#[test]
fn x509_svid_4_3_key_usage_is_set() {
    leaf_refused(&leaf().with(|leaf| leaf.key_usage = None), LeafError::KeyUsageMissing);
    signer_refused(&intermediate().with(|signer| signer.key_usage = None), SigningError::KeyUsageMissing);
}

#[test]
fn x509_svid_4_3_key_usage_is_critical() {
    leaf_refused(
        &leaf().with(|leaf| leaf.key_usage = Some((DIGITAL_SIGNATURE, false))),
        LeafError::KeyUsageNotCritical,
    );
    let recipe = intermediate().with(|signer| signer.key_usage = Some((KEY_CERT_SIGN, false)));
    signer_refused(&recipe, SigningError::KeyUsageNotCritical);
    // A rule for SVIDs: an authority without a SPIFFE ID is none.
    let root = root();
    let signer = recipe.with(|signer| signer.names.clear()).signed_by(&root);
    accepted(&leaf().signed_by(&signer), &[&signer], &root.bundle());
}

#[test]
fn x509_svid_4_3_signer_has_key_cert_sign() {
    for usage in [CRL_SIGN, DIGITAL_SIGNATURE, DIGITAL_SIGNATURE | CRL_SIGN, 0] {
        signer_refused(
            &intermediate().with(|signer| signer.key_usage = Some((usage, true))),
            SigningError::KeyUsageCertSign,
        );
    }
    // MAY set cRLSign.
    let root = root();
    let signer = intermediate()
        .with(|signer| signer.key_usage = Some((KEY_CERT_SIGN | CRL_SIGN, true)))
        .signed_by(&root);
    accepted(&leaf().signed_by(&signer), &[&signer], &root.bundle());
}

#[test]
fn x509_svid_4_3_leaf_has_digital_signature() {
    for usage in [KEY_ENCIPHERMENT, KEY_AGREEMENT, 0] {
        leaf_refused(
            &leaf().with(|leaf| leaf.key_usage = Some((usage, true))),
            LeafError::KeyUsageDigitalSignature,
        );
    }
}

#[test]
fn x509_svid_4_3_leaf_may_have_key_encipherment() {
    leaf_accepted(&leaf().with(|leaf| {
        leaf.key_usage = Some((DIGITAL_SIGNATURE | KEY_ENCIPHERMENT | KEY_AGREEMENT, true));
    }));
}

#[test]
fn x509_svid_4_3_leaf_has_no_key_cert_sign() {
    leaf_refused(
        &leaf().with(|leaf| leaf.key_usage = Some((DIGITAL_SIGNATURE | KEY_CERT_SIGN, true))),
        LeafError::KeyUsageCertSign,
    );
}

#[test]
fn x509_svid_4_3_leaf_has_no_crl_sign() {
    leaf_refused(
        &leaf().with(|leaf| leaf.key_usage = Some((DIGITAL_SIGNATURE | CRL_SIGN, true))),
        LeafError::KeyUsageCrlSign,
    );
}

#[test]
fn x509_svid_4_4_extended_key_usage_server() {
    for usages in [vec![CLIENT_AUTH], vec![CLIENT_AUTH, ANY_USAGE], vec![ANY_USAGE]] {
        leaf_refused(
            &leaf().with(|leaf| leaf.extended_key_usage = Some(usages)),
            LeafError::ExtendedKeyUsageServer,
        );
    }
}

#[test]
fn x509_svid_4_4_extended_key_usage_client() {
    for usages in [vec![SERVER_AUTH], vec![SERVER_AUTH, ANY_USAGE]] {
        leaf_refused(
            &leaf().with(|leaf| leaf.extended_key_usage = Some(usages)),
            LeafError::ExtendedKeyUsageClient,
        );
    }
    // SHOULD include it: without, it is an SVID all the same.
    leaf_accepted(&leaf().with(|leaf| leaf.extended_key_usage = None));
    leaf_accepted(
        &leaf().with(|leaf| leaf.extended_key_usage = Some(vec![CLIENT_AUTH, ANY_USAGE, SERVER_AUTH])),
    );
}

#[test]
fn x509_svid_5_1_leaf_outside_its_validity() {
    let root = root();
    for valid in [(-7200, -3600), (3600, 7200)] {
        let expected = |position| {
            move |error: &VerifyError| match error {
                VerifyError::Path(PathError::Expired { at, .. }) => valid.1 < 0 && *at == Chain(position),
                VerifyError::Path(PathError::NotYetValid { at, .. }) => valid.0 > 0 && *at == Chain(position),
                _ => false,
            }
        };
        let leaf = leaf().with(|leaf| leaf.valid = valid).signed_by(&root);
        refused_with(&leaf, &[], &root.bundle(), expected(0));
        let signer = intermediate().with(|signer| signer.valid = valid).signed_by(&root);
        refused_with(&leaf_of(&signer), &[&signer], &root.bundle(), expected(1));
    }
}

fn leaf_of(signer: &Issued) -> Issued {
    leaf().signed_by(signer)
}

#[test]
fn x509_svid_5_1_authority_outside_its_validity() {
    let authority_outside = |error: &VerifyError| {
        matches!(
            error,
            VerifyError::Path(
                PathError::Expired { at: Bundle(0), .. } | PathError::NotYetValid { at: Bundle(0), .. }
            )
        )
    };
    for valid in [(-7200, -3600), (3600, 7200)] {
        let root =
            Recipe::signer("spiffe://example.org", "root").with(|root| root.valid = valid).self_signed();
        refused_with(&leaf_of(&root), &[], &root.bundle(), authority_outside);
    }
    // Beside one that is valid it does no harm.
    let old =
        Recipe::signer("spiffe://example.org", "old").with(|root| root.valid = (-7200, -3600)).self_signed();
    let new = root();
    let mut bundle = old.bundle();
    bundle.extend(&new.bundle()).unwrap();
    accepted(&leaf_of(&new), &[], &bundle);
    refused_with(&leaf_of(&old), &[], &bundle, authority_outside);
}

#[test]
fn x509_svid_5_1_unknown_issuer() {
    let (root, stranger) = (root(), Recipe::signer("spiffe://example.org", "stranger").self_signed());
    path_refused(&leaf_of(&stranger), &[], &root.bundle(), UNKNOWN);
    // To present the stranger's certificate as well changes nothing.
    let unknown = PathError::UnknownIssuer { position: 1 };
    path_refused(&leaf_of(&stranger), &[&stranger], &root.bundle(), unknown);
    // Nor does a missing link.
    let signer = intermediate().signed_by(&root);
    path_refused(&leaf_of(&signer), &[], &root.bundle(), UNKNOWN);
    // A leaf that vouches for itself.
    let alone = leaf().self_signed();
    path_refused(&alone, &[], &root.bundle(), UNKNOWN);
}

#[test]
fn x509_svid_5_1_signature_of_another_key() {
    // This authority has the name of the root, but not its key.
    let (root, impostor) = (root(), root());
    path_refused(
        &leaf_of(&impostor),
        &[],
        &root.bundle(),
        PathError::Signature { at: Chain(0), issuer: Bundle(0) },
    );
}

#[test]
fn x509_svid_5_1_leaf_does_not_sign() {
    let root = root();
    let signer =
        Recipe::leaf("spiffe://example.org/signer").with(|leaf| leaf.subject = Some("signer".into()));
    let signer = signer.signed_by(&root);
    path_refused(
        &leaf_of(&signer),
        &[&signer],
        &root.bundle(),
        PathError::Signer { at: Chain(1), source: SigningError::NotAuthority },
    );
}

#[test]
fn x509_svid_5_1_unknown_critical_extension() {
    let root = root();
    let unknown = |critical| {
        move |leaf: &mut Recipe| leaf.more.push((vec![1, 3, 6, 1, 4, 1, 99999], vec![5, 0], critical))
    };
    path_refused(
        &leaf().with(unknown(true)).signed_by(&root),
        &[],
        &root.bundle(),
        PathError::CriticalExtension { at: Chain(0), oid: "1.3.6.1.4.1.99999".into() },
    );
    accepted(&leaf().with(unknown(false)).signed_by(&root), &[], &root.bundle());
}

#[test]
fn x509_svid_5_1_duplicate_extension() {
    // RFC 5280 §4.2. Two key usages of which one reader takes the first and another the second.
    for content in [tlv(0x03, &[7, DIGITAL_SIGNATURE]), tlv(0x03, &[2, KEY_CERT_SIGN])] {
        leaf_refused(
            &leaf().with(|leaf| leaf.more.push((vec![2, 5, 29, 15], content, true))),
            LeafError::Encoding(EncodingError::DuplicateExtension),
        );
    }
    let names = tlv(0x30, &tlv(URI, b"spiffe://example.org/other"));
    leaf_refused(
        &leaf().with(|leaf| leaf.more.push((vec![2, 5, 29, 17], names, true))),
        LeafError::Encoding(EncodingError::DuplicateExtension),
    );
}

#[test]
fn x509_svid_5_1_chain_of_bounded_length() {
    let root = root();
    let mut signers = vec![];
    for depth in 0..8 {
        let recipe = Recipe::signer("spiffe://example.org", &format!("signer {depth}"));
        signers.push(recipe.signed_by(signers.last().unwrap_or(&root)));
    }
    // Gap 4 of webpki: it stops at 7 certificates.
    let chain: Vec<&Issued> = signers[..7].iter().rev().collect();
    accepted(&leaf().signed_by(&signers[6]), &chain, &root.bundle());
    // In another order, and with one that is not needed (RFC 8446 §4.4.2).
    let chain: Vec<&Issued> = [&signers[1], &root, &signers[0], &signers[2]].into();
    accepted(&leaf().signed_by(&signers[2]), &chain, &root.bundle());
    let leaf = leaf().signed_by(&signers[7]);
    let chain: Vec<&Issued> = signers.iter().rev().collect();
    refused(&leaf, &chain, &root.bundle(), &VerifyError::ChainLength { len: 9 });
}

#[test]
fn x509_svid_5_2_scheme_is_spiffe() {
    for uri in ["https://example.org/workload", "SPIFFE://example.org/workload", "urn:uuid:0", "workload"] {
        leaf_refused(&Recipe::leaf(uri), LeafError::SpiffeId(ParseSpiffeIdError::Scheme));
    }
    leaf_refused(
        &Recipe::leaf("spiffe://Example.org/workload"),
        LeafError::SpiffeId(ParseTrustDomainError::UpperCase { position: 0 }.into()),
    );
}

#[test]
fn trust_domain_and_bundle_3_other_domain_same_key() {
    // Trust Domain and Bundle §6.2: the authority's key is trusted, its word on another domain is not.
    let root = root();
    let leaf = Recipe::leaf("spiffe://example.com/workload").signed_by(&root);
    let spiffe_id = SpiffeId::parse("spiffe://example.com/workload").unwrap();
    let error = VerifyError::TrustDomain { spiffe_id };
    refused(&leaf, &[], &root.bundle(), &error);
}

#[test]
fn trust_domain_and_bundle_4_1_3_empty_bundle() {
    let empty = TrustBundle::new(domain("example.org"), Vec::new()).unwrap();
    assert!(empty.is_empty());
    path_refused(&leaf_of(&root()), &[], &empty, UNKNOWN);
}

#[test]
fn the_verifier_demands_a_certificate_and_hints_at_no_root() {
    let verifier = Verifier::new(root().bundle());
    assert!(ClientCertVerifier::client_auth_mandatory(&verifier));
    assert!(ClientCertVerifier::root_hint_subjects(&verifier).is_empty());
    assert!(ServerCertVerifier::root_hint_subjects(&verifier).is_none());
}

#[test]
fn a_certificate_that_is_too_long_is_not_read() {
    let root = root();
    let long = leaf().with(|leaf| leaf.more.push((vec![1, 2, 3], tlv(0x04, &vec![0; 17_000]), false)));
    let long = long.signed_by(&root);
    let len = long.certificate.len();
    leaf_refused_encoding(&long.certificate, EncodingError::Length { len });
    let mut trailing = leaf().signed_by(&root).certificate.to_vec();
    trailing.push(0);
    leaf_refused_encoding(&trailing.into(), EncodingError::TrailingData { len: 1 });
}

/// An extension that a rule depends on and that cannot be read is not ignored as if it were absent.
#[test]
fn an_extension_that_cannot_be_read_is_no_absent_one() {
    const NAMES: u64 = 17;
    const BASIC_CONSTRAINTS: u64 = 19;
    const EXTENDED_KEY_USAGE: u64 = 37;
    let id = tlv(URI, ID.as_bytes());
    let names = tlv(0x30, &id);
    let malformed = [
        // A set and no sequence, the sequence of another class, bytes behind it, and one that ends in the
        // middle of a name.
        (NAMES, "SubjectAltName", tlv(0x31, &id)),
        (NAMES, "SubjectAltName", tlv(0xb0, &id)),
        (NAMES, "SubjectAltName", [&names[..], &[5, 0]].concat()),
        (NAMES, "SubjectAltName", tlv(0x30, &id[..id.len() - 1])),
        // An object identifier: its number is that of a URI, its class is not.
        (NAMES, "SubjectAltName", tlv(0x30, &tlv(0x06, ID.as_bytes()))),
        (NAMES, "SubjectAltName", tlv(0x30, &[&id[..], &tlv(0x06, &[0x2a])].concat())),
        (BASIC_CONSTRAINTS, "BasicConstraints", tlv(0x30, &tlv(0x01, &[0xff, 0xff]))),
        (BASIC_CONSTRAINTS, "BasicConstraints", Vec::new()),
        (EXTENDED_KEY_USAGE, "ExtKeyUsageSyntax", tlv(0x31, SERVER_AUTH)),
        (EXTENDED_KEY_USAGE, "ExtKeyUsageSyntax", tlv(0x30, &[0x06, 8, 0x2b])),
    ];
    for (number, extension, content) in malformed {
        let recipe = leaf().with(|leaf| {
            match number {
                NAMES => leaf.names.clear(),
                BASIC_CONSTRAINTS => leaf.authority = None,
                _ => leaf.extended_key_usage = None,
            }
            leaf.more.push((vec![2, 5, 29, number], content, true));
        });
        leaf_refused(&recipe, LeafError::Encoding(EncodingError::Extension { extension }));
    }
    leaf_refused(
        &leaf().with(|leaf| {
            leaf.key_usage = None;
            leaf.more.push((vec![2, 5, 29, 15], tlv(0x04, &[7, DIGITAL_SIGNATURE]), true));
        }),
        LeafError::Encoding(EncodingError::Extension { extension: "KeyUsage" }),
    );
}

/// RFC 5280 §4.1.2.1: without version 3 there are no extensions, and so no SVID.
#[test]
fn a_certificate_of_an_older_version_is_refused() {
    let certificate = leaf().signed_by(&root()).certificate;
    let version = certificate.windows(5).position(|window| window == [0xa0, 3, 2, 1, 2]).unwrap() + 4;
    for older in [0, 1] {
        let mut certificate = certificate.to_vec();
        certificate[version] = older;
        leaf_refused_encoding(&certificate.into(), EncodingError::Version);
    }
}

fn leaf_refused_encoding(certificate: &CertificateDer<'_>, error: EncodingError) {
    assert_eq!(spiffe_id_of(certificate), Err(LeafError::Encoding(error)));
    assert_eq!(spiffe_id_of_signer(certificate), Err(SigningError::Encoding(error)));
}

/// RFC 5280 §4.1.2.6: an authority has a name.
#[test]
fn an_authority_without_a_subject_is_refused() {
    let root = root();
    let nameless = Recipe::signer("spiffe://example.org", "").with(|signer| signer.subject = None);
    let nameless = nameless.signed_by(&root).certificate;
    assert_eq!(spiffe_id_of_signer(&nameless), Err(SigningError::Subject));
    let refused = BundleError::Authority { position: 0, source: SigningError::Subject };
    assert_eq!(TrustBundle::new(domain("example.org"), vec![nameless]), Err(refused));
}
