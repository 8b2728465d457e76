//! `x0-node supervise` with real processes: crash, hang, wrong configuration, a port in use, signals, and the
//! messages to a service manager.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tempfile::TempDir;

/// Generous: only a test that fails waits for it.
const LIMIT: Duration = Duration::from_secs(60);

fn x0_node() -> Command {
    Command::new(env!("CARGO_BIN_EXE_x0-node"))
}

/// The folder of a cluster of one node.
fn cluster() -> TempDir {
    for _ in 0..50 {
        let port = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let made = x0_node()
            .args(["init", "--trust-domain", "test.example", "--nodes", "1"])
            .args(["--base-port", &port.to_string(), "--dir"])
            .arg(folder.path())
            .output()
            .unwrap();
        if made.status.success() {
            return folder;
        }
    }
    panic!("no free ports");
}

fn config(folder: &Path) -> PathBuf {
    folder.join("node-1/node.toml")
}

/// A supervisor and the lines of its log and that of its node.
struct Supervisor {
    child: Child,
    lines: Receiver<String>,
}

impl Supervisor {
    fn start(folder: &Path, change: impl FnOnce(&mut Command)) -> Supervisor {
        let mut command = x0_node();
        command.arg("supervise").arg("--config").arg(config(folder)).stderr(Stdio::piped());
        change(&mut command);
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        // A thread, so that the pipe never fills up. It ends with the processes.
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Supervisor { child, lines }
    }

    /// The next line of this event.
    fn event(&self, event: &str) -> String {
        let (begun, wanted) = (Instant::now(), format!("event={event}"));
        let mut seen = String::new();
        while let Some(left) = LIMIT.checked_sub(begun.elapsed()) {
            let Ok(line) = self.lines.recv_timeout(left) else { break };
            if line.split(' ').any(|word| word == wanted) {
                return line;
            }
            seen += &(line + "\n");
        }
        panic!("no event {event} in\n{seen}");
    }

