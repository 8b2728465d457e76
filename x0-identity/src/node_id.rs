//! Node ids: the 64-bit names of nodes.

use core::fmt;
use core::num::NonZeroU64;
use core::str::FromStr;

/// A node of a mesh: 64 bits, never zero, written as 16 lower-case hexadecimal digits.
///
/// The number is only a name. An SVID proves that a peer *is* the node: see `SpiffeId::for_node` and
/// `SpiffeId::node_id`.
///
/// ```
/// use x0_identity::NodeId;
///
/// let node = NodeId::new(0x2a).ok_or("zero names no node")?;
/// assert_eq!(node.to_string(), "000000000000002a");
/// assert_eq!("000000000000002a".parse(), Ok(node));
/// # Ok::<(), &str>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(NonZeroU64);

impl NodeId {
    /// The length of the written form, in bytes.
    pub const DISPLAY_LEN: usize = 16;

    /// The node with this number, unless it is zero.
    #[must_use]
    pub const fn new(number: u64) -> Option<NodeId> {
        match NonZeroU64::new(number) {
            Some(number) => Some(NodeId(number)),
            None => None,
        }
    }

    /// The number, never zero.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

impl From<NonZeroU64> for NodeId {
    fn from(number: NonZeroU64) -> NodeId {
        NodeId(number)
    }
}

impl From<NodeId> for u64 {
    fn from(node: NodeId) -> u64 {
        node.get()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "NodeId({self})")
    }
}

/// A text is not a [`NodeId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseNodeIdError {
    /// The text is not 16 bytes long.
    #[error("the node id has {len} characters instead of 16 hexadecimal digits: write the leading zeros")]
    Length {
        /// The length of the text, in bytes.
        len: usize,
    },
    /// The text has a character outside `0-9a-f`.
    #[error(
        "byte {position} of the node id is not a digit 0-9 or a-f: write the id in lower-case hexadecimal"
    )]
    Digit {
        /// The byte offset of the character, counted from zero.
        position: usize,
    },
    /// The number is zero.
    #[error("the node id is zero, which is reserved: number nodes from 1")]
    Zero,
}

impl FromStr for NodeId {
    type Err = ParseNodeIdError;

    /// Accepts exactly the form that `Display` writes, so that a node has one written name.
    fn from_str(text: &str) -> Result<NodeId, ParseNodeIdError> {
        if text.len() != Self::DISPLAY_LEN {
            return Err(ParseNodeIdError::Length { len: text.len() });
        }
        let mut number = 0_u64;
        for (position, byte) in text.bytes().enumerate() {
            let digit = match byte {
                b'0'..=b'9' => byte - b'0',
                b'a'..=b'f' => byte - b'a' + 10,
                _ => return Err(ParseNodeIdError::Digit { position }),
            };
            number = number << 4 | u64::from(digit);
        }
        NodeId::new(number).ok_or(ParseNodeIdError::Zero)
    }
}
