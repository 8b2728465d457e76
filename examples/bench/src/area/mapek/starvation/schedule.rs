//! The events of the processes and of the network: the same for each system with the same seed.

use std::time::Duration;

use super::GRACE;
use crate::random::Random;

/// Messages of a thousand that are lost.
const LOSS: u32 = 5;

/// How a process lacks processor time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lack {
    /// The process does nothing; its messages wait.
    Stopped,
    /// Timers are punctual, and each message is read 5 to 45 ms after the one before.
    ReadsLate,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    from: Duration,
    to: Duration,
    lack: Lack,
}

/// A member that dies, and starts again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Death {
    pub(super) member: u64,
    pub(super) at: Duration,
    pub(super) back_at: Duration,
}

#[derive(Debug)]
pub(super) struct Schedule {
    pub(super) seed: u64,
    pub(super) size: u64,
    pub(super) time: Duration,
    /// By member, in order and apart from each other.
    spans: Vec<Vec<Span>>,
    pub(super) deaths: Vec<Death>,
}

fn ms(milliseconds: u32) -> Duration {
    Duration::from_millis(u64::from(milliseconds))
}

/// Uniform between two numbers of milliseconds.
fn between(random: &mut Random, least: u32, most: u32) -> Duration {
    ms(least + random.below(most - least))
}

impl Schedule {
    /// Nothing happens, beside the delays of the network.
    pub(super) fn calm(seed: u64, size: u64, time: Duration) -> Schedule {
        let spans = (0..size).map(|_| Vec::new()).collect();
        Schedule { seed, size, time, spans, deaths: Vec::new() }
    }

    pub(super) fn new(seed: u64, size: u64, time: Duration) -> Schedule {
        let mut schedule = Schedule::calm(seed, size, time);
        let mut random = Random::new(seed);
        let mut now = ms(10_000);
        while now < time {
            let until = schedule.episode(&mut random, now);
            now = until + between(&mut random, 200, 3000);
        }
        for spans in &mut schedule.spans {
            spans.sort_by_key(|span| span.from);
            // A process that was to stop while it reads late is stopped later, or not at all.
            let mut end = Duration::ZERO;
            spans.retain(|span| {
                let is_apart = span.from >= end;
                end = end.max(span.to);
                is_apart
            });
        }
        let mut now = ms(20_000);
        while now + ms(40_000) < time {
            let member = 1 + u64::from(random.below(u32::try_from(size).unwrap_or(u32::MAX)));
            schedule.deaths.push(Death { member, at: now, back_at: now + ms(30_000) });
            now += between(&mut random, 45_000, 75_000);
        }
        schedule
    }

    /// Some members starve at once. Returns the end.
    fn episode(&mut self, random: &mut Random, now: Duration) -> Duration {
        let size = u32::try_from(self.size).unwrap_or(u32::MAX);
        let (first, count) = (random.below(size), 1 + random.below(size - 1));
        let kind = random.below(3);
        // Runs for 5 to 50 % of a period of 50 to 800 ms.
        let period = between(random, 50, 800);
        let stopped = period * (50 + random.below(46)) / 100;
        // 0.1 to 10 s, as many below 1 s as above.
        let length = Duration::from_secs_f64(0.1 * 100_f64.powf(f64::from(random.below(1000)) / 1000.0));
        let mut end = now;
        for place in 0..count {
            let Some(spans) = self.spans.get_mut(((first + place) % size) as usize) else { continue };
            let from = now + between(random, 0, 300);
            let to = from + length;
            match kind {
                0 => {
                    // Messages that came meanwhile may be read late.
                    let late = between(random, 1, 1000);
                    spans.push(Span { from, to, lack: Lack::Stopped });
                    spans.push(Span { from: to, to: to + late, lack: Lack::ReadsLate });
                    end = end.max(to + late);
                }
                1 => {
                    let mut at = from;
                    while at < to + length {
                        spans.push(Span { from: at, to: at + stopped, lack: Lack::Stopped });
                        at += period;
                    }
                    end = end.max(at);
                }
                _ => {
                    spans.push(Span { from, to, lack: Lack::ReadsLate });
                    end = end.max(to);
                }
            }
        }
        end
    }

    /// How a member lacks processor time at a moment.
    pub(super) fn lack(&self, member: u64, now: Duration) -> Option<Lack> {
        let span = self.last_begun(member, now)?;
        (now < span.to).then_some(span.lack)
    }

    /// Whether a member has run as it should for [`GRACE`]. Deaths are not considered.
    pub(super) fn is_well(&self, member: u64, now: Duration) -> bool {
        self.last_begun(member, now).is_none_or(|span| now >= span.to + GRACE)
    }

    fn last_begun(&self, member: u64, now: Duration) -> Option<&Span> {
        let spans = self.spans.get(usize::try_from(member - 1).ok()?)?;
        spans.get(spans.partition_point(|span| span.from <= now).checked_sub(1)?)
    }

    /// A number for a moment of a pair of members, the same for all systems.
    pub(super) fn chance(&self, from: u64, to: u64, now: Duration) -> Random {
        let moment = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        let mut mixed = Random::new(self.seed ^ moment.rotate_left(20) ^ (from << 52) ^ (to << 42));
        Random::new(mixed.next())
    }

    /// The delay of a message that is sent now: mostly below 5 ms, one in fifty up to 60 ms. `None` if it is
    /// lost.
    pub(super) fn delay(&self, from: u64, to: u64, now: Duration) -> Option<Duration> {
        let mut random = self.chance(from, to, now);
        if random.below(1000) < LOSS {
            return None;
        }
        let most = if random.below(50) == 0 { 60_000 } else { 5000 };
        Some(Duration::from_micros(200 + u64::from(random.below(most - 200))))
    }
}
