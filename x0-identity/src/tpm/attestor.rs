//! The issuer's side.

use std::boxed::Box;
use std::collections::BTreeSet;
use std::format;
use std::string::{String, ToString};
use std::time::SystemTime;
use std::vec::Vec;

use aes::Aes128;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use ring::agreement::{ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{self, ECDSA_P256_SHA256_FIXED};

use super::message::{TpmAnswer, TpmChallenge, TpmEvidence};
use super::public::{ALG_SHA256, EndorsementKey, PublicKey, sha256};
use super::wire::{Reader, put_sized, sized};
use crate::attest::another_kind;
use crate::{Attestation, Attestor, EvidenceKind, PresentedEvidence, Proof, Selector};

/// `TPM_GENERATED_VALUE`: no other data that an AK signs begins so.
const GENERATED: u32 = 0xff54_4347;
const ST_ATTEST_QUOTE: u16 = 0x8018;

/// The TPMs that may attest, by the digests of their endorsement keys.
#[derive(Debug, Clone, Default)]
pub struct TpmAttestor {
    enrolled: BTreeSet<[u8; 32]>,
}

/// A machine was not attested.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TpmAttestError {
    /// The endorsement key is not enrolled.
    #[error(
        "the endorsement key {ek} is not enrolled: enroll it, after a check of where the machine is from"
    )]
    NotEnrolled {
        /// The digest of the endorsement key, in hexadecimal digits.
        ek: String,
    },
    /// The endorsement key is not a point of the curve.
    #[error("the endorsement key is not a point of P-256: check the machine")]
    EndorsementKey,
    /// The secret came back wrong: the AK is not in the TPM with the enrolled EK.
    #[error(
        "the attestation key is of another TPM than the enrolled endorsement key: make both keys in one TPM"
    )]
    AnotherTpm,
    /// The AK did not sign the quote.
    #[error("the quote is not signed by the attestation key: quote with the key that was presented")]
    QuoteSignature,
    /// The signed data is not a quote that a TPM made.
    #[error("the signed data is not a quote of a TPM over its SHA-256 registers: quote registers 0 to 7")]
    NotAQuote,
    /// The quote is of another exchange or another connection.
    #[error(
        "the quote is a replay: it is over the nonce of another attestation; quote over that of the challenge"
    )]
    ReplayedQuote,
    /// No random numbers.
    #[error("the system has no random numbers: try again")]
    Random,
}

/// An attestation that waits for the machine's answer. It serves once.
#[derive(Debug)]
pub struct PendingTpm {
    evidence: TpmEvidence,
    secret: [u8; 32],
    qualifying: [u8; 32],
}

impl TpmAttestor {
    /// Builds an attestor that knows no TPM.
    #[must_use]
    pub fn new() -> TpmAttestor {
        TpmAttestor::default()
    }

    /// Enrolls a TPM by the digest of its EK ([`TpmEvidence::ek_digest`]).
    pub fn enroll(&mut self, ek_digest: [u8; 32]) {
        self.enrolled.insert(ek_digest);
    }

    /// Ends the enrollment of a TPM. Returns whether it was enrolled.
    pub fn remove(&mut self, ek_digest: &[u8; 32]) -> bool {
        self.enrolled.remove(ek_digest)
    }

    /// Begins an attestation. `binding` is a secret of the connection (in TLS, exported keying material): a
    /// quote over one connection is a replay on another.
    ///
    /// # Errors
    /// [`TpmAttestError::NotEnrolled`], or that the key or the system cannot be used.
    pub fn begin(
        &self,
        evidence: &TpmEvidence,
        binding: &[u8; 32],
    ) -> Result<(TpmChallenge, PendingTpm), TpmAttestError> {
        let digest = evidence.ek_digest();
        if !self.enrolled.contains(&digest) {
            return Err(TpmAttestError::NotEnrolled { ek: hex(&digest) });
        }
        let random = SystemRandom::new();
        let (mut secret, mut nonce) = ([0; 32], [0; 32]);
        random.fill(&mut secret).map_err(|_| TpmAttestError::Random)?;
        random.fill(&mut nonce).map_err(|_| TpmAttestError::Random)?;
        let (credential, seed) = make_credential(&evidence.ek, &evidence.ak.name(), &secret, &random)?;
        let qualifying = qualifying(&nonce, binding);
        let pending = PendingTpm { evidence: evidence.clone(), secret, qualifying };
        Ok((TpmChallenge { credential, seed, nonce }, pending))
    }
}

