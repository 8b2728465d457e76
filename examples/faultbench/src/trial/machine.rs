//! A machine of a trial: control groups, a disk of its own, and the processes that run on it.
//!
//! The parent process is what the system under test starts on a machine: a node, or a supervisor that starts
//! it. The *service* is the node itself, found among the processes of the control group, so that a fault hits
//! it under any supervisor.

use std::fs::{self, File};
use std::os::linux::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::arena::{Arena, Place};
use crate::disk;

/// The begin of the names of control groups and images; the process id of the run follows.
const PREFIX: &str = "x0-faultbench-";
/// Where control groups of version 1 are mounted.
const GROUPS: &str = "/sys/fs/cgroup";
/// The controllers that faults use.
const CONTROLLERS: [&str; 3] = ["freezer", "blkio", "memory"];
/// The size of a disk: a log, a journal and their spare files, and room for the data.
const DISK_LEN: u64 = 448 << 20;
/// The time in which an orderly stop must end.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) place: Place,
    /// Configuration, logs and the mounted disk.
    pub(crate) folder: PathBuf,
    group: String,
    image: PathBuf,
    /// The first arguments of the service's command line, such as `x0-node` and `run`.
    service: [&'static str; 2],
    parent: Option<Child>,
}

/// Whether this system has what the faults need; the reason if not.
pub(crate) fn missing() -> Option<String> {
    let absent =
        CONTROLLERS.iter().find(|name| !Path::new(GROUPS).join(name).join("cgroup.procs").exists())?;
    Some(format!("the control group `{absent}` of version 1 is not mounted at {GROUPS}/{absent}"))
}

/// The folder of the images of disks: in memory, if it can be.
fn images() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

/// Whether a control group or an image is that of a run that has ended.
fn is_left_over(name: &str) -> bool {
    let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
    let owner = owner.and_then(|owner| owner.parse::<u32>().ok());
    // A process that has ended and that its parent has not waited for has no command line.
    let runs = |owner| fs::read(format!("/proc/{owner}/cmdline")).is_ok_and(|line| !line.is_empty());
    owner.is_some_and(|owner| !runs(owner))
}

/// Ends what an earlier run that was killed has left: processes, control groups and images.
pub(crate) fn clean_up() {
    let names = |folder: &Path| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    for controller in CONTROLLERS {
        names(&Path::new(GROUPS).join(controller))
            .iter()
            .filter(|name| is_left_over(name))
            .for_each(|name| end_all(name));
    }
    for name in names(&images()).iter().filter(|name| is_left_over(name)) {
        // Another run may clean up at the same time.
        let _ = fs::remove_file(images().join(name));
    }
}

impl Machine {
    /// A machine with an ext4 file system of its own, mounted at `data` of its folder. Its image is in
    /// memory, so that only a throttled disk is slow.
    pub(crate) fn new(place: Place, folder: PathBuf, service: [&'static str; 2]) -> Result<Machine> {
        let group = format!("{PREFIX}{}-{place}", std::process::id());
        for controller in CONTROLLERS {
            let path = Path::new(GROUPS).join(controller).join(&group);
            fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        }
        fs::create_dir_all(folder.join("data"))?;
        let image = images().join(format!("{group}.img"));
        let machine = Machine { place, folder, group, image, service, parent: None };
        File::create(&machine.image)?.set_len(DISK_LEN)?;
        succeed(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&machine.image))?;
        // The loop device goes with the mount.
        succeed(Command::new("mount").args(["-o", "loop"]).arg(&machine.image).arg(machine.data()))?;
        Ok(machine)
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// What the processes of the machine write to standard error.
    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join("machine.log")
    }

    /// As a person counts them.
    pub(crate) fn number(&self) -> u64 {
        self.place as u64 + 1
    }

