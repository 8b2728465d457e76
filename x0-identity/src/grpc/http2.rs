//! One connection of HTTP/2 (RFC 9113), either side, without I/O.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::vec::Vec;

use super::frame::{
    self, ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, ErrorCode, FRAME_LEN_MAX, Frame, GOAWAY, HEADERS,
    PING, PREFACE, PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, SETTINGS_ENABLE_PUSH,
    SETTINGS_INITIAL_WINDOW_SIZE, SETTINGS_MAX_CONCURRENT_STREAMS, SETTINGS_MAX_FRAME_SIZE,
    SETTINGS_MAX_HEADER_LIST_SIZE, WINDOW_UPDATE, WITH_PRIORITY,
};
use super::hpack::{self, Decoder, Field};
use super::stream::{End, Next, Stream};

/// The default of §6.9.2, for connections and streams. Ours is never another.
const WINDOW: u32 = 65_535;
const WINDOW_MAX: i64 = (1 << 31) - 1;

/// A header block, compressed: its length in bytes, and the frames that it may be cut into.
const BLOCK_LEN_MAX: usize = 32_768;
const BLOCK_FRAMES_MAX: usize = 16;

/// Answers (to settings, pings, windows) that the peer has not taken yet, in bytes. A peer that sends more
/// of what must be answered than it reads is cut off.
const CONTROL_LEN_MAX: usize = 128 * 1024;

/// How many bytes [`Http2::poll_output`] gives at once, unless answers are longer.
const OUTPUT_LEN: usize = 32_768;

/// Streams that were reset, by the peer or for its errors, that are forgiven per second, and at once: each
/// costs work for nothing ("rapid reset", CVE-2023-44487 and CVE-2025-8671).
const RESETS_PER_SECOND: u32 = 20;
const RESETS_MAX: u32 = 200;

/// The bounds of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Streams that the peer may have open.
    pub(crate) streams_max: usize,
    /// The length of a list of fields, as RFC 9113 §6.5.2 counts it.
    pub(crate) field_list_len_max: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Client,
    Server,
}

/// The fields of a request, a response, or trailers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fields(Vec<Field>);

impl Fields {
    /// The value of the only field of a name. `None` as well if there are several.
    pub(crate) fn get(&self, name: &str) -> Option<&[u8]> {
        let mut values = self.0.iter().filter(|field| field.name == name.as_bytes());
        values.next().filter(|_| values.next().is_none()).map(|field| &field.value[..])
    }
}

/// What a peer did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Fields came: of a request, of a response, or trailers.
    Fields { stream: u32, fields: Fields, end: bool },
    /// A list of fields was too long; its content is lost.
    FieldsTooLong { stream: u32, end: bool },
    /// Data came.
    Data { stream: u32, bytes: Vec<u8>, end: bool },
    /// The stream ended before its time. It is gone.
    Reset { stream: u32 },
    /// The peer opens no further streams, and takes none.
    GoAway,
}

#[derive(Debug)]
struct Block {
    stream: u32,
    end: bool,
    bytes: Vec<u8>,
    frames: usize,
}

/// One side of a connection.
#[derive(Debug)]
pub(crate) struct Http2 {
    role: Role,
    limits: Limits,
    input: Vec<u8>,
    preface: &'static [u8],
    settings_came: bool,
    control: Vec<u8>,
    decoder: Decoder,
    block: Option<Block>,
    streams: BTreeMap<u32, Stream>,
    /// The newest stream of the client.
    newest: u32,
    served: u32,
    window: i64,
    received: u32,
    peer_window: i64,
    peer_frame_len: usize,
    peer_streams_max: u32,
    resets: u32,
    resets_since: Duration,
    going_away: bool,
    failed: Option<ErrorCode>,
    events: VecDeque<Event>,
}

impl Http2 {
    /// The side that accepted the connection.
    pub(crate) fn server(limits: Limits) -> Http2 {
        let mut http = Http2::new(Role::Server, limits, PREFACE);
        let streams_max = u32::try_from(limits.streams_max).unwrap_or(u32::MAX);
        let list_len_max = u32::try_from(limits.field_list_len_max).unwrap_or(u32::MAX);
        let settings =
            [(SETTINGS_MAX_CONCURRENT_STREAMS, streams_max), (SETTINGS_MAX_HEADER_LIST_SIZE, list_len_max)];
        frame::put_settings(&mut http.control, &settings);
        http
    }