/// What a quote of this attestation is over.
pub(super) fn qualifying(nonce: &[u8; 32], binding: &[u8; 32]) -> [u8; 32] {
    sha256(&[b"x0 tpm attestation 1", nonce, binding])
}

/// Begins an attestation with a challenge, and finishes it with the response.
impl Attestor for TpmAttestor {
    fn kind(&self) -> EvidenceKind {
        EvidenceKind::Tpm
    }

    fn attest(&mut self, evidence: &PresentedEvidence, _now: SystemTime) -> Attestation {
        let PresentedEvidence::Tpm { evidence, binding } = evidence else { return another_kind() };
        let begun = TpmEvidence::from_bytes(evidence)
            .map_err(|error| error.to_string())
            .and_then(|evidence| self.begin(&evidence, binding).map_err(|error| error.to_string()));
        match begun {
            Ok((challenge, pending)) => Attestation::Challenge {
                challenge: challenge.to_bytes(),
                examine: Box::new(move |response| pending.examine(response)),
            },
            Err(why) => Attestation::Refused(why),
        }
    }
}

impl PendingTpm {
    fn examine(self, response: &[u8]) -> Attestation {
        let finished = TpmAnswer::from_bytes(response)
            .map_err(|error| error.to_string())
            .and_then(|answer| self.finish(&answer).map_err(|error| error.to_string()));
        match finished {
            Ok(selectors) => Attestation::Proved(Proof::Selectors(selectors)),
            Err(why) => Attestation::Refused(why),
        }
    }

    /// Checks the answer, and returns the selectors: `tpm:ek:` with the digest of the EK, and `tpm:pcrs:`
    /// with that of the registers 0 to 7.
    ///
    /// # Errors
    /// [`TpmAttestError`] names what is wrong.
    pub fn finish(self, answer: &TpmAnswer) -> Result<BTreeSet<Selector>, TpmAttestError> {
        // In constant time: the answer comes from outside.
        let own = hmac::Key::new(hmac::HMAC_SHA256, &self.secret);
        let tag = hmac::sign(&own, &self.secret);
        let presented = hmac::Key::new(hmac::HMAC_SHA256, &answer.secret);
        if hmac::verify(&presented, &self.secret, tag.as_ref()).is_err() {
            return Err(TpmAttestError::AnotherTpm);
        }
        let key = signature::UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.evidence.ak.point());
        if key.verify(&answer.quote, &answer.signature).is_err() {
            return Err(TpmAttestError::QuoteSignature);
        }
        let (qualifying, registers) = read_quote(&answer.quote).ok_or(TpmAttestError::NotAQuote)?;
        if qualifying != self.qualifying {
            return Err(TpmAttestError::ReplayedQuote);
        }
        let texts =
            [format!("tpm:ek:{}", hex(&self.evidence.ek_digest())), format!("tpm:pcrs:{}", hex(registers))];
        Ok(texts.iter().filter_map(|text| Selector::parse(text).ok()).collect())
    }
}

