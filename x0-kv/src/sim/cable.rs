//! The layers of the simulator between the mux of a node and the network, and between a service and its
//! channel.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use x0_identity::NodeId;
use x0_mesh::{Lane, PeerEvent, PeerEventKind, Received, RecvError, SendError, Transmit, Transport};

use super::network::Weather;
use super::random::Random;
use super::trace::Trace;
use crate::cluster::Versioned;

/// Counts of messages, and the trace of what was delivered. Shared by all cables of a world.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub(super) silent: u64,
    pub(super) sent: u64,
    pub(super) lost: u64,
    pub(super) twice: u64,
    pub(super) late: u64,
    pub(super) trace: Trace,
}

/// Shared by the world and its cables; one thread uses it.
#[derive(Debug, Clone, Default)]
pub(super) struct SharedTraffic(Arc<Mutex<Traffic>>);

impl SharedTraffic {
    pub(super) fn lock(&self) -> MutexGuard<'_, Traffic> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The switch of a [`Cable`].
#[derive(Debug, Clone, Default)]
pub(super) struct Switch(Arc<std::sync::atomic::AtomicBool>);

impl Switch {
    /// Takes the process off the network, as if it were killed: nothing more is sent, no goodbye either.
    pub(super) fn cut(&self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    fn is_cut(&self) -> bool {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// A transport that is counted and can be cut.
pub(super) struct Cable<T> {
    inner: T,
    switch: Switch,
    traffic: SharedTraffic,
}

impl<T> Cable<T> {
    pub(super) fn new(inner: T, switch: Switch, traffic: SharedTraffic) -> Cable<T> {
        Cable { inner, switch, traffic }
    }
}

impl<T: Transport> Transport for Cable<T> {
    fn local(&self) -> NodeId {
        self.inner.local()
    }

    fn message_len_max(&self, lane: Lane) -> usize {
        self.inner.message_len_max(lane)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<Result<(), SendError>> {
        if self.switch.is_cut() {
            return Poll::Ready(Err(SendError::Closed));
        }
        let sent = self.inner.poll_send(cx, transmit);
        match &sent {
            Poll::Ready(Ok(())) => self.traffic.lock().sent += 1,
            Poll::Ready(Err(_)) => self.traffic.lock().lost += 1,
            Poll::Pending => {}
        }
        sent
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        payload: &mut Vec<u8>,
    ) -> Poll<Result<Received, RecvError>> {
        let received = self.inner.poll_recv(cx, payload)?;
        if let Poll::Ready(received) = &received {
            let way = received.from.get() << 8 | self.inner.local().get();
            self.traffic.lock().trace.note_bytes(way, payload);
        }
        received.map(Ok)
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<PeerEvent> {
        let event = self.inner.poll_event(cx);
        if let Poll::Ready(PeerEvent { kind: PeerEventKind::Degraded, .. }) = &event {
            self.traffic.lock().silent += 1;
        }
        event
    }
}

/// The channel of a service whose protocol must bear it that messages are lost, doubled and overtaken by
/// others, as no lane of the transport in order would do it.
pub(super) struct Lossy<T> {
    inner: T,
    weather: SharedWeather,
    random: Random,
    traffic: SharedTraffic,
    /// Messages that come twice or are overtaken, and how many others come before them.
    held: VecDeque<(u64, Received, Vec<u8>)>,
}

/// The weather, as the world sets it.
#[derive(Debug, Clone)]
pub(super) struct SharedWeather(Arc<Mutex<Weather>>);

impl SharedWeather {
    pub(super) fn new(weather: Weather) -> SharedWeather {
        SharedWeather(Arc::new(Mutex::new(weather)))
    }

    pub(super) fn set(&self, weather: Weather) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = weather;
    }

    pub(super) fn get(&self) -> Weather {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Lossy<T> {
    pub(super) fn new(inner: T, weather: SharedWeather, random: Random, traffic: SharedTraffic) -> Lossy<T> {
        Lossy { inner, weather, random, traffic, held: VecDeque::new() }
    }

    /// A held message that enough others have overtaken.
    fn release(&mut self) -> Option<(Received, Vec<u8>)> {
        let due = self.held.iter().position(|(others, _, _)| *others == 0)?;
        self.held.remove(due).map(|(_, received, payload)| (received, payload))
    }
}

impl Versioned for Lossy<Box<dyn Versioned>> {
    fn version(&self, peer: NodeId) -> Option<u16> {
        self.inner.version(peer)
    }
}

impl<T: Transport + ?Sized> Transport for Lossy<Box<T>> {
    fn local(&self) -> NodeId {
        self.inner.local()
    }

    fn message_len_max(&self, lane: Lane) -> usize {
        self.inner.message_len_max(lane)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<Result<(), SendError>> {
        self.inner.poll_send(cx, transmit)
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        payload: &mut Vec<u8>,
    ) -> Poll<Result<Received, RecvError>> {
        loop {
            if let Some((received, message)) = self.release() {
                *payload = message;
                return Poll::Ready(Ok(received));
            }
            let Poll::Ready(received) = self.inner.poll_recv(cx, payload)? else { return Poll::Pending };
            let weather = self.weather.get();
            self.held.iter_mut().for_each(|(others, _, _)| *others = others.saturating_sub(1));
            if self.random.chance(weather.lost) {
                self.traffic.lock().lost += 1;
                continue;
            }
            let others = self.random.between(1, 12);
            if self.random.chance(weather.twice) {
                self.traffic.lock().twice += 1;
                self.held.push_back((others, received, payload.clone()));
            } else if self.random.chance(weather.late) {
                self.traffic.lock().late += 1;
                self.held.push_back((others, received, std::mem::take(payload)));
                continue;
            }
            return Poll::Ready(Ok(received));
        }
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<PeerEvent> {
        self.inner.poll_event(cx)
    }
}
