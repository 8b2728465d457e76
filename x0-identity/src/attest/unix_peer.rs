//! The attestor of processes on the same machine, which connected through a Unix domain socket.

use std::collections::BTreeSet;
use std::error::Error;
use std::format;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::string::{String, ToString};
use std::sync::Arc;
use std::time::SystemTime;
use std::vec;

use nix::sys::socket::{getsockopt, sockopt};
use ring::digest::{Context, SHA256};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, openat};

use super::attestor::another_kind;
use super::digests::{Digests, FileVersion};
use super::{Attestation, Attestor, EvidenceKind};
use crate::{PresentedEvidence, Proof, Selector};

/// The settings of a [`UnixAttestor`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct UnixAttestorOptions {
    pub(crate) binary: bool,
    pub(crate) binary_len_max: u64,
}

impl Default for UnixAttestorOptions {
    fn default() -> UnixAttestorOptions {
        UnixAttestorOptions { binary: true, binary_len_max: 256 * 1024 * 1024 }
    }
}

impl UnixAttestorOptions {
    /// Sets whether the binary is looked at: its path and SHA-256. Without it a peer has a user and a group
    /// only. It is by default; hashing takes about a millisecond for each MiB. A binary is hashed again only
    /// when the file has changed, by its times and length; the attestor and its clones remember 256 of them.
    #[must_use]
    pub fn binary(mut self, looked_at: bool) -> UnixAttestorOptions {
        self.binary = looked_at;
        self
    }

    /// Sets the longest binary that is hashed, in bytes. A process with a longer one is refused. The default
    /// is 256 MiB.
    #[must_use]
    pub fn binary_len_max(mut self, bytes: u64) -> UnixAttestorOptions {
        self.binary_len_max = bytes;
        self
    }
}

/// The attestor of processes that connected through a Unix domain socket. Linux 6.5 or later.
///
/// The kernel names the process that connected by a descriptor (`SO_PEERPIDFD`), and never by a number that
/// another process may have by now. All properties are read while that process lives: one that has ended
/// before the last is read is refused, whichever process has its number then and whichever one holds its end
/// of the connection.
///
/// # What the selectors prove
/// `unix:uid` and `unix:gid` are those of the process when it connected; a process that has others by now is
/// refused. `unix:path` and `unix:sha256` are those of the binary that the process runs when it is attested.
/// A user may run any binary with a library of its choice, or under a debugger: the path and the digest
/// distinguish programs of a user that are honest, and no two programs of one user from each other's attacks.
/// Use them together with `unix:uid`.
#[derive(Debug, Clone, Default)]
pub struct UnixAttestor {
    options: UnixAttestorOptions,
    digests: Arc<Digests>,
}

/// The server's end of a Unix domain socket, as evidence of the process that connected the other end.
#[derive(Debug, Clone)]
pub struct UnixConnection(Arc<OwnedFd>);

impl From<OwnedFd> for UnixConnection {
    fn from(socket: OwnedFd) -> UnixConnection {
        UnixConnection(Arc::new(socket))
    }
}

/// The same connection.
impl PartialEq for UnixConnection {
    fn eq(&self, other: &UnixConnection) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for UnixConnection {}

/// Attests the process behind [`PresentedEvidence::Unix`], with the selectors of [`UnixPeer::selectors`].
impl Attestor for UnixAttestor {
    fn kind(&self) -> EvidenceKind {
        EvidenceKind::Unix
    }

    fn attest(&mut self, evidence: &PresentedEvidence, _now: SystemTime) -> Attestation {
        let PresentedEvidence::Unix(UnixConnection(socket)) = evidence else { return another_kind() };
        match UnixAttestor::attest(self, socket.as_fd()) {
            Ok(peer) => Attestation::Proved(Proof::Selectors(peer.selectors())),
            Err(error) => {
                let causes = core::iter::successors(error.source(), |cause| (**cause).source());
                let text = |text: String, cause: &dyn Error| format!("{text}: {cause}");
                Attestation::Refused(causes.fold(error.to_string(), text))
            }
        }
    }
}

/// What the kernel says of a process that connected.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnixPeer {
    /// The effective user.
    pub user: u32,
    /// The effective group.
    pub group: u32,
    /// The path of the binary, in the mount namespace of this process. `None`, if it was deleted or replaced
    /// since it was started, or is not UTF-8, or is not looked at.
    pub path: Option<String>,
    /// The SHA-256 of the binary. `None`, if it is not looked at.
    pub sha256: Option<[u8; 32]>,
}

