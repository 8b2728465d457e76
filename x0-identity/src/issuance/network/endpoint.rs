//! The driver of an issuer.

use core::fmt;
use std::boxed::Box;
use std::collections::BTreeMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant, SystemTime};
use std::vec::Vec;

use pki_types::CertificateDer;
use rustls::ServerConfig;

use super::stream::RequestStream;
use super::{MESSAGE_MAX, Timed};
use crate::deadline::{Deadline, wake_listener};
use crate::{
    Attestors, ISSUANCE_BINDING_LABEL, ISSUANCE_REQUEST_LEN_MAX, Identity, IssuanceServer,
    IssuanceServerInput, IssuanceServerOutput, PeerRole, Registry, SpiffeId, peer_spiffe_id,
};

/// The time after which the SVID of a connection is validated again, before the next request is carried out.
const ADMITTED_FOR: Duration = Duration::from_secs(1);

/// A connection that has sent no request for so long makes room for another one. A handshake takes less, also
/// while all places are in one: each would be begun and thrown away.
const SILENT_AFTER: Duration = Duration::from_secs(1);

/// Signs the bytes of [`IssuanceServerOutput::Sign`] with the authority's key; `None` if it cannot.
pub type Sign = Box<dyn FnMut(&[u8]) -> Option<Vec<u8>> + Send>;

/// The settings of an [`IssuanceEndpoint`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct IssuanceEndpointOptions {
    /// The most connections at a time. The default is 256. For a further one, the oldest connection makes
    /// room that has sent no request yet and has been open for a second; if there is none, the further one is
    /// closed.
    pub connections_max: usize,
    /// The most requests of a connection that TLS has authenticated; any other one has one. The default
    /// is 64.
    pub requests_max: usize,
}

impl Default for IssuanceEndpointOptions {
    fn default() -> IssuanceEndpointOptions {
        IssuanceEndpointOptions { connections_max: 256, requests_max: 64 }
    }
}

impl IssuanceEndpointOptions {
    /// Sets [`IssuanceEndpointOptions::connections_max`].
    #[must_use]
    pub fn connections_max(mut self, connections_max: usize) -> IssuanceEndpointOptions {
        self.connections_max = connections_max;
        self
    }

    /// Sets [`IssuanceEndpointOptions::requests_max`].
    #[must_use]
    pub fn requests_max(mut self, requests_max: usize) -> IssuanceEndpointOptions {
        self.requests_max = requests_max;
        self
    }
}

/// An issuer on a TCP port: one thread accepts connections, and each has a thread of its own. Requests are
/// carried out one after the other. Dropping the endpoint stops it.
///
/// The engine stays as it is between requests, until [`IssuanceEndpoint::change`]. An issuer that reads its
/// authority and entries from elsewhere for each request, or logs each with its peer, drives an
/// [`IssuanceServer`] itself, as `x0-node issuer` does.
///
/// ```no_run
/// use std::net::TcpListener;
/// use x0_identity::{Attestors, IssuanceEndpoint, IssuanceEndpointOptions, IssuanceServer, JoinTokens, MemoryRegistry};
///
/// # fn parts() -> (x0_identity::Identity, IssuanceServer<MemoryRegistry>) { unimplemented!() }
/// # fn sign(_: &[u8]) -> Option<Vec<u8>> { None }
/// let (identity, server) = parts(); // of the issuer itself, and the engine with its signer
/// let attestors = Attestors::new().with(JoinTokens::new());
/// let listener = TcpListener::bind("[::]:7440")?;
/// let options = IssuanceEndpointOptions::default();
/// let endpoint = IssuanceEndpoint::start(listener, &identity, server, attestors, Box::new(sign), options)?;
/// # drop(endpoint);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct IssuanceEndpoint<R> {
    address: SocketAddr,
    shared: Arc<Shared<R>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared<R> {
    issuer: Mutex<Issuer<R>>,
    connections: Mutex<Connections>,
    config: Arc<ServerConfig>,
    /// The issuer's own, which knows what is revoked.
    identity: Identity,
    options: IssuanceEndpointOptions,
    origin: Instant,
}

struct Issuer<R> {
    server: IssuanceServer<R>,
    attestors: Attestors,
    sign: Sign,
    requests: u64,
}

