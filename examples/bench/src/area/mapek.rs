//! The detectors of x0-mapek on a synthetic signal whose statistics are known, beside a textbook cumulative
//! sum that is given the true baseline, and beside the theoretical limit. Its failure detector beside foca,
//! in one simulation: see `starvation`. The cost of a healer: see `healer`.
//!
//! The signal is lognormal with sigma 0.5. Its fault is a threefold level. The limit of the mean delay is
//! ln(readings per false alarm) divided by the divergence of the two distributions (Lorden 1971).

mod healer;
mod starvation;

use std::hint::black_box;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use rustix::time::{ClockId, clock_gettime};
use x0_mapek::detect::{Cusum, CusumOptions, Ewma, Mad, PhiAccrual, PhiAccrualOptions, ReadingError};
use x0_mapek::{Action, Disruption, Expectation, Input, Knowledge, Loop, LoopOptions, Plan, Policy, Reading};

use crate::case::{Case, Metric};
use crate::random::Random;
use crate::row;

/// Detectors of faults: delay, false alarms, processor time, memory; the cost of a healer.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Write the rows as a JSON array to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// A tenth of the readings: for a first look, not for a claim
    #[arg(long)]
    pub(crate) quick: bool,
    /// Turns, each with a seed of its own
    #[arg(long, default_value_t = 5)]
    pub(crate) turns: u32,
    /// Measure the cost of the healer of x0-node instead: puts with it and without it
    #[arg(long)]
    pub(crate) healer: bool,
    /// Measured seconds of a window of `--healer`
    #[arg(long, default_value_t = 5.0, requires = "healer")]
    pub(crate) seconds: f64,
    /// Folder for the data of `--healer`; on a disk, not in memory
    #[arg(long, default_value = "/var/tmp", requires = "healer")]
    pub(crate) folder: PathBuf,
}

const SIGMA: f64 = 0.5;
const FACTOR: f64 = 3.0;
/// Normal readings of a turn, and the readings per false alarm that detectors are set to.
const READINGS: f64 = 1e7;
/// Shifts of a turn.
const SHIFTS: u32 = 1000;

const DELAY: Metric = Metric { name: "mean delay", unit: "readings" };
const ALARMS: Metric = Metric { name: "false alarms in 10^7 readings", unit: "alarms" };
const TIME: Metric = Metric { name: "processor time of a reading", unit: "ns" };
const LOOP_TIME: Metric = Metric { name: "processor time of a reading in a whole loop", unit: "ns" };
/// The subjects of the loop whose cost is measured, each with one signal.
const SUBJECTS: usize = 64;
const SYSTEMS: [&str; 2] = ["x0-mapek, learned baseline", "textbook CUSUM, true baseline"];

/// The limit of the mean delay, in readings.
fn limit() -> f64 {
    let divergence = FACTOR.ln().powi(2) / (2.0 * SIGMA * SIGMA);
    READINGS.ln() / divergence
}

/// A lognormal signal, with correlated readings and single spikes if wanted.
struct Signal {
    random: Random,
    correlation: f64,
    spikes: f64,
    state: f64,
}

