//! Identities with another provider of cryptography.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in its helpers as well")]

mod common;

use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, SystemTime};

use common::{Recipe, connect, root};
use pki_types::UnixTime;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};
use rustls::NamedGroup;
use rustls::crypto::CryptoProvider;
use x0_identity::{
    Authority, AuthorityOptions, BundleMap, CaSigner, CaSignerOptions, CertificateRequest,
    CertificateRequestError, FinishError, Identity, IssuanceClient, IssuanceClientInput,
    IssuanceClientOutput, IssuanceServer, IssuanceServerInput, IssuanceServerOptions, IssuanceServerOutput,
    IssueRequest, JwtAlgorithm, JwtIssuer, JwtKey, JwtSvidError, JwtSvidValidator, MemoryRegistry, Proof,
    RegistrationEntry, RenewalOptions, RequestKey, RevocationView, SignedStatement, SpiffeBundle, SpiffeId,
    SvidFollower, SvidPoll, SvidSource, SvidState, TrustBundle, TrustBundleSet, TrustDomain, Verifier,
    WitIssuer, WitKey, WitProofError, WitSvidValidator, graviola_provider,
};

const HOUR: Duration = Duration::from_secs(3600);

fn authority() -> Authority {
    Authority::new(TrustDomain::parse("example.org").unwrap(), &AuthorityOptions::default()).unwrap()
}

fn id() -> SpiffeId {
    SpiffeId::parse("spiffe://example.org/web").unwrap()
}

/// Both orders of the two providers.
fn crosswise() -> [[Arc<CryptoProvider>; 2]; 2] {
    let [ring, graviola] = [Arc::new(rustls::crypto::ring::default_provider()), graviola_provider()];
    [[Arc::clone(&ring), Arc::clone(&graviola)], [graviola, ring]]
}

fn group(client: &Identity, server: &Identity) -> NamedGroup {
    let (client, server) = connect(&client.client_config(), &server.server_config()).unwrap();
    assert_eq!(
        client.negotiated_key_exchange_group().unwrap().name(),
        server.negotiated_key_exchange_group().unwrap().name()
    );
    client.negotiated_key_exchange_group().unwrap().name()
}

#[test]
fn graviola_exchanges_keys_after_the_quantum_computer_and_with_ring() {
    let authority = authority();
    let issue = || authority.issue(&id(), HOUR).unwrap();
    let graviola = Identity::new_with_provider(issue(), authority.bundle(), graviola_provider()).unwrap();
    let ring = Identity::new(issue(), authority.bundle()).unwrap();
    assert_eq!(group(&graviola, &graviola), NamedGroup::X25519MLKEM768);
    assert_eq!(group(&graviola, &ring), NamedGroup::X25519);
    assert_eq!(group(&ring, &graviola), NamedGroup::X25519);
    // A rotation keeps the provider.
    graviola.rotate(issue()).unwrap();
    assert_eq!(group(&graviola, &graviola), NamedGroup::X25519MLKEM768);
    let bundles = Arc::new(TrustBundleSet::from(authority.bundle()));
    let sourced = Identity::with_source_and_provider(issue(), bundles, graviola_provider()).unwrap();
    assert_eq!(group(&sourced, &graviola), NamedGroup::X25519MLKEM768);
}

#[test]
fn both_providers_give_the_same_verdicts() {
    let (trusted, other) = (root(), root());
    let leaf = Recipe::leaf("spiffe://example.org/web");
    let signer = Recipe::signer("spiffe://example.org", "signer").signed_by(&trusted);
    let bundles = || Arc::new(TrustBundleSet::from(trusted.bundle()));
    let verifiers =
        [Verifier::with_source(bundles()), Verifier::with_provider(bundles(), graviola_provider())];
    let chains = [
        (leaf.signed_by(&trusted).chain(&[]), true),
        (leaf.signed_by(&signer).chain(&[&signer]), true),
        (leaf.signed_by(&other).chain(&[]), false),
        (leaf.with(|leaf| leaf.valid = (-7200, -3600)).signed_by(&trusted).chain(&[]), false),
    ];
    for (chain, expected) in &chains {
        let (leaf, signers) = chain.split_first().unwrap();
        let verdicts =
            verifiers.each_ref().map(|verifier| verifier.verify_client(leaf, signers, UnixTime::now()));
        assert_eq!(verdicts[0].is_ok(), *expected);
        assert_eq!(format!("{:?}", verdicts[0]), format!("{:?}", verdicts[1]));
    }
}

