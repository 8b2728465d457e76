//! One attestor for each kind of evidence, and the certificates of devices.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pki_types::PrivateKeyDer;
use rcgen::{KeyPair, SigningKey};
use x0_identity::{
    Attestation, Attestor, Attestors, Authority, AuthorityOptions, CaSigner, CaSignerOptions,
    CertificateAttestError, CertificateAttestor, Evidence, IssuanceAnswer, IssuanceClient,
    IssuanceClientInput, IssuanceClientOutput, IssuanceRefusal, IssuanceRequest, IssuanceServer,
    IssuanceServerInput, IssuanceServerOptions, IssuanceServerOutput, JoinTokens, MemoryRegistry,
    PresentedEvidence, RegistrationEntry, RenewalOptions, RequestKey, RevocationView, Revoked, Selector,
    SvidAttestor, TrustBundle, Verifier,
};

use crate::common::{CLIENT_AUTH, DNS, Issued, KEY_CERT_SIGN, KEY_ENCIPHERMENT, Recipe, SERVER_AUTH, domain};
use crate::{GRACE, VALIDITY, id};

/// An authority of devices, one device below it, and a server with the attestors of every kind.
struct Devices {
    authority: Authority,
    root: Issued,
    device: Issued,
    server: IssuanceServer<MemoryRegistry>,
    attestors: Attestors,
    token: String,
}

impl Devices {
    /// The entry of `web` demands a selector.
    fn new(change: impl FnOnce(&mut Recipe), selector: &str) -> Devices {
        let root = Recipe::signer("", "devices").with(|root| root.names.clear()).self_signed();
        let device = Recipe::leaf("").with(|device| {
            device.names = vec![(DNS, b"device-7".to_vec())];
            device.subject = Some("device-7".into());
            device.extended_key_usage = Some(vec![CLIENT_AUTH]);
            change(device);
        });
        let device = device.signed_by(&root);
        let authority = Authority::new(domain("example.org"), &AuthorityOptions::default()).unwrap();
        let options = CaSignerOptions::default();
        let signer = CaSigner::new(authority.certificate().clone(), Vec::new(), options).unwrap();
        let mut registry = MemoryRegistry::new();
        let entry = RegistrationEntry::new(id("web"), VALIDITY).selector(Selector::parse(selector).unwrap());
        registry.insert(entry);
        let server =
            IssuanceServer::new(signer, registry, authority.bundle(), IssuanceServerOptions::default());
        let mut tokens = JoinTokens::new();
        let token = tokens.issue("web", SystemTime::now() + VALIDITY).unwrap();
        let verifier = Arc::new(Verifier::new(authority.bundle()));
        let trusted = TrustBundle::new(domain("devices.example"), vec![root.certificate.clone()]).unwrap();
        let attestors = Attestors::new()
            .with(tokens)
            .with(SvidAttestor::new(verifier, GRACE))
            .with(CertificateAttestor::new(trusted));
        Devices { authority, root, device, server, attestors, token }
    }

    /// The answer to a request over a connection with a binding.
    fn ask(&mut self, number: u64, binding: [u8; 32], bytes: Vec<u8>) -> IssuanceAnswer {
        let wall = wall();
        let input = IssuanceServerInput::Request { id: number, peer: None, binding, bytes, wall };
        self.server.handle(Duration::ZERO, input).unwrap();
        loop {
            let input = match self.server.poll_output().unwrap() {
                IssuanceServerOutput::Attest { id, evidence, .. } => {
                    self.attestors.attest(id, &evidence, wall)
                }
                IssuanceServerOutput::Sign { id, to_be_signed } => {
                    IssuanceServerInput::Signed { id, signature: self.authority.sign(&to_be_signed).ok() }
                }
                IssuanceServerOutput::Answer { bytes, .. } => {
                    return IssuanceAnswer::from_bytes(&bytes).unwrap();
                }
                other => panic!("{other:?}"),
            };
            self.server.handle(Duration::ZERO, input).unwrap();
        }
    }

    /// The request of a client with the certificate of the device.
    fn request(&self, binding: [u8; 32]) -> (IssuanceClient, Vec<u8>) {
        let key = PrivateKeyDer::Pkcs8(self.device.key.serialize_der().into());
        let chain = vec![self.device.certificate.clone()];
        let client = IssuanceClient::new(id("web"), RenewalOptions::default(), 7).certificate(chain, key);
        request_of(client, binding)
    }

