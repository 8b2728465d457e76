//! The tasks of one QUIC connection: one for each lane and direction, so that none waits for another.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use quinn::{Connection, ReadError, ReadExactError, RecvStream, SendStream, Side, WriteError};
use rustls::pki_types::CertificateDer;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use x0_identity::{Identity, NodeId, PathError, PeerError, PeerRole, SpiffeId, VerifyError};

use super::close::{Failure, close_for, code, dial_failure, down_reason};
use super::frame::{FrameDecoder, check_len};
use super::handshake::{HEAD_LEN, Handshake, kind};
use super::options::QuicOptions;
use super::outbox::length;
use super::race::{Winner, race};
use super::shared::Shared;
use super::state::Adopted;
use crate::{DownReason, Expected, StreamName, Violation};

/// Chunks that one wake-up takes. A chunk is mostly the content of one packet, so this bounds how long a task
/// runs, and amortises the lock on the shared state.
const CHUNKS: usize = 64;

/// How long a change of the system's clock may go unnoticed.
const CLOCK_CHECK: Duration = Duration::from_secs(10);

/// The identity at the other end.
#[derive(Debug, Clone)]
pub(super) enum Remote {
    Node(NodeId),
    /// Its id is known once its handshake has come, which tells the processes of one identity apart.
    Guest(SpiffeId),
}

/// The node at the other end, from its SVID, which the TLS handshake has verified (X509-SVID §5), or the
/// guest, if `guests` are accepted.
pub(super) fn identity(
    connection: &Connection,
    config: &QuicOptions,
    guests: bool,
) -> Result<Remote, DownReason> {
    let chain = chain(connection);
    // A federated trust domain is trusted too, and has nodes with the same numbers.
    let node = match &config.identity {
        Some(own) => x0_identity::peer_node_id_in(own.spiffe_id().trust_domain(), &chain),
        None => x0_identity::peer_node_id(&chain),
    };
    let untrusted = |error: PeerError| DownReason::Untrusted { detail: error.to_string().into() };
    match node {
        // An id of a guest must not be one that an SVID names.
        Ok(node) if guests && crate::is_guest(node) => {
            let detail = format!("node {node} has an id that is reserved for guests: issue it a lower one");
            Err(DownReason::Untrusted { detail: detail.into() })
        }
        Ok(node) => Ok(Remote::Node(node)),
        Err(PeerError::NotANode { spiffe_id }) if guests => Ok(Remote::Guest(spiffe_id)),
        Err(error) => Err(untrusted(error)),
    }
}

fn chain(connection: &Connection) -> Vec<CertificateDer<'static>> {
    let chain =
        connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    chain.map(|chain| *chain).unwrap_or_default()
}

/// Returns, with the reason, when the peer may no longer be connected.
async fn unwelcome(connection: &Connection, own: Option<&Identity>) -> DownReason {
    let Some(own) = own else {
        expired(connection).await;
        return DownReason::Expired;
    };
    let untrusted = |error: &VerifyError| match error {
        VerifyError::Path(PathError::Expired { .. }) => DownReason::Expired,
        error => DownReason::Untrusted { detail: error.to_string().into() },
    };
    let role = match connection.side() {
        Side::Client => PeerRole::Server,
        Side::Server => PeerRole::Client,
    };
    let chain = chain(connection);
    loop {
        let admission = match own.admit(&chain, role, SystemTime::now()) {
            Ok(admission) => admission,
            Err(error) => return untrusted(&error),
        };
        let expires = admission.expires();
        // Revocations wake the admission; time does not.
        if let Winner::First(error) = race(admission, after(expires)).await {
            return untrusted(&error);
        }
        // A rotated bundle may admit the peer for longer than the one of its admission.
    }
}

/// Returns when the SVID at the other end has expired. TLS checks validity during the handshake only (RFC
/// 5280 §6.1.3), and a connection may outlive it by weeks.
async fn expired(connection: &Connection) {
    // A peer without one was not accepted.
    let Ok(not_after) = x0_identity::peer_not_after(&chain(connection)) else { return };
    after(not_after).await;
}

/// Returns after the last second in which a certificate is valid.
async fn after(not_after: SystemTime) {
    // The system's clock may be set during the sleep. A certificate is valid to the end of its last second
    // (RFC 5280 §4.1.2.5).
    let rest = || (not_after + Duration::from_secs(1)).duration_since(SystemTime::now()).ok();
    while let Some(rest) = rest() {
        sleep(rest.clamp(Duration::from_millis(1), CLOCK_CHECK)).await;
    }
}

