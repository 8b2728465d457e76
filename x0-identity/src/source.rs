//! Sources of the SVID and the bundles of this process, and an identity that follows one.

use core::fmt;
use std::boxed::Box;
use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};
use std::thread::{Builder, JoinHandle, Thread, current, park_timeout};
use std::time::{Duration, Instant, SystemTime};

use rustls::crypto::CryptoProvider;

use crate::crypto::ring_provider;
use crate::{Identity, IdentityError, RotateError, SetBundleError, TrustBundleSet, X509Svid};

mod files;
mod followed;
#[cfg(feature = "authority")]
mod issuer;

pub use files::SvidFiles;
pub(crate) use followed::Followed;
#[cfg(feature = "workload-api")]
pub(crate) use followed::Unfollowed;
#[cfg(feature = "authority")]
pub use issuer::{InProcessIssuer, IssuerHandle};

/// The SVID and the bundles of a process, in the place of all earlier ones.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum SvidState {
    /// An SVID, and the bundles to trust: that of its trust domain, and those of foreign ones.
    Held {
        /// The SVID. Its SPIFFE ID is that of the SVIDs before.
        svid: Box<X509Svid>,
        /// The bundles.
        bundles: TrustBundleSet,
    },
    /// Nothing: the source withdrew the SVID.
    Withdrawn,
}

/// The answer of a source.
#[derive(Debug)]
#[non_exhaustive]
pub struct SvidPoll {
    /// The new state; `None` if nothing has changed since the answer before. After an error the state from
    /// before stays in use.
    pub change: Result<Option<SvidState>, SvidSourceError>,
    /// When to ask again at the latest, from now on.
    pub again: Duration,
}

impl SvidPoll {
    /// Builds an answer.
    #[must_use]
    pub fn new(change: Result<Option<SvidState>, SvidSourceError>, again: Duration) -> SvidPoll {
        SvidPoll { change, again }
    }
}

/// A source has failed. What it gave before stays in use.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the source has no newer SVID: see the cause, and correct the source")]
pub struct SvidSourceError {
    /// The reason, in the terms of the source.
    pub source: Arc<dyn Error + Send + Sync>,
}

impl SvidSourceError {
    /// Wraps the error of a source.
    pub fn new(source: impl Into<Box<dyn Error + Send + Sync>>) -> SvidSourceError {
        SvidSourceError { source: Arc::from(source.into()) }
    }
}

/// A source of the SVID and the bundles of this process: [`SvidFiles`], an `InProcessIssuer`, an
/// `IssuanceSource`, or a `workload_api::ClientSource`. An [`SvidFollower`] asks it.
///
/// # Contract
/// - Until its first change a source may answer that there is none. A change is complete: the bundle of the
///   trust domain of the SVID and all foreign ones, so that what is missing is not trusted any more.
/// - A change that the identity refuses, such as an SVID that is not valid yet, is kept and tried again by
///   the follower, until there is another one.
/// - Every change has the SPIFFE ID of the first one.
/// - The source is asked again after [`SvidPoll::again`], and as soon as the waker of the last call is woken.
///   Asking it earlier does no harm. A source wakes from any thread, also while it is asked.
/// - It may block for as long as a file takes to be read, a certificate to be signed, or an exchange with an
///   issuer to end: the thread that asks it does nothing else, and the end of a follower waits for it. For an
///   `IssuanceSource` and one address an exchange ends within 40 s; with the challenge of a TPM within 60 s
///   and the time of the TPM. Before it the system resolves the name of the address, by limits of its own.
/// - An error changes nothing. A source that failed is asked again, for ever.
pub trait SvidSource: Send {
    /// The change since the last call, by the system's clock `now`.
    fn poll(&mut self, now: SystemTime, waker: &Waker) -> SvidPoll;

    /// The provider of cryptography for the identity that follows the source; `None` for that of ring. A
    /// source that was given one for its own exchanges returns it, so that both are of one provider.
    fn provider(&self) -> Option<Arc<CryptoProvider>> {
        None
    }
}

/// An identity does not follow its source, at the moment.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum FollowError {
    /// The source has failed.
    #[error(transparent)]
    Source(#[from] SvidSourceError),
    /// The source withdrew the SVID: handshakes present none until it returns.
    #[error(
        "the source has withdrawn the SVID: the identity presents none until it returns; register the workload"
    )]
    Withdrawn,
    /// The first SVID and its bundle form no identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The new SVID was not rotated in; the bundles are the new ones.
    #[error(transparent)]
    Rotate(#[from] RotateError),
    /// A bundle was not set.
    #[error(transparent)]
    Bundle(#[from] SetBundleError),
    /// The source gave nothing in time.
    #[error("the source gave no SVID in time: check the source, or wait longer")]
    TimedOut,
    /// The source panicked: the identity follows it no more.
    #[error("the source has panicked and is not asked any more: correct it, and start a new follower")]
    Ended,
    /// The system provides no thread.
    #[error("cannot start the thread that follows the source: the system provides none")]
    Thread,
}

/// An [`Identity`] that follows a source, on a thread of its own. Dropping the follower ends it; the identity
/// stays as it is.
///
/// ```no_run
/// use std::time::Duration;
/// use x0_identity::{SvidFiles, SvidFollower, TrustDomain};
///
/// let files = SvidFiles::new(TrustDomain::parse("example.org")?, "svid.pem", "bundle.pem");
/// let follower = SvidFollower::start(files, Duration::from_secs(30))?;
/// let server = follower.identity().server_config(); // presents what the files have at each handshake
/// # drop(server);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SvidFollower {
    identity: Identity,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    stop: AtomicBool,
}

