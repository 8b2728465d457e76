//! A client in a thread of its own.

use core::fmt;
use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::string::{String, ToString};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};
use std::vec::Vec;

use rustix::event::{PollFd, PollFlags};
use rustls::crypto::CryptoProvider;

use super::socket::{Stream, Unsent, Waker, drain, is_readable, is_writable, wait};
use super::wit::WitContext;
use super::{
    ClientAnswer, ClientCall, ClientError, ClientInput, ClientOptions, ClientOutput, ClientSession,
    ClientSource, Code, EndpointAddress, EndpointAddressError, FetchedJwtSvid, IdentityFeed,
    IdentityFeedError, StartError, Status, Subscription, ValidatedJwtSvid, X509Bundles, X509Context,
};
use crate::{BundleMap, Identity, SpiffeId};

/// How long a connection to an address of TCP may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// A client of a Workload API, SPIRE's or any other: one thread keeps the subscriptions open and the current
/// values up to date. Dropping the client ends it.
///
/// ```no_run
/// use std::time::Duration;
/// use x0_identity::workload_api::{Client, ClientOptions};
///
/// let client = Client::from_env(ClientOptions::default())?; // SPIFFE_ENDPOINT_SOCKET
/// // Follows each rotation, for as long as the client lives.
/// let identity = client.identity(None, Duration::from_secs(10))?;
/// let (server, client_config) = (identity.server_config(), identity.client_config());
/// # drop((server, client_config));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Client {
    shared: Arc<Shared>,
    provider: Arc<CryptoProvider>,
    thread: Option<JoinHandle<()>>,
}

/// A client did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientStartError {
    /// The environment does not say where the endpoint is.
    #[error(transparent)]
    Address(#[from] EndpointAddressError),
    /// The system provides no thread or socket.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// There was nothing of a subscription in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The endpoint answered `PermissionDenied`.
    #[error("the Workload API has nothing for this workload: register it, or check its selectors")]
    Denied,
    /// The last attempt failed.
    #[error("the Workload API sent nothing that can be used")]
    Failed {
        /// The reason.
        source: ClientError,
    },
    /// There was no answer.
    #[error("the Workload API sent nothing in time: check that the client subscribes to it")]
    TimedOut,
}