/// A process was not attested.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnixAttestError {
    /// The kernel does not name the process.
    #[error(
        "the kernel does not name the process behind the connection: use a Unix domain socket, and Linux 6.5 or later"
    )]
    Kernel {
        /// The reason.
        source: io::Error,
    },
    /// The process that connected has ended, whichever process holds its end of the connection.
    #[error("the process that connected has ended: let the workload itself connect")]
    Ended,
    /// The process is outside of the process namespace of this one.
    #[error("the process that connected is outside of this process namespace: attest on the host")]
    Namespace,
    /// The process has another user or group than when it connected.
    #[error("the process has another user or group than when it connected: connect after the change")]
    Changed,
    /// A property cannot be read.
    #[error(
        "the process {process} cannot be examined: run the server as root, or as the user of its workloads"
    )]
    Examine {
        /// The number of the process.
        process: i32,
        /// The reason.
        source: io::Error,
    },
    /// The binary is longer than [`UnixAttestorOptions::binary_len_max`].
    #[error(
        "the binary of the process has more than the {binary_len_max} bytes allowed: raise binary_len_max"
    )]
    BinaryLength {
        /// The bound.
        binary_len_max: u64,
    },
}

impl UnixPeer {
    /// The properties as selectors, under the names that SPIRE uses: `unix:uid:1000`, `unix:gid:1000`,
    /// `unix:path:/usr/bin/web` and `unix:sha256:` with 64 digits. A path that is too long for a selector is
    /// left out.
    #[must_use]
    pub fn selectors(&self) -> BTreeSet<Selector> {
        let hex = |digest: [u8; 32]| digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let texts = [
            Some(format!("unix:uid:{}", self.user)),
            Some(format!("unix:gid:{}", self.group)),
            self.path.as_ref().map(|path| format!("unix:path:{path}")),
            self.sha256.map(|digest| format!("unix:sha256:{}", hex(digest))),
        ];
        texts.into_iter().flatten().filter_map(|text| Selector::parse(&text).ok()).collect()
    }
}

impl UnixAttestor {
    /// Builds an attestor.
    #[must_use]
    pub fn new(options: UnixAttestorOptions) -> UnixAttestor {
        UnixAttestor { options, digests: Arc::default() }
    }

    /// Attests the process that connected the other end of a Unix domain socket.
    ///
    /// # Errors
    /// [`UnixAttestError`] names what is missing.
    pub fn attest(&self, socket: BorrowedFd<'_>) -> Result<UnixPeer, UnixAttestError> {
        Ok(self.attest_process(socket)?.0)
    }

    /// With the process, for as long as it matters that it lives.
    pub(crate) fn attest_process(
        &self,
        socket: BorrowedFd<'_>,
    ) -> Result<(UnixPeer, ProcessHandle), UnixAttestError> {
        let kernel = |error: nix::errno::Errno| UnixAttestError::Kernel { source: error.into() };
        let credentials = getsockopt(&socket, sockopt::PeerCredentials).map_err(kernel)?;
        let handle = match getsockopt(&socket, sockopt::PeerPidfd) {
            Ok(pidfd) => ProcessHandle(pidfd),
            // The process was reaped, and an older kernel has no descriptor for it.
            Err(nix::errno::Errno::ESRCH | nix::errno::Errno::EINVAL) => return Err(UnixAttestError::Ended),
            Err(error) => return Err(kernel(error)),
        };
        let process = handle.number()?;
        let examine = |source: io::Error| {
            // The files of a process vanish with the process.
            if handle.lives() { UnixAttestError::Examine { process, source } } else { UnixAttestError::Ended }
        };
        let folder = File::open(format!("/proc/{process}")).map_err(examine)?;
        // The number was that of the process when the folder was opened, if it still lives: a number is not
        // given again before then. The folder stays that of this process.
        if !handle.lives() {
            return Err(UnixAttestError::Ended);
        }
        let status = read_status(&folder).map_err(examine)?;
        if status != (credentials.uid(), credentials.gid()) {
            return Err(UnixAttestError::Changed);
        }
        let mut peer =
            UnixPeer { user: credentials.uid(), group: credentials.gid(), path: None, sha256: None };
        if self.options.binary {
            // The binary that runs, whatever is at its path now.
            let binary = open(&folder, "exe").map_err(examine)?;
            peer.path = path_of(&binary);
            peer.sha256 = Some(self.hash(&binary, process)?);
        }
        if !handle.lives() {
            return Err(UnixAttestError::Ended);
        }
        Ok((peer, handle))
    }

