//! The server's side of one connection, without I/O.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::string::{String, ToString};
use std::sync::Arc;
use std::vec::Vec;

use rustls::crypto::CryptoProvider;

use super::jwt_request::{JwtAnswer, JwtCall, JwtRequest};
use super::messages::{JwtSvidRequest, ValidateJwtSvidRequest};
use super::method::Method;
use super::secrets::SecretStream;
use super::{ServerOptions, Workload, wit};
use crate::SpiffeId;
use crate::grpc::{
    Code, DecodeError, ErrorCode, Event, Fields, FrameError, Http2, Limits, Messages, Reader, Status,
    frame_message,
};
use crate::telemetry::WorkloadTelemetry;

/// The security header (Workload Endpoint §3).
pub(super) const SECURITY_HEADER: (&str, &str) = ("workload.spiffe.io", "true");

const CONTENT_TYPE: (&str, &str) = ("content-type", "application/grpc");

/// The length of a request's header list, in bytes as RFC 9113 §6.5.2 counts them.
const FIELD_LIST_LEN_MAX: usize = 16 * 1024;

/// An input of a [`ServerConnection`].
#[derive(Debug)]
#[non_exhaustive]
pub enum ServerInput<'a> {
    /// Bytes of the client. Pieces of up to 16 KiB keep what the engine holds in between small.
    Bytes(&'a [u8]),
    /// What the caller is entitled to from now on; `None`, when to nothing. A connection begins with nothing.
    /// Streams receive the messages that change, or end if there is nothing left to send.
    Workload(Option<Arc<Workload>>),
    /// The answer to a [`ServerOutput::Jwt`].
    Answer(JwtAnswer),
    /// The server stops: streams end with `Unavailable`, and the connection closes.
    Shutdown,
    /// The time of [`ServerConnection::poll_timeout`] has come.
    Timeout,
}

/// An output of a [`ServerConnection`].
#[derive(Debug)]
#[non_exhaustive]
pub enum ServerOutput {
    /// Send these bytes.
    Send(Vec<u8>),
    /// Answer this call with [`JwtRequest::answer`] and [`ServerInput::Answer`].
    Jwt(JwtRequest),
    /// Close the connection. No output follows.
    Close,
}

/// The client broke a rule of HTTP/2. The connection sends why, and then closes: take the outputs that are
/// left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client broke HTTP/2 ({rule}): the connection closes; check what connects to the endpoint")]
pub struct ServerHandleError {
    /// The name of the error code (RFC 9113 §7).
    pub rule: &'static str,
}

/// The server's side of one connection to the Workload API: a protocol engine without I/O.
///
/// The engine speaks HTTP/2 and gRPC, checks the security header, answers the calls of the Workload API from
/// the [`Workload`] of the caller, and sends each stream a complete message when that changes. It knows no
/// other method: all others are `Unimplemented`, those of WIT-SVIDs too unless the options have them.
///
/// # Drain contract
/// After each [`ServerConnection::handle`], with or without an error, take outputs until
/// [`ServerConnection::poll_output`] returns `None`, or until the transport takes no more bytes: then take
/// [`ServerOutput::Send`] again when it does. What is not taken is replaced by newer messages, so that a
/// client that does not read costs two messages per stream. Call `handle` with [`ServerInput::Timeout`] when
/// the time of [`ServerConnection::poll_timeout`] has come. `now` is the time since any origin, from a clock
/// that does not go back.
///
/// ```
/// use core::time::Duration;
/// use x0_identity::workload_api::{ServerConnection, ServerInput, ServerOptions, ServerOutput};
///
/// let mut connection = ServerConnection::new(&ServerOptions::default(), Duration::ZERO);
/// // The settings of the server do not wait for the client.
/// assert!(matches!(connection.poll_output(), Some(ServerOutput::Send(_))));
/// assert!(connection.poll_output().is_none());
///
/// assert!(connection.handle(Duration::ZERO, ServerInput::Bytes(b"GET / HTTP/1.1\r\n")).is_err());
/// assert!(matches!(connection.poll_output(), Some(ServerOutput::Send(_)))); // why
/// assert!(matches!(connection.poll_output(), Some(ServerOutput::Close)));
/// ```
#[derive(Debug)]
pub struct ServerConnection {
    http: Http2,
    workload: Option<Arc<Workload>>,
    calls: BTreeMap<u32, Call>,
    jwt: VecDeque<JwtRequest>,
    request_len_max: usize,
    wit_svids: bool,
    provider: Arc<CryptoProvider>,
    handshake_until: Duration,
    idle_max: Duration,
    idle_since: Duration,
    closing: bool,
    closed: bool,
    telemetry: WorkloadTelemetry,
}

