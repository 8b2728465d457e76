//! A consumer of bundle endpoints in threads of its own.

use core::fmt;
use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::string::ToString;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};
use std::vec;
use std::vec::Vec;

use pki_types::ServerName;
use rustls::crypto::CryptoProvider;
use rustls::{ClientConnection, RootCertStore, StreamOwned};

use super::{
    ClientOptions, EndpointAuthentication, EndpointUrl, Federation, FederationHandleError, FederationInput,
    FederationOutput, FetchFailure, Relationship, RelationshipStatus, system_roots,
};
use crate::deadline::Deadline;
use crate::{BundleMap, Identity, SpiffeBundle, TrustDomain};

/// Inputs that wait for the engine; connections wait then.
const QUEUE_LEN: usize = 64;

/// A driver did not start.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the threads of the bundle endpoint: check the limits of the process")]
pub struct StartError {
    /// The system's reason.
    source: io::Error,
}

impl From<io::Error> for StartError {
    fn from(source: io::Error) -> StartError {
        StartError { source }
    }
}

/// Receives each bundle that a [`Client`] fetched, and validates peers with it.
///
/// The client calls it on its own thread, in the order of the changes: an implementation returns soon.
pub trait FederatedBundles: Send + Sync {
    /// The bundle of its trust domain is this one from now on.
    fn updated(&self, bundle: &SpiffeBundle);

    /// The trust domain is not trusted any more.
    fn removed(&self, trust_domain: &TrustDomain);
}

/// The identity trusts the foreign domains. Its own bundle, and identities with a source of bundles, are left
/// as they are.
impl FederatedBundles for Identity {
    fn updated(&self, bundle: &SpiffeBundle) {
        // Refused are the identity's own trust domain and an identity with a source; both are documented.
        let _ = self.federate(bundle.trust_bundle().clone());
    }

    fn removed(&self, trust_domain: &TrustDomain) {
        let _ = self.unfederate(trust_domain);
    }
}

/// A consumer of bundle endpoints: one thread drives a [`Federation`], and each fetch has a thread of its own
/// while it lasts. Dropping the client ends it.
///
/// ```no_run
/// use std::sync::Arc;
/// use x0_identity::TrustDomain;
/// use x0_identity::federation::{Client, ClientOptions, EndpointProfile, EndpointUrl, Relationship};
///
/// # fn identity() -> x0_identity::Identity { unimplemented!() }
/// let client = Client::start(Arc::new(identity()), ClientOptions::default())?;
/// let url = EndpointUrl::parse("https://example.com/production/bundle.json")?;
/// client.establish(Relationship::new(TrustDomain::parse("prod.example.com")?, url, EndpointProfile::Web))?;
/// // The identity accepts peers of prod.example.com as soon as the bundle is fetched.
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Client {
    shared: Arc<Shared>,
    inbox: SyncSender<Message>,
    thread: Option<JoinHandle<()>>,
}

enum Message {
    Input(FederationInput),
    Command(FederationInput, SyncSender<Result<(), FederationHandleError>>),
    Stop,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    bundles: BundleMap,
    status: Vec<RelationshipStatus>,
    version: u64,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // No code that may panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    /// Starts a client without relationships.
    ///
    /// # Errors
    /// [`StartError`], when the system provides no thread.
    pub fn start(bundles: Arc<dyn FederatedBundles>, options: ClientOptions) -> Result<Client, StartError> {
        let shared = Arc::new(Shared::default());
        let (inbox, messages) = sync_channel(QUEUE_LEN);
        // The seed needs no secrecy: it spreads the fetches of clients that started together.
        let seed = RandomState::new().build_hasher().finish();
        let running = Running {
            shared: Arc::clone(&shared),
            bundles,
            engine: Federation::new(options.clone(), seed),
            options,
            origin: Instant::now(),
            inbox: inbox.clone(),
            connections: BTreeMap::new(),
        };
        let thread = Builder::new().name("federation".into()).spawn(move || running.run(&messages))?;
        Ok(Client { shared, inbox, thread: Some(thread) })
    }

    /// Begins a relationship, or replaces the one with the same trust domain.
    ///
    /// # Errors
    /// [`FederationHandleError::RelationshipsMax`]; nothing has changed.
    pub fn establish(&self, relationship: Relationship) -> Result<(), FederationHandleError> {
        self.command(FederationInput::Establish(relationship))
    }

