//! SPIFFE IDs: the URI that names a workload.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use crate::{NodeId, ParseTrustDomainError, TrustDomain};

const SCHEME: &str = "spiffe://";
/// The path of every node's SPIFFE ID begins with it: `/node/<NodeId>`.
const NODE_PATH: &str = "/node/";

/// A SPIFFE ID, `spiffe://trust-domain/path`, in its one valid spelling (SPIFFE-ID §2).
///
/// Two IDs are equal if and only if their bytes are equal: an upper-case scheme or trust domain, which a
/// lenient parser would fold (§2.4), is refused. The path may be empty. X509-SVID §3.1 demands a path of a
/// workload; that rule is checked where certificates are read.
///
/// ```
/// use x0_identity::{NodeId, SpiffeId, TrustDomain};
///
/// let id = SpiffeId::parse("spiffe://example.org/payments/web-fe")?;
/// assert_eq!(id.trust_domain().as_str(), "example.org");
/// assert_eq!(id.path(), "/payments/web-fe");
/// assert_eq!(id.to_string(), "spiffe://example.org/payments/web-fe");
///
/// let node = NodeId::new(7).ok_or("zero names no node")?;
/// let id = SpiffeId::for_node(&TrustDomain::parse("example.org")?, node);
/// assert_eq!(id.to_string(), "spiffe://example.org/node/0000000000000007");
/// assert_eq!(id.node_id(), Some(node));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    trust_domain: TrustDomain,
    /// Empty, or `/` and segments.
    path: Box<str>,
}

impl SpiffeId {
    /// The longest ID, in bytes (SPIFFE-ID §2.3).
    pub const LEN_MAX: usize = 2048;

    /// Parses an ID.
    ///
    /// # Errors
    /// [`ParseSpiffeIdError`] names the first rule of SPIFFE-ID §2 that is broken.
    pub fn parse(text: &str) -> Result<SpiffeId, ParseSpiffeIdError> {
        if text.len() > Self::LEN_MAX {
            return Err(ParseSpiffeIdError::Length { len: text.len() });
        }
        let rest = text.strip_prefix(SCHEME).ok_or(ParseSpiffeIdError::Scheme)?;
        // RFC 3986 §3.2: the authority ends at the first '/', '?' or '#'.
        let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let trust_domain = TrustDomain::parse(authority)?;
        // RFC 3986 §3.5: a '?' after a '#' belongs to the fragment.
        match rest.find(['?', '#']).map(|position| rest.as_bytes()[position]) {
            Some(b'?') => return Err(ParseSpiffeIdError::Query),
            Some(_) => return Err(ParseSpiffeIdError::Fragment),
            None => {}
        }
        if let Some(path) = rest.strip_prefix('/') {
            if path.is_empty() || path.ends_with('/') {
                return Err(ParseSpiffeIdError::TrailingSlash);
            }
            let mut position = text.len() - path.len();
            for segment in path.split('/') {
                check_segment(segment, position)?;
                position += segment.len() + 1;
            }
        }
        Ok(SpiffeId { trust_domain, path: rest.into() })
    }

    /// Builds an ID from a trust domain and path segments. An empty slice gives the ID of the trust domain.
    ///
    /// # Errors
    /// [`ParseSpiffeIdError`] when a segment breaks a rule of SPIFFE-ID §2.2 (a `/` inside a segment does),
    /// or the ID is too long.
    pub fn from_segments(
        trust_domain: &TrustDomain,
        segments: &[&str],
    ) -> Result<SpiffeId, ParseSpiffeIdError> {
        let mut path = String::new();
        let head_len = SCHEME.len() + trust_domain.as_str().len();
        for segment in segments {
            check_segment(segment, head_len + path.len() + 1)?;
            let len = head_len + path.len() + 1 + segment.len();
            if len > Self::LEN_MAX {
                return Err(ParseSpiffeIdError::Length { len });
            }
            path.push('/');
            path.push_str(segment);
        }
        Ok(SpiffeId { trust_domain: trust_domain.clone(), path: path.into() })
    }

