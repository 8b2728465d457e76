//! Trust domains: the namespaces of SPIFFE IDs.

use alloc::boxed::Box;
use core::fmt;
use core::str::FromStr;

/// The name of a trust domain: the `host` of a SPIFFE ID (SPIFFE-ID §2.1).
///
/// Names are compared byte for byte. The specification calls them case-insensitive (§2.4) and demands lower
/// case (§2.1); upper case is therefore refused rather than folded, so that one domain has one spelling.
///
/// ```
/// use x0_identity::TrustDomain;
///
/// let domain = TrustDomain::parse("mesh.example.org")?;
/// assert_eq!(domain.as_str(), "mesh.example.org");
/// assert!(TrustDomain::parse("Mesh.example.org").is_err());
/// # Ok::<(), x0_identity::ParseTrustDomainError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Box<str>);

impl TrustDomain {
    /// The longest name, in bytes (SPIFFE-ID §2.3, from RFC 3986 `host`).
    pub const LEN_MAX: usize = 255;

    /// Parses a name, without scheme.
    ///
    /// # Errors
    /// [`ParseTrustDomainError`] names the first rule of SPIFFE-ID §2.1 or §2.3 that is broken.
    pub fn parse(name: &str) -> Result<TrustDomain, ParseTrustDomainError> {
        if name.is_empty() {
            return Err(ParseTrustDomainError::Empty);
        }
        if name.len() > Self::LEN_MAX {
            return Err(ParseTrustDomainError::Length { len: name.len() });
        }
        // Before the characters: in `user:word@host` the error to report is the user information, not a port.
        if name.contains('@') {
            return Err(ParseTrustDomainError::UserInfo);
        }
        for (position, byte) in name.bytes().enumerate() {
            match byte {
                b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_' => {}
                b'A'..=b'Z' => return Err(ParseTrustDomainError::UpperCase { position }),
                b'%' => return Err(ParseTrustDomainError::PercentEncoded { position }),
                b':' if !name.starts_with('[') => return Err(ParseTrustDomainError::Port),
                _ => return Err(ParseTrustDomainError::Character { position }),
            }
        }
        Ok(TrustDomain(name.into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "TrustDomain({self})")
    }
}

impl FromStr for TrustDomain {
    type Err = ParseTrustDomainError;

    fn from_str(name: &str) -> Result<TrustDomain, ParseTrustDomainError> {
        TrustDomain::parse(name)
    }
}

/// A text is not the name of a trust domain. Positions are byte offsets within the name, counted from zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseTrustDomainError {
    /// The name is empty (SPIFFE-ID §2.1).
    #[error("the trust domain is empty: name one, as in spiffe://example.org/path")]
    Empty,
    /// The name is longer than [`TrustDomain::LEN_MAX`] (SPIFFE-ID §2.3).
    #[error("the trust domain has {len} bytes, more than the 255 allowed: shorten it")]
    Length {
        /// The length of the name, in bytes.
        len: usize,
    },
    /// The name has user information before an `@` (SPIFFE-ID §2.1).
    #[error("the trust domain has user information: remove the text up to and including the '@'")]
    UserInfo,
    /// The name has a port after a `:` (SPIFFE-ID §2.1).
    #[error("the trust domain has a port: remove the ':' and the text after it")]
    Port,
    /// The name has an upper-case letter (SPIFFE-ID §2.1).
    #[error("the trust domain has an upper-case letter at byte {position}: write it in lower case")]
    UpperCase {
        /// The offset of the character.
        position: usize,
    },
    /// The name has a percent-encoded character (SPIFFE-ID §2.1).
    #[error(
        "the trust domain is percent-encoded at byte {position}: only a-z, 0-9, '.', '-' and '_' are allowed"
    )]
    PercentEncoded {
        /// The offset of the character.
        position: usize,
    },
    /// The name has any other character outside `a-z0-9.-_` (SPIFFE-ID §2.1), as an IPv6 address has.
    #[error("byte {position} of the trust domain is not allowed: use a-z, 0-9, '.', '-' and '_'")]
    Character {
        /// The offset of the character.
        position: usize,
    },
}
