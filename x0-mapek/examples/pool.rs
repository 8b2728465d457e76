//! Heals the worker threads of this program: one hangs, and the loop replaces it.
//!
//! `cargo run -p x0-mapek --example pool`
#![allow(clippy::print_stdout, reason = "a program that prints what it does")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use x0_mapek::{
    Action, Disruption, Expectation, Input, Knowledge, Loop, LoopOptions, Mode, Output, Plan, Policy, Reading,
};
use x0_mapek::{Candidate, Diagnosis, detect::ReadingError};

/// The seconds since each worker finished a job.
struct Silence([f64; 4]);

impl Knowledge for Silence {
    type Subject = usize;
    fn observe(&mut self, _: Duration, reading: &Reading<usize>) -> Result<(), ReadingError> {
        self.0.get_mut(reading.subject).into_iter().for_each(|silence| *silence = reading.value);
        Ok(())
    }
    fn subject_count(&self) -> usize {
        self.0.len()
    }
    fn unhealthy(&self, _: Duration, each: &mut dyn FnMut(&usize)) {
        (0..4).filter(|worker| self.0[*worker] > 0.5).for_each(|worker| each(&worker));
    }
}

#[derive(Debug, Clone)]
struct Replace(usize);

impl Action<Silence> for Replace {
    fn kind(&self) -> &'static str {
        "replace"
    }
    fn subject(&self) -> &usize {
        &self.0
    }
    fn disruption(&self) -> Disruption {
        Disruption::Brief
    }
    fn badness(&self, silence: &Silence) -> Option<f64> {
        silence.0.get(self.0).copied()
    }
    fn expectation(&self) -> Expectation {
        Expectation { within: Duration::from_millis(500), improvement: 0.5 }
    }
}

struct ReplaceSilent;

impl Policy<Silence, Replace> for ReplaceSilent {
    fn name(&self) -> &'static str {
        "replace-silent"
    }
    fn decide(&mut self, _: Duration, silence: &Silence, plan: &mut Plan<Replace>) {
        silence.unhealthy(Duration::ZERO, &mut |worker| {
            let diagnosis = Diagnosis { cause: "hang", confidence: 0.9, runner_up: None };
            plan.propose(Candidate { action: Replace(*worker), diagnosis, utility: 1.0, evidence: vec![] });
        });
    }
}

/// A worker: it counts a job every 10 ms. One that hangs never ends its second job.
fn start(hangs: bool, jobs: &Arc<AtomicU64>) {
    let jobs = Arc::clone(jobs);
    std::thread::spawn(move || {
        loop {
            let is_stuck = hangs && jobs.load(Relaxed) == 1;
            std::thread::sleep(if is_stuck { Duration::MAX } else { Duration::from_millis(10) });
            jobs.fetch_add(1, Relaxed);
        }
    });
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool: [Arc<AtomicU64>; 4] = Default::default();
    (0..4).for_each(|worker| start(worker == 2, &pool[worker]));
    let options = LoopOptions::new().mode(Mode::Active).period(Duration::from_millis(100));
    let options = options.grace(Duration::from_millis(200)).stability(Duration::from_millis(300));
    let mut healer = Loop::new(Silence([0.0; 4]), Box::new(ReplaceSilent), options);
    let begun = Instant::now();
    let mut last = [(0, begun); 4];
    loop {
        std::thread::sleep(Duration::from_millis(50));
        for (subject, (jobs, last)) in pool.iter().zip(&mut last).enumerate() {
            if jobs.load(Relaxed) != last.0 {
                *last = (jobs.load(Relaxed), Instant::now());
            }
            let value = last.1.elapsed().as_secs_f64();
            healer.handle(
                begun.elapsed(),
                Input::Reading(Reading { subject, signal: "silence_seconds", value }),
            )?;
        }
        while let Some(output) = healer.poll_output() {
            match output {
                Output::Execute { id, action: Replace(worker), .. } => {
                    start(false, &pool[worker]);
                    healer.handle(begun.elapsed(), Input::Outcome { id, result: Ok(()) })?;
                }
                Output::Record(record) => {
                    println!("{}\n", record.explain());
                    if record.event.name() == "improved" {
                        return Ok(());
                    }
                }
                _ => {}
            }
        }
    }
}
