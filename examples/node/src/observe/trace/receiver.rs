//! The address of a receiver of traces.

use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};

/// The default port of OTLP over HTTP.
const PORT: u16 = 4318;
/// The path of traces, after that of the receiver.
const PATH: &str = "/v1/traces";

/// A receiver of OTLP over HTTP, without TLS: `http://HOST[:PORT][/PATH]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Receiver {
    /// A name or an address, an IPv6 address without its brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The path of traces.
    pub(crate) path: String,
}

impl Receiver {
    /// Host and port as they stand in a URL.
    pub(crate) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}{}", self.authority(), self.path)
    }
}

impl FromStr for Receiver {
    type Err = String;

    fn from_str(text: &str) -> Result<Receiver, String> {
        let wrong = |why: &str| {
            format!(
                "`{text}` is no receiver of traces: {why}; write http://HOST:PORT, such as http://127.0.0.1:4318"
            )
        };
        if text.starts_with("https://") {
            return Err(wrong(
                "TLS is not supported, a receiver or collector on this machine takes them without",
            ));
        }
        let rest = text.strip_prefix("http://").ok_or_else(|| wrong("the scheme is not http"))?;
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':').or(port.is_empty().then_some(""))),
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, Some("")),
            },
        };
        let port = match port.ok_or_else(|| wrong("the port is missing"))? {
            "" => PORT,
            port => {
                port.parse().ok().filter(|port| *port != 0).ok_or_else(|| wrong("the port is not a port"))?
            }
        };
        let is_of = |text: &str, others: &str| {
            text.bytes().all(|byte| byte.is_ascii_alphanumeric() || others.as_bytes().contains(&byte))
        };
        if host.is_empty() || !is_of(host, "-._:") {
            return Err(wrong("the host is not a name or an address"));
        }
        if !is_of(path, "-._~/%") {
            return Err(wrong("the path has other characters than a path, or a query"));
        }
        let path = format!("{}{PATH}", path.trim_end_matches('/'));
        Ok(Receiver { host: host.to_owned(), port, path })
    }
}

impl<'de> Deserialize<'de> for Receiver {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Receiver, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_is_read_or_refused() {
        let url = |text: &str| text.parse::<Receiver>().map(|receiver| receiver.url());
        assert_eq!(url("http://127.0.0.1:4318").unwrap(), "http://127.0.0.1:4318/v1/traces");
        assert_eq!(url("http://collector").unwrap(), "http://collector:4318/v1/traces");
        assert_eq!(url("http://[::1]:9/otlp/").unwrap(), "http://[::1]:9/otlp/v1/traces");
        assert_eq!(url("http://[::1]").unwrap(), "http://[::1]:4318/v1/traces");
        for (text, why) in [
            ("https://a", "TLS is not supported"),
            ("127.0.0.1:4318", "the scheme"),
            ("http://", "the host"),
            ("http://a b", "the host"),
            ("http://a\r\nX: y", "the port"),
            ("http://a\r\n", "the host"),
            ("http://user@a", "the host"),
            ("http://a:0", "the port"),
            ("http://a:70000", "the port"),
            ("http://[::1]9", "the port"),
            ("http://a/?q", "the path"),
            ("http://a/\r\n", "the path"),
        ] {
            let error = url(text).unwrap_err();
            assert!(error.contains(why) && error.contains("http://127.0.0.1:4318"), "{error}");
        }
    }
}
