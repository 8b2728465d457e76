//! The address of a Workload Endpoint.

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::string::String;
use std::vec::Vec;

/// The environment variable that locates the endpoint (Workload Endpoint §4).
pub const ENDPOINT_SOCKET: &str = "SPIFFE_ENDPOINT_SOCKET";

/// The address of a Workload Endpoint: a socket of the file system, or an address of TCP (Workload Endpoint
/// §4).
///
/// ```
/// use x0_identity::workload_api::EndpointAddress;
///
/// let address = EndpointAddress::parse("unix:///run/spire/agent.sock")?;
/// assert_eq!(address.to_string(), "unix:///run/spire/agent.sock");
/// assert!(EndpointAddress::parse("tcp://127.0.0.1:8000/foo").is_err());
/// assert!(EndpointAddress::parse("tcp://localhost:8000").is_err());
/// # Ok::<(), x0_identity::workload_api::EndpointAddressError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndpointAddress {
    /// A Unix domain socket, by its absolute path.
    Unix(PathBuf),
    /// A listen socket of TCP.
    Tcp(SocketAddr),
}

/// A text is not the address of a Workload Endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointAddressError {
    /// The environment variable is not set.
    #[error("the variable {ENDPOINT_SOCKET} is not set: set it, or configure the address of the endpoint")]
    NotSet,
    /// The environment variable is not UTF-8.
    #[error("the variable {ENDPOINT_SOCKET} is not UTF-8: write it as a URI")]
    NotUtf8,
    /// The scheme is neither `unix` nor `tcp`.
    #[error(
        "the scheme of the endpoint {text:?} is neither unix nor tcp: write unix:///path or tcp://ip:port"
    )]
    Scheme {
        /// The text.
        text: String,
    },
    /// A URI of the scheme `unix` has an authority.
    #[error("the endpoint {text:?} has an authority: write three slashes, as in unix:///path")]
    Authority {
        /// The text.
        text: String,
    },
    /// A URI of the scheme `unix` has no absolute path.
    #[error("the endpoint {text:?} has no absolute path of a socket: write unix:///path")]
    Path {
        /// The text.
        text: String,
    },
    /// A URI of the scheme `tcp` has no IP address and port, or one that is not numeric.
    #[error("the endpoint {text:?} has no IP address with a port: write tcp://127.0.0.1:8000")]
    IpAndPort {
        /// The text.
        text: String,
    },
    /// The URI has a component that must not be set: a query, a fragment, user information, or with TCP a
    /// path.
    #[error("the endpoint {text:?} has a {component}, which must not be set: remove it")]
    Component {
        /// The text.
        text: String,
        /// The name of the component (RFC 3986 §3).
        component: &'static str,
    },
    /// The text is not a URI (RFC 3986).
    #[error("the endpoint {text:?} has a character that a URI cannot have, or a wrong escape: correct it")]
    Uri {
        /// The text.
        text: String,
    },
}

impl EndpointAddress {
    /// Parses the URI of an endpoint. Escapes (`%20`) in a path are decoded.
    ///
    /// # Errors
    /// [`EndpointAddressError`] names the rule of §4 that is broken.
    pub fn parse(text: &str) -> Result<EndpointAddress, EndpointAddressError> {
        use EndpointAddressError as Error;
        let known = || String::from(text);
        let component = |component| Error::Component { text: known(), component };
        if !text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&byte))
        {
            return Err(Error::Uri { text: known() });
        }
        let (scheme, rest) = text.split_once(':').ok_or_else(|| Error::Scheme { text: known() })?;
        if rest.contains('?') {
            return Err(component("query"));
        }
        if rest.contains('#') {
            return Err(component("fragment"));
        }
        // RFC 3986 §3.1: schemes are case-insensitive.
        match scheme.to_ascii_lowercase().as_str() {
            "unix" => {
                // An authority is present if two slashes follow the scheme; an empty one is not set.
                let path = match rest.strip_prefix("//") {
                    Some(rest) if rest.starts_with('/') => rest,
                    Some("") => return Err(Error::Path { text: known() }),
                    Some(_) => return Err(Error::Authority { text: known() }),
                    None => rest,
                };
                let decoded = decode(path).ok_or_else(|| Error::Uri { text: known() })?;
                if !decoded.starts_with('/') || decoded.len() == 1 || decoded.contains('\0') {
                    return Err(Error::Path { text: known() });
                }
                Ok(EndpointAddress::Unix(decoded.into()))
            }
            "tcp" => {
                let authority = rest.strip_prefix("//").ok_or_else(|| Error::IpAndPort { text: known() })?;
                if authority.contains('/') {
                    return Err(component("path"));
                }
                if authority.contains('@') {
                    return Err(component("user information"));
                }
                let address: SocketAddr =
                    authority.parse().map_err(|_| Error::IpAndPort { text: known() })?;
                if address.port() == 0 || is_scoped(&address) {
                    return Err(Error::IpAndPort { text: known() });
                }
                Ok(EndpointAddress::Tcp(address))
            }
            _ => Err(Error::Scheme { text: known() }),
        }
    }

    /// The address in the variable `SPIFFE_ENDPOINT_SOCKET`, which clients use that are not configured
    /// otherwise.
    ///
    /// # Errors
    /// [`EndpointAddressError`], when the variable is not set or not the address of an endpoint.
    pub fn from_env() -> Result<EndpointAddress, EndpointAddressError> {
        match std::env::var(ENDPOINT_SOCKET) {
            Ok(text) => EndpointAddress::parse(&text),
            Err(std::env::VarError::NotPresent) => Err(EndpointAddressError::NotSet),
            Err(std::env::VarError::NotUnicode(_)) => Err(EndpointAddressError::NotUtf8),
        }
    }

    /// The path, if the endpoint is a Unix domain socket.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        if let EndpointAddress::Unix(path) = self { Some(path) } else { None }
    }
}

/// As a URI, for `SPIFFE_ENDPOINT_SOCKET`.
impl fmt::Display for EndpointAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EndpointAddress::Tcp(address) => write!(formatter, "tcp://{address}"),
            EndpointAddress::Unix(path) => {
                formatter.write_str("unix://")?;
                for byte in path.as_os_str().as_encoded_bytes() {
                    match byte {
                        b'/' | b'-' | b'.' | b'_' | b'~' => write!(formatter, "{}", char::from(*byte))?,
                        byte if byte.is_ascii_alphanumeric() => write!(formatter, "{}", char::from(*byte))?,
                        byte => write!(formatter, "%{byte:02X}")?,
                    }
                }
                Ok(())
            }
        }
    }
}

/// A zone of an IPv6 address, which no URI of §4 has.
fn is_scoped(address: &SocketAddr) -> bool {
    match address {
        SocketAddr::V4(_) => false,
        SocketAddr::V6(address) => address.scope_id() != 0 || address.flowinfo() != 0,
    }
}

/// RFC 3986 §2.1.
fn decode(path: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte == b'%' {
            let (digits, after) = rest.split_first_chunk::<2>()?;
            let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            bytes.push(digit(digits[0])? << 4 | digit(digits[1])?);
            rest = after;
        } else {
            bytes.push(*byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// Whether only this machine reaches the address.
pub(super) fn is_local(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}
