//! The admission of a peer: how long an established connection may go on.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;
use std::vec::Vec;

use pki_types::{CertificateDer, UnixTime};

use super::{Verifier, VerifyError};
use crate::SpiffeId;
use crate::path::Usage;
use crate::x509::to_system_time;

/// Wakes the admissions of an identity when what they depend on changes.
#[derive(Debug, Default)]
pub(super) struct Watchers(Mutex<BTreeMap<u64, Waker>>);

impl Watchers {
    fn watch(&self, id: u64, waker: &Waker) {
        let mut watchers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watchers.insert(id, waker.clone());
    }

    fn leave(&self, id: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    pub(super) fn wake_all(&self) {
        let watchers = core::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        // Outside of the lock: a waker may poll at once.
        watchers.into_values().for_each(Waker::wake);
    }
}

/// The admission of one peer, from [`Identity::admit`](crate::Identity::admit). As a future it becomes ready,
/// with the reason, when the chain of the peer is no longer valid: its certificate, SPIFFE ID or authority
/// was revoked, its authority left the bundle, or it expired. The owner of the connection closes it then.
///
/// The future is woken by changes of bundles and revocations, not by time: it needs no runtime. Await it
/// together with a timer for [`Admission::expires`], and poll it again when the timer fires. An identity that
/// was built with a source of bundles does not see changes of the source: poll the admission after a change.
pub struct Admission {
    verifier: Arc<Verifier>,
    watchers: Arc<Watchers>,
    id: u64,
    chain: Vec<CertificateDer<'static>>,
    role: PeerRole,
    spiffe_id: SpiffeId,
    expires: SystemTime,
}

/// The role of the peer of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerRole {
    /// The peer dialled.
    Client,
    /// The peer accepted.
    Server,
}

impl Admission {
    pub(super) fn new(
        verifier: Arc<Verifier>,
        watchers: Arc<Watchers>,
        id: u64,
        chain: Vec<CertificateDer<'static>>,
        role: PeerRole,
        now: SystemTime,
    ) -> Result<Admission, VerifyError> {
        let (spiffe_id, not_after) = verify(&verifier, &chain, role, now)?;
        let expires = to_system_time(not_after);
        Ok(Admission { verifier, watchers, id, chain, role, spiffe_id, expires })
    }

    /// The SPIFFE ID of the peer.
    #[must_use]
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.spiffe_id
    }

    /// The last second in which the chain of the peer is valid, by the bundles at the time of the admission:
    /// the first end of its leaf, its intermediates and the authority. After a rotation of the authority the
    /// chain may be valid for longer; admit the peer again, when the time has come.
    #[must_use]
    pub fn expires(&self) -> SystemTime {
        self.expires
    }

    /// Checks the admission at a time, with the current bundles and revocations.
    ///
    /// # Errors
    /// [`VerifyError`], the reason to close the connection.
    pub fn check(&self, now: SystemTime) -> Result<(), VerifyError> {
        verify(&self.verifier, &self.chain, self.role, now).map(drop)
    }
}

fn verify(
    verifier: &Verifier,
    chain: &[CertificateDer<'_>],
    role: PeerRole,
    now: SystemTime,
) -> Result<(SpiffeId, i64), VerifyError> {
    let now = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
    let (leaf, signers) = chain.split_first().ok_or(VerifyError::ChainLength { len: 0 })?;
    let usage = match role {
        PeerRole::Client => Usage::Client,
        PeerRole::Server => Usage::Server,
    };
    verifier.verify_until(leaf, signers, now, usage)
}

impl Future for Admission {
    type Output = VerifyError;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<VerifyError> {
        // Registered first, so that a change while it is checked wakes it again.
        self.watchers.watch(self.id, context.waker());
        match self.check(SystemTime::now()) {
            Ok(()) => Poll::Pending,
            Err(error) => {
                self.watchers.leave(self.id);
                Poll::Ready(error)
            }
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.watchers.leave(self.id);
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Admission")
            .field("spiffe_id", &self.spiffe_id)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}
