//! The seam between an issuer and what attests its workloads: one attestor for each kind of evidence.

use core::fmt;
use std::boxed::Box;
use std::collections::{BTreeMap, BTreeSet};
use std::string::{String, ToString};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use std::vec::Vec;

use super::JoinTokens;
use crate::{IssuanceServerInput, PresentedEvidence, Proof};

/// A kind of evidence, for which an issuer has one attestor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum EvidenceKind {
    /// A join token: [`JoinTokens`].
    JoinToken,
    /// An earlier SVID: `SvidAttestor`.
    Svid,
    /// The keys of a TPM: `tpm::TpmAttestor`.
    Tpm,
    /// A certificate of another authority, such as that of a device: `CertificateAttestor`.
    Certificate,
    /// The connection of a process on the same machine: `UnixAttestor`.
    Unix,
}

impl EvidenceKind {
    /// The kind of presented evidence.
    #[must_use]
    pub fn of(evidence: &PresentedEvidence) -> EvidenceKind {
        match evidence {
            PresentedEvidence::JoinToken { .. } => EvidenceKind::JoinToken,
            PresentedEvidence::Svid(_) => EvidenceKind::Svid,
            PresentedEvidence::Tpm { .. } => EvidenceKind::Tpm,
            PresentedEvidence::Certificate(_) => EvidenceKind::Certificate,
            PresentedEvidence::Unix(_) => EvidenceKind::Unix,
        }
    }
}

/// The examination of the response to a challenge, which has one response.
pub type Examine = Box<dyn FnOnce(&[u8]) -> Attestation + Send>;

/// The judgement of an attestor.
#[non_exhaustive]
pub enum Attestation {
    /// The evidence is good, and proves this.
    Proved(Proof),
    /// The workload has to answer a challenge first.
    Challenge {
        /// The challenge.
        challenge: Vec<u8>,
        /// The examination of the response.
        examine: Examine,
    },
    /// The evidence is not accepted: the reason and the remedy, for the operator of the workload.
    Refused(String),
}

/// An attestor of one kind of evidence. The engine of the issuer has checked proofs of possession: the
/// evidence is that of the workload that sent it.
///
/// # Contract
/// - [`Attestor::attest`] is called for evidence of [`Attestor::kind`] alone, and refuses any other.
/// - It decides from the evidence, the time and what it has: what an attestor proves is independent of the
///   requested SPIFFE ID. The registration entry says which selectors an ID needs.
/// - It does not block for longer than a signature check, or runs on a thread of its own.
pub trait Attestor: Send {
    /// The kind of evidence.
    fn kind(&self) -> EvidenceKind;

    /// Attests evidence, by the system's clock `now`.
    fn attest(&mut self, evidence: &PresentedEvidence, now: SystemTime) -> Attestation;
}

/// The attestors of an issuer. They answer the outputs of an [`IssuanceServer`](crate::IssuanceServer).
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use x0_identity::{Attestors, IssuanceServer, IssuanceServerOutput, JoinTokens, MemoryRegistry};
///
/// # fn run(server: &mut IssuanceServer<MemoryRegistry>, wall: Duration) -> Result<(), x0_identity::IssuanceServerError> {
/// let mut attestors = Attestors::new().with(JoinTokens::new());
/// while let Some(output) = server.poll_output() {
///     let input = match output {
///         IssuanceServerOutput::Attest { id, evidence, .. } => attestors.attest(id, &evidence, wall),
///         IssuanceServerOutput::Examine { id, response } => attestors.examine(id, &response, wall),
///         _ => continue, // sign, and send
///     };
///     server.handle(Duration::ZERO, input)?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Default)]
pub struct Attestors {
    by_kind: BTreeMap<EvidenceKind, Box<dyn Attestor>>,
    challenged: BTreeMap<u64, Examine>,
}

/// Challenges without a response that are kept; the oldest makes room.
const CHALLENGED_MAX: usize = 4096;

impl Attestors {
    /// Builds a set that accepts nothing.
    #[must_use]
    pub fn new() -> Attestors {
        Attestors::default()
    }

