//! xdp-filter's program for addresses, loaded and run by bpftool; both from Debian's packages.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::peer::debian;
use crate::process::find_program;

const NAME: &str = "xdp-filter";
const PACKAGES: [&str; 2] = ["libxdp1", "bpftool"];
/// Where bpffs is mounted.
const BPFFS: &str = "/sys/fs/bpf";

/// The object with the program, if it was fetched or is installed.
pub(crate) fn present() -> Option<PathBuf> {
    [debian::root(NAME), PathBuf::from("/")].iter().find_map(|root| object(root))
}

fn object(root: &Path) -> Option<PathBuf> {
    let folders = std::fs::read_dir(root.join("usr/lib")).ok()?;
    folders.flatten().map(|folder| folder.path().join("bpf/xdpfilt_alw_ip.o")).find(|path| path.is_file())
}

/// The program in the kernel, until this is dropped.
pub(super) struct Loaded {
    bpftool: PathBuf,
    pinned: PathBuf,
    packet: PathBuf,
    _folder: TempDir,
}

impl Loaded {
    /// Loads it, with `blocked` on its list.
    pub(super) fn new(packet: &[u8], blocked: [u8; 4]) -> Result<Loaded> {
        let fetched = debian::root(NAME).join("usr/sbin/bpftool");
        if present().is_none() || (find_program("bpftool").is_none() && !fetched.is_file()) {
            debian::fetch(NAME, &PACKAGES)?;
        }
        let object = present().context("the package libxdp1 has no xdpfilt_alw_ip.o")?;
        let bpftool = find_program("bpftool").unwrap_or(fetched);
        let folder = tempfile::tempdir()?;
        let loaded = Loaded {
            bpftool,
            pinned: Path::new(BPFFS).join(format!("x0-bench-{}", std::process::id())),
            packet: folder.path().join("packet"),
            _folder: folder,
        };
        std::fs::write(&loaded.packet, packet)?;
        let pinned = loaded.pinned.display().to_string();
        loaded.bpftool(&["prog", "load", &object.display().to_string(), &pinned, "type", "xdp"])?;
        loaded.block(&pinned, blocked)?;
        Ok(loaded)
    }

    /// Puts an address on the list for sources. The value is xdp-filter's: the flag of sources, the rest counts hits.
    fn block(&self, pinned: &str, address: [u8; 4]) -> Result<()> {
        let shown = self.bpftool(&["--json", "prog", "show", "pinned", pinned])?;
        let shown: serde_json::Value = serde_json::from_str(&shown)?;
        let maps = shown["map_ids"].as_array().context("bpftool names no maps")?;
        for id in maps.iter().filter_map(serde_json::Value::as_u64).map(|id| id.to_string()) {
            let map: serde_json::Value =
                serde_json::from_str(&self.bpftool(&["--json", "map", "show", "id", &id])?)?;
            if map["name"] == "filter_ipv4" {
                let key = address.map(|byte| byte.to_string());
                let mut arguments = vec!["map", "update", "id", &id, "key"];
                arguments.extend(key.iter().map(String::as_str));
                arguments.push("value");
                // For every CPU.
                arguments.extend(["1", "0", "0", "0", "0", "0", "0", "0"]);
                self.bpftool(&arguments)?;
                return Ok(());
            }
        }
        bail!("the program has no map filter_ipv4")
    }

    /// What a packet takes, in ns; it must be dropped, or pass.
    pub(super) fn time(&self, runs: u32, drops: bool) -> Result<f64> {
        let (pinned, packet, runs) =
            (self.pinned.display().to_string(), self.packet.display().to_string(), runs.to_string());
        let said =
            self.bpftool(&["--json", "prog", "run", "pinned", &pinned, "data_in", &packet, "repeat", &runs])?;
        let said: serde_json::Value = serde_json::from_str(&said)?;
        // XDP_DROP, XDP_PASS.
        let verdict = if drops { 1 } else { 2 };
        ensure!(said["retval"] == verdict, "xdp-filter decided otherwise: {said}");
        said["duration"].as_f64().with_context(|| format!("bpftool tells no duration: {said}"))
    }

    fn bpftool(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(&self.bpftool).args(arguments).output().context("cannot start bpftool")?;
        if !output.status.success() {
            let said = [output.stdout, output.stderr].concat();
            bail!("bpftool {}: {}", arguments.join(" "), String::from_utf8_lossy(&said).trim());
        }
        Ok(String::from_utf8(output.stdout)?)
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        // Nothing was pinned if it could not be loaded.
        let _ = std::fs::remove_file(&self.pinned);
    }
}