    /// Starts the parent process in the machine's namespace and control groups.
    pub(crate) fn start(&mut self, arena: &Arena, command: &Command) -> Result<()> {
        let mut shell = Command::new("sh");
        shell.args(["-c", r#"for group; do shift; [ "$group" = -- ] && break; echo $$ >"$group" || exit 1; done; exec "$@""#, "sh"]);
        shell.args(CONTROLLERS.iter().map(|controller| self.file(controller, "cgroup.procs"))).arg("--");
        shell.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        let log = File::options().create(true).append(true).open(self.log())?;
        // A node that has an orderly end of its own ends when this program does: its input ends.
        shell.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        std::os::unix::process::CommandExt::process_group(&mut shell, 0);
        self.parent = Some(arena.spawn(self.place, &mut shell)?);
        Ok(())
    }

    fn file(&self, controller: &str, name: &str) -> PathBuf {
        Path::new(GROUPS).join(controller).join(&self.group).join(name)
    }

    /// The process of the service, if it runs.
    pub(crate) fn service(&self) -> Option<i32> {
        members(&self.group).into_iter().find(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            is_service(&line, self.service)
        })
    }

    /// Sends a signal to the service. Whether there is one.
    pub(crate) fn signal(&self, signal: Signal) -> bool {
        self.service().is_some_and(|pid| kill(Pid::from_raw(pid), signal).is_ok())
    }

    /// Stops or resumes every process of the machine.
    pub(crate) fn freeze(&self, is_frozen: bool) -> Result<()> {
        let state = if is_frozen { "FROZEN" } else { "THAWED" };
        fs::write(self.file("freezer", "freezer.state"), state).context("cannot freeze a machine")
    }

    /// Lets the disk take so many writes a second; `None`: any number.
    pub(crate) fn throttle(&self, writes: Option<u32>) -> Result<()> {
        let device = fs::metadata(self.data())?.st_dev();
        let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
        let rule = format!("{major}:{minor} {}", writes.unwrap_or(0));
        let path = self.file("blkio", "blkio.throttle.write_iops_device");
        fs::write(&path, rule).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Lets the processes of the machine have so many bytes of memory; `None`: any number. The kernel sets no
    /// less than they have; it ends one of them when it wants more than the limit from before.
    pub(crate) fn limit_memory(&self, bytes: Option<u64>) -> Result<()> {
        let limit = bytes.map_or_else(|| "-1".to_owned(), |bytes| bytes.to_string());
        match fs::write(self.file("memory", "memory.limit_in_bytes"), limit) {
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EBUSY as i32) => Ok(()),
            written => written.context("cannot limit the memory of a machine"),
        }
    }

    /// Fills the disk to the last byte, or gives the room back.
    pub(crate) fn fill(&self, is_full: bool) -> Result<()> {
        if is_full { disk::fill(&self.data()) } else { disk::release(&self.data()) }
    }

    /// Switches the machine off: all its processes end at once.
    pub(crate) fn power_off(&mut self) -> Result<()> {
        end_processes(&self.group);
        if let Some(mut parent) = self.parent.take() {
            parent.wait().context("cannot wait for a process")?;
        }
        Ok(())
    }

    /// Stops the parent process with SIGTERM, and so the service.
    pub(crate) fn stop(&mut self) -> Result<()> {
        if let Some(parent) = &mut self.parent {
            let pid = i32::try_from(parent.id()).context("a process id is out of range")?;
            kill(Pid::from_raw(pid), Signal::SIGTERM).context("cannot stop a process")?;
            let until = Instant::now() + STOP_LIMIT;
            while Instant::now() < until && parent.try_wait()?.is_none() {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        self.power_off()
    }

    /// The last lines of the log, for messages.
    pub(crate) fn log_end(&self) -> String {
        let log = fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(6)..].join("\n")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Each step fails only if there is nothing left to end.
        let _ = self.power_off();
        end_all(&self.group);
        let _ = Command::new("umount").arg("-l").arg(self.data()).status();
        let _ = fs::remove_file(&self.image);
    }
}

/// The processes of a control group.
fn members(group: &str) -> Vec<i32> {
    let path = Path::new(GROUPS).join("freezer").join(group).join("cgroup.procs");
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Ends all processes of a control group, those that start meanwhile too.
fn end_processes(group: &str) {
    let thaw = Path::new(GROUPS).join("freezer").join(group).join("freezer.state");
    let until = Instant::now() + STOP_LIMIT;
    loop {
        let pids = members(group);
        if pids.is_empty() || Instant::now() > until {
            return;
        }
        for pid in pids {
            // Fails only if it has ended.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        // A frozen process takes its signal when it runs again.
        let _ = fs::write(&thaw, "THAWED");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn end_all(group: &str) {
    end_processes(group);
    for controller in CONTROLLERS {
        let path = Path::new(GROUPS).join(controller).join(group);
        // EBUSY: the kernel needs a moment after the last process.
        for _ in 0..100 {
            match fs::remove_dir(&path) {
                Err(error) if error.raw_os_error() == Some(16) => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                _ => break,
            }
        }
    }
}

/// Whether a command line, as `/proc` has it, is that of the service.
fn is_service(line: &[u8], [program, first]: [&str; 2]) -> bool {
    let mut words = line.split(|byte| *byte == 0);
    let name = words.next().and_then(|word| word.rsplit(|byte| *byte == b'/').next());
    name == Some(program.as_bytes()) && words.next().is_some_and(|word| word.starts_with(first.as_bytes()))
}

/// Runs a program that must succeed.
pub(super) fn succeed(command: &mut Command) -> Result<Vec<u8>> {
    let program = command.get_program().to_owned();
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot run {}: is it installed?", program.display()))?;
    if !output.status.success() {
        bail!("{} failed: {}", program.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_dead_process_has_left_is_left_over() {
        let own = std::process::id();
        assert!(
            !is_left_over(&format!("{PREFIX}{own}-1"))
                && !is_left_over("x0-other-1")
                && !is_left_over(PREFIX)
        );
        // A process that has ended counts as ended also before its parent, which is this one, waits for it.
        let mut ended = Command::new("true").stdout(Stdio::piped()).spawn().unwrap();
        std::io::copy(&mut ended.stdout.take().unwrap(), &mut std::io::sink()).unwrap();
        let name = format!("{PREFIX}{}-1", ended.id());
        let begun = Instant::now();
        while !is_left_over(&name) {
            assert!(begun.elapsed() < STOP_LIMIT, "{name}");
            std::thread::yield_now();
        }
        ended.wait().unwrap();
        // Above the largest process id of Linux.
        assert!(is_left_over(&format!("{PREFIX}{}-1.img", 1_u32 << 30)));
    }

    #[test]
    fn the_service_is_told_from_its_supervisor() {
        let service = ["x0-node", "run"];
        assert!(is_service(b"/usr/bin/x0-node\0run\0--config\0x\0", service));
        assert!(!is_service(b"/usr/bin/x0-node\0supervise\0--config\0x\0", service));
        assert!(!is_service(b"/usr/bin/x0-nodes\0run\0", service));
        assert!(!is_service(b"", service));
        assert!(is_service(b"etcd\0--name=n1\0", ["etcd", "--name"]));
    }
}