    /// Waits until a node serves. Returns its process.
    fn serving(&self) -> Pid {
        let line = self.event("node-started");
        self.event("node-ready");
        pid(&line)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end. Returns the exit code and the rest of the log.
    fn ended(&mut self) -> (Option<i32>, String) {
        let begun = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < LIMIT, "the supervisor does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        let code = self.child.wait().unwrap().code();
        (code, self.lines.iter().fold(String::new(), |text, line| text + &line + "\n"))
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // The node ends by itself when its supervisor is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The number after `pid=`.
fn pid(line: &str) -> Pid {
    let pid = line.split("pid=").nth(1).unwrap().split(' ').next().unwrap();
    Pid::from_raw(pid.trim().parse().unwrap()).unwrap()
}

fn has_ended(process: Pid) {
    let begun = Instant::now();
    while test_kill_process(process).is_ok() {
        assert!(begun.elapsed() < LIMIT, "the node does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn kv(folder: &Path, arguments: &[&str]) -> String {
    let mut command = x0_node();
    let output = command.arg("kv").args(arguments).arg("--config").arg(folder.join("client/client.toml"));
    let output = output.output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A node that is killed, and one that is stopped in the middle of its work, serve again with their data.
#[test]
fn a_node_that_crashes_or_hangs_serves_again() {
    let folder = cluster();
    let mut supervisor = Supervisor::start(folder.path(), |_| {});
    let first = supervisor.serving();
    kv(folder.path(), &["put", "key", "kept"]);

    let begun = Instant::now();
    kill_process(first, Signal::KILL).unwrap();
    assert!(supervisor.event("node-failed").contains("signal 9"));
    let second = supervisor.serving();
    eprintln!("crash: serves again after {:?}", begun.elapsed());
    assert_ne!(first, second);
    assert_eq!(kv(folder.path(), &["get", "key"]).trim_end(), "kept");

    let begun = Instant::now();
    kill_process(second, Signal::STOP).unwrap();
    assert!(supervisor.event("node-hung").contains("silent_ms=2"));
    let third = supervisor.serving();
    eprintln!("hang: serves again after {:?}", begun.elapsed());
    has_ended(second);
    assert_eq!(kv(folder.path(), &["get", "key"]).trim_end(), "kept");

    supervisor.signal(Signal::TERM);
    let (code, text) = supervisor.ended();
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("event=stopped") && text.contains("event=supervisor-stopped"), "{text}");
    has_ended(third);
}

#[test]
fn a_wrong_configuration_is_not_tried_again() {
    let folder = cluster();
    let path = config(folder.path());
    let text = fs::read_to_string(&path).unwrap();
    // While it runs: the node reads the file when it starts again.
    let mut supervisor = Supervisor::start(folder.path(), |_| {});
    let node = supervisor.serving();
    fs::write(&path, text.replace("listen", "lisen")).unwrap();
    kill_process(node, Signal::KILL).unwrap();
    let (code, log) = supervisor.ended();
    assert_eq!(code, Some(78), "{log}");
    assert_eq!(log.matches("event=node-started").count(), 1, "{log}");
    assert!(log.contains("unknown field `lisen`") && log.contains("correct the configuration"), "{log}");
    // Before the first start: no process is started.
    let mut supervisor = Supervisor::start(folder.path(), |_| {});
    let (code, log) = supervisor.ended();
    assert_eq!(code, Some(78), "{log}");
    assert!(!log.contains("event=node-started") && log.contains("unknown field `lisen`"), "{log}");
}

/// What keeps a node from starting and may end by itself is tried again, after a pause.
#[test]
fn a_port_in_use_is_waited_for() {
    let folder = cluster();
    let text = fs::read_to_string(config(folder.path())).unwrap();
    let listen = text.lines().find(|line| line.starts_with("listen")).unwrap();
    let holder = UdpSocket::bind(listen.split('"').nth(1).unwrap()).unwrap();
    let mut supervisor = Supervisor::start(folder.path(), |_| {});
    for pause in [0, 200, 400] {
        assert!(supervisor.event("node-failed").contains("in use"));
        assert!(supervisor.event("node-restart").contains(&format!("in_ms={pause}")));
    }
    drop(holder);
    supervisor.serving();
    supervisor.signal(Signal::TERM);
    assert_eq!(supervisor.ended().0, Some(0));
}

/// A node that somebody stops itself stays away, and does not outlive its supervisor.
#[test]
fn a_node_stops_alone_and_does_not_outlive_the_supervisor() {
    let folder = cluster();
    let mut supervisor = Supervisor::start(folder.path(), |_| {});
    kill_process(supervisor.serving(), Signal::TERM).unwrap();
    assert_eq!(supervisor.ended().0, Some(0));

    let mut supervisor = Supervisor::start(folder.path(), |_| {});
    let node = supervisor.serving();
    // An identity is read again without a restart.
    let issued = x0_node().args(["issue", "--node", "1", "--dir"]).arg(folder.path()).output().unwrap();
    assert!(issued.status.success(), "{issued:?}");
    supervisor.signal(Signal::HUP);
    supervisor.event("identity-rotated");
    supervisor.child.kill().unwrap();
    has_ended(node);
}

/// A node that ignores the order to stop is killed, and the supervisor says so.
#[test]
fn a_node_that_does_not_stop_is_killed() {
    let folder = cluster();
    // Longer than the stop takes: the heartbeat must not kill the node first.
    let mut supervisor = Supervisor::start(folder.path(), |command| {
        command.args(["--hang-after", "1h"]);
    });
    let node = supervisor.serving();
    kill_process(node, Signal::STOP).unwrap();
    supervisor.signal(Signal::TERM);
    let (code, text) = supervisor.ended();
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("did not stop in time and was killed"), "{text}");
    has_ended(node);
}

#[test]
fn a_service_manager_is_kept_informed() {
    let folder = cluster();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let receive = |wanted: &str| {
        let mut seen = Vec::new();
        let mut buffer = [0; 512];
        let begun = Instant::now();
        loop {
            // Heartbeats arrive all the time.
            assert!(begun.elapsed() < LIMIT, "{wanted}: {seen:?}");
            let len = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("{wanted}: {error}: {seen:?}"));
            let text = String::from_utf8(buffer[..len].to_vec()).unwrap();
            if text.lines().any(|line| line == wanted) {
                return;
            }
            seen.push(text);
        }
    };
    let mut supervisor = Supervisor::start(folder.path(), |command| {
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000");
    });
    receive("READY=1");
    for _ in 0..3 {
        receive("WATCHDOG=1");
    }
    kill_process(supervisor.serving(), Signal::KILL).unwrap();
    receive("STATUS=the node starts again");
    receive("READY=1");
    supervisor.signal(Signal::TERM);
    receive("STOPPING=1");
    assert_eq!(supervisor.ended().0, Some(0));

    // Variables that are wrong are named.
    let mut supervisor = Supervisor::start(folder.path(), |command| {
        command.env("WATCHDOG_USEC", "soon");
    });
    let (code, text) = supervisor.ended();
    assert!(code == Some(1) && text.contains("WATCHDOG_USEC is soon"), "{code:?}: {text}");
}

/// The abstract names of Linux, which systemd uses for its own instances.
#[test]
#[cfg(target_os = "linux")]
fn an_abstract_socket_of_a_service_manager_is_used() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;

    let folder = cluster();
    let name = format!("x0-supervise-{}", std::process::id());
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let mut supervisor = Supervisor::start(folder.path(), |command| {
        command.env("NOTIFY_SOCKET", format!("@{name}"));
    });
    let mut buffer = [0; 64];
    let len = socket.recv(&mut buffer).unwrap();
    assert!(buffer[..len].starts_with(b"READY=1\n"), "no watchdog is asked for");
    supervisor.signal(Signal::TERM);
    assert_eq!(supervisor.ended().0, Some(0));
}
