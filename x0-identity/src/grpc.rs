//! gRPC over HTTP/2 as far as the Workload API needs it, without I/O: frames, header compression, streams
//! with flow control, messages and status codes.
//!
//! The crate has an HTTP/2 of its own because clients of gRPC core and grpc-java send the path of the socket
//! as `:authority`, for which the crate `h2` resets the stream. Everything that a peer makes this module keep
//! is bounded by [`Limits`](http2::Limits) and the constants beside it.

mod frame;
mod hpack;
mod http2;
mod huffman;
mod message;
mod protobuf;
mod status;
mod stream;

pub(crate) use frame::ErrorCode;
pub(crate) use http2::{Event, Fields, Http2, Limits};
pub(crate) use message::{FrameError, Messages, frame_message};
pub use protobuf::DecodeError;
pub(crate) use protobuf::{Reader, Value, Writer, read_entry};
pub use status::{Code, Status};

/// Decodes header blocks with one table, for a fuzz target: each begins with its length in two bytes.
#[cfg(fuzzing)]
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
