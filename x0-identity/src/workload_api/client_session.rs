//! The client's side: subscriptions and calls over connections that come and go, without I/O.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::string::{String, ToString};
use std::vec::Vec;

use super::backoff::Backoff;
use super::context::{
    FetchedJwtSvid, MessageError, ValidatedJwtSvid, X509Bundles, X509Context, read_jwt_svids, read_key_sets,
    read_validated, read_x509_bundles,
};
use super::messages::{JwtSvidRequest, ValidateJwtSvidRequest};
use super::method::Method;
use super::server_connection::SECURITY_HEADER;
use super::wit::{self, WitContext};
use super::{ClientOptions, Subscription};
use crate::grpc::{Code, ErrorCode, Event, Fields, Http2, Limits, Messages, Status, frame_message};
use crate::{BundleMap, SpiffeBundle, SpiffeId};

/// Calls that wait or are open at once.
const CALLS_MAX: usize = 64;

/// A call with one answer.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientCall {
    /// Requests JWT-SVIDs.
    FetchJwtSvids {
        /// The services that the token is presented to; one is recommended.
        audience: Vec<String>,
        /// The identity; `None` for all of this workload.
        spiffe_id: Option<SpiffeId>,
    },
    /// Validates a JWT-SVID.
    ValidateJwtSvid {
        /// The service that received the token.
        audience: String,
        /// The token in the compact serialization.
        token: String,
    },
}

/// Without the token.
impl core::fmt::Debug for ClientCall {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            ClientCall::FetchJwtSvids { audience, spiffe_id } => formatter
                .debug_struct("FetchJwtSvids")
                .field("audience", audience)
                .field("spiffe_id", spiffe_id)
                .finish(),
            ClientCall::ValidateJwtSvid { audience, .. } => {
                formatter.debug_struct("ValidateJwtSvid").field("audience", audience).finish_non_exhaustive()
            }
        }
    }
}

/// The answer to a [`ClientCall`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientAnswer {
    /// JWT-SVIDs, never none, that of the default identity first.
    JwtSvids(Vec<FetchedJwtSvid>),
    /// The token is valid.
    Validated(ValidatedJwtSvid),
}

/// A call or a message failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The endpoint ended the call, or the connection did.
    #[error(transparent)]
    Status(#[from] Status),
    /// The endpoint sent a message that cannot be used. It is discarded.
    #[error(transparent)]
    Message(#[from] MessageError),
}

/// An input of a [`ClientSession`].
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientInput<'a> {
    /// The connection that [`ClientOutput::Connect`] requested is open.
    Connected,
    /// Bytes of the endpoint. Pieces of up to 16 KiB keep what the engine holds in between small.
    Bytes(&'a [u8]),
    /// The connection is closed, or could not be opened.
    Closed,
    /// A call. The answer has the same id.
    Call {
        /// The caller's id.
        id: u64,
        /// The call.
        call: ClientCall,
        /// The time from now on after which it fails.
        timeout: Duration,
    },
    /// The time of [`ClientSession::poll_timeout`] has come.
    Timeout,
}

/// An output of a [`ClientSession`].
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientOutput {
    /// Open a connection to the endpoint, and report [`ClientInput::Connected`] or [`ClientInput::Closed`].
    Connect,
    /// Send these bytes.
    Send(Vec<u8>),
    /// Close the connection. No report is expected.
    Close,
    /// The SVIDs and bundles of this workload from now on, in the place of all earlier ones.
    X509Svids(X509Context),
    /// The bundles from now on, in the place of all earlier ones.
    X509Bundles(X509Bundles),
    /// The keys for JWT-SVIDs from now on, in the place of all earlier ones.
    JwtBundles(BundleMap),
    /// The WIT-SVIDs of this workload from now on, in the place of all earlier ones. Without the feature
    /// `wit` it has no value.
    WitSvids(WitContext),
    /// The keys for WIT-SVIDs from now on, in the place of all earlier ones.
    WitBundles(BundleMap),
    /// This workload is entitled to nothing of the subscription now (`PermissionDenied`): cease to use what
    /// came before (Workload API §5.2.1). The client tries again.
    Denied(Subscription),
    /// Something failed. What came before stays in use.
    Failed {
        /// The subscription.
        subscription: Subscription,
        /// The reason.
        error: ClientError,
        /// Whether the client tries again. `InvalidArgument` and `Unimplemented` are final (Workload Endpoint
        /// §6).
        again: bool,
    },
    /// The answer to a call.
    Answer {
        /// The caller's id.
        id: u64,
        /// The answer.
        answer: Result<ClientAnswer, ClientError>,
    },
}

/// An input was not taken. The state is as before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientHandleError {
    /// There are 64 calls already.
    #[error("64 calls wait for an answer: wait for one of them, then call again")]
    Calls,
    /// The endpoint broke HTTP/2. The connection is closed, and the client tries again.
    #[error("the endpoint broke HTTP/2 ({rule}): the client connects again; check what listens there")]
    Protocol {
        /// The name of the error code (RFC 9113 §7).
        rule: &'static str,
    },
}

