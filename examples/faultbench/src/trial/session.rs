//! Playing one trial: the cluster, the client, the injection, and what was seen.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::cluster::Cluster;
use super::inject::Injection;
use super::judge::Event;
use super::result::{Outcome, Plan};
use super::{GRACE, Trial, WARM, events, system};
use crate::random::Random;
use crate::{history, load};

/// Puts a second.
const RATE: u32 = 200;
/// The load after the measurement, so that the last requests of it are answered.
const TAIL: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(5);
/// The time between two looks at the processes.
const LOOK: Duration = Duration::from_millis(50);
/// The leader is asked so long before the injection: asking takes a moment.
const ASK_BEFORE: Duration = Duration::from_millis(500);
/// The time that the client process may take after its load.
const CLIENT_LIMIT: Duration = Duration::from_secs(10);
/// The time in which every write must be read back.
const CHECK_LIMIT: Duration = Duration::from_secs(90);

/// Plays a trial from its start to its result.
pub(super) fn play(trial: &Trial, node: &Path) -> Result<Outcome> {
    let mut random = Random::new(trial.seed);
    // Beside the ticks of timers, and another follower.
    let (jitter, is_swapped) = (random.milliseconds(0, 400), random.chance(50));
    let root = tempfile::Builder::new().prefix("x0-faultbench-").tempdir()?;
    let cluster = Cluster::start_all(trial.system, trial.fault, node, root.path())?;
    let grace = if trial.system.has_grace() { GRACE.saturating_sub(cluster.age()) } else { Duration::ZERO };
    let (before, lasts) = (WARM.max(grace) + jitter, Duration::from_secs(trial.seconds));
    let (mut session, client) = Session::begin(cluster, root, before + lasts + TAIL)?;

    session.wait(before.saturating_sub(ASK_BEFORE), None)?;
    let leader = session.cluster.wait_for_leader()?;
    session.wait(before, None)?;
    let injected = session.begun.elapsed();
    let mut injection = Injection::begin(&mut session.cluster, trial.fault, leader, is_swapped)?;
    session.wait(injected + lasts, Some(&mut injection))?;
    let ended = session.begun.elapsed();
    let (faulty, moments) = (injection.faulty(), injection.moments());
    client.finish(TAIL + CLIENT_LIMIT)?;
    injection.end(&mut session.cluster)?;

    let plan = Plan {
        fault: trial.fault.to_string(),
        system: trial.system.to_string(),
        program: system::version(trial.system, node),
        seed: trial.seed,
    };
    let requests = load::read(&session.requests)?;
    // The load began a moment after its process was started.
    let late = Duration::from_nanos(requests.begun_ns.saturating_sub(session.begun_ns));
    let milliseconds = |at: Duration| u64::try_from(at.saturating_sub(late).as_millis()).unwrap_or(u64::MAX);
    let mut outcome = Outcome::new(plan, leader as u64 + 1, requests.samples);
    outcome.faulty = faulty.into_iter().collect();
    outcome.injected_ms = moments.into_iter().map(|moment| milliseconds(injected + moment)).collect();
    outcome.ended_ms = milliseconds(ended);
    let checked = session.check()?;
    (outcome.acknowledged, outcome.lost) = (checked.acknowledged, checked.lost);
    outcome.events = session.events(trial.system.has_grace(), late, ended)?;
    for machine in session.cluster.machines.iter().filter(|_| trial.system.has_grace()) {
        let checked = session.cluster.heal_check(machine.place)?;
        outcome.records += checked.records;
        outcome.wrong_records.extend(checked.wrong);
    }
    if let Some(folder) = std::env::var_os("X0_FAULTBENCH_KEEP") {
        session.keep(Path::new(&folder), &outcome)?;
    }
    Ok(outcome)
}

/// A cluster under load. Times count from the start of the client process.
struct Session {
    cluster: Cluster,
    /// The folder of everything, which ends with the session.
    _root: TempDir,
    /// The file of the client process.
    requests: PathBuf,
    begun: Instant,
    /// The same moment on the clock that all processes share, and in milliseconds since midnight (UTC).
    begun_ns: u64,
    begun_day_ms: f64,
    watch: events::Watch,
    seen: Vec<Event>,
}

