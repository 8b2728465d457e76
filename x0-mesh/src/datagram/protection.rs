//! Keys, and the protection of frames.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use super::frame::{OUTER_LEN, TAG_LEN, encode_outer};
use super::replay::Replay;

const KEY_LEN: usize = 16;
const IV_LEN: usize = 12;
const HALF_LEN: usize = KEY_LEN + IV_LEN + 4;
/// The part in clear and two sessions.
const AAD_LEN_MAX: usize = OUTER_LEN + 8;
/// From this number on new keys are wanted, and from the other one on nothing is sent: RFC 9001 §6.6 allows
/// 2^28 packets of up to 2^11 bytes under one key of AES-GCM.
const COUNTER_RENEW: u64 = 1 << 27;
const COUNTER_MAX: u64 = 1 << 28;

/// The keys of one link, from the mutual-TLS connection of the two neighbours.
pub struct FrameKeys {
    send: Box<Half>,
    receive: Box<Half>,
    is_client: bool,
}

struct Half {
    key: LessSafeKey,
    iv: [u8; IV_LEN],
    index: u32,
}

impl FrameKeys {
    /// The label to export the material with (RFC 8446 §7.5); the context is empty.
    pub const LABEL: &'static [u8] = b"EXPORTER-x0-mesh-frame-1";
    /// The length of the material, in bytes.
    pub const MATERIAL_LEN: usize = 2 * HALF_LEN;

    /// Keys from exported material. `is_client` says whether this end was the client of the TLS connection;
    /// the other end must be the server.
    #[must_use]
    pub fn new(material: &[u8; FrameKeys::MATERIAL_LEN], is_client: bool) -> FrameKeys {
        let (client, server) = material.split_at(HALF_LEN);
        let (send, receive) = if is_client { (client, server) } else { (server, client) };
        FrameKeys { send: Box::new(Half::new(send)), receive: Box::new(Half::new(receive)), is_client }
    }
}

impl fmt::Debug for FrameKeys {
    /// Without the keys.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("FrameKeys").field("is_client", &self.is_client).finish_non_exhaustive()
    }
}

impl Half {
    #[expect(clippy::expect_used, reason = "it says why it cannot fail")]
    fn new(material: &[u8]) -> Half {
        let (key, rest) = material.split_at(KEY_LEN);
        let (iv, index) = rest.split_at(IV_LEN);
        // The only error of `new` is another length of the key.
        let key = UnboundKey::new(&AES_128_GCM, key).expect("a key of 16 bytes is one of AES-128");
        let index = [index[0], index[1], index[2], 0];
        let mut half = Half { key: LessSafeKey::new(key), iv: [0; IV_LEN], index: u32::from_le_bytes(index) };
        half.iv.copy_from_slice(iv);
        half
    }

    fn nonce(&self, number: u64) -> Nonce {
        let mut nonce = self.iv;
        for (byte, number) in nonce[IV_LEN - 8..].iter_mut().zip(number.to_be_bytes()) {
            *byte ^= number;
        }
        Nonce::assume_unique_for_key(nonce)
    }
}

/// Data that is authenticated and partly not sent.
fn authenticated(outer: &[u8], sessions: Option<(u32, u32)>) -> ([u8; AAD_LEN_MAX], usize) {
    let mut data = [0; AAD_LEN_MAX];
    data[..OUTER_LEN].copy_from_slice(outer);
    let Some((sender, receiver)) = sessions else { return (data, OUTER_LEN) };
    data[OUTER_LEN..OUTER_LEN + 4].copy_from_slice(&sender.to_le_bytes());
    data[OUTER_LEN + 4..].copy_from_slice(&receiver.to_le_bytes());
    (data, AAD_LEN_MAX)
}

/// Keys in use, with their counters.
#[derive(Debug)]
pub(super) struct Protection {
    keys: FrameKeys,
    sent: u64,
    replay: Replay,
}

/// A frame was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    Replayed,
    Forged,
}

impl Protection {
    pub(super) fn new(keys: FrameKeys) -> Protection {
        Protection { keys, sent: 0, replay: Replay::new() }
    }

    /// By which the neighbour's frames name these keys.
    pub(super) fn index(&self) -> u32 {
        self.keys.receive.index
    }

    pub(super) fn is_client(&self) -> bool {
        self.keys.is_client
    }

    /// Whether a frame of the neighbour has come under these keys.
    pub(super) fn is_confirmed(&self) -> bool {
        self.replay.highest() > 0
    }

    /// Whether either end has nearly used up its keys. Only the client of a connection dials again: it looks
    /// at what the other end has sent, too.
    pub(super) fn wants_renewal(&self) -> bool {
        self.sent.max(self.replay.highest()) >= COUNTER_RENEW
    }

    /// A frame with this content, `None` when the keys are used up. `sessions` are the sender's and the
    /// receiver's.
    pub(super) fn protect(
        &mut self,
        kind: u8,
        parts: &[&[u8]],
        sessions: Option<(u32, u32)>,
    ) -> Option<Vec<u8>> {
        let len = parts.iter().map(|part| part.len()).sum::<usize>();
        let mut frame = Vec::with_capacity(OUTER_LEN + len + TAG_LEN);
        self.protect_into(&mut frame, kind, parts, sessions).map(|()| frame)
    }

