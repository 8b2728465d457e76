//! A client of HTTP/2 that sends whatever a test says, and reads frames by itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use x0_identity::workload_api::{ServerConnection, ServerInput, ServerOptions, ServerOutput, Workload};

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn new(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Frame {
        Frame { kind, flags, stream, payload: payload.to_vec() }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let len = u32::try_from(self.payload.len()).unwrap().to_be_bytes();
        let mut bytes = vec![len[1], len[2], len[3], self.kind, self.flags];
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    pub(crate) fn number(&self) -> u32 {
        u32::from_be_bytes(self.payload[self.payload.len() - 4..].try_into().unwrap())
    }
}

pub(crate) fn frames(mut bytes: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let len = usize::from(bytes[0]) << 16 | usize::from(bytes[1]) << 8 | usize::from(bytes[2]);
        let stream = u32::from_be_bytes(bytes[5..9].try_into().unwrap());
        frames.push(Frame::new(bytes[3], bytes[4], stream, &bytes[9..9 + len]));
        bytes = &bytes[9 + len..];
    }
    frames
}

/// Literals without indexing and without Huffman codes.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127 + 128, "a length of at most two bytes");
            match u8::try_from(text.len()) {
                Ok(len @ 0..127) => block.push(len),
                _ => block.extend([127, u8::try_from(text.len() - 127).unwrap()]),
            }
            block.extend(text.as_bytes());
        }
    }
    block
}

/// The fields that our server sends: literals, and the few entries of the static table that it uses.
pub(crate) fn read_block(block: &[u8]) -> BTreeMap<String, String> {
    let names = [(8, ":status"), (31, "content-type")];
    let mut fields = BTreeMap::new();
    assert_eq!(block[0], 0x20, "the encoder gives up the table");
    let mut rest = &block[1..];
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        let mut text = || {
            let (mut len, mut from) = (usize::from(rest[0]), 1);
            if len == 127 {
                len += usize::from(rest[1]);
                from = 2;
            }
            let text = String::from_utf8(rest[from..from + len].to_vec()).unwrap();
            rest = &rest[from + len..];
            text
        };
        let field = match first {
            0x88 => (":status".into(), "200".into()),
            0 => (text(), text()),
            index => {
                let index = if index == 15 {
                    15 + {
                        let more = rest[0];
                        rest = &rest[1..];
                        more
                    }
                } else {
                    index
                };
                let name = names.iter().find(|(known, _)| *known == index).unwrap().1;
                let (len, from) = (usize::from(rest[0]), 1);
                let value = String::from_utf8(rest[from..from + len].to_vec()).unwrap();
                rest = &rest[from + len..];
                (name.to_string(), value)
            }
        };
        fields.insert(field.0, field.1);
    }
    fields
}

pub(crate) fn message(bytes: &[u8]) -> Vec<u8> {
    let mut framed = vec![0];
    framed.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
    framed.extend(bytes);
    framed
}

/// The fields of a call, as clients of gRPC core send them: with the path of the socket as `:authority`.
pub(crate) fn call_fields(path: &str) -> Vec<(&str, &str)> {
    vec![
        (":scheme", "http"),
        (":method", "POST"),
        (":authority", "%2Frun%2Fagent.sock"),
        (":path", path),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "grpc-python/1.85.3 grpc-c/55.0.0 (linux; chttp2)"),
        ("workload.spiffe.io", "true"),
    ]
}

/// What a stream received.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) fields: BTreeMap<String, String>,
    pub(crate) messages: Vec<Vec<u8>>,
    pub(crate) data: Vec<u8>,
    pub(crate) ended: bool,
    pub(crate) reset: Option<u32>,
}

impl Received {
    pub(crate) fn status(&self) -> Option<u32> {
        self.fields.get("grpc-status").map(|status| status.parse().unwrap())
    }
}

/// A raw client and the engine of a server, in virtual time.
pub(crate) struct Raw {
    pub(crate) server: ServerConnection,
    pub(crate) now: Duration,
    pub(crate) streams: BTreeMap<u32, Received>,
    /// Frames of the connection.
    pub(crate) control: Vec<Frame>,
    pub(crate) closed: bool,
    next: u32,
}

