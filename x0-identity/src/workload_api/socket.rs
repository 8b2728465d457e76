//! Sockets of either kind, and the pair that wakes a thread that waits for them.

use core::time::Duration;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::vec::Vec;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::callers::{Peer, PeerCredentials};
use super::endpoint::is_local;
use super::{BindError, EndpointAddress};

/// A connection, not blocking.
#[derive(Debug)]
pub(super) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    /// Connects. A Unix domain socket answers at once, with an error if its queue is full.
    pub(super) fn connect(address: &EndpointAddress, timeout: Duration) -> io::Result<Stream> {
        let stream = match address {
            EndpointAddress::Unix(path) => Stream::Unix(connect_unix(path)?),
            EndpointAddress::Tcp(address) => Stream::Tcp(TcpStream::connect_timeout(address, timeout)?),
        };
        stream.prepare()?;
        Ok(stream)
    }

    fn prepare(&self) -> io::Result<()> {
        match self {
            Stream::Unix(stream) => stream.set_nonblocking(true),
            Stream::Tcp(stream) => {
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)
            }
        }
    }

    /// What the kernel knows of the other side.
    pub(super) fn peer(&self) -> Peer<'_> {
        match self {
            Stream::Unix(stream) => {
                Peer { socket: stream.as_fd(), credentials: credentials(stream), address: None }
            }
            Stream::Tcp(stream) => {
                Peer { socket: stream.as_fd(), credentials: None, address: stream.peer_addr().ok() }
            }
        }
    }
}

fn connect_unix(path: &std::path::Path) -> io::Result<UnixStream> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

#[cfg(target_os = "linux")]
fn credentials(stream: &UnixStream) -> Option<PeerCredentials> {
    let found = rustix::net::sockopt::socket_peercred(stream).ok()?;
    let process = found.pid.as_raw_nonzero().get();
    Some(PeerCredentials { process, user: found.uid.as_raw(), group: found.gid.as_raw() })
}

#[cfg(not(target_os = "linux"))]
fn credentials(_stream: &UnixStream) -> Option<PeerCredentials> {
    None
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => stream.read(buffer),
            Stream::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => stream.write(bytes),
            Stream::Tcp(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Unix(stream) => stream.as_fd(),
            Stream::Tcp(stream) => stream.as_fd(),
        }
    }
}

/// Bytes that a socket has not taken yet.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    bytes: Vec<u8>,
    sent: usize,
}

impl Unsent {
    pub(super) fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// Takes the next bytes. The ones before are sent.
    pub(super) fn set(&mut self, bytes: Vec<u8>) {
        *self = Unsent { bytes, sent: 0 };
    }

