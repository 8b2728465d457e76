//! Messages to the service manager, as sd_notify(3) has them: datagrams to the socket that the environment
//! variable `NOTIFY_SOCKET` names. Without the variable nothing is sent.

use std::ffi::OsString;
use std::time::Duration;

use anyhow::{Result, bail};

/// The socket of the service manager.
#[derive(Debug)]
pub(crate) struct ServiceManager {
    #[cfg(unix)]
    socket: Option<(std::os::unix::net::UnixDatagram, std::os::unix::net::SocketAddr)>,
    /// The time within which the service manager wants a sign of life.
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// The service manager that the environment names, if any.
    pub(crate) fn from_environment() -> Result<ServiceManager> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let watchdog = match variable("WATCHDOG_USEC") {
            // The variable may be meant for a parent of this process (sd_watchdog_enabled(3)).
            Some(time) if variable("WATCHDOG_PID").is_none_or(|pid| is_own(&pid)) => Some(micros(&time)?),
            _ => None,
        };
        #[cfg(unix)]
        return Ok(ServiceManager {
            socket: variable("NOTIFY_SOCKET").map(|name| socket(&name)).transpose()?,
            watchdog,
        });
        #[cfg(not(unix))]
        Ok(ServiceManager { watchdog })
    }

    /// The time between two signs of life: half of that which the service manager waits.
    pub(crate) fn watchdog_every(&self) -> Option<Duration> {
        self.watchdog.map(|time| time / 2)
    }

    /// Sends lines such as `READY=1`. A service manager that does not listen is no reason to stop.
    pub(crate) fn send(&self, lines: &str) {
        #[cfg(unix)]
        if let Some((socket, address)) = &self.socket {
            let _ = socket.send_to_addr(lines.as_bytes(), address);
        }
        #[cfg(not(unix))]
        let _ = lines;
    }
}

fn is_own(pid: &OsString) -> bool {
    pid.to_str().and_then(|pid| pid.parse().ok()) == Some(std::process::id())
}

fn micros(time: &OsString) -> Result<Duration> {
    match time.to_str().and_then(|time| time.parse().ok()) {
        Some(micros @ 1..) => Ok(Duration::from_micros(micros)),
        _ => bail!(
            "WATCHDOG_USEC is {}, which is no number of microseconds: the service manager sets it, do not set it by hand",
            time.display()
        ),
    }
}

/// A socket and the address of the service manager: a path, or an abstract name that begins with `@`.
#[cfg(unix)]
fn socket(name: &OsString) -> Result<(std::os::unix::net::UnixDatagram, std::os::unix::net::SocketAddr)> {
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    use anyhow::Context;

    let what = || format!("cannot use NOTIFY_SOCKET, which is {}", name.display());
    #[cfg(target_os = "linux")]
    if let Some(abstract_name) = std::os::unix::ffi::OsStrExt::as_bytes(name.as_os_str()).strip_prefix(b"@") {
        let address = <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(abstract_name);
        let address = address.with_context(what)?;
        return Ok((unconnected()?, address));
    }
    let address = SocketAddr::from_pathname(name).with_context(what)?;
    return Ok((unconnected()?, address));

    fn unconnected() -> Result<UnixDatagram> {
        let socket = UnixDatagram::unbound().context("cannot open a socket for the service manager")?;
        // A service manager that hangs must not stop the supervision.
        socket.set_nonblocking(true).context("cannot configure the socket for the service manager")?;
        Ok(socket)
    }
}