/// A connection that was chosen as the one in use.
pub(super) struct Established {
    connection: Connection,
    adopted: Adopted,
    control: (SendStream, RecvStream),
}

/// Exchanges handshakes until it is decided whether the connection is used. Everything after the decision is
/// in [`Established::run`], so that the caller may drop this future before the decision, but never holds a
/// connection that was chosen and is not run.
pub(super) async fn establish(
    shared: &Shared,
    connection: Connection,
    remote: &Remote,
) -> Result<(Established, NodeId), Failure> {
    let decides = match remote {
        Remote::Node(peer) => shared.lock().decides(*peer),
        Remote::Guest(_) => true,
    };
    let exchange = async {
        let mut send = connection.open_uni().await.map_err(|error| dial_failure(&error))?;
        // The node that decides answers, and only when it takes the connection: a peer never sees one come up
        // that is refused.
        if !decides {
            let handshake = match remote {
                Remote::Node(peer) => shared.lock().handshake_for(*peer, connection.side()),
                // Unreachable: this node decides.
                Remote::Guest(_) => return Err(Violation::Handshake.into()),
            };
            let Some(handshake) = handshake else {
                connection.close(code::DUPLICATE, b"another connection is used");
                return Err(Failure::Quiet);
            };
            send.write_all(&handshake.encode()).await.map_err(|error| write_failure(&connection, error))?;
        }
        let mut receive = connection.accept_uni().await.map_err(|error| dial_failure(&error))?;
        let mut head = [0; HEAD_LEN];
        receive.read_exact(&mut head).await.map_err(handshake_failure)?;
        // At most 1 KiB: a peer that has not said anything yet is not trusted with more.
        let mut body = vec![0; Handshake::body_len(head)?];
        receive.read_exact(&mut body).await.map_err(handshake_failure)?;
        Ok((send, receive, Handshake::decode(&body)?))
    };
    let exchanged =
        timeout(shared.config.dial_timeout, exchange).await.unwrap_or(Err(Violation::HandshakeLate.into()));
    match exchanged {
        Ok((send, receive, handshake)) => {
            let (peer, adopted) = shared.change(|state, wakers| {
                let peer = match remote {
                    Remote::Node(peer) => *peer,
                    Remote::Guest(spiffe_id) => state.guests.admit(spiffe_id.clone(), handshake.instance),
                };
                let adopted = state.adopt(peer, &connection, &handshake, wakers);
                // Nothing is left of a guest that was refused.
                state.forget(peer);
                adopted.map(|adopted| (peer, adopted))
            })?;
            Ok((Established { connection, adopted, control: (send, receive) }, peer))
        }
        Err(failure) => {
            // The peer gets the reason as well: a quiet failure has already closed the connection with its
            // own code.
            if let Failure::Reported(reason) = &failure {
                close_for(&connection, reason);
            }
            Err(failure)
        }
    }
}

fn write_failure(connection: &Connection, error: WriteError) -> Failure {
    match error {
        WriteError::ConnectionLost(error) => dial_failure(&error),
        _ => connection.close_reason().map_or(Violation::Handshake.into(), |error| dial_failure(&error)),
    }
}

fn handshake_failure(error: ReadExactError) -> Failure {
    match error {
        ReadExactError::ReadError(ReadError::ConnectionLost(error)) => dial_failure(&error),
        _ => Violation::Handshake.into(),
    }
}

/// The state that the tasks of one connection share.
#[derive(Clone)]
struct Tasks {
    shared: Arc<Shared>,
    connection: Connection,
    peer: NodeId,
    epoch: u64,
    violation: Arc<OnceLock<Violation>>,
}

/// Why a task ended early.
enum Stop {
    /// The connection or the epoch is over.
    Over,
    /// The stream that the task reads or writes ended, was reset (RFC 9000 §3.2), or the peer stopped reading
    /// it (§3.5).
    Ended,
    Violation(Violation),
}

impl Stop {
    /// An end of the stream is a violation: says of which stream, and what should have come.
    fn on(self, stream: StreamName, expected: Expected) -> Stop {
        match self {
            Stop::Ended => Stop::Violation(Violation::StreamEnd { stream, expected }),
            stop => stop,
        }
    }
}

impl From<Violation> for Stop {
    fn from(violation: Violation) -> Stop {
        Stop::Violation(violation)
    }
}

impl From<ReadError> for Stop {
    fn from(error: ReadError) -> Stop {
        match error {
            ReadError::Reset(_) => Stop::Ended,
            _ => Stop::Over,
        }
    }
}

