//! An adaptation benchmark of its own: battery-powered sensors on uncertain links.
//!
//! Each sensor sends its readings over a radio link whose noise wanders. More power costs energy and loses
//! fewer packets. The goal is a loss below 10 % at little energy (the problem of DeltaIoT, Iftikhar et al.
//! 2017; the simulation here is another one). The loop raises and lowers the power of one link at a time,
//! compares the packets before and after, and takes back what made it worse. It knows nothing of the noise.
//!
//! `cargo run --release -p x0-mapek --example sensors`
#![allow(clippy::print_stdout, reason = "a program that prints what it does")]
#![allow(dead_code, reason = "a test includes this file and has no use for `main`")]

use std::borrow::Cow;
use std::time::Duration;

use x0_mapek::detect::ReadingError;
use x0_mapek::{
    Action, Candidate, Diagnosis, Disruption, Evidence, Expectation, HandleError, Input, Knowledge, Loop,
    LoopOptions, Mode, Plan, Policy, Reading,
};

const SENSORS: usize = 15;
const POWER_MAX: u8 = 15;
/// The loss that users accept.
const GOAL: f64 = 0.1;
/// A link is left alone between these.
const BAND: (f64, f64) = (0.03, 0.07);

/// The loss and power of each link, as the gateway sees it.
struct Links {
    loss: [Option<f64>; SENSORS],
    power: [u8; SENSORS],
}

impl Knowledge for Links {
    type Subject = usize;

    fn observe(&mut self, _: Duration, reading: &Reading<usize>) -> Result<(), ReadingError> {
        let loss = self.loss.get_mut(reading.subject).ok_or(ReadingError::Unknown)?;
        if !(0.0..=1.0).contains(&reading.value) {
            return Err(ReadingError::OutOfRange { value: reading.value });
        }
        *loss = Some(loss.map_or(reading.value, |loss| 0.6 * loss + 0.4 * reading.value));
        Ok(())
    }

    fn subject_count(&self) -> usize {
        SENSORS
    }

    fn unhealthy(&self, _: Duration, each: &mut dyn FnMut(&usize)) {
        (0..SENSORS)
            .filter(|link| self.loss[*link].is_some_and(|loss| loss > GOAL))
            .for_each(|link| each(&link));
    }
}

/// Changes the power of a link.
#[derive(Debug, Clone)]
struct SetPower {
    link: usize,
    from: u8,
    to: u8,
}

impl Action<Links> for SetPower {
    fn kind(&self) -> &'static str {
        if self.to > self.from { "raise" } else { "lower" }
    }

    fn subject(&self) -> &usize {
        &self.link
    }

    fn disruption(&self) -> Disruption {
        Disruption::None
    }

    fn precondition(&self, links: &Links) -> Result<(), Cow<'static, str>> {
        if links.power[self.link] == self.from { Ok(()) } else { Err("the power has changed".into()) }
    }

    /// The cost of a link: energy, and ten times as much for what is lost beyond the goal.
    fn badness(&self, links: &Links) -> Option<f64> {
        let beyond = (links.loss[self.link]? - BAND.1).max(0.0);
        Some(f64::from(links.power[self.link]) / f64::from(POWER_MAX) + 10.0 * beyond)
    }

    fn expectation(&self) -> Expectation {
        Expectation { within: Duration::from_secs(60), improvement: 0.05 }
    }

    fn undo(&self) -> Option<SetPower> {
        Some(SetPower { link: self.link, from: self.to, to: self.from })
    }
}

/// Keeps the loss of each link within a band.
struct KeepBand;

impl Policy<Links, SetPower> for KeepBand {
    fn name(&self) -> &'static str {
        "keep-band"
    }

    fn decide(&mut self, _: Duration, links: &Links, plan: &mut Plan<SetPower>) {
        for (link, loss) in links.loss.iter().enumerate() {
            let (Some(loss), from) = (*loss, links.power[link]) else { continue };
            let (to, cause, threshold) = match loss {
                loss if loss > BAND.1 && from < POWER_MAX => ((from + 2).min(POWER_MAX), "noise", BAND.1),
                loss if loss < BAND.0 && from > 1 => (from - 1, "spare power", BAND.0),
                _ => continue,
            };
            let evidence = vec![Evidence { signal: "loss", value: loss, threshold, age: Duration::ZERO }];
            let diagnosis = Diagnosis { cause, confidence: 0.9, runner_up: None };
            // What users notice comes first.
            let utility = if to > from { 1.0 + loss } else { 0.5 };
            plan.propose(Candidate { action: SetPower { link, from, to }, diagnosis, utility, evidence });
        }
    }
}

