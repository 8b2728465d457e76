//! Attaching to an interface: which mode was asked for, which one it became, and why.

use std::io;
use std::path::Path;

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions};
use aya::programs::xdp::{XdpLink, XdpMode};
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType, Xdp};

use crate::program::os_error;
use crate::sys;

/// How an XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttachMode {
    /// In the driver, before the kernel has made a packet of it.
    Native,
    /// In the network stack, on any interface: slower, after the packet was allocated.
    Generic,
}

/// Which modes may be tried. Nothing is tried that the policy does not name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AttachPolicy {
    /// The driver's hook or an error.
    Native,
    /// The stack's hook or an error.
    Generic,
    /// The driver's hook; where the driver or its settings cannot, the stack's, and [`Attached::fallback`] says why.
    #[default]
    NativeThenGeneric,
}

/// Where in the life of a frame a program sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Point {
    /// XDP: what arrives, before the stack.
    Xdp,
    /// TC ingress: what arrives, at the stack's door.
    Ingress,
    /// TC egress: what leaves.
    Egress,
}

impl Point {
    pub(crate) const ALL: [Self; 3] = [Self::Xdp, Self::Ingress, Self::Egress];

    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Xdp => 0,
            Self::Ingress => 1,
            Self::Egress => 2,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// Why the driver's hook was not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fallback {
    /// The driver has no XDP.
    DriverWithout,
    /// The interface's settings do not allow it: most often an MTU (or the peer's) above one page, or too few queues.
    Settings {
        /// The system's error number.
        errno: i32,
    },
}

impl std::fmt::Display for Fallback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::DriverWithout => f.write_str("the driver has no XDP"),
            Self::Settings { errno } => write!(
                f,
                "the interface's settings do not allow native XDP ({}): lower the MTU below one page, on both ends of a veth \
                 pair, or give the card more queues",
                io::Error::from_raw_os_error(*errno)
            ),
        }
    }
}

/// An attachment, and what became of the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attached {
    /// The interface's name when it was attached.
    pub interface: String,
    /// The interface's index.
    pub index: u32,
    /// Where the program sits.
    pub point: Point,
    /// The mode in use; `None` for TC, which has only one.
    pub mode: Option<AttachMode>,
    /// Why it is not [`AttachMode::Native`] although the policy would have liked it to be.
    pub fallback: Option<Fallback>,
    /// Whether it outlives this process: pinned on bpffs.
    pub pinned: bool,
    /// Whether it was taken over from an earlier process.
    pub adopted: bool,
}

