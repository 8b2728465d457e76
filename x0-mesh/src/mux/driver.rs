//! Carries messages between the transport and the protocol engine.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use x0_identity::NodeId;

use super::engine::{Engine, Input, NotNow, Output, Wake};
use super::error::RegisterError;
use super::frame::{Offer, TRAILER_LEN, Trailer};
use super::options::{ChannelOptions, MuxOptions};
use super::signal::{Signal, Wakers};
use super::stats::MuxStats;
use super::turns::Turns;
use crate::telemetry::MuxTelemetry;
use crate::{Lane, Next, PeerEvent, PeerEventKind, Received, RecvError, SendError, Transmit, Transport};

/// How much of the transport one poll of one channel takes, before the tasks of the others go on with it.
const PUMP_MAX: usize = 256;
/// The lane of control messages.
const CONTROL: Lane = Lane::Ordered(0);

/// The operation for which the channel that drives the mux is polled: its owner is answered, and needs no
/// waker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Polling {
    pub(super) slot: usize,
    pub(super) receiver: bool,
    pub(super) event: bool,
}

impl Polling {
    pub(super) fn nothing() -> Polling {
        Polling { slot: 0, receiver: false, event: false }
    }

    fn answers(self, slot: usize, wake: Wake) -> bool {
        self.slot == slot
            && match wake {
                Wake::Receiver => self.receiver,
                Wake::Event => self.event,
                Wake::Senders => false,
            }
    }
}

/// The state that a mux and its channels share.
#[derive(Debug)]
pub(super) struct Shared {
    core: Mutex<Core>,
    signal: Arc<Signal>,
}

pub(super) struct Core {
    transport: Box<dyn Transport>,
    pub(super) engine: Engine,
    signal: Arc<Signal>,
    /// The signal, as the transport takes it.
    waker: Waker,
    /// Control messages that their lane did not take.
    held: BTreeMap<NodeId, Vec<u8>>,
    /// Peers that are being reached for the first time, as far as that was found out.
    reaching: BTreeSet<NodeId>,
    turns: Turns,
    lanes: Lanes,
    telemetry: MuxTelemetry,
    published: MuxStats,
    /// The last message was not taken because others have their turn.
    gave_way: bool,
    over: Option<RecvError>,
    /// Called once the lock is free.
    wakers: Wakers,
}

/// Which ordered lane of the transport each ordered lane of a channel uses. Only the sender knows: the
/// receiver goes by the trailer.
#[derive(Debug)]
struct Lanes {
    /// How many lanes of channels use each.
    uses: Vec<usize>,
    by_slot: Vec<Vec<u8>>,
}

impl Lanes {
    fn new(transport: &dyn Transport) -> Lanes {
        let count =
            (0..=u8::MAX).take_while(|lane| transport.message_len_max(Lane::Ordered(*lane)) > 0).count();
        Lanes { uses: vec![0; count], by_slot: Vec::new() }
    }

    /// Gives each lane of a channel the lane that the fewest others use. The first one is for control
    /// messages, if there are more.
    fn register(&mut self, slot: usize, ordered_lanes: u8) {
        let first = usize::from(self.uses.len() > 1);
        let mut lanes = Vec::with_capacity(ordered_lanes.into());
        for _ in 0..ordered_lanes {
            let least = (first..self.uses.len()).min_by_key(|lane| self.uses.get(*lane).copied());
            let lane = least.unwrap_or(0);
            if let Some(uses) = self.uses.get_mut(lane) {
                *uses += 1;
            }
            lanes.push(u8::try_from(lane).unwrap_or(0));
        }
        if self.by_slot.len() <= slot {
            self.by_slot.resize_with(slot + 1, Vec::new);
        }
        if let Some(entry) = self.by_slot.get_mut(slot) {
            *entry = lanes;
        }
    }