/// A client of the Workload API: a protocol engine without I/O.
///
/// The engine keeps its subscriptions open. When a stream or a connection ends, it opens the next one: at
/// once if the one before lasted, otherwise after a pause that grows (Workload API §4.2). It never gives up,
/// except a subscription for which the endpoint answers `InvalidArgument` or `Unimplemented`.
///
/// # Drain contract
/// After each [`ClientSession::handle`], with or without an error, take outputs until
/// [`ClientSession::poll_output`] returns `None`. Call `handle` with [`ClientInput::Timeout`] when the time
/// of [`ClientSession::poll_timeout`] has come. `now` is the time since any origin, from a clock that does
/// not go back.
///
/// ```
/// use core::time::Duration;
/// use x0_identity::workload_api::{ClientInput, ClientOptions, ClientOutput, ClientSession};
///
/// let mut session = ClientSession::new(ClientOptions::default(), "localhost", 7);
/// session.handle(Duration::ZERO, ClientInput::Timeout)?;
/// assert!(matches!(session.poll_output(), Some(ClientOutput::Connect)));
/// session.handle(Duration::ZERO, ClientInput::Connected)?;
/// assert!(matches!(session.poll_output(), Some(ClientOutput::Send(_)))); // the request
/// assert!(session.poll_output().is_none());
/// # Ok::<(), x0_identity::workload_api::ClientHandleError>(())
/// ```
#[derive(Debug)]
pub struct ClientSession {
    options: ClientOptions,
    authority: String,
    link: Link,
    link_backoff: Backoff,
    subscriptions: Vec<Subscribed>,
    streams: BTreeMap<u32, Open>,
    calls: Vec<PendingCall>,
    outputs: VecDeque<ClientOutput>,
}

#[derive(Debug)]
enum Link {
    /// The next attempt is due.
    Down {
        until: Duration,
    },
    Connecting,
    Up {
        http: Box<Http2>,
        since: Duration,
    },
}

