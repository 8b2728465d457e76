//! A server in threads of its own.

use core::fmt;
use std::boxed::Box;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant, SystemTime};
use std::vec::Vec;

use rustix::event::{PollFd, PollFlags};

use super::socket::{Stream, Unsent, Waker, drain, is_readable, is_writable, wait};
use super::{
    Caller, Callers, EndpointAddress, Listener, ServerConnection, ServerInput, ServerOptions, ServerOutput,
};

/// How long connections may take to receive why the server stops.
const SHUTDOWN_MAX: Duration = Duration::from_secs(1);

/// A server of the Workload API: one thread accepts connections and identifies callers, one serves all
/// connections. Dropping the server stops it.
///
/// ```no_run
/// use std::sync::Arc;
/// use x0_identity::workload_api::{EndpointAddress, Listener, Server, ServerOptions, SharedWorkload, Workload};
///
/// # fn next_workload() -> Workload { unimplemented!() }
/// let callers = SharedWorkload::new();
/// callers.set(Some(next_workload()));
/// let listener = Listener::bind(&EndpointAddress::parse("unix:///run/example/api.sock")?)?;
/// let server = Server::start(listener, Arc::new(callers.clone()), ServerOptions::default())?;
///
/// callers.set(Some(next_workload())); // a rotation
/// server.refresh(); // every stream receives it
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Server {
    address: Option<EndpointAddress>,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// A socket was not created.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// A server listens on the socket.
    #[error("a server listens on {address} already: stop it, or choose another socket")]
    InUse {
        /// The address.
        address: EndpointAddress,
    },
    /// Other machines reach the address, and nothing identifies their workloads.
    #[error("other machines reach {address}: use a Unix domain socket or a loopback address")]
    NotLocal {
        /// The address.
        address: EndpointAddress,
    },
    /// The system refused.
    #[error("cannot listen on {address}: check the folder, its permissions and the port")]
    System {
        /// The address.
        address: EndpointAddress,
        /// The reason.
        source: io::Error,
    },
}

/// A driver did not start.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the threads of the Workload API: check the limits of the process")]
pub struct StartError {
    /// The system's reason.
    source: io::Error,
}

impl From<io::Error> for StartError {
    fn from(source: io::Error) -> StartError {
        StartError { source }
    }
}

struct Shared {
    inbox: Mutex<Inbox>,
    /// Room for a connection.
    room: Condvar,
    serving: Waker,
    accepting: Waker,
}

#[derive(Default)]
struct Inbox {
    accepted: Vec<(Stream, Box<dyn Caller>)>,
    connections: usize,
    refresh: bool,
    stop: bool,
}

impl Shared {
    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        // No code that may panic runs under the lock.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    /// Serves the endpoint.
    ///
    /// # Errors
    /// [`StartError`], when the system provides no threads or sockets.
    pub fn start(
        listener: Listener,
        callers: Arc<dyn Callers>,
        options: ServerOptions,
    ) -> Result<Server, StartError> {
        let address = listener.address();
        let (serving, serve_woken) = Waker::pair()?;
        let (accepting, accept_woken) = Waker::pair()?;
        let shared = Arc::new(Shared { inbox: Mutex::default(), room: Condvar::new(), serving, accepting });
        let mut server = Server { address, shared: Arc::clone(&shared), threads: Vec::new() };
        let connections_max = options.connections_max;
        let serve = {
            let shared = Arc::clone(&shared);
            move || Serving::new(shared, options).run(&serve_woken)
        };
        // From here on, an error drops the server and so ends the threads that run.
        server.threads.push(Builder::new().name("workload-api".into()).spawn(serve)?);
        let accept = move || accept(&shared, &listener, callers.as_ref(), connections_max, &accept_woken);
        server.threads.push(Builder::new().name("workload-api-accept".into()).spawn(accept)?);
        Ok(server)
    }

    /// The address, for `SPIFFE_ENDPOINT_SOCKET`.
    #[must_use]
    pub fn address(&self) -> Option<&EndpointAddress> {
        self.address.as_ref()
    }

    /// Asks every caller for its workload again, and sends its streams what changed. Call it after a
    /// rotation, and after a change of what callers are entitled to.
    pub fn refresh(&self) {
        self.shared.inbox().refresh = true;
        self.shared.serving.wake();
    }

    /// The number of connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.inbox().connections
    }
}