    fn unregister(&mut self, slot: usize) {
        for lane in self.by_slot.get_mut(slot).map(std::mem::take).unwrap_or_default() {
            if let Some(uses) = self.uses.get_mut(usize::from(lane)) {
                *uses -= 1;
            }
        }
    }

    fn of(&self, slot: usize, lane: Lane) -> Option<Lane> {
        match lane {
            Lane::Ordered(number) => {
                let lanes = self.by_slot.get(slot)?;
                lanes.get(usize::from(number)).map(|lane| Lane::Ordered(*lane))
            }
            lane => Some(lane),
        }
    }
}

/// The longest message of a channel, given that of the transport.
fn len_max(transport: &dyn Transport, lane: Lane) -> u32 {
    let len_max = transport.message_len_max(lane).saturating_sub(TRAILER_LEN);
    u32::try_from(len_max).unwrap_or(u32::MAX)
}

impl Shared {
    pub(super) fn new(transport: Box<dyn Transport>, options: &MuxOptions) -> Shared {
        let signal = Arc::new(Signal::new());
        let core = Core {
            engine: Engine::new(transport.local(), options.seed),
            lanes: Lanes::new(&*transport),
            transport,
            signal: Arc::clone(&signal),
            waker: Waker::from(Arc::clone(&signal)),
            held: BTreeMap::new(),
            reaching: BTreeSet::new(),
            telemetry: MuxTelemetry::new(),
            published: MuxStats::default(),
            turns: Turns::default(),
            gave_way: false,
            over: None,
            wakers: Wakers::default(),
        };
        Shared { core: Mutex::new(core), signal }
    }

    pub(super) fn signal(&self) -> &Signal {
        &self.signal
    }

    /// Nothing in it panics, and what its owner's code does happens outside.
    pub(super) fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to the core, and calls the wakers once the lock is free.
    pub(super) fn change<R>(&self, change: impl FnOnce(&mut Core) -> R) -> R {
        let mut core = self.lock();
        let result = change(&mut core);
        if core.wakers.is_empty() {
            return result;
        }
        let wakers = std::mem::take(&mut core.wakers);
        drop(core);
        wakers.wake();
        result
    }

    /// Moves messages for all channels, once: the task is woken again if there is more, so that those of the
    /// channels have their turn.
    pub(super) fn drive(&self, waker: &Waker) {
        self.change(|core| {
            core.pump(Polling::nothing());
            self.signal.wait_to_drive(waker);
            // What came before the waker was registered has called the signal.
            if self.signal.is_ready() {
                core.wakers.add(waker.clone());
            }
        });
    }

    /// Tries something until it is ready, or there is nothing new that could make it so.
    pub(super) fn poll<R>(
        &self,
        polling: Polling,
        wait: impl Fn(&Signal),
        mut poll: impl FnMut(&mut Core) -> Poll<R>,
    ) -> Poll<R> {
        self.change(|core| {
            loop {
                // Before the look into the inbox: lanes take turns only among messages that are here.
                core.pump(polling);
                if let Poll::Ready(ready) = poll(core) {
                    core.flush(polling);
                    return Poll::Ready(ready);
                }
                wait(&self.signal);
                // An event before the waker was registered has called the signal, or will call the waker.
                if std::mem::take(&mut core.gave_way) || !self.signal.is_ready() {
                    return Poll::Pending;
                }
            }
        })
    }
}

impl Core {
    pub(super) fn local(&self) -> NodeId {
        self.transport.local()
    }

