//! Dependencies that no source file mentions, and entries of the workspace table that no crate uses.
//!
//! A dependency counts as used when its name in Rust stands as a word in the sources: those below `src` for a
//! normal dependency, all of the crate for a dev-dependency, where documentation counts too. A dependency
//! that is used elsewhere, or only for its features, is listed in the manifest under
//! `[package.metadata.x0] used-elsewhere`.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::workspace::{Workspace, array, text};

pub(crate) fn run(workspace: &Workspace) -> Result<Vec<String>> {
    let metadata = workspace.metadata(&["--no-deps"])?;
    let sources = workspace.files(&[".rs"])?;
    let mut findings = Vec::new();
    let mut wanted = BTreeSet::new();
    for package in array(&metadata, "packages") {
        let manifest = relative(workspace, text(package, "manifest_path"))?;
        let folder =
            Path::new(&manifest).parent().map(|folder| folder.display().to_string()).unwrap_or_default();
        let excused: Vec<&str> =
            array(&package["metadata"]["x0"], "used-elsewhere").iter().filter_map(Value::as_str).collect();
        let (mut library, mut all) = (String::new(), String::new());
        for source in sources.iter().filter(|source| source.starts_with(&format!("{folder}/"))) {
            let code = workspace.read(source)?;
            if source.starts_with(&format!("{folder}/src/")) || source.ends_with("build.rs") {
                library.extend(
                    code.lines()
                        .filter(|line| !line.trim_start().starts_with("//"))
                        .flat_map(|line| [line, "\n"]),
                );
            }
            all.push_str(&code);
        }
        for dependency in array(package, "dependencies") {
            let name = text(dependency, "name");
            let ident = dependency["rename"].as_str().unwrap_or(name).replace('-', "_");
            let code = if dependency["kind"] == "dev" { &all } else { &library };
            // A crate that depends on itself does so for its features.
            let is_own = name == text(package, "name");
            if !is_own && !excused.contains(&name) && !has_word(code, &ident) {
                findings.push(format!("{manifest}: no source file mentions `{name}`; remove the dependency"));
            }
        }
        let manifest: toml::Table = parse(workspace, &manifest)?;
        wanted.extend(inherited(&manifest));
    }
    let root: toml::Table = parse(workspace, "Cargo.toml")?;
    let table =
        root.get("workspace").and_then(|table| table.get("dependencies")).and_then(toml::Value::as_table);
    for name in table.into_iter().flat_map(toml::Table::keys).filter(|name| !wanted.contains(*name)) {
        findings.push(format!(
            "Cargo.toml: no crate uses `{name}` of [workspace.dependencies]; remove the entry"
        ));
    }
    Ok(findings)
}

fn relative(workspace: &Workspace, path: &str) -> Result<String> {
    let path = Path::new(path);
    let path = path
        .strip_prefix(&workspace.root)
        .with_context(|| format!("{} is outside of the checkout", path.display()))?;
    Ok(path.display().to_string())
}

fn parse(workspace: &Workspace, name: &str) -> Result<toml::Table> {
    workspace.read(name)?.parse().with_context(|| format!("cannot parse {name}"))
}

/// The dependencies of a manifest that take their version from the workspace table.
fn inherited(manifest: &toml::Table) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut tables: Vec<&toml::Table> = vec![manifest];
    while let Some(table) = tables.pop() {
        for (key, value) in table {
            let Some(inner) = value.as_table() else { continue };
            if key.ends_with("dependencies") {
                let is_inherited = |value: &toml::Value| value.get("workspace").is_some();
                names.extend(
                    inner.iter().filter(|(_, value)| is_inherited(value)).map(|(name, _)| name.clone()),
                );
            } else if key == "target" || key.starts_with("cfg(") {
                // `[target.'cfg(...)'.dependencies]`
                tables.push(inner);
            }
        }
    }
    names
}

fn has_word(text: &str, word: &str) -> bool {
    let is_part = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let bytes = text.as_bytes();
    text.match_indices(word).any(|(at, _)| {
        let before = at.checked_sub(1).and_then(|before| bytes.get(before));
        !is_part(before) && !is_part(bytes.get(at + word.len()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_whole() {
        assert!(has_word("use serde::Serialize;", "serde"));
        assert!(!has_word("use serde_json::Value;", "serde"));
        assert!(!has_word("", "serde"));
    }

    #[test]
    fn inherited_dependencies_are_found_in_every_table() {
        let manifest = "
            [dependencies]
            a = { workspace = true }
            b = \"1\"
            [dev-dependencies]
            c.workspace = true
            [target.'cfg(unix)'.dependencies]
            d = { workspace = true }
        ";
        let names: Vec<String> = inherited(&manifest.parse().unwrap()).into_iter().collect();
        assert_eq!(names, ["a", "c", "d"]);
    }
}
