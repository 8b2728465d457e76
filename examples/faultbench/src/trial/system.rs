//! The systems of a comparison: what keeps the service up, and how it is started on a machine.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::machine::Machine;
use crate::arena::Arena;
use crate::layout::{Layout, PORT};
use crate::program;

/// A system under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub(crate) enum System {
    /// x0-node without healer and without supervision
    None,
    /// x0-node with its healer (`[heal] mode = "active"`) under `x0-node supervise`
    X0,
    /// x0-node without healer under supervisord
    Supervisord,
    /// x0-node without healer under monit, whose check is a put through the own node
    Monit,
    /// etcd under supervisord, without TLS
    Etcd,
    /// x0-node without healer, restarted by x0-mapek's loop with fixed limits on a put through the own node
    Static,
}

impl System {
    pub(crate) const ALL: [System; 6] =
        [System::None, System::X0, System::Supervisord, System::Monit, System::Etcd, System::Static];

    /// What `list` says.
    pub(crate) fn about(self) -> String {
        let value = clap::ValueEnum::to_possible_value(&self);
        value.and_then(|value| value.get_help().map(ToString::to_string)).unwrap_or_default()
    }

    /// Why it cannot run here; `None` if it can.
    pub(crate) fn missing(self) -> Option<String> {
        let absent = |programs: &[(&str, &str)]| {
            let (program, package) = programs.iter().find(|(program, _)| program::peer(program).is_none())?;
            Some(format!(
                "there is no {program}: install Debian's {package}, or unpack it and name the folder in {}",
                program::PEERS
            ))
        };
        match self {
            System::None | System::X0 | System::Static => None,
            System::Supervisord => absent(&[("supervisord", "supervisor")]),
            System::Monit => absent(&[("monit", "monit")]),
            System::Etcd => absent(&[("supervisord", "supervisor"), ("etcd", "etcd-server")]),
        }
    }

    pub(crate) fn is_etcd(self) -> bool {
        self == System::Etcd
    }

    /// The program and first argument of the service.
    pub(crate) fn service(self) -> [&'static str; 2] {
        if self.is_etcd() { ["etcd", "--name="] } else { ["x0-node", "run"] }
    }

    /// The section `[heal]` of a node. `renew` is the command that renews its SVID.
    pub(crate) fn heal(self, renew: &[String]) -> String {
        match self {
            System::X0 => {
                let words: Vec<String> = renew.iter().map(|word| format!("{word:?}")).collect();
                let words = words.join(", ");
                format!("\n[heal]\nmode = \"active\"\nreplace_after_s = 10\nrenew_command = [{words}]\n")
            }
            _ => "\n[heal]\nmode = \"off\"\n".into(),
        }
    }

    /// Whether there is a healer that does nothing in its first ten seconds.
    pub(crate) fn has_grace(self) -> bool {
        matches!(self, System::X0 | System::Static)
    }

    /// Writes the configuration of what runs on a machine, and returns the command of its parent process.
    pub(crate) fn prepare(
        self,
        node: &Path,
        layout: &Layout,
        machine: &Machine,
        arena: &Arena,
    ) -> Result<Command> {
        let config = layout.node_config(machine.place);
        let text = |path: &Path| path.to_str().map(ToOwned::to_owned).context("a path is not UTF-8");
        let run = format!("{} run --config {}", text(node)?, text(&config)?);
        Ok(match self {
            System::Static => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg("keep").arg("--node").arg(node).arg("--config").arg(config);
                command.arg("--client").arg(layout.single_client(arena, machine.place)?);
                command
            }
            System::None => {
                let mut command = Command::new(node);
                // With its control channel: it ends with this program, however that ends.
                command.args(["run", "--control", "--config"]).arg(config);
                command
            }
            System::X0 => {
                let mut command = Command::new(node);
                command.args(["supervise", "--config"]).arg(config);
                command
            }
            System::Supervisord => supervisord(&machine.folder, &run)?,
            System::Etcd => {
                let etcd = program::peer("etcd").context("there is no etcd")?;
                let line = etcd_line(&text(&etcd)?, machine.place, &text(&machine.data())?, arena);
                supervisord(&machine.folder, &line)?
            }
            System::Monit => monit(
                &machine.folder,
                &text(node)?,
                &text(&config)?,
                &text(&layout.single_client(arena, machine.place)?)?,
            )?,
        })
    }
}

impl fmt::Display for System {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = clap::ValueEnum::to_possible_value(self);
        formatter.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}

/// The port on which etcd serves clients.
pub(crate) const ETCD_CLIENT_PORT: u16 = 2379;

/// A member of a cluster of three, with etcd's defaults: heartbeat 100 ms, election 1 s, each commit synced.
fn etcd_line(etcd: &str, place: usize, data: &str, arena: &Arena) -> String {
    let peer = |place: usize| format!("http://{}:{PORT}", arena.address(place));
    let client = format!("http://{}:{ETCD_CLIENT_PORT}", arena.address(place));
    let members: Vec<String> = (0..super::VOTERS).map(|place| format!("n{place}={}", peer(place))).collect();
    let own = peer(place);
    format!(
        "{etcd} --name=n{place} --data-dir={data}/etcd --listen-client-urls={client} \
         --advertise-client-urls={client} --listen-peer-urls={own} --initial-advertise-peer-urls={own} \
         --initial-cluster={} --initial-cluster-state=new --logger=zap --log-level=warn",
        members.join(",")
    )
}