#[derive(Debug)]
struct Subscribed {
    subscription: Subscription,
    backoff: Backoff,
    state: SubscriptionState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SubscriptionState {
    Due {
        at: Duration,
    },
    Open {
        stream: u32,
        since: Duration,
    },
    /// The endpoint's answer is final.
    Final,
}

#[derive(Debug)]
struct Open {
    what: What,
    messages: Messages,
    /// The response has a status of HTTP that is not 200.
    http_status: Option<String>,
    /// The answer of a call that has one.
    answer: Option<Vec<u8>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Subscription(Subscription),
    Call(u64),
}

#[derive(Debug)]
struct PendingCall {
    id: u64,
    call: ClientCall,
    until: Duration,
    stream: Option<u32>,
}

const SUBSCRIPTIONS: [Subscription; 5] = [
    Subscription::X509Svids,
    Subscription::X509Bundles,
    Subscription::JwtBundles,
    Subscription::WitSvids,
    Subscription::WitBundles,
];

impl Subscription {
    fn method(self) -> Method {
        match self {
            Subscription::X509Svids => Method::FetchX509Svid,
            Subscription::X509Bundles => Method::FetchX509Bundles,
            Subscription::JwtBundles => Method::FetchJwtBundles,
            Subscription::WitSvids => Method::FetchWitSvid,
            Subscription::WitBundles => Method::FetchWitBundles,
        }
    }
}

impl ClientSession {
    /// Builds the engine, which connects with its first [`ClientInput::Timeout`]. `authority` is the host of
    /// the endpoint (`localhost` for a Unix domain socket); `seed` spreads the pauses of clients that started
    /// together.
    #[must_use]
    pub fn new(options: ClientOptions, authority: &str, seed: u64) -> ClientSession {
        let backoff = |number: u64| {
            Backoff::new(options.pause_min, options.pause_max, seed.wrapping_mul(8).wrapping_add(number))
        };
        let subscriptions = SUBSCRIPTIONS
            .into_iter()
            .filter(|subscription| options.wants(*subscription))
            .zip(1..)
            .map(|(subscription, number)| Subscribed {
                subscription,
                backoff: backoff(number),
                state: SubscriptionState::Due { at: Duration::ZERO },
            })
            .collect();
        ClientSession {
            link_backoff: backoff(0),
            options,
            authority: authority.into(),
            link: Link::Down { until: Duration::ZERO },
            subscriptions,
            streams: BTreeMap::new(),
            calls: Vec::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Takes an input.
    ///
    /// # Errors
    /// [`ClientHandleError`] says what it did to the state. The engine goes on in each case.
    pub fn handle(&mut self, now: Duration, input: ClientInput<'_>) -> Result<(), ClientHandleError> {
        let result = match input {
            ClientInput::Connected => {
                if matches!(self.link, Link::Connecting) {
                    let limits = Limits { streams_max: 0, field_list_len_max: 16 * 1024 };
                    self.link = Link::Up { http: Box::new(Http2::client(limits)), since: now };
                    for subscribed in &mut self.subscriptions {
                        if subscribed.state != SubscriptionState::Final {
                            subscribed.state = SubscriptionState::Due { at: now };
                        }
                    }
                }
                Ok(())
            }
            ClientInput::Bytes(bytes) => self.receive(now, bytes),
            ClientInput::Closed => {
                self.link_down(now, "the connection to the endpoint is closed");
                Ok(())
            }
            ClientInput::Call { .. } if self.calls.len() == CALLS_MAX => Err(ClientHandleError::Calls),
            ClientInput::Call { id, call, timeout } => {
                self.calls.push(PendingCall { id, call, until: now.saturating_add(timeout), stream: None });
                Ok(())
            }
            ClientInput::Timeout => Ok(()),
        };
        self.advance(now);
        result
    }

    /// The next output, until `None`.
    pub fn poll_output(&mut self) -> Option<ClientOutput> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        match &mut self.link {
            Link::Up { http, .. } => http.poll_output().map(ClientOutput::Send),
            _ => None,
        }
    }

    /// When to give [`ClientInput::Timeout`] at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        let link = match &self.link {
            Link::Down { until } if self.wants_link() => Some(*until),
            Link::Up { .. } => self
                .subscriptions
                .iter()
                .filter_map(|subscribed| match subscribed.state {
                    SubscriptionState::Due { at } => Some(at),
                    _ => None,
                })
                .min(),
            _ => None,
        };
        self.calls.iter().map(|call| call.until).chain(link).min()
    }

    fn wants_link(&self) -> bool {
        let open = |subscribed: &Subscribed| subscribed.state != SubscriptionState::Final;
        !self.calls.is_empty() || self.subscriptions.iter().any(open)
    }

    /// Everything that is due.
    fn advance(&mut self, now: Duration) {
        self.expire_calls(now);
        match &self.link {
            Link::Down { until } if *until <= now && self.wants_link() => {
                self.link = Link::Connecting;
                self.outputs.push_back(ClientOutput::Connect);
            }
            Link::Up { .. } => self.open_streams(now),
            _ => {}
        }
    }

    fn expire_calls(&mut self, now: Duration) {
        let late = self.calls.extract_if(.., |call| call.until <= now).collect::<Vec<_>>();
        for call in late {
            if let (Some(stream), Link::Up { http, .. }) = (call.stream, &mut self.link) {
                http.reset(stream, ErrorCode::Cancel);
                self.streams.remove(&stream);
            }
            let status = Status::new(Code::DeadlineExceeded, "the endpoint did not answer in time");
            self.outputs.push_back(ClientOutput::Answer { id: call.id, answer: Err(status.into()) });
        }
    }

    fn open_streams(&mut self, now: Duration) {
        let Link::Up { http, .. } = &mut self.link else { return };
        for subscribed in &mut self.subscriptions {
            if matches!(subscribed.state, SubscriptionState::Due { at } if at <= now) {
                let method = subscribed.subscription.method();
                let request = match subscribed.subscription {
                    Subscription::WitSvids => wit::request(self.options.wit_spiffe_id.as_ref()),
                    _ => Vec::new(),
                };
                match open(http, &self.authority, method, &request) {
                    Some(stream) => {
                        let what = What::Subscription(subscribed.subscription);
                        self.streams.insert(stream, Open::new(what, self.options.message_len_max));
                        subscribed.state = SubscriptionState::Open { stream, since: now };
                    }
                    None => {
                        subscribed.state = SubscriptionState::Due { at: now + subscribed.backoff.pause() };
                    }
                }
            }
        }
        // A call that the endpoint does not allow yet waits for the end of another.
        for pending in self.calls.iter_mut().filter(|call| call.stream.is_none()) {
            let (method, request) = pending.call.request();
            pending.stream = open(http, &self.authority, method, &request);
            if let Some(stream) = pending.stream {
                let what = What::Call(pending.id);
                self.streams.insert(stream, Open::new(what, self.options.message_len_max));
            }
        }
    }