    pub(super) fn register(&mut self, options: &ChannelOptions) -> Result<(usize, Offer), RegisterError> {
        let channel = options.check()?;
        let transport = &*self.transport;
        let offer = Offer {
            channel,
            version_min: *options.versions.start(),
            version_max: *options.versions.end(),
            lane_budget: options.lane_budget,
            ordered_lanes: if self.lanes.uses.is_empty() { 0 } else { options.ordered_lanes },
            // The shortest, since a lane of a channel may become any of them.
            ordered_len_max: (0..self.lanes.uses.len())
                .filter_map(|lane| Some(len_max(transport, Lane::Ordered(u8::try_from(lane).ok()?))))
                .min()
                .unwrap_or(0),
            bulk_len_max: if options.bulk { len_max(transport, Lane::Bulk) } else { 0 },
            datagram_len_max: if options.datagram { len_max(transport, Lane::Datagram) } else { 0 },
        };
        let slot = self.engine.register(offer)?;
        self.signal.clear(slot);
        self.lanes.register(slot, offer.ordered_lanes);
        self.flush(Polling::nothing());
        Ok((slot, offer))
    }

    pub(super) fn unregister(&mut self, slot: usize) {
        self.engine.unregister(slot);
        self.signal.clear(slot);
        self.lanes.unregister(slot);
        self.turns.forget_channel(slot);
        self.flush(Polling::nothing());
    }

    /// Takes in what the transport has, for every channel, until it has nothing more: only then does it call
    /// the signal again.
    pub(super) fn pump(&mut self, polling: Polling) {
        if !self.signal.take_ready() || self.over.is_some() {
            return;
        }
        // The signal also stands for control lanes that have room again.
        self.retry();
        let waker = self.waker.clone();
        let mut cx = Context::from_waker(&waker);
        let mut is_called = false;
        for _ in 0..PUMP_MAX {
            // A transport may call the signal inside of its methods. This poll finds what that means.
            is_called |= self.signal.take_ready();
            let mut message = Vec::new();
            let input = match self.transport.poll_next(&mut cx, &mut message) {
                Poll::Pending => {
                    if is_called {
                        self.retry();
                    }
                    self.flush(polling);
                    return;
                }
                Poll::Ready(Ok(Next::Message(Received { from, lane }))) => {
                    Input::Message { from, lane, message }
                }
                Poll::Ready(Ok(Next::Event(event))) => {
                    self.reaching.remove(&event.peer);
                    if matches!(event.kind, PeerEventKind::Down { .. }) {
                        self.held.remove(&event.peer);
                        self.turns.forget_peer(event.peer);
                    }
                    // A channel that waits to send to a peer that could not be reached gets the reason.
                    self.signal.take_all(&mut self.wakers);
                    Input::Event(event)
                }
                Poll::Ready(Err(error)) => {
                    self.over = Some(error);
                    self.signal.take_all(&mut self.wakers);
                    return;
                }
            };
            // The engine has counted it and ended what it concerns.
            let _ = self.engine.handle(Duration::ZERO, input);
        }
        // The transport has more and will not call the signal for it: the tasks of the other channels go on,
        // as does this one.
        self.flush(polling);
        self.signal.set_ready();
        self.signal.take_all(&mut self.wakers);
    }