impl Session {
    /// Starts the client process.
    fn begin(cluster: Cluster, root: TempDir, lasts: Duration) -> Result<(Session, Client)> {
        let requests = root.path().join("requests");
        let milliseconds = lasts.as_millis().to_string();
        let mode = ["put", "--rate", &RATE.to_string(), "--milliseconds", &milliseconds];
        let client = Client(cluster.client(&requests, &mode)?);
        let watch = events::Watch::new(&cluster);
        let (begun, begun_ns, begun_day_ms) = (Instant::now(), history::now()?, day_ms());
        let seen = Vec::new();
        let session = Session { cluster, _root: root, requests, begun, begun_ns, begun_day_ms, watch, seen };
        Ok((session, client))
    }

    /// Watches the processes until this time, and keeps a fault up.
    fn wait(&mut self, until: Duration, mut injection: Option<&mut Injection>) -> Result<()> {
        let mut looked = Instant::now();
        while self.begun.elapsed() < until {
            std::thread::sleep(TICK);
            let planned = match &mut injection {
                Some(injection) => injection.tick(&mut self.cluster)?,
                None => None,
            };
            if planned.is_some() || looked.elapsed() >= LOOK {
                looked = Instant::now();
                self.seen.extend(self.watch.look(&self.cluster, self.begun.elapsed(), planned));
            }
        }
        Ok(())
    }

    /// Reads every acknowledged write back.
    fn check(&self) -> Result<load::Checked> {
        let output = Client(self.cluster.client(&self.requests, &["check"])?).finish(CHECK_LIMIT)?;
        serde_json::from_slice(&output).context("cannot read what the check found")
    }

    /// What was seen from outside and what the healers have recorded until `ended`, in order. Times count
    /// from the begin of the load, which was so late.
    fn events(&mut self, has_records: bool, late: Duration, ended: Duration) -> Result<Vec<Event>> {
        let late_ms = late.as_secs_f64() * 1000.0;
        let mut events = std::mem::take(&mut self.seen);
        events.iter_mut().for_each(|event| event.at_ms -= late_ms);
        for machine in self.cluster.machines.iter().filter(|_| has_records) {
            let log = std::fs::read_to_string(machine.log()).unwrap_or_default();
            let records = self.cluster.heal_log(machine.place)?;
            events.extend(events::of_node(machine.number(), &log, &records, self.begun_day_ms + late_ms));
        }
        // What the end of the fault caused is no part of the measurement.
        let ended_ms = ended.as_secs_f64() * 1000.0 - late_ms;
        events.retain(|event| event.at_ms <= ended_ms);
        events.sort_by(|one, two| one.at_ms.total_cmp(&two.at_ms));
        Ok(events)
    }

    /// Copies the logs, for a person who looks for the reason of a result.
    fn keep(&self, folder: &Path, outcome: &Outcome) -> Result<()> {
        std::fs::create_dir_all(folder)?;
        for machine in self.cluster.machines.iter().filter(|machine| machine.log().exists()) {
            let Outcome { fault, system, seed, .. } = outcome;
            std::fs::copy(
                machine.log(),
                folder.join(format!("{fault}.{system}.{seed}.{}.log", machine.number())),
            )?;
        }
        Ok(())
    }
}

/// Milliseconds since midnight, UTC.
fn day_ms() -> f64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_secs_f64().rem_euclid(86_400.0) * 1000.0
}

/// A client process, which ends with this value.
struct Client(Child);

impl Client {
    /// Waits for the end of the process, which must succeed, and returns its output.
    fn finish(mut self, limit: Duration) -> Result<Vec<u8>> {
        use std::io::Read as _;
        let until = Instant::now() + limit;
        let status = loop {
            match self.0.try_wait()? {
                Some(status) => break status,
                None if Instant::now() > until => bail!("the client did not end within {limit:?}"),
                None => std::thread::sleep(TICK),
            }
        };
        let (mut output, mut errors) = (Vec::new(), String::new());
        self.0.stderr.take().context("no standard error")?.read_to_string(&mut errors)?;
        self.0.stdout.take().context("no standard output")?.read_to_end(&mut output)?;
        if !status.success() {
            bail!("the client failed: {}", errors.trim());
        }
        Ok(output)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Fails only if it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