/// Why a program was not attached. The interface is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// There is no such interface in this network namespace.
    #[error("there is no interface `{0}` in this network namespace")]
    NoInterface(String),
    /// We are attached there already.
    #[error("already attached to `{0}` at this point; detach it first")]
    Already(String),
    /// Somebody else's program sits there.
    #[error(
        "another XDP program is attached to `{0}`; remove it (`ip link set {0} xdp off`), or attach at TC ingress instead"
    )]
    Busy(String),
    /// The mode that the policy asks for is not to be had.
    #[error(
        "`{interface}` cannot run XDP in this mode (errno {errno}); use AttachPolicy::NativeThenGeneric or attach at TC ingress"
    )]
    Mode {
        /// The interface.
        interface: String,
        /// The system's error number.
        errno: i32,
    },
    /// A capability is missing.
    #[error(
        "the kernel refuses to attach to `{0}` (EPERM): grant CAP_BPF and CAP_NET_ADMIN, in the user namespace that owns the \
         network namespace, for example with `setcap cap_bpf,cap_net_admin+ep`"
    )]
    Denied(String),
    /// Too many interfaces are attached, or their indexes collide.
    #[error(
        "no slot is free for interface index {index}: at most 256 interfaces at once, and at most 4 whose index is equal modulo 256"
    )]
    Slots {
        /// The interface's index.
        index: u32,
    },
    /// The program did not load.
    #[error(transparent)]
    Load(#[from] crate::program::LoadError),
    /// Another system call failed.
    #[error("{what}: {source}")]
    System {
        /// What was being done.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl AttachError {
    pub(crate) fn from_chain(interface: &str, what: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        match os_error(error) {
            Some(libc::EPERM | libc::EACCES) => Self::Denied(interface.to_owned()),
            Some(libc::ENODEV) => Self::NoInterface(interface.to_owned()),
            Some(errno) => {
                Self::System { what: what.to_owned(), source: io::Error::from_raw_os_error(errno) }
            }
            None => Self::System { what: what.to_owned(), source: io::Error::other(error.to_string()) },
        }
    }
}

/// A live attachment: dropping it detaches, unless it is pinned.
#[derive(Debug)]
pub(crate) enum Held {
    Xdp(XdpLink),
    Tc(SchedClassifierLink),
    Pinned(PinnedLink),
}

/// Attaches XDP under the policy; the mode it became and why not the better one.
pub(crate) fn attach_xdp(
    program: &mut Xdp,
    interface: &str,
    index: u32,
    policy: AttachPolicy,
) -> Result<(XdpLink, AttachMode, Option<Fallback>), AttachError> {
    let mut attach = |mode: AttachMode| {
        let wanted = match mode {
            AttachMode::Native => XdpMode::Driver,
            AttachMode::Generic => XdpMode::Skb,
        };
        program.attach_to_if_index(index, wanted).and_then(|id| program.take_link(id)).map_err(|error| {
            match os_error(&error) {
                Some(libc::EBUSY | libc::EEXIST) => AttachError::Busy(interface.to_owned()),
                Some(
                    errno @ (libc::EOPNOTSUPP | libc::ERANGE | libc::EINVAL | libc::ENOSPC | libc::ENOMEM),
                ) => AttachError::Mode { interface: interface.to_owned(), errno },
                _ => AttachError::from_chain(interface, "attaching XDP", &error),
            }
        })
    };
    match policy {
        AttachPolicy::Native => attach(AttachMode::Native).map(|link| (link, AttachMode::Native, None)),
        AttachPolicy::Generic => attach(AttachMode::Generic).map(|link| (link, AttachMode::Generic, None)),
        AttachPolicy::NativeThenGeneric => match attach(AttachMode::Native) {
            Ok(link) => Ok((link, AttachMode::Native, None)),
            // Only what another mode can cure is a reason to fall back; a program that sits there is not.
            Err(AttachError::Mode { errno, .. }) => {
                let reason = match errno {
                    libc::EOPNOTSUPP => Fallback::DriverWithout,
                    errno => Fallback::Settings { errno },
                };
                attach(AttachMode::Generic).map(|link| (link, AttachMode::Generic, Some(reason)))
            }
            Err(error) => Err(error),
        },
    }
}

/// Attaches at TC: a TCX link since Linux 6.6, which can be pinned; a `clsact` filter before, or when `filter_only`.
pub(crate) fn attach_tc(
    program: &mut SchedClassifier,
    interface: &str,
    point: Point,
    filter_only: bool,
) -> Result<SchedClassifierLink, AttachError> {
    let direction = if point == Point::Egress { TcAttachType::Egress } else { TcAttachType::Ingress };
    let fail = |error: &(dyn std::error::Error + 'static)| {
        AttachError::from_chain(interface, "attaching at TC", error)
    };
    if !filter_only {
        match program
            .attach_with_options(interface, direction, TcAttachOptions::TcxOrder(LinkOrder::default()))
            .and_then(|id| program.take_link(id))
        {
            Ok(link) => return Ok(link),
            // A kernel before 6.6 does not know the attach type.
            Err(error) if os_error(&error) == Some(libc::EINVAL) => {}
            Err(error) => return Err(fail(&error)),
        }
    }
    match aya::programs::tc::qdisc_add_clsact(interface) {
        Ok(()) => {}
        Err(aya::programs::tc::TcError::AlreadyAttached) => {}
        Err(error) if os_error(&error) == Some(libc::EEXIST) => {}
        Err(error) => return Err(fail(&error)),
    }
    program
        .attach_with_options(interface, direction, TcAttachOptions::Netlink(NlOptions::default()))
        .and_then(|id| program.take_link(id))
        .map_err(|error| fail(&error))
}

impl Held {
    /// Pins the attachment at `path`, so that it outlives this process; whether the kernel could.
    ///
    /// A TC filter of a kernel before 6.6 is no BPF link: it stays as it is, unpinned. On an error the program is detached.
    pub(crate) fn pin(self, interface: &str, path: &Path) -> Result<(Self, bool), AttachError> {
        let link: FdLink = match self {
            Self::Tc(link) if <&FdLink>::try_from(&link).is_err() => return Ok((Self::Tc(link), false)),
            Self::Tc(link) => link.try_into(),
            Self::Xdp(link) => link.try_into(),
            Self::Pinned(link) => return Ok((Self::Pinned(link), true)),
        }
        .map_err(|error| AttachError::from_chain(interface, "pinning an attachment", &error))?;
        let pinned = link
            .pin(path)
            .map_err(|error| AttachError::from_chain(interface, "pinning an attachment", &error))?;
        Ok((Self::Pinned(pinned), true))
    }
}

/// The index of an interface by its name.
pub(crate) fn index_of(interface: &str) -> Result<u32, AttachError> {
    sys::interface_index(interface).map_err(|_| AttachError::NoInterface(interface.to_owned()))
}