    /// Ends a relationship, and deletes the bundle of its trust domain.
    ///
    /// # Errors
    /// [`FederationHandleError::Unknown`], when there is none.
    pub fn terminate(&self, trust_domain: TrustDomain) -> Result<(), FederationHandleError> {
        self.command(FederationInput::Terminate { trust_domain })
    }

    /// Uses a bundle from now on: a local update, or the bundle of a trust domain without a relationship,
    /// such as the own one.
    pub fn set_bundle(&self, bundle: SpiffeBundle) {
        // A bundle is accepted in each state.
        let _ = self.command(FederationInput::Bundle(bundle));
    }

    /// Fetches a bundle before its time.
    ///
    /// # Errors
    /// [`FederationHandleError::Unknown`], when there is no relationship with the trust domain.
    pub fn refresh(&self, trust_domain: TrustDomain) -> Result<(), FederationHandleError> {
        self.command(FederationInput::Refresh { trust_domain })
    }

    /// The latest bundle of each trust domain.
    #[must_use]
    pub fn bundles(&self) -> BundleMap {
        self.shared.state().bundles.clone()
    }

    /// The state of each relationship. Times are those since the client started.
    #[must_use]
    pub fn status(&self) -> Vec<RelationshipStatus> {
        self.shared.state().status.clone()
    }

    /// Waits until the state changes after version `seen`, or the time is over, and returns the version. The
    /// first version is 0.
    #[must_use]
    pub fn wait_for_change(&self, seen: u64, timeout: Duration) -> u64 {
        let unchanged = |state: &mut State| state.version <= seen;
        let waited = self.shared.changed.wait_timeout_while(self.shared.state(), timeout, unchanged);
        waited.unwrap_or_else(PoisonError::into_inner).0.version
    }

    fn command(&self, input: FederationInput) -> Result<(), FederationHandleError> {
        let (answer, answered) = sync_channel(1);
        // The thread ends only with this client.
        let _ = self.inbox.send(Message::Command(input, answer));
        answered.recv().unwrap_or(Ok(()))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.inbox.send(Message::Stop);
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

/// The thread that drives the engine.
struct Running {
    shared: Arc<Shared>,
    bundles: Arc<dyn FederatedBundles>,
    engine: Federation,
    options: ClientOptions,
    origin: Instant,
    inbox: SyncSender<Message>,
    /// Of fetches in progress.
    connections: BTreeMap<u64, Arc<Connection>>,
}

/// What ends the thread of a fetch.
#[derive(Default)]
struct Connection(Mutex<ConnectionState>);

#[derive(Default)]
enum ConnectionState {
    #[default]
    Connecting,
    Connected(TcpStream),
    Closed,
}

impl Connection {
    /// Notes the socket. `false`, if the connection is not needed any more.
    fn connected(&self, stream: &TcpStream) -> io::Result<bool> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, ConnectionState::Closed) {
            return Ok(false);
        }
        *state = ConnectionState::Connected(stream.try_clone()?);
        Ok(true)
    }