    /// Sends what the socket takes now.
    pub(super) fn send(&mut self, stream: &mut Stream) -> io::Result<()> {
        while !self.is_empty() {
            match stream.write(&self.bytes[self.sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => self.sent += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // A burst leaves no memory behind in a connection that idles.
        *self = Unsent::default();
        Ok(())
    }
}

/// One end of a pair of sockets: the other end becomes readable with each byte.
#[derive(Debug)]
pub(super) struct Waker(UnixStream);

impl Waker {
    /// The end that wakes and the end that is waited for.
    pub(super) fn pair() -> io::Result<(Waker, UnixStream)> {
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        Ok((Waker(wake), woken))
    }

    pub(super) fn wake(&self) {
        // A full buffer wakes as well, and a thread that has ended needs no waking.
        drop((&self.0).write(&[0]));
    }
}

/// Takes the bytes that woke a thread.
pub(super) fn drain(mut woken: &UnixStream) {
    let mut buffer = [0; 64];
    while woken.read(&mut buffer).is_ok_and(|len| len == buffer.len()) {}
}

/// Waits for one of the sockets. The flags are those of the sockets, in order.
pub(super) fn wait(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> io::Result<()> {
    // Rounded up, or a timeout of less than the clock's step would spin.
    let timeout = timeout.map(|timeout| timeout + Duration::from_millis(1));
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    match poll(fds, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn is_readable(fd: &PollFd<'_>) -> bool {
    fd.revents().intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL)
}

pub(super) fn is_writable(fd: &PollFd<'_>) -> bool {
    fd.revents().intersects(PollFlags::OUT)
}

fn is_socket(path: &std::path::Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
}

/// A socket on which a [`Server`](super::Server) listens.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
}

#[derive(Debug)]
enum Socket {
    /// With the path to remove at the end.
    Unix(UnixListener, Option<PathBuf>),
    Tcp(TcpListener),
}

impl Listener {
    /// Creates the socket of an endpoint. A file that a server left behind is replaced; it is removed at the
    /// end. Its permissions follow the process's umask: change them, or those of the folder, so that the
    /// callers can connect and nobody else.
    ///
    /// # Errors
    /// [`BindError`], when a server listens there already, the address of TCP is not one of this machine
    /// alone (Workload Endpoint §3), or the system refuses.
    pub fn bind(address: &EndpointAddress) -> Result<Listener, BindError> {
        let failed = |source| BindError::System { address: address.clone(), source };
        match address {
            EndpointAddress::Tcp(socket) if !is_local(socket.ip()) => {
                Err(BindError::NotLocal { address: address.clone() })
            }
            EndpointAddress::Tcp(socket) => {
                Listener::from_tcp(TcpListener::bind(socket).map_err(failed)?).map_err(failed)
            }
            EndpointAddress::Unix(path) => {
                let mut bound = UnixListener::bind(path);
                if bound.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse) {
                    match UnixStream::connect(path) {
                        Ok(_) => return Err(BindError::InUse { address: address.clone() }),
                        // A file that is no socket refuses as well.
                        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && is_socket(path) => {
                            std::fs::remove_file(path).map_err(failed)?;
                            bound = UnixListener::bind(path);
                        }
                        Err(_) => {}
                    }
                }
                let listener = bound.map_err(failed)?;
                listener.set_nonblocking(true).map_err(failed)?;
                Ok(Listener { socket: Socket::Unix(listener, Some(path.clone())) })
            }
        }
    }

    /// Takes a socket of the file system that another program created, for instance systemd.
    ///
    /// # Errors
    /// The system's, when the socket cannot be made non-blocking.
    pub fn from_unix(listener: UnixListener) -> io::Result<Listener> {
        listener.set_nonblocking(true)?;
        Ok(Listener { socket: Socket::Unix(listener, None) })
    }

    /// Takes a socket of TCP. Use one only where the network identifies callers strongly (Workload Endpoint
    /// §3): a port of this machine, or of a link or an overlay that assigns addresses to workloads.
    ///
    /// # Errors
    /// The system's, when the socket cannot be made non-blocking.
    pub fn from_tcp(listener: TcpListener) -> io::Result<Listener> {
        listener.set_nonblocking(true)?;
        Ok(Listener { socket: Socket::Tcp(listener) })
    }

    /// The address, for `SPIFFE_ENDPOINT_SOCKET`. `None`, when the socket has no path or the system does not
    /// say.
    #[must_use]
    pub fn address(&self) -> Option<EndpointAddress> {
        match &self.socket {
            Socket::Unix(listener, _) => {
                let path = listener.local_addr().ok()?.as_pathname()?.to_path_buf();
                Some(EndpointAddress::Unix(std::path::absolute(path).ok()?))
            }
            Socket::Tcp(listener) => listener.local_addr().ok().map(EndpointAddress::Tcp),
        }
    }

    pub(super) fn accept(&self) -> io::Result<Stream> {
        let stream = match &self.socket {
            Socket::Unix(listener, _) => Stream::Unix(listener.accept()?.0),
            Socket::Tcp(listener) => Stream::Tcp(listener.accept()?.0),
        };
        stream.prepare()?;
        Ok(stream)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Unix(listener, _) => listener.as_fd(),
            Socket::Tcp(listener) => listener.as_fd(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Socket::Unix(_, Some(path)) = &self.socket {
            drop(std::fs::remove_file(path));
        }
    }
}