impl Signal {
    fn unit(&mut self) -> f64 {
        ((self.random.next() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// The next reading, as a multiple of the median.
    fn next(&mut self, factor: f64) -> f64 {
        // Box and Muller 1958.
        let normal = (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos();
        let share = (1.0 - self.correlation * self.correlation).sqrt();
        self.state = self.correlation * self.state + share * normal;
        let spike = if self.spikes > 0.0 && self.unit() < self.spikes { 10.0 } else { 1.0 };
        (SIGMA * self.state).exp() * spike * factor
    }
}

/// A detector in the comparison: whether a reading makes it suspect.
trait Detector: Clone {
    fn is_suspect(&mut self, now: Duration, value: f64) -> bool;
}

impl Detector for Cusum {
    fn is_suspect(&mut self, now: Duration, value: f64) -> bool {
        self.observe(now, value).is_ok_and(|verdict| verdict.is_suspect())
    }
}

/// Page 1954, with the true mean and deviation. The threshold grows with the true correlation.
#[derive(Clone)]
struct Textbook {
    score: f64,
    threshold: f64,
}

impl Detector for Textbook {
    fn is_suspect(&mut self, _now: Duration, value: f64) -> bool {
        let shift = FACTOR.ln() / SIGMA;
        let evidence = shift * (value.ln() / SIGMA - shift / 2.0);
        // Limited, or a spike alone would be half of an alarm.
        self.score = (self.score + evidence.min(4.5)).max(0.0);
        let is_suspect = self.score >= self.threshold;
        if is_suspect {
            self.score = 0.0;
        }
        is_suspect
    }
}

/// The mean delay and the number of false alarms.
fn judge(mut detector: impl Detector, mut signal: Signal, readings: u32) -> (f64, u32) {
    let mut now = Duration::ZERO;
    let mut tick = || {
        now += Duration::from_millis(100);
        now
    };
    let (mut alarms, mut was_suspect) = (0_u32, false);
    for _ in 0..readings {
        let is_suspect = detector.is_suspect(tick(), signal.next(1.0));
        alarms += u32::from(is_suspect && !was_suspect);
        was_suspect = is_suspect;
    }
    let mut delays = 0_u64;
    for _ in 0..SHIFTS {
        for _ in 0..50 {
            detector.is_suspect(tick(), signal.next(1.0));
        }
        let mut shifted = detector.clone();
        loop {
            delays += 1;
            if shifted.is_suspect(tick(), signal.next(FACTOR)) {
                break;
            }
        }
    }
    (delays as f64 / f64::from(SHIFTS), alarms)
}

/// Measures; prints tables and writes the rows.
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(options.turns >= 5 || options.quick, "at least five turns, or a median says little");
    let readings = if options.quick { 1_000_000 } else { 10_000_000 };
    let progress = ProgressBar::new(u64::from(options.turns) * if options.healer { 1 } else { 3 });
    progress
        .set_style(ProgressStyle::with_template("{bar:30} {pos}/{len}  {elapsed}, {eta} left  {wide_msg}")?);
    if options.healer {
        let case = healer::measure(options.turns, options.seconds, &options.folder, &progress)?;
        progress.finish_and_clear();
        println!("{case}");
        return options.json.as_ref().map_or(Ok(()), |path| row::write(path, &case.rows()));
    }
    println!("The limit of the mean delay is {:.2} readings.\n", limit());
    let mut rows = Vec::new();
    for (name, correlation, spikes, most) in
        [("independent readings", 0.0, 0.0, 1.5), ("correlation 0.3, 0.5 % tenfold spikes", 0.3, 0.005, 2.5)]
    {
        let how = format!("{readings} normal readings and {SHIFTS} threefold shifts in each turn.");
        let mut case = Case::new("mapek", name, how, SYSTEMS.map(str::to_owned).to_vec());
        for turn in 0..options.turns {
            progress.set_message(name);
            let signal =
                || Signal { random: Random::new(u64::from(turn) + 1), correlation, spikes, state: 0.0 };
            let own = judge(Cusum::new(CusumOptions::new()), signal(), readings);
            let threshold = READINGS.ln() * (1.0 + correlation) / (1.0 - correlation);
            let textbook = judge(Textbook { score: 0.0, threshold }, signal(), readings);
            for (system, (delay, alarms)) in [own, textbook].into_iter().enumerate() {
                case.add(DELAY, system, delay);
                case.add(ALARMS, system, f64::from(alarms) * READINGS / f64::from(readings));
            }
            progress.inc(1);
        }
        let ratio = case.median(DELAY, 0).map(|delay| delay / limit());
        case.aim("mean delay beside the limit", ratio, most, "x");
        case.aim("false alarms in 10^7 readings", case.median(ALARMS, 0), 1.0, "alarms");
        progress.suspend(|| println!("{case}"));
        rows.extend(case.rows());
    }
    let case = starvation::measure(options.turns, if options.quick { 1 } else { 10 }, &progress)?;
    progress.suspend(|| println!("{case}"));
    rows.extend(case.rows());
    progress.finish_and_clear();
    let case = cost(options.turns, readings / 10);
    println!("{case}");
    rows.extend(case.rows());
    if let Some(path) = &options.json {
        row::write(path, &rows)?;
    }
    Ok(())
}

/// The processor time of this thread, in seconds.
fn processor_time() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// The time and memory of a signal with three detectors.
fn cost(turns: u32, readings: u32) -> Case {
    let how = "A cumulative sum, a mean with deviation, and phi-accrual on one signal.".to_owned();
    let mut case = Case::new("mapek", "cost of a signal", how, vec!["x0-mapek".to_owned()]);
    let mut signal = Signal { random: Random::new(7), correlation: 0.0, spikes: 0.0, state: 0.0 };
    let values: Vec<f64> = (0..4096).map(|_| signal.next(1.0)).collect();
    for _ in 0..turns {
        let mut cusum = Cusum::new(CusumOptions::new());
        let mut level = Ewma::new(Duration::from_secs(60));
        let mut phi = PhiAccrual::new(PhiAccrualOptions::new());
        let begun = processor_time();
        let mut now = Duration::ZERO;
        for value in values.iter().cycle().take(readings as usize) {
            now += Duration::from_millis(100);
            // The signal is finite and in order, so that none of these is an error.
            let _ = black_box(cusum.observe(now, *value));
            let _ = black_box(level.observe(now, *value));
            let _ = black_box(phi.heartbeat(now));
        }
        case.add(TIME, 0, (processor_time() - begun) * 1e9 / f64::from(readings));
        case.add(LOOP_TIME, 0, loop_cost(&values, readings));
    }
    let bytes = size_of::<Cusum>() + size_of::<Ewma>() + size_of::<PhiAccrual>() + size_of::<Mad>();
    case.aim("processor time of a reading", case.median(TIME, 0), 100.0, "ns");
    case.aim("processor time of a reading in a whole loop", case.median(LOOP_TIME, 0), 100.0, "ns");
    case.aim("memory of a signal, an outlier test included", Some(bytes as f64), 2048.0, "B");
    case
}

/// The three detectors of each subject.
struct Signals(Vec<(Cusum, Ewma, PhiAccrual, bool)>);

impl Knowledge for Signals {
    type Subject = usize;

    fn observe(&mut self, now: Duration, reading: &Reading<usize>) -> Result<(), ReadingError> {
        let (cusum, level, phi, is_suspect) = self.0.get_mut(reading.subject).ok_or(ReadingError::Unknown)?;
        *is_suspect = cusum.observe(now, reading.value)?.is_suspect();
        black_box(level.observe(now, reading.value)?);
        black_box(phi.heartbeat(now)?);
        Ok(())
    }

    fn subject_count(&self) -> usize {
        self.0.len()
    }

    fn unhealthy(&self, _: Duration, each: &mut dyn FnMut(&usize)) {
        let suspects = self.0.iter().enumerate().filter(|(_, (.., is_suspect))| *is_suspect);
        suspects.for_each(|(subject, _)| each(&subject));
    }
}

/// No action: the signals are normal.
#[derive(Debug, Clone)]
enum Never {}

impl Action<Signals> for Never {
    fn kind(&self) -> &'static str {
        match *self {}
    }

    fn subject(&self) -> &usize {
        match *self {}
    }

    fn disruption(&self) -> Disruption {
        match *self {}
    }

    fn badness(&self, _: &Signals) -> Option<f64> {
        match *self {}
    }

    fn expectation(&self) -> Expectation {
        match *self {}
    }
}

struct Watch;

impl Policy<Signals, Never> for Watch {
    fn name(&self) -> &'static str {
        "watch"
    }

    fn decide(&mut self, now: Duration, signals: &Signals, _: &mut Plan<Never>) {
        signals.unhealthy(now, &mut |subject| {
            black_box(*subject);
        });
    }
}

/// The time of a reading of a loop with many subjects, each read every 100 ms, its rounds included.
fn loop_cost(values: &[f64], readings: u32) -> f64 {
    let signals = (0..SUBJECTS).map(|_| {
        let phi = PhiAccrual::new(PhiAccrualOptions::new());
        (Cusum::new(CusumOptions::new()), Ewma::new(Duration::from_secs(60)), phi, false)
    });
    let mut engine = Loop::new(Signals(signals.collect()), Box::new(Watch), LoopOptions::new());
    let begun = processor_time();
    let mut now = Duration::ZERO;
    for (number, value) in values.iter().cycle().take(readings as usize).enumerate() {
        let subject = number % SUBJECTS;
        if subject == 0 {
            now += Duration::from_millis(100);
        }
        let reading = Reading { subject, signal: "signal", value: *value };
        // The signal is finite and in order, so that this is no error.
        let _ = black_box(engine.handle(now, Input::Reading(reading)));
        while engine.poll_output().is_some() {}
    }
    (processor_time() - begun) * 1e9 / f64::from(readings)
}