/// There is no identity.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientIdentityError {
    /// There was no SVID in time.
    #[error(transparent)]
    Wait(#[from] WaitError),
    /// The SVID and its bundle form no identity.
    #[error(transparent)]
    Identity(#[from] IdentityFeedError),
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    waker: Waker,
}

#[derive(Default)]
struct State {
    x509_svids: Option<Arc<X509Context>>,
    x509_bundles: Option<Arc<X509Bundles>>,
    jwt_bundles: Option<Arc<BundleMap>>,
    wit_svids: Option<Arc<WitContext>>,
    wit_bundles: Option<Arc<BundleMap>>,
    problems: BTreeMap<Subscription, WaitError>,
    feeds: Vec<IdentityFeed>,
    feed_problem: Option<IdentityFeedError>,
    version: u64,
    /// Of a source, which asks again when something changes.
    waker: Option<core::task::Waker>,
    calls: Vec<(u64, ClientCall, Duration)>,
    calls_made: u64,
    answers: BTreeMap<u64, Result<ClientAnswer, ClientError>>,
    stop: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // No code that may panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `get` gives a value, or the time is over.
    fn wait_for<T>(
        &self,
        timeout: Duration,
        mut get: impl FnMut(&mut State) -> Option<T>,
    ) -> Result<T, MutexGuard<'_, State>> {
        let begun = Instant::now();
        let mut state = self.state();
        loop {
            if let Some(value) = get(&mut state) {
                return Ok(value);
            }
            let Some(left) = timeout.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) else {
                return Err(state);
            };
            (state, _) = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Client {
    /// Connects to an endpoint, and again whenever the connection ends.
    ///
    /// # Errors
    /// [`StartError`], when the system provides no thread or socket. An endpoint that is not there is no
    /// error: the client tries again.
    pub fn start(address: EndpointAddress, options: ClientOptions) -> Result<Client, StartError> {
        let (waker, woken) = Waker::pair()?;
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new(), waker });
        let authority = match &address {
            EndpointAddress::Unix(_) => "localhost".into(),
            EndpointAddress::Tcp(address) => address.to_string(),
        };
        // The seed needs no secrecy: it spreads the pauses of clients that started together.
        let seed = RandomState::new().build_hasher().finish();
        let provider = Arc::clone(&options.provider);
        let session = ClientSession::new(options, &authority, seed);
        let running = Running {
            shared: Arc::clone(&shared),
            session,
            address,
            origin: Instant::now(),
            stream: None,
            unsent: Unsent::default(),
        };
        let thread = Builder::new().name("workload-api-client".into()).spawn(move || running.run(&woken))?;
        Ok(Client { shared, provider, thread: Some(thread) })
    }

    pub(super) fn crypto_provider(&self) -> &Arc<CryptoProvider> {
        &self.provider
    }

    /// Connects to the endpoint in the variable `SPIFFE_ENDPOINT_SOCKET`.
    ///
    /// # Errors
    /// [`ClientStartError`], when the variable is not set or not an address, or as for [`Client::start`].
    pub fn from_env(options: ClientOptions) -> Result<Client, ClientStartError> {
        Ok(Client::start(EndpointAddress::from_env()?, options)?)
    }

    /// The current X.509-SVIDs and bundles. Waits for the first ones.
    ///
    /// # Errors
    /// [`WaitError`], when there are none in time, or none any more.
    pub fn x509_context(&self, timeout: Duration) -> Result<Arc<X509Context>, WaitError> {
        self.wait(Subscription::X509Svids, timeout, |state| state.x509_svids.clone())
    }

    /// The current bundles for X.509-SVIDs. Waits for the first ones; needs
    /// [`ClientOptions::x509_bundles`].
    ///
    /// # Errors
    /// As for [`Client::x509_context`].
    pub fn x509_bundles(&self, timeout: Duration) -> Result<Arc<X509Bundles>, WaitError> {
        self.wait(Subscription::X509Bundles, timeout, |state| state.x509_bundles.clone())
    }

    /// The current keys for JWT-SVIDs. Waits for the first ones; needs [`ClientOptions::jwt_bundles`].
    ///
    /// # Errors
    /// As for [`Client::x509_context`].
    pub fn jwt_bundles(&self, timeout: Duration) -> Result<Arc<BundleMap>, WaitError> {
        self.wait(Subscription::JwtBundles, timeout, |state| state.jwt_bundles.clone())
    }

    /// The current WIT-SVIDs with their keys. Waits for the first ones; needs [`ClientOptions::wit_svids`].
    ///
    /// # Errors
    /// As for [`Client::x509_context`].
    #[cfg(feature = "wit")]
    pub fn wit_context(&self, timeout: Duration) -> Result<Arc<WitContext>, WaitError> {
        self.wait(Subscription::WitSvids, timeout, |state| state.wit_svids.clone())
    }

    /// The current keys for WIT-SVIDs. Waits for the first ones; needs [`ClientOptions::wit_bundles`].
    ///
    /// # Errors
    /// As for [`Client::x509_context`].
    #[cfg(feature = "wit")]
    pub fn wit_bundles(&self, timeout: Duration) -> Result<Arc<BundleMap>, WaitError> {
        self.wait(Subscription::WitBundles, timeout, |state| state.wit_bundles.clone())
    }

    /// An identity that follows the Workload API for as long as the client lives, of the default SVID or the
    /// first one with a hint. When the SVID is redacted, the identity presents none until it returns.
    ///
    /// # Errors
    /// [`ClientIdentityError`], when there is no SVID in time, none with the hint, or its bundle does not
    /// trust it.
    pub fn identity(&self, hint: Option<&str>, timeout: Duration) -> Result<Identity, ClientIdentityError> {
        self.x509_context(timeout)?;
        let mut state = self.shared.state();
        let context = state.x509_svids.clone().ok_or(WaitError::Denied)?;
        let feed = IdentityFeed::new_with_provider(&context, hint, Arc::clone(&self.provider))?;
        let identity = feed.identity().clone();
        state.feeds.push(feed);
        Ok(identity)
    }

    /// The reason that an identity does not follow the newest context, if one does not.
    #[must_use]
    pub fn identity_problem(&self) -> Option<IdentityFeedError> {
        self.shared.state().feed_problem.clone()
    }

    /// The reason that a subscription is not up to date, if it is not.
    #[must_use]
    pub fn problem(&self, subscription: Subscription) -> Option<WaitError> {
        self.shared.state().problems.get(&subscription).cloned()
    }

    /// The SVIDs as a source for a [`SvidFollower`](crate::SvidFollower): the default one, or the first one
    /// with a hint.
    #[must_use]
    pub fn into_source(self, hint: Option<&str>) -> ClientSource {
        ClientSource::new(self, hint)
    }

    /// The version of what the endpoint gave, the current SVIDs, and the problem of a subscription. The waker
    /// is woken when one of them changes.
    pub(super) fn look(
        &self,
        subscription: Subscription,
        waker: &core::task::Waker,
    ) -> (u64, Option<Arc<X509Context>>, Option<WaitError>) {
        let mut state = self.shared.state();
        state.waker = Some(waker.clone());
        (state.version, state.x509_svids.clone(), state.problems.get(&subscription).cloned())
    }

    /// Waits until the current values are newer than version `seen`, and returns their version. The first
    /// version is 0.
    #[must_use]
    pub fn wait_for_change(&self, seen: u64, timeout: Duration) -> u64 {
        let newer = |state: &mut State| (state.version > seen).then_some(state.version);
        self.shared.wait_for(timeout, newer).unwrap_or_else(|state| state.version)
    }

    /// Requests JWT-SVIDs for an audience, of one identity or of all.
    ///
    /// # Errors
    /// [`ClientError`], when the endpoint refuses, does not answer in time, or its answer cannot be used.
    pub fn fetch_jwt_svids(
        &self,
        audience: &[&str],
        spiffe_id: Option<&SpiffeId>,
        timeout: Duration,
    ) -> Result<Vec<FetchedJwtSvid>, ClientError> {
        let audience: Vec<String> = audience.iter().map(ToString::to_string).collect();
        let call = ClientCall::FetchJwtSvids { audience, spiffe_id: spiffe_id.cloned() };
        match self.call(call, timeout)? {
            ClientAnswer::JwtSvids(svids) => Ok(svids),
            ClientAnswer::Validated(_) => Err(Status::new(Code::Internal, "another answer").into()),
        }
    }

    /// Lets the endpoint validate a JWT-SVID for an audience.
    ///
    /// # Errors
    /// [`ClientError`], when the token is not valid (`InvalidArgument`), or as for
    /// [`Client::fetch_jwt_svids`].
    pub fn validate_jwt_svid(
        &self,
        audience: &str,
        token: &str,
        timeout: Duration,
    ) -> Result<ValidatedJwtSvid, ClientError> {
        let call = ClientCall::ValidateJwtSvid { audience: audience.into(), token: token.into() };
        match self.call(call, timeout)? {
            ClientAnswer::Validated(svid) => Ok(svid),
            ClientAnswer::JwtSvids(_) => Err(Status::new(Code::Internal, "another answer").into()),
        }
    }

    fn call(&self, call: ClientCall, timeout: Duration) -> Result<ClientAnswer, ClientError> {
        let id = {
            let mut state = self.shared.state();
            state.calls_made += 1;
            let id = state.calls_made;
            state.calls.push((id, call, timeout));
            id
        };
        self.shared.waker.wake();
        // The engine answers in time; the rest is for a thread that is late.
        let patience = timeout.saturating_add(Duration::from_secs(60));
        self.shared.wait_for(patience, |state| state.answers.remove(&id)).unwrap_or_else(|_| {
            Err(Status::new(Code::DeadlineExceeded, "the client's thread did not answer").into())
        })
    }

    fn wait<T>(
        &self,
        subscription: Subscription,
        timeout: Duration,
        get: impl Fn(&State) -> Option<T>,
    ) -> Result<T, WaitError> {
        self.shared
            .wait_for(timeout, |state| get(state))
            .map_err(|state| state.problems.get(&subscription).cloned().unwrap_or(WaitError::TimedOut))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.shared.state().stop = true;
        self.shared.waker.wake();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Client").finish_non_exhaustive()
    }
}

