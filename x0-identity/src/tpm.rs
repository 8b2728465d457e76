//! Attestation by a TPM 2.0: a machine proves that it holds the endorsement key (EK) of an enrolled TPM.
//!
//! [`TpmAttestor`] is the issuer's side and knows the enrolled TPMs by the digests of their EKs. [`Tpm`] is
//! the machine's side: it talks to `/dev/tpmrm0`, or to a simulator's socket, with commands that this crate
//! encodes itself. The exchange has two rounds:
//!
//! 1. The machine sends [`TpmEvidence`]: its EK and an attestation key (AK) of the same TPM.
//! 2. The issuer answers with a [`TpmChallenge`]: a secret that is encrypted for the EK and bound to the AK
//!    (TPM 2.0 Library part 1, §24, "credential protection"), and a nonce.
//! 3. The machine sends a [`TpmAnswer`]: the secret, which its TPM decrypts only if the AK is in it, and a
//!    quote of the platform registers over the nonce, signed by the AK.
//!
//! Over the network the exchange is part of issuing: `IssuanceClient::tpm` sends the evidence,
//! `IssuanceServerInput::Challenge` the challenge, and `IssuanceClientInput::Response` the answer, all on one
//! connection.
//!
//! Both keys are primary keys of the endorsement hierarchy: the TPM makes the same ones again from its seed,
//! so that nothing is stored. The AK is on P-256. The EK is on P-256 with the template L-2 of the TCG's EK
//! Credential Profile, or of RSA 2048 with L-1 ([`Tpm::endorsement`]); the issuer takes both.
//!
//! A quote says which software was started only if somebody knows the right values: the selector
//! `tpm:pcrs:` contains the digest of the registers 0 to 7, and a registration entry that names it admits a
//! machine in that state only.
//!
//! ```no_run
//! use x0_identity::tpm::{Tpm, TpmAttestor, TpmEvidence};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Once, on the machine: the digest for the operator.
//! let mut tpm = Tpm::open("/dev/tpmrm0")?;
//! let evidence = tpm.evidence()?;
//!
//! let mut attestor = TpmAttestor::new();
//! attestor.enroll(evidence.ek_digest());
//!
//! // On each attestation, over a connection with a secret of its own in `binding`.
//! let binding = [0; 32];
//! let (challenge, pending) = attestor.begin(&TpmEvidence::from_bytes(&evidence.to_bytes())?, &binding)?;
//! let answer = tpm.answer(&challenge, &binding)?;
//! let selectors = pending.finish(&answer)?; // tpm:ek:..., tpm:pcrs:...
//! # drop(selectors);
//! # Ok(())
//! # }
//! ```

mod attestor;
mod device;
mod message;
mod public;
mod rsa;
mod wire;

pub use attestor::{PendingTpm, TpmAttestError, TpmAttestor};
pub use device::{Tpm, TpmError};
pub use message::{TPM_MESSAGE_LEN_MAX, TpmAnswer, TpmChallenge, TpmEvidence, TpmMessageError};
pub use public::EndorsementAlgorithm;
