//! The trace contexts of the entries of a message, after its end.

use bytes::{BufMut, Bytes};

use super::DecodeError;
use crate::trace::Context;

/// The version of a message with trace contexts. The message before them has one of the other versions.
pub(crate) const CONTEXTS_VERSION: u8 = 3;
/// The most contexts of one message.
pub(crate) const CONTEXTS_MAX: usize = 255;
/// The place of the entry in the message, and its context.
const EACH_LEN: usize = 4 + Context::LEN;
/// The count of the contexts, and the version of the message.
const TAIL_LEN: usize = 2;

/// Adds the contexts of entries to an encoded message, each with the place of its entry: 0 is the first one.
pub(crate) fn seal_contexts(message: &mut Vec<u8>, contexts: &[(u32, Context)]) {
    let contexts = &contexts[..contexts.len().min(CONTEXTS_MAX)];
    let Some(version) = message.first_mut() else { return };
    let inner = std::mem::replace(version, CONTEXTS_VERSION);
    message.reserve(contexts.len() * EACH_LEN + TAIL_LEN);
    for (place, context) in contexts {
        message.put_u32_le(*place);
        message.put_slice(&context.to_bytes());
    }
    message.put_u8(u8::try_from(contexts.len()).unwrap_or(u8::MAX));
    message.put_u8(inner);
}

/// Takes the contexts off the end of a message. Returns them and the version of the message without them. The
/// places ascend.
pub(crate) fn split_contexts(message: &mut Bytes) -> Result<(u8, Vec<(u32, Context)>), DecodeError> {
    let version = *message.first().ok_or(DecodeError::Truncated { field: "version" })?;
    if version != CONTEXTS_VERSION {
        return Ok((version, Vec::new()));
    }
    let truncated = DecodeError::Truncated { field: "trace contexts" };
    let invalid = DecodeError::Invalid { field: "trace contexts" };
    let tail = message.len().checked_sub(TAIL_LEN).filter(|tail| *tail >= 2).ok_or(truncated)?;
    let (count, version) = (usize::from(message[tail]), message[tail + 1]);
    let begin = tail.checked_sub(count * EACH_LEN).filter(|begin| *begin >= 2).ok_or(truncated)?;
    if version == CONTEXTS_VERSION {
        return Err(invalid);
    }
    let bytes = message.split_off(begin);
    let mut contexts: Vec<(u32, Context)> = Vec::with_capacity(count);
    for each in bytes[..count * EACH_LEN].chunks_exact(EACH_LEN) {
        let (place, context) = each.split_at(4);
        let place = place.try_into().map(u32::from_le_bytes).map_err(|_| invalid)?;
        let context = context.try_into().ok().and_then(Context::from_bytes).ok_or(invalid)?;
        if contexts.last().is_some_and(|(last, _)| *last >= place) {
            return Err(invalid);
        }
        contexts.push((place, context));
    }
    Ok((version, contexts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_survive_their_message() {
        let context = |number| Context::new([number; 16], [number; 8], 1).unwrap();
        let contexts = [(0, context(1)), (7, context(2))];
        let mut message = vec![2, 1, 9];
        seal_contexts(&mut message, &contexts);
        let mut sealed = Bytes::from(message.clone());
        assert_eq!(split_contexts(&mut sealed), Ok((2, contexts.to_vec())));
        assert_eq!(sealed, [CONTEXTS_VERSION, 1, 9].as_slice());
        // A message without contexts is left as it is.
        let mut plain = Bytes::from_static(&[1, 7]);
        assert_eq!(split_contexts(&mut plain), Ok((1, Vec::new())));
        assert_eq!(plain, [1, 7].as_slice());
        for len in 1..message.len() {
            let mut cut = Bytes::from(message[..len].to_vec());
            let read = split_contexts(&mut cut);
            assert!(read.is_err() || read.is_ok_and(|(_, read)| read != contexts), "{len}");
        }
        let mut wrong = message.clone();
        // Two entries at one place, an id of zero, a version within itself.
        wrong[3 + EACH_LEN] = 0;
        assert!(split_contexts(&mut Bytes::from(wrong.clone())).is_err());
        wrong.clone_from(&message);
        wrong[7..23].fill(0);
        assert!(split_contexts(&mut Bytes::from(wrong.clone())).is_err());
        wrong.clone_from(&message);
        *wrong.last_mut().unwrap() = CONTEXTS_VERSION;
        assert!(split_contexts(&mut Bytes::from(wrong)).is_err());
    }

    #[test]
    fn a_message_has_a_bound_of_contexts() {
        let context = Context::new([1; 16], [1; 8], 1).unwrap();
        let contexts: Vec<_> = (0..300).map(|place| (place, context)).collect();
        let mut message = vec![1, 1];
        seal_contexts(&mut message, &contexts);
        let (version, read) = split_contexts(&mut Bytes::from(message)).unwrap();
        assert_eq!((version, read.as_slice()), (1, &contexts[..CONTEXTS_MAX]));
    }
}