/// A provider issues and the other one accepts, and the other way round: certificate requests, their
/// certificates, the connections, and what the authority signs.
#[test]
fn svids_are_issued_and_accepted_crosswise() {
    for [own, other] in crosswise() {
        let options = AuthorityOptions::default().provider(Arc::clone(&own));
        let authority = Authority::new(TrustDomain::parse("example.org").unwrap(), &options).unwrap();
        let restored = Authority::from_pem_with_provider(authority.to_pem().as_bytes(), Arc::clone(&other));
        let restored = restored.unwrap();
        assert_eq!(restored.bundle(), authority.bundle());
        let signer = |provider| {
            let options = CaSignerOptions::default().provider(provider);
            CaSigner::new(authority.certificate().clone(), Vec::new(), options).unwrap()
        };
        // The workload has one provider, the signing process the other one, and the key a third process.
        let key = RequestKey::generate_with_provider(&other).unwrap();
        assert_eq!(
            RequestKey::from_pkcs8_with_provider(key.pkcs8(), &own).unwrap().pkcs8(),
            key.pkcs8(),
            "the key is read by the other provider"
        );
        let request = CertificateRequest::from_der_with_provider(key.request(), &own).unwrap();
        let mut damaged = key.request().to_vec();
        *damaged.last_mut().unwrap() ^= 1;
        assert_eq!(
            CertificateRequest::from_der_with_provider(&damaged, &own),
            Err(CertificateRequestError::Signature)
        );
        let entry = RegistrationEntry::new(id(), HOUR);
        let request = IssueRequest::new(id(), request, HOUR);
        let unsigned = signer(Arc::clone(&own)).begin(&entry, &request, SystemTime::now()).unwrap();
        let signature = restored.sign(unsigned.to_be_signed()).unwrap();
        let chain = signer(Arc::clone(&own)).finish(&unsigned, &signature).unwrap();
        let mut damaged = signature.clone();
        *damaged.last_mut().unwrap() ^= 1;
        assert_eq!(signer(Arc::clone(&other)).finish(&unsigned, &damaged), Err(FinishError::Signature));
        let requested = key.into_svid(chain).unwrap();
        let issued = authority.issue(&id(), HOUR).unwrap();
        let [one, two] = [(requested, &own), (issued, &other)].map(|(svid, provider)| {
            Identity::new_with_provider(svid, authority.bundle(), Arc::clone(provider)).unwrap()
        });
        connect(&one.client_config(), &two.server_config()).unwrap();
        connect(&two.client_config(), &one.server_config()).unwrap();

        let (bundle, revoked) = (authority.bundle(), RevocationView::new());
        let to_be_signed = SignedStatement::to_be_signed("test", bundle.trust_domain(), b"content");
        let statement =
            SignedStatement::new("test", b"content".to_vec(), authority.sign(&to_be_signed).unwrap());
        assert_eq!(statement.verify_with_provider(&bundle, &revoked, &other).unwrap(), b"content");
        let forged =
            SignedStatement::new("test", b"contents".to_vec(), authority.sign(&to_be_signed).unwrap());
        forged.verify_with_provider(&bundle, &revoked, &other).unwrap_err();
    }
}

/// Keys for each algorithm but ES512, which no provider here has.
fn token_keys() -> Vec<(JwtAlgorithm, Vec<u8>)> {
    use JwtAlgorithm::{Es256, Es384, Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};
    let random = ring::rand::SystemRandom::new();
    let generate = |algorithm| EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap().as_ref().to_vec();
    let mut keys = vec![
        (Es256, generate(&ECDSA_P256_SHA256_FIXED_SIGNING)),
        (Es384, generate(&ECDSA_P384_SHA384_FIXED_SIGNING)),
    ];
    let rsa = include_bytes!("data/rsa.der");
    keys.extend([Rs256, Rs384, Rs512, Ps256, Ps384, Ps512].map(|algorithm| (algorithm, rsa.to_vec())));
    keys
}

