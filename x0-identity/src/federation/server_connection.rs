//! A connection to a bundle endpoint, from its server's side.

use std::collections::VecDeque;
use std::format;
use std::string::String;
use std::time::Duration;
use std::vec::Vec;

use super::head::{Head, HeadError, HeadReader, is_token};
use super::published::Published;
use super::{PublishedBundles, ServerOptions};

/// The longest head of a request, in bytes.
const HEAD_LEN_MAX: usize = 8 * 1024;

/// An input of a [`ServerConnection`].
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum ServerInput<'a> {
    /// Bytes arrived, without TLS.
    Received(&'a [u8]),
    /// The bytes of the last [`ServerOutput::Send`] are with the system.
    Sent,
    /// The time of [`ServerConnection::poll_timeout`] has come.
    Timeout,
}

/// An output of a [`ServerConnection`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServerOutput {
    /// Send these bytes, and give [`ServerInput::Sent`] then. Requests that follow wait until then.
    Send(Vec<u8>),
    /// Close the connection.
    Close,
}

/// A connection to a bundle endpoint, as an engine: it reads requests and answers each with the bundle that
/// is published at that moment. No client authenticates (§5.2.1.3, §5.2.2.3).
///
/// # Drain contract
/// After each [`ServerConnection::handle`] take outputs until [`ServerConnection::poll_output`] returns
/// `None`. Then wait until [`ServerConnection::poll_timeout`] or an input, whichever comes first. No input is
/// an error: a peer that breaks a rule receives an answer, and the connection closes.
///
/// ```
/// use std::time::Duration;
/// use x0_identity::federation::{PublishedBundles, ServerConnection, ServerInput, ServerOptions, ServerOutput};
///
/// let mut connection = ServerConnection::new(PublishedBundles::new(), &ServerOptions::default(), Duration::ZERO);
/// connection.handle(Duration::ZERO, ServerInput::Received(b"GET /no HTTP/1.1\r\nHost: a\r\n\r\n"));
/// let Some(ServerOutput::Send(answer)) = connection.poll_output() else { panic!() };
/// assert!(answer.starts_with(b"HTTP/1.1 404 Not Found\r\n"));
/// ```
#[derive(Debug)]
pub struct ServerConnection {
    published: PublishedBundles,
    idle_max: Duration,
    deadline: Duration,
    head: HeadReader,
    /// What arrived after a request whose answer is not sent yet.
    waiting: Vec<u8>,
    sending: bool,
    close_after: bool,
    closed: bool,
    outputs: VecDeque<ServerOutput>,
}

/// The answer to a request.
struct Answer {
    status: &'static str,
    fields: String,
    body: Vec<u8>,
    close: bool,
}

impl ServerConnection {
    /// Begins a connection that was accepted at `now`, the time since any origin.
    #[must_use]
    pub fn new(published: PublishedBundles, options: &ServerOptions, now: Duration) -> ServerConnection {
        ServerConnection {
            published,
            idle_max: options.idle_max,
            deadline: now + options.idle_max,
            head: HeadReader::default(),
            waiting: Vec::new(),
            sending: false,
            close_after: false,
            closed: false,
            outputs: VecDeque::new(),
        }
    }

    /// Takes an input. After [`ServerOutput::Close`] inputs are ignored.
    pub fn handle(&mut self, now: Duration, input: ServerInput<'_>) {
        if self.closed {
            return;
        }
        match input {
            ServerInput::Received(bytes) if self.sending => {
                // More than that and a client that does not wait for answers loses the connection.
                if self.waiting.len() + bytes.len() > 4 * HEAD_LEN_MAX {
                    self.close();
                } else {
                    self.waiting.extend(bytes);
                }
            }
            ServerInput::Received(bytes) => self.read(now, bytes),
            ServerInput::Sent if self.close_after => self.close(),
            ServerInput::Sent => {
                self.sending = false;
                self.deadline = now + self.idle_max;
                let waiting = core::mem::take(&mut self.waiting);
                self.read(now, &waiting);
            }
            ServerInput::Timeout if now >= self.deadline => self.close(),
            ServerInput::Timeout => {}
        }
    }

    /// The next thing to do, until `None`.
    pub fn poll_output(&mut self) -> Option<ServerOutput> {
        self.outputs.pop_front()
    }

