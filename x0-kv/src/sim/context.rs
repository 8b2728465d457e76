//! State that all parts of the simulated world share.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use x0_consensus::Entry;
use x0_identity::NodeId;
use x0_mesh::sim::SimMesh;

use super::cable::{SharedTraffic, SharedWeather};
use super::companion::Companions;
use super::history::History;
use super::network::Weather;
use super::process::Ready;
use super::random::{Random, mix};
use super::report::Report;
use super::schedule::{Place, Schedule, Time};
use super::trace::Trace;
use super::{PlantedBug, Scenario, id_of};
use crate::request::error::OperationError;
use crate::request::outcome::Outcome;

/// The reason why a process or the simulation ends.
#[derive(Debug)]
pub(super) enum Trouble {
    /// An invariant is broken.
    Violation(String),
    /// The disk of a node failed, which ended its process.
    Disk,
    /// A node refuses what its folder holds, for this reason.
    Damaged(String),
    /// A leader counts on entries that the log of a node does not hold.
    LogLost(String),
}

pub(super) fn violation<T>(what: impl Into<String>) -> Result<T, Trouble> {
    Err(Trouble::Violation(what.into()))
}

/// An answer to a worker.
pub(super) type Answer = (u64, Result<Outcome, OperationError>);

/// Time, randomness, links, and the records that the invariants are checked against.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) now: Time,
    pub(super) schedule: Schedule,
    pub(super) mesh: SimMesh,
    pub(super) weather: SharedWeather,
    pub(super) traffic: SharedTraffic,
    pub(super) ready: Ready,
    pub(super) random: Random,
    pub(super) trace: Trace,
    pub(super) report: Report,
    pub(super) planted: Option<PlantedBug>,
    pub(super) history: History,
    /// Answers that the workers have yet to see.
    pub(super) answers: Vec<Answer>,
    pub(super) companions: Option<Companions>,
    /// The directions in which nothing passes.
    cuts: BTreeSet<(Place, Place)>,
    /// The entry and the outcome at each index, from 1 on, as the first node applied it.
    applied: Vec<(u64, u64)>,
    /// The leader of each term.
    leaders: BTreeMap<u64, NodeId>,
}

impl Context {
    pub(super) fn new(scenario: &Scenario) -> Context {
        let mut random = Random::new(scenario.seed);
        let mesh = SimMesh::new(random.next());
        mesh.set_profile(Weather::CALM.profile());
        Context {
            now: 0,
            schedule: Schedule::default(),
            mesh,
            weather: SharedWeather::new(Weather::CALM),
            traffic: SharedTraffic::default(),
            ready: Ready::default(),
            random,
            trace: Trace::default(),
            report: Report::default(),
            planted: scenario.planted,
            history: History::default(),
            answers: Vec::new(),
            companions: None,
            cuts: BTreeSet::new(),
            applied: Vec::new(),
            leaders: BTreeMap::new(),
        }
    }

    pub(super) fn time(&self) -> Duration {
        Duration::from_micros(self.now)
    }

    /// Nothing passes from one process to another from now on.
    pub(super) fn cut(&mut self, from: Place, to: Place) {
        self.cuts.insert((from, to));
        self.mesh.cut(id_of(from), id_of(to));
    }

    /// Everything passes again.
    pub(super) fn heal_links(&mut self) {
        self.cuts.clear();
        self.mesh.heal();
    }

    /// Whether nothing passes between two processes in one direction at least.
    pub(super) fn is_cut(&self, one: Place, other: Place) -> bool {
        self.cuts.contains(&(one, other)) || self.cuts.contains(&(other, one))
    }

    /// Sets how the links behave from now on.
    pub(super) fn set_weather(&self, weather: Weather) {
        self.weather.set(weather);
        self.mesh.set_profile(weather.profile());
    }

    pub(super) fn is_planted(&self, bug: PlantedBug) -> bool {
        self.planted == Some(bug)
    }

    /// How many entries were applied, counted once each.
    pub(super) fn entries(&self) -> u64 {
        self.applied.len() as u64
    }

    /// A node says that it leads.
    pub(super) fn leads(&mut self, term: u64, node: NodeId) -> Result<(), Trouble> {
        match self.leaders.insert(term, node) {
            None => self.report.elections += 1,
            Some(other) if other == node => {}
            Some(other) => return violation(format!("{node} and {other} both lead term {term}")),
        }
        Ok(())
    }

    /// A node has applied an entry: to all the same, with the same outcome.
    pub(super) fn applies(&mut self, place: Place, entry: &Entry, outcome: &[u8]) -> Result<(), Trouble> {
        let payload = u64::from(crc32c::crc32c(&entry.payload)) << 32 | entry.payload.len() as u64;
        let seen = (mix(payload) ^ mix(entry.term), u64::from(crc32c::crc32c(outcome)));
        let index = usize::try_from(entry.index).unwrap_or(usize::MAX);
        let Some(before) = index.checked_sub(1) else { return violation("an entry of index 0 is applied") };
        match self.applied.get(before) {
            None if before == self.applied.len() => self.applied.push(seen),
            None => {
                let known = self.applied.len();
                return violation(format!(
                    "node {place} applies entry {index}, and nobody any behind {known}"
                ));
            }
            Some(known) if known.0 != seen.0 => {
                return violation(format!("node {place} applies another entry {index} than others did"));
            }
            Some(known) if known.1 != seen.1 => {
                return violation(format!(
                    "entry {index} has another outcome on node {place} than on others"
                ));
            }
            Some(_) => {}
        }
        Ok(())
    }
}