/// The message of a stream, with its prefix, or why there is none.
type Streamed = Result<Arc<[u8]>, Status>;

#[derive(Debug)]
struct Call {
    method: Method,
    /// The one SPIFFE ID that a stream of WIT-SVIDs is for, if it is.
    wanted: Option<SpiffeId>,
    state: CallState,
    deadline: Option<Duration>,
}

#[derive(Debug)]
enum CallState {
    /// The request is not complete.
    Reading(Messages),
    /// The driver has the request.
    Waiting,
    /// The message that the client has, or is being sent.
    Streaming(Arc<[u8]>),
    /// Requests and responses follow each other.
    Secrets { messages: Messages, stream: SecretStream, responded: bool },
}

impl Call {
    /// Whether messages follow for as long as it is open.
    fn is_stream(&self) -> bool {
        matches!(self.state, CallState::Streaming(_) | CallState::Secrets { .. })
    }

    /// Whether the fields of the response are sent.
    fn has_response(&self) -> bool {
        match self.state {
            CallState::Reading(_) | CallState::Waiting => false,
            CallState::Streaming(_) => true,
            CallState::Secrets { responded, .. } => responded,
        }
    }
}

impl ServerConnection {
    /// Builds the engine of a connection that was accepted at `now`.
    #[must_use]
    pub fn new(options: &ServerOptions, now: Duration) -> ServerConnection {
        let limits = Limits { streams_max: options.streams_max, field_list_len_max: FIELD_LIST_LEN_MAX };
        ServerConnection {
            http: Http2::server(limits),
            workload: None,
            calls: BTreeMap::new(),
            jwt: VecDeque::new(),
            request_len_max: options.request_len_max,
            wit_svids: options.wit_svids,
            provider: Arc::clone(&options.provider),
            handshake_until: now + options.handshake_max,
            idle_max: options.idle_max,
            idle_since: now,
            closing: false,
            closed: false,
            telemetry: WorkloadTelemetry::new(),
        }
    }

    /// Takes an input.
    ///
    /// # Errors
    /// [`ServerHandleError`], when the client broke a rule of HTTP/2: the connection closes.
    pub fn handle(&mut self, now: Duration, input: ServerInput<'_>) -> Result<(), ServerHandleError> {
        let was_used = !self.http.is_unused();
        let result = match input {
            ServerInput::Bytes(bytes) => self.receive(now, bytes),
            ServerInput::Workload(workload) => {
                self.workload = workload;
                self.push();
                Ok(())
            }
            ServerInput::Answer(answer) => {
                self.answer(answer);
                Ok(())
            }
            ServerInput::Shutdown => {
                self.shut_down();
                Ok(())
            }
            ServerInput::Timeout => {
                self.look(now);
                Ok(())
            }
        };
        if was_used || !self.http.is_unused() {
            self.idle_since = now;
        }
        self.telemetry.streams(self.calls.values().map(|call| u32::from(call.is_stream())).sum());
        result
    }

    /// The next output, until `None`.
    pub fn poll_output(&mut self) -> Option<ServerOutput> {
        if self.closed {
            return None;
        }
        if let Some(request) = self.jwt.pop_front() {
            return Some(ServerOutput::Jwt(request));
        }
        if let Some(bytes) = self.http.poll_output() {
            return Some(ServerOutput::Send(bytes));
        }
        self.closed = self.http.has_failed() || self.closing && self.http.is_unused();
        self.closed.then_some(ServerOutput::Close)
    }