#[test]
fn jwt_svids_are_issued_and_accepted_crosswise() {
    let (trust_domain, now) = (id().trust_domain().clone(), SystemTime::now());
    for [own, other] in crosswise() {
        let generated = JwtIssuer::generate_with_provider(trust_domain.clone(), "key", &own).unwrap();
        let of_keys = token_keys().into_iter().map(|(algorithm, pkcs8)| {
            let issuer = |provider| {
                JwtIssuer::from_pkcs8_with_provider(trust_domain.clone(), "key", algorithm, &pkcs8, provider)
                    .unwrap()
            };
            assert_eq!(issuer(&own).authority(), issuer(&other).authority());
            issuer(&own)
        });
        for issuer in of_keys.chain([generated]) {
            let mut bundles = BundleMap::new();
            let bundle = SpiffeBundle::new(TrustBundle::empty(trust_domain.clone()));
            bundles.insert(bundle.with_jwt_authorities(vec![issuer.authority().clone()]).unwrap());
            let validator = JwtSvidValidator::new("reports").provider(Arc::clone(&other));
            // The numbers of a signature of ECDSA have leading zeros in one of 128.
            let is_rsa = matches!(issuer.authority().key(), JwtKey::Rsa { .. });
            let count = if is_rsa { 1 } else { 300 };
            for _ in 0..count {
                let svid = issuer.issue(&id(), &["reports"], HOUR, now).unwrap();
                assert_eq!(validator.validate(svid.token(), &bundles, now).unwrap(), svid);
            }
            let svid = issuer.issue(&id(), &["reports"], HOUR, now).unwrap();
            let (signed, signature) = svid.token().rsplit_once('.').unwrap();
            let first = if signature.starts_with('A') { "B" } else { "A" };
            let forged = format!("{signed}.{first}{}", &signature[1..]);
            assert_eq!(validator.validate(&forged, &bundles, now), Err(JwtSvidError::Signature));
        }
    }
}

#[test]
fn wit_svids_are_issued_and_accepted_crosswise() {
    let (trust_domain, now) = (id().trust_domain().clone(), SystemTime::now());
    for [own, other] in crosswise() {
        let issuer = WitIssuer::generate_with_provider(trust_domain.clone(), &own).unwrap();
        let mut bundles = BundleMap::new();
        let bundle = SpiffeBundle::new(TrustBundle::empty(trust_domain.clone()));
        bundles.insert(bundle.with_wit_authorities(vec![issuer.authority().clone()]).unwrap());
        let validator = WitSvidValidator::new().provider(Arc::clone(&other));
        let of_keys = token_keys()
            .into_iter()
            .map(|(algorithm, pkcs8)| WitKey::from_pkcs8_with_provider(algorithm, &pkcs8, &own).unwrap());
        for key in of_keys.chain([WitKey::generate_with_provider(&own).unwrap()]) {
            let moved = WitKey::from_jwk_with_provider(&key.to_jwk(), &other).unwrap();
            assert_eq!(moved.confirmation(), key.confirmation());
            let svid = issuer.issue(&id(), key.confirmation(), HOUR, now).unwrap();
            let audience = "https://reports.example.org/";
            let proof = moved.prove(svid.token(), audience, Duration::from_secs(10), now).unwrap();
            let presented =
                || WitSvidValidator::new().provider(Arc::clone(&own)).validate(svid.token(), &bundles, now);
            presented().unwrap().with_proof(&proof, audience, now).unwrap();
            let proof = key.prove(svid.token(), audience, Duration::from_secs(10), now).unwrap();
            let presented = validator.validate(svid.token(), &bundles, now).unwrap();
            assert_eq!(presented.with_proof(&proof, audience, now).unwrap().0, svid);
            let presented = validator.validate(svid.token(), &bundles, now).unwrap();
            let signature = key.sign(b"one").unwrap();
            let refused = presented.with_signature(b"other", &signature, now).unwrap_err();
            assert_eq!(refused.source, WitProofError::Signature);
        }
        // The halves of a key of JSON belong together.
        let [one, two] =
            [&own, &own].map(|provider| WitKey::generate_with_provider(provider).unwrap().to_jwk());
        let [one, two] = [one, two].map(|text| serde_json::from_str::<serde_json::Value>(&text).unwrap());
        let mut mixed = one.clone();
        mixed["d"] = two["d"].clone();
        WitKey::from_jwk_with_provider(&mixed.to_string(), &other).unwrap_err();
    }
}

/// A source with a provider of its own, which gives one SVID.
struct Given(Option<SvidState>, Option<Arc<CryptoProvider>>);

