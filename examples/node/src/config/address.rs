//! The address of a member: an IP address, or a DNS name, with a port.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, de};

/// The longest DNS name, in its text form (RFC 1035 §2.3.4).
const NAME_LEN_MAX: usize = 253;

/// The address of a member.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Address {
    /// An IP address and a port.
    Socket(SocketAddr),
    /// A DNS name and a port. It is resolved when it is used, and again while the member is not reached.
    Name { name: Arc<str>, port: u16 },
}

/// A text is not an address.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is not an address: write IP:PORT or NAME:PORT with a port from 1 to 65535, such as 127.0.0.1:7401 or x0-0.x0:7401"
)]
pub(crate) struct ParseAddressError(String);

impl Address {
    /// Asks the resolver of the system for a name, which may take seconds.
    pub(crate) fn resolve(&self) -> io::Result<SocketAddr> {
        match self {
            Address::Socket(address) => Ok(*address),
            Address::Name { name, port } => {
                let mut found = (&**name, *port).to_socket_addrs()?;
                found.next().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))
            }
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        Address::Socket(address)
    }
}

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Address, ParseAddressError> {
        let error = || ParseAddressError(text.to_owned());
        if let Ok(address) = text.parse::<SocketAddr>() {
            return if address.port() == 0 { Err(error()) } else { Ok(address.into()) };
        }
        let (name, port) = text.rsplit_once(':').ok_or_else(error)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(error)?;
        // Letters, digits and hyphens (RFC 952), and the underscores that some clusters use. A name of digits
        // alone is a mistyped IP address.
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        let is_name = name.len() <= NAME_LEN_MAX
            && name.trim_end_matches('.').split('.').all(is_label)
            && name.bytes().any(|byte| byte.is_ascii_alphabetic());
        if is_name { Ok(Address::Name { name: name.into(), port }) } else { Err(error()) }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Socket(address) => address.fmt(f),
            Address::Name { name, port } => write!(f, "{name}:{port}"),
        }
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Address, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_their_text() {
        for text in [
            "127.0.0.1:7401",
            "[::1]:7401",
            "localhost:1",
            "x0-0.x0.default.svc.cluster.local:65535",
            "a_b.:9",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "name",
            "name:0",
            "name:65536",
            "1.2.3:7401",
            "a..b:1",
            "a b:1",
            ":1",
            "a/b:1",
            "127.0.0.1:0",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
        assert!(format!("{}:1", "a".repeat(64)).parse::<Address>().is_err());
    }

    #[test]
    fn names_are_resolved_by_the_system() {
        let address: Address = "localhost:7401".parse().unwrap();
        assert!(matches!(address, Address::Name { .. }) && address.resolve().unwrap().ip().is_loopback());
        // RFC 6761 §6.4: `invalid` never resolves.
        assert!("x0.invalid:1".parse::<Address>().unwrap().resolve().is_err());
    }
}
