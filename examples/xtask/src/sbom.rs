//! A bill of materials in CycloneDX 1.5: all that is compiled into the library crates with every feature and
//! into the reference node. Dev-dependencies and the programs that are not published are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::workspace::{LIBRARIES, Workspace, array, text};

pub(crate) fn run(workspace: &Workspace, out: &Path) -> Result<Vec<String>> {
    let metadata = workspace.metadata(&["--all-features", "--locked"])?;
    let lock: toml::Table = workspace.read("Cargo.lock")?.parse().context("cannot parse Cargo.lock")?;
    let checksums = checksums(&lock);
    let packages: BTreeMap<&str, &Value> =
        array(&metadata, "packages").iter().map(|package| (text(package, "id"), package)).collect();
    let nodes: BTreeMap<&str, &Value> =
        array(&metadata["resolve"], "nodes").iter().map(|node| (text(node, "id"), node)).collect();

    let mut waiting: Vec<&str> = packages
        .iter()
        .filter(|(_, package)| package["source"].is_null())
        .filter(|(_, package)| {
            LIBRARIES.contains(&text(package, "name")) || text(package, "name") == "x0-node"
        })
        .map(|(id, _)| *id)
        .collect();
    if waiting.len() != LIBRARIES.len() + 1 {
        bail!("found {} of {} packages of the family", waiting.len(), LIBRARIES.len() + 1);
    }
    let mut seen = BTreeSet::new();
    let (mut components, mut dependencies) = (Vec::new(), Vec::new());
    while let Some(id) = waiting.pop() {
        if !seen.insert(id) {
            continue;
        }
        let (package, node) = (packages[id], nodes[id]);
        let below: BTreeSet<&str> = array(node, "deps")
            .iter()
            .filter(|dep| array(dep, "dep_kinds").iter().any(|kind| kind["kind"] != "dev"))
            .map(|dep| text(dep, "pkg"))
            .collect();
        let refs: Vec<String> = below.iter().map(|id| purl(packages[*id])).collect();
        components.push(component(package, &checksums));
        dependencies.push(json!({ "ref": purl(package), "dependsOn": refs }));
        waiting.extend(below);
    }
    let by = |key: &'static str| move |value: &Value| text(value, key).to_owned();
    components.sort_by_key(by("bom-ref"));
    dependencies.sort_by_key(by("ref"));
    let bom = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": { "type": "application", "bom-ref": "x0", "name": "x0" },
            "tools": { "components": [
                { "type": "application", "name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION") }
            ] },
        },
        "components": components,
        "dependencies": dependencies,
    });
    let name = out.to_str().context("the output path is not UTF-8")?;
    workspace.write(name, &format!("{bom:#}\n"))?;
    crate::say(&format!("{name}: {} components", seen.len()));
    Ok(Vec::new())
}

/// The SHA-256 of each package from a registry, by name and version.
fn checksums(lock: &toml::Table) -> BTreeMap<(String, String), String> {
    let field = |package: &toml::Value, key| Some(package.get(key)?.as_str()?.to_owned());
    let packages = lock.get("package").and_then(toml::Value::as_array).into_iter().flatten();
    packages
        .filter_map(|package| {
            Some(((field(package, "name")?, field(package, "version")?), field(package, "checksum")?))
        })
        .collect()
}

fn purl(package: &Value) -> String {
    // `+` of a version's build metadata is reserved in a package URL.
    format!("pkg:cargo/{}@{}", text(package, "name"), text(package, "version").replace('+', "%2B"))
}

fn component(package: &Value, checksums: &BTreeMap<(String, String), String>) -> Value {
    let (name, version) = (text(package, "name"), text(package, "version"));
    let mut component = json!({
        "type": if name == "x0-node" { "application" } else { "library" },
        "bom-ref": purl(package),
        "purl": purl(package),
        "name": name,
        "version": version,
    });
    if let Some(description) = package["description"].as_str() {
        component["description"] = json!(description.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    if let Some(license) = package["license"].as_str() {
        // Old manifests write `MIT/Apache-2.0`, which is not an SPDX expression.
        component["licenses"] = json!([{ "expression": license.replace('/', " OR ") }]);
    }
    if let Some(checksum) = checksums.get(&(name.to_owned(), version.to_owned())) {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
    }
    if let Some(repository) = package["repository"].as_str() {
        component["externalReferences"] = json!([{ "type": "vcs", "url": repository }]);
    }
    component
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bill_names_each_crate_once_and_no_test_helper() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("bom.json");
        run(&Workspace::find().unwrap(), &out).unwrap();
        let bom: Value = serde_json::from_slice(&std::fs::read(out).unwrap()).unwrap();
        let refs: Vec<&str> = array(&bom, "components").iter().map(|part| text(part, "bom-ref")).collect();
        let distinct: BTreeSet<&str> = refs.iter().copied().collect();
        assert_eq!(refs.len(), distinct.len());
        let has = |name: &str| refs.iter().any(|part| part.starts_with(&format!("pkg:cargo/{name}@")));
        assert!(has("x0-kv") && has("x0-node") && has("rustls") && has("aya"));
        assert!(!has("proptest") && !has("x0-bench"), "dev-dependencies and unpublished programs stay out");
        for dependency in array(&bom, "dependencies") {
            for on in array(dependency, "dependsOn") {
                assert!(distinct.contains(on.as_str().unwrap()), "{on} is not listed");
            }
        }
    }
}