    /// The side that opened the connection.
    pub(crate) fn client(limits: Limits) -> Http2 {
        let mut http = Http2::new(Role::Client, limits, &[]);
        http.control.extend(PREFACE);
        let list_len_max = u32::try_from(limits.field_list_len_max).unwrap_or(u32::MAX);
        let settings = [(SETTINGS_ENABLE_PUSH, 0), (SETTINGS_MAX_HEADER_LIST_SIZE, list_len_max)];
        frame::put_settings(&mut http.control, &settings);
        http
    }

    fn new(role: Role, limits: Limits, preface: &'static [u8]) -> Http2 {
        Http2 {
            role,
            limits,
            input: Vec::new(),
            preface,
            settings_came: false,
            control: Vec::new(),
            decoder: Decoder::default(),
            block: None,
            streams: BTreeMap::new(),
            newest: 0,
            served: 0,
            window: WINDOW.into(),
            received: 0,
            peer_window: WINDOW.into(),
            peer_frame_len: FRAME_LEN_MAX,
            // §6.5.2: no limit, until the peer sets one.
            peer_streams_max: u32::MAX,
            resets: 0,
            resets_since: Duration::ZERO,
            going_away: false,
            failed: None,
            events: VecDeque::new(),
        }
    }

    /// Takes bytes of the peer. After an error the connection only sends: take the output, then close.
    pub(crate) fn receive(&mut self, now: Duration, bytes: &[u8]) -> Result<(), ErrorCode> {
        if let Some(code) = self.failed {
            return Err(code);
        }
        self.input.extend(bytes);
        let input = core::mem::take(&mut self.input);
        let mut rest = &input[..];
        let result = self.receive_frames(now, &mut rest);
        if let Err(code) = result {
            self.fail(code);
            return Err(code);
        }
        self.input = rest.to_vec();
        Ok(())
    }

    fn receive_frames(&mut self, now: Duration, rest: &mut &[u8]) -> Result<(), ErrorCode> {
        // §3.4.
        let len = self.preface.len().min(rest.len());
        let (begin, after) = rest.split_at(len);
        if begin != &self.preface[..len] {
            return Err(ErrorCode::Protocol);
        }
        self.preface = &self.preface[len..];
        *rest = after;
        if !self.preface.is_empty() {
            return Ok(());
        }
        while let Some((frame, len)) = Frame::read(rest)? {
            self.receive_frame(now, frame)?;
            *rest = &rest[len..];
            if self.control.len() > CONTROL_LEN_MAX {
                return Err(ErrorCode::EnhanceYourCalm);
            }
        }
        Ok(())
    }

    /// Ends the connection: the peer learns why, and nothing else is sent.
    pub(crate) fn fail(&mut self, code: ErrorCode) {
        if self.failed.is_none() {
            self.failed = Some(code);
            self.streams.clear();
            frame::put_go_away(&mut self.control, self.newest, code);
        }
    }

