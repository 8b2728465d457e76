//! The programs of other packages that a run needs, and where they are.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// The variable with the folder of unpacked packages: programs are looked for in `usr/bin` and `usr/sbin` of
/// it.
pub(crate) const PEERS: &str = "X0_FAULTBENCH_PEERS";

/// The program of a node: the given one, that of `X0_NODE`, or `x0-node` beside this program.
pub(crate) fn node(named: Option<&Path>) -> Result<PathBuf> {
    let beside = || Some(std::env::current_exe().ok()?.with_file_name("x0-node"));
    let named = named.map(Path::to_owned).or_else(|| std::env::var_os("X0_NODE").map(PathBuf::from));
    match named.or_else(beside).filter(|path| path.is_file()) {
        Some(program) => Ok(program.canonicalize()?),
        None => bail!(
            "there is no x0-node beside this program: build it in the same profile, or name it with --node"
        ),
    }
}

/// A program of a Debian package: unpacked in the folder that [`PEERS`] names, or installed.
pub(crate) fn peer(name: &str) -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name);
    find(name, variable(PEERS).as_deref(), variable("PATH").as_deref())
}

fn find(name: &str, peers: Option<&OsStr>, path: Option<&OsStr>) -> Option<PathBuf> {
    let unpacked =
        peers.map(Path::new).into_iter().flat_map(|root| [root.join("usr/bin"), root.join("usr/sbin")]);
    let installed = path.map(std::env::split_paths).into_iter().flatten();
    unpacked.chain(installed).map(|folder| folder.join(name)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unpacked_program_comes_before_an_installed_one() {
        let (peers, installed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (root, path) = (peers.path().as_os_str(), installed.path().as_os_str());
        assert_eq!(find("monit", Some(root), Some(path)), None);
        std::fs::write(installed.path().join("monit"), "").unwrap();
        assert_eq!(find("monit", Some(root), Some(path)), Some(installed.path().join("monit")));
        std::fs::create_dir_all(peers.path().join("usr/sbin")).unwrap();
        std::fs::write(peers.path().join("usr/sbin/monit"), "").unwrap();
        assert_eq!(find("monit", Some(root), Some(path)), Some(peers.path().join("usr/sbin/monit")));
        assert_eq!(find("monit", Some(root), None), Some(peers.path().join("usr/sbin/monit")));
        assert_eq!(find("monit", None, None), None);
    }

    #[test]
    fn a_node_that_is_not_there_is_an_error_that_says_what_to_do() {
        let error = node(Some(Path::new("/nowhere/x0-node"))).unwrap_err();
        assert!(error.to_string().contains("--node"), "{error}");
    }
}
