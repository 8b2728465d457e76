//! Heals the worker threads of this program: one crashes, one hangs, one is slow.
use std::sync::{Arc, atomic::AtomicU32, atomic::Ordering::Relaxed};
use std::time::{Duration, Instant};
use x0_mapek::{Input, Loop, LoopOptions, Mode, Reading, limits::*};

/// A worker: it counts a job every 10 ms. From its third job on it crashes (0), hangs (1) or is slow (2).
fn start(fault: usize, jobs: Arc<AtomicU32>) -> Result<(), String> {
    let work = move || {
        for job in 0.. {
            let millis = if job < 3 { 10 } else { [0, u64::MAX, 300, 10][fault] };
            std::thread::sleep(Duration::from_millis(millis));
            assert!((fault, job) != (0, 3), "a fault that this example injects");
            jobs.fetch_add(1, Relaxed);
        }
    };
    std::thread::Builder::new().spawn(work).map(drop).map_err(|error| error.to_string())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool: [Arc<AtomicU32>; 4] = Default::default();
    (0..4).try_for_each(|worker| start(worker, pool[worker].clone()))?;
    let limits = Limits::new(0..4).limit("job_seconds", 0.1, "slow").limit("job_seconds", 1.0, "dead");
    let options = LoopOptions::new().mode(Mode::Active).grace(Duration::ZERO).budget(1.0).storm(1.0);
    let mut healer = Loop::new(limits, Box::new(RestartBeyondLimits::default()), options);
    let (begun, mut healed) = (Instant::now(), 0);
    while healed < 3 {
        let before = pool.each_ref().map(|jobs| jobs.load(Relaxed));
        std::thread::sleep(Duration::from_millis(400));
        for (subject, jobs) in pool.iter().enumerate() {
            let value = 0.4 / f64::from(jobs.load(Relaxed) - before[subject]).max(0.1);
            let job = Input::Reading(Reading { subject, signal: "job_seconds", value });
            healer.handle(begun.elapsed(), job)?;
        }
        for record in healer.drain(begun.elapsed(), |action| start(3, pool[action.subject].clone()))? {
            eprintln!("{}\n", record.explain());
            healed += usize::from(record.event.name() == "improved");
        }
    }
    Ok(())
}
