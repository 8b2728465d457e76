//! Network namespaces that end when they are dropped.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::panic;
use std::path::PathBuf;
use std::thread;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};

/// The failure to create or enter a namespace.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NamespaceError {
    /// The process lacks a capability. Nothing was created.
    #[error("cannot create or enter a network namespace without CAP_SYS_ADMIN: run the test as root")]
    NotPermitted,
    /// The system refused a step. Nothing was created, and the calling thread stays in its namespace.
    #[error("the system refused to {what}")]
    System {
        /// The step, as an imperative.
        what: &'static str,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

/// A network namespace of its own: a loopback link that is up, no IPv6, nothing else.
///
/// IPv6 is off because a link that comes up with it sends packets by itself, and counts would not be exact.
/// It lives as long as this value and the sockets that were opened in it; with it go its links, on the
/// kernel's own time.
#[derive(Debug)]
pub struct Namespace {
    file: File,
}

impl Namespace {
    /// Creates a namespace. No thread of the caller enters it.
    ///
    /// # Errors
    ///
    /// The process lacks a capability, or the system refused.
    pub fn new() -> Result<Self, NamespaceError> {
        let file = on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(refused("unshare the network namespace"))?;
            // Both go by the namespace of the thread that writes.
            for scope in ["all", "default"] {
                match fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1") {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(NamespaceError::System { what: "turn IPv6 off", source: error });
                    }
                    _ => {}
                }
            }
            File::open("/proc/thread-self/ns/net")
                .map_err(|source| NamespaceError::System { what: "open the namespace", source })
        })??;
        let namespace = Self { file };
        namespace
            .run(super::veth::loopback_up)?
            .map_err(|source| NamespaceError::System { what: "set the loopback link up", source })?;
        Ok(namespace)
    }

    /// Runs a task on a thread of its own inside the namespace and waits for it. A panic of the task goes on
    /// in the caller.
    ///
    /// Sockets stay in the namespace in which they were opened, so a task may open one and hand it back.
    ///
    /// # Errors
    ///
    /// No thread could be made or it may not enter; the task has not run then.
    pub fn run<T: Send>(&self, task: impl FnOnce() -> T + Send) -> Result<T, NamespaceError> {
        on_thread(|| {
            setns(&self.file, CloneFlags::CLONE_NEWNET).map_err(refused("enter the namespace"))?;
            Ok(task())
        })?
    }

    /// Moves the calling thread into the namespace for good. Threads and programs that it starts later begin
    /// there as well; others of the process stay where they are.
    ///
    /// # Errors
    ///
    /// The thread may not enter, and stays in its namespace.
    pub fn enter(&self) -> Result<(), NamespaceError> {
        setns(&self.file, CloneFlags::CLONE_NEWNET).map_err(refused("enter the namespace"))
    }

    /// The same namespace once more.
    pub(super) fn try_clone(&self) -> Result<Self, NamespaceError> {
        let file = self.file.try_clone();
        let file =
            file.map_err(|source| NamespaceError::System { what: "hold a namespace twice", source })?;
        Ok(Self { file })
    }

    /// A path under which other programs reach it while this process has it: `nsenter --net=<path> ip link`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()).into()
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A namespace belongs to a thread: a thread that ends takes its choice with it, so the caller's is never
/// touched.
fn on_thread<T: Send>(task: impl FnOnce() -> T + Send) -> Result<T, NamespaceError> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("namespace".into())
            .spawn_scoped(scope, task)
            .map_err(|source| NamespaceError::System { what: "make a thread", source })?;
        thread.join().or_else(|panic| panic::resume_unwind(panic))
    })
}

fn refused(what: &'static str) -> impl Fn(Errno) -> NamespaceError {
    move |errno| match errno {
        Errno::EPERM => NamespaceError::NotPermitted,
        errno => NamespaceError::System { what, source: errno.into() },
    }
}
