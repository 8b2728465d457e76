//! The decoders that bytes from peers reach first, for `fuzz/` and for the suite.

use super::frame::FrameDecoder;
use super::handshake::{HEAD_LEN, Handshake};

const LEN_MAX: usize = 48;

/// Reads bytes as a stream in pieces; the first byte says how long the pieces are.
pub(crate) fn frames(bytes: &[u8]) {
    let Some((piece_len, stream)) = bytes.split_first() else { return };
    let mut whole = Vec::new();
    let refused = FrameDecoder::new(LEN_MAX).push(stream, &mut whole);
    let mut pieces = Vec::new();
    let mut decoder = FrameDecoder::new(LEN_MAX);
    let in_pieces =
        stream.chunks(usize::from(*piece_len).max(1)).try_for_each(|piece| decoder.push(piece, &mut pieces));
    assert_eq!(refused, in_pieces);
    assert_eq!(whole, pieces);
    assert!(whole.iter().all(|message| message.len() <= LEN_MAX));

    if let Some((head, body)) = stream.split_first_chunk::<HEAD_LEN>()
        && Handshake::body_len(*head).is_ok()
    {
        let _ = Handshake::decode(body);
    }
}
