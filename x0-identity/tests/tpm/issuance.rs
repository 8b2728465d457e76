//! Both engines of issuing, with a TPM as evidence.

use std::time::{Duration, SystemTime};

use x0_identity::tpm::{PendingTpm, Tpm, TpmAnswer, TpmAttestor, TpmChallenge, TpmEvidence};
use x0_identity::{
    Authority, AuthorityOptions, CaSigner, CaSignerOptions, IssuanceClient, IssuanceClientInput,
    IssuanceClientOutput, IssuanceFailure, IssuanceServer, IssuanceServerInput, IssuanceServerOptions,
    IssuanceServerOutput, MemoryRegistry, PresentedEvidence, Proof, RegistrationEntry, RenewalOptions,
    Selector, SpiffeId, X509Svid,
};

use super::{Simulator, enrolled, mixed};

const NOW: Duration = Duration::ZERO;

fn wall() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap()
}

fn web() -> SpiffeId {
    SpiffeId::parse("spiffe://example.org/web").unwrap()
}

/// The issuer with its attestor.
struct Issuer {
    authority: Authority,
    engine: IssuanceServer<MemoryRegistry>,
    attestor: TpmAttestor,
    pending: Option<PendingTpm>,
}

impl Issuer {
    fn new(attestor: TpmAttestor, selector: &str) -> Issuer {
        let authority = Authority::new(web().trust_domain().clone(), &AuthorityOptions::default()).unwrap();
        let signer =
            CaSigner::new(authority.certificate().clone(), Vec::new(), CaSignerOptions::default()).unwrap();
        let mut registry = MemoryRegistry::new();
        let entry = RegistrationEntry::new(web(), Duration::from_secs(3600));
        registry.insert(entry.selector(Selector::parse(selector).unwrap()));
        let options = IssuanceServerOptions::default();
        let engine = IssuanceServer::new(signer, registry, authority.bundle(), options);
        Issuer { authority, engine, attestor, pending: None }
    }

    /// Takes an input, and returns what goes to the machine.
    fn handle(&mut self, input: IssuanceServerInput) -> Vec<u8> {
        self.engine.handle(NOW, input).unwrap();
        loop {
            let input = match self.engine.poll_output().unwrap() {
                IssuanceServerOutput::Attest {
                    id,
                    evidence: PresentedEvidence::Tpm { evidence, binding },
                    ..
                } => {
                    let evidence = TpmEvidence::from_bytes(&evidence).unwrap();
                    match self.attestor.begin(&evidence, &binding) {
                        Ok((challenge, pending)) => {
                            self.pending = Some(pending);
                            IssuanceServerInput::Challenge { id, challenge: challenge.to_bytes() }
                        }
                        Err(error) => IssuanceServerInput::NotAttested { id, why: error.to_string() },
                    }
                }
                IssuanceServerOutput::Examine { id, response } => {
                    let answer = TpmAnswer::from_bytes(&response).unwrap();
                    match self.pending.take().unwrap().finish(&answer) {
                        Ok(selectors) => {
                            let proof = Proof::Selectors(selectors);
                            IssuanceServerInput::Attested { id, proof, wall: wall() }
                        }
                        Err(error) => IssuanceServerInput::NotAttested { id, why: error.to_string() },
                    }
                }
                IssuanceServerOutput::Sign { id, to_be_signed } => {
                    let signature = self.authority.sign(&to_be_signed).ok();
                    IssuanceServerInput::Signed { id, signature }
                }
                IssuanceServerOutput::Challenge { bytes, .. } => return bytes,
                IssuanceServerOutput::Answer { bytes, .. } => return bytes,
                other => panic!("{other:?}"),
            };
            self.engine.handle(NOW, input).unwrap();
        }
    }
}

