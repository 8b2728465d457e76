//! The issuer of a cluster: `x0-node issuer` issues and renews SVIDs over the network with the authority that
//! `init` wrote, and `x0-node entry` names the workloads.

pub(crate) mod commands;
pub(crate) mod entries;
mod serve;

pub(crate) use self::serve::{read_frame, write_frame};

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use x0_identity::tpm::{PendingTpm, TpmAnswer, TpmEvidence};
use x0_identity::{
    Authority, CaSigner, CaSignerOptions, CertificateRequest, Identity, IssuanceServer, IssuanceServerInput,
    IssuanceServerOptions, IssuanceServerOutput, IssueRequest, MemoryRegistry, PresentedEvidence, Proof,
    RegistrationEntry, RequestKey, SpiffeId, TrustBundle, TrustDomain, X509Svid,
};

use self::entries::Entries;
use crate::identity::revoke::revoked;
use crate::init::Layout;

/// Certificates become valid this long before they are issued: more than clocks differ.
const BACKDATE: Duration = Duration::from_secs(360);
/// The validity of the issuer's own SVID, which is never stored.
const OWN_VALIDITY: Duration = Duration::from_secs(24 * 3600);

/// The SPIFFE ID of the issuer of a trust domain.
pub(crate) fn issuer_id(trust_domain: &TrustDomain) -> Result<SpiffeId> {
    Ok(SpiffeId::from_segments(trust_domain, &["issuer"])?)
}

/// The settings of signing.
fn signer_options() -> CaSignerOptions {
    CaSignerOptions::default().backdate(BACKDATE)
}

/// Generates a key for an identity that this process keeps, and issues the identity to it.
pub(crate) fn sign(authority: &Authority, id: &SpiffeId, validity: Duration) -> Result<X509Svid> {
    let key = RequestKey::generate()?;
    let signer = CaSigner::new(authority.certificate().clone(), Vec::new(), signer_options())?;
    let request = CertificateRequest::from_der(key.request())?;
    let request = IssueRequest::new(id.clone(), request, validity);
    let entry = RegistrationEntry::new(id.clone(), validity);
    let unsigned = signer.begin(&entry, &request, SystemTime::now())?;
    let signature = authority.sign(unsigned.to_be_signed())?;
    Ok(key.into_svid(signer.finish(&unsigned, &signature)?)?)
}

/// The issuer: the folder of `init`, and an identity of its own.
#[derive(Debug, Clone)]
struct Issuer {
    layout: Layout,
    grace: Duration,
    identity: Identity,
    /// Requests are carried out one after the other: an entry is read and a token redeemed under it.
    turn: Arc<Mutex<()>>,
}

/// What was done with a request.
struct Answered {
    bytes: Vec<u8>,
    issued: Option<SpiffeId>,
}

/// The step after a request, or after the response to a challenge.
enum Step {
    Answered(Answered),
    /// A challenge, which the peer answers on its connection.
    Challenged {
        bytes: Vec<u8>,
        exchange: Box<Exchange>,
    },
}

/// A request that waits for the response to a challenge.
struct Exchange {
    issuer: Issuer,
    authority: Authority,
    engine: IssuanceServer<MemoryRegistry>,
    pending: Box<PendingTpm>,
}

/// The judgement of an attestor about evidence.
enum Verdict {
    Proved(Proof),
    Refused(String),
    Challenge(Vec<u8>, Box<PendingTpm>),
}

impl Issuer {
    fn open(layout: Layout, grace: Duration) -> Result<Issuer> {
        let (authority, bundle) = files(&layout)?;
        let own = sign(&authority, &issuer_id(authority.trust_domain())?, OWN_VALIDITY)?;
        let identity = Identity::new(own, bundle).with_context(|| {
            format!(
                "{} does not have the authority in {}: restore it, or add the authority to it",
                layout.bundle().display(),
                layout.authority().display()
            )
        })?;
        identity.set_revocations(revoked(&layout)?);
        Ok(Issuer { layout, grace, identity, turn: Arc::default() })
    }

    /// Reads the authority and the bundle again, and takes a new SVID.
    fn refresh(&self) -> Result<()> {
        let (authority, bundle) = files(&self.layout)?;
        let own = sign(&authority, self.identity.spiffe_id(), OWN_VALIDITY)?;
        Identity::new(own.clone(), bundle.clone()).context("the bundle does not have the authority")?;
        self.identity.set_bundle(bundle)?;
        Ok(self.identity.rotate(own)?)
    }