#[derive(Default)]
struct Connections {
    /// In the order in which they were accepted.
    open: BTreeMap<u64, Accepted>,
    accepted: u64,
    stop: bool,
}

struct Accepted {
    stream: TcpStream,
    since: Instant,
    /// Whether a whole request has arrived.
    has_asked: bool,
}

impl Connections {
    /// Makes room for one more connection, if there are so many; says whether there is.
    fn make_room(&mut self, connections_max: usize, now: Instant) -> bool {
        if self.open.len() < connections_max {
            return true;
        }
        let is_silent = |accepted: &Accepted| !accepted.has_asked && now >= accepted.since + SILENT_AFTER;
        let silent = self.open.iter().find(|(_, accepted)| is_silent(accepted)).map(|(number, _)| *number);
        let removed = silent.and_then(|number| self.open.remove(&number));
        if let Some(removed) = &removed {
            drop(removed.stream.shutdown(Shutdown::Both));
        }
        removed.is_some()
    }
}

impl<R> Shared<R> {
    fn connections(&self) -> MutexGuard<'_, Connections> {
        // No code that may panic runs under the lock.
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn issuer(&self) -> MutexGuard<'_, Issuer<R>> {
        // An attestor or a signer that panics leaves a request that waits, which `Unfinished` ends.
        self.issuer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R: Registry + Send + 'static> IssuanceEndpoint<R> {
    /// Serves an engine, with the attestors that it asks and the signer of its authority. The identity is the
    /// issuer's own, which workloads know by its SPIFFE ID; it may rotate.
    ///
    /// # Errors
    /// The error of the system, when it provides no thread or no address, or of rustls, which lacks TLS 1.3.
    pub fn start(
        listener: TcpListener,
        identity: &Identity,
        server: IssuanceServer<R>,
        attestors: Attestors,
        sign: Sign,
        options: IssuanceEndpointOptions,
    ) -> io::Result<IssuanceEndpoint<R>> {
        let address = listener.local_addr()?;
        let config = identity.issuance_server_config().map_err(io::Error::other)?;
        let issuer = Mutex::new(Issuer { server, attestors, sign, requests: 0 });
        let shared = Arc::new(Shared {
            issuer,
            connections: Mutex::default(),
            config,
            identity: identity.clone(),
            options,
            origin: Instant::now(),
        });
        let accepting = Arc::clone(&shared);
        let thread = Builder::new().name("issuance".into()).spawn(move || accept(&accepting, &listener))?;
        Ok(IssuanceEndpoint { address, shared, thread: Some(thread) })
    }

    /// The address of the listener.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the engine between two requests: its entries ([`IssuanceServer::registry_mut`]), for instance.
    /// It waits for a request that is carried out, and for the signer of that. Called within the closure, a
    /// method of the endpoint never returns. Join tokens are changed beside it: an `Arc<Mutex<JoinTokens>>`
    /// is an attestor as well.
    pub fn change<T>(&self, change: impl FnOnce(&mut IssuanceServer<R>) -> T) -> T {
        change(&mut self.shared.issuer().server)
    }

    /// Changes the engine and its signer: another authority ([`IssuanceServer::set_authority`]). An engine
    /// whose `CaSigner` stays, and checks its first signature alone
    /// ([`check_every_signature`](crate::CaSignerOptions::check_every_signature)), checks none of the new
    /// signer: set the authority as well.
    pub fn replace_signer(&self, sign: Sign, change: impl FnOnce(&mut IssuanceServer<R>)) {
        let mut issuer = self.shared.issuer();
        change(&mut issuer.server);
        issuer.sign = sign;
    }
}

impl<R> Drop for IssuanceEndpoint<R> {
    fn drop(&mut self) {
        {
            let mut connections = self.shared.connections();
            connections.stop = true;
            for accepted in connections.open.values() {
                drop(accepted.stream.shutdown(Shutdown::Both));
            }
        }
        if wake_listener(self.address)
            && let Some(thread) = self.thread.take()
        {
            drop(thread.join());
        }
    }
}

impl<R> fmt::Debug for IssuanceEndpoint<R> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("IssuanceEndpoint").field("address", &self.address).finish_non_exhaustive()
    }
}