impl Raw {
    /// A connection whose client has sent nothing.
    pub(crate) fn silent(options: &ServerOptions) -> Raw {
        Raw {
            server: ServerConnection::new(options, Duration::ZERO),
            now: Duration::ZERO,
            streams: BTreeMap::new(),
            control: Vec::new(),
            closed: false,
            next: 1,
        }
    }

    /// A connection whose client has sent its preface and settings.
    pub(crate) fn new(workload: Option<Workload>) -> Raw {
        let mut raw = Raw::silent(&ServerOptions::default());
        raw.set(workload);
        raw.send(PREFACE);
        raw.frame(SETTINGS, 0, 0, &[]);
        raw.frame(SETTINGS, ACK, 0, &[]);
        raw.frame(WINDOW_UPDATE, 0, 0, &0x7fff_0000_u32.to_be_bytes());
        raw
    }

    pub(crate) fn set(&mut self, workload: Option<Workload>) {
        self.server.handle(self.now, ServerInput::Workload(workload.map(Arc::new))).unwrap();
        self.pump();
    }

    /// Errors are seen as frames of the server.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _ = self.server.handle(self.now, ServerInput::Bytes(bytes));
        self.pump();
    }

    pub(crate) fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.send(&Frame::new(kind, flags, stream, payload).bytes());
    }

    pub(crate) fn input(&mut self, input: ServerInput<'_>) {
        let _ = self.server.handle(self.now, input);
        self.pump();
    }

    /// Jumps to the next wake-up, and returns whether there is one.
    pub(crate) fn wake(&mut self) -> bool {
        let Some(due) = self.server.poll_timeout() else { return false };
        self.now = self.now.max(due);
        self.input(ServerInput::Timeout);
        true
    }

    /// Opens a stream with these fields and returns its number.
    pub(crate) fn open(&mut self, fields: &[(&str, &str)], end: bool) -> u32 {
        let stream = self.next;
        self.next += 2;
        let flags = END_HEADERS | if end { END_STREAM } else { 0 };
        self.frame(HEADERS, flags, stream, &block(fields));
        stream
    }

    /// A whole call, and what came of it.
    pub(crate) fn call(&mut self, path: &str, request: &[u8]) -> u32 {
        let stream = self.open(&call_fields(path), false);
        self.frame(DATA, END_STREAM, stream, &message(request));
        stream
    }

    pub(crate) fn received(&self, stream: u32) -> Received {
        self.streams.get(&stream).cloned().unwrap_or_default()
    }

    /// The code of the server's GOAWAY.
    pub(crate) fn go_away(&self) -> Option<u32> {
        self.control.iter().find(|frame| frame.kind == GOAWAY).map(Frame::number)
    }

    pub(crate) fn pump(&mut self) {
        while let Some(output) = self.server.poll_output() {
            match output {
                ServerOutput::Send(bytes) => frames(&bytes).into_iter().for_each(|frame| self.take(frame)),
                ServerOutput::Jwt(request) => {
                    let answer = request.answer(SystemTime::now());
                    self.server.handle(self.now, ServerInput::Answer(answer)).unwrap();
                }
                ServerOutput::Close => self.closed = true,
                other => panic!("{other:?}"),
            }
        }
    }

    fn take(&mut self, frame: Frame) {
        if frame.stream == 0 {
            return self.control.push(frame);
        }
        let received = self.streams.entry(frame.stream).or_default();
        assert!(!received.ended || frame.kind == RST_STREAM, "{frame:?} after the end");
        match frame.kind {
            HEADERS => received.fields.extend(read_block(&frame.payload)),
            DATA => {
                received.data.extend(&frame.payload);
                while received.data.len() >= 5 {
                    let len = u32::from_be_bytes(received.data[1..5].try_into().unwrap());
                    let end = 5 + usize::try_from(len).unwrap();
                    if received.data.len() < end {
                        break;
                    }
                    let message: Vec<u8> = received.data.drain(..end).collect();
                    received.messages.push(message[5..].to_vec());
                }
            }
            RST_STREAM => received.reset = Some(frame.number()),
            WINDOW_UPDATE => {}
            kind => panic!("frame {kind} on a stream"),
        }
        received.ended |= matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM != 0;
    }
}
