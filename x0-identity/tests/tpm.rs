//! Attestation by a TPM 2.0, against `swtpm`, the software TPM, over its socket.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers as well"
)]
#![allow(clippy::print_stdout, reason = "a test that is skipped says so, in its helpers as well")]
#![cfg(unix)]

use std::io::{self, Cursor, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

#[path = "tpm/issuance.rs"]
mod issuance;

use proptest::prelude::*;
use x0_identity::Selector;
use x0_identity::tpm::{
    EndorsementAlgorithm, Tpm, TpmAnswer, TpmAttestError, TpmAttestor, TpmChallenge, TpmError, TpmEvidence,
    TpmMessageError,
};

const BINDING: [u8; 32] = [7; 32];

/// A software TPM with a seed of its own.
struct Simulator {
    process: Child,
    folder: tempfile::TempDir,
}

impl Simulator {
    /// `None` without swtpm, outside of CI.
    fn start() -> Option<Simulator> {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
        let started = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
            .arg("--tpmstate")
            .arg(format!("dir={}", folder.path().to_str().unwrap()))
            .arg("--server")
            .arg(format!("type=unixio,path={}", path("socket")))
            .spawn();
        let Ok(process) = started else {
            assert!(std::env::var_os("CI").is_none(), "CI installs swtpm");
            println!("skipped: there is no swtpm; install the package");
            return None;
        };
        Some(Simulator { process, folder })
    }

    fn tpm(&self) -> Tpm {
        let begun = Instant::now();
        loop {
            match UnixStream::connect(self.folder.path().join("socket")) {
                Ok(stream) => return Tpm::over(stream),
                Err(error) => {
                    assert!(begun.elapsed() < Duration::from_secs(30), "swtpm did not start: {error}");
                }
            }
            std::thread::yield_now();
        }
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn enrolled(evidence: &TpmEvidence) -> TpmAttestor {
    let mut attestor = TpmAttestor::new();
    attestor.enroll(evidence.ek_digest());
    attestor
}

#[test]
fn a_tpm_attests() {
    let Some(simulator) = Simulator::start() else { return };
    let mut tpm = simulator.tpm();
    let evidence = tpm.evidence().unwrap();
    // The same keys each time, from the seed of the TPM.
    assert_eq!(tpm.evidence().unwrap(), evidence);
    let mut attestor = enrolled(&evidence);
    let mut seen = Vec::new();
    for _ in 0..3 {
        let evidence = TpmEvidence::from_bytes(&evidence.to_bytes()).unwrap();
        let (challenge, pending) = attestor.begin(&evidence, &BINDING).unwrap();
        let challenge = TpmChallenge::from_bytes(&challenge.to_bytes()).unwrap();
        let answer = tpm.answer(&challenge, &BINDING).unwrap();
        let answer = TpmAnswer::from_bytes(&answer.to_bytes()).unwrap();
        seen.push(pending.finish(&answer).unwrap());
    }
    let ek: String = evidence.ek_digest().iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(seen[0].contains(&Selector::parse(&format!("tpm:ek:{ek}")).unwrap()), "{seen:?}");
    assert_eq!(seen[0].len(), 2);
    assert_eq!(seen[0], seen[2]);
    assert!(attestor.remove(&evidence.ek_digest()));
    assert!(
        matches!(attestor.begin(&evidence, &BINDING), Err(TpmAttestError::NotEnrolled { ek: named }) if named == ek)
    );
}

/// The same with an EK of RSA: another key of the same TPM, which is enrolled by a digest of its own.
#[test]
fn a_tpm_attests_by_its_rsa_key() {
    let Some(simulator) = Simulator::start() else { return };
    let of_p256 = {
        let mut tpm = simulator.tpm();
        tpm.evidence().unwrap()
    };
    let mut tpm = simulator.tpm().endorsement(EndorsementAlgorithm::Rsa2048);
    let evidence = tpm.evidence().unwrap();
    assert_eq!(tpm.evidence().unwrap(), evidence);
    assert_ne!(evidence.ek_digest(), of_p256.ek_digest());
    let refused = enrolled(&of_p256).begin(&evidence, &BINDING).unwrap_err();
    assert!(refused.to_string().contains("is not enrolled"), "{refused}");

    let attestor = enrolled(&evidence);
    for _ in 0..3 {
        let evidence = TpmEvidence::from_bytes(&evidence.to_bytes()).unwrap();
        let (challenge, pending) = attestor.begin(&evidence, &BINDING).unwrap();
        let challenge = TpmChallenge::from_bytes(&challenge.to_bytes()).unwrap();
        let selectors = pending.finish(&tpm.answer(&challenge, &BINDING).unwrap()).unwrap();
        let ek: String = evidence.ek_digest().iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(selectors.contains(&Selector::parse(&format!("tpm:ek:{ek}")).unwrap()), "{selectors:?}");
    }
    // A changed seed decrypts to another one, or not at all; a replayed answer is refused as with P-256.
    let (challenge, pending) = attestor.begin(&evidence, &BINDING).unwrap();
    let mut changed = challenge.to_bytes();
    let last_of_seed = changed.len() - 34 - 1;
    changed[last_of_seed] ^= 1;
    let changed = TpmChallenge::from_bytes(&changed).unwrap();
    let refused = tpm.answer(&changed, &BINDING).unwrap_err();
    assert!(matches!(refused, TpmError::AnotherTpm { .. }), "{refused}");
    let (first, _) = attestor.begin(&evidence, &BINDING).unwrap();
    let old = parts(&tpm.answer(&first, &BINDING).unwrap());
    let new = parts(&tpm.answer(&challenge, &BINDING).unwrap());
    let replayed = answer_of([&new[0], &old[1], &old[2]]);
    assert_eq!(pending.finish(&replayed), Err(TpmAttestError::ReplayedQuote));
}

#[test]
fn an_rsa_key_of_another_tpm_is_refused() {
    let (Some(ours), Some(theirs)) = (Simulator::start(), Simulator::start()) else { return };
    let rsa = |simulator: &Simulator| simulator.tpm().endorsement(EndorsementAlgorithm::Rsa2048);
    let (mut our_tpm, mut their_tpm) = (rsa(&ours), rsa(&theirs));
    let (own, other) = (our_tpm.evidence().unwrap(), their_tpm.evidence().unwrap());
    let attestor = enrolled(&own);
    assert!(matches!(attestor.begin(&other, &BINDING), Err(TpmAttestError::NotEnrolled { .. })));
    let (challenge, pending) = attestor.begin(&mixed(&own, &other), &BINDING).unwrap();
    for tpm in [&mut our_tpm, &mut their_tpm] {
        let refused = tpm.answer(&challenge, &BINDING).unwrap_err();
        assert!(matches!(refused, TpmError::AnotherTpm { .. }), "{refused}");
    }
    let (of_other, _) = enrolled(&other).begin(&other, &BINDING).unwrap();
    let guessed = their_tpm.answer(&of_other, &BINDING).unwrap();
    assert_eq!(pending.finish(&guessed), Err(TpmAttestError::AnotherTpm));
}

#[test]
fn a_tpm_that_is_not_enrolled_is_refused() {
    let (Some(ours), Some(theirs)) = (Simulator::start(), Simulator::start()) else { return };
    let attestor = enrolled(&ours.tpm().evidence().unwrap());
    let evidence = theirs.tpm().evidence().unwrap();
    let refused = attestor.begin(&evidence, &BINDING).unwrap_err();
    assert!(refused.to_string().contains("is not enrolled"), "{refused}");
}

/// The evidence with the EK of one TPM and the AK of another.
fn mixed(ek: &TpmEvidence, ak: &TpmEvidence) -> TpmEvidence {
    let part = |bytes: Vec<u8>, second: bool| {
        let len = 2 + usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
        if second { bytes[len..].to_vec() } else { bytes[..len].to_vec() }
    };
    TpmEvidence::from_bytes(&[part(ek.to_bytes(), false), part(ak.to_bytes(), true)].concat()).unwrap()
}

#[test]
fn an_attestation_key_of_another_tpm_is_refused() {
    let (Some(ours), Some(theirs)) = (Simulator::start(), Simulator::start()) else { return };
    let (mut ours, mut theirs) = (ours.tpm_and_keep(), theirs.tpm_and_keep());
    let (own, other) = (ours.0.evidence().unwrap(), theirs.0.evidence().unwrap());
    let attestor = enrolled(&own);
    let (challenge, pending) = attestor.begin(&mixed(&own, &other), &BINDING).unwrap();
    // Neither TPM gives the secret out: the one lacks the AK, the other the EK.
    for tpm in [&mut ours.0, &mut theirs.0] {
        let refused = tpm.answer(&challenge, &BINDING).unwrap_err();
        assert!(matches!(refused, TpmError::AnotherTpm { .. }), "{refused}");
    }
    // So the machine can only guess it; its quote is genuine.
    let honest = enrolled(&other);
    let (of_other, _) = honest.begin(&other, &BINDING).unwrap();
    let answer = theirs.0.answer(&of_other, &BINDING).unwrap();
    assert_eq!(pending.finish(&answer), Err(TpmAttestError::AnotherTpm));
}

impl Simulator {
    fn tpm_and_keep(self) -> (Tpm, Simulator) {
        (self.tpm(), self)
    }
}

/// The parts of an answer: secret, quote, signature.
fn parts(answer: &TpmAnswer) -> [Vec<u8>; 3] {
    let bytes = answer.to_bytes();
    let mut rest = &bytes[..];
    std::array::from_fn(|_| {
        let len = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
        let part = rest[2..2 + len].to_vec();
        rest = &rest[2 + len..];
        part
    })
}

fn answer_of(parts: [&[u8]; 3]) -> TpmAnswer {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend(u16::try_from(part.len()).unwrap().to_be_bytes());
        bytes.extend(part);
    }
    TpmAnswer::from_bytes(&bytes).unwrap()
}

#[test]
fn a_quote_serves_one_attestation_and_one_connection() {
    let Some(simulator) = Simulator::start() else { return };
    let mut tpm = simulator.tpm();
    let evidence = tpm.evidence().unwrap();
    let attestor = enrolled(&evidence);
    let (first, first_pending) = attestor.begin(&evidence, &BINDING).unwrap();
    let (second, second_pending) = attestor.begin(&evidence, &BINDING).unwrap();
    let (old, new) =
        (parts(&tpm.answer(&first, &BINDING).unwrap()), parts(&tpm.answer(&second, &BINDING).unwrap()));
    // The right secret, and a quote that was recorded.
    let replayed = answer_of([&new[0], &old[1], &old[2]]);
    assert_eq!(second_pending.finish(&replayed), Err(TpmAttestError::ReplayedQuote));
    // A quote over another connection: a machine in the middle passes the challenge on.
    let elsewhere = tpm.answer(&first, &[8; 32]).unwrap();
    assert_eq!(first_pending.finish(&elsewhere), Err(TpmAttestError::ReplayedQuote));
    // The answer of the first attestation for a third one.
    let (_, third_pending) = attestor.begin(&evidence, &BINDING).unwrap();
    let stale = answer_of([&old[0], &old[1], &old[2]]);
    assert_eq!(third_pending.finish(&stale), Err(TpmAttestError::AnotherTpm));
    // A quote that was changed.
    let (fourth, fourth_pending) = attestor.begin(&evidence, &BINDING).unwrap();
    let mut changed = parts(&tpm.answer(&fourth, &BINDING).unwrap());
    *changed[1].last_mut().unwrap() ^= 1;
    let changed = answer_of([&changed[0], &changed[1], &changed[2]]);
    assert_eq!(fourth_pending.finish(&changed), Err(TpmAttestError::QuoteSignature));
}

#[test]
fn messages_are_bounded_and_strict() {
    let too_long = TpmEvidence::from_bytes(&[0; 5000]);
    assert_eq!(too_long.unwrap_err(), TpmMessageError::Length { len: 5000 });
    let malformed = |position| TpmMessageError::Malformed { position };
    assert_eq!(TpmEvidence::from_bytes(&[]).unwrap_err(), malformed(0));
    assert_eq!(TpmEvidence::from_bytes(&[0, 1, 9, 0, 0, 1]).unwrap_err(), malformed(5));
    assert_eq!(TpmEvidence::from_bytes(&[0, 0, 0, 0]).unwrap_err(), TpmMessageError::EndorsementKey);
    assert!(TpmChallenge::from_bytes(&[0, 0, 0, 0, 0, 1, 7]).is_err());
    assert!(TpmAnswer::from_bytes(&[0, 0, 0, 0, 0, 1, 7]).is_err());
}

/// A device that answers with given bytes.
struct Device(Cursor<Vec<u8>>);

impl Read for Device {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Device {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_device_that_fails_is_named() {
    assert!(matches!(Tpm::open("/nonexistent/tpm"), Err(TpmError::Device { .. })));
    let answering = |bytes: &[u8]| Tpm::over(Device(Cursor::new(bytes.to_vec()))).evidence().unwrap_err();
    // TPM_RC_AUTH_FAIL for session 1.
    let refused = answering(&[0x80, 1, 0, 0, 0, 10, 0, 0, 9, 0x8e]);
    assert_eq!(
        refused.to_string(),
        "TPM2_CreatePrimary failed with code 0x98e: check that the endorsement hierarchy has no password"
    );
    assert!(matches!(
        answering(&[0x80, 1, 0, 0, 0, 9]),
        TpmError::Response { command: "TPM2_CreatePrimary" }
    ));
    assert!(matches!(answering(&[0x80, 1, 0, 0, 0xff, 0xff]), TpmError::Response { .. }));
    assert!(matches!(answering(&[0x80, 2, 0, 0, 0, 10, 0, 0, 0, 0]), TpmError::Response { .. }));
    assert!(matches!(answering(&[0x80, 2, 0, 0]), TpmError::Device { .. }));
}

proptest! {
    /// Whatever a device or a machine sends: no panic.
    #[test]
    fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), framed in any::<bool>()) {
        let mut response = bytes.clone();
        if framed {
            let len = u32::try_from(bytes.len() + 10).unwrap().to_be_bytes();
            response = [&[0x80, 2][..], &len, &[0; 4], &bytes].concat();
        }
        let refused = Tpm::over(Device(Cursor::new(response))).evidence();
        prop_assert!(refused.is_err());
        prop_assert!(TpmEvidence::from_bytes(&bytes).is_err());
        if let Ok(challenge) = TpmChallenge::from_bytes(&bytes) {
            prop_assert_eq!(challenge.to_bytes(), bytes.clone());
        }
        if let Ok(answer) = TpmAnswer::from_bytes(&bytes) {
            prop_assert_eq!(answer.to_bytes(), bytes);
        }
    }
}