/// The thread of a client.
struct Running {
    shared: Arc<Shared>,
    session: ClientSession,
    address: EndpointAddress,
    origin: Instant,
    stream: Option<Stream>,
    unsent: Unsent,
}

impl Running {
    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn run(mut self, woken: &UnixStream) {
        let mut buffer = [0; 16_384];
        loop {
            self.handle(ClientInput::Timeout);
            self.wait(woken, &mut buffer);
            let (calls, stop) = {
                let mut state = self.shared.state();
                (core::mem::take(&mut state.calls), state.stop)
            };
            if stop {
                return;
            }
            for (id, call, timeout) in calls {
                let now = self.now();
                if let Err(error) = self.session.handle(now, ClientInput::Call { id, call, timeout }) {
                    let status = Status::new(Code::ResourceExhausted, error.to_string());
                    self.shared.state().answers.insert(id, Err(status.into()));
                    self.shared.changed.notify_all();
                }
            }
        }
    }

    fn wait(&mut self, woken: &UnixStream, buffer: &mut [u8]) {
        let timeout = self.session.poll_timeout().map(|due| due.saturating_sub(self.now()));
        let mut fds = Vec::with_capacity(2);
        fds.push(PollFd::new(woken, PollFlags::IN));
        if let Some(stream) = &self.stream {
            let writing = if self.unsent.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            fds.push(PollFd::new(stream, PollFlags::IN | writing));
        }
        let waited = wait(&mut fds, timeout);
        let woke = is_readable(&fds[0]);
        let (readable, writable) = fds.get(1).map_or((false, false), |fd| (is_readable(fd), is_writable(fd)));
        drop(fds);
        if waited.is_err() || woke {
            drain(woken);
        }
        if writable {
            self.pump();
        }
        if readable {
            self.read(buffer);
        }
    }