impl From<ReadExactError> for Stop {
    fn from(error: ReadExactError) -> Stop {
        match error {
            ReadExactError::FinishedEarly(_) => Stop::Ended,
            ReadExactError::ReadError(error) => error.into(),
        }
    }
}

impl From<WriteError> for Stop {
    fn from(error: WriteError) -> Stop {
        match error {
            // This transport never sends STOP_SENDING (RFC 9000 §19.5), and a lane that lost bytes cannot go
            // on.
            WriteError::Stopped(_) => Stop::Ended,
            _ => Stop::Over,
        }
    }
}

impl Established {
    /// Carries messages until the connection ends.
    pub(super) async fn run(self, shared: Arc<Shared>, peer: NodeId) {
        let _user = shared.spares.user();
        let Established { connection, adopted, control } = self;
        let epoch = adopted.epoch;
        let violation = Arc::new(OnceLock::new());
        let tasks = Tasks { shared, connection, peer, epoch, violation };
        // Dropping the set aborts every task: none outlives its connection.
        let mut set = JoinSet::new();
        set.spawn(tasks.clone().guard(tasks.clone().control(control, adopted.handshake)));
        for number in 0..tasks.shared.config.ordered_lanes {
            // Opened now, so that bulk messages cannot use up the streams that the peer allows (RFC 9000
            // §4.6). The peer learns of the stream with its first byte (§2.1), so an unused lane costs
            // nothing.
            let Ok(stream) = tasks.connection.open_uni().await else { break };
            set.spawn(tasks.clone().guard(tasks.clone().write_lane(stream, number)));
        }
        set.spawn(tasks.clone().guard(tasks.clone().write_bulk()));
        set.spawn(tasks.clone().guard(tasks.clone().read_datagrams()));
        set.spawn(tasks.clone().guard(tasks.clone().accept()));
        set.spawn(tasks.clone().watch());
        let own = tasks.shared.config.identity.as_ref();
        let end = race(tasks.connection.closed(), unwelcome(&tasks.connection, own)).await;
        // The violation that a task found says more than the close that it caused.
        let reason = match (end, tasks.violation.get()) {
            (_, Some(violation)) => DownReason::Malformed { violation: *violation },
            (Winner::First(error), None) => down_reason(&error),
            (Winner::Second(reason), None) => {
                close_for(&tasks.connection, &reason);
                reason
            }
        };
        tasks.shared.change(|state, wakers| state.end(peer, epoch, reason, wakers));
        set.shutdown().await;
    }
}

impl Tasks {
    /// Closes the connection when a task finds that the peer broke a rule.
    async fn guard(self, task: impl Future<Output = Result<(), Stop>>) {
        if let Err(Stop::Violation(violation)) = task.await
            // A stream also ends when the connection does, which is no violation.
            && self.connection.close_reason().is_none()
        {
            let _ = self.violation.set(violation);
            close_for(&self.connection, &DownReason::Malformed { violation });
        }
    }

    /// Reports that the peer is silent, long before that ends the epoch, and when it is heard again.
    async fn watch(self) {
        // Something arrives at least this often as long as nothing is lost: each keep-alive is acknowledged.
        let expected = self.shared.config.keep_alive * 3 / 2;
        let mut received = self.connection.stats().udp_rx.datagrams;
        let mut is_silent = false;
        loop {
            sleep(if is_silent { expected / 16 } else { expected }).await;
            self.shared.spares.shrink(self.shared.config.keep_alive);
            let before = std::mem::replace(&mut received, self.connection.stats().udp_rx.datagrams);
            let was_silent = std::mem::replace(&mut is_silent, received == before);
            if is_silent != was_silent {
                let (peer, epoch) = (self.peer, self.epoch);
                self.shared.change(|state, wakers| state.set_degraded(peer, epoch, is_silent, wakers));
            }
        }
    }

    async fn control(
        self,
        (mut send, mut receive): (SendStream, RecvStream),
        handshake: Option<Handshake>,
    ) -> Result<(), Stop> {
        let ended = |stop: Stop| stop.on(StreamName::Control, Expected::EndOfConnection);
        if let Some(handshake) = handshake {
            send.write_all(&handshake.encode()).await.map_err(|error| ended(error.into()))?;
        }
        // Later versions may send more here. This one skips it, so that they can.
        while receive.read_chunk(usize::MAX, true).await.map_err(|error| ended(error.into()))?.is_some() {}
        Err(ended(Stop::Ended))
    }

