//! The URL of a bundle endpoint.

use core::fmt;
use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

use pki_types::ServerName;

/// The longest URL, in bytes.
pub const URL_LEN_MAX: usize = 2048;

/// The URL of a bundle endpoint: scheme `https`, no userinfo (§5.2.1.1, §5.2.2.1). The host is a DNS name or
/// an IP address.
///
/// ```
/// use x0_identity::federation::EndpointUrl;
///
/// let url = EndpointUrl::parse("https://host.example.com/trust_domain")?;
/// assert_eq!((url.port(), url.path_and_query()), (443, "/trust_domain"));
/// assert!(EndpointUrl::parse("http://host.example.com/trust_domain").is_err());
/// assert!(EndpointUrl::parse("https://user@host.example.com/").is_err());
/// # Ok::<(), x0_identity::federation::EndpointUrlError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointUrl {
    host: ServerName<'static>,
    port: u16,
    /// Host and port as they were written.
    authority: String,
    path_and_query: String,
}

/// A text is not the URL of a bundle endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointUrlError {
    /// The text is longer than [`URL_LEN_MAX`].
    #[error("the URL has {len} bytes, more than the {URL_LEN_MAX} allowed: shorten it")]
    Length {
        /// The length of the text, in bytes.
        len: usize,
    },
    /// The text has a character or an escape that no URL has (RFC 3986 §2).
    #[error("the URL {text:?} has a character that a URL cannot have, or a wrong escape: correct it")]
    Character {
        /// The text.
        text: String,
    },
    /// The scheme is not `https`.
    #[error("the scheme of the URL {text:?} is not https, which a bundle endpoint must have: correct it")]
    Scheme {
        /// The text.
        text: String,
    },
    /// The authority has userinfo.
    #[error("the URL {text:?} has user information, which a bundle endpoint must not have: remove it")]
    UserInfo {
        /// The text.
        text: String,
    },
    /// The host is neither a DNS name nor an IP address.
    #[error("the host of the URL {text:?} is neither a DNS name nor an IP address: correct it")]
    Host {
        /// The text.
        text: String,
    },
    /// The port is not a number from 1 to 65,535.
    #[error("the port of the URL {text:?} is not a number from 1 to 65535: correct it")]
    Port {
        /// The text.
        text: String,
    },
}

impl EndpointUrl {
    /// Parses a URL. A fragment is dropped.
    ///
    /// # Errors
    /// [`EndpointUrlError`] names the rule that is broken.
    pub fn parse(text: &str) -> Result<EndpointUrl, EndpointUrlError> {
        use EndpointUrlError as Error;
        check_characters(text)?;
        let known = || text.to_string();
        // RFC 3986 §3.1: schemes are case-insensitive.
        let rest = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => rest,
            _ => return Err(Error::Scheme { text: known() }),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(Error::UserInfo { text: known() });
        }
        // The colons of an IPv6 address are within brackets.
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (authority, None),
        };
        let port = match port {
            // RFC 3986 §3.2.3: an empty port is the default one.
            None | Some("") => 443,
            Some(digits) if digits.bytes().all(|digit| digit.is_ascii_digit()) => {
                digits.parse().ok().filter(|port| *port != 0).ok_or_else(|| Error::Port { text: known() })?
            }
            Some(_) => return Err(Error::Port { text: known() }),
        };
        let bare = match host.strip_prefix('[').map(|inner| inner.strip_suffix(']')) {
            None if !host.contains(':') => host,
            Some(Some(inner)) if inner.contains(':') => inner,
            _ => return Err(Error::Host { text: known() }),
        };
        let name = ServerName::try_from(bare).map_err(|_| Error::Host { text: known() })?.to_owned();
        let path_and_query = if target.starts_with('/') { target.to_string() } else { format!("/{target}") };
        Ok(EndpointUrl { host: name, port, authority: authority.to_string(), path_and_query })
    }

    /// The URL that a redirect of this one leads to (RFC 3986 §5.2): absolute, or relative to this one.
    ///
    /// # Errors
    /// [`EndpointUrlError`], when it is not the URL of a bundle endpoint.
    pub fn join(&self, location: &str) -> Result<EndpointUrl, EndpointUrlError> {
        check_characters(location)?;
        let reference = location.split('#').next().unwrap_or_default();
        let before = reference.find(['/', '?']).unwrap_or(reference.len());
        if reference[..before].contains(':') {
            return EndpointUrl::parse(reference);
        }
        if reference.starts_with("//") {
            return EndpointUrl::parse(&format!("https:{reference}"));
        }
        let (base_path, _) = split_query(&self.path_and_query);
        let (path, query) = split_query(reference);
        let merged = if path.is_empty() {
            if query.is_empty() { self.path_and_query.clone() } else { format!("{base_path}{query}") }
        } else if path.starts_with('/') {
            format!("{}{query}", without_dots(path))
        } else {
            let folder = &base_path[..=base_path.rfind('/').unwrap_or(0)];
            format!("{}{query}", without_dots(&format!("{folder}{path}")))
        };
        EndpointUrl::parse(&format!("https://{}{merged}", self.authority))
    }

    /// The host: a DNS name, or an IP address.
    #[must_use]
    pub fn host(&self) -> &ServerName<'static> {
        &self.host
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and port as they were written: the value of the `Host` field.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Path and query: the target of the request.
    #[must_use]
    pub fn path_and_query(&self) -> &str {
        &self.path_and_query
    }

    /// The path.
    #[must_use]
    pub fn path(&self) -> &str {
        split_query(&self.path_and_query).0
    }
}

impl fmt::Display for EndpointUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "https://{}{}", self.authority, self.path_and_query)
    }
}

/// RFC 3986 §2.
pub(super) fn is_url_text(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.iter().enumerate().all(|(place, byte)| match byte {
        b'%' => bytes.get(place + 1..place + 3).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit)),
        byte => byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=".contains(byte),
    })
}

fn check_characters(text: &str) -> Result<(), EndpointUrlError> {
    if text.len() > URL_LEN_MAX {
        return Err(EndpointUrlError::Length { len: text.len() });
    }
    if is_url_text(text) { Ok(()) } else { Err(EndpointUrlError::Character { text: text.to_string() }) }
}

/// Path and query, the latter with its question mark.
fn split_query(text: &str) -> (&str, &str) {
    text.split_at(text.find('?').unwrap_or(text.len()))
}

/// RFC 3986 §5.2.4.
fn without_dots(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    let mut parts = path.split('/').skip(1).peekable();
    while let Some(part) = parts.next() {
        let last = parts.peek().is_none();
        match part {
            "." if last => segments.push(""),
            "." => {}
            ".." => {
                segments.pop();
                if last {
                    segments.push("");
                }
            }
            part => segments.push(part),
        }
    }
    format!("/{}", segments.join("/"))
}