    /// Appends the same frame to others; `None` without effect when the keys are used up.
    pub(super) fn protect_into(
        &mut self,
        frames: &mut Vec<u8>,
        kind: u8,
        parts: &[&[u8]],
        sessions: Option<(u32, u32)>,
    ) -> Option<()> {
        if self.sent >= COUNTER_MAX {
            return None;
        }
        let begin = frames.len();
        let number = self.sent + 1;
        // Below 2^28, so its low half is the whole.
        let outer = encode_outer(kind, self.keys.send.index, u32::try_from(number).unwrap_or(u32::MAX));
        frames.extend_from_slice(&outer);
        for part in parts {
            frames.extend_from_slice(part);
        }
        let (data, data_len) = authenticated(&outer, sessions);
        let nonce = self.keys.send.nonce(number);
        let aad = Aad::from(&data[..data_len]);
        let content = &mut frames[begin + OUTER_LEN..];
        // The only error of sealing is a length beyond that of AES-GCM, 64 GiB.
        let Ok(tag) = self.keys.send.key.seal_in_place_separate_tag(nonce, aad, content) else {
            frames.truncate(begin);
            return None;
        };
        frames.extend_from_slice(tag.as_ref());
        self.sent = number;
        Some(())
    }

    /// Whether a frame of this number would be taken if it were authentic.
    pub(super) fn check(&self, low: u32) -> Result<u64, Refused> {
        let number = self.replay.expand(low);
        if self.replay.is_new(number) { Ok(number) } else { Err(Refused::Replayed) }
    }

    /// Opens a frame in place, and records its number: the content, and whether the frame is the newest so
    /// far.
    pub(super) fn open<'a>(
        &mut self,
        number: u64,
        frame: &'a mut [u8],
        sessions: Option<(u32, u32)>,
    ) -> Result<(&'a [u8], bool), Refused> {
        let (outer, content) = frame.split_at_mut_checked(OUTER_LEN).ok_or(Refused::Forged)?;
        let (data, data_len) = authenticated(outer, sessions);
        let nonce = self.keys.receive.nonce(number);
        let aad = Aad::from(&data[..data_len]);
        let plain = self.keys.receive.key.open_in_place(nonce, aad, content).map_err(|_| Refused::Forged)?;
        let is_newest = number > self.replay.highest();
        self.replay.record(number);
        Ok((plain, is_newest))
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::{decode_outer, kind};
    use super::*;

    fn pair() -> [Protection; 2] {
        let mut material = [0; FrameKeys::MATERIAL_LEN];
        for (byte, number) in material.iter_mut().zip(0..) {
            *byte = number;
        }
        [true, false].map(|is_client| Protection::new(FrameKeys::new(&material, is_client)))
    }

    fn open(end: &mut Protection, frame: &[u8], sessions: Option<(u32, u32)>) -> Result<Vec<u8>, Refused> {
        let mut frame = frame.to_vec();
        let (_, index, low) = decode_outer(&frame).ok_or(Refused::Forged)?;
        if index != end.index() {
            return Err(Refused::Forged);
        }
        let number = end.check(low)?;
        end.open(number, &mut frame, sessions).map(|(plain, _)| plain.to_vec())
    }

    /// The bytes of version 1 do not change.
    #[test]
    fn the_recorded_frame_opens() {
        let [mut client, mut server] = pair();
        let frame = client.protect(kind::SHORT, &[b"12345678", b"payload"], Some((1, 2))).unwrap();
        let recorded = include_bytes!("../../tests/data/frame_v1.bin");
        assert_eq!(frame, recorded);
        assert_eq!(open(&mut server, recorded, Some((1, 2))), Ok(b"12345678payload".to_vec()));
    }

    #[test]
    fn a_frame_is_taken_once_and_only_unchanged() {
        let [mut client, mut server] = pair();
        let frame = client.protect(kind::CONTROL, &[b"content"], None).unwrap();
        for position in 0..frame.len() {
            let mut changed = frame.clone();
            changed[position] ^= 0x20;
            assert!(open(&mut server, &changed, None).is_err(), "byte {position}");
        }
        assert_eq!(open(&mut server, &frame[..20], None), Err(Refused::Forged));
        assert_eq!(open(&mut server, &frame, Some((1, 2))), Err(Refused::Forged));
        // A frame of this end is not one of the other.
        assert_eq!(open(&mut client, &frame, None), Err(Refused::Forged));
        assert_eq!(open(&mut server, &frame, None), Ok(b"content".to_vec()));
        assert_eq!(open(&mut server, &frame, None), Err(Refused::Replayed));
        assert!(server.is_confirmed() && !client.is_confirmed());
    }

    #[test]
    fn keys_are_used_up() {
        let [mut client, mut server] = pair();
        // The client renews what the server has used.
        server.sent = COUNTER_RENEW - 2;
        for wants_renewal in [false, true] {
            let frame = server.protect(kind::CONTROL, &[], None).unwrap();
            open(&mut client, &frame, None).unwrap();
            assert_eq!(client.wants_renewal(), wants_renewal);
        }
        client.sent = COUNTER_RENEW;
        assert!(client.wants_renewal());
        client.sent = COUNTER_MAX;
        assert_eq!(client.protect(kind::CONTROL, &[], None), None);
        assert!(!std::format!("{client:?}").contains("key:"), "{client:?}");
    }
}
