//! The seam between a server and what decides who its callers are.

use core::fmt;
use core::net::SocketAddr;
use std::boxed::Box;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, PoisonError, RwLock};

use super::Workload;

/// A process that connected, as the kernel knows it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Peer<'a> {
    /// The connection, for attestors that ask the kernel for more.
    pub socket: BorrowedFd<'a>,
    /// The credentials at the time of the connection; only for Unix domain sockets, and only on Linux.
    pub credentials: Option<PeerCredentials>,
    /// The address of the client; only for TCP.
    pub address: Option<SocketAddr>,
}

/// The credentials of a process that connected (`SO_PEERCRED`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerCredentials {
    /// The process, which may have ended since, and whose number another one may have.
    pub process: i32,
    /// The effective user.
    pub user: u32,
    /// The effective group.
    pub group: u32,
}

/// Identifies callers without their participation (Workload Endpoint §5).
///
/// A server calls it once per connection, on the thread that accepts connections: it may block, and delays
/// only connections that come later.
pub trait Callers: Send + Sync {
    /// The caller behind a connection. An unknown one is a caller without a workload: it receives
    /// `PermissionDenied`, and may have a workload later.
    fn identify(&self, peer: &Peer<'_>) -> Box<dyn Caller>;
}

/// A caller that was identified.
///
/// A server asks for its workload when the connection begins and after each
/// [`Server::refresh`](super::Server::refresh), on the thread that serves all connections: an implementation
/// does not block.
pub trait Caller: Send {
    /// What the caller is entitled to now; `None`, when to nothing.
    fn workload(&self) -> Option<Arc<Workload>>;
}

/// One workload for every process that reaches the endpoint. Who that is, the permissions of the socket and
/// of its folder decide. Clones share the workload.
///
/// ```
/// use x0_identity::workload_api::{SharedWorkload, Workload};
/// use x0_identity::{SpiffeBundle, TrustBundle, TrustDomain};
///
/// let callers = SharedWorkload::new();
/// assert!(callers.get().is_none());
/// callers.set(Some(Workload::new(SpiffeBundle::new(TrustBundle::empty(TrustDomain::parse("example.org")?)))));
/// assert!(callers.get().is_some()); // call Server::refresh for streams that are open
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct SharedWorkload(Arc<RwLock<Option<Arc<Workload>>>>);

impl SharedWorkload {
    /// Builds the callers without a workload.
    #[must_use]
    pub fn new() -> SharedWorkload {
        SharedWorkload::default()
    }

    /// Sets what every caller is entitled to from now on; `None`, when to nothing. Streams that are open
    /// receive it with [`Server::refresh`](super::Server::refresh).
    pub fn set(&self, workload: Option<Workload>) {
        let workload = workload.map(Arc::new);
        // A panic cannot leave half a pointer behind.
        let before =
            core::mem::replace(&mut *self.0.write().unwrap_or_else(PoisonError::into_inner), workload);
        drop(before);
    }

    /// The current workload.
    #[must_use]
    pub fn get(&self) -> Option<Arc<Workload>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for SharedWorkload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("SharedWorkload").field(&self.get()).finish()
    }
}

impl Callers for SharedWorkload {
    fn identify(&self, _peer: &Peer<'_>) -> Box<dyn Caller> {
        Box::new(self.clone())
    }
}

impl Caller for SharedWorkload {
    fn workload(&self) -> Option<Arc<Workload>> {
        self.get()
    }
}
