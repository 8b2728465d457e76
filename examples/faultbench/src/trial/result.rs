//! The result of a trial: one JSON file, from which everything in a report follows.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::judge::{Event, Truth};
use super::measure::{Sample, Sli, gap};

/// The time before an injection in which the service must have been well.
const CALM: Duration = Duration::from_secs(2);
/// The version of the file.
const VERSION: u32 = 1;

/// See the [module](self). Times are milliseconds from the begin of the load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) version: u32,
    pub(crate) fault: String,
    pub(crate) system: String,
    /// Name and version of the program under test.
    pub(crate) program: String,
    pub(crate) seed: u64,
    /// The leader at the injection, and the nodes that the fault concerns. Nodes count from 1.
    pub(crate) leader: u64,
    pub(crate) faulty: BTreeSet<u64>,
    /// The injections, and the end of the measurement, at which the fault is still there.
    pub(crate) injected_ms: Vec<u64>,
    pub(crate) ended_ms: u64,
    pub(crate) samples: Vec<Sample>,
    pub(crate) events: Vec<Event>,
    pub(crate) acknowledged: usize,
    /// The numbers of acknowledged writes that are not there after the fault.
    pub(crate) lost: Vec<u64>,
    /// The records of the healers at the end, and what does not follow from one of them alone.
    #[serde(default)]
    pub(crate) records: u64,
    #[serde(default)]
    pub(crate) wrong_records: Vec<String>,
}

/// What follows from an [`Outcome`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Measures {
    /// The longest time to repair of all injections, in milliseconds; `None` if the service did not come
    /// back.
    pub(crate) mttr_ms: Option<f64>,
    pub(crate) error_seconds: f64,
    /// The longest time without an answer, in milliseconds.
    pub(crate) gap_ms: f64,
    pub(crate) actions: usize,
    pub(crate) wrong: usize,
    pub(crate) lost: usize,
}

/// The parts of an [`Outcome`] that the run knows, besides what it measured.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) fault: String,
    pub(crate) system: String,
    pub(crate) program: String,
    pub(crate) seed: u64,
}

impl Outcome {
    pub(crate) fn new(plan: Plan, leader: u64, samples: Vec<Sample>) -> Outcome {
        let Plan { fault, system, program, seed } = plan;
        Outcome {
            version: VERSION,
            fault,
            system,
            program,
            seed,
            leader,
            faulty: BTreeSet::new(),
            injected_ms: Vec::new(),
            ended_ms: 0,
            samples,
            events: Vec::new(),
            acknowledged: 0,
            lost: Vec::new(),
            records: 0,
            wrong_records: Vec::new(),
        }
    }

    pub(crate) fn injected(&self) -> Duration {
        Duration::from_millis(self.injected_ms.first().copied().unwrap_or(0))
    }

    pub(crate) fn truth(&self) -> Truth {
        Truth { faulty: self.faulty.clone(), injected: self.injected() }
    }

    pub(crate) fn measures(&self) -> Measures {
        let (sli, end) = (Sli::default(), Duration::from_millis(self.ended_ms));
        let mut mttr = Some(Duration::ZERO);
        for (place, from) in self.injected_ms.iter().enumerate() {
            // Until the next injection: what comes after it is its own.
            let to = self.injected_ms.get(place + 1).map_or(end, |next| Duration::from_millis(*next));
            let repair = sli.time_to_repair(&self.samples, Duration::from_millis(*from), to);
            mttr = mttr.zip(repair).map(|(one, two)| one.max(two));
        }
        let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
        let actions = self.events.iter().filter(|event| event.stage == super::judge::Stage::Action).count();
        Measures {
            mttr_ms: mttr.map(milliseconds),
            error_seconds: sli.error_seconds(&self.samples, self.injected(), end),
            gap_ms: milliseconds(gap(&self.samples, self.injected(), end)),
            actions,
            wrong: self.truth().wrong(&self.events),
            lost: self.lost.len(),
        }
    }

    /// Whether the indicator held for two seconds before the injection: the machine was calm enough to
    /// measure.
    pub(crate) fn was_calm(&self) -> bool {
        let sli = Sli { hold: CALM, ..Sli::default() };
        let from = self.injected().saturating_sub(CALM);
        sli.time_to_repair(&self.samples, from, self.injected()) == Some(Duration::ZERO)
    }

    pub(crate) fn path(folder: &Path, fault: &str, system: &str, seed: u64) -> PathBuf {
        folder.join(format!("{fault}.{system}.{seed}.json"))
    }

    /// Whether there is a result of a trial in a folder that can be reported, and whose measurement took at
    /// least as long: neither that of another version, nor a shorter one of `--quick`.
    pub(crate) fn is_there(folder: &Path, fault: &str, system: &str, seed: u64, seconds: u64) -> bool {
        let bytes = std::fs::read(Outcome::path(folder, fault, system, seed));
        let outcome = bytes.ok().and_then(|bytes| serde_json::from_slice::<Outcome>(&bytes).ok());
        outcome.is_some_and(|outcome| {
            let lasted = Duration::from_millis(outcome.ended_ms).saturating_sub(outcome.injected());
            // The begin is taken after the injection, which takes a moment.
            outcome.version == VERSION && lasted + Duration::from_secs(1) >= Duration::from_secs(seconds)
        })
    }