    /// When to give [`ServerInput::Timeout`] at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        if self.closed {
            return None;
        }
        let deadline = self.calls.values().filter_map(|call| call.deadline).min();
        let idle = self.http.is_unused().then(|| self.idle_until());
        deadline.into_iter().chain(idle).min()
    }

    fn idle_until(&self) -> Duration {
        if self.http.has_begun() { self.idle_since + self.idle_max } else { self.handshake_until }
    }

    fn receive(&mut self, now: Duration, bytes: &[u8]) -> Result<(), ServerHandleError> {
        if self.closed {
            return Ok(());
        }
        let received = self.http.receive(now, bytes);
        while let Some(event) = self.http.poll_event() {
            match event {
                Event::Fields { stream, fields, end } if !self.calls.contains_key(&stream) => {
                    self.begin(now, stream, &fields, end);
                }
                // Trailers, which requests of gRPC do not have, end the request.
                Event::Fields { stream, .. } => self.read(stream, &[], true),
                Event::FieldsTooLong { stream, .. } => {
                    self.calls.remove(&stream);
                    // RFC 6585 §5.
                    self.http.respond(stream, [(":status", "431")], true);
                }
                Event::Data { stream, bytes, end } => self.read(stream, &bytes, end),
                Event::Reset { stream } => {
                    self.calls.remove(&stream);
                    self.jwt.retain(|request| request.stream != stream);
                }
                Event::GoAway => self.closing = true,
            }
        }
        received.map_err(|code| {
            self.calls.clear();
            self.jwt.clear();
            ServerHandleError { rule: code.name() }
        })
    }

    /// The fields of a request came. Their checks have an order: what is no gRPC, who may ask, what is asked.
    fn begin(&mut self, now: Duration, stream: u32, fields: &Fields, end: bool) {
        let content_type = fields.get("content-type").unwrap_or_default();
        if fields.get(":method") != Some(b"POST") {
            return self.http.respond(stream, [(":status", "405")], true);
        }
        if !content_type.starts_with(CONTENT_TYPE.1.as_bytes()) {
            return self.http.respond(stream, [(":status", "415")], true);
        }
        // Workload Endpoint §3 and §6, for every request, whatever its method.
        if fields.get(SECURITY_HEADER.0) != Some(SECURITY_HEADER.1.as_bytes()) {
            let message = "the security header workload.spiffe.io: true is missing";
            return self.refuse(stream, &Status::new(Code::InvalidArgument, message));
        }
        let path = fields.get(":path").unwrap_or_default();
        let Some(method) = Method::from_path(path, self.wit_svids) else {
            let message = "the endpoint has no such method";
            return self.refuse(stream, &Status::new(Code::Unimplemented, message));
        };
        if fields.get("grpc-encoding").is_some_and(|encoding| encoding != b"identity") {
            return self.refuse(stream, &compressed());
        }
        let deadline =
            fields.get("grpc-timeout").and_then(timeout).map(|timeout| now.saturating_add(timeout));
        let messages = Messages::new(self.request_len_max);
        let state = match method {
            Method::StreamSecrets => {
                CallState::Secrets { messages, stream: SecretStream::default(), responded: false }
            }
            _ => CallState::Reading(messages),
        };
        self.calls.insert(stream, Call { method, wanted: None, state, deadline });
        if end {
            self.read(stream, &[], true);
        }
    }

    /// Data of a request came.
    fn read(&mut self, stream: u32, bytes: &[u8], end: bool) {
        let Some(call) = self.calls.get_mut(&stream) else { return };
        let method = call.method;
        if let CallState::Secrets { messages, .. } = &mut call.state {
            messages.push(bytes);
            return self.read_secrets(stream, end);
        }
        let CallState::Reading(messages) = &mut call.state else {
            if !bytes.is_empty() {
                self.refuse(stream, &cardinality());
            }
            return;
        };
        messages.push(bytes);
        match messages.next() {
            Ok(Some(request)) if messages.is_empty() => self.call(stream, method, &request),
            Ok(Some(_)) => self.refuse(stream, &cardinality()),
            Ok(None) if end => self.refuse(stream, &cardinality()),
            Ok(None) => {}
            Err(FrameError::Compressed) => self.refuse(stream, &compressed()),
            Err(FrameError::Length) => self.refuse(stream, &too_long()),
        }
    }

    /// Data of a stream of secrets came.
    fn read_secrets(&mut self, id: u32, end: bool) {
        loop {
            let Some(Call { state: CallState::Secrets { messages, stream, .. }, .. }) =
                self.calls.get_mut(&id)
            else {
                return;
            };
            let response = match (messages.next(), &self.workload) {
                (Ok(None), _) => break,
                (Err(FrameError::Compressed), _) => Err(compressed()),
                (Err(FrameError::Length), _) => Err(too_long()),
                (Ok(Some(_)), None) => Err(denied()),
                (Ok(Some(request)), Some(workload)) => stream.request(&request, workload),
            };
            self.respond_secrets(id, response);
        }
        if end {
            self.refuse(id, &Status::ok());
        }
    }

    fn respond_secrets(&mut self, id: u32, response: Result<Option<Vec<u8>>, Status>) {
        match response {
            Err(status) => self.refuse(id, &status),
            Ok(None) => {}
            Ok(Some(message)) => {
                if let Some(Call { state: CallState::Secrets { responded, .. }, .. }) =
                    self.calls.get_mut(&id)
                    && !core::mem::replace(responded, true)
                {
                    self.http.respond(id, [(":status", "200"), CONTENT_TYPE], false);
                }
                self.http.send(id, frame_message(&message));
            }
        }
    }

    /// A request is complete.
    fn call(&mut self, stream: u32, method: Method, request: &[u8]) {
        let jwt = match method {
            Method::FetchX509Svid
            | Method::FetchX509Bundles
            | Method::FetchJwtBundles
            | Method::FetchWitBundles => {
                // The requests have no fields.
                let message = skip(request).map_err(undecodable).and_then(|()| self.streamed(method, None));
                return self.begin_stream(stream, None, message);
            }
            Method::FetchWitSvid => {
                let wanted = wit::wanted(request);
                let message = wanted.clone().and_then(|wanted| self.streamed(method, wanted.as_ref()));
                return self.begin_stream(stream, wanted.ok().flatten(), message);
            }
            // A stream of requests, which `read_secrets` takes.
            Method::StreamSecrets => return,
            Method::FetchJwtSvid => JwtSvidRequest::decode(request).map(JwtCall::Issue),
            Method::ValidateJwtSvid => ValidateJwtSvidRequest::decode(request).map(JwtCall::Validate),
        };
        match (jwt, &self.workload) {
            (Err(error), _) => self.refuse(stream, &undecodable(error)),
            (Ok(_), None) => self.refuse(stream, &denied()),
            (Ok(call), Some(workload)) => {
                let workload = Arc::clone(workload);
                self.jwt.push_back(JwtRequest {
                    stream,
                    workload,
                    call,
                    provider: Arc::clone(&self.provider),
                });
                self.set_state(stream, CallState::Waiting);
            }
        }
    }

    /// The message of a stream, or why there is none.
    fn streamed(&self, method: Method, wanted: Option<&SpiffeId>) -> Streamed {
        let workload = self.workload.as_ref().ok_or_else(denied)?;
        let encoded = workload.encoded();
        match (method, wanted) {
            (Method::FetchX509Svid, _) => encoded.x509_svid.clone().ok_or_else(denied),
            (Method::FetchX509Bundles, _) => Ok(Arc::clone(&encoded.x509_bundles)),
            (Method::FetchWitSvid, None) => encoded.wit_svid.clone().ok_or_else(denied),
            (Method::FetchWitSvid, wanted) => workload.wit().svids(wanted).ok_or_else(denied),
            (Method::FetchWitBundles, _) => Ok(Arc::clone(&encoded.wit_bundles)),
            _ => Ok(Arc::clone(&encoded.jwt_bundles)),
        }
    }

    /// Sends the first message of a stream, or ends it.
    fn begin_stream(&mut self, stream: u32, wanted: Option<SpiffeId>, message: Result<Arc<[u8]>, Status>) {
        let message = match message {
            Ok(message) => message,
            Err(status) => return self.refuse(stream, &status),
        };
        self.http.respond(stream, [(":status", "200"), CONTENT_TYPE], false);
        self.http.send(stream, Arc::clone(&message));
        if let Some(call) = self.calls.get_mut(&stream) {
            call.wanted = wanted;
            call.state = CallState::Streaming(message);
        }
    }

    fn set_state(&mut self, stream: u32, state: CallState) {
        if let Some(call) = self.calls.get_mut(&stream) {
            call.state = state;
        }
    }

    /// Sends each stream what changed. A stream that has nothing left to receive ends (§5.2.1).
    fn push(&mut self) {
        let streaming: Vec<(u32, Streamed)> = self
            .calls
            .iter()
            .filter(|(_, call)| matches!(call.state, CallState::Streaming(_)))
            .map(|(stream, call)| (*stream, self.streamed(call.method, call.wanted.as_ref())))
            .collect();
        for (stream, message) in streaming {
            match message {
                Err(status) => self.end_stream(stream, &status),
                Ok(message) => {
                    let Some(call) = self.calls.get_mut(&stream) else { continue };
                    if matches!(&call.state, CallState::Streaming(known) if *known == message) {
                        continue;
                    }
                    self.http.send(stream, Arc::clone(&message));
                    call.state = CallState::Streaming(message);
                }
            }
        }
        self.push_secrets();
    }

    fn push_secrets(&mut self) {
        let mut responses = Vec::new();
        for (id, call) in &mut self.calls {
            if let CallState::Secrets { stream, .. } = &mut call.state {
                responses.push((
                    *id,
                    self.workload.as_ref().ok_or_else(denied).and_then(|workload| stream.update(workload)),
                ));
            }
        }
        for (id, response) in responses {
            self.respond_secrets(id, response);
        }
    }

    fn answer(&mut self, answer: JwtAnswer) {
        let stream = answer.stream;
        // The client may have ended the call.
        if !self.calls.get(&stream).is_some_and(|call| matches!(call.state, CallState::Waiting)) {
            return;
        }
        match answer.result {
            Err(status) => self.refuse(stream, &status),
            Ok(message) => {
                self.calls.remove(&stream);
                self.http.respond(stream, [(":status", "200"), CONTENT_TYPE], false);
                self.http.send(stream, message);
                self.finish(stream, &Status::ok(), false);
            }
        }
    }

    /// Ends a call without a message. It may have none of the fields of a response yet.
    fn refuse(&mut self, stream: u32, status: &Status) {
        self.telemetry.ended(status.code);
        let call = self.calls.remove(&stream);
        if call.is_some_and(|call| call.has_response()) {
            return self.finish(stream, status, true);
        }
        let trailers = status.trailers();
        let fields = [(":status", "200"), CONTENT_TYPE].into_iter();
        let all = fields.chain(trailers.iter().map(|(name, value)| (*name, value.as_str())));
        self.http.respond(stream, all, true);
    }

    fn end_stream(&mut self, stream: u32, status: &Status) {
        self.telemetry.ended(status.code);
        self.calls.remove(&stream);
        self.finish(stream, status, true);
    }

    fn finish(&mut self, stream: u32, status: &Status, drop_messages: bool) {
        let trailers = status.trailers();
        self.http.finish(stream, trailers.iter().map(|(name, value)| (*name, value.as_str())), drop_messages);
    }

    fn shut_down(&mut self) {
        let status = Status::new(Code::Unavailable, "the server stops");
        for stream in self.calls.keys().copied().collect::<Vec<_>>() {
            self.refuse(stream, &status);
        }
        self.jwt.clear();
        self.http.go_away();
        self.closing = true;
    }

    fn look(&mut self, now: Duration) {
        let due = |call: &Call| call.deadline.is_some_and(|deadline| deadline <= now);
        let late: Vec<u32> =
            self.calls.iter().filter(|(_, call)| due(call)).map(|(stream, _)| *stream).collect();
        for stream in late {
            self.refuse(stream, &Status::new(Code::DeadlineExceeded, "the deadline of the call passed"));
        }
        if !self.http.has_begun() && now >= self.handshake_until {
            self.http.fail(ErrorCode::NoError);
        } else if self.http.is_unused() && now >= self.idle_until() {
            self.http.go_away();
            self.closing = true;
        }
    }
}