fn accept<R: Registry + Send + 'static>(shared: &Arc<Shared<R>>, listener: &TcpListener) {
    loop {
        let accepted = listener.accept();
        let mut connections = shared.connections();
        if connections.stop {
            return;
        }
        let Ok((stream, _)) = accepted else {
            drop(connections);
            // The connection ended before it was accepted, or the process has no descriptors left: without a
            // pause the loop would spin until there are some.
            std::thread::sleep(Duration::from_millis(50));
            continue;
        };
        let now = Instant::now();
        if !connections.make_room(shared.options.connections_max, now) {
            continue;
        }
        let Ok(registered) = stream.try_clone() else { continue };
        connections.accepted += 1;
        let number = connections.accepted;
        connections.open.insert(number, Accepted { stream: registered, since: now, has_asked: false });
        drop(connections);
        let serving = Arc::clone(shared);
        let serve = move || {
            let open = Open { shared: &serving, number };
            // An error ends the connection, and is the workload's to report.
            drop(serve(&serving, number, stream));
            drop(open);
        };
        if Builder::new().name("issuance-connection".into()).spawn(serve).is_err() {
            shared.connections().open.remove(&number);
        }
    }
}

/// The place of a connection, which is free again when the thread ends, by a panic as well.
struct Open<'a, R> {
    shared: &'a Shared<R>,
    number: u64,
}

impl<R> Drop for Open<'_, R> {
    fn drop(&mut self) {
        self.shared.connections().open.remove(&self.number);
    }
}

/// A request that the engine forgets when the thread unwinds: an attestor, a registry or a signer panicked.
struct Unfinished<'a, R: Registry> {
    shared: &'a Shared<R>,
    id: u64,
}

impl<R: Registry> Drop for Unfinished<'_, R> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let gone = IssuanceServerInput::Gone { id: self.id };
            let mut issuer = self.shared.issuer();
            // A request that is not known any more has ended as well.
            let _ = issuer.server.handle(self.shared.origin.elapsed(), gone);
        }
    }
}

fn serve<R: Registry>(shared: &Shared<R>, number: u64, stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let tls = rustls::ServerConnection::new(Arc::clone(&shared.config)).map_err(io::Error::other)?;
    let mut stream = RequestStream::accept(tls, Deadline { stream, by: Instant::now() + MESSAGE_MAX })?;
    let tls = &stream.tls;
    let peer = tls.peer_certificates().map(peer_spiffe_id).transpose().map_err(io::Error::other)?;
    let binding = tls.export_keying_material([0; 32], ISSUANCE_BINDING_LABEL, None);
    let binding = binding.map_err(io::Error::other)?;
    let requests_max = if peer.is_some() { shared.options.requests_max } else { 1 };
    let chain: Vec<CertificateDer<'static>> =
        tls.peer_certificates().unwrap_or_default().iter().map(|one| one.clone().into_owned()).collect();
    let asked = Asked { peer, binding, chain };
    let mut admitted = Instant::now();
    for _ in 0..requests_max {
        answer(shared, number, &mut stream, &asked, &mut admitted)?;
    }
    stream.close()
}

/// The sender of the requests of a connection.
struct Asked {
    peer: Option<SpiffeId>,
    binding: [u8; 32],
    chain: Vec<CertificateDer<'static>>,
}

/// Reads one request, and answers it.
fn answer<R: Registry>(
    shared: &Shared<R>,
    number: u64,
    stream: &mut RequestStream,
    asked: &Asked,
    admitted: &mut Instant,
) -> io::Result<()> {
    let bytes = stream.read_message(ISSUANCE_REQUEST_LEN_MAX)?;
    if let Some(accepted) = shared.connections().open.get_mut(&number) {
        accepted.has_asked = true;
    }
    // An SVID that expired or was revoked since the handshake renews nothing.
    if asked.peer.is_some() && admitted.elapsed() > ADMITTED_FOR {
        shared.identity.admit(&asked.chain, PeerRole::Client, SystemTime::now()).map_err(io::Error::other)?;
        *admitted = Instant::now();
    }
    let (id, mut answer) = shared.request(asked.peer.clone(), asked.binding, bytes)?;
    if let Answer::Challenge(challenge) = &answer {
        let response =
            stream.write_message(challenge).and_then(|()| stream.read_message(ISSUANCE_REQUEST_LEN_MAX));
        answer = shared.respond(id, response)?;
    }
    match answer {
        Answer::Final(bytes) => stream.write_message(&bytes),
        // A challenge has one response.
        Answer::Challenge(_) => Err(io::ErrorKind::InvalidData.into()),
    }
}

