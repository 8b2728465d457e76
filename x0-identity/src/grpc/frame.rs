//! Frames of HTTP/2 (RFC 9113 §4 and §6).

use std::vec::Vec;

/// What a client sends first (§3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The longest payload that is accepted: the default of §6.5.2, and the smallest that a peer may set.
pub(super) const FRAME_LEN_MAX: usize = 16_384;

pub(super) const HEADER_LEN: usize = 9;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 0x1;
pub(super) const ACK: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;
pub(super) const PADDED: u8 = 0x8;
pub(super) const WITH_PRIORITY: u8 = 0x20;

pub(super) const SETTINGS_ENABLE_PUSH: u16 = 2;
pub(super) const SETTINGS_MAX_CONCURRENT_STREAMS: u16 = 3;
pub(super) const SETTINGS_INITIAL_WINDOW_SIZE: u16 = 4;
pub(super) const SETTINGS_MAX_FRAME_SIZE: u16 = 5;
pub(super) const SETTINGS_MAX_HEADER_LIST_SIZE: u16 = 6;

/// An error code (§7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorCode {
    NoError = 0,
    Protocol = 1,
    FlowControl = 3,
    StreamClosed = 5,
    FrameSize = 6,
    RefusedStream = 7,
    Cancel = 8,
    Compression = 9,
    EnhanceYourCalm = 11,
}

impl ErrorCode {
    /// The name in RFC 9113 §7.
    pub(crate) fn name(self) -> &'static str {
        match self {
            ErrorCode::NoError => "NO_ERROR",
            ErrorCode::Protocol => "PROTOCOL_ERROR",
            ErrorCode::FlowControl => "FLOW_CONTROL_ERROR",
            ErrorCode::StreamClosed => "STREAM_CLOSED",
            ErrorCode::FrameSize => "FRAME_SIZE_ERROR",
            ErrorCode::RefusedStream => "REFUSED_STREAM",
            ErrorCode::Cancel => "CANCEL",
            ErrorCode::Compression => "COMPRESSION_ERROR",
            ErrorCode::EnhanceYourCalm => "ENHANCE_YOUR_CALM",
        }
    }
}

/// A frame whose payload is complete.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame<'a> {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The frame at the beginning of the bytes and its length, or `None` if it is not complete.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Option<(Frame<'a>, usize)>, ErrorCode> {
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER_LEN>() else { return Ok(None) };
        let [len @ .., kind, flags, s0, s1, s2, s3] = *header;
        let len = len.iter().fold(0, |len, byte| len << 8 | usize::from(*byte));
        if len > FRAME_LEN_MAX {
            return Err(ErrorCode::FrameSize);
        }
        // §4.1: the reserved bit is ignored.
        let stream = u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]);
        let Some(payload) = rest.get(..len) else { return Ok(None) };
        Ok(Some((Frame { kind, flags, stream, payload }, HEADER_LEN + len)))
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The payload without its padding (§6.1, §6.2).
    pub(super) fn unpadded(&self) -> Result<&'a [u8], ErrorCode> {
        if !self.has(PADDED) {
            return Ok(self.payload);
        }
        let (&padding, content) = self.payload.split_first().ok_or(ErrorCode::FrameSize)?;
        let len = content.len().checked_sub(usize::from(padding)).ok_or(ErrorCode::Protocol)?;
        Ok(&content[..len])
    }
}

/// Appends a frame. Payloads are at most [`FRAME_LEN_MAX`] long.
pub(super) fn put(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    out.extend([len[1], len[2], len[3], kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
}

/// Appends a header block as a frame and its continuations.
pub(super) fn put_headers(out: &mut Vec<u8>, stream: u32, block: &[u8], end_stream: bool) {
    let mut parts = block.chunks(FRAME_LEN_MAX).peekable();
    let mut kind = HEADERS;
    let mut flags = if end_stream { END_STREAM } else { 0 };
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            flags |= END_HEADERS;
        }
        put(out, kind, flags, stream, part);
        (kind, flags) = (CONTINUATION, 0);
    }
}

pub(super) fn put_reset(out: &mut Vec<u8>, stream: u32, code: ErrorCode) {
    put(out, RST_STREAM, 0, stream, &(code as u32).to_be_bytes());
}

pub(super) fn put_window(out: &mut Vec<u8>, stream: u32, increment: u32) {
    put(out, WINDOW_UPDATE, 0, stream, &increment.to_be_bytes());
}

pub(super) fn put_go_away(out: &mut Vec<u8>, last_stream: u32, code: ErrorCode) {
    let mut payload = last_stream.to_be_bytes().to_vec();
    payload.extend((code as u32).to_be_bytes());
    put(out, GOAWAY, 0, 0, &payload);
}

pub(super) fn put_settings(out: &mut Vec<u8>, settings: &[(u16, u32)]) {
    let payload: Vec<u8> = settings
        .iter()
        .flat_map(|(name, value)| name.to_be_bytes().into_iter().chain(value.to_be_bytes()))
        .collect();
    put(out, SETTINGS, 0, 0, &payload);
}
