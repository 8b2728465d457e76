//! Servers as child processes that end with this program.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

/// A running server. Dropping it kills it with SIGKILL and waits for its end.
#[derive(Debug)]
pub(crate) struct Server {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts `program` with its output in `NAME.log` in `folder`.
    ///
    /// If `setpriv` (util-linux) is installed, the kernel kills the server when this program dies without
    /// dropping it. Must be called from the main thread, because the kernel watches the thread that started
    /// the server.
    pub(crate) fn start(
        name: &str,
        program: &Path,
        folder: &Path,
        set_up: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = tied_to_us(program);
        set_up(&mut command);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An error with the end of the log if the server has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        let Some(status) = self.child.try_wait()? else { return Ok(()) };
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, signal) => format!("signal {}", signal.unwrap_or(0)),
        };
        bail!("{} ended with {how}; its log ends with\n{}", self.name, self.log_end());
    }

    /// The last lines of the server's log.
    pub(crate) fn log_end(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command whose process the kernel kills when this thread ends.
pub(crate) fn tied_to_us(program: &Path) -> Command {
    match find_program("setpriv") {
        // setpriv sets PR_SET_PDEATHSIG and executes the program in the same process.
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", "--"]).arg(program);
            command
        }
        None => Command::new(program),
    }
}

/// A folder in `parent` for the data of servers, which is removed on drop. Removes the folders of earlier
/// runs that were killed.
pub(crate) fn data_folder(parent: &Path) -> Result<TempDir> {
    let cannot = || format!("cannot use {}", parent.display());
    for entry in std::fs::read_dir(parent).with_context(cannot)? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if left_behind(&name) {
            // The folder of another user cannot be removed.
            let _ = std::fs::remove_dir_all(&path);
        }
    }
    let prefix = format!("{FOLDER_PREFIX}{}-", std::process::id());
    tempfile::Builder::new().prefix(&prefix).tempdir_in(parent).with_context(cannot)
}

const FOLDER_PREFIX: &str = "x0-bench-data-";

/// Whether the name is `x0-bench-data-PID-RANDOM` of a process that has ended.
fn left_behind(name: &str) -> bool {
    let pid = name.strip_prefix(FOLDER_PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
    pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
}

/// A program of this name on PATH.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// Free ports of the loopback address, for TCP and UDP. All are held until the last one is found, so that
/// they are distinct; another program may still take one before the server does, whose log then has the
/// reason.
pub(crate) fn free_ports(count: usize) -> Result<Vec<u16>> {
    let mut held = Vec::new();
    while held.len() < count {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port on loopback")?;
        let port = tcp.local_addr()?.port();
        if let Ok(udp) = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)) {
            held.push((port, tcp, udp));
        }
    }
    Ok(held.into_iter().map(|(port, ..)| port).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_server_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let sleep = find_program("sleep").unwrap();
        let mut server = Server::start("sleep", &sleep, folder.path(), |command| {
            command.arg("1000");
        })
        .unwrap();
        let proc = PathBuf::from(format!("/proc/{}", server.pid()));
        server.check().unwrap();
        assert!(proc.exists());
        drop(server);
        assert!(!proc.exists());
    }

    #[test]
    fn a_server_that_ended_tells_why() {
        let folder = tempfile::tempdir().unwrap();
        let shell = find_program("sh").unwrap();
        let mut server = Server::start("broken", &shell, folder.path(), |command| {
            command.args(["-c", "echo no such disk; exit 3"]);
        })
        .unwrap();
        server.child.wait().unwrap();
        let message = server.check().unwrap_err().to_string();
        assert!(
            message.contains("broken ended with exit code 3") && message.contains("no such disk"),
            "{message}"
        );
    }

    #[test]
    fn only_folders_of_dead_runs_are_removed() {
        let parent = tempfile::tempdir().unwrap();
        let dead = parent.path().join(format!("x0-bench-data-{}-abc", u32::MAX));
        let other = parent.path().join("x0-bench-data");
        std::fs::create_dir_all(dead.join("n1")).unwrap();
        std::fs::create_dir(&other).unwrap();
        let first = data_folder(parent.path()).unwrap();
        let second = data_folder(parent.path()).unwrap();
        assert!(!dead.exists() && other.exists() && first.path().exists() && second.path().exists());
    }

    #[test]
    fn ports_are_distinct() {
        let mut ports = free_ports(20).unwrap();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 20);
    }
}
