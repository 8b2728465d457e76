//! gRPC over HTTP/2 as far as the Workload API needs it, without I/O: frames, header compression, streams
//! with flow control, messages and status codes.
//!
//! The crate has an HTTP/2 of its own because clients of gRPC core and grpc-java send the path of the socket
//! as `:authority`, for which the crate `h2` resets the stream. Everything that a peer makes this module keep
//! is bounded by [`Limits`](http2::Limits) and the constants beside it.

#[cfg(any(fuzzing, test))]
mod arbitrary;
mod frame;
mod hpack;
mod http2;
mod huffman;
mod message;
mod protobuf;
mod status;
mod stream;

#[cfg(fuzzing)]
pub use arbitrary::{decode_header_blocks, exchange_frames, read_messages};
pub(crate) use frame::ErrorCode;
pub(crate) use http2::{Event, Fields, Http2, Limits};
pub(crate) use message::{FrameError, Messages, frame_message};
pub use protobuf::DecodeError;
pub(crate) use protobuf::{Reader, Value, Writer, read_entry};
pub use status::{Code, Status};