    fn receive(&mut self, now: Duration, bytes: &[u8]) -> Result<(), ClientHandleError> {
        let Link::Up { http, .. } = &mut self.link else { return Ok(()) };
        let received = http.receive(now, bytes);
        while let Link::Up { http, .. } = &mut self.link {
            let Some(event) = http.poll_event() else { break };
            match event {
                Event::Fields { stream, fields, end } => self.receive_fields(now, stream, &fields, end),
                Event::FieldsTooLong { stream, .. } => {
                    http.reset(stream, ErrorCode::Cancel);
                    self.end(now, stream, Status::new(Code::Internal, "the header list is too long"));
                }
                Event::Data { stream, bytes, end } => self.receive_data(now, stream, &bytes, end),
                Event::Reset { stream } => {
                    self.end(now, stream, Status::new(Code::Unavailable, "the stream was reset"));
                }
                Event::GoAway => {
                    self.link_down(now, "the endpoint ends the connection");
                    self.outputs.push_back(ClientOutput::Close);
                }
            }
        }
        received.map_err(|code| {
            self.link_down(now, "the endpoint broke HTTP/2");
            self.outputs.push_back(ClientOutput::Close);
            ClientHandleError::Protocol { rule: code.name() }
        })
    }

    fn receive_fields(&mut self, now: Duration, stream: u32, fields: &Fields, end: bool) {
        let Some(open) = self.streams.get_mut(&stream) else { return };
        if let Some(status) = fields.get(":status").filter(|status| *status != b"200") {
            open.http_status = Some(String::from_utf8_lossy(status).into_owned());
        }
        if end {
            let http_status = open.http_status.take();
            let status =
                Status::from_trailers(|name| fields.get(name)).unwrap_or_else(|| match http_status {
                    Some(status) => Status::new(
                        Code::Unavailable,
                        std::format!("the endpoint answered with HTTP {status}"),
                    ),
                    None => Status::new(Code::Internal, "the call ended without a status"),
                });
            self.end(now, stream, status);
        }
    }

    fn receive_data(&mut self, now: Duration, stream: u32, bytes: &[u8], end: bool) {
        let Some(open) = self.streams.get_mut(&stream) else { return };
        if open.http_status.is_none() {
            open.messages.push(bytes);
        }
        loop {
            let Some(open) = self.streams.get_mut(&stream) else { return };
            match open.messages.next() {
                Ok(None) => break,
                Ok(Some(message)) => match open.what {
                    What::Subscription(subscription) => self.receive_message(subscription, &message),
                    What::Call(_) => open.answer = Some(message),
                },
                Err(_) => {
                    if let Link::Up { http, .. } = &mut self.link {
                        http.reset(stream, ErrorCode::Cancel);
                    }
                    let message = "a message is compressed, or longer than this client allows";
                    return self.end(now, stream, Status::new(Code::ResourceExhausted, message));
                }
            }
        }
        if end {
            self.end(now, stream, Status::new(Code::Internal, "the call ended without a status"));
        }
    }

    /// A message of a subscription. One that cannot be used is discarded and reported (§4.5).
    fn receive_message(&mut self, subscription: Subscription, message: &[u8]) {
        let output = match subscription {
            Subscription::X509Svids => X509Context::read(message).map(ClientOutput::X509Svids),
            Subscription::X509Bundles => read_x509_bundles(message).map(ClientOutput::X509Bundles),
            Subscription::JwtBundles => {
                read_key_sets(message, SpiffeBundle::from_jwt_key_set).map(ClientOutput::JwtBundles)
            }
            Subscription::WitSvids => {
                WitContext::read(message, &self.options.provider).map(ClientOutput::WitSvids)
            }
            Subscription::WitBundles => {
                read_key_sets(message, SpiffeBundle::from_wit_key_set).map(ClientOutput::WitBundles)
            }
        };
        self.outputs.push_back(output.unwrap_or_else(|error| ClientOutput::Failed {
            subscription,
            error: error.into(),
            again: true,
        }));
        self.link_backoff.reset();
        if let Some(subscribed) = self.subscribed(subscription) {
            subscribed.backoff.reset();
        }
    }

    fn subscribed(&mut self, subscription: Subscription) -> Option<&mut Subscribed> {
        self.subscriptions.iter_mut().find(|subscribed| subscribed.subscription == subscription)
    }