    /// Adds an attestor, in the place of the one for its kind.
    #[must_use]
    pub fn with(mut self, attestor: impl Attestor + 'static) -> Attestors {
        self.by_kind.insert(attestor.kind(), Box::new(attestor));
        self
    }

    /// The kinds that are accepted.
    pub fn kinds(&self) -> impl Iterator<Item = EvidenceKind> {
        self.by_kind.keys().copied()
    }

    /// The input that answers [`IssuanceServerOutput::Attest`](crate::IssuanceServerOutput::Attest). `wall`
    /// is the system's clock, since 1970.
    pub fn attest(&mut self, id: u64, evidence: &PresentedEvidence, wall: Duration) -> IssuanceServerInput {
        let attestation = match self.by_kind.get_mut(&EvidenceKind::of(evidence)) {
            Some(attestor) => attestor.attest(evidence, SystemTime::UNIX_EPOCH + wall),
            None => Attestation::Refused(
                "the issuer has no attestor for this evidence: present another kind, or add one".into(),
            ),
        };
        self.input(id, attestation, wall)
    }

    /// The input that answers [`IssuanceServerOutput::Examine`](crate::IssuanceServerOutput::Examine).
    pub fn examine(&mut self, id: u64, response: &[u8], wall: Duration) -> IssuanceServerInput {
        let attestation = match self.challenged.remove(&id) {
            Some(examine) => examine(response),
            None => Attestation::Refused("no challenge waits for this response: begin again".into()),
        };
        self.input(id, attestation, wall)
    }

    fn input(&mut self, id: u64, attestation: Attestation, wall: Duration) -> IssuanceServerInput {
        match attestation {
            Attestation::Proved(proof) => IssuanceServerInput::Attested { id, proof, wall },
            Attestation::Refused(why) => IssuanceServerInput::NotAttested { id, why },
            Attestation::Challenge { challenge, examine } => {
                if self.challenged.len() >= CHALLENGED_MAX {
                    self.challenged.pop_first();
                }
                self.challenged.insert(id, examine);
                IssuanceServerInput::Challenge { id, challenge }
            }
        }
    }
}

impl fmt::Debug for Attestors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.kinds()).finish()
    }
}

impl fmt::Debug for Attestation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Attestation::Proved(proof) => formatter.debug_tuple("Proved").field(proof).finish(),
            Attestation::Challenge { challenge, .. } => {
                formatter.debug_struct("Challenge").field("len", &challenge.len()).finish_non_exhaustive()
            }
            Attestation::Refused(why) => formatter.debug_tuple("Refused").field(why).finish(),
        }
    }
}

/// An attestor that the program changes while an issuer has it, such as join tokens that are issued later.
impl<A: Attestor> Attestor for Arc<Mutex<A>> {
    fn kind(&self) -> EvidenceKind {
        self.lock().unwrap_or_else(PoisonError::into_inner).kind()
    }

    fn attest(&mut self, evidence: &PresentedEvidence, now: SystemTime) -> Attestation {
        self.lock().unwrap_or_else(PoisonError::into_inner).attest(evidence, now)
    }
}

/// Refuses evidence of a kind that an attestor is not for.
pub(crate) fn another_kind() -> Attestation {
    Attestation::Refused("the evidence is of another kind than its attestor: correct the issuer".into())
}

/// Redeems the token, bound to the requested key. A store that outlives the process is written before the
/// answer is sent: wrap the tokens in an attestor that does.
impl Attestor for JoinTokens {
    fn kind(&self) -> EvidenceKind {
        EvidenceKind::JoinToken
    }

    fn attest(&mut self, evidence: &PresentedEvidence, now: SystemTime) -> Attestation {
        let PresentedEvidence::JoinToken { token, public_key_info } = evidence else { return another_kind() };
        match self.redeem(token, public_key_info, now) {
            Ok(selector) => Attestation::Proved(Proof::Selectors(BTreeSet::from([selector]))),
            Err(error) => Attestation::Refused(error.to_string()),
        }
    }
}
