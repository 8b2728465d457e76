//! The public API of each library crate as text, so that a review sees it change.
//!
//! rustdoc writes JSON only with unstable options. A stable rustdoc accepts them when `RUSTC_BOOTSTRAP` is
//! set, but that variable makes build scripts run again and all dependencies compile twice. So `cargo doc`
//! runs this program in the place of rustdoc: it sets the variable for rustdoc alone and passes the arguments
//! on.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::workspace::{LIBRARIES, Workspace, text};

/// Set for the processes that stand in for rustdoc.
const WRAPPER: &str = "X0_XTASK_AS_RUSTDOC";
/// The format that the crate `public-api` of this version reads.
const FORMAT_VERSION: u64 = 57;
const FORMAT_RUST: &str = "1.95";

/// Runs rustdoc if this process stands in for it; `None` if it does not.
pub(crate) fn as_rustdoc() -> Option<Result<bool>> {
    std::env::var_os(WRAPPER)?;
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let status = Command::new("rustdoc").env("RUSTC_BOOTSTRAP", "1").args(arguments).status();
    Some(status.map(|status| status.success()).context("cannot run rustdoc"))
}

pub(crate) fn run(workspace: &Workspace, is_check: bool) -> Result<Vec<String>> {
    document(workspace)?;
    let metadata = workspace.metadata(&["--no-deps"])?;
    let folder = Path::new(text(&metadata, "target_directory")).join("doc");
    let mut findings = Vec::new();
    for library in LIBRARIES {
        let committed = format!("{library}/public-api.txt");
        let now = render(&folder, library)?;
        if !is_check {
            workspace.write(&committed, &now)?;
            continue;
        }
        let before = workspace.read(&committed).unwrap_or_default();
        if before != now {
            findings.push(format!(
                "{committed} differs from the public API of {library}; run `cargo xtask api` and commit the file:\n{}",
                difference(&before, &now)
            ));
        }
    }
    Ok(findings)
}

fn document(workspace: &Workspace) -> Result<()> {
    let own = std::env::current_exe().context("cannot find this program's own file")?;
    let mut command = Command::new(env!("CARGO"));
    command.args(["doc", "-q", "--no-deps", "--lib", "--all-features"]);
    for library in LIBRARIES {
        command.args(["-p", library]);
    }
    let status = command
        .current_dir(&workspace.root)
        .env("RUSTDOC", own)
        // `docsrs` as on docs.rs, so that the feature labels are compiled too.
        .env("RUSTDOCFLAGS", "-Zunstable-options --output-format=json --cap-lints=allow --cfg=docsrs")
        .env(WRAPPER, "1")
        .status()
        .context("cannot run `cargo doc`")?;
    if !status.success() {
        bail!("`cargo doc` failed; correct what it reports above");
    }
    Ok(())
}

fn render(folder: &Path, library: &str) -> Result<String> {
    let path = folder.join(format!("{}.json", library.replace('-', "_")));
    let name = path.display();
    let json = std::fs::read_to_string(&path).with_context(|| format!("cannot read {name}"))?;
    let described: Value = serde_json::from_str(&json).with_context(|| format!("cannot parse {name}"))?;
    let format = described["format_version"].as_u64().unwrap_or_default();
    if format != FORMAT_VERSION {
        bail!(
            "rustdoc writes format {format} of its JSON and this program reads format {FORMAT_VERSION}: run it with Rust \
             {FORMAT_RUST}, or raise `public-api` in examples/xtask/Cargo.toml"
        );
    }
    let api = public_api::Builder::from_rustdoc_json(&path)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()
        .with_context(|| format!("cannot read the public API of {library} in {name}"))?;
    Ok(api.to_string())
}

/// The lines that only one of the two has.
fn difference(before: &str, now: &str) -> String {
    let only = |these: &str, those: &str, mark: char| {
        let those: std::collections::BTreeSet<&str> = those.lines().collect();
        these
            .lines()
            .filter(|line| !those.contains(line))
            .map(|line| format!("{mark} {line}\n"))
            .collect::<String>()
    };
    only(before, now, '-') + &only(now, before, '+')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changed_lines_are_shown() {
        assert_eq!(difference("a\nb\n", "b\nc\n"), "- a\n+ c\n");
        assert_eq!(difference("a\n", "a\n"), "");
    }
}
