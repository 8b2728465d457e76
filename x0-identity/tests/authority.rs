//! Certificates that an authority issues, keeps and refuses.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in its helpers as well")]

mod common;

use std::time::{Duration, SystemTime};

use common::{MINUTE, Recipe, domain, root, seconds_since_1970};
use pki_types::UnixTime;
use x0_identity::{
    Authority, AuthorityError, AuthorityOptions, BundleError, IssueError, PemError, SigningError, SpiffeId,
    SvidError, TrustBundle, Verifier, X509Svid,
};

fn authority() -> Authority {
    Authority::new(domain("example.org"), &AuthorityOptions::default()).unwrap()
}

fn workload() -> SpiffeId {
    SpiffeId::parse("spiffe://example.org/workload").unwrap()
}

#[test]
fn an_svid_goes_through_pem() {
    let svid = authority().issue(&workload(), MINUTE).unwrap();
    let pem = svid.to_pem();
    let read = X509Svid::from_pem(pem.as_bytes()).unwrap();
    assert_eq!(read.chain(), svid.chain());
    assert_eq!(read.key(), svid.key());
    assert_eq!(read.to_pem(), pem);

    // With an intermediate, the key in front, and text of other kinds around.
    let root = root();
    let signer = Recipe::signer("spiffe://example.org", "signer").signed_by(&root);
    let svid = Recipe::leaf("spiffe://example.org/workload").signed_by(&signer).svid(&[&signer]);
    let pem = svid.to_pem();
    let (certificates, key) = pem.split_at(pem.find("-----BEGIN PRIVATE").unwrap());
    let read = X509Svid::from_pem(format!("a comment\n{key}\nanother\n{certificates}").as_bytes()).unwrap();
    assert_eq!(read.chain(), svid.chain());
}

#[test]
fn certificates_that_are_no_svid() {
    let svid = authority().issue(&workload(), MINUTE).unwrap();
    let pem = svid.to_pem();
    let (certificates, key) = pem.split_at(pem.find("-----BEGIN PRIVATE").unwrap());
    let check =
        |pem: &str, expect: SvidError| assert_eq!(X509Svid::from_pem(pem.as_bytes()).unwrap_err(), expect);
    check("", SvidError::NoKey);
    check(certificates, SvidError::NoKey);
    check(key, SvidError::NoCertificate);
    check(&format!("{pem}{key}"), SvidError::Pem(PemError::Keys));
    check(&pem.replace("-----END PRIVATE KEY-----", ""), SvidError::Pem(PemError::Damaged { section: 1 }));
    check(&pem.replace("MII", "M!I"), SvidError::Pem(PemError::Damaged { section: 0 }));
    check(&format!("{}{key}", certificates.repeat(9)), SvidError::ChainLength { len: 9 });
    check(
        &format!("{}{key}", certificates.repeat(2)),
        SvidError::Signer { position: 1, source: SigningError::NotAuthority },
    );
    let long = " ".repeat(x0_identity::PEM_LEN_MAX + 1);
    check(&long, SvidError::Pem(PemError::Length { len: long.len() }));
}

#[test]
fn a_bundle_goes_through_pem() {
    let mut bundle = authority().bundle();
    bundle.extend(&authority().bundle()).unwrap();
    let again = bundle.clone();
    bundle.extend(&again).unwrap();
    assert_eq!(bundle.authorities().len(), 2);
    assert_eq!(TrustBundle::from_pem(domain("example.org"), bundle.to_pem().as_bytes()), Ok(bundle.clone()));
    assert!(TrustBundle::from_pem(domain("example.org"), b"").unwrap().is_empty());

    let svid = authority().issue(&workload(), MINUTE).unwrap();
    assert_eq!(
        TrustBundle::from_pem(domain("example.org"), svid.to_pem().as_bytes()),
        Err(BundleError::PrivateKey)
    );
    assert_eq!(
        TrustBundle::new(domain("example.org"), svid.chain().to_vec()),
        Err(BundleError::Authority { position: 0, source: SigningError::NotAuthority })
    );
    let other = TrustBundle::new(domain("example.com"), Vec::new()).unwrap();
    assert!(matches!(bundle.extend(&other), Err(BundleError::TrustDomain { .. })));
}

#[test]
fn a_bundle_is_bounded() {
    let key_signs =
        |number| Recipe::signer("spiffe://example.org", &format!("root {number}")).self_signed().certificate;
    let mut authorities: Vec<_> = (0..TrustBundle::AUTHORITIES_MAX).map(key_signs).collect();
    let full = TrustBundle::new(domain("example.org"), authorities.clone()).unwrap();
    authorities.push(key_signs(64));
    assert_eq!(TrustBundle::new(domain("example.org"), authorities), Err(BundleError::Authorities));
    // A bundle that cannot be taken as a whole changes nothing.
    let mut bundle = full.clone();
    assert_eq!(bundle.extend(&authority().bundle()), Err(BundleError::Authorities));
    assert_eq!(bundle, full);
}

