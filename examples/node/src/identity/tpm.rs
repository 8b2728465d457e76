//! The TPM of this machine: attestation where `[issuer]` of node.toml names it, and the digests by which an
//! operator enrolls it.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use x0_identity::Selector;
use x0_identity::tpm::{EndorsementAlgorithm, Tpm, TpmAttestor, TpmChallenge, TpmEvidence};

use crate::issuer::entries::{hex, unhex};

/// The algorithm of the endorsement key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TpmKey {
    #[default]
    P256,
    Rsa2048,
}

/// Opens a device, or the socket of a simulator.
fn open(device: &Path, key: TpmKey) -> Result<Tpm> {
    let tpm = connect(device).with_context(|| {
        format!(
            "cannot use the TPM {}: check that it exists, and that this user may use it",
            device.display()
        )
    })?;
    Ok(tpm.endorsement(match key {
        TpmKey::P256 => EndorsementAlgorithm::P256,
        TpmKey::Rsa2048 => EndorsementAlgorithm::Rsa2048,
    }))
}

fn connect(device: &Path) -> Result<Tpm> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if std::fs::metadata(device)?.file_type().is_socket() {
            return Ok(Tpm::over(std::os::unix::net::UnixStream::connect(device)?));
        }
    }
    Ok(Tpm::open(device)?)
}

/// The keys of the TPM, as evidence for an issuer.
pub(crate) fn evidence(device: &Path, key: TpmKey) -> Result<Vec<u8>> {
    Ok(open(device, key)?.evidence()?.to_bytes())
}

/// The answer to the challenge of an issuer.
pub(crate) fn answer(device: &Path, key: TpmKey, challenge: &[u8], binding: &[u8; 32]) -> Result<Vec<u8>> {
    let challenge = TpmChallenge::from_bytes(challenge)?;
    Ok(open(device, key)?.answer(&challenge, binding)?.to_bytes())
}

/// The digests of the endorsement key and of the registers 0 to 7, which a quote shows.
pub(crate) fn digests(device: &Path, key: TpmKey) -> Result<String> {
    let mut tpm = open(device, key)?;
    let evidence = TpmEvidence::from_bytes(&tpm.evidence()?.to_bytes())?;
    let mut attestor = TpmAttestor::new();
    attestor.enroll(evidence.ek_digest());
    let binding = [0; 32];
    let (challenge, pending) = attestor.begin(&evidence, &binding)?;
    let selectors = pending.finish(&tpm.answer(&challenge, &binding)?)?;
    let digest = |kind: &str| {
        let of_kind = |selector: &Selector| selector.to_string().strip_prefix(kind).map(str::to_owned);
        selectors.iter().find_map(of_kind).unwrap_or_default()
    };
    Ok(format!("--tpm-ek {} --tpm-pcrs {}\n", hex(&evidence.ek_digest()), digest("tpm:pcrs:")))
}

/// The selectors of an entry for a TPM, by its digests.
pub(crate) fn selectors(ek: &str, registers: Option<&str>) -> Result<Vec<Selector>> {
    let mut selectors = Vec::new();
    for (kind, digest) in [("ek", Some(ek)), ("pcrs", registers)] {
        let Some(digest) = digest else { continue };
        let Ok(bytes) = unhex(digest) else {
            bail!("`{digest}` is not a digest of a TPM: `x0-node entry tpm` prints 64 hexadecimal digits")
        };
        // As the attestor writes it, whatever the case of the digits was.
        selectors.push(Selector::parse(&format!("tpm:{kind}:{}", hex(&bytes)))?);
    }
    Ok(selectors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_become_selectors() {
        let (ek, registers) = ("AB".repeat(32), "01".repeat(32));
        let texts = |selectors: Vec<Selector>| selectors.iter().map(ToString::to_string).collect::<Vec<_>>();
        let both = texts(selectors(&ek, Some(&registers)).unwrap());
        assert_eq!(both, [format!("tpm:ek:{}", "ab".repeat(32)), format!("tpm:pcrs:{registers}")]);
        assert_eq!(texts(selectors(&ek, None).unwrap()).len(), 1);
        let error = selectors("12", None).unwrap_err().to_string();
        assert!(error.contains("x0-node entry tpm"), "{error}");
    }

    #[test]
    fn a_tpm_that_is_not_there_is_named() {
        let error = format!("{:?}", evidence(Path::new("/nonexistent/tpm"), TpmKey::P256).unwrap_err());
        assert!(error.contains("/nonexistent/tpm"), "{error}");
    }
}