    /// Whether the connection has ended.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    fn receive_frame(&mut self, now: Duration, frame: Frame<'_>) -> Result<(), ErrorCode> {
        if let Some(block) = self.block.take() {
            // §6.10: nothing comes between the parts of a block.
            if frame.kind != CONTINUATION || frame.stream != block.stream {
                return Err(ErrorCode::Protocol);
            }
            return self.receive_block(now, block, frame.payload, frame.has(END_HEADERS));
        }
        if !self.settings_came && (frame.kind != SETTINGS || frame.has(ACK)) {
            return Err(ErrorCode::Protocol);
        }
        match frame.kind {
            DATA => self.receive_data(now, frame),
            HEADERS => self.receive_headers(now, frame),
            PRIORITY => match (frame.stream, frame.payload.len()) {
                (0, _) => Err(ErrorCode::Protocol),
                (_, 5) => Ok(()),
                _ => Err(ErrorCode::FrameSize),
            },
            RST_STREAM => self.receive_reset(now, frame),
            SETTINGS => self.receive_settings(frame),
            // We push nothing, and allow no push.
            PUSH_PROMISE | CONTINUATION => Err(ErrorCode::Protocol),
            PING => self.receive_ping(frame),
            GOAWAY => {
                if frame.stream != 0 {
                    return Err(ErrorCode::Protocol);
                }
                if frame.payload.len() < 8 {
                    return Err(ErrorCode::FrameSize);
                }
                self.going_away = true;
                self.events.push_back(Event::GoAway);
                Ok(())
            }
            WINDOW_UPDATE => self.receive_window(now, frame),
            // §4.1: frames of unknown types are ignored.
            _ => Ok(()),
        }
    }

    /// §5.1: the peer must not name a stream that nobody opened.
    fn is_idle(&self, stream: u32) -> bool {
        stream > self.newest || stream.is_multiple_of(2)
    }

    fn receive_data(&mut self, now: Duration, frame: Frame<'_>) -> Result<(), ErrorCode> {
        if frame.stream == 0 || self.is_idle(frame.stream) {
            return Err(ErrorCode::Protocol);
        }
        let bytes = frame.unpadded()?;
        // §6.9: padding counts.
        let len = u32::try_from(frame.payload.len()).map_err(|_| ErrorCode::FrameSize)?;
        self.received += len;
        if self.received > WINDOW {
            return Err(ErrorCode::FlowControl);
        }
        if self.received > WINDOW / 2 {
            frame::put_window(&mut self.control, 0, core::mem::take(&mut self.received));
        }
        // A stream that was reset: what was on the way is dropped.
        let Some(stream) = self.streams.get_mut(&frame.stream) else { return Ok(()) };
        if stream.recv_closed {
            return self.fail_stream(now, frame.stream, ErrorCode::StreamClosed);
        }
        stream.received += len;
        if stream.received > WINDOW {
            return self.fail_stream(now, frame.stream, ErrorCode::FlowControl);
        }
        let end = frame.has(END_STREAM);
        stream.recv_closed = end;
        if !end && stream.received > WINDOW / 2 {
            frame::put_window(&mut self.control, frame.stream, core::mem::take(&mut stream.received));
        }
        self.events.push_back(Event::Data { stream: frame.stream, bytes: bytes.to_vec(), end });
        self.remove_if_closed(frame.stream);
        Ok(())
    }

    fn receive_headers(&mut self, now: Duration, frame: Frame<'_>) -> Result<(), ErrorCode> {
        let mut payload = frame.unpadded()?;
        if frame.has(WITH_PRIORITY) {
            payload = payload.get(5..).ok_or(ErrorCode::FrameSize)?;
        }
        let is_new = match self.role {
            // §5.1.1: streams of a client have odd numbers that grow.
            Role::Server if frame.stream.is_multiple_of(2) => return Err(ErrorCode::Protocol),
            Role::Server => frame.stream > self.newest,
            Role::Client if frame.stream == 0 || self.is_idle(frame.stream) => {
                return Err(ErrorCode::Protocol);
            }
            Role::Client => false,
        };
        if is_new {
            self.newest = frame.stream;
        }
        let block = Block { stream: frame.stream, end: frame.has(END_STREAM), bytes: Vec::new(), frames: 0 };
        if is_new && !self.going_away && self.streams.len() < self.limits.streams_max {
            self.streams.insert(frame.stream, Stream::new(self.peer_window));
        } else if is_new {
            frame::put_reset(&mut self.control, frame.stream, ErrorCode::RefusedStream);
        }
        self.receive_block(now, block, payload, frame.has(END_HEADERS))
    }

    fn receive_block(
        &mut self,
        now: Duration,
        mut block: Block,
        part: &[u8],
        end: bool,
    ) -> Result<(), ErrorCode> {
        block.bytes.extend(part);
        block.frames += 1;
        if block.bytes.len() > BLOCK_LEN_MAX || block.frames > BLOCK_FRAMES_MAX {
            return Err(ErrorCode::EnhanceYourCalm);
        }
        if !end {
            self.block = Some(block);
            return Ok(());
        }
        // Blocks of streams that are gone are decoded as well: the table is that of the connection.
        let list = self.decoder.decode(&block.bytes, self.limits.field_list_len_max);
        let list = list.map_err(|_| ErrorCode::Compression)?;
        let id = block.stream;
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        if stream.recv_closed {
            return self.fail_stream(now, id, ErrorCode::StreamClosed);
        }
        let kind = match (stream.fields_came, self.role) {
            (true, _) => Kind::Trailers,
            (false, Role::Server) => Kind::Request,
            (false, Role::Client) => Kind::Response,
        };
        if !list.too_long && !is_well_formed(&list.fields, kind) || kind == Kind::Trailers && !block.end {
            return self.fail_stream(now, id, ErrorCode::Protocol);
        }
        let fields = Fields(list.fields);
        // §8.1: interim responses come before the response.
        let interim = kind == Kind::Response
            && !block.end
            && fields.get(":status").is_some_and(|status| status.starts_with(b"1"));
        if interim {
            return Ok(());
        }
        stream.fields_came = true;
        stream.recv_closed = block.end;
        self.events.push_back(if list.too_long {
            Event::FieldsTooLong { stream: id, end: block.end }
        } else {
            Event::Fields { stream: id, fields, end: block.end }
        });
        self.remove_if_closed(id);
        Ok(())
    }

    fn receive_reset(&mut self, now: Duration, frame: Frame<'_>) -> Result<(), ErrorCode> {
        if frame.payload.len() != 4 {
            return Err(ErrorCode::FrameSize);
        }
        if frame.stream == 0 || self.is_idle(frame.stream) {
            return Err(ErrorCode::Protocol);
        }
        if self.streams.remove(&frame.stream).is_some() {
            self.events.push_back(Event::Reset { stream: frame.stream });
            self.count_reset(now)?;
        }
        Ok(())
    }

    fn receive_settings(&mut self, frame: Frame<'_>) -> Result<(), ErrorCode> {
        if frame.stream != 0 {
            return Err(ErrorCode::Protocol);
        }
        if frame.has(ACK) {
            return if frame.payload.is_empty() { Ok(()) } else { Err(ErrorCode::FrameSize) };
        }
        let (settings, rest) = frame.payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(ErrorCode::FrameSize);
        }
        self.settings_came = true;
        for [n0, n1, v0, v1, v2, v3] in settings {
            let value = u32::from_be_bytes([*v0, *v1, *v2, *v3]);
            match u16::from_be_bytes([*n0, *n1]) {
                SETTINGS_ENABLE_PUSH if value > 1 => return Err(ErrorCode::Protocol),
                SETTINGS_MAX_CONCURRENT_STREAMS => self.peer_streams_max = value,
                SETTINGS_INITIAL_WINDOW_SIZE => self.change_windows(value.into())?,
                SETTINGS_MAX_FRAME_SIZE => {
                    let len = usize::try_from(value).map_err(|_| ErrorCode::Protocol)?;
                    if !(FRAME_LEN_MAX..1 << 24).contains(&len) {
                        return Err(ErrorCode::Protocol);
                    }
                    // Frames of the default length are enough for us.
                    self.peer_frame_len = FRAME_LEN_MAX;
                }
                // The size of a table that our encoder does not use, and unknown settings (§6.5.2).
                _ => {}
            }
        }
        frame::put(&mut self.control, SETTINGS, ACK, 0, &[]);
        Ok(())
    }

    /// §6.9.2: streams that are open get the difference.
    fn change_windows(&mut self, window: i64) -> Result<(), ErrorCode> {
        if window > WINDOW_MAX {
            return Err(ErrorCode::FlowControl);
        }
        let difference = window - self.peer_window;
        self.peer_window = window;
        for stream in self.streams.values_mut() {
            stream.window += difference;
            if stream.window > WINDOW_MAX {
                return Err(ErrorCode::FlowControl);
            }
        }
        Ok(())
    }

    fn receive_ping(&mut self, frame: Frame<'_>) -> Result<(), ErrorCode> {
        if frame.stream != 0 {
            return Err(ErrorCode::Protocol);
        }
        if frame.payload.len() != 8 {
            return Err(ErrorCode::FrameSize);
        }
        if !frame.has(ACK) {
            frame::put(&mut self.control, PING, ACK, 0, frame.payload);
        }
        Ok(())
    }

    fn receive_window(&mut self, now: Duration, frame: Frame<'_>) -> Result<(), ErrorCode> {
        let payload: [u8; 4] = frame.payload.try_into().map_err(|_| ErrorCode::FrameSize)?;
        let increment = i64::from(u32::from_be_bytes(payload) & 0x7fff_ffff);
        if frame.stream == 0 {
            self.window += increment;
            return match increment {
                0 => Err(ErrorCode::Protocol),
                _ if self.window > WINDOW_MAX => Err(ErrorCode::FlowControl),
                _ => Ok(()),
            };
        }
        if self.is_idle(frame.stream) {
            return Err(ErrorCode::Protocol);
        }
        let Some(stream) = self.streams.get_mut(&frame.stream) else { return Ok(()) };
        stream.window += increment;
        if increment == 0 {
            return self.fail_stream(now, frame.stream, ErrorCode::Protocol);
        }
        if stream.window > WINDOW_MAX {
            return self.fail_stream(now, frame.stream, ErrorCode::FlowControl);
        }
        Ok(())
    }

    /// Ends a stream for an error of the peer.
    fn fail_stream(&mut self, now: Duration, stream: u32, code: ErrorCode) -> Result<(), ErrorCode> {
        self.reset(stream, code);
        self.events.push_back(Event::Reset { stream });
        self.count_reset(now)
    }

    fn count_reset(&mut self, now: Duration) -> Result<(), ErrorCode> {
        let forgiven = now.saturating_sub(self.resets_since).as_secs();
        if forgiven > 0 {
            self.resets_since = now;
            let forgiven = u32::try_from(forgiven).unwrap_or(u32::MAX).saturating_mul(RESETS_PER_SECOND);
            self.resets = self.resets.saturating_sub(forgiven);
        }
        self.resets += 1;
        // A client counts as well: a server that resets everything is of no use.
        if self.resets > RESETS_MAX { Err(ErrorCode::EnhanceYourCalm) } else { Ok(()) }
    }

    /// Ends a stream at once, in both directions. No event follows.
    pub(crate) fn reset(&mut self, stream: u32, code: ErrorCode) {
        if self.streams.remove(&stream).is_some() {
            frame::put_reset(&mut self.control, stream, code);
        }
    }

    /// A stream that is closed in both directions is forgotten.
    fn remove_if_closed(&mut self, id: u32) {
        if let Some(stream) = self.streams.get(&id)
            && stream.recv_closed
            && self.role == Role::Client
            && stream.is_sent()
        {
            self.streams.remove(&id);
        }
    }

    /// The next event, until `None`.
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Opens a stream with a request of one message. `None`, when the peer allows no further stream now.
    pub(crate) fn open<'a>(
        &mut self,
        fields: impl IntoIterator<Item = (&'a str, &'a str)>,
        message: Arc<[u8]>,
    ) -> Option<u32> {
        let open = u32::try_from(self.streams.len()).unwrap_or(u32::MAX);
        let newest = if self.newest == 0 { 1 } else { self.newest.checked_add(2)? };
        if self.going_away || self.failed.is_some() || open >= self.peer_streams_max || newest >= 1 << 31 {
            return None;
        }
        self.newest = newest;
        let mut stream = Stream::new(self.peer_window);
        stream.send(message);
        stream.end(End::Data, false);
        self.streams.insert(newest, stream);
        frame::put_headers(&mut self.control, newest, &hpack::encode(fields), false);
        Some(newest)
    }

    /// Sends the fields of a response. With `end` they are all of it.
    pub(crate) fn respond<'a>(
        &mut self,
        id: u32,
        fields: impl IntoIterator<Item = (&'a str, &'a str)>,
        end: bool,
    ) {
        let block = hpack::encode(fields);
        if let Some(stream) = self.streams.get_mut(&id) {
            if end {
                stream.end(End::Trailers(block), true);
            } else {
                frame::put_headers(&mut self.control, id, &block, false);
            }
        }
    }

    /// Sends a message. It takes the place of one that has not begun.
    pub(crate) fn send(&mut self, id: u32, message: Arc<[u8]>) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.send(message);
        }
    }

    /// Ends a response. With `drop_messages`, a message that has not begun is not sent.
    pub(crate) fn finish<'a>(
        &mut self,
        id: u32,
        trailers: impl IntoIterator<Item = (&'a str, &'a str)>,
        drop_messages: bool,
    ) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.end(End::Trailers(hpack::encode(trailers)), drop_messages);
        }
    }

    /// Opens and takes no further streams. Those that are open go on.
    pub(crate) fn go_away(&mut self) {
        if !self.going_away {
            self.going_away = true;
            frame::put_go_away(&mut self.control, self.newest, ErrorCode::NoError);
        }
    }

    /// Whether no stream is open.
    pub(crate) fn is_unused(&self) -> bool {
        self.streams.is_empty()
    }

    /// Whether the peer has proved that it speaks HTTP/2.
    pub(crate) fn has_begun(&self) -> bool {
        self.settings_came
    }

    /// Bytes to send, until `None`. Take them only when the ones before are sent: what is not taken is
    /// replaced by what is newer.
    pub(crate) fn poll_output(&mut self) -> Option<Vec<u8>> {
        let mut out = core::mem::take(&mut self.control);
        while out.len() < OUTPUT_LEN && self.put_next(&mut out) {}
        (!out.is_empty()).then_some(out)
    }

    /// Appends the next frame of the stream whose turn it is.
    fn put_next(&mut self, out: &mut Vec<u8>) -> bool {
        let window = self.window;
        let after = self.streams.range(self.served + 1..).chain(self.streams.range(..=self.served));
        let ready = after.into_iter().find(|(_, stream)| stream.is_ready(window)).map(|(id, _)| *id);
        let Some(id) = ready else { return false };
        let Some(stream) = self.streams.get_mut(&id) else { return false };
        self.served = id;
        let allowed = usize::try_from(stream.window.min(window)).unwrap_or(0).min(self.peer_frame_len);
        let ended = match stream.take_next(allowed) {
            None => return false,
            Some(Next::Data { bytes, end }) => {
                // At most a frame's length.
                let len = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
                stream.window -= len;
                self.window -= len;
                frame::put(out, DATA, if end { END_STREAM } else { 0 }, id, &bytes);
                end
            }
            Some(Next::Trailers(block)) => {
                frame::put_headers(out, id, &block, true);
                true
            }
        };
        if ended && (stream.recv_closed || self.role == Role::Server) {
            // §8.1: a complete response to a request that is not complete.
            if !stream.recv_closed {
                frame::put_reset(out, id, ErrorCode::NoError);
            }
            self.streams.remove(&id);
        }
        true
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Request,
    Response,
    Trailers,
}