/// supervisord with its defaults, in the foreground.
fn supervisord(folder: &Path, line: &str) -> Result<Command> {
    let config = folder.join("supervisord.conf");
    let path = folder.display();
    let text = format!(
        "[supervisord]\nnodaemon=true\nuser=root\nlogfile={path}/supervisord.log\npidfile={path}/supervisord.pid\n\
         childlogdir={path}\n\n[program:service]\ncommand={line}\nautorestart=true\n\
         stdout_logfile={path}/service.log\nredirect_stderr=true\n"
    );
    write(&config, &text)?;
    let program = program::peer("supervisord").context("there is no supervisord")?;
    let mut command = match program.ancestors().nth(3).map(|root| root.join("usr/lib/python3/dist-packages"))
    {
        // Unpacked, not installed: Python has to be told where the module is.
        Some(modules) if std::env::var_os(program::PEERS).is_some() && modules.is_dir() => {
            // A Debian module wants Debian's Python, if another one is there too.
            let debian = Path::new("/usr/bin/python3");
            let mut command = Command::new(if debian.exists() { debian } else { Path::new("python3") });
            command.args(["-m", "supervisor.supervisord"]).env("PYTHONPATH", modules);
            command
        }
        _ => Command::new(program),
    };
    command.arg("-n").arg("-c").arg(config);
    Ok(command)
}

/// monit in the foreground with a cycle of a second. Its check is a put through the own node, which is
/// restarted when two checks in a row fail.
fn monit(folder: &Path, node: &str, config: &str, client: &str) -> Result<Command> {
    let path = folder.display();
    write(
        &folder.join("start.sh"),
        &format!(
            "{node} run --config {config} </dev/null >>{path}/service.log 2>&1 &\necho $! >{path}/node.pid\n"
        ),
    )?;
    let stop = format!("kill -9 $(cat {path}/node.pid)\nrm -f {path}/node.pid\n");
    write(&folder.join("stop.sh"), &stop)?;
    write(&folder.join("restart.sh"), &format!("{stop}. {path}/start.sh\n"))?;
    write(&folder.join("put.sh"), &format!("exec timeout 1 {node} kv put monit 1 --config {client}\n"))?;
    let monitrc = folder.join("monitrc");
    write(
        &monitrc,
        &format!(
            "set daemon 1\nset log {path}/monit.log\nset pidfile {path}/monit.pid\nset idfile {path}/monit.id\n\
             set statefile {path}/monit.state\n\
             check process node with pidfile {path}/node.pid\n  \
             start program = \"/bin/sh {path}/start.sh\" with timeout 5 seconds\n  \
             stop program = \"/bin/sh {path}/stop.sh\" with timeout 5 seconds\n\
             check program put with path \"/bin/sh {path}/put.sh\" with timeout 2 seconds\n  \
             if status != 0 for 2 cycles then exec \"/bin/sh {path}/restart.sh\"\n"
        ),
    )?;
    // monit refuses a file that others may read.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&monitrc, mode)?;
    let mut command = Command::new(program::peer("monit").context("there is no monit")?);
    command.arg("-I").arg("-c").arg(monitrc);
    Ok(command)
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The name and version of the programs of a system, for reports.
pub(crate) fn version(system: System, node: &Path) -> String {
    let of = |program: Option<PathBuf>, argument: &str| {
        let output = program.and_then(|program| Command::new(program).arg(argument).output().ok());
        let text =
            output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        text.lines().next().unwrap_or_default().trim().to_owned()
    };
    match system {
        System::Etcd => of(program::peer("etcd"), "--version"),
        System::Monit => of(program::peer("monit"), "--version"),
        _ => of(Some(node.to_owned()), "--version"),
    }
}

/// The systems that can run; the others are reported on one line each.
pub(crate) fn available(asked: &[System]) -> Result<Vec<System>> {
    let mut found = Vec::new();
    for system in asked {
        match system.missing() {
            None => found.push(*system),
            Some(why) => println!("skipped: {system}: {why}"),
        }
    }
    if found.is_empty() {
        bail!("none of the systems can run here");
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn supervisord_restarts_the_service_in_the_foreground() {
        let folder = tempfile::tempdir().unwrap();
        let Ok(command) = supervisord(folder.path(), "x0-node run --config a") else {
            // Not installed: nothing to start, and the configuration is written before that is found out.
            assert!(folder.path().join("supervisord.conf").exists());
            return;
        };
        assert!(command.get_args().any(|argument| argument == "-n"));
        let text = std::fs::read_to_string(folder.path().join("supervisord.conf")).unwrap();
        assert!(text.contains("command=x0-node run --config a\nautorestart=true\n"), "{text}");
    }

    #[test]
    fn every_system_is_listed_once_and_says_why_it_is_missing() {
        assert_eq!(System::ALL.len(), <System as clap::ValueEnum>::value_variants().len());
        assert!(System::ALL.iter().all(|system| system.about().len() > 10));
        assert_eq!(System::X0.missing(), None);
        assert_eq!(available(&[System::None, System::Static]).unwrap(), [System::None, System::Static]);
        assert!(
            System::X0.heal(&["renew".into(), "a b".into()]).contains("renew_command = [\"renew\", \"a b\"]")
        );
        assert!(System::Supervisord.heal(&[]).contains("off"));
        assert_eq!(System::Etcd.to_string(), "etcd");
    }
}