    /// Begins with one request. What is on disk is read each time, so that commands beside the issuer take
    /// effect.
    fn begin(&self, peer: Option<SpiffeId>, binding: [u8; 32], bytes: Vec<u8>) -> Result<Step> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let (authority, bundle) = files(&self.layout)?;
        self.identity.set_revocations(revoked(&self.layout)?);
        let mut entries = Entries::open(&self.layout)?;
        let wall = wall();
        let signer = CaSigner::new(authority.certificate().clone(), Vec::new(), signer_options())?;
        let options = IssuanceServerOptions::default();
        let mut engine = IssuanceServer::new(signer, entries.registry.clone(), bundle, options);
        let mut pending = None;
        engine.handle(Duration::ZERO, IssuanceServerInput::Request { id: 0, peer, binding, bytes, wall })?;
        loop {
            let input = match engine.poll_output().context("the engine of the issuer has no answer")? {
                IssuanceServerOutput::Attest { id, evidence, .. } => {
                    match self.attest(&mut entries, &evidence, SystemTime::UNIX_EPOCH + wall)? {
                        Verdict::Proved(proof) => IssuanceServerInput::Attested { id, proof, wall },
                        Verdict::Refused(why) => IssuanceServerInput::NotAttested { id, why },
                        Verdict::Challenge(challenge, of_tpm) => {
                            pending = Some(of_tpm);
                            IssuanceServerInput::Challenge { id, challenge }
                        }
                    }
                }
                IssuanceServerOutput::Challenge { bytes, .. } => {
                    let pending = pending.take().context("the engine of the issuer has no challenge")?;
                    let issuer = self.clone();
                    let exchange = Box::new(Exchange { issuer, authority, engine, pending });
                    return Ok(Step::Challenged { bytes, exchange });
                }
                output => match answer(&authority, output) {
                    Some(Next::Input(input)) => input,
                    Some(Next::Answered(answered)) => return Ok(Step::Answered(answered)),
                    None => continue,
                },
            };
            engine.handle(Duration::ZERO, input)?;
        }
    }

    /// What the evidence proves, or why it is not accepted. An error is one of this issuer.
    fn attest(
        &self,
        entries: &mut Entries,
        evidence: &PresentedEvidence,
        now: SystemTime,
    ) -> Result<Verdict> {
        Ok(match evidence {
            PresentedEvidence::JoinToken { token, public_key_info } => {
                match entries.tokens.redeem(token, public_key_info, now) {
                    Ok(selector) => {
                        // Before the answer: a token must not serve another key after a crash.
                        entries.save()?;
                        Verdict::Proved(Proof::Selectors([selector].into()))
                    }
                    Err(error) => Verdict::Refused(error.to_string()),
                }
            }
            PresentedEvidence::Svid(chain) => {
                let holder = self.identity.verifier().verify_with_grace(chain, self.grace, now);
                match holder {
                    Ok(holder) => Verdict::Proved(Proof::Holder(holder)),
                    Err(error) => Verdict::Refused(format!("the earlier SVID: {error:?}")),
                }
            }
            PresentedEvidence::Tpm { evidence, binding } => {
                let begun = TpmEvidence::from_bytes(evidence).map_err(|error| error.to_string());
                let begun = begun.and_then(|evidence| {
                    entries.enrolled().begin(&evidence, binding).map_err(|error| error.to_string())
                });
                match begun {
                    Ok((challenge, pending)) => Verdict::Challenge(challenge.to_bytes(), Box::new(pending)),
                    Err(why) => Verdict::Refused(why),
                }
            }
            _ => Verdict::Refused("the issuer has no attestor for this evidence".to_owned()),
        })
    }
}

impl Exchange {
    /// Answers with the response to the challenge.
    fn respond(mut self, bytes: Vec<u8>) -> Result<Answered> {
        let _turn = self.issuer.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // An entry may have been removed meanwhile.
        *self.engine.registry_mut() = Entries::open(&self.issuer.layout)?.registry;
        let (mut pending, wall) = (Some(self.pending), wall());
        self.engine.handle(Duration::ZERO, IssuanceServerInput::Response { id: 0, bytes })?;
        loop {
            let output = self.engine.poll_output().context("the engine of the issuer has no answer")?;
            let input = match output {
                IssuanceServerOutput::Examine { id, response } => {
                    let pending = pending.take().context("the engine of the issuer examines twice")?;
                    let examined = TpmAnswer::from_bytes(&response).map_err(|error| error.to_string());
                    let examined = examined
                        .and_then(|answer| pending.finish(&answer).map_err(|error| error.to_string()));
                    match examined {
                        Ok(selectors) => {
                            let proof = Proof::Selectors(selectors);
                            IssuanceServerInput::Attested { id, proof, wall }
                        }
                        Err(why) => IssuanceServerInput::NotAttested { id, why },
                    }
                }
                output => match answer(&self.authority, output) {
                    Some(Next::Input(input)) => input,
                    Some(Next::Answered(answered)) => return Ok(answered),
                    None => continue,
                },
            };
            self.engine.handle(Duration::ZERO, input)?;
        }
    }
}

/// The step after an output that needs no attestor.
enum Next {
    Input(IssuanceServerInput),
    Answered(Answered),
}

fn answer(authority: &Authority, output: IssuanceServerOutput) -> Option<Next> {
    match output {
        IssuanceServerOutput::Sign { id, to_be_signed } => {
            let signature = authority.sign(&to_be_signed).ok();
            Some(Next::Input(IssuanceServerInput::Signed { id, signature }))
        }
        IssuanceServerOutput::Answer { bytes, issued, .. } => {
            Some(Next::Answered(Answered { bytes, issued }))
        }
        _ => None,
    }
}

fn wall() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// The authority that signs, and the bundle that workloads receive.
fn files(layout: &Layout) -> Result<(Authority, TrustBundle)> {
    let authority = crate::init::authority(layout)?;
    let bundle = crate::identity::load_bundle(authority.trust_domain().clone(), &layout.bundle())?;
    Ok((authority, bundle))
}
