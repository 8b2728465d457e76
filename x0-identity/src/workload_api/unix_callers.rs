//! Callers that are attested by the kernel and looked up in a registry.

use core::fmt;
use std::boxed::Box;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;
use std::vec::Vec;

use super::{Caller, Callers, Peer, Workload};
use crate::attest::ProcessHandle;
use crate::{RegistrationEntry, Registry, Selector, UnixAttestError, UnixAttestor};

/// Issues what a caller receives for the registration entries that it matches.
///
/// A server asks for it on the thread that serves all connections: an implementation does not block. It
/// returns the same value until something changes, or every refresh would issue SVIDs to everyone.
pub trait WorkloadSource: Send + Sync {
    /// The workload of a caller that matches these entries, ordered by SPIFFE ID and never empty; `None`,
    /// when there is nothing for it now.
    fn workload(&self, entries: &[RegistrationEntry]) -> Option<Arc<Workload>>;
}

impl<F> WorkloadSource for F
where
    F: Fn(&[RegistrationEntry]) -> Option<Arc<Workload>> + Send + Sync,
{
    fn workload(&self, entries: &[RegistrationEntry]) -> Option<Arc<Workload>> {
        self(entries)
    }
}

/// Callers on the same machine: the kernel attests each one when it connects, and the registration entries
/// that its selectors match say what it receives. An entry that is added or removed counts from the next
/// [`Server::refresh`](super::Server::refresh) on.
///
/// A connection is entitled for as long as the process lives that made it: another process that holds its end
/// receives nothing after that.
///
/// ```no_run
/// use std::sync::{Arc, RwLock};
/// use x0_identity::workload_api::{EndpointAddress, Listener, Server, ServerOptions, UnixCallers, Workload};
/// use x0_identity::{MemoryRegistry, RegistrationEntry, Selector, SpiffeId, UnixAttestor};
///
/// # fn issue(_: &[RegistrationEntry]) -> Option<Arc<Workload>> { unimplemented!() }
/// let registry = Arc::new(RwLock::new(MemoryRegistry::new()));
/// let web = SpiffeId::parse("spiffe://example.org/web")?;
/// let entry = RegistrationEntry::new(web, std::time::Duration::from_secs(3600))
///     .selector(Selector::parse("unix:uid:1000")?)
///     .selector(Selector::parse("unix:path:/usr/bin/web")?);
/// registry.write().unwrap().insert(entry);
///
/// let callers = UnixCallers::new(UnixAttestor::default(), registry, Arc::new(issue));
/// let listener = Listener::bind(&EndpointAddress::parse("unix:///run/example/api.sock")?)?;
/// let server = Server::start(listener, Arc::new(callers), ServerOptions::default())?;
/// # drop(server);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct UnixCallers {
    attestor: UnixAttestor,
    registry: Arc<dyn Registry + Send + Sync>,
    workloads: Arc<dyn WorkloadSource>,
    refused: Option<OnRefusal>,
}

type OnRefusal = Arc<dyn Fn(&UnixAttestError) + Send + Sync>;

impl UnixCallers {
    /// Builds the callers of one server.
    #[must_use]
    pub fn new(
        attestor: UnixAttestor,
        registry: Arc<dyn Registry + Send + Sync>,
        workloads: Arc<dyn WorkloadSource>,
    ) -> UnixCallers {
        UnixCallers { attestor, registry, workloads, refused: None }
    }

    /// Sets what is called, on the thread that accepts connections, when a caller was not attested. Such a
    /// caller receives `PermissionDenied`.
    #[must_use]
    pub fn on_refusal(mut self, refused: impl Fn(&UnixAttestError) + Send + Sync + 'static) -> UnixCallers {
        self.refused = Some(Arc::new(refused));
        self
    }
}

impl fmt::Debug for UnixCallers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("UnixCallers").field("attestor", &self.attestor).finish_non_exhaustive()
    }
}

impl Callers for UnixCallers {
    fn identify(&self, peer: &Peer<'_>) -> Box<dyn Caller> {
        match self.attestor.attest_process(peer.socket) {
            Ok((peer, process)) => Box::new(Attested {
                selectors: peer.selectors(),
                process,
                registry: Arc::clone(&self.registry),
                workloads: Arc::clone(&self.workloads),
            }),
            Err(error) => {
                if let Some(refused) = &self.refused {
                    refused(&error);
                }
                Box::new(Refused)
            }
        }
    }
}

struct Attested {
    selectors: BTreeSet<Selector>,
    process: ProcessHandle,
    registry: Arc<dyn Registry + Send + Sync>,
    workloads: Arc<dyn WorkloadSource>,
}

impl Caller for Attested {
    fn workload(&self) -> Option<Arc<Workload>> {
        if !self.process.lives() {
            return None;
        }
        let entries: Vec<RegistrationEntry> = self.registry.matching(&self.selectors, SystemTime::now());
        if entries.is_empty() { None } else { self.workloads.workload(&entries) }
    }
}

struct Refused;

impl Caller for Refused {
    fn workload(&self) -> Option<Arc<Workload>> {
        None
    }
}