    async fn write_lane(self, mut stream: SendStream, number: u8) -> Result<(), Stop> {
        let lane = usize::from(number);
        let ended =
            |error: WriteError| Stop::from(error).on(StreamName::Ordered { lane: number }, Expected::Reader);
        let mut is_first = true;
        while let Some(mut bytes) = self.shared.outgoing(self.peer, self.epoch, lane).await {
            if std::mem::take(&mut is_first) {
                stream.write_all(&[kind::ORDERED, number]).await.map_err(ended)?;
            }
            while !bytes.is_empty() {
                // quinn takes as much as the peer's credit allows (RFC 9000 §4.1), and keeps the buffer
                // without a copy.
                let written = stream.write_chunks(std::slice::from_mut(&mut bytes)).await.map_err(ended)?;
                self.shared.written(self.peer, self.epoch, lane, written.bytes);
            }
        }
        // A stream that is dropped ends (RFC 9000 §3.1), and the peer would take that for a violation.
        self.connection.closed().await;
        Ok(())
    }

    async fn write_bulk(self) -> Result<(), Stop> {
        let lane = usize::from(self.shared.config.ordered_lanes);
        // Few messages at a time: each one that arrives occupies memory of the receiver until it is complete.
        let streams = Arc::new(Semaphore::new(usize::from(self.shared.config.bulk_streams)));
        let mut messages = JoinSet::new();
        loop {
            let Ok(permit) = Arc::clone(&streams).acquire_owned().await else { return Ok(()) };
            while messages.try_join_next().is_some() {}
            // After the permit, so that messages wait where they count against the lane.
            let Some(payload) = self.shared.outgoing(self.peer, self.epoch, lane).await else {
                return Ok(());
            };
            // Waits when the peer has not yet finished reading earlier ones (RFC 9000 §4.6).
            let Ok(stream) = self.connection.open_uni().await else { return Ok(()) };
            let tasks = self.clone();
            messages.spawn(async move {
                self_guarded(tasks, stream, payload, lane).await;
                drop(permit);
            });
        }
    }

    async fn write_message(
        self,
        mut stream: SendStream,
        mut payload: Bytes,
        lane: usize,
    ) -> Result<(), Stop> {
        // Ordered lanes go first: a bulk message may take seconds, and a heartbeat behind it would be late
        // (RFC 9000 §2.3).
        let _ = stream.set_priority(-1);
        let mut head = [kind::BULK, 0, 0, 0, 0];
        head[1..].copy_from_slice(&length(payload.len()));
        let ended = |error: WriteError| Stop::from(error).on(StreamName::Bulk, Expected::Reader);
        stream.write_all(&head).await.map_err(ended)?;
        let mut released = 4;
        while !payload.is_empty() {
            let written = stream.write_chunks(std::slice::from_mut(&mut payload)).await.map_err(ended)?;
            self.shared.written(self.peer, self.epoch, lane, written.bytes + std::mem::take(&mut released));
        }
        self.shared.written(self.peer, self.epoch, lane, released);
        let _ = stream.finish();
        Ok(())
    }

    async fn read_datagrams(self) -> Result<(), Stop> {
        loop {
            let Ok(payload) = self.connection.read_datagram().await else { return Ok(()) };
            // RFC 9221 §3: the transport parameter bounds frames, and by it quinn bounds memory. This bound
            // is the protocol's own.
            let len_max = super::transport::DATAGRAM_LEN_MAX;
            if payload.len() > len_max {
                let (len, len_max) = (payload.len() as u64, len_max as u64);
                return Err(Violation::MessageLength { len, len_max }.into());
            }
            let is_open = self.shared.change(|state, wakers| {
                let lane = state.datagram();
                let room = state.receive_queue_len_max;
                let segment = state.peers.get_mut(&self.peer)?.inbox.running(self.epoch)?;
                // Datagrams that the owner does not receive in time are dropped here (RFC 9221 §5.3). An
                // empty one takes room too.
                let waiting = segment.lanes.get(lane)?;
                if waiting.len + payload.len() > room || waiting.messages.len() > room / 64 {
                    return Some(());
                }
                let message = std::iter::once(payload.to_vec());
                state.deliver(self.peer, self.epoch, lane, message, wakers).map(|_| ())
            });
            if is_open.is_none() {
                return Ok(());
            }
        }
    }

    async fn accept(self) -> Result<(), Stop> {
        let lanes: Arc<[OnceLock<()>]> =
            (0..self.shared.config.ordered_lanes).map(|_| OnceLock::new()).collect();
        let mut streams = JoinSet::new();
        while let Ok(stream) = self.connection.accept_uni().await {
            // Finished tasks are removed, or a long connection would collect one for each bulk message.
            while streams.try_join_next().is_some() {}
            let task = self.clone().read(stream, Arc::clone(&lanes));
            streams.spawn(self.clone().guard(task));
        }
        Ok(())
    }

