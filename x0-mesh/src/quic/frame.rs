//! Decodes messages from the bytes of a stream.

use crate::Violation;

/// How much is allocated because of an announced length alone. A little more than 64 KiB, so that a message
/// of that length with the trailer of a mux is one allocation.
const TRUSTED_LEN_MAX: usize = (64 << 10) + 64;

/// Decodes messages, however their bytes are cut into pieces: QUIC streams have no message boundaries (RFC
/// 9000 §2.2).
#[derive(Debug)]
pub(super) struct FrameDecoder {
    len_max: usize,
    header: [u8; 4],
    header_len: usize,
    body: Vec<u8>,
    /// Bytes of the body that have not come yet.
    missing: usize,
}

impl FrameDecoder {
    pub(super) fn new(len_max: usize) -> FrameDecoder {
        FrameDecoder::with_body(len_max, Vec::new())
    }

    /// The first message is decoded into `body`, which is empty, as far as it has space.
    pub(super) fn with_body(len_max: usize, body: Vec<u8>) -> FrameDecoder {
        FrameDecoder { len_max, header: [0; 4], header_len: 0, body, missing: 0 }
    }

    /// Whether the bytes so far end with a whole message.
    #[cfg(test)]
    fn is_between(&self) -> bool {
        self.header_len == 0
    }

    /// Takes bytes and appends the messages that they complete. After an error the stream must not be read
    /// any further.
    pub(super) fn push(&mut self, mut bytes: &[u8], messages: &mut Vec<Vec<u8>>) -> Result<(), Violation> {
        while !bytes.is_empty() {
            // A length may be cut by the end of a packet, like everything on a stream.
            if self.header_len < 4 {
                let taken = bytes.len().min(4 - self.header_len);
                let (head, rest) = bytes.split_at(taken);
                self.header[self.header_len..self.header_len + taken].copy_from_slice(head);
                self.header_len += taken;
                bytes = rest;
                if self.header_len < 4 {
                    return Ok(());
                }
                let len = u32::from_le_bytes(self.header);
                // Before anything is allocated for it.
                self.missing = check_len(len, self.len_max)?;
                // Without effect on a body that has the space already.
                self.body.reserve_exact(self.missing.min(TRUSTED_LEN_MAX));
            }
            let taken = bytes.len().min(self.missing);
            let (head, rest) = bytes.split_at(taken);
            self.body.extend_from_slice(head);
            self.missing -= taken;
            bytes = rest;
            if self.missing == 0 {
                messages.push(std::mem::take(&mut self.body));
                self.header_len = 0;
            } else if self.body.len() >= TRUSTED_LEN_MAX {
                // The peer has sent so much that it is trusted for the rest: one allocation for all of it.
                self.body.reserve_exact(self.missing);
            }
        }
        Ok(())
    }
}

pub(super) fn check_len(len: u32, len_max: usize) -> Result<usize, Violation> {
    match usize::try_from(len) {
        Ok(len) if len <= len_max => Ok(len),
        _ => Err(Violation::MessageLength { len: len.into(), len_max: len_max as u64 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;

    fn frame(payload: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes().to_vec();
        bytes.extend_from_slice(payload);
        bytes
    }

    #[test]
    fn messages_come_whole_however_they_are_cut() {
        let mut random = SplitMix64::new(7);
        for _ in 0..200 {
            let sent: Vec<Vec<u8>> = (0..random.next() % 20)
                .map(|number| {
                    let len = match random.next() % 4 {
                        0 => 0,
                        1 => random.next() % 10,
                        2 => random.next() % 3000,
                        _ => random.next() % 200_000,
                    };
                    vec![u8::try_from(number).unwrap_or(0); usize::try_from(len).unwrap_or(0)]
                })
                .collect();
            let stream: Vec<u8> = sent.iter().flat_map(|payload| frame(payload)).collect();
            let mut decoder = FrameDecoder::new(200_000);
            let mut received = Vec::new();
            let mut rest = stream.as_slice();
            while !rest.is_empty() {
                let most = if random.next().is_multiple_of(2) { 8 } else { 70_000 };
                let cut = usize::try_from(1 + random.next() % most).unwrap_or(1).min(rest.len());
                let (head, tail) = rest.split_at(cut);
                assert_eq!(decoder.push(head, &mut received), Ok(()));
                rest = tail;
            }
            assert!(decoder.is_between());
            assert!(received == sent);
        }
    }

    #[test]
    fn a_recorded_stream_is_read() {
        let recorded = include_bytes!("../../tests/data/quic_lane_v1.bin");
        let mut messages = Vec::new();
        assert_eq!(FrameDecoder::new(300).push(recorded, &mut messages), Ok(()));
        let long: Vec<u8> = (0..300_u16).map(|at| u8::try_from(at % 251).unwrap_or(0)).collect();
        assert_eq!(messages, [vec![], b"a".to_vec(), long]);
        assert_eq!(messages.iter().flat_map(|message| frame(message)).collect::<Vec<_>>(), recorded);
    }

    #[test]
    fn a_length_is_checked_before_anything_is_allocated() {
        let mut decoder = FrameDecoder::new(10);
        let mut messages = Vec::new();
        assert_eq!(decoder.push(&frame(&[1; 10]), &mut messages), Ok(()));
        let refused = decoder.push(&u32::MAX.to_le_bytes(), &mut messages);
        assert_eq!(refused, Err(Violation::MessageLength { len: u32::MAX.into(), len_max: 10 }));
        assert_eq!(messages, [vec![1; 10]]);
    }

    #[test]
    fn a_length_alone_allocates_little() {
        let mut decoder = FrameDecoder::new(1 << 30);
        assert_eq!(decoder.push(&(1_u32 << 30).to_le_bytes(), &mut Vec::new()), Ok(()));
        assert_eq!(decoder.push(&[0], &mut Vec::new()), Ok(()));
        assert!(decoder.body.capacity() <= TRUSTED_LEN_MAX);
        assert!(!decoder.is_between());
    }

    /// The body of `fuzz/fuzz_targets/frame.rs`, with bytes from a seed: nothing panics, and no message is
    /// over the bound.
    #[test]
    fn arbitrary_bytes_do_no_harm() {
        let mut random = SplitMix64::new(11);
        for _ in 0..5_000 {
            let len = usize::try_from(random.next() % 64).unwrap_or(0);
            let bytes: Vec<u8> = (0..len)
                .map(|_| {
                    let byte = random.next().to_le_bytes();
                    if byte[1] < 160 { byte[0] % 4 } else { byte[0] }
                })
                .collect();
            super::super::fuzz::frames(&bytes);
        }
    }
}