    /// A stream has ended.
    fn end(&mut self, now: Duration, stream: u32, status: Status) {
        let Some(open) = self.streams.remove(&stream) else { return };
        match open.what {
            What::Subscription(subscription) => self.end_subscription(now, subscription, status),
            What::Call(id) => {
                let Some(place) = self.calls.iter().position(|call| call.id == id) else { return };
                let pending = self.calls.swap_remove(place);
                let answer = match (status.code, open.answer) {
                    (Code::Ok, Some(message)) => pending.call.read(&message).map_err(ClientError::from),
                    (Code::Ok, None) => {
                        Err(Status::new(Code::Internal, "the endpoint sent no answer").into())
                    }
                    _ => Err(status.into()),
                };
                self.outputs.push_back(ClientOutput::Answer { id, answer });
            }
        }
    }

    fn end_subscription(&mut self, now: Duration, subscription: Subscription, status: Status) {
        let pause_min = self.options.pause_min;
        let Some(subscribed) = self.subscribed(subscription) else { return };
        let lasted = match subscribed.state {
            SubscriptionState::Open { since, .. } => now.saturating_sub(since),
            _ => Duration::ZERO,
        };
        // Workload Endpoint §6 and Appendix A.
        let again = !matches!(status.code, Code::InvalidArgument | Code::Unimplemented);
        subscribed.state = if !again {
            SubscriptionState::Final
        } else if lasted > pause_min && matches!(status.code, Code::Ok) {
            SubscriptionState::Due { at: now }
        } else {
            SubscriptionState::Due { at: now + subscribed.backoff.pause() }
        };
        self.outputs.push_back(if status.code == Code::PermissionDenied {
            ClientOutput::Denied(subscription)
        } else {
            ClientOutput::Failed { subscription, error: status.into(), again }
        });
    }

    /// The connection has ended, or was not opened.
    fn link_down(&mut self, now: Duration, why: &str) {
        let lasted = match &self.link {
            Link::Down { .. } => return,
            Link::Connecting => Duration::ZERO,
            Link::Up { since, .. } => now.saturating_sub(*since),
        };
        // §4.2: at once. A connection that did not last would make a loop.
        let until = if lasted > self.options.pause_min { now } else { now + self.link_backoff.pause() };
        self.link = Link::Down { until };
        let status = Status::new(Code::Unavailable, why.to_string());
        for subscribed in &mut self.subscriptions {
            if subscribed.state != SubscriptionState::Final {
                subscribed.state = SubscriptionState::Due { at: until };
                let subscription = subscribed.subscription;
                let error = status.clone().into();
                self.outputs.push_back(ClientOutput::Failed { subscription, error, again: true });
            }
        }
        // A call that was sent may have been answered; one that was not waits for the next connection.
        for call in self.calls.extract_if(.., |call| call.stream.is_some()) {
            let answer = Err(status.clone().into());
            self.outputs.push_back(ClientOutput::Answer { id: call.id, answer });
        }
        self.streams.clear();
    }
}

impl Open {
    fn new(what: What, message_len_max: usize) -> Open {
        Open { what, messages: Messages::new(message_len_max), http_status: None, answer: None }
    }
}

impl ClientCall {
    fn request(&self) -> (Method, Vec<u8>) {
        match self {
            ClientCall::FetchJwtSvids { audience, spiffe_id } => {
                let spiffe_id = spiffe_id.as_ref().map(ToString::to_string).unwrap_or_default();
                let request = JwtSvidRequest { audience: audience.clone(), spiffe_id };
                (Method::FetchJwtSvid, request.encode())
            }
            ClientCall::ValidateJwtSvid { audience, token } => {
                let request = ValidateJwtSvidRequest { audience: audience.clone(), svid: token.clone() };
                (Method::ValidateJwtSvid, request.encode())
            }
        }
    }

    fn read(&self, message: &[u8]) -> Result<ClientAnswer, MessageError> {
        match self {
            ClientCall::FetchJwtSvids { .. } => read_jwt_svids(message).map(ClientAnswer::JwtSvids),
            ClientCall::ValidateJwtSvid { .. } => read_validated(message).map(ClientAnswer::Validated),
        }
    }
}

/// Opens a stream for a call. `None`, when the endpoint allows no further one.
fn open(http: &mut Http2, authority: &str, method: Method, request: &[u8]) -> Option<u32> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", method.path()),
        (":authority", authority),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        SECURITY_HEADER,
    ];
    http.open(fields, frame_message(request))
}
