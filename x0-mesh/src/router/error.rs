//! Errors of the router.

use x0_identity::NodeId;

use super::LinkId;

/// The router did not take an input. Each variant says what became of its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandleError {
    /// The link is not up. Nothing changed. A message may arrive just before the link comes up, or after it
    /// went down.
    #[error("{link} is not up: report it with `Input::LinkUp` before its messages; nothing changed")]
    UnknownLink {
        /// The link.
        link: LinkId,
    },
    /// A link leads to this node itself. Nothing changed.
    #[error("{link} leads to this node: check the addresses of the link; nothing changed")]
    LinkToSelf {
        /// The link.
        link: LinkId,
    },
    /// The node has as many neighbours, or as many links to this one, as its options allow. The link is not
    /// used; nothing else changed.
    #[error("{link} to {peer} is beyond the limit of {limit} {what}: raise the option; the link is not used")]
    Full {
        /// The link.
        link: LinkId,
        /// The neighbour.
        peer: NodeId,
        /// Which limit: `neighbours` or `links to one neighbour`.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// A message cannot be decoded. Nothing changed; the neighbour sends its content again, because it is not
    /// acknowledged.
    #[error(
        "the message of {peer} is invalid; nothing changed, and if that repeats the neighbour runs an incompatible version"
    )]
    Message {
        /// The neighbour.
        peer: NodeId,
        /// The rule of the format that it breaks.
        #[source]
        source: MessageError,
    },
    /// A neighbour claims to be another node, or to be no distance away from it. The message was refused as a
    /// whole.
    #[error(
        "{peer} advertises {destination} with metric {metric}, which only a false advertisement can have: isolate \
         {peer}; the message was refused"
    )]
    FalseMetric {
        /// The neighbour.
        peer: NodeId,
        /// The destination that it advertises.
        destination: NodeId,
        /// The metric.
        metric: u32,
    },
}

/// The rule of the wire format that a message breaks. Offsets are in bytes from the start of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// The message ends within a field.
    #[error("the message ends at byte {offset}, within a field")]
    Truncated {
        /// The length of the message.
        offset: usize,
    },
    /// The version is unknown.
    #[error("version {version}, where this node speaks version 1: update the older node")]
    Version {
        /// The version of the message.
        version: u8,
    },
    /// A flag is set that version 1 does not have.
    #[error("unknown flags {flags:#04x}")]
    Flags {
        /// The flags.
        flags: u8,
    },
    /// The message has entries without a number to acknowledge them by.
    #[error("entries from byte {offset} on, in a message without a number")]
    Unnumbered {
        /// Where the entries begin.
        offset: usize,
    },
    /// An entry is of an unknown kind.
    #[error("an entry of the unknown kind {kind:#04x} at byte {offset}")]
    Kind {
        /// The first byte of the entry.
        kind: u8,
        /// Where it stands.
        offset: usize,
    },
    /// A field has a value that it cannot have.
    #[error("a {field} that is out of range, at byte {offset}")]
    Value {
        /// The field.
        field: &'static str,
        /// Where it stands.
        offset: usize,
    },
}