/// Streams end with `Unavailable`, and clients connect to the next server.
impl Drop for Server {
    fn drop(&mut self) {
        self.shared.inbox().stop = true;
        self.shared.room.notify_all();
        self.shared.serving.wake();
        self.shared.accepting.wake();
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

/// The thread that accepts connections, until the server stops.
fn accept(
    shared: &Shared,
    listener: &Listener,
    callers: &dyn Callers,
    connections_max: usize,
    woken: &UnixStream,
) {
    loop {
        {
            let full = |inbox: &mut Inbox| inbox.connections >= connections_max && !inbox.stop;
            let inbox = shared.room.wait_while(shared.inbox(), full);
            if inbox.unwrap_or_else(PoisonError::into_inner).stop {
                return;
            }
        }
        let mut fds = [PollFd::new(listener, PollFlags::IN), PollFd::new(woken, PollFlags::IN)];
        let waited = wait(&mut fds, None);
        let came = is_readable(&fds[0]);
        if waited.is_err() || !came {
            drain(woken);
            continue;
        }
        match listener.accept() {
            Ok(stream) => {
                let caller = callers.identify(&stream.peer());
                let mut inbox = shared.inbox();
                inbox.connections += 1;
                inbox.accepted.push((stream, caller));
                drop(inbox);
                shared.serving.wake();
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // The connection ended before it was accepted, or the process has no descriptors left: without a
            // pause the loop would spin until there are some.
            Err(_) => {
                let mut fds = [PollFd::new(woken, PollFlags::IN)];
                drop(wait(&mut fds, Some(Duration::from_millis(50))));
            }
        }
    }
}

/// The thread that serves connections.
struct Serving {
    shared: Arc<Shared>,
    options: ServerOptions,
    origin: Instant,
    connections: Vec<Connection>,
    buffer: Vec<u8>,
}

struct Connection {
    stream: Stream,
    engine: ServerConnection,
    caller: Box<dyn Caller>,
    unsent: Unsent,
    closed: bool,
}

impl Serving {
    fn new(shared: Arc<Shared>, options: ServerOptions) -> Serving {
        Serving { shared, options, origin: Instant::now(), connections: Vec::new(), buffer: vec![0; 16_384] }
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn run(mut self, woken: &UnixStream) {
        let mut stop_by = None;
        while stop_by.is_none_or(|by| self.now() < by) && !(stop_by.is_some() && self.connections.is_empty())
        {
            self.wait(woken, stop_by);
            let (accepted, refresh, stop) = {
                let mut inbox = self.shared.inbox();
                (core::mem::take(&mut inbox.accepted), core::mem::take(&mut inbox.refresh), inbox.stop)
            };
            let now = self.now();
            for (stream, caller) in accepted {
                self.begin(now, stream, caller);
            }
            if refresh {
                for connection in &mut self.connections {
                    let workload = connection.caller.workload();
                    connection.handle(now, ServerInput::Workload(workload));
                }
            }
            if stop && stop_by.is_none() {
                stop_by = Some(now + SHUTDOWN_MAX);
                for connection in &mut self.connections {
                    connection.handle(now, ServerInput::Shutdown);
                }
            }
            self.forget_closed();
        }
    }

    /// Waits for the first thing to happen, and lets connections read and write.
    fn wait(&mut self, woken: &UnixStream, stop_by: Option<Duration>) {
        let now = self.now();
        let due = self.connections.iter().filter_map(|connection| connection.engine.poll_timeout());
        let timeout = due.chain(stop_by).min().map(|due| due.saturating_sub(now));
        let mut fds = Vec::with_capacity(self.connections.len() + 1);
        fds.push(PollFd::new(woken, PollFlags::IN));
        for connection in &self.connections {
            // A client that does not read is not read from: what it sends waits in the socket.
            let idle = connection.unsent.is_empty();
            fds.push(PollFd::new(&connection.stream, if idle { PollFlags::IN } else { PollFlags::OUT }));
        }
        let waited = wait(&mut fds, timeout);
        let ready: Vec<(bool, bool)> = fds.iter().map(|fd| (is_readable(fd), is_writable(fd))).collect();
        drop(fds);
        if waited.is_err() || ready[0].0 {
            drain(woken);
        }
        let now = self.now();
        for (connection, (readable, writable)) in self.connections.iter_mut().zip(&ready[1..]) {
            if *writable {
                connection.pump(now);
            } else if *readable {
                connection.read(now, &mut self.buffer);
            }
            if connection.engine.poll_timeout().is_some_and(|due| due <= now) {
                connection.handle(now, ServerInput::Timeout);
            }
        }
    }

    fn begin(&mut self, now: Duration, stream: Stream, caller: Box<dyn Caller>) {
        let engine = ServerConnection::new(&self.options, now);
        let workload = caller.workload();
        let mut connection = Connection { stream, engine, caller, unsent: Unsent::default(), closed: false };
        connection.handle(now, ServerInput::Workload(workload));
        self.connections.push(connection);
    }

    fn forget_closed(&mut self) {
        let before = self.connections.len();
        self.connections.retain(|connection| !connection.closed);
        let closed = before - self.connections.len();
        if closed > 0 {
            let mut inbox = self.shared.inbox();
            inbox.connections -= closed;
            drop(inbox);
            self.shared.room.notify_all();
        }
    }
}

impl Connection {
    fn read(&mut self, now: Duration, buffer: &mut [u8]) {
        match self.stream.read(buffer) {
            Ok(0) => self.closed = true,
            Ok(len) => self.handle(now, ServerInput::Bytes(&buffer[..len])),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => self.closed = true,
        }
    }

    fn handle(&mut self, now: Duration, input: ServerInput<'_>) {
        // An error closes the connection by an output, after the client was sent the reason.
        let _ = self.engine.handle(now, input);
        self.pump(now);
    }

    /// Takes outputs until there are none, or until the socket takes no more bytes.
    fn pump(&mut self, now: Duration) {
        loop {
            if self.unsent.send(&mut self.stream).is_err() {
                self.closed = true;
            }
            if self.closed || !self.unsent.is_empty() {
                return;
            }
            match self.engine.poll_output() {
                None => return,
                Some(ServerOutput::Send(bytes)) => self.unsent.set(bytes),
                Some(ServerOutput::Jwt(request)) => {
                    let answer = request.answer(SystemTime::now());
                    let _ = self.engine.handle(now, ServerInput::Answer(answer));
                }
                Some(ServerOutput::Close) => self.closed = true,
            }
        }
    }
}