    /// Writes the file in one step, so that an interrupted run leaves no part of one.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let path = Outcome::path(folder, &self.fault, &self.system, self.seed);
        let aside = path.with_extension("part");
        std::fs::write(&aside, serde_json::to_vec(self)?)
            .with_context(|| format!("cannot write {}", aside.display()))?;
        std::fs::rename(&aside, &path).with_context(|| format!("cannot rename {}", aside.display()))
    }

    /// Reads all results in a folder, in the order of their names.
    pub(crate) fn read_all(folder: &Path) -> Result<Vec<Outcome>> {
        let entries =
            std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        paths.sort();
        let read = |path: &PathBuf| {
            let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            let outcome: Outcome = serde_json::from_slice(&bytes)
                .with_context(|| format!("{} is not the result of a trial: remove it", path.display()))?;
            Ok((outcome.version == VERSION).then_some(outcome))
        };
        paths.iter().filter_map(|path| read(path).transpose()).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::judge::Stage;
    use super::*;

    /// A trial of 20 s of load with an injection at 5 s, no service for this long, and one restart of node 1.
    pub(crate) fn example(fault: &str, system: &str, seed: u64, gone_ms: u64) -> Outcome {
        let plan = Plan { fault: fault.into(), system: system.into(), program: "x0-node 1".into(), seed };
        let is_gone = |at: u64| (5000..5000 + gone_ms).contains(&at);
        let sample = |n: u64| Sample { at_us: n * 5000, latency_us: (!is_gone(n * 5)).then_some(2000) };
        let mut outcome = Outcome::new(plan, 1, (0..4000).map(sample).collect());
        outcome.faulty = [1].into();
        outcome.injected_ms = vec![5000];
        outcome.ended_ms = 20_000;
        outcome.acknowledged = 3000;
        let event = |at_ms, stage| Event {
            at_ms,
            by: 1,
            subject: 1,
            stage,
            kind: "restart".into(),
            text: "why: a < b & \"c\"".into(),
        };
        outcome.events =
            vec![event(5500.0, Stage::Detected), event(6000.0, Stage::Action), event(6500.0, Stage::Proof)];
        outcome
    }

    #[test]
    fn measures_follow_from_the_file() {
        let outcome = example("kill-leader", "x0", 1, 1500);
        let measures = outcome.measures();
        assert_eq!(
            (measures.mttr_ms, measures.actions, measures.wrong, measures.lost),
            (Some(1500.0), 1, 0, 0)
        );
        assert!((measures.error_seconds - 1.5).abs() < 1e-9 && (measures.gap_ms - 1502.0).abs() < 6.0);
        assert!(outcome.was_calm());
        let other = Outcome { faulty: [2].into(), lost: vec![7], ..outcome.clone() };
        assert_eq!((other.measures().wrong, other.measures().lost), (1, 1));
        let gone = example("kill-leader", "none", 1, 60_000);
        assert_eq!(gone.measures().mttr_ms, None);
        // Two injections: the second one takes longer.
        let twice = Outcome { injected_ms: vec![1000, 5000], ..outcome.clone() };
        assert_eq!(twice.measures().mttr_ms, Some(1500.0));
        // The outage from 5.0 to 6.5 s is within the two seconds before, at their begin and at their end.
        for injected in [5200, 6400, 8300] {
            let noisy = Outcome { injected_ms: vec![injected], ..outcome.clone() };
            assert!(!noisy.was_calm(), "{injected}");
        }
        assert!(Outcome { injected_ms: vec![8500], ..outcome }.was_calm());
    }

    #[test]
    fn a_result_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let outcome = example("no-fault", "etcd", 3, 0);
        outcome.write(folder.path()).unwrap();
        std::fs::write(folder.path().join("report.html"), "").unwrap();
        assert!(Outcome::read_all(folder.path()).unwrap().iter().eq([&outcome]));
        let is_there = |seed, seconds| Outcome::is_there(folder.path(), "no-fault", "etcd", seed, seconds);
        // The trial took 15 s.
        assert!(is_there(3, 15) && is_there(3, 10) && !is_there(3, 20) && !is_there(2, 10));
        // A later version is left alone, and what is no result is an error.
        let later = Outcome { version: 9, seed: 4, ..outcome };
        later.write(folder.path()).unwrap();
        assert_eq!(Outcome::read_all(folder.path()).unwrap().len(), 1);
        assert!(!is_there(4, 10));
        std::fs::write(folder.path().join("a.json"), "{}").unwrap();
        assert!(Outcome::read_all(folder.path()).unwrap_err().to_string().contains("remove it"));
    }
}
