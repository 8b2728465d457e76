//! Servers as child processes that end with us.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

/// A running server. Dropping it kills it with SIGKILL and waits for its end.
#[derive(Debug)]
pub(crate) struct Server {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts `program`; what it says goes to `NAME.log` in `folder`.
    ///
    /// Where `setpriv` (util-linux) is there, the kernel is told to kill the server should we die without dropping it. Must be called
    /// from the main thread: the kernel takes the end of the starting thread for our end.
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

    /// An error, with the end of the server's log, if it no longer runs.
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
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command whose process the kernel kills when this thread ends.
pub(crate) fn tied_to_us(program: &Path) -> Command {
    match find_program("setpriv") {
        // setpriv sets PR_SET_PDEATHSIG and becomes the program: the process id stays the one we know.
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", "--"]).arg(program);
            command
        }
        None => Command::new(program),
    }
}

/// A program of this name on PATH.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// Ports of the loopback address that nobody has, for TCP and UDP. They are all held until the last is found, so that none comes
/// twice; another program may still take one before our server does, which then says so.
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
    fn ports_are_distinct() {
        let mut ports = free_ports(20).unwrap();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 20);
    }
}
