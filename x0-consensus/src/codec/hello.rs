//! The encoding of the messages by which the founders of a group find each other.

use super::{DecodeError, Fields, MESSAGE_VERSION, decode_membership, encode_membership, kind};
use crate::entry::{Membership, Registration};

/// The state of the group, as the sender knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hello {
    /// The sender is a founder with an empty log that has not heard of a group.
    Fresh,
    /// The group was founded with this membership.
    Founded(Membership),
    /// The group exists, and its founding is no longer in the sender's log. The incarnation of the receiver
    /// that is registered; the default if there is none.
    Exists(Registration),
}

impl Hello {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut to = vec![MESSAGE_VERSION, kind::HELLO];
        match self {
            Hello::Fresh => to.push(0),
            Hello::Founded(membership) => {
                to.push(1);
                encode_membership(&mut to, membership);
            }
            Hello::Exists(registered) => {
                to.push(2);
                super::put_u64(&mut to, registered.incarnation);
                super::put_u64(&mut to, registered.index);
            }
        }
        to
    }

    pub(crate) fn decode(from: &mut Fields) -> Result<Hello, DecodeError> {
        Ok(match from.u8("kind of hello")? {
            0 => Hello::Fresh,
            1 => Hello::Founded(decode_membership(from).and_then(|membership| {
                let is_founded = membership.is_consistent() && membership.cluster != 0;
                is_founded.then_some(membership).ok_or(DecodeError::Invalid { field: "founding membership" })
            })?),
            2 => Hello::Exists(Registration {
                incarnation: from.u64("incarnation")?,
                index: from.u64("index")?,
            }),
            _ => return Err(DecodeError::Invalid { field: "kind of hello" }),
        })
    }
}
