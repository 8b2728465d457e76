//! The issuer of a cluster: `x0-node issuer` issues and renews SVIDs over the network with the authority that
//! `init` wrote, and `x0-node entry` names the workloads.

pub(crate) mod commands;
pub(crate) mod entries;
mod serve;

pub(crate) use self::serve::{read_frame, write_frame};

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use rustls::pki_types::CertificateDer;
use x0_identity::{
    Attestation, Attestor, Attestors, Authority, CaSigner, CaSignerOptions, CertificateRequest, EvidenceKind,
    Identity, IssuanceServer, IssuanceServerInput, IssuanceServerOptions, IssuanceServerOutput, IssueRequest,
    MemoryRegistry, PeerRole, PresentedEvidence, RegistrationEntry, RequestKey, SpiffeId, SvidAttestor,
    TrustBundle, TrustDomain, X509Svid,
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
    attestors: FolderAttestors,
}

/// The attestors of the folder of `init`.
struct FolderAttestors {
    attestors: Attestors,
    entries: Arc<Mutex<Locked>>,
}

/// The entries that a request is decided by, locked until it is, and the error of this issuer that is not for
/// the workload.
struct Locked {
    entries: Option<Entries>,
    failure: Option<anyhow::Error>,
}

/// The join tokens of the folder. A redeemed one is written before the answer: a token must not serve another
/// key after a crash.
struct FolderTokens(Arc<Mutex<Locked>>);

impl Attestor for FolderTokens {
    fn kind(&self) -> EvidenceKind {
        EvidenceKind::JoinToken
    }

    fn attest(&mut self, evidence: &PresentedEvidence, now: SystemTime) -> Attestation {
        let mut locked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Locked { entries, failure } = &mut *locked;
        let Some(entries) = entries else {
            return Attestation::Refused("the request is over: send it again".to_owned());
        };
        let attestation = Attestor::attest(&mut entries.tokens, evidence, now);
        if matches!(attestation, Attestation::Proved(_))
            && let Err(error) = entries.save()
        {
            *failure = Some(error);
            return Attestation::Refused("the issuer cannot use its join tokens: try again later".to_owned());
        }
        attestation
    }
}

impl FolderAttestors {
    /// The attestors by the entries as they are now, which stay locked.
    fn new(issuer: &Issuer, entries: Entries) -> FolderAttestors {
        let enrolled = entries.enrolled();
        let entries = Arc::new(Mutex::new(Locked { entries: Some(entries), failure: None }));
        let attestors = Attestors::new()
            .with(FolderTokens(Arc::clone(&entries)))
            .with(SvidAttestor::new(issuer.identity.verifier(), issuer.grace))
            .with(enrolled);
        FolderAttestors { attestors, entries }
    }

    /// Answers outputs of the engine until one is for the peer. The entries are unlocked then.
    fn drive(
        &mut self,
        engine: &mut IssuanceServer<MemoryRegistry>,
        authority: &Authority,
    ) -> Result<IssuanceServerOutput> {
        loop {
            let input = match engine.poll_output().context("the engine of the issuer has no answer")? {
                IssuanceServerOutput::Attest { id, evidence, .. } => {
                    self.attestors.attest(id, &evidence, wall())
                }
                IssuanceServerOutput::Examine { id, response } => {
                    self.attestors.examine(id, &response, wall())
                }
                IssuanceServerOutput::Sign { id, to_be_signed } => {
                    IssuanceServerInput::Signed { id, signature: authority.sign(&to_be_signed).ok() }
                }
                output => {
                    self.entries.lock().unwrap_or_else(PoisonError::into_inner).entries = None;
                    return Ok(output);
                }
            };
            let failure = self.entries.lock().unwrap_or_else(PoisonError::into_inner).failure.take();
            if let Some(error) = failure {
                return Err(error);
            }
            engine.handle(Duration::ZERO, input)?;
        }
    }
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

    /// Whether the SVID of a connection would be accepted now, with the revocations that are on disk.
    fn admit(&self, chain: &[CertificateDer<'_>]) -> Result<()> {
        self.identity.set_revocations(revoked(&self.layout)?);
        let admitted = self.identity.admit(chain, PeerRole::Client, SystemTime::now());
        admitted.map(drop).context("the SVID of the connection is not valid any more")
    }

    /// Begins with one request. What is on disk is read each time, so that commands beside the issuer take
    /// effect.
    fn begin(&self, peer: Option<SpiffeId>, binding: [u8; 32], bytes: Vec<u8>) -> Result<Step> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let (authority, bundle) = files(&self.layout)?;
        self.identity.set_revocations(revoked(&self.layout)?);
        let entries = Entries::open(&self.layout)?;
        let signer = CaSigner::new(authority.certificate().clone(), Vec::new(), signer_options())?;
        let options = IssuanceServerOptions::default();
        let mut engine = IssuanceServer::new(signer, entries.registry.clone(), bundle, options);
        let mut attestors = FolderAttestors::new(self, entries);
        let wall = wall();
        engine.handle(Duration::ZERO, IssuanceServerInput::Request { id: 0, peer, binding, bytes, wall })?;
        match attestors.drive(&mut engine, &authority)? {
            IssuanceServerOutput::Challenge { bytes, .. } => {
                let issuer = self.clone();
                let exchange = Box::new(Exchange { issuer, authority, engine, attestors });
                Ok(Step::Challenged { bytes, exchange })
            }
            output => Ok(Step::Answered(answered(output)?)),
        }
    }
}

impl Exchange {
    /// Answers with the response to the challenge.
    fn respond(mut self, bytes: Vec<u8>) -> Result<Answered> {
        let _turn = self.issuer.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // An entry may have been removed meanwhile.
        *self.engine.registry_mut() = Entries::open(&self.issuer.layout)?.registry;
        self.engine.handle(Duration::ZERO, IssuanceServerInput::Response { id: 0, bytes })?;
        answered(self.attestors.drive(&mut self.engine, &self.authority)?)
    }
}

/// What the peer is answered.
fn answered(output: IssuanceServerOutput) -> Result<Answered> {
    match output {
        IssuanceServerOutput::Answer { bytes, issued, .. } => Ok(Answered { bytes, issued }),
        // A challenge has one response.
        _ => bail!("the engine of the issuer has no answer"),
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
