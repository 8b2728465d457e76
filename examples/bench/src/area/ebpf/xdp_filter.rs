//! xdp-filter's program for addresses, loaded and run by bpftool; both from Debian's packages.
//!
//! bpftool keeps a loaded program only by pinning it, which needs a bpffs, and the object pins its map in
//! /sys/fs/bpf. A helper process mounts one in a mount namespace of its own, so that nothing is mounted
//! elsewhere and nothing remains when this program ends.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::peer::debian;
use crate::process::find_program;

const NAME: &str = "xdp-filter";
const PACKAGES: [&str; 2] = ["libxdp1", "bpftool"];

/// The object with the program, if it was fetched or is installed.
pub(crate) fn present() -> Option<PathBuf> {
    [debian::root(NAME), PathBuf::from("/")].iter().find_map(|root| object(root))
}

fn object(root: &Path) -> Option<PathBuf> {
    let folders = std::fs::read_dir(root.join("usr/lib")).ok()?;
    folders.flatten().map(|folder| folder.path().join("bpf/xdpfilt_alw_ip.o")).find(|path| path.is_file())
}

/// The place of the bpffs, which the object's own pins require.
const BPFFS: &str = "/sys/fs/bpf";

/// A bpffs in a mount namespace of its own, which ends with the process that holds it.
struct Bpffs(Child);

impl Bpffs {
    /// Mounts a bpffs over [`BPFFS`], visible only within the namespace.
    fn mount() -> Result<Bpffs> {
        // `cat` ends when its standard input does, that is, at the latest when this process ends.
        let script = "mount -t bpf bpf \"$0\" && echo mounted && exec cat";
        let mut holder = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", script])
            .arg(BPFFS)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start `unshare`: install util-linux")?;
        let output = holder.stdout.take().context("`unshare` has no output")?;
        let bpffs = Bpffs(holder);
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        ensure!(line == "mounted\n", "cannot mount a bpffs in a mount namespace: run as root");
        Ok(bpffs)
    }

    /// A command that sees the bpffs.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("--mount").arg("--target").arg(self.0.id().to_string()).arg("--").arg(program);
        command
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        // The namespace, the mount and the pins in it end with the holder. One that has ended already is no
        // error.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The program in the kernel, until this is dropped.
pub(super) struct Loaded {
    bpffs: Bpffs,
    bpftool: PathBuf,
    pinned: PathBuf,
    packet: PathBuf,
    _folder: TempDir,
}

impl Loaded {
    /// Loads the program with `blocked` on its list.
    pub(super) fn new(packet: &[u8], blocked: [u8; 4]) -> Result<Loaded> {
        let fetched = debian::root(NAME).join("usr/sbin/bpftool");
        if present().is_none() || (find_program("bpftool").is_none() && !fetched.is_file()) {
            debian::fetch(NAME, &PACKAGES)?;
        }
        let object = present().context("the package libxdp1 has no xdpfilt_alw_ip.o")?;
        let bpftool = find_program("bpftool").unwrap_or(fetched);
        let folder = tempfile::tempdir()?;
        let loaded = Loaded {
            pinned: Path::new(BPFFS).join("program"),
            bpffs: Bpffs::mount()?,
            bpftool,
            packet: folder.path().join("packet"),
            _folder: folder,
        };
        std::fs::write(&loaded.packet, packet)?;
        let pinned = loaded.pinned.display().to_string();
        loaded.bpftool(&["prog", "load", &object.display().to_string(), &pinned, "type", "xdp"])?;
        loaded.block(&pinned, blocked)?;
        Ok(loaded)
    }

    /// Adds an address to the list of sources. The value is xdp-filter's: the flag for sources, then a
    /// counter of hits.
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

    /// The time for a packet in ns. The verdict must be a drop, or a pass.
    pub(super) fn time(&self, runs: u32, drops: bool) -> Result<f64> {
        let (pinned, packet, runs) =
            (self.pinned.display().to_string(), self.packet.display().to_string(), runs.to_string());
        let answer =
            self.bpftool(&["--json", "prog", "run", "pinned", &pinned, "data_in", &packet, "repeat", &runs])?;
        let answer: serde_json::Value = serde_json::from_str(&answer)?;
        // XDP_DROP, XDP_PASS.
        let verdict = if drops { 1 } else { 2 };
        ensure!(answer["retval"] == verdict, "xdp-filter returned another verdict: {answer}");
        answer["duration"].as_f64().with_context(|| format!("bpftool reports no duration: {answer}"))
    }

    fn bpftool(&self, arguments: &[&str]) -> Result<String> {
        let output = self.bpffs.command(&self.bpftool).args(arguments).output();
        let output = output.context("cannot start `nsenter`: install util-linux")?;
        if !output.status.success() {
            let answer = [output.stdout, output.stderr].concat();
            bail!("bpftool {}: {}", arguments.join(" "), String::from_utf8_lossy(&answer).trim());
        }
        Ok(String::from_utf8(output.stdout)?)
    }
}