    fn close(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let ConnectionState::Connected(stream) = core::mem::replace(&mut *state, ConnectionState::Closed) {
            // A connection that has ended already cannot be shut down, and need not be.
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

impl Running {
    fn run(mut self, messages: &Receiver<Message>) {
        loop {
            let now = self.origin.elapsed();
            let message = match self.engine.poll_timeout() {
                Some(due) => messages.recv_timeout(due.saturating_sub(now)),
                None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let now = self.origin.elapsed();
            let answer = match message {
                Ok(Message::Input(input)) => {
                    // An input of a fetch that is over comes from a thread that is about to end.
                    let _ = self.engine.handle(now, input);
                    None
                }
                Ok(Message::Command(input, answer)) => Some((self.engine.handle(now, input), answer)),
                Err(RecvTimeoutError::Timeout) => {
                    let _ = self.engine.handle(now, FederationInput::Timeout);
                    None
                }
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => break,
            };
            while let Some(output) = self.engine.poll_output() {
                self.perform(output);
            }
            {
                let mut state = self.shared.state();
                state.bundles = self.engine.bundles();
                state.status = self.engine.status();
                state.version += 1;
            }
            self.shared.changed.notify_all();
            if let Some((result, answer)) = answer {
                drop(answer.send(result));
            }
        }
        for connection in self.connections.values() {
            connection.close();
        }
    }

    fn perform(&mut self, output: FederationOutput) {
        match output {
            FederationOutput::Dial { fetch, url, authentication, request } => {
                let connection = Arc::new(Connection::default());
                self.connections.insert(fetch, Arc::clone(&connection));
                let fetching = Fetching {
                    fetch,
                    url,
                    authentication,
                    request,
                    web_roots: self.options.web_roots.clone(),
                    provider: Arc::clone(&self.options.provider),
                    by: Instant::now() + self.options.fetch_max,
                    connection,
                    inbox: self.inbox.clone(),
                };
                // Without a thread the fetch times out, and takes place again at the next interval.
                drop(Builder::new().name("federation-fetch".into()).spawn(move || fetching.run()));
            }
            FederationOutput::Close { fetch } => {
                if let Some(connection) = self.connections.remove(&fetch) {
                    connection.close();
                }
            }
            FederationOutput::Store(bundle) => self.bundles.updated(&bundle),
            FederationOutput::Remove { trust_domain } => self.bundles.removed(&trust_domain),
        }
    }
}

/// The thread of a fetch.
struct Fetching {
    fetch: u64,
    url: EndpointUrl,
    authentication: EndpointAuthentication,
    request: Vec<u8>,
    web_roots: Option<Arc<RootCertStore>>,
    provider: Arc<CryptoProvider>,
    by: Instant,
    connection: Arc<Connection>,
    inbox: SyncSender<Message>,
}

impl Fetching {
    fn run(self) {
        let fetch = self.fetch;
        let last = match self.exchange() {
            Ok(()) => FederationInput::Ended { fetch },
            Err(failure) => FederationInput::Failed { fetch, failure },
        };
        // The client may have ended.
        drop(self.inbox.send(Message::Input(last)));
    }

    fn exchange(&self) -> Result<(), FetchFailure> {
        let roots = match (&self.authentication, &self.web_roots) {
            (_, Some(roots)) => Arc::clone(roots),
            (EndpointAuthentication::Spiffe { .. }, None) => Arc::new(RootCertStore::empty()),
            (EndpointAuthentication::Web { .. }, None) => {
                Arc::new(system_roots().map_err(not_authenticated)?)
            }
        };
        let provider = Arc::clone(&self.provider);
        let config = self.authentication.client_config_with_provider(&roots, provider);
        let config = config.map_err(not_authenticated)?;
        let name = self.url.host().clone();
        let connection = ClientConnection::new(config, name).map_err(not_authenticated)?;
        let stream = connect(&self.url, self.by).map_err(unreachable)?;
        if !self.connection.connected(&stream).map_err(unreachable)? {
            return Ok(());
        }
        let mut tls = StreamOwned::new(connection, Deadline { stream, by: self.by });
        tls.write_all(&self.request).and_then(|()| tls.flush()).map_err(of_handshake)?;
        let mut buffer = vec![0; 16_384];
        loop {
            match tls.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(len) => {
                    let bytes = buffer[..len].to_vec();
                    let input = FederationInput::Received { fetch: self.fetch, bytes };
                    if self.inbox.send(Message::Input(input)).is_err() {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(of_handshake(error)),
            }
        }
    }
}

/// Connects to the first address of the host that answers.
fn connect(url: &EndpointUrl, by: Instant) -> io::Result<TcpStream> {
    let addresses: Vec<SocketAddr> = match url.host() {
        ServerName::IpAddress(address) => vec![SocketAddr::new(IpAddr::from(*address), url.port())],
        host => (host.to_str().as_ref(), url.port()).to_socket_addrs()?.collect(),
    };
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses {
        let left = by.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn unreachable(error: impl fmt::Display) -> FetchFailure {
    FetchFailure::Unreachable { reason: error.to_string() }
}

fn not_authenticated(error: impl fmt::Display) -> FetchFailure {
    FetchFailure::NotAuthenticated { reason: error.to_string() }
}

/// The error of TLS is inside that of the connection.
fn of_handshake(error: io::Error) -> FetchFailure {
    let of_tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match of_tls.map(ToString::to_string) {
        Some(reason) => FetchFailure::NotAuthenticated { reason },
        None => unreachable(error),
    }
}
