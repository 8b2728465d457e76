//! Debian packages unpacked into a private folder: nothing is installed, and no service starts by itself.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::find_program;

/// The folder of fetched packages: `X0_BENCH_CACHE`, or `x0-bench` in the user's cache folder.
pub(crate) fn cache() -> PathBuf {
    let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    variable("X0_BENCH_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("x0-bench")))
        .or_else(|| variable("HOME").map(|home| home.join(".cache/x0-bench")))
        .unwrap_or_else(|| PathBuf::from("/var/tmp/x0-bench-cache"))
}

/// The root that `fetch` unpacks `name` into.
pub(crate) fn root(name: &str) -> PathBuf {
    cache().join(name)
}

/// A temporary folder in [`cache`]. What is fetched is complete there before it is renamed, so that an
/// interrupted fetch leaves no incomplete folder.
pub(crate) fn aside() -> Result<tempfile::TempDir> {
    let cache = cache();
    std::fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
    let aside = tempfile::Builder::new().prefix("fetch-").tempdir_in(&cache);
    aside.with_context(|| format!("cannot create a folder in {}", cache.display()))
}

/// The folder with the unpacked `packages`, which are fetched if it does not exist. Needs no privileges.
pub(crate) fn fetch(name: &str, packages: &[&str]) -> Result<PathBuf> {
    let root = root(name);
    if root.exists() {
        return Ok(root);
    }
    let by_hand = format!("apt-get update && apt-get install --no-install-recommends {}", packages.join(" "));
    for tool in ["apt-get", "dpkg"] {
        if find_program(tool).is_none() {
            bail!("cannot fetch {name}: there is no {tool}; on Debian run `{by_hand}`");
        }
    }
    let aside = aside()?;
    let archives = aside.path().join("archives");
    let unpacked = aside.path().join("root");
    std::fs::create_dir_all(&archives)?;
    std::fs::create_dir_all(&unpacked)?;
    let download =
        |lists: Option<&Path>| run(apt(lists).arg("download").args(packages).current_dir(&archives));
    download(None)
        .or_else(|_| {
            // The system's lists are absent or name versions that no longer exist: fetch current ones,
            // without changing those of the system.
            let lists = aside.path().join("lists");
            std::fs::create_dir_all(lists.join("partial"))?;
            run(apt(Some(&lists)).arg("update"))?;
            download(Some(&lists))
        })
        .with_context(|| format!("cannot fetch {name}; run `{by_hand}`"))?;
    for archive in std::fs::read_dir(&archives)? {
        run(Command::new("dpkg").arg("-x").arg(archive?.path()).arg(&unpacked))?;
    }
    relocate(&unpacked, &unpacked)?;
    std::fs::rename(&unpacked, &root)
        .with_context(|| format!("cannot rename the unpacked packages to {}", root.display()))?;
    Ok(root)
}

/// apt-get, with package lists of its own in `lists` or with those of the system.
fn apt(lists: Option<&Path>) -> Command {
    let mut command = Command::new("apt-get");
    command.arg("-qq");
    if let Some(lists) = lists {
        command.args(["-o", &format!("Dir::State::Lists={}", lists.display())]);
        // No cache of the system that these lists would replace, and no other user that could not read them.
        command.args([
            "-o",
            "Dir::Cache::pkgcache=",
            "-o",
            "Dir::Cache::srcpkgcache=",
            "-o",
            "APT::Sandbox::User=root",
        ]);
    }
    command
}

fn run(command: &mut Command) -> Result<()> {
    let output =
        command.output().with_context(|| format!("cannot start {}", command.get_program().display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} failed: {}", command.get_program().display(), said.trim());
    }
    Ok(())
}

/// Absolute links inside a package refer to the root of the system. Those with an unpacked target become
/// relative links to it, so that the tree can be renamed.
fn relocate(root: &Path, folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let kind = entry.file_type()?;
        if kind.is_dir() {
            relocate(root, &path)?;
        } else if kind.is_symlink() {
            let end = std::fs::read_link(&path)?;
            let Ok(inside) = end.strip_prefix("/") else { continue };
            if root.join(inside).symlink_metadata().is_ok() {
                let depth = folder.strip_prefix(root)?.components().count();
                let up: PathBuf = std::iter::repeat_n("..", depth).collect();
                std::fs::remove_file(&path)?;
                symlink(up.join(inside), &path)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_inside_a_package_point_into_the_private_root() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        std::fs::create_dir_all(at("etc/java")).unwrap();
        std::fs::create_dir_all(at("usr/lib/jvm")).unwrap();
        std::fs::write(at("etc/java/security"), "ours").unwrap();
        symlink("/etc/java/security", at("usr/lib/jvm/security")).unwrap();
        symlink("/etc/java", at("usr/lib/jvm/conf")).unwrap();
        symlink("/no/such/file", at("usr/lib/jvm/away")).unwrap();
        relocate(root.path(), root.path()).unwrap();
        assert_eq!(std::fs::read_to_string(at("usr/lib/jvm/security")).unwrap(), "ours");
        assert_eq!(std::fs::read_to_string(at("usr/lib/jvm/conf/security")).unwrap(), "ours");
        assert_eq!(std::fs::read_link(at("usr/lib/jvm/away")).unwrap(), Path::new("/no/such/file"));
        assert!(std::fs::read_link(at("usr/lib/jvm/conf")).unwrap().is_relative());
    }
}
