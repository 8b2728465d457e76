//! foca 2, with its settings for a local network, its extensions, and identities that join again by
//! themselves.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;

use foca::{AccumulatingRuntime, Config, Identity, Member, OwnedNotification, PostcardCodec, Timer};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};

use super::schedule::Schedule;
use super::world::{Effect, Engine, System};

pub(super) struct Foca(Config);

impl Foca {
    pub(super) fn new(size: u64) -> Foca {
        let size = u32::try_from(size).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
        Foca(Config::new_lan(size))
    }
}

/// A member, and the number of its identity: a member that was declared dead takes the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Id {
    member: u64,
    number: u32,
}

impl Identity for Id {
    type Addr = u64;

    fn renew(&self) -> Option<Id> {
        Some(Id { number: self.number + 1, ..*self })
    }

    fn addr(&self) -> u64 {
        self.member
    }

    fn win_addr_conflict(&self, adversary: &Id) -> bool {
        self.number > adversary.number
    }
}

impl System for Foca {
    type Engine = FocaEngine;

    fn start(&self, member: u64, start: u32, schedule: &Schedule, now: Duration) -> FocaEngine {
        // More than the members that are declared dead while a process runs.
        let local = Id { member, number: start << 20 };
        let random = SmallRng::seed_from_u64(schedule.seed ^ (member << 32) ^ u64::from(start));
        let foca = foca::Foca::new(local, self.0.clone(), random, PostcardCodec);
        let runtime = AccumulatingRuntime::new();
        let mut engine = FocaEngine { foca, runtime, timers: Vec::new(), effects: VecDeque::new() };
        let others = (1..=schedule.size).filter(|other| *other != member);
        let others = others.map(|member| Id { member, number: 0 });
        // Neither is refused: the identities are not the own one.
        if start == 0 {
            let _ = engine.foca.apply_many(others.map(Member::alive), false, &mut engine.runtime);
        } else {
            for other in others {
                let _ = engine.foca.announce(other, &mut engine.runtime);
            }
        }
        engine.drain(now);
        engine
    }
}

pub(super) struct FocaEngine {
    foca: foca::Foca<Id, PostcardCodec, SmallRng, foca::NoCustomBroadcast>,
    runtime: AccumulatingRuntime<Id>,
    timers: Vec<(Duration, Timer<Id>)>,
    effects: VecDeque<Effect>,
}

impl FocaEngine {
    fn drain(&mut self, now: Duration) {
        while let Some((to, message)) = self.runtime.to_send() {
            self.effects.push_back(Effect::Send { to: to.member, message: message.to_vec() });
        }
        while let Some((after, timer)) = self.runtime.to_schedule() {
            self.timers.push((now + after, timer));
        }
        while let Some(notification) = self.runtime.to_notify() {
            self.effects.extend(match notification {
                OwnedNotification::MemberDown(id) => Some(Effect::Verdict(id.member)),
                OwnedNotification::MemberUp(id) => Some(Effect::Alive(id.member)),
                OwnedNotification::ProbeFailed(_, id) => Some(Effect::Accused(id.member)),
                _ => None,
            });
        }
    }
}

impl Engine for FocaEngine {
    fn is_due(&self, now: Duration) -> bool {
        self.timers.iter().any(|(due, _)| *due <= now)
    }

    fn timers(&mut self, now: Duration) {
        // In the order in which they were due, and as foca's documentation asks among equals.
        let mut due: Vec<_> = self.timers.extract_if(.., |(due, _)| *due <= now).collect();
        due.sort_unstable_by(|one, other| (one.0, &one.1).cmp(&(other.0, &other.1)));
        for (_, timer) in due {
            // A process that was stopped in the middle of a probe says so, and goes on.
            let _ = self.foca.handle_timer(timer, &mut self.runtime);
        }
        self.drain(now);
    }

    fn receive(&mut self, now: Duration, _from: u64, message: &[u8]) {
        // Messages to an identity that was given up are refused.
        let _ = self.foca.handle_data(message, &mut self.runtime);
        self.drain(now);
    }

    fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }
}
