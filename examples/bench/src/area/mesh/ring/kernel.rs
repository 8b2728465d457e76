//! Routing daemons on the ring, which write routes of the kernel: each node has an address on its loopback
//! link, and the daemons announce it.

use std::fmt::Write;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::{FROM, NODES, Rig, System, TO, VICTIM, run};
use crate::peer::debian;
use crate::process::Server;

const PORT: u16 = 7200;
/// Ethernet, IPv6 and UDP headers of a packet of Babel; of OSPF and BFD over IPv4 they are shorter.
const HEADERS_LEN: u64 = 62;

struct Daemons {
    receiver: UdpSocket,
    // Before the folder that they write to.
    _servers: Vec<Server>,
    _folder: TempDir,
}

fn address(at: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, 0, u8::try_from(at + 1).unwrap_or(u8::MAX))
}

/// Addresses, forwarding, and IPv6 for link-local addresses.
fn prepare(rig: &Rig) -> Result<()> {
    for (at, namespace) in rig.namespaces.iter().enumerate() {
        run(namespace, &["ip", "addr", "add", &format!("{}/32", address(at)), "dev", "lo"])?;
        let devices = rig.devices(at).map(str::to_owned);
        let mut values =
            vec![("ipv4/ip_forward".to_owned(), "1"), ("ipv6/conf/all/forwarding".to_owned(), "1")];
        for device in ["all".to_owned()].into_iter().chain(devices) {
            values.push((format!("ipv4/conf/{device}/rp_filter"), "0"));
            // An address is used at once, without the detection of duplicates (RFC 4862 §5.4).
            values.push((format!("ipv6/conf/{device}/accept_dad"), "0"));
            values.push((format!("ipv6/conf/{device}/disable_ipv6"), "0"));
        }
        namespace.run(|| {
            values.iter().try_for_each(|(name, value)| std::fs::write(format!("/proc/sys/net/{name}"), value))
        })??;
    }
    Ok(())
}

fn start(
    rig: &Rig,
    name: &str,
    program: &Program,
    arguments: impl Fn(usize, &Path) -> Result<Vec<String>>,
) -> Result<Box<dyn System>> {
    prepare(rig)?;
    let folder = tempfile::tempdir()?;
    let mut servers = Vec::new();
    for (at, namespace) in rig.namespaces.iter().enumerate() {
        let arguments = arguments(at, folder.path())?;
        let name = format!("{name}-{at}");
        servers.push(Server::start(&name, Path::new("/usr/bin/nsenter"), folder.path(), |command| {
            command.arg(format!("--net={}", namespace.path().display())).arg(&program.path).args(arguments);
            command.env("LD_LIBRARY_PATH", &program.libraries);
        })?);
    }
    running(rig, servers, folder)
}

fn running(rig: &Rig, servers: Vec<Server>, folder: TempDir) -> Result<Box<dyn System>> {
    let receiver = rig.namespaces[TO].run(|| UdpSocket::bind((address(TO), PORT)))??;
    Ok(Box::new(Daemons { receiver, _servers: servers, _folder: folder }))
}

/// A daemon of a Debian package, with the package of the library that it needs.
struct Program {
    path: PathBuf,
    libraries: PathBuf,
}

impl Program {
    fn fetch(package: &str, library: &str, path: &str) -> Result<Program> {
        let root = debian::fetch(package, &[package, library])?;
        let libraries = format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH);
        Ok(Program { path: root.join(path), libraries: root.join(libraries) })
    }
}

/// babeld with Hellos each `interval`, in seconds, updates each four of them, and carrier sense.
pub(super) fn babeld(rig: &Rig, interval: &str) -> Result<Box<dyn System>> {
    let program = Program::fetch("babeld", "libb2-1", "usr/sbin/babeld")?;
    start(rig, "babeld", &program, |at, folder| {
        let path = |what: &str| folder.join(format!("{what}-{at}")).display().to_string();
        let own = format!("redistribute local ip {}/32 allow", address(at));
        let fixed = [
            "-I",
            &path("pid"),
            "-S",
            &path("state"),
            "-l",
            "-H",
            interval,
            "-h",
            interval,
            "-C",
            &own,
            "-C",
            "redistribute local deny",
        ];
        Ok(fixed.into_iter().chain(rig.devices(at)).map(str::to_owned).collect())
    })
}

/// BIRD with OSPF, and BFD of 50 ms and a multiplier of 3 on each link.
pub(super) fn bird(rig: &Rig) -> Result<Box<dyn System>> {
    let program = Program::fetch("bird2", "libssh-gcrypt-4", "usr/sbin/bird")?;
    start(rig, "bird", &program, |at, folder| {
        let mut config = format!("router id {};\nprotocol device {{ scan time 1; }}\n", address(at));
        let timing = "min rx interval 50 ms; min tx interval 50 ms; multiplier 3;";
        writeln!(config, "protocol kernel {{ ipv4 {{ export all; }}; }}")?;
        writeln!(
            config,
            "protocol bfd {{ interface \"*\" {{ {timing} }}; }}\nprotocol ospf v2 {{ area 0 {{"
        )?;
        for device in rig.devices(at) {
            writeln!(config, "interface \"{device}\" {{ type ptp; hello 1; dead 4; bfd yes; }};")?;
        }
        writeln!(config, "interface \"lo\" {{ stub yes; }};\n}}; }}")?;
        let path = |what: &str| folder.join(format!("{what}-{at}")).display().to_string();
        std::fs::write(path("conf"), config)?;
        let arguments = ["-f", "-c", &path("conf"), "-s", &path("socket"), "-P", &path("pid")];
        Ok(arguments.map(str::to_owned).to_vec())
    })
}

