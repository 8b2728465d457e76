//! The end of a message: who sends it, and what the sender knows of the receiver.

use bytes::{BufMut, Bytes};

use super::DecodeError;
use crate::entry::Registration;

/// The version of a message with an envelope; one without has version 1.
pub(crate) const ENVELOPE_VERSION: u8 = 2;
const NUMBERS: usize = 5;
const LEN: usize = NUMBERS * 8;

/// The part of a message that names its sender and its receiver. It is at the end of the message, in a fixed
/// length, so that it is added without moving the entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Envelope {
    /// The cluster of the sender; 0 if it knows none.
    pub(crate) cluster: u64,
    /// The incarnation of the sender; 0 if it has none.
    pub(crate) incarnation: u64,
    /// The incarnation of the receiver that the sender knows to be registered; 0 if it knows none.
    pub(crate) registered: Registration,
    /// The highest index that the sender, as a leader, saw acknowledged by that incarnation of the receiver,
    /// and that was committed.
    pub(crate) acknowledged: u64,
}

impl Envelope {
    /// Adds the envelope to an encoded message.
    pub(crate) fn seal(&self, message: &mut Vec<u8>) {
        if let Some(version) = message.first_mut() {
            *version = ENVELOPE_VERSION;
        }
        let Envelope { cluster, incarnation, registered, acknowledged } = *self;
        for number in [cluster, incarnation, registered.incarnation, registered.index, acknowledged] {
            message.put_u64_le(number);
        }
    }

    /// Takes the envelope off the end of a message of this version; the default if it has none.
    pub(crate) fn split(version: u8, message: &mut Bytes) -> Result<Envelope, DecodeError> {
        if version != ENVELOPE_VERSION {
            return Ok(Envelope::default());
        }
        let end = message.len().checked_sub(LEN).filter(|end| *end >= 2);
        let end = end.ok_or(DecodeError::Truncated { field: "envelope" })?;
        let mut numbers = [0; NUMBERS];
        let tail = message.split_off(end);
        for (number, bytes) in numbers.iter_mut().zip(tail.chunks_exact(8)) {
            *number = bytes.try_into().map(u64::from_le_bytes).unwrap_or_default();
        }
        let [cluster, incarnation, registered, index, acknowledged] = numbers;
        let registered = Registration { incarnation: registered, index };
        Ok(Envelope { cluster, incarnation, registered, acknowledged })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_survives_its_message() {
        let envelope = Envelope {
            cluster: 1,
            incarnation: u64::MAX,
            registered: Registration { incarnation: 3, index: 4 },
            acknowledged: 5,
        };
        let mut message = vec![1, 7, 9];
        envelope.seal(&mut message);
        let mut sealed = Bytes::from(message.clone());
        assert_eq!(Envelope::split(2, &mut sealed), Ok(envelope));
        assert_eq!(sealed, [ENVELOPE_VERSION, 7, 9].as_slice());
        let mut plain = Bytes::from_static(&[1, 7]);
        assert_eq!(Envelope::split(1, &mut plain), Ok(Envelope::default()));
        for len in 1..LEN + 2 {
            assert!(Envelope::split(2, &mut Bytes::from(message[..len].to_vec())).is_err(), "{len}");
        }
    }
}
