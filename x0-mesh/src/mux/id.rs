//! Names of channels.

use std::fmt;

/// The name of a channel, for instance `x0.kv.consensus`: 1 to [`ChannelId::LEN_MAX`] visible ASCII
/// characters.
///
/// Two nodes talk on a channel when both registered the same name. A name is chosen by the service and should
/// begin with something that the service owns, such as a domain or a crate name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId {
    /// Zeros behind the name, so that the derived comparisons compare names.
    bytes: [u8; ChannelId::LEN_MAX],
    len: u8,
}

impl ChannelId {
    /// The longest name, in bytes.
    pub const LEN_MAX: usize = 47;

    /// A name, or `None` if it is empty, longer than [`ChannelId::LEN_MAX`], or holds anything but visible
    /// ASCII characters.
    ///
    /// ```
    /// use x0_mesh::ChannelId;
    ///
    /// const CHAT: ChannelId = ChannelId::new("example.chat").unwrap();
    /// assert_eq!(CHAT.as_str(), "example.chat");
    /// assert_eq!(ChannelId::new("no spaces"), None);
    /// ```
    #[must_use]
    pub const fn new(name: &str) -> Option<ChannelId> {
        ChannelId::from_bytes(name.as_bytes())
    }

    #[allow(clippy::cast_possible_truncation, reason = "the length was compared with 47")]
    pub(super) const fn from_bytes(name: &[u8]) -> Option<ChannelId> {
        if name.is_empty() || name.len() > ChannelId::LEN_MAX {
            return None;
        }
        let mut bytes = [0; ChannelId::LEN_MAX];
        let mut at = 0;
        while at < name.len() {
            if !name[at].is_ascii_graphic() {
                return None;
            }
            bytes[at] = name[at];
            at += 1;
        }
        Some(ChannelId { bytes, len: name.len() as u8 })
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Only ASCII was let in.
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

impl fmt::Display for ChannelId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl fmt::Debug for ChannelId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ChannelId({})", self.as_str())
    }
}