    fn read(&mut self, buffer: &mut [u8]) {
        let Some(stream) = &mut self.stream else { return };
        match stream.read(buffer) {
            Ok(len) if len > 0 => self.handle(ClientInput::Bytes(&buffer[..len])),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            _ => self.closed(),
        }
    }

    fn closed(&mut self) {
        self.stream = None;
        self.unsent = Unsent::default();
        self.handle(ClientInput::Closed);
    }

    fn handle(&mut self, input: ClientInput<'_>) {
        let now = self.now();
        // A broken connection is closed and opened again by outputs.
        let _ = self.session.handle(now, input);
        self.pump();
    }

    /// Takes outputs until there are none, or until the socket takes no more bytes.
    fn pump(&mut self) {
        loop {
            if let Some(stream) = &mut self.stream {
                if self.unsent.send(stream).is_err() {
                    return self.closed();
                }
                if !self.unsent.is_empty() {
                    return;
                }
            }
            let Some(output) = self.session.poll_output() else { return };
            match output {
                ClientOutput::Connect => {
                    self.stream = Stream::connect(&self.address, CONNECT_MAX).ok();
                    let input =
                        if self.stream.is_some() { ClientInput::Connected } else { ClientInput::Closed };
                    let now = self.now();
                    let _ = self.session.handle(now, input);
                }
                ClientOutput::Send(bytes) => self.unsent.set(bytes),
                ClientOutput::Close => {
                    self.stream = None;
                    self.unsent = Unsent::default();
                }
                output => {
                    let mut state = self.shared.state();
                    state.take(output);
                    let waker = state.waker.clone();
                    drop(state);
                    self.shared.changed.notify_all();
                    // Outside of the lock: a waker may ask at once.
                    waker.into_iter().for_each(core::task::Waker::wake);
                }
            }
        }
    }
}

impl State {
    fn take(&mut self, output: ClientOutput) {
        match output {
            ClientOutput::X509Svids(context) => {
                let context = Arc::new(context);
                self.x509_svids = Some(Arc::clone(&context));
                let updates = self.feeds.iter_mut().map(|feed| feed.update(&context).err());
                self.feed_problem = updates.fold(None, Option::or);
                self.renew(Subscription::X509Svids);
            }
            ClientOutput::X509Bundles(bundles) => {
                self.x509_bundles = Some(Arc::new(bundles));
                self.renew(Subscription::X509Bundles);
            }
            ClientOutput::JwtBundles(bundles) => {
                self.jwt_bundles = Some(Arc::new(bundles));
                self.renew(Subscription::JwtBundles);
            }
            ClientOutput::WitSvids(context) => {
                self.wit_svids = Some(Arc::new(context));
                self.renew(Subscription::WitSvids);
            }
            ClientOutput::WitBundles(bundles) => {
                self.wit_bundles = Some(Arc::new(bundles));
                self.renew(Subscription::WitBundles);
            }
            // §5.2.1: what was redacted is not used any more.
            ClientOutput::Denied(subscription) => {
                match subscription {
                    Subscription::X509Svids => {
                        self.x509_svids = None;
                        self.feeds.iter_mut().for_each(IdentityFeed::deny);
                    }
                    Subscription::X509Bundles => self.x509_bundles = None,
                    Subscription::JwtBundles => self.jwt_bundles = None,
                    Subscription::WitSvids => self.wit_svids = None,
                    Subscription::WitBundles => self.wit_bundles = None,
                }
                self.version += 1;
                self.problems.insert(subscription, WaitError::Denied);
            }
            ClientOutput::Failed { subscription, error, .. } => {
                self.problems.insert(subscription, WaitError::Failed { source: error });
            }
            ClientOutput::Answer { id, answer } => _ = self.answers.insert(id, answer),
            ClientOutput::Connect | ClientOutput::Send(_) | ClientOutput::Close => {}
        }
    }

    fn renew(&mut self, subscription: Subscription) {
        self.problems.remove(&subscription);
        self.version += 1;
    }
}
