//! The issuer of a cluster: `x0-node issuer` issues and renews SVIDs over the network with the authority that
//! `init` wrote, and `x0-node entry` names the workloads.

pub(crate) mod commands;
pub(crate) mod entries;
mod serve;

pub(crate) use self::serve::{read_frame, write_frame};

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use x0_identity::{
    Authority, CaSigner, CaSignerOptions, CertificateRequest, Identity, IssuanceServer, IssuanceServerInput,
    IssuanceServerOptions, IssuanceServerOutput, IssueRequest, PresentedEvidence, Proof, RegistrationEntry,
    RequestKey, SpiffeId, TrustBundle, TrustDomain, X509Svid,
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

    /// Answers one request. What is on disk is read each time, so that commands beside the issuer take
    /// effect.
    fn answer(&self, peer: Option<SpiffeId>, binding: [u8; 32], bytes: Vec<u8>) -> Result<Answered> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let (authority, bundle) = files(&self.layout)?;
        self.identity.set_revocations(revoked(&self.layout)?);
        let mut entries = Entries::open(&self.layout)?;
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let signer = CaSigner::new(authority.certificate().clone(), Vec::new(), signer_options())?;
        let options = IssuanceServerOptions::default();
        let mut server = IssuanceServer::new(signer, entries.registry.clone(), bundle, options);
        let now = Duration::ZERO;
        server.handle(now, IssuanceServerInput::Request { id: 0, peer, binding, bytes, wall })?;
        loop {
            let input = match server.poll_output().context("the engine of the issuer has no answer")? {
                IssuanceServerOutput::Attest { id, evidence, .. } => {
                    match self.attest(&mut entries, &evidence, SystemTime::UNIX_EPOCH + wall)? {
                        Ok(proof) => IssuanceServerInput::Attested { id, proof, wall },
                        Err(why) => IssuanceServerInput::NotAttested { id, why },
                    }
                }
                IssuanceServerOutput::Sign { id, to_be_signed } => {
                    IssuanceServerInput::Signed { id, signature: authority.sign(&to_be_signed).ok() }
                }
                IssuanceServerOutput::Answer { bytes, issued, .. } => return Ok(Answered { bytes, issued }),
                _ => continue,
            };
            server.handle(now, input)?;
        }
    }

    /// What the evidence proves, or why it is not accepted. An error is one of this issuer.
    fn attest(
        &self,
        entries: &mut Entries,
        evidence: &PresentedEvidence,
        now: SystemTime,
    ) -> Result<Result<Proof, String>> {
        Ok(match evidence {
            PresentedEvidence::JoinToken { token, public_key_info } => {
                match entries.tokens.redeem(token, public_key_info, now) {
                    Ok(selector) => {
                        // Before the answer: a token must not serve another key after a crash.
                        entries.save()?;
                        Ok(Proof::Selectors([selector].into()))
                    }
                    Err(error) => Err(error.to_string()),
                }
            }
            PresentedEvidence::Svid(chain) => {
                let holder = self.identity.verifier().verify_with_grace(chain, self.grace, now);
                holder.map(Proof::Holder).map_err(|error| format!("the earlier SVID: {error:?}"))
            }
            _ => Err("the issuer has no attestor for this evidence".to_owned()),
        })
    }
}

/// The authority that signs, and the bundle that workloads receive.
fn files(layout: &Layout) -> Result<(Authority, TrustBundle)> {
    let authority = crate::init::authority(layout)?;
    let bundle = crate::identity::load_bundle(authority.trust_domain().clone(), &layout.bundle())?;
    Ok((authority, bundle))
}
