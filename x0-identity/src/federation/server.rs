//! A bundle endpoint in threads of its own.

use core::fmt;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};
use std::vec;

use rustls::{ServerConfig, StreamOwned};

use super::{PublishedBundles, ServerConnection, ServerInput, ServerOptions, ServerOutput, StartError};
use crate::deadline::{Deadline, is_timeout, wake_listener};

/// A bundle endpoint: one thread accepts connections, and each connection has a thread of its own. Dropping
/// the server stops it.
///
/// ```no_run
/// use std::net::TcpListener;
/// use x0_identity::federation::{PublishedBundles, Server, ServerOptions};
///
/// # fn identity() -> x0_identity::Identity { unimplemented!() }
/// let published = PublishedBundles::new();
/// // published.set("/bundle.json", &bundle)?, with each change of the bundle.
/// let config = identity().bundle_endpoint_config()?; // or web_endpoint_config
/// let server = Server::start(TcpListener::bind("[::]:8443")?, config, published, ServerOptions::default())?;
/// # drop(server);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    published: PublishedBundles,
    options: ServerOptions,
}

struct State {
    config: Arc<ServerConfig>,
    connections: BTreeMap<u64, TcpStream>,
    accepted: u64,
    stop: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // No code that may panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    /// Serves what is published, with the configuration of
    /// [`Identity::bundle_endpoint_config`](crate::Identity::bundle_endpoint_config) or
    /// [`web_endpoint_config`](super::web_endpoint_config).
    ///
    /// # Errors
    /// [`StartError`], when the system provides no thread, or not the address of the listener.
    pub fn start(
        listener: TcpListener,
        config: Arc<ServerConfig>,
        published: PublishedBundles,
        options: ServerOptions,
    ) -> Result<Server, StartError> {
        let address = listener.local_addr()?;
        let state = State { config, connections: BTreeMap::new(), accepted: 0, stop: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), published, options });
        let accepting = Arc::clone(&shared);
        let accept = move || accept(&accepting, &listener);
        let thread = Builder::new().name("bundle-endpoint".into()).spawn(accept)?;
        Ok(Server { address, shared, thread: Some(thread) })
    }

    /// The address of the listener.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Uses another configuration for connections that are accepted from now on: a new certificate of the
    /// web. The SVID of an identity rotates without it.
    pub fn set_config(&self, config: Arc<ServerConfig>) {
        self.shared.state().config = config;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        {
            let mut state = self.shared.state();
            state.stop = true;
            for stream in state.connections.values() {
                drop(stream.shutdown(Shutdown::Both));
            }
        }
        if wake_listener(self.address)
            && let Some(thread) = self.thread.take()
        {
            drop(thread.join());
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    loop {
        let accepted = listener.accept();
        let mut state = shared.state();
        if state.stop {
            return;
        }
        let Ok((stream, _)) = accepted else {
            drop(state);
            // The connection ended before it was accepted, or the process has no descriptors left: without a
            // pause the loop would spin until there are some.
            std::thread::sleep(Duration::from_millis(50));
            continue;
        };
        if state.connections.len() >= shared.options.connections_max {
            continue;
        }
        let Ok(registered) = stream.try_clone() else { continue };
        state.accepted += 1;
        let id = state.accepted;
        state.connections.insert(id, registered);
        let config = Arc::clone(&state.config);
        drop(state);
        let serving = Arc::clone(shared);
        let serve = move || {
            // An error ends the connection, and is the client's to report.
            drop(serve(&serving, config, stream));
            serving.state().connections.remove(&id);
        };
        if Builder::new().name("bundle-endpoint-connection".into()).spawn(serve).is_err() {
            shared.state().connections.remove(&id);
        }
    }
}

fn serve(shared: &Shared, config: Arc<ServerConfig>, stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let origin = Instant::now();
    let mut engine = ServerConnection::new(shared.published.clone(), &shared.options, Duration::ZERO);
    let tls = rustls::ServerConnection::new(config).map_err(io::Error::other)?;
    let mut tls = StreamOwned::new(tls, Deadline { stream, by: origin + shared.options.idle_max });
    let mut buffer = vec![0; 4096];
    loop {
        while let Some(output) = engine.poll_output() {
            let due = engine.poll_timeout();
            tls.sock.by = due.map_or_else(|| Instant::now() + shared.options.idle_max, |due| origin + due);
            match output {
                ServerOutput::Send(bytes) => {
                    tls.write_all(&bytes)?;
                    tls.flush()?;
                    engine.handle(origin.elapsed(), ServerInput::Sent);
                }
                ServerOutput::Close => {
                    tls.conn.send_close_notify();
                    return tls.flush();
                }
            }
        }
        if let Some(due) = engine.poll_timeout() {
            tls.sock.by = origin + due;
        }
        match tls.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(len) => engine.handle(origin.elapsed(), ServerInput::Received(&buffer[..len])),
            Err(error) if is_timeout(&error) => engine.handle(origin.elapsed(), ServerInput::Timeout),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