    async fn read(self, mut stream: RecvStream, lanes: Arc<[OnceLock<()>]>) -> Result<(), Stop> {
        let ended = |error: ReadExactError| Stop::from(error).on(StreamName::New, Expected::Kind);
        let mut byte = [0];
        stream.read_exact(&mut byte).await.map_err(ended)?;
        match byte[0] {
            kind::ORDERED => {
                stream.read_exact(&mut byte).await.map_err(ended)?;
                let lane = lanes.get(usize::from(byte[0])).ok_or(Violation::Lane { lane: byte[0] })?;
                // Two streams of one lane would have no order among them.
                lane.set(()).map_err(|()| Violation::StreamTwice)?;
                self.read_lane(stream, byte[0]).await
            }
            kind::BULK => self.read_message(stream).await,
            kind::CONTROL => Err(Violation::StreamTwice.into()),
            kind => Err(Violation::StreamKind { kind }.into()),
        }
    }

    async fn read_lane(self, mut stream: RecvStream, number: u8) -> Result<(), Stop> {
        let lane = usize::from(number);
        let ended = |stop: Stop| stop.on(StreamName::Ordered { lane: number }, Expected::EndOfConnection);
        let mut decoder = FrameDecoder::new(self.shared.config.message_len_max);
        let mut chunks: Vec<Bytes> = vec![Bytes::new(); CHUNKS];
        let mut messages = Vec::new();
        loop {
            let read = stream.read_chunks(&mut chunks).await.map_err(|error| ended(error.into()))?;
            let Some(count) = read else { return Err(ended(Stop::Ended)) };
            let mut result = Ok(());
            for chunk in chunks.iter_mut().take(count) {
                result = result.and_then(|()| decoder.push(chunk, &mut messages));
                *chunk = Bytes::new();
            }
            // Messages that were whole before a violation have arrived, and are delivered.
            if !messages.is_empty() {
                let has_room = self.shared.change(|state, wakers| {
                    state.deliver(self.peer, self.epoch, lane, messages.drain(..), wakers)
                });
                result?;
                // Not to read on is what slows the peer down: quinn grants credit for what was read (RFC 9000
                // §4.1).
                if !has_room.ok_or(Stop::Over)? {
                    self.shared.room(self.peer, self.epoch, lane, 0).await.ok_or(Stop::Over)?;
                }
            }
            result?;
        }
    }

    async fn read_message(self, mut stream: RecvStream) -> Result<(), Stop> {
        let lane = usize::from(self.shared.config.ordered_lanes);
        let len_max = self.shared.config.bulk_len_max;
        let ended = |stop: Stop| stop.on(StreamName::Bulk, Expected::RestOfMessage);
        let mut header = [0; 4];
        stream.read_exact(&mut header).await.map_err(|error| ended(error.into()))?;
        let len = check_len(u32::from_le_bytes(header), len_max)?;
        // Room is reserved before the content is read, so that many bulk messages at once cannot exceed the
        // inbox.
        self.shared.room(self.peer, self.epoch, lane, len).await.ok_or(Stop::Over)?;
        let mut decoder = FrameDecoder::with_body(len_max, self.shared.spares.take(len).unwrap_or_default());
        let mut messages = Vec::new();
        decoder.push(&header, &mut messages)?;
        let mut missing = len;
        let mut chunks: Vec<Bytes> = vec![Bytes::new(); CHUNKS];
        while let Some(count) = stream.read_chunks(&mut chunks).await.map_err(|error| ended(error.into()))? {
            for chunk in chunks.iter_mut().take(count) {
                // One message for each stream: its end is the end of the message.
                missing = missing.checked_sub(chunk.len()).ok_or(Violation::TrailingBytes)?;
                decoder.push(chunk, &mut messages)?;
                *chunk = Bytes::new();
            }
        }
        if messages.len() != 1 {
            return Err(ended(Stop::Ended));
        }
        self.shared
            .change(|state, wakers| {
                // The message takes the room that was reserved for it.
                let segment = state.peers.get_mut(&self.peer)?.inbox.running(self.epoch)?;
                let waiting = segment.lanes.get_mut(lane)?;
                waiting.len = waiting.len.saturating_sub(len);
                state.deliver(self.peer, self.epoch, lane, messages.drain(..), wakers)
            })
            .map(|_| ())
            .ok_or(Stop::Over)
    }
}

async fn self_guarded(tasks: Tasks, stream: SendStream, payload: Bytes, lane: usize) {
    tasks.clone().guard(tasks.write_message(stream, payload, lane)).await;
}