/// One exchange. `binding` is what the issuer sees of the connection, and `own` what the machine sees; an
/// attacker between them ends both.
fn exchange(
    issuer: &mut Issuer,
    evidence: &TpmEvidence,
    tpm: &mut Tpm,
    (binding, own): ([u8; 32], [u8; 32]),
) -> Result<X509Svid, IssuanceFailure> {
    let mut client = IssuanceClient::new(web(), RenewalOptions::default(), 7).tpm(evidence.to_bytes());
    client.handle(NOW, IssuanceClientInput::Timeout { wall: wall() }).unwrap();
    let mut challenged = false;
    while let Some(output) = client.poll_output() {
        let wall = wall();
        let input = match output {
            IssuanceClientOutput::Dial { exchange, with_svid } => {
                assert!(!with_svid);
                IssuanceClientInput::Connected { exchange, binding: own, wall }
            }
            IssuanceClientOutput::Send { exchange, bytes } => {
                let input = if challenged {
                    IssuanceServerInput::Response { id: 1, bytes }
                } else {
                    IssuanceServerInput::Request { id: 1, peer: None, binding, bytes, wall }
                };
                IssuanceClientInput::Answer { exchange, bytes: issuer.handle(input), wall }
            }
            IssuanceClientOutput::Challenged { exchange, challenge, binding } => {
                challenged = true;
                let challenge = TpmChallenge::from_bytes(&challenge).unwrap();
                let response = tpm.answer(&challenge, &binding).ok().map(|answer| answer.to_bytes());
                IssuanceClientInput::Response { exchange, response, wall }
            }
            IssuanceClientOutput::Install { svid, bundle, .. } => {
                assert_eq!(bundle, issuer.authority.bundle());
                return Ok(svid);
            }
            other => panic!("{other:?}"),
        };
        client.handle(NOW, input).unwrap();
    }
    Err(client.failure().unwrap().clone())
}

fn ek_selector(evidence: &TpmEvidence) -> String {
    let digits: String = evidence.ek_digest().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("tpm:ek:{digits}")
}

#[test]
fn a_machine_receives_an_svid_for_its_tpm() {
    let Some(simulator) = Simulator::start() else { return };
    let mut tpm = simulator.tpm();
    let evidence = tpm.evidence().unwrap();
    let mut issuer = Issuer::new(enrolled(&evidence), &ek_selector(&evidence));
    let svid = exchange(&mut issuer, &evidence, &mut tpm, ([1; 32], [1; 32])).unwrap();
    assert_eq!(svid.spiffe_id(), &web());
}

#[test]
fn a_machine_without_the_enrolled_tpm_is_refused_with_the_reason() {
    let (Some(ours), Some(theirs)) = (Simulator::start(), Simulator::start()) else { return };
    let (mut own_tpm, mut other_tpm) = (ours.tpm(), theirs.tpm());
    let (own, other) = (own_tpm.evidence().unwrap(), other_tpm.evidence().unwrap());
    let selector = ek_selector(&own);
    let bindings = ([1; 32], [1; 32]);
    let reason = |refused: Result<X509Svid, IssuanceFailure>| match refused.unwrap_err() {
        IssuanceFailure::Refused { text, .. } => text,
        failure => failure.to_string(),
    };
    // An EK that is not enrolled.
    let mut issuer = Issuer::new(enrolled(&own), &selector);
    let why = reason(exchange(&mut issuer, &other, &mut other_tpm, bindings));
    assert!(why.contains("is not enrolled"), "{why}");
    // An AK of another TPM: the TPM with the EK does not give the secret out.
    let refused = exchange(&mut issuer, &mixed(&own, &other), &mut own_tpm, bindings).unwrap_err();
    assert_eq!(refused, IssuanceFailure::Challenge);
    // A relayed challenge: the quote is over another connection.
    let mut issuer = Issuer::new(enrolled(&own), &selector);
    let why = reason(exchange(&mut issuer, &own, &mut own_tpm, ([1; 32], [2; 32])));
    assert!(why.contains("replay"), "{why}");
    // A TPM that is enrolled, and that no entry names.
    let mut issuer = Issuer::new(enrolled(&own), &ek_selector(&other));
    let why = reason(exchange(&mut issuer, &own, &mut own_tpm, bindings));
    assert!(why.contains("no registration entry"), "{why}");
}
