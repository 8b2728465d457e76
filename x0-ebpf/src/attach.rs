//! Attaching to an interface: the requested mode, the mode in use and the reason for a fallback.

use std::io;
use std::path::Path;

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions};
use aya::programs::xdp::{XdpLink, XdpMode};
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType, Xdp};

use crate::program::os_error;
use crate::sys;

/// The place in which an XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttachMode {
    /// In the driver, before the kernel allocates a packet.
    Native,
    /// In the network stack, on any interface, after the packet was allocated: slower.
    Generic,
}

/// The modes that may be tried. No other mode is tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AttachPolicy {
    /// Native mode, or an error.
    Native,
    /// Generic mode, or an error.
    Generic,
    /// Native mode; where the driver or its settings do not allow it, generic mode, with the reason in
    /// [`Attached::fallback`].
    #[default]
    NativeThenGeneric,
}

/// The hook that a program is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Point {
    /// XDP: received frames, before the network stack.
    Xdp,
    /// TC ingress: received frames, as they enter the network stack.
    Ingress,
    /// TC egress: sent frames.
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

/// The reason why native mode is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fallback {
    /// The driver has no XDP.
    DriverWithout,
    /// The settings of the interface do not allow it: usually an MTU above one page, here or at the peer, or
    /// too few queues.
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
                "the settings of the interface do not allow native XDP ({}): lower the MTU below one page, on both ends of a \
                 veth pair, or configure more queues",
                io::Error::from_raw_os_error(*errno)
            ),
        }
    }
}

/// An attachment and the mode that was chosen under the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attached {
    /// The name of the interface at the time of the attachment.
    pub interface: String,
    /// The interface's index.
    pub index: u32,
    /// The hook.
    pub point: Point,
    /// The mode in use; `None` for TC, which has only one.
    pub mode: Option<AttachMode>,
    /// The reason why it is not [`AttachMode::Native`] although the policy prefers that.
    pub fallback: Option<Fallback>,
    /// Whether it is pinned on bpffs and outlives this process.
    pub pinned: bool,
    /// Whether it was adopted from an earlier process.
    pub adopted: bool,
}

/// The failure to attach a program. The interface is unchanged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// There is no such interface in this network namespace.
    #[error("there is no interface `{0}` in this network namespace")]
    NoInterface(String),
    /// The program is attached there already.
    #[error("the program is already attached to `{0}` at this point: detach it first")]
    Already(String),
    /// Another program is attached there.
    #[error(
        "another XDP program is attached to `{0}`; remove it (`ip link set {0} xdp off`), or attach at TC ingress instead"
    )]
    Busy(String),
    /// The interface does not support the mode that the policy requires.
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
    #[error("cannot {what}")]
    System {
        /// The step, as an imperative: "attach at XDP to `eth0`".
        what: String,
        /// The kernel's error.
        source: io::Error,
    },
}

impl AttachError {
    pub(crate) fn from_chain(interface: &str, what: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        match os_error(error) {
            Some(libc::EPERM | libc::EACCES) => Self::Denied(interface.to_owned()),
            Some(libc::ENODEV) => Self::NoInterface(interface.to_owned()),
            Some(errno) => Self::System {
                what: format!("{what} `{interface}`"),
                source: io::Error::from_raw_os_error(errno),
            },
            None => Self::System {
                what: format!("{what} `{interface}`"),
                source: io::Error::other(error.to_string()),
            },
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

/// Attaches at XDP under the policy. Returns the mode in use and the reason for a fallback.
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
                _ => AttachError::from_chain(interface, "attach at XDP to", &error),
            }
        })
    };
    match policy {
        AttachPolicy::Native => attach(AttachMode::Native).map(|link| (link, AttachMode::Native, None)),
        AttachPolicy::Generic => attach(AttachMode::Generic).map(|link| (link, AttachMode::Generic, None)),
        AttachPolicy::NativeThenGeneric => match attach(AttachMode::Native) {
            Ok(link) => Ok((link, AttachMode::Native, None)),
            // Only a mode that is not supported is a reason to fall back; another attached program is not.
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

/// Attaches at TC: a TCX link since Linux 6.6, which can be pinned; a `clsact` filter before, or when
/// `filter_only`.
pub(crate) fn attach_tc(
    program: &mut SchedClassifier,
    interface: &str,
    point: Point,
    filter_only: bool,
) -> Result<SchedClassifierLink, AttachError> {
    let direction = if point == Point::Egress { TcAttachType::Egress } else { TcAttachType::Ingress };
    let fail = |error: &(dyn std::error::Error + 'static)| {
        AttachError::from_chain(interface, "attach at TC to", error)
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
    /// Pins the attachment at `path`, so that it outlives this process. Returns whether the kernel supports
    /// that.
    ///
    /// A TC filter of a kernel before 6.6 is not a BPF link and stays unpinned. On an error the program is
    /// detached.
    pub(crate) fn pin(self, interface: &str, path: &Path) -> Result<(Self, bool), AttachError> {
        let link: FdLink = match self {
            Self::Tc(link) if <&FdLink>::try_from(&link).is_err() => return Ok((Self::Tc(link), false)),
            Self::Tc(link) => link.try_into(),
            Self::Xdp(link) => link.try_into(),
            Self::Pinned(link) => return Ok((Self::Pinned(link), true)),
        }
        .map_err(|error| AttachError::from_chain(interface, "pin the attachment to", &error))?;
        let pinned = link
            .pin(path)
            .map_err(|error| AttachError::from_chain(interface, "pin the attachment to", &error))?;
        Ok((Self::Pinned(pinned), true))
    }
}

/// The index of an interface by its name.
pub(crate) fn index_of(interface: &str) -> Result<u32, AttachError> {
    sys::interface_index(interface).map_err(|_| AttachError::NoInterface(interface.to_owned()))
}