fn denied() -> Status {
    Status::new(Code::PermissionDenied, "the caller has no identity; it may be registered later")
}

fn too_long() -> Status {
    Status::new(Code::ResourceExhausted, "the request is longer than the server allows")
}

fn compressed() -> Status {
    Status::new(Code::Unimplemented, "compressed requests are not supported: send them as identity")
}

/// gRPC, "Status codes and their use": a method takes exactly one request.
fn cardinality() -> Status {
    Status::new(Code::Unimplemented, "the method takes exactly one request")
}

fn undecodable(error: DecodeError) -> Status {
    Status::new(Code::Internal, error.to_string())
}

/// Reads a message whose fields mean nothing.
fn skip(message: &[u8]) -> Result<(), DecodeError> {
    let mut reader = Reader::new(message);
    while reader.field()?.is_some() {}
    Ok(())
}

/// gRPC, "Timeout": up to 8 digits and a unit. `None` if it is not that.
fn timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = String::from_utf8_lossy(digits).parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("4m", Some(Duration::from_millis(4))),
            ("5u", Some(Duration::from_micros(5))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("999999999n", None),
            ("S", None),
            ("+1S", None),
            ("1s", None),
            ("", None),
        ] {
            assert_eq!(timeout(text.as_bytes()), expected, "{text}");
        }
    }
}
