//! TCP's measurements per peer (round-trip times, retransmits, bytes), by a sockops program of a cgroup.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aya::programs::CgroupAttachMode;
use aya::programs::sock_ops::SockOpsLink;

use crate::counters::{address_of, sum_words};
use crate::object;
use crate::program::{LoadError, Loaded, Recipe, bounded, os_error};
use crate::sys::Map;

/// The TCP connections of a peer that were opened while the program was attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SocketCounters {
    /// Connections that were established.
    pub opened: u64,
    /// The sockets among them that are closed.
    pub closed: u64,
    /// The smoothed round-trip time of the latest sample of any connection.
    pub rtt: Option<Duration>,
    /// The smallest round-trip time that the kernel considers valid for any of the connections.
    pub rtt_min: Option<Duration>,
    /// Samples of the round-trip time.
    pub samples: u64,
    /// Segments sent again.
    pub retransmits: u64,
    /// Bytes that the peer acknowledged, up to the latest sample or the close. As in the kernel's
    /// `tcpi_bytes_acked`, the SYN of a connection opened from here and the FIN count one byte each.
    pub bytes_acknowledged: u64,
    /// Bytes received in order, up to the latest sample or the close. As in the kernel's
    /// `tcpi_bytes_received`, a FIN counts one byte, unless the socket was closed here before it came.
    pub bytes_received: u64,
}

/// The failure to attach the program to a cgroup. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// The program did not load.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The folder cannot be used as a cgroup (version 2).
    #[error(
        "cannot attach to {folder}: it must be a folder of a cgroup v2 file system (`mount -t cgroup2 none <folder>`)"
    )]
    Cgroup {
        /// The folder.
        folder: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// A capability is missing.
    #[error(
        "the kernel refuses to attach to the cgroup (EPERM): grant CAP_BPF and CAP_NET_ADMIN, for example with \
         `setcap cap_bpf,cap_net_admin+ep`"
    )]
    Denied,
}

/// The socket program, attached to a cgroup. Dropping it detaches.
#[derive(Debug)]
pub struct SocketProgram {
    // Declared before the program, so that the attachment is dropped first.
    _link: SockOpsLink,
    _loaded: Loaded,
    connections: Map,
}

impl SocketProgram {
    /// Watches the TCP connections of every process in the cgroup (version 2) at `cgroup` and in those below
    /// it.
    ///
    /// `peers_max`, 64..=1_048_576: the peer seen least recently makes room; 136 bytes each.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn attach(cgroup: &Path, peers_max: u32) -> Result<Self, SocketError> {
        let entries = bounded("peers_max", peers_max, 64, 1 << 20)?;
        let recipe = Recipe { entries_max: vec![("connections", entries)], ..Recipe::default() };
        let mut loaded = Loaded::new(object::SOCKET, &recipe)?;
        let connections = loaded.map("connections")?;
        let program = loaded.sock_ops("x0_socket")?;
        let fail = |source| SocketError::Cgroup { folder: cgroup.to_path_buf(), source };
        let folder = File::open(cgroup).map_err(fail)?;
        // A cgroup link always allows others beside it; the kernel refuses the flag that says so (EINVAL).
        let link = program
            .attach(folder, CgroupAttachMode::Single)
            .and_then(|id| program.take_link(id))
            .map_err(|error| match os_error(&error) {
                Some(libc::EPERM | libc::EACCES) => SocketError::Denied,
                Some(errno) => fail(io::Error::from_raw_os_error(errno)),
                None => fail(io::Error::other(error.to_string())),
            })?;
        Ok(Self { _link: link, _loaded: loaded, connections })
    }

    /// Every peer in the table.
    ///
    /// # Errors
    /// The kernel refused the read.
    pub fn peers(&self) -> io::Result<BTreeMap<IpAddr, SocketCounters>> {
        let mut peers = BTreeMap::new();
        self.connections.for_each(4096, |key, value| {
            let Some(bits) = address_of(key) else { return };
            let v6 = Ipv6Addr::from_bits(bits);
            let address = v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4);
            let [opened, closed, samples, retransmits, bytes_acknowledged, bytes_received] =
                sum_words(value, value.len(), 0);
            let micros = |at: usize| {
                let micros = value.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)?;
                (micros > 0).then(|| Duration::from_micros(micros.into()))
            };
            peers.insert(
                address,
                SocketCounters {
                    opened,
                    closed,
                    rtt: micros(48),
                    rtt_min: micros(52),
                    samples,
                    retransmits,
                    bytes_acknowledged,
                    bytes_received,
                },
            );
        })?;
        Ok(peers)
    }
}