impl SvidSource for Given {
    fn poll(&mut self, _now: SystemTime, _waker: &Waker) -> SvidPoll {
        SvidPoll::new(Ok(self.0.take()), HOUR)
    }

    fn provider(&self) -> Option<Arc<CryptoProvider>> {
        self.1.clone()
    }
}

/// The exchanges of a source and the handshakes of its identity are of one provider, unless the caller names
/// another one.
#[test]
fn an_identity_has_the_provider_of_its_source() {
    let authority = authority();
    let given = |provider| {
        let mut bundles = TrustBundleSet::new();
        bundles.insert(authority.bundle());
        let svid = authority.issue(&id(), HOUR).unwrap();
        Given(Some(SvidState::Held { svid: svid.into(), bundles }), provider)
    };
    let followed = |follower: SvidFollower| group(follower.identity(), follower.identity());
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let start = |provider| SvidFollower::start(given(provider), HOUR).unwrap();
    assert_eq!(followed(start(Some(graviola_provider()))), NamedGroup::X25519MLKEM768);
    assert_eq!(followed(start(None)), NamedGroup::X25519);
    let named = SvidFollower::start_with_provider(given(Some(graviola_provider())), HOUR, ring).unwrap();
    assert_eq!(followed(named), NamedGroup::X25519);
}

/// A workload with one provider, and an issuer with the other one.
#[test]
fn issuing_over_the_network_takes_the_provider() {
    for [own, other] in crosswise() {
        let options = AuthorityOptions::default().provider(Arc::clone(&own));
        let before = SystemTime::now() - 3 * HOUR;
        let authority = Authority::new_at(id().trust_domain().clone(), &options, before).unwrap();
        let signing = CaSignerOptions::default().provider(Arc::clone(&own));
        let signer = CaSigner::new(authority.certificate().clone(), Vec::new(), signing).unwrap();
        let mut registry = MemoryRegistry::new();
        registry.insert(RegistrationEntry::new(id(), HOUR));
        let mut server =
            IssuanceServer::new(signer, registry, authority.bundle(), IssuanceServerOptions::default());
        let mut client = IssuanceClient::new(id(), RenewalOptions::default(), 7).provider(Arc::clone(&other));
        let (now, wall) = (Duration::ZERO, SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap());
        // An SVID that has expired: the workload attests with it.
        let svid = authority.issue_at(&id(), HOUR, SystemTime::now() - 2 * HOUR).unwrap();
        client.handle(now, IssuanceClientInput::Holds { svid, wall }).unwrap();
        // At once, or after the jitter of a renewal.
        let (mut now, mut dial) = (now, client.poll_output());
        if dial.is_none() {
            now = client.poll_timeout().unwrap();
            client.handle(now, IssuanceClientInput::Timeout { wall: wall + now }).unwrap();
            dial = client.poll_output();
        }
        let Some(IssuanceClientOutput::Dial { exchange, with_svid: false }) = dial else {
            panic!("no connection")
        };
        let binding = [7; 32];
        client.handle(now, IssuanceClientInput::Connected { exchange, binding, wall }).unwrap();
        let Some(IssuanceClientOutput::Send { bytes, .. }) = client.poll_output() else {
            panic!("no request")
        };
        server.handle(now, IssuanceServerInput::Request { id: 1, peer: None, binding, bytes, wall }).unwrap();
        assert!(matches!(server.poll_output(), Some(IssuanceServerOutput::Attest { .. })));
        server
            .handle(now, IssuanceServerInput::Attested { id: 1, proof: Proof::Holder(id()), wall })
            .unwrap();
        let Some(IssuanceServerOutput::Sign { to_be_signed, .. }) = server.poll_output() else {
            panic!("nothing to sign")
        };
        let signature = Some(authority.sign(&to_be_signed).unwrap());
        server.handle(now, IssuanceServerInput::Signed { id: 1, signature }).unwrap();
        let Some(IssuanceServerOutput::Answer { bytes, .. }) = server.poll_output() else {
            panic!("no answer")
        };
        client.handle(now, IssuanceClientInput::Answer { exchange, bytes, wall }).unwrap();
        let Some(IssuanceClientOutput::Install { svid, bundle, .. }) = client.poll_output() else {
            panic!("{:?}", client.failure())
        };
        Identity::new_with_provider(svid, bundle, Arc::clone(&other)).unwrap();
    }
}