#[derive(Default)]
struct State {
    identity: Option<Identity>,
    problem: Option<FollowError>,
    is_over: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // No code that may panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes the thread of a follower.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Unpark>) {
        self.0.unpark();
    }
}

impl SvidFollower {
    /// Waits for the first SVID of a source, builds its identity, and follows the source from then on. The
    /// identity has the provider of cryptography of the source ([`SvidSource::provider`]), or that of ring.
    ///
    /// # Errors
    /// [`FollowError`], when there is no usable SVID in time: the last reason, if there is one.
    pub fn start(source: impl SvidSource + 'static, timeout: Duration) -> Result<SvidFollower, FollowError> {
        let provider = source.provider().unwrap_or_else(ring_provider);
        SvidFollower::start_with_provider(source, timeout, provider)
    }

    /// As [`SvidFollower::start`], with another provider of cryptography for the identity.
    ///
    /// # Errors
    /// As for [`SvidFollower::start`].
    pub fn start_with_provider(
        source: impl SvidSource + 'static,
        timeout: Duration,
        provider: Arc<CryptoProvider>,
    ) -> Result<SvidFollower, FollowError> {
        let shared = Arc::new(Shared::default());
        let following = Arc::clone(&shared);
        let run = move || run(source, &following, &provider);
        let thread = Builder::new().name("svid-source".into()).spawn(run).map_err(|_| FollowError::Thread)?;
        let begun = Instant::now();
        let mut state = shared.state();
        loop {
            if let Some(identity) = state.identity.clone() {
                drop(state);
                return Ok(SvidFollower { identity, shared, thread: Some(thread) });
            }
            let left = timeout.checked_sub(begun.elapsed()).filter(|left| !left.is_zero());
            let Some(left) = left.filter(|_| !state.is_over) else {
                let problem = state.problem.take().unwrap_or(FollowError::TimedOut);
                drop(state);
                end(&shared, thread);
                return Err(problem);
            };
            (state, _) = shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The identity. Clones of it follow as well.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The reason that the identity does not follow the source, until it does again.
    #[must_use]
    pub fn problem(&self) -> Option<FollowError> {
        self.shared.state().problem.clone()
    }
}

fn end(shared: &Shared, thread: JoinHandle<()>) {
    shared.stop.store(true, Ordering::Release);
    thread.thread().unpark();
    drop(thread.join());
}

impl Drop for SvidFollower {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            end(&self.shared, thread);
        }
    }
}

impl fmt::Debug for SvidFollower {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SvidFollower").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// Reports that the thread of a source ended by a panic.
struct Unwound<'a>(&'a Shared);

impl Drop for Unwound<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut state = self.0.state();
            (state.problem, state.is_over) = (Some(FollowError::Ended), true);
            drop(state);
            self.0.changed.notify_all();
        }
    }
}

/// The longest time to the next attempt with an SVID that the identity refused.
const REFUSED_AGAIN: Duration = Duration::from_secs(1);

fn run(mut source: impl SvidSource, shared: &Shared, provider: &Arc<CryptoProvider>) {
    let _unwound = Unwound(shared);
    let waker = Waker::from(Arc::new(Unpark(current())));
    let mut followed: Option<Followed> = None;
    // The source does not repeat it, and what it lacked may have come since: its bundle, or its time.
    let mut refused: Option<SvidState> = None;
    while !shared.stop.load(Ordering::Acquire) {
        let SvidPoll { change, mut again } = source.poll(SystemTime::now(), &waker);
        let (change, failed) = match change {
            Ok(change) => (change, None),
            Err(error) => (None, Some(FollowError::from(error))),
        };
        // An error of the source changes nothing: what was refused is tried again all the same.
        let offered = change.or(refused.take());
        let taken = offered.clone().map_or(Ok(false), |state| take(state, &mut followed, provider));
        if matches!(taken, Err(FollowError::Identity(_) | FollowError::Rotate(_))) {
            refused = offered;
            again = again.min(REFUSED_AGAIN);
        }
        if failed.is_some() || !matches!(taken, Ok(false)) {
            let mut state = shared.state();
            state.problem = failed.or(taken.err());
            state.identity = followed.as_ref().map(|followed| followed.identity().clone());
            drop(state);
            shared.changed.notify_all();
        }
        // A wake-up since the call is not lost: the thread does not park then.
        park_timeout(again);
    }
}

/// Applies a change, and returns true.
fn take(
    state: SvidState,
    followed: &mut Option<Followed>,
    provider: &Arc<CryptoProvider>,
) -> Result<bool, FollowError> {
    match (state, followed.as_mut()) {
        (SvidState::Held { svid, bundles }, None) => {
            *followed = Some(Followed::new(*svid, &bundles, Arc::clone(provider))?);
        }
        (SvidState::Held { svid, bundles }, Some(followed)) => followed.update(*svid, &bundles)?,
        (SvidState::Withdrawn, followed) => {
            followed.into_iter().for_each(Followed::withdraw);
            return Err(FollowError::Withdrawn);
        }
    }
    Ok(true)
}