    fn refused(&mut self, number: u64) -> (IssuanceRefusal, String) {
        let (_, bytes) = self.request([7; 32]);
        refused(self.ask(number, [7; 32], bytes))
    }
}

fn wall() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap()
}

fn refused(answer: IssuanceAnswer) -> (IssuanceRefusal, String) {
    match answer {
        IssuanceAnswer::Refused { refusal, text } => (refusal, text),
        answer => panic!("{answer:?}"),
    }
}

/// The first request of a client, as the driver sends it.
fn request_of(mut client: IssuanceClient, binding: [u8; 32]) -> (IssuanceClient, Vec<u8>) {
    let wall = wall();
    client.handle(Duration::ZERO, IssuanceClientInput::Timeout { wall }).unwrap();
    loop {
        match client.poll_output().unwrap() {
            IssuanceClientOutput::Dial { exchange, with_svid } => {
                assert!(!with_svid);
                let input = IssuanceClientInput::Connected { exchange, binding, wall };
                client.handle(Duration::ZERO, input).unwrap();
            }
            IssuanceClientOutput::Send { bytes, .. } => return (client, bytes),
            _ => {}
        }
    }
}

/// X.509 proof of possession: the certificate of a device, by another authority than that of the trust
/// domain.
#[test]
fn a_device_is_attested_by_the_certificate_of_another_authority() {
    let mut devices = Devices::new(|_| {}, "x509pop:subject:cn:device-7");
    let (mut client, bytes) = devices.request([7; 32]);
    let answer = devices.ask(1, [7; 32], bytes.clone());
    assert!(matches!(answer, IssuanceAnswer::Issued { .. }), "{answer:?}");
    let input = IssuanceClientInput::Answer { exchange: 1, bytes: answer.to_bytes(), wall: wall() };
    client.handle(Duration::ZERO, input).unwrap();
    let installed = client.poll_output();
    assert!(
        matches!(&installed, Some(IssuanceClientOutput::Install { svid, .. }) if *svid.spiffe_id() == id("web")),
        "{installed:?}"
    );
    // On another connection the proof is a replay.
    let (refusal, text) = refused(devices.ask(2, [8; 32], bytes));
    assert_eq!(refusal, IssuanceRefusal::NotAttested);
    assert!(text.contains("proof"), "{text}");
    // The selectors of the entry, of which the digest is the certificate's own.
    let trusted = TrustBundle::new(domain("devices.example"), vec![devices.root.certificate.clone()]);
    let attestor = CertificateAttestor::new(trusted.unwrap());
    let chain = [devices.device.certificate.clone()];
    let selectors = attestor.selectors_of(&chain, SystemTime::now()).unwrap();
    let texts: Vec<String> = selectors.iter().map(ToString::to_string).collect();
    let digest = ring::digest::digest(&ring::digest::SHA256, &devices.device.certificate);
    let digest: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(texts.len(), 3);
    assert!(texts.contains(&format!("x509pop:sha256:{digest}")), "{texts:?}");
    assert!(texts.iter().any(|text| text.starts_with("x509pop:serialnumber:")), "{texts:?}");
}

