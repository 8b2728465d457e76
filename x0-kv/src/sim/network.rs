//! What lies between them.

use bytes::Bytes;

use super::context::Context;
use super::schedule::{Event, MILLISECOND, Place, Road, Time};

/// How the links behave.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weather {
    pub(super) delay_min: Time,
    pub(super) delay_max: Time,
    /// Of a thousand messages: how many take ten times as long, are lost, or come twice.
    pub(super) late: u64,
    pub(super) lost: u64,
    pub(super) twice: u64,
}

impl Weather {
    pub(super) const CALM: Weather = Weather { delay_min: 100, delay_max: 400, late: 0, lost: 0, twice: 0 };
}

/// The links, each with a direction.
#[derive(Debug)]
pub(super) struct Network {
    places: usize,
    pub(super) weather: Weather,
    /// Through which nothing goes.
    cut: Vec<bool>,
    /// When the last message of the ordered road arrives.
    ordered_until: Vec<Time>,
    /// Rises whenever what is under way on the ordered road is lost.
    connection: Vec<u32>,
}

impl Network {
    pub(super) fn new(places: usize) -> Network {
        let links = places * places;
        Network {
            places,
            weather: Weather::CALM,
            cut: vec![false; links],
            ordered_until: vec![0; links],
            connection: vec![0; links],
        }
    }

    fn link(&self, from: Place, to: Place) -> usize {
        from * self.places + to
    }

    pub(super) fn cut(&mut self, from: Place, to: Place) {
        let link = self.link(from, to);
        self.cut[link] = true;
        self.reset(from, to);
    }

    pub(super) fn heal(&mut self) {
        self.cut.fill(false);
    }

    /// What is under way between the two on the ordered road is lost.
    pub(super) fn reset(&mut self, one: Place, other: Place) {
        for link in [self.link(one, other), self.link(other, one)] {
            self.connection[link] += 1;
        }
    }

    /// All connections of one who is no more.
    pub(super) fn forget(&mut self, place: Place) {
        for other in 0..self.places {
            self.reset(place, other);
        }
    }

    /// Whether a message that was sent on this connection arrives.
    pub(super) fn arrives(&self, from: Place, to: Place, road: Road, connection: u32) -> bool {
        let link = self.link(from, to);
        !self.cut[link] && (road == Road::Consensus || self.connection[link] == connection)
    }
}

impl Context {
    /// Sends, or loses on the way.
    pub(super) fn send(&mut self, from: Place, to: Place, road: Road, payload: Bytes) {
        self.report.messages += 1;
        let link = self.network.link(from, to);
        let weather = self.network.weather;
        if road == Road::Operations && weather.lost > 0 && self.random.below(4000) < weather.lost {
            self.network.reset(from, to);
            self.report.connections_reset += 1;
            self.lost(from, to, road);
            return self.lost(to, from, road);
        }
        if self.network.cut[link] {
            self.report.messages_lost += 1;
            if road == Road::Operations || self.random.chance(300) {
                self.lost(from, to, road);
            }
            return;
        }
        if road == Road::Consensus && self.random.chance(weather.lost) {
            self.report.messages_lost += 1;
            return;
        }
        let mut delay = self.random.between(weather.delay_min, weather.delay_max);
        if self.random.chance(weather.late) {
            delay *= 10;
            self.report.messages_late += 1;
        }
        let mut at = self.now + delay;
        if road == Road::Operations {
            at = at.max(self.network.ordered_until[link] + 1);
            self.network.ordered_until[link] = at;
        }
        let connection = self.network.connection[link];
        if road == Road::Consensus && self.random.chance(weather.twice) {
            self.report.messages_twice += 1;
            let at = self.now + self.random.between(weather.delay_min, weather.delay_max * 4);
            let payload = payload.clone();
            self.schedule.put(at, Event::Message { from, to, road, connection, payload });
        }
        self.schedule.put(at, Event::Message { from, to, road, connection, payload });
    }

    /// The sender learns of it some time later.
    pub(super) fn lost(&mut self, place: Place, peer: Place, road: Road) {
        let at = self.now + self.random.between(MILLISECOND, 400 * MILLISECOND);
        self.schedule.put(at, Event::Lost { place, peer, road });
    }
}