/// §8.2 and §8.3, except for the value of `:authority`: clients of gRPC send the path of the socket.
fn is_well_formed(fields: &[Field], kind: Kind) -> bool {
    let known: &[&[u8]] = match kind {
        Kind::Request => &[b":method", b":scheme", b":path", b":authority"],
        Kind::Response => &[b":status"],
        Kind::Trailers => &[],
    };
    let mandatory = known.iter().filter(|name| **name != b":authority");
    let count = |name: &[u8]| fields.iter().filter(|field| field.name == name).count();
    let pseudo = fields.iter().take_while(|field| field.name.starts_with(b":"));
    let (pseudo, regular) = fields.split_at(pseudo.count());
    pseudo.iter().all(|field| known.contains(&&field.name[..]) && count(&field.name) == 1)
        && mandatory.clone().all(|name| count(name) == 1)
        && regular.iter().all(|field| is_name(&field.name) && !is_connection_specific(field))
        && fields.iter().all(|field| is_value(&field.value))
}

/// A token (RFC 9110 §5.6.2) without capitals.
fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name
            .iter()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9') || b"!#$%&'*+-.^_`|~".contains(byte))
}

fn is_value(value: &[u8]) -> bool {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    !blank(value.first())
        && !blank(value.last())
        && !value.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n'))
}

/// §8.2.2.
fn is_connection_specific(field: &Field) -> bool {
    matches!(
        &field.name[..],
        b"connection" | b"proxy-connection" | b"keep-alive" | b"transfer-encoding" | b"upgrade"
    ) || field.name == b"te" && field.value != b"trailers"
}