#[test]
fn an_authority_goes_through_pem_and_issues_on() {
    let authority = authority();
    let restored = Authority::from_pem(authority.to_pem().as_bytes()).unwrap();
    assert_eq!(restored.bundle(), authority.bundle());
    assert_eq!(restored.not_after(), authority.not_after());
    assert_eq!(restored.to_pem(), authority.to_pem());
    let verifier = Verifier::new(authority.bundle());
    for authority in [&authority, &restored] {
        let svid = authority.issue(&workload(), MINUTE).unwrap();
        assert_eq!(verifier.verify_server(&svid.chain()[0], &[], UnixTime::now()), Ok(workload()));
    }
}

#[test]
fn certificates_that_are_no_authority() {
    let pem = authority().to_pem();
    let (certificate, key) = pem.split_at(pem.find("-----BEGIN PRIVATE").unwrap());
    let other = authority().to_pem();
    let error = |pem: String| Authority::from_pem(pem.as_bytes()).unwrap_err();
    assert!(matches!(error(String::new()), AuthorityError::CertificateCount { count: 0 }));
    assert!(matches!(error(certificate.repeat(2) + key), AuthorityError::CertificateCount { count: 2 }));
    assert!(matches!(error(certificate.to_owned()), AuthorityError::NoKey));
    let foreign_key = &other[other.find("-----BEGIN PRIVATE").unwrap()..];
    assert!(matches!(error(certificate.to_owned() + foreign_key), AuthorityError::KeyMismatch));
    let short_key = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";
    assert!(matches!(error(certificate.to_owned() + short_key), AuthorityError::KeyUnsupported));
    let svid = authority().issue(&workload(), MINUTE).unwrap();
    assert!(matches!(error(svid.to_pem()), AuthorityError::Signing(SigningError::NotAuthority)));
    let nameless = Recipe::signer("", "nameless").with(|signer| signer.names.clear()).self_signed();
    let bundle = TrustBundle::new(domain("example.org"), vec![nameless.certificate.clone()]).unwrap();
    assert!(matches!(error(bundle.to_pem() + key), AuthorityError::NoSpiffeId));
}

#[test]
fn an_authority_issues_within_its_domain_only() {
    let authority = authority();
    let elsewhere = SpiffeId::parse("spiffe://example.com/workload").unwrap();
    assert!(matches!(authority.issue(&elsewhere, MINUTE), Err(IssueError::TrustDomain { .. })));
    let pathless = SpiffeId::parse("spiffe://example.org").unwrap();
    assert!(matches!(authority.issue(&pathless, MINUTE), Err(IssueError::RootPath)));
}

#[test]
fn an_svid_does_not_outlive_its_authority() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000);
    let options = AuthorityOptions::default().validity(Duration::from_secs(1000));
    let authority = Authority::new_at(domain("example.org"), &options, now).unwrap();
    assert_eq!(authority.not_after(), now + Duration::from_secs(1000));

    let short =
        authority.issue_at(&workload(), Duration::from_secs(10), now + Duration::from_secs(100)).unwrap();
    assert_eq!(seconds_since_1970(short.not_before()), 2_000_000_040);
    assert_eq!(seconds_since_1970(short.not_after()), 2_000_000_110);
    let long = authority.issue_at(&workload(), Duration::from_secs(5000), now).unwrap();
    assert_eq!(long.not_before(), now - Duration::from_secs(60));
    assert_eq!(long.not_after(), authority.not_after());
    let late = authority.issue_at(&workload(), MINUTE, now + Duration::from_secs(1001));
    assert!(matches!(late, Err(IssueError::AuthorityExpired)));
    let early = authority.issue_at(&workload(), MINUTE, now - Duration::from_secs(200));
    assert!(matches!(early, Err(IssueError::AuthorityExpired)));
}

#[test]
fn requests_beyond_a_certificate_are_refused() {
    for validity in [Duration::MAX, Duration::from_secs(u64::MAX), Duration::from_secs(260_000_000_000)] {
        let options = AuthorityOptions::default().validity(validity);
        assert!(matches!(Authority::new(domain("example.org"), &options), Err(AuthorityError::Validity)));
        assert!(matches!(authority().issue(&workload(), validity), Err(IssueError::Validity)));
    }
}

#[test]
fn the_longest_names_fit() {
    let domain = domain(&"d".repeat(255));
    let authority = Authority::new(domain.clone(), &AuthorityOptions::default()).unwrap();
    let segment = "s".repeat(SpiffeId::LEN_MAX - "spiffe:///".len() - 255);
    let id = SpiffeId::from_segments(&domain, &[&segment]).unwrap();
    assert_eq!(id.to_string().len(), SpiffeId::LEN_MAX);
    let svid = authority.issue(&id, MINUTE).unwrap();
    assert_eq!(svid.spiffe_id(), &id);
    let verifier = Verifier::new(authority.bundle());
    assert_eq!(verifier.verify_client(&svid.chain()[0], &[], UnixTime::now()), Ok(id));
}

#[test]
fn no_two_svids_share_a_serial_number() {
    let authority = authority();
    let mut serial_numbers: Vec<_> =
        (0..50).map(|_| authority.issue(&workload(), MINUTE).unwrap().serial_number().to_vec()).collect();
    serial_numbers.sort();
    serial_numbers.dedup();
    assert_eq!(serial_numbers.len(), 50);
}