enum Answer {
    Challenge(Vec<u8>),
    Final(Vec<u8>),
}

fn wall() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

impl<R: Registry> Shared<R> {
    fn request(
        &self,
        peer: Option<SpiffeId>,
        binding: [u8; 32],
        bytes: Vec<u8>,
    ) -> io::Result<(u64, Answer)> {
        let id = {
            let mut issuer = self.issuer();
            issuer.requests += 1;
            issuer.requests
        };
        // Dropped after the lock.
        let _unfinished = Unfinished { shared: self, id };
        let mut issuer = self.issuer();
        let now = self.origin.elapsed();
        // Requests whose workload never answered a challenge end. This input is accepted in each state.
        let _ = issuer.server.handle(now, IssuanceServerInput::Timeout);
        let input = IssuanceServerInput::Request { id, peer, binding, bytes, wall: wall() };
        Ok((id, issuer.drain(now, id, input)?))
    }

    /// The answer to a response, or the end of a request whose workload has gone.
    fn respond(&self, id: u64, response: io::Result<Vec<u8>>) -> io::Result<Answer> {
        let _unfinished = Unfinished { shared: self, id };
        let mut issuer = self.issuer();
        match response {
            Ok(bytes) => issuer.drain(self.origin.elapsed(), id, IssuanceServerInput::Response { id, bytes }),
            Err(error) => {
                // A request that is not known any more has ended as well.
                let _ = issuer.server.handle(self.origin.elapsed(), IssuanceServerInput::Gone { id });
                Err(error)
            }
        }
    }
}

impl<R: Registry> Issuer<R> {
    /// Does what the engine wants of a request, until there is something to send. The lock of the issuer is
    /// held, so that an output for another request is one of a request that has ended, and is dropped.
    fn drain(&mut self, now: Duration, request: u64, input: IssuanceServerInput) -> io::Result<Answer> {
        self.server.handle(now, input).map_err(io::Error::other)?;
        while let Some(output) = self.server.poll_output() {
            let input = match output {
                IssuanceServerOutput::Attest { id, evidence, .. } if id == request => {
                    self.attestors.attest(id, &evidence, wall())
                }
                IssuanceServerOutput::Examine { id, response } if id == request => {
                    self.attestors.examine(id, &response, wall())
                }
                IssuanceServerOutput::Sign { id, to_be_signed } if id == request => {
                    IssuanceServerInput::Signed { id, signature: (self.sign)(&to_be_signed) }
                }
                IssuanceServerOutput::Challenge { id, bytes } if id == request => {
                    return Ok(Answer::Challenge(bytes));
                }
                IssuanceServerOutput::Answer { id, bytes, .. } if id == request => {
                    return Ok(Answer::Final(bytes));
                }
                _ => continue,
            };
            self.server.handle(now, input).map_err(io::Error::other)?;
        }
        Err(io::Error::other("the engine of the issuer gave no answer"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More arrivals than places do not end every handshake: a connection has a second for its own.
    #[test]
    fn only_a_connection_that_has_been_silent_makes_room() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = || TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let begin = Instant::now();
        let mut connections = Connections::default();
        for (number, (millis, has_asked)) in (0..).zip([(0, true), (0, false), (500, false)]) {
            let since = begin + Duration::from_millis(millis);
            connections.open.insert(number, Accepted { stream: stream(), since, has_asked });
        }
        let numbers = |connections: &Connections| connections.open.keys().copied().collect::<Vec<u64>>();
        let at = |millis| begin + Duration::from_millis(millis);
        assert!(connections.make_room(4, at(0)));
        assert!(!connections.make_room(3, at(999)));
        assert_eq!(numbers(&connections), [0, 1, 2]);
        assert!(connections.make_room(3, at(1000)));
        assert_eq!(numbers(&connections), [0, 2]);
        assert!(!connections.make_room(2, at(1499)));
        assert!(connections.make_room(2, at(1500)));
        // One that has asked keeps its place.
        assert!(!connections.make_room(1, at(100_000)));
        assert_eq!(numbers(&connections), [0]);
    }
}