/// Uniform numbers from 0 to 1 (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// The real links.
struct Radio {
    random: Random,
    distance: [f64; SENSORS],
    noise: [f64; SENSORS],
}

impl Radio {
    fn new(seed: u64) -> Radio {
        let mut random = Random(seed);
        let distance = std::array::from_fn(|_| 2.0 + 6.0 * random.next());
        Radio { random, distance, noise: [0.0; SENSORS] }
    }

    /// The share of 50 packets that a link loses at this power; the noise wanders.
    fn loss(&mut self, link: usize, power: u8) -> f64 {
        let step = (self.random.next() - 0.5) * 0.8;
        self.noise[link] = (self.noise[link] * 0.98 + step).clamp(-3.0, 5.0);
        let margin = f64::from(power) - self.distance[link] - self.noise[link];
        let lost = 1.0 / (1.0 + (margin + 2.0).exp());
        let packets = (0..50).filter(|_| self.random.next() < lost).count();
        packets as f64 / 50.0
    }
}

/// The way in which the power is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// All links have this power.
    Fixed(u8),
    /// The loop sets it.
    Loop,
}

/// The result of a day.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Day {
    /// The share of packets lost.
    pub(crate) loss: f64,
    /// The share of quarter hours and links with a loss above the goal.
    pub(crate) above_goal: f64,
    /// The mean power, as a share of the largest one.
    pub(crate) energy: f64,
    /// The changes of the loop, and how many it took back.
    pub(crate) changes: (usize, usize),
}

/// One day of readings every 10 s.
pub(crate) fn day(seed: u64, way: Way) -> Result<Day, HandleError> {
    let power = if let Way::Fixed(power) = way { power } else { 8 };
    let options = LoopOptions::new()
        .mode(if way == Way::Loop { Mode::Active } else { Mode::Observe })
        .period(Duration::from_secs(10))
        .grace(Duration::from_secs(60))
        .stability(Duration::from_secs(20))
        .back_off(Duration::from_secs(30))
        .back_off_max(Duration::from_secs(120))
        .attempts_max(u32::MAX)
        .storm(1.0);
    let links = Links { loss: [None; SENSORS], power: [power; SENSORS] };
    let mut healer = Loop::new(links, Box::new(KeepBand), options);
    let mut radio = Radio::new(seed);
    let (mut lost, mut spent, mut above, mut changes) = (0.0, 0.0, 0, (0, 0));
    let mut quarter = [0.0; SENSORS];
    for step in 1..=8640_u32 {
        let now = Duration::from_secs(10) * step;
        for (subject, quarter) in quarter.iter_mut().enumerate() {
            let power = healer.knowledge().power[subject];
            let value = radio.loss(subject, power);
            healer.handle(now, Input::Reading(Reading { subject, signal: "loss", value }))?;
            lost += value;
            spent += f64::from(power) / f64::from(POWER_MAX);
            *quarter += value / 90.0;
            if step % 90 == 0 {
                above += usize::from(std::mem::take(quarter) > GOAL);
            }
        }
        healer.handle(now, Input::Timeout)?;
        let mut set = Vec::new();
        let records = healer.drain(now, |action| {
            set.push((action.link, action.to));
            Ok(())
        })?;
        for (link, to) in set {
            healer.knowledge_mut().power[link] = to;
            // The old packets say nothing of the new power.
            healer.knowledge_mut().loss[link] = None;
        }
        let count = |name| records.iter().filter(|record| record.event.name() == name).count();
        changes = (changes.0 + count("executing"), changes.1 + count("undone"));
    }
    let readings = 8640.0 * SENSORS as f64;
    let above_goal = above as f64 / (96 * SENSORS) as f64;
    Ok(Day { loss: lost / readings, above_goal, energy: spent / readings, changes })
}

fn main() -> Result<(), HandleError> {
    println!("one day, {SENSORS} sensors      lost   above 10 %   energy   changes (taken back)");
    for (name, way) in [
        ("the loop", Way::Loop),
        ("fixed, power 6", Way::Fixed(6)),
        ("fixed, power 9", Way::Fixed(9)),
        ("fixed, power 15", Way::Fixed(15)),
    ] {
        let Day { loss, above_goal, energy, changes } = day(1, way)?;
        let (loss, above_goal, energy) = (loss * 100.0, above_goal * 100.0, energy * 100.0);
        print!("{name:<26} {loss:>5.1} % {above_goal:>9.1} % {energy:>7.1} %");
        println!("   {} ({})", changes.0, changes.1);
    }
    Ok(())
}