    /// The ID of a node: `spiffe://<trust domain>/node/<16 hexadecimal digits>`.
    #[must_use]
    pub fn for_node(trust_domain: &TrustDomain, node: NodeId) -> SpiffeId {
        // At most 255 bytes of trust domain and 31 of the rest: never too long.
        SpiffeId { trust_domain: trust_domain.clone(), path: format!("{NODE_PATH}{node}").into() }
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The path with its leading `/`, or an empty text. Case matters in it (SPIFFE-ID §2.4).
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The node, if the ID has the form of [`SpiffeId::for_node`].
    #[must_use]
    pub fn node_id(&self) -> Option<NodeId> {
        self.path.strip_prefix(NODE_PATH)?.parse().ok()
    }
}

/// The rules of SPIFFE-ID §2.2 for one segment that begins at `position` of the ID.
fn check_segment(segment: &str, position: usize) -> Result<(), ParseSpiffeIdError> {
    match segment {
        "" => return Err(ParseSpiffeIdError::EmptySegment { position }),
        "." | ".." => return Err(ParseSpiffeIdError::RelativeSegment { position }),
        _ => {}
    }
    for (offset, byte) in segment.bytes().enumerate() {
        let position = position + offset;
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' => {}
            b'%' => return Err(ParseSpiffeIdError::PercentEncoded { position }),
            _ => return Err(ParseSpiffeIdError::Character { position }),
        }
    }
    Ok(())
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{SCHEME}{}{}", self.trust_domain, self.path)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SpiffeId({self})")
    }
}

impl FromStr for SpiffeId {
    type Err = ParseSpiffeIdError;

    fn from_str(text: &str) -> Result<SpiffeId, ParseSpiffeIdError> {
        SpiffeId::parse(text)
    }
}

/// A text is not a SPIFFE ID. Positions are byte offsets within the whole ID, counted from zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseSpiffeIdError {
    /// The ID is longer than [`SpiffeId::LEN_MAX`] (SPIFFE-ID §2.3).
    #[error("the SPIFFE ID has {len} bytes, more than the 2048 allowed: shorten its path")]
    Length {
        /// The length of the ID, in bytes.
        len: usize,
    },
    /// The ID does not begin with `spiffe://` (SPIFFE-ID §2).
    #[error("the text does not begin with spiffe:// in lower case: write spiffe://<trust domain>/<path>")]
    Scheme,
    /// The trust domain breaks a rule (SPIFFE-ID §2.1).
    #[error(transparent)]
    TrustDomain(#[from] ParseTrustDomainError),
    /// The ID has a query (SPIFFE-ID §2).
    #[error("the SPIFFE ID has a query: remove the '?' and the text after it")]
    Query,
    /// The ID has a fragment (SPIFFE-ID §2).
    #[error("the SPIFFE ID has a fragment: remove the '#' and the text after it")]
    Fragment,
    /// The path ends with a `/` (SPIFFE-ID §2.2).
    #[error("the path of the SPIFFE ID ends with a '/': remove it")]
    TrailingSlash,
    /// A path segment is empty (SPIFFE-ID §2.2).
    #[error("the path segment at byte {position} is empty: write one '/' between segments")]
    EmptySegment {
        /// The offset at which the segment should begin.
        position: usize,
    },
    /// A path segment is `.` or `..` (SPIFFE-ID §2.2).
    #[error("the path segment at byte {position} is a relative modifier: write the path out")]
    RelativeSegment {
        /// The offset at which the segment begins.
        position: usize,
    },
    /// The path has a percent-encoded character (SPIFFE-ID §2.2).
    #[error(
        "the path is percent-encoded at byte {position}: only letters, digits, '.', '-' and '_' are allowed"
    )]
    PercentEncoded {
        /// The offset of the character.
        position: usize,
    },
    /// The path has any other character outside `a-zA-Z0-9.-_` (SPIFFE-ID §2.2).
    #[error(
        "byte {position} of the SPIFFE ID is not allowed in a path: use letters, digits, '.', '-' and '_'"
    )]
    Character {
        /// The offset of the character.
        position: usize,
    },
}
