//! Messages from a peer to an exchange that fetches a blob and serves another: it goes on and keeps its
//! bounds, and hands out to be kept only what the blob's name stands for. References from a keyspace: what is
//! read is written in the same way.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use x0_identity::NodeId;
use x0_kv::Bytes;
use x0_kv::blob::{BlobExchange, BlobId, BlobRef, ChunkSet, ExchangeOptions, Holding, ExchangeInput, ExchangeOutput, Piece};

/// The blob that is fetched; short, so that a fuzzer may come upon it.
const WANTED: &[u8] = b"wanted";

fuzz_target!(|data: &[u8]| {
    let payload = Bytes::copy_from_slice(data);
    if let Ok(reference) = BlobRef::decode(&payload) {
        assert_eq!(reference.encode().unwrap(), payload);
    }
    let peer = NodeId::new(1).unwrap();
    let id = BlobId::of(WANTED);
    let options = ExchangeOptions::default();
    let mut exchange = BlobExchange::new(options.clone(), 1);
    let now = Duration::ZERO;
    for input in [
        ExchangeInput::Sources([peer].into()),
        ExchangeInput::Up(peer),
        ExchangeInput::Fetch { id, len: WANTED.len() as u64, holding: None },
    ] {
        exchange.handle(now, input).unwrap();
    }
    // Several messages, each behind its length in two bytes.
    let mut rest = data;
    while let [low, high, after @ ..] = rest {
        let len = usize::from(u16::from_le_bytes([*low, *high])).min(after.len());
        let (message, after) = after.split_at(len);
        let _ = exchange.handle(now, ExchangeInput::Message { from: peer, payload: Bytes::copy_from_slice(message) });
        while let Some(output) = exchange.poll_output() {
            let answer = match output {
                ExchangeOutput::Begin { id: begun, len, .. } => {
                    assert_eq!((begun, len), (id, WANTED.len() as u64));
                    ExchangeInput::Begun { id, chunks: Some(ChunkSet::none(1)) }
                }
                ExchangeOutput::Keep { id: kept, index, piece } => {
                    assert_eq!((kept, index, &piece.bytes[..]), (id, 0, WANTED));
                    ExchangeInput::Kept { id, index, is_kept: true }
                }
                ExchangeOutput::Look { to, id } => {
                    let holding = Holding::new(3 << 18, [7; 32], ChunkSet::none(3));
                    ExchangeInput::Looked { to, id, holding: (id.as_bytes()[0] & 1 == 0).then_some(holding) }
                }
                ExchangeOutput::Read { ticket, index, .. } => {
                    let piece = Piece::new(vec![[1; 32]; 2], Bytes::from_static(b"chunk"));
                    ExchangeInput::Read { ticket, piece: (index < 3).then_some(piece) }
                }
                ExchangeOutput::Send { ticket: Some(ticket), .. } => ExchangeInput::Left { ticket },
                _ => continue,
            };
            exchange.handle(now, answer).unwrap();
        }
        assert!(exchange.asked_chunks() <= options.asked_max);
        assert_eq!(exchange.pending_bytes(), 0);
        rest = after;
    }
});
