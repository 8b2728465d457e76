//! Names of keyspaces.

use std::fmt;

use bytes::Bytes;

use crate::request::limits::{KEYSPACE_NAME_LEN_MAX, LimitError};

/// The name of a keyspace: a named, isolated set of keys. The same key in two keyspaces is two keys.
///
/// A name holds 1 to [`KEYSPACE_NAME_LEN_MAX`] of the ASCII letters, digits and `-`, `_`, `.`, `/`. The
/// [default keyspace](KeyspaceName::DEFAULT) has no name and always exists.
///
/// ```
/// use x0_kv::KeyspaceName;
///
/// let name = KeyspaceName::new("items")?;
/// assert_eq!(name.as_str(), "items");
/// assert!(KeyspaceName::new("no spaces").is_err());
/// # Ok::<(), x0_kv::limits::LimitError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct KeyspaceName(Bytes);

impl KeyspaceName {
    /// The keyspace that exists without being created and cannot be dropped.
    pub const DEFAULT: KeyspaceName = KeyspaceName(Bytes::new());

    /// The keyspace called `name`.
    ///
    /// # Errors
    /// [`LimitError::KeyspaceName`] when the name is empty, too long or contains another character.
    pub fn new(name: &str) -> Result<KeyspaceName, LimitError> {
        if name.is_empty() {
            return Err(LimitError::KeyspaceName { reason: "it is empty" });
        }
        KeyspaceName::from_encoded(Bytes::copy_from_slice(name.as_bytes()))
    }

    /// A name as encoded: empty for the default keyspace.
    pub(crate) fn from_encoded(name: Bytes) -> Result<KeyspaceName, LimitError> {
        if name.len() > KEYSPACE_NAME_LEN_MAX {
            return Err(LimitError::KeyspaceName { reason: "it is too long" });
        }
        let is_allowed =
            |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/');
        if name.iter().all(is_allowed) {
            Ok(KeyspaceName(name))
        } else {
            Err(LimitError::KeyspaceName { reason: "it contains another character" })
        }
    }

    /// The name; empty for the default keyspace.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Only ASCII passes `from_encoded`, so that this never falls back.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Whether this is the default keyspace.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.0.is_empty()
    }

    /// The same name in an allocation of its own, instead of a slice of the message that it came in.
    pub(crate) fn to_owned_name(&self) -> KeyspaceName {
        KeyspaceName(Bytes::copy_from_slice(&self.0))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// `key` of this keyspace as one byte string: the length of the name (1 byte), the name, the key. No such
    /// string of one keyspace is a prefix of one of another, since the length comes first.
    pub(crate) fn qualify(&self, key: &[u8]) -> Vec<u8> {
        let mut qualified = Vec::with_capacity(1 + self.0.len() + key.len());
        // At most `KEYSPACE_NAME_LEN_MAX`, which fits.
        qualified.push(u8::try_from(self.0.len()).unwrap_or(u8::MAX));
        qualified.extend_from_slice(&self.0);
        qualified.extend_from_slice(key);
        qualified
    }

    /// How many bytes [`qualify`](KeyspaceName::qualify) puts before a key.
    pub(crate) fn qualifier_len(&self) -> usize {
        1 + self.0.len()
    }
}

impl fmt::Display for KeyspaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_default() { f.write_str("(default)") } else { f.write_str(self.as_str()) }
    }
}

impl fmt::Debug for KeyspaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}