/// FRR with OSPF, and BFD of 50 ms and a multiplier of 3 on each link: three daemons on each node. They look
/// up a group that only an installed package has, and see a file with it in a mount namespace of their own.
pub(super) fn frr(rig: &Rig) -> Result<Box<dyn System>> {
    let packages = ["frr", "libyang2", "libjson-c5", "libc-ares2", "libpcre2-8-0", "libcap2"];
    let root = debian::fetch("frr", &packages)?;
    let libraries = root.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH));
    let libraries = format!("{0}:{0}/frr", libraries.display());
    prepare(rig)?;
    let folder = tempfile::tempdir()?;
    let groups = folder.path().join("group");
    std::fs::write(&groups, format!("{}frrvty:x:60999:root\n", std::fs::read_to_string("/etc/group")?))?;
    let inside = format!("mount --bind {} /etc/group && exec \"$@\"", groups.display());
    let mut servers = Vec::new();
    // The others connect to zebra.
    for daemon in ["zebra", "bfdd", "ospfd"] {
        for (at, namespace) in rig.namespaces.iter().enumerate() {
            let path = |what: &str| folder.path().join(format!("{what}-{at}")).display().to_string();
            let config = if daemon == "ospfd" { ospf(rig, at)? } else { String::new() };
            let config_path = path(&format!("{daemon}-conf"));
            std::fs::write(&config_path, config)?;
            // The sockets of the terminals, one for each daemon.
            let terminals = path("vty");
            std::fs::create_dir_all(&terminals)?;
            let (pid, zserv, control) = (path(&format!("{daemon}-pid")), path("zserv"), path("bfdd-control"));
            let mut arguments =
                vec!["-u", "root", "-g", "root", "-f", &config_path, "-i", &pid, "-z", &zserv];
            arguments.extend(["--vty_socket", &terminals]);
            if daemon == "bfdd" {
                arguments.extend(["--bfdctl", &control]);
            }
            let program = root.join("usr/lib/frr").join(daemon);
            let name = format!("{daemon}-{at}");
            servers.push(Server::start(&name, Path::new("/usr/bin/nsenter"), folder.path(), |command| {
                command.arg(format!("--net={}", namespace.path().display()));
                command.args(["unshare", "-m", "sh", "-c", &inside, "sh"]).arg(program).args(arguments);
                command.env("LD_LIBRARY_PATH", &libraries);
            })?);
        }
    }
    running(rig, servers, folder)
}

/// The configuration of ospfd at a node.
fn ospf(rig: &Rig, at: usize) -> Result<String> {
    let mut config = "interface lo\n ip ospf area 0\n".to_owned();
    for device in rig.devices(at) {
        writeln!(config, "interface {device}\n ip ospf area 0\n ip ospf network point-to-point")?;
        writeln!(config, " ip ospf hello-interval 1\n ip ospf dead-interval 4\n ip ospf bfd 3 50 50")?;
    }
    writeln!(config, "router ospf\n ospf router-id {}", address(at))?;
    Ok(config)
}

impl System for Daemons {
    fn is_settled(&mut self, rig: &Rig) -> Result<bool> {
        let leads = |at: usize, to: usize, device: &str| {
            // No route is an error of `ip`.
            let to = address(to).to_string();
            let route = run(&rig.namespaces[at], &["ip", "route", "show", &to]).unwrap_or_default();
            route.contains(&format!("dev {device} "))
        };
        Ok(leads(VICTIM, TO, rig.pairs[VICTIM].left().name())
            && leads(FROM, TO, rig.pairs[FROM].left().name())
            && leads(TO, FROM, rig.pairs[VICTIM].right().name()))
    }

    fn sender(&mut self, rig: &Rig) -> Result<Box<dyn FnMut(u64) + Send>> {
        let socket = rig.namespaces[FROM].run(|| UdpSocket::bind((address(FROM), 0)))??;
        let to = SocketAddr::from((address(TO), PORT));
        Ok(Box::new(move |number| {
            // A probe without a route is a missing one.
            let _ = socket.send_to(&number.to_le_bytes(), to);
        }))
    }

    fn receive(&mut self, until: Instant) -> Result<Option<u64>> {
        let mut probe = [0; 8];
        loop {
            let rest = until.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return Ok(None);
            }
            self.receiver.set_read_timeout(Some(rest.max(Duration::from_micros(1))))?;
            match self.receiver.recv(&mut probe) {
                Ok(_) => return Ok(Some(u64::from_le_bytes(probe))),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn control(&mut self, rig: &Rig) -> Result<u64> {
        let mut sum = 0;
        for at in 0..NODES {
            let counters =
                rig.namespaces[at].run(|| std::fs::read_to_string("/proc/thread-self/net/dev"))??;
            for device in rig.devices(at) {
                let line = counters.lines().find_map(|line| line.trim().strip_prefix(&format!("{device}:")));
                let fields: Vec<u64> = line
                    .context("a device has counters")?
                    .split_whitespace()
                    .map_while(|field| field.parse().ok())
                    .collect();
                // proc(5): eight fields of what was received, then bytes and packets that were sent.
                let (bytes, packets) = fields.get(8).zip(fields.get(9)).context("a device has counters")?;
                sum += bytes.saturating_sub(packets * HEADERS_LEN);
            }
        }
        Ok(sum)
    }
}
