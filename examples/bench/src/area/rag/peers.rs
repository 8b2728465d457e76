//! The systems, each in a process of its own.

use std::process::Command;

use anyhow::{Context, Result, bail};

use super::data::Data;
use super::{Options, Report, python, worker};

const SCRIPT: &str = include_str!("peers.py");

pub(crate) struct System {
    pub(crate) name: &'static str,
    kind: Kind,
}

enum Kind {
    /// A process of this program.
    Own(worker::System),
    Python {
        module: &'static str,
        package: &'static str,
    },
}

/// x0 first.
pub(crate) fn all() -> Vec<System> {
    let python = |name, module, package| System { name, kind: Kind::Python { module, package } };
    let own = |name, system| System { name, kind: Kind::Own(system) };
    vec![
        own("x0", worker::System::Memory),
        own("x0, exact vectors in a file", worker::System::Source),
        python("hnswlib", "hnswlib", "hnswlib"),
        python("faiss IndexHNSWFlat", "faiss", "faiss-cpu"),
        python("usearch i8", "usearch", "usearch"),
        own("usearch i8, its crate", worker::System::Usearch),
        own("hnsw_rs", worker::System::HnswRs),
    ]
}

impl System {
    pub(crate) fn measure(&self, options: &Options, data: &Data) -> Result<Report> {
        let numbers = [options.dimensions, options.m, options.ef_construction, options.rounds]
            .map(|number| number.to_string());
        let mut command = match self.kind {
            Kind::Own(system) => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg("rag-worker").arg(data.path()).args(&numbers).arg(options.seed.to_string());
                command.arg("--system").arg(system.argument());
                command
            }
            Kind::Python { module, package } => {
                let python = python::with(&["numpy", package])?;
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