#[test]
fn a_device_that_is_not_proved_is_refused() {
    type Change = fn(&mut Recipe);
    let cases: [(Change, &str); 5] = [
        (|device| device.valid = (-600, -60), "expired"),
        (|device| device.extended_key_usage = Some(vec![SERVER_AUTH]), "usage"),
        (|device| device.key_usage = Some((KEY_ENCIPHERMENT, true)), "usage"),
        (|device| (device.authority, device.key_usage) = (Some(true), Some((KEY_CERT_SIGN, true))), "usage"),
        (|device| device.subject = Some("device-8".into()), "no registration entry"),
    ];
    for (change, words) in cases {
        let (_, text) = Devices::new(change, "x509pop:subject:cn:device-7").refused(1);
        assert!(text.contains(words), "{words}: {text}");
    }
    // A device of an authority that is not known, one that is revoked, and no certificate at all.
    let mut devices = Devices::new(|_| {}, "x509pop:subject:cn:device-7");
    let stranger = Devices::new(|_| {}, "x509pop:subject:cn:device-7");
    let (_, bytes) = stranger.request([7; 32]);
    let (refusal, text) = refused(devices.ask(1, [7; 32], bytes));
    assert_eq!(refusal, IssuanceRefusal::NotAttested);
    assert!(text.contains("not signed by the key"), "{text}");
    let mut view = RevocationView::new();
    let revoked = Revoked::certificate(&devices.device.certificate).unwrap();
    view.insert(revoked, SystemTime::now() + VALIDITY).unwrap();
    let trusted = TrustBundle::new(domain("devices.example"), vec![devices.root.certificate.clone()]);
    let attestor = CertificateAttestor::new(trusted.unwrap()).revocations(view);
    let now = SystemTime::now();
    let chain = vec![devices.device.certificate.clone()];
    assert_eq!(attestor.selectors_of(&chain, now), Err(CertificateAttestError::Revoked));
    assert_eq!(attestor.selectors_of(&[], now), Err(CertificateAttestError::Count { count: 0 }));
    let many = vec![devices.device.certificate.clone(); 9];
    assert_eq!(attestor.selectors_of(&many, now), Err(CertificateAttestError::Count { count: 9 }));

    // The signature of one kind of proof is none of another kind, and neither is that of another key.
    let request = RequestKey::generate().unwrap().request().to_vec();
    let binding = [7; 32];
    let other = KeyPair::generate().unwrap();
    let svid_proof = IssuanceRequest::proof(&id("web"), &binding, &request);
    let proof = IssuanceRequest::certificate_proof(&id("web"), &binding, &request);
    for (number, signature) in [
        (2, devices.device.key.sign(&svid_proof).unwrap()),
        (3, other.sign(&proof).unwrap()),
        (4, Vec::new()),
    ] {
        let evidence = Evidence::Certificate { chain: chain.clone(), signature };
        let bytes = IssuanceRequest::new(id("web"), request.clone(), evidence).to_bytes();
        assert_eq!(refused(devices.ask(number, binding, bytes)).0, IssuanceRefusal::NotAttested);
    }
}

/// A kind has one attestor; a kind without one is refused.
#[test]
fn attestors_answer_for_their_kind() {
    let mut devices = Devices::new(|_| {}, "join_token:web");
    assert_eq!(format!("{:?}", devices.attestors), "[JoinToken, Svid, Certificate]");
    let key = RequestKey::generate().unwrap();
    let request = |evidence| IssuanceRequest::new(id("web"), key.request().to_vec(), evidence).to_bytes();
    let token = Evidence::JoinToken(devices.token.clone());
    // Again for the same key: the answer may have been lost.
    for number in [1, 2] {
        let answer = devices.ask(number, [1; 32], request(token.clone()));
        assert!(matches!(answer, IssuanceAnswer::Issued { .. }), "{answer:?}");
    }
    let (_, text) = refused(devices.ask(3, [1; 32], request(Evidence::JoinToken("guess".into()))));
    assert!(text.contains("unknown"), "{text}");
    let (_, text) = refused(devices.ask(4, [1; 32], request(Evidence::Tpm(vec![1]))));
    assert!(text.contains("no attestor"), "{text}");
    // An earlier SVID, which is a holder's: the entry needs no selector then.
    let svid = devices.authority.issue(&id("web"), VALIDITY).unwrap();
    let own = KeyPair::try_from(svid.key()).unwrap();
    let proof = IssuanceRequest::proof(&id("web"), &[2; 32], key.request());
    let chain = svid.chain().to_vec();
    let evidence = Evidence::Svid { chain, signature: own.sign(&proof).unwrap() };
    let bytes = request(evidence);
    let answer = devices.ask(5, [2; 32], bytes.clone());
    assert!(matches!(answer, IssuanceAnswer::Issued { .. }), "{answer:?}");
    assert_eq!(refused(devices.ask(6, [3; 32], bytes)).0, IssuanceRefusal::NotAttested);
    // A response without a challenge.
    let input = devices.attestors.examine(9, b"", wall());
    assert!(matches!(input, IssuanceServerInput::NotAttested { id: 9, .. }));
    // Evidence of another kind is none.
    let evidence = PresentedEvidence::JoinToken { token: "a".into(), public_key_info: Vec::new() };
    let now = SystemTime::now();
    let verifier = Arc::new(Verifier::new(devices.authority.bundle()));
    let mut svid = SvidAttestor::new(verifier, GRACE);
    let mut device = CertificateAttestor::new(devices.authority.bundle());
    for attestor in [&mut svid as &mut dyn Attestor, &mut device] {
        assert!(matches!(attestor.attest(&evidence, now), Attestation::Refused(_)));
    }
    let certificate = PresentedEvidence::Certificate(Vec::new());
    assert!(matches!(Attestor::attest(&mut JoinTokens::new(), &certificate, now), Attestation::Refused(_)));
}