    /// Does what the engine wants. A channel that is just being polled for something is not woken for it.
    fn flush(&mut self, polling: Polling) {
        if self.published != self.engine.stats {
            self.telemetry.publish(&self.published, &self.engine.stats);
            self.published = self.engine.stats;
        }
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Wake { slot, wake } if polling.answers(slot, wake) => {}
                Output::Wake { slot, wake } => self.signal.take(slot, wake, &mut self.wakers),
                Output::Control { to, body } => self.send_control(to, body),
            }
        }
    }

    fn send_control(&mut self, to: NodeId, body: Vec<u8>) {
        let mut cx = Context::from_waker(&self.waker);
        let transmit = Transmit { to, lane: CONTROL, payload: &body };
        let sent = self.transport.poll_send_with_trailer(&mut cx, &transmit, &Trailer::CONTROL.encode());
        // An error means that the epoch is over, and with it all that the message was about.
        if sent.is_pending() {
            self.held.insert(to, body);
            self.engine.hold(to, true);
        }
    }

    /// Offers the control messages again that were not taken.
    fn retry(&mut self) {
        for (to, body) in std::mem::take(&mut self.held) {
            self.engine.hold(to, false);
            self.send_control(to, body);
        }
    }

    pub(super) fn poll_send(
        &mut self,
        cx: &Context<'_>,
        slot: usize,
        transmit: &Transmit<'_>,
    ) -> Poll<Result<(), SendError>> {
        let Transmit { to, lane, payload } = *transmit;
        if self.over.is_some() {
            return Poll::Ready(Err(SendError::Closed));
        }
        let trailer = match self.engine.reserve(slot, to, lane, payload.len()) {
            Ok(trailer) => trailer,
            Err(NotNow::Refused(error)) => return Poll::Ready(Err(error)),
            Err(NotNow::Wait) if lane == Lane::Datagram => {
                return Poll::Ready(Err(SendError::Congested { peer: to, lane }));
            }
            Err(NotNow::Wait) => return Poll::Pending,
            Err(NotNow::NotUp) => return self.reach(to, lane),
        };
        let Some(inner) = self.lanes.of(slot, lane) else {
            return Poll::Ready(Err(SendError::NoLane { lane }));
        };
        let others = self.turns.give_way(to, inner, slot);
        if !others.is_empty() {
            for other in others {
                self.signal.take(other, Wake::Senders, &mut self.wakers);
            }
            // Behind the others, so that an executor which is fair runs them first.
            self.wakers.add(cx.waker().clone());
            self.gave_way = true;
            return Poll::Pending;
        }
        let mut cx = Context::from_waker(&self.waker);
        let transmit = Transmit { to, lane: inner, payload };
        match self.transport.poll_send_with_trailer(&mut cx, &transmit, &trailer.encode()) {
            Poll::Pending => {
                self.turns.full(to, inner, slot);
                Poll::Pending
            }
            Poll::Ready(Ok(())) => {
                self.turns.sent(to, inner, slot, payload.len());
                self.engine.sent(slot, to, lane, payload.len());
                Poll::Ready(Ok(()))
            }
            // In the words of the channel.
            Poll::Ready(Err(SendError::Congested { peer, .. })) => {
                Poll::Ready(Err(SendError::Congested { peer, lane }))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        }
    }

    /// The answer to a message for a peer that is not up: an empty control message finds out whether the
    /// transport is still trying.
    fn reach(&mut self, to: NodeId, lane: Lane) -> Poll<Result<(), SendError>> {
        if !self.reaching.contains(&to) {
            let mut cx = Context::from_waker(&self.waker);
            let probe = Transmit { to, lane: CONTROL, payload: b"" };
            match self.transport.poll_send_with_trailer(&mut cx, &probe, &Trailer::CONTROL.encode()) {
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => {
                    self.reaching.insert(to);
                }
                Poll::Pending => {}
            }
        }
        if lane == Lane::Datagram {
            return Poll::Ready(Err(SendError::Congested { peer: to, lane }));
        }
        Poll::Pending
    }

    pub(super) fn poll_event(&mut self, slot: usize) -> Poll<PeerEvent> {
        self.engine.next_event(slot).map_or(Poll::Pending, Poll::Ready)
    }

    pub(super) fn poll_recv(
        &mut self,
        slot: usize,
        payload: &mut Vec<u8>,
    ) -> Poll<Result<Received, RecvError>> {
        match self.engine.next_message(slot) {
            Some(taken) => {
                *payload = taken.payload;
                Poll::Ready(Ok(taken.received))
            }
            None => self.over.clone().map_or(Poll::Pending, |over| Poll::Ready(Err(over))),
        }
    }

    pub(super) fn poll_next(&mut self, slot: usize, payload: &mut Vec<u8>) -> Poll<Result<Next, RecvError>> {
        if let Poll::Ready(event) = self.poll_event(slot) {
            return Poll::Ready(Ok(Next::Event(event)));
        }
        self.poll_recv(slot, payload).map_ok(Next::Message)
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Core")
            .field("local", &self.transport.local())
            .field("engine", &self.engine)
            .finish_non_exhaustive()
    }
}