/// The qualifying data and the digest of registers 0 to 7 in a `TPMS_ATTEST` (part 2, §10.12.12).
fn read_quote(quote: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut reader = Reader::new(quote);
    if reader.u32()? != GENERATED || reader.u16()? != ST_ATTEST_QUOTE {
        return None;
    }
    let _qualified_signer = reader.sized()?;
    let qualifying = reader.sized()?;
    // Clock, counters of resets and restarts, whether the clock is safe, version of the firmware.
    reader.take(8 + 4 + 4 + 1 + 8)?;
    let selection = (reader.u32()?, reader.u16()?, reader.u8()?, reader.take(3)?);
    if selection != (1, ALG_SHA256, 3, &[0xff, 0, 0][..]) {
        return None;
    }
    let registers = reader.sized()?;
    (reader.is_empty() && registers.len() == 32).then_some((qualifying, registers))
}

/// `TPM2_MakeCredential` in software (part 1, §24): the `TPMS_ID_OBJECT`, and the encrypted seed.
fn make_credential(
    ek: &EndorsementKey,
    ak_name: &[u8],
    secret: &[u8; 32],
    random: &SystemRandom,
) -> Result<(Vec<u8>, Vec<u8>), TpmAttestError> {
    let (seed, encrypted_seed) = match ek {
        EndorsementKey::P256(key) => share_seed(key, random)?,
        EndorsementKey::Rsa2048(key) => {
            let mut seed = [0; 32];
            random.fill(&mut seed).map_err(|_| TpmAttestError::Random)?;
            let encrypted = key.encrypt(&seed, b"IDENTITY\0", random).ok_or(TpmAttestError::Random)?;
            (seed, encrypted)
        }
    };
    let mut key = [0; 16];
    key.copy_from_slice(&kdf(&seed, b"STORAGE\0", ak_name, 128)[..16]);
    let mut encrypted = sized(secret);
    encrypt(key, &mut encrypted);
    let integrity = hmac::Key::new(hmac::HMAC_SHA256, &kdf(&seed, b"INTEGRITY\0", &[], 256));
    let tag = hmac::sign(&integrity, &[&encrypted[..], ak_name].concat());
    let mut credential = sized(tag.as_ref());
    credential.extend(encrypted);
    Ok((credential, encrypted_seed))
}

/// A seed by ECDH with an ephemeral key, and its point (part 1, §C.6.1).
fn share_seed(ek: &PublicKey, random: &SystemRandom) -> Result<([u8; 32], Vec<u8>), TpmAttestError> {
    let ephemeral = EphemeralPrivateKey::generate(&ECDH_P256, random).map_err(|_| TpmAttestError::Random)?;
    let own = ephemeral.compute_public_key().map_err(|_| TpmAttestError::Random)?;
    let (x, y) = own.as_ref()[1..].split_at(32);
    // KDFe (part 1, §11.4.10.3).
    let seed = agree_ephemeral(ephemeral, &UnparsedPublicKey::new(&ECDH_P256, ek.point()), |shared| {
        sha256(&[&1_u32.to_be_bytes(), shared, b"IDENTITY\0", x, &ek.x])
    });
    let seed = seed.map_err(|_| TpmAttestError::EndorsementKey)?;
    let mut point = sized(x);
    put_sized(&mut point, y);
    Ok((seed, point))
}

/// KDFa (part 1, §11.4.10.2), for at most 256 bits. The label has its zero byte.
fn kdf(key: &[u8], label: &[u8], context: &[u8], bits: u32) -> [u8; 32] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let text = [&1_u32.to_be_bytes()[..], label, context, &bits.to_be_bytes()].concat();
    let mut out = [0; 32];
    out.copy_from_slice(hmac::sign(&key, &text).as_ref());
    out
}

/// AES-128 in CFB mode, from a vector of zeros. The key is used for this text only.
fn encrypt(key: [u8; 16], text: &mut [u8]) {
    let cipher = Aes128::new(&Array::from(key));
    let mut block = [0; 16];
    for piece in text.chunks_mut(16) {
        let mut stream = Array::from(block);
        cipher.encrypt_block(&mut stream);
        for (byte, mask) in piece.iter_mut().zip(&stream) {
            *byte ^= mask;
        }
        block[..piece.len()].copy_from_slice(piece);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
