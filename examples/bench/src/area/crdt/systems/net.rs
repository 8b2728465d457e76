//! Two replicas and two sessions over a link in virtual time.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, bail};
use x0_crdt::{CausalMap, Session, SessionInput, SessionOptions, SessionOutput};

use super::super::processor_time;
use crate::random::Random;

/// The link of the datagrams, the same in both directions.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Link {
    pub(in super::super) bytes_per_second: u64,
    pub(in super::super) delay: Duration,
    /// Lost datagrams, in percent.
    pub(in super::super) loss: u32,
}

impl Link {
    /// A gigabit a second, loses nothing.
    pub(in super::super) const FAST: Self =
        Self { bytes_per_second: 125_000_000, delay: Duration::from_micros(100), loss: 0 };
}

/// A datagram in flight: the receiver and the bytes.
type Flight = (usize, Vec<u8>);

pub(in super::super) struct Net {
    now: Duration,
    maps: [CausalMap; 2],
    sessions: [Session; 2],
    link: Link,
    /// Until when each direction is busy.
    busy: [Duration; 2],
    /// By arrival time, then by number for equal times.
    wire: BTreeMap<(Duration, u64), Flight>,
    sent: u64,
    bytes: usize,
    /// The longest call of a session, in seconds of processor time.
    longest: f64,
    random: Random,
}

impl Net {
    pub(in super::super) fn new(
        maps: [CausalMap; 2],
        options: &SessionOptions,
        link: Link,
        seed: u64,
    ) -> Self {
        Self {
            now: Duration::ZERO,
            maps,
            sessions: [seed, seed + 1].map(|seed| Session::new(options, seed)),
            link,
            busy: [Duration::ZERO; 2],
            wire: BTreeMap::new(),
            sent: 0,
            bytes: 0,
            longest: 0.0,
            random: Random::new(seed),
        }
    }

    pub(in super::super) const fn now(&self) -> Duration {
        self.now
    }

    /// Bytes of datagrams sent so far by both, lost ones included, without the headers below them.
    pub(in super::super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(in super::super) const fn map(&self, at: usize) -> &CausalMap {
        &self.maps[at]
    }

    pub(in super::super) const fn map_mut(&mut self, at: usize) -> &mut CausalMap {
        &mut self.maps[at]
    }

    pub(in super::super) const fn set_link(&mut self, link: Link) {
        self.link = link;
    }

    /// The longest call of a session since the last call of this, in seconds of processor time.
    pub(in super::super) const fn take_longest(&mut self) -> f64 {
        std::mem::replace(&mut self.longest, 0.0)
    }

    fn handle(&mut self, at: usize, input: SessionInput<'_>) -> Result<()> {
        let (now, session, map) = (self.now, &mut self.sessions[at], &mut self.maps[at]);
        let (handled, seconds) = processor_time(|| session.handle(now, input, map));
        self.longest = self.longest.max(seconds);
        Ok(handled?)
    }

    /// Notifies the session of a write to its map.
    pub(in super::super) fn changed(&mut self, at: usize) -> Result<()> {
        self.handle(at, SessionInput::Changed)?;
        self.pump();
        Ok(())
    }

    pub(in super::super) fn run(&mut self, time: Duration) -> Result<()> {
        let end = self.now + time;
        while self.now < end {
            self.advance(end)?;
        }
        Ok(())
    }

    /// Until both contents are equal, whether or not the sessions know it.
    pub(in super::super) fn run_until_agreed(&mut self, limit: Duration) -> Result<()> {
        self.run_until(limit, |net| net.maps[0].frontier() == net.maps[1].frontier())
    }

    /// Until both sessions know that the contents are equal.
    pub(in super::super) fn run_until_in_sync(&mut self, limit: Duration) -> Result<()> {
        self.run_until(limit, |net| net.sessions.iter().all(Session::is_in_sync))?;
        if self.maps[0].frontier() != self.maps[1].frontier() {
            bail!("the sessions say that they are in sync and are not");
        }
        Ok(())
    }

    fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> Result<()> {
        let end = self.now + limit;
        while !done(self) {
            if self.now >= end {
                bail!("not in sync after {limit:?} of virtual time");
            }
            self.advance(end)?;
        }
        Ok(())
    }

    /// Goes to the next moment at which something happens, but not beyond `end`.
    fn advance(&mut self, end: Duration) -> Result<()> {
        let timeout = self.sessions.iter().filter_map(Session::poll_timeout).min().unwrap_or(end);
        let arrival = self.wire.keys().next().map_or(Duration::MAX, |(at, _)| *at);
        let next = timeout.min(arrival).max(self.now);
        if next > end {
            self.now = end;
            return Ok(());
        }
        // A session that requests an immediate call again and again would stop virtual time.
        self.now =
            if next == self.now && arrival > self.now { next + Duration::from_micros(1) } else { next };
        while let Some(entry) = self.wire.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let (to, datagram) = entry.remove();
            self.handle(to, SessionInput::Datagram(&datagram))?;
        }
        for at in 0..2 {
            if self.sessions[at].poll_timeout().is_some_and(|due| due <= self.now) {
                self.handle(at, SessionInput::Timeout)?;
            }
        }
        self.pump();
        Ok(())
    }

    fn pump(&mut self) {
        for from in 0..2 {
            while let Some(output) = self.sessions[from].poll_output() {
                let SessionOutput::Send(datagram) = output else { continue };
                self.bytes += datagram.len();
                self.sent += 1;
                let nanos = datagram.len() as u64 * 1_000_000_000 / self.link.bytes_per_second;
                self.busy[from] = self.busy[from].max(self.now) + Duration::from_nanos(nanos);
                if self.random.below(100) >= self.link.loss {
                    self.wire.insert((self.busy[from] + self.link.delay, self.sent), (1 - from, datagram));
                }
            }
        }
    }
}
