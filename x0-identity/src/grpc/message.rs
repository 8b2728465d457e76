//! Messages on a stream: a length before each (gRPC over HTTP/2, "Length-Prefixed-Message").

use std::sync::Arc;
use std::vec::Vec;

/// The bytes of a stream are not messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameError {
    /// A message is compressed, and no encoding was offered.
    Compressed,
    /// A message is longer than allowed.
    Length,
}

/// The message with its prefix, shared by all streams that send it.
pub(crate) fn frame_message(message: &[u8]) -> Arc<[u8]> {
    let mut framed = Vec::with_capacity(5 + message.len());
    framed.push(0);
    framed.extend(u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend(message);
    framed.into()
}

/// Assembles the messages of one direction of a stream.
#[derive(Debug)]
pub(crate) struct Messages {
    buffer: Vec<u8>,
    len_max: usize,
}

impl Messages {
    /// `len_max` bounds a message, and so what is kept.
    pub(crate) fn new(len_max: usize) -> Messages {
        Messages { buffer: Vec::new(), len_max }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend(bytes);
    }

    /// The next complete message.
    pub(crate) fn next(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        let Some((prefix, rest)) = self.buffer.split_first_chunk::<5>() else { return Ok(None) };
        let [compressed, len @ ..] = *prefix;
        if compressed != 0 {
            return Err(FrameError::Compressed);
        }
        let len = usize::try_from(u32::from_be_bytes(len)).map_err(|_| FrameError::Length)?;
        if len > self.len_max {
            return Err(FrameError::Length);
        }
        let Some(message) = rest.get(..len).map(<[u8]>::to_vec) else { return Ok(None) };
        self.buffer.drain(..5 + len);
        Ok(Some(message))
    }

    /// Whether no part of a message is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_assembled_from_any_pieces() {
        let stream = [&frame_message(b"first")[..], &frame_message(b""), &frame_message(&[7; 300])].concat();
        for piece in 1..stream.len() {
            let mut messages = Messages::new(300);
            let mut read = Vec::new();
            for bytes in stream.chunks(piece) {
                messages.push(bytes);
                while let Some(message) = messages.next().unwrap() {
                    read.push(message);
                }
            }
            assert_eq!(read, [b"first".to_vec(), Vec::new(), vec![7; 300]]);
            assert!(messages.is_empty());
        }
    }

    #[test]
    fn long_and_compressed_messages_are_refused() {
        let mut messages = Messages::new(3);
        messages.push(&[0, 0, 0, 0, 4]);
        assert_eq!(messages.next(), Err(FrameError::Length));
        let mut messages = Messages::new(3);
        messages.push(&[1, 0, 0, 0, 0]);
        assert_eq!(messages.next(), Err(FrameError::Compressed));
    }
}
