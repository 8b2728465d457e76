//! Any bytes from a peer, decoder by decoder: for the targets in `fuzz/`, and from a seed in the suite.
#![cfg_attr(not(fuzzing), allow(unreachable_pub, reason = "exported in builds for fuzzing only"))]

use std::time::Duration;
use std::vec::Vec;

use super::http2::{Event, Http2, Limits};
use super::{Messages, Reader, hpack, read_entry};

/// Decodes header blocks with one table. Each begins with its length in two bytes.
pub fn decode_header_blocks(mut data: &[u8]) {
    let mut decoder = hpack::Decoder::default();
    while let Some((len, rest)) = data.split_first_chunk::<2>() {
        let len = usize::from(u16::from_le_bytes(*len)).min(rest.len());
        let (block, rest) = rest.split_at(len);
        if decoder.decode(block, 16 * 1024).is_err() {
            return;
        }
        data = rest;
    }
}

/// Assembles messages of gRPC from pieces and reads their fields. The first byte says how long pieces are;
/// the messages do not depend on it.
pub fn read_messages(data: &[u8]) {
    let Some((piece, data)) = data.split_first() else { return };
    let assemble = |piece: usize| {
        let mut messages = Messages::new(1000);
        let mut read = Vec::new();
        for bytes in data.chunks(piece) {
            messages.push(bytes);
            loop {
                match messages.next() {
                    Ok(Some(message)) => read.push(message),
                    Ok(None) => break,
                    Err(error) => return (read, Some(error)),
                }
            }
        }
        (read, None)
    };
    let (read, error) = assemble(usize::from(*piece) + 1);
    assert!(
        (&read, error) == (&assemble(usize::MAX).0, assemble(usize::MAX).1),
        "pieces change the messages"
    );
    for message in &read {
        let mut fields = Reader::new(message);
        while let Ok(Some((_, value))) = fields.field() {
            let _ = value.string();
            let _ = value.bytes().map(read_entry);
        }
    }
}

/// Receives frames of HTTP/2 in pieces, and answers each request. The first byte says which side we are,
/// whether the peer begins as it should, and how long pieces are.
pub fn exchange_frames(data: &[u8]) {
    let Some((how, data)) = data.split_first() else { return };
    let limits = Limits { streams_max: 4, field_list_len_max: 4096 };
    let (mut http, begin) = if how & 1 == 0 {
        (Http2::server(limits), &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"[..])
    } else {
        let mut http = Http2::client(limits);
        http.open([(":method", "POST"), (":path", "/a")], b"message"[..].into());
        (http, &b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"[..])
    };
    if how & 2 == 0 {
        let begun = http.receive(Duration::ZERO, begin);
        assert!(begun.is_ok(), "the honest beginning is refused: {begun:?}");
    }
    let mut now = Duration::ZERO;
    for bytes in data.chunks(usize::from(how >> 2) + 1) {
        now += Duration::from_millis(10);
        let received = http.receive(now, bytes);
        assert!(
            received.is_err() == http.has_failed(),
            "an error ends the connection, and nothing else does"
        );
        while let Some(event) = http.poll_event() {
            if let (Event::Fields { stream, .. }, 0) = (event, how & 1) {
                http.respond(stream, [(":status", "200")], false);
                http.send(stream, b"answer"[..].into());
                http.finish(stream, [("grpc-status", "0")], false);
            }
        }
        while http.poll_output().is_some() {}
        if received.is_err() {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::vec;

    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;
    use crate::grpc::frame_message;

    /// Frames of every type on few streams, with any content.
    fn frame() -> impl Strategy<Value = Vec<u8>> {
        let content = proptest::collection::vec(any::<u8>(), 0..40);
        (0..10_u8, any::<u8>(), prop_oneof![Just(0), Just(1), Just(3), any::<u8>()], content).prop_map(
            |(kind, flags, stream, content)| {
                let len = u8::try_from(content.len()).unwrap();
                [vec![0, 0, len, kind, flags, 0, 0, 0, stream], content].concat()
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, rng_seed: RngSeed::Fixed(0x5eed), ..ProptestConfig::default() })]

        #[test]
        fn any_frames(how: u8, frames in proptest::collection::vec(frame(), 0..12), cut in 0..60_usize) {
            let mut bytes = frames.concat();
            bytes.truncate(bytes.len().saturating_sub(cut.saturating_sub(40)));
            exchange_frames(&[vec![how], bytes].concat());
        }

        #[test]
        fn any_messages(piece: u8, messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..6), rest in proptest::collection::vec(any::<u8>(), 0..10)) {
            let framed = messages.iter().flat_map(|message| frame_message(message).to_vec());
            read_messages(&[vec![piece], framed.collect(), rest].concat());
        }

        #[test]
        fn any_blocks(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            decode_header_blocks(&[vec![20, 0], bytes].concat());
        }
    }
}