    /// When to give [`ServerInput::Timeout`] at the latest; `None` after the connection is closed.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        (!self.closed).then_some(self.deadline)
    }

    fn close(&mut self) {
        self.closed = true;
        self.waiting = Vec::new();
        self.outputs.push_back(ServerOutput::Close);
    }

    fn read(&mut self, now: Duration, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let (taken, answer) = match self.head.read(bytes, HEAD_LEN_MAX) {
            Ok((_, None)) => return,
            Ok((taken, Some(head))) => (taken, self.answer(&head)),
            Err(HeadError::Length) => (bytes.len(), refusal("431 Request Header Fields Too Large", "")),
            Err(HeadError::Syntax) => (bytes.len(), refusal("400 Bad Request", "")),
        };
        self.waiting.extend(&bytes[taken..]);
        self.sending = true;
        self.close_after = answer.close;
        self.deadline = now + self.idle_max;
        let connection = if answer.close { "Connection: close\r\n" } else { "" };
        let mut message =
            format!("HTTP/1.1 {}\r\n{}{connection}\r\n", answer.status, answer.fields).into_bytes();
        message.extend(answer.body);
        self.outputs.push_back(ServerOutput::Send(message));
    }

    fn answer(&self, head: &Head) -> Answer {
        let Some(request) = Request::read(head) else { return refusal("400 Bad Request", "") };
        if !request.is_1_1 && !request.is_1_0 {
            return refusal("505 HTTP Version Not Supported", "");
        }
        let close = request.close || request.is_1_0;
        let only_head = request.method == "HEAD";
        if request.method != "GET" && !only_head {
            return Answer { close, ..refusal("405 Method Not Allowed", "Allow: GET, HEAD\r\n") };
        }
        match self.published.get(request.path) {
            None => Answer { close, ..refusal("404 Not Found", "") },
            Some(Published::Moved(to)) => {
                let fields = format!("Location: {to}\r\n");
                Answer { close, ..refusal("307 Temporary Redirect", &fields) }
            }
            Some(Published::Bundle { json, .. }) => Answer {
                status: "200 OK",
                // Caches ask again: the answer is the most up-to-date bundle (§5.2.1.3).
                fields: format!(
                    "Content-Type: application/json\r\nContent-Length: {}\r\nCache-Control: no-cache\r\n",
                    json.len()
                ),
                body: if only_head { Vec::new() } else { json.as_bytes().to_vec() },
                close,
            },
        }
    }
}

fn refusal(status: &'static str, fields: &str) -> Answer {
    Answer { status, fields: format!("{fields}Content-Length: 0\r\n"), body: Vec::new(), close: true }
}

struct Request<'a> {
    method: &'a str,
    path: &'a str,
    is_1_1: bool,
    is_1_0: bool,
    close: bool,
}

impl<'a> Request<'a> {
    /// RFC 9112 §3. `None`, if the request is malformed or has a body.
    fn read(head: &'a Head) -> Option<Request<'a>> {
        let mut words = head.start_line.split(' ');
        let (method, target, version) = (words.next()?, words.next()?, words.next()?);
        if words.next().is_some() || method.is_empty() || !method.bytes().all(is_token) {
            return None;
        }
        if !version.starts_with("HTTP/") {
            return None;
        }
        let is_1_1 = version == "HTTP/1.1";
        // RFC 9112 §3.2: exactly one.
        let hosts = head.values("host").count();
        if hosts > 1 || (is_1_1 && hosts == 0) {
            return None;
        }
        // A body would have to be read away, and none is expected with these methods.
        let has_body = head.values("transfer-encoding").next().is_some()
            || !matches!(head.content_length(), Ok(None | Some(0)));
        if has_body {
            return None;
        }
        let close = head
            .values("connection")
            .flat_map(|value| value.split(','))
            .any(|option| option.trim().eq_ignore_ascii_case("close"));
        // RFC 9112 §3.2.2: the absolute form is accepted.
        let path_and_query = match target.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => {
                rest.find('/').map_or("/", |place| &rest[place..])
            }
            _ => target,
        };
        let path = path_and_query.split('?').next()?;
        Some(Request { method, path, is_1_1, is_1_0: version == "HTTP/1.0", close })
    }
}
