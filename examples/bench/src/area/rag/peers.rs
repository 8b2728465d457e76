//! The systems, each in a process of its own. The Python ones share a virtual environment in x0-bench's
//! folder.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::data::Data;
use super::{Options, Report};
use crate::peer::debian;
use crate::process::find_program;

const SCRIPT: &str = include_str!("peers.py");

pub(crate) struct System {
    pub(crate) name: &'static str,
    kind: Kind,
}

enum Kind {
    X0 { source: bool },
    Python { module: &'static str, package: &'static str },
}

/// x0 first.
pub(crate) fn all() -> Vec<System> {
    let python = |name, module, package| System { name, kind: Kind::Python { module, package } };
    vec![
        System { name: "x0", kind: Kind::X0 { source: false } },
        System { name: "x0, exact vectors in a file", kind: Kind::X0 { source: true } },
        python("hnswlib", "hnswlib", "hnswlib"),
        python("faiss IndexHNSWFlat", "faiss", "faiss-cpu"),
        python("usearch i8", "usearch", "usearch"),
    ]
}

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
    let python = root.join("bin/python");
    run(Command::new(&python).args(["-m", "pip", "-q", "install", "numpy"]))?;
    Ok(python)
}

fn run(command: &mut Command) -> Result<()> {
    let output =
        command.output().with_context(|| format!("cannot start {}", command.get_program().display()))?;
    if !output.status.success() {
        bail!(
            "{} failed: {}",
            command.get_program().display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

impl System {
    pub(crate) fn measure(&self, options: &Options, data: &Data) -> Result<Report> {
        let numbers = [options.dimensions, options.m, options.ef_construction, options.rounds]
            .map(|number| number.to_string());
        let mut command = match self.kind {
            Kind::X0 { source } => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg("rag-worker").arg(data.path()).args(&numbers).arg(options.seed.to_string());
                command.args(source.then_some("--source"));
                command
            }
            Kind::Python { module, package } => {
                let python = environment()?;
                let is_there = Command::new(&python).args(["-c", &format!("import {module}")]).output()?;
                if !is_there.status.success() {
                    run(Command::new(&python).args(["-m", "pip", "-q", "install", package]))
                        .with_context(|| format!("cannot install {package}"))?;
                }
                let mut command = Command::new(python);
                command.args(["-c", SCRIPT, module]).arg(data.path()).args(&numbers);
                command.env("OMP_NUM_THREADS", "1");
                command
            }
        };
        let output = command.output().with_context(|| format!("cannot start {}", self.name))?;
        if !output.status.success() {
            bail!("{} failed: {}", self.name, String::from_utf8_lossy(&output.stderr).trim());
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().last().context("the worker printed nothing")?;
        serde_json::from_str(line).context("the worker printed no report")
    }
}