    fn hash(&self, binary: &File, process: i32) -> Result<[u8; 32], UnixAttestError> {
        let examine = |source| UnixAttestError::Examine { process, source };
        let version = || binary.metadata().map(|metadata| FileVersion::of(&metadata)).map_err(examine);
        let (begun, before) = (SystemTime::now(), version()?);
        if let Some(digest) = self.digests.get(&before) {
            return Ok(digest);
        }
        let binary_len_max = self.options.binary_len_max;
        let mut reader = binary.take(binary_len_max + 1);
        let (mut context, mut len) = (Context::new(&SHA256), 0);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => {
                    context.update(&buffer[..read]);
                    len += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(examine(source)),
            }
        }
        if len > binary_len_max {
            return Err(UnixAttestError::BinaryLength { binary_len_max });
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        if version()? == before {
            self.digests.insert(before, digest, begun);
        }
        Ok(digest)
    }
}

/// A process, whatever process has its number later.
#[derive(Debug)]
pub(crate) struct ProcessHandle(OwnedFd);

impl ProcessHandle {
    /// Whether it has not ended.
    pub(crate) fn lives(&self) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        // Readable from its end on. An error is no proof of life.
        matches!(poll(&mut fds, Some(&at_once)), Ok(0))
    }

    fn number(&self) -> Result<i32, UnixAttestError> {
        let kernel = |source| UnixAttestError::Kernel { source };
        let info =
            std::fs::read_to_string(format!("/proc/self/fdinfo/{}", self.0.as_raw_fd())).map_err(kernel)?;
        let number = info.lines().find_map(|line| line.strip_prefix("Pid:"));
        match number.and_then(|number| number.trim().parse::<i32>().ok()) {
            Some(number @ 1..) => Ok(number),
            Some(0) => Err(UnixAttestError::Namespace),
            Some(_) => Err(UnixAttestError::Ended),
            None => Err(kernel(io::ErrorKind::InvalidData.into())),
        }
    }
}

fn open(folder: &File, name: &str) -> io::Result<File> {
    Ok(openat(folder.as_fd(), name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?.into())
}

/// The effective user and group.
fn read_status(folder: &File) -> io::Result<(u32, u32)> {
    let mut text = String::new();
    // The file of a process has about 1.5 KB.
    open(folder, "status")?.take(64 * 1024).read_to_string(&mut text)?;
    let effective = |field: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(field))?;
        line.split_ascii_whitespace().nth(1)?.parse().ok()
    };
    match (effective("Uid:"), effective("Gid:")) {
        (Some(user), Some(group)) => Ok((user, group)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The path of an open file, if the file is there.
fn path_of(file: &File) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let path: PathBuf =
        std::fs::read_link(Path::new("/proc/self/fd").join(format!("{}", file.as_raw_fd()))).ok()?;
    // The kernel marks a path that is gone by a text behind it; the file itself is the better witness.
    let (open, there) = (file.metadata().ok()?, std::fs::metadata(&path).ok()?);
    let same = (open.dev(), open.ino()) == (there.dev(), there.ino());
    (same && path.as_os_str().as_bytes().starts_with(b"/"))
        .then(|| path.into_os_string().into_string().ok())?
}
