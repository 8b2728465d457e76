//! The checkout: its root, its files and cargo's description of it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The checkout that this program was built from.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
}

/// The library crates of the family, in the order in which they are published.
pub(crate) const LIBRARIES: [&str; 8] =
    ["x0-identity", "x0-mesh", "x0-consensus", "x0-crdt", "x0-kv", "x0-ebpf", "x0-mapek", "x0-ml"];

impl Workspace {
    pub(crate) fn find() -> Result<Workspace> {
        let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
        let root =
            root.canonicalize().with_context(|| format!("cannot find the checkout at {}", root.display()))?;
        Ok(Workspace { root })
    }

    /// `cargo metadata` with these arguments.
    pub(crate) fn metadata(&self, arguments: &[&str]) -> Result<Value> {
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version", "1"])
            .args(arguments)
            .current_dir(&self.root)
            .output()
            .context("cannot run `cargo metadata`")?;
        if !output.status.success() {
            bail!("`cargo metadata` failed: {}", String::from_utf8_lossy(&output.stderr).trim_end());
        }
        serde_json::from_slice(&output.stdout).context("cannot parse the output of `cargo metadata`")
    }

    /// The files that git tracks and whose name ends with one of `endings`, relative to the root.
    pub(crate) fn files(&self, endings: &[&str]) -> Result<Vec<String>> {
        let output = Command::new("git")
            .args(["ls-files", "-z"])
            .current_dir(&self.root)
            .output()
            .context("cannot run `git ls-files`: install git")?;
        if !output.status.success() {
            bail!("`git ls-files` failed: {}", String::from_utf8_lossy(&output.stderr).trim_end());
        }
        let names = String::from_utf8(output.stdout).context("git lists a file name that is not UTF-8")?;
        let is_wanted = |name: &&str| {
            endings.iter().any(|ending| name.ends_with(ending)) && self.root.join(name).is_file()
        };
        Ok(names.split('\0').filter(is_wanted).map(str::to_owned).collect())
    }

    pub(crate) fn read(&self, name: &str) -> Result<String> {
        std::fs::read_to_string(self.root.join(name)).with_context(|| format!("cannot read {name}"))
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.root.join(name);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// The array at `key`, empty if there is none.
pub(crate) fn array<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

/// The string at `key`, empty if there is none.
pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}
