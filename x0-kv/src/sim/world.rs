//! Nodes, clients and what happens to them.

use std::task::{Poll, Waker};
use std::time::Duration;

use x0_consensus::Membership;
use x0_identity::NodeId;

use super::companion::{COMPANION_EVERY, Companions};
use super::context::{Context, Trouble, violation};
use super::damage::Recovery;
use super::history::{Asked, Ending};
use super::network::Weather;
use super::node::{Node, Running};
use super::process::{Asking, Process, Ready};
use super::schedule::{Event, MILLISECOND, Mend, Place, SECOND, Time};
use super::worker::{Host, Worker};
use super::{Cause, PlantedBug, Report, Scenario, Violation, id_of};

/// How long everything may take to be well again once all faults are gone.
const CALM_MAX: Time = 120 * SECOND;

/// All of it.
#[derive(Debug)]
pub(super) struct World {
    pub(super) scenario: Scenario,
    pub(super) context: Context,
    pub(super) nodes: Vec<Node>,
    pub(super) outsides: Vec<Process>,
    wakers: Vec<Waker>,
    pub(super) workers: Vec<Worker>,
    /// The number of the storm, which also numbers its round.
    pub(super) storm: u64,
    pub(super) is_storming: bool,
    /// The next operation, and the next value.
    pub(super) asked: u64,
    /// Replaces the founders' configuration, but for who it is.
    config: x0_consensus::Options,
}

fn micros(time: Duration) -> Time {
    Time::try_from(time.as_nanos().div_ceil(1000)).unwrap_or(Time::MAX)
}

/// Plays a scenario to its end.
pub(super) fn run(scenario: &Scenario, companions: Option<Companions>) -> Result<Report, Box<Violation>> {
    match World::new(scenario) {
        Ok(mut world) => {
            world.context.companions = companions;
            world.run()
        }
        Err(trouble) => {
            let cause = Cause::Invariant(format!("the world does not start: {trouble:?}"));
            let (scenario, report) = (scenario.clone(), Report::default());
            Err(Box::new(Violation { scenario, at: Duration::ZERO, cause, report }))
        }
    }
}

/// Why a run ended.
#[derive(Debug)]
pub(super) enum Failure {
    Trouble(Trouble),
    Cause(Cause),
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Failure {
        Failure::Trouble(trouble)
    }
}

impl World {
    pub(super) fn new(scenario: &Scenario) -> Result<World, Trouble> {
        let founders = scenario.nodes.max(1);
        let nodes = founders + scenario.spares;
        let outsides = scenario.clients.div_ceil(2).max(1);
        let places = (nodes + outsides).min(Ready::PLACES_MAX);
        let outsides = places - nodes;
        let mut context = Context::new(scenario);
        let forgets = scenario.planted == Some(PlantedBug::SkipSync);
        let members: Vec<NodeId> = (0..nodes).map(id_of).collect();
        let mut config = x0_consensus::Options::new(id_of(0));
        let random = &mut context.random;
        config.tick = scenario.tick;
        config.election_ticks = scenario.election_ticks;
        config.heartbeat_ticks = scenario.heartbeat_ticks;
        config.seed = random.next();
        // Small, so that everything has its turn: snapshots, entries read back, pieces, full windows.
        config.message_len_max = [512, 4 << 10, 64 << 10][random.place(3)];
        config.in_flight_messages_max = [2, 8, 256][random.place(3)];
        config.cache_len_max = [512, 4 << 10, 1 << 20][random.place(3)];
        config.checkpoint_log_len = [4 << 10, 16 << 10, 64 << 10][random.place(3)];
        config.retained_entries = [0, 5, 50][random.place(3)];
        config.chunk_len = [256, 1 << 10, 16 << 10][random.place(3)];
        config.chunks_in_flight_max = [1, 3, 8][random.place(3)];
        config.waits_for_space = random.chance(500);
        let outside = |number| Process::client(&mut context, nodes + number, members.clone(), 0);
        let outsides = (0..outsides).map(outside).collect::<Result<Vec<_>, _>>()?;
        let workers = (0..scenario.clients).map(|number| {
            // One of four works on a node.
            let host = if number % 4 == 3 {
                Host::Node(number % nodes)
            } else {
                Host::Outside(number % outsides.len())
            };
            Worker::new(host)
        });
        Ok(World {
            wakers: (0..places).map(|place| context.ready.waker(place)).collect(),
            workers: workers.collect(),
            nodes: (0..nodes).map(|place| Node::new(place, place < founders, forgets)).collect(),
            outsides,
            context,
            scenario: scenario.clone(),
            storm: 0,
            is_storming: false,
            asked: 0,
            config,
        })
    }

    fn run(mut self) -> Result<Report, Box<Violation>> {
        let duration = Time::try_from(self.scenario.duration.as_micros()).unwrap_or(Time::MAX);
        let mut done = (0..self.nodes.len()).try_for_each(|place| self.start(place)).map_err(Failure::from);
        while done.is_ok() && self.context.now < duration {
            done = self.round();
        }
        if done.is_ok() && self.context.random.chance(self.scenario.majority_losses) {
            done = self.lose_majority();
        }
        let mut report = self.context.report.clone();
        report.virtual_time = self.context.time();
        report.entries = self.context.entries();
        let traffic = self.context.traffic.lock();
        report.peers_silent = traffic.silent;
        (report.messages, report.messages_lost) = (traffic.sent, traffic.lost);
        (report.messages_twice, report.messages_late) = (traffic.twice, traffic.late);
        report.trace_hash = self.context.trace.hash() ^ traffic.trace.hash();
        drop(traffic);
        let cause = match done {
            Ok(()) => return Ok(report),
            Err(Failure::Cause(cause)) => cause,
            Err(Failure::Trouble(Trouble::Violation(what))) => Cause::Invariant(what),
            Err(Failure::Trouble(Trouble::Disk)) => Cause::Invariant("a disk fault was not met".into()),
            Err(Failure::Trouble(Trouble::Damaged(why) | Trouble::LogLost(why))) => {
                Cause::Invariant(format!("damage was not met: {why}"))
            }
        };
        let (scenario, at) = (self.scenario, self.context.time());
        Err(Box::new(Violation { scenario, at, cause, report }))
    }

    /// A storm, the calm behind it, and the check of what was seen.
    fn round(&mut self) -> Result<(), Failure> {
        self.storm += 1;
        self.is_storming = true;
        let keys = self.context.random.between(2, 6);
        self.context.history.begin(self.storm, keys);
        let mean = Time::try_from(self.scenario.storm.as_micros()).unwrap_or(SECOND);
        let until = self.context.now + self.context.random.around(mean);
        for worker in 0..self.workers.len() {
            self.workers[worker].seen.clear();
            self.ask_later(worker);
        }
        // While all is well: what is acknowledged later is not in them.
        let copied = self.context.random.place(self.nodes.len());
        self.nodes[copied].disk.take_copy();
        let image = self.take_image();
        let storm = self.storm;
        let first = self.context.now + self.context.random.around(SECOND);
        self.context.schedule.put(first, Event::Fault { storm });
        self.run_until(until)?;
        self.is_storming = false;
        self.mend_all()?;
        self.replace_damaged()?;
        self.wait("the clients have their answers", |world| world.context.history.open_count() == 0)?;
        self.read_all()?;
        self.wait("damaged nodes are members again", World::is_intact)?;
        self.wait("the replicas agree", World::is_converged)?;
        self.read_logs();
        self.compare()?;
        if let Some(image) = image {
            self.roll_back_disk(image)?;
        }
        let undecided = &mut self.context.report.undecided;
        self.context.history.check(undecided).map_err(Cause::History)?;
        self.context.report.rounds += 1;
        Ok(())
    }

    pub(super) fn wait(&mut self, what: &'static str, is_so: impl Fn(&World) -> bool) -> Result<(), Failure> {
        let deadline = self.context.now + CALM_MAX;
        while !is_so(self) {
            if self.context.now > deadline {
                return Err(Cause::Stuck { what, nodes: self.describe() }.into());
            }
            self.run_until(self.context.now + 100 * MILLISECOND)?;
        }
        Ok(())
    }

    /// The nodes, one on a line.
    pub(super) fn describe(&self) -> String {
        let nodes = self.nodes.iter().map(|node| {
            let Node { damage, recovery, running, incarnation, .. } = node;
            format!("  {damage:?} {recovery:?} {incarnation} {running:?}")
        });
        nodes.collect::<Vec<_>>().join("\n")
    }

    /// Every client outside reads everything, and must be answered.
    fn read_all(&mut self) -> Result<(), Failure> {
        let failed = self.context.report.failed;
        for worker in 0..self.workers.len() {
            if matches!(self.workers[worker].host, Host::Outside(_)) {
                self.ask_for(worker, Asked::Range, 60 * SECOND)?;
            }
        }
        self.wait("the clients read", |world| world.context.history.open_count() == 0)?;
        if self.context.report.failed > failed {
            let what = format!("a client cannot read although all is well:\n{}", self.describe());
            return Err(Trouble::Violation(what).into());
        }
        Ok(())
    }

    /// The leader of the greatest term.
    pub(super) fn leader(&self) -> Option<Place> {
        let leads = |node: &&Node| node.running.as_ref().is_some_and(Running::leads);
        let term = |node: &&Node| node.running.as_ref().map_or(0, |running| running.status().term);
        self.nodes.iter().filter(leads).max_by_key(term).map(|node| node.place)
    }

    /// The membership, as the leader knows it.
    pub(super) fn membership(&self) -> Option<Membership> {
        let running = self.nodes[self.leader()?].running.as_ref()?;
        Some(running.status().membership)
    }

    fn members(&self, membership: &Membership) -> Vec<Place> {
        (0..self.nodes.len()).filter(|place| membership.contains(id_of(*place))).collect()
    }

    pub(super) fn is_converged(&self) -> bool {
        let Some(running) = self.leader().and_then(|leader| self.nodes[leader].running.as_ref()) else {
            return false;
        };
        let status = running.status();
        let is_there = |place: &Place| {
            let running = self.nodes[*place].running.as_ref();
            running.is_some_and(|running| running.applied_index() == status.last_index)
        };
        !status.membership.is_joint()
            && status.commit_index == status.last_index
            && self.members(&status.membership).iter().all(is_there)
    }

    /// All members hold the same.
    pub(super) fn compare(&mut self) -> Result<(), Trouble> {
        let Some(membership) = self.membership() else { return Ok(()) };
        let mut first = None;
        for place in self.members(&membership) {
            let Some(running) = &mut self.nodes[place].running else { continue };
            let digest = running.digest();
            self.context.trace.note(7, digest.1 ^ digest.0);
            if *first.get_or_insert(digest) != digest {
                return violation(format!(
                    "node {place} holds another state than its peers at the same index"
                ));
            }
        }
        Ok(())
    }

    pub(super) fn run_until(&mut self, until: Time) -> Result<(), Trouble> {
        loop {
            self.poll_ready()?;
            let event_at = self.context.schedule.next_at().unwrap_or(Time::MAX);
            let mesh_at = self.context.mesh.poll_timeout().map_or(Time::MAX, micros);
            if event_at.min(mesh_at) > until {
                break;
            }
            self.context.report.events += 1;
            if mesh_at <= event_at {
                self.context.now = self.context.now.max(mesh_at);
                self.context.mesh.step();
            } else if let Some((at, event)) = self.context.schedule.take(until) {
                self.context.now = self.context.now.max(at);
                self.context.mesh.advance_to(self.context.time());
                self.happen(event)?;
            }
        }
        self.context.now = until;
        self.context.mesh.advance_to(self.context.time());
        Ok(())
    }

    /// Polls the event loops that have something to do, until none has.
    fn poll_ready(&mut self) -> Result<(), Trouble> {
        loop {
            let ready: Vec<Place> = self.context.ready.take().collect();
            if ready.is_empty() {
                return Ok(());
            }
            for place in ready {
                self.poll(place)?;
                for answer in std::mem::take(&mut self.context.answers) {
                    self.answer(&answer)?;
                }
            }
        }
    }

    fn poll(&mut self, place: Place) -> Result<(), Trouble> {
        let waker = self.wakers[place].clone();
        let Some(node) = self.nodes.get(place) else {
            let outside = &mut self.outsides[place - self.nodes.len()];
            return match outside.poll(&mut self.context, &waker)? {
                Poll::Pending => Ok(()),
                Poll::Ready(end) => violation(format!("a client ends: {end:?}")),
            };
        };
        if node.log_sink.is_waited_for() {
            return Ok(());
        }
        if node.paused_until > self.context.now {
            let (at, start) = (node.paused_until, node.start);
            self.context.schedule.put(at, Event::Resume { place, start });
            return Ok(());
        }
        self.with(place, None, |running, context| running.poll(context, &waker))?;
        let now = self.context.now;
        self.nodes[place].keep_acknowledged(now);
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Result<(), Trouble> {
        let Some(event) = self.put_off(event) else { return Ok(()) };
        match event {
            Event::Wake { place, start } => {
                let process = match self.nodes.get_mut(place) {
                    Some(node) => node.running.as_mut().map(|running| &mut running.process),
                    None => self.outsides.get_mut(place - self.nodes.len()),
                };
                if let Some(process) = process.filter(|process| process.start() == start)
                    && process.wake(self.context.now)
                {
                    self.context.ready.set(place);
                }
                Ok(())
            }
            Event::Resume { place, start } => {
                if self.nodes[place].start == start {
                    self.context.ready.set(place);
                }
                Ok(())
            }
            Event::Logged { place, start } => self.work(place, start, |running, context| {
                running.logged(context);
                Ok(())
            }),
            Event::Applied { place, start } => self.work(place, start, Running::applied),
            Event::Copied { place, start } => self.work(place, start, |running, context| {
                running.copied(context);
                Ok(())
            }),
            Event::Read { place, start } => self.work(place, start, |running, _| {
                running.read();
                Ok(())
            }),
            Event::Beside { place, start } => self.beside(place, start),
            Event::Start { place, start } => {
                let node = &self.nodes[place];
                let is_refused = node.recovery == Some(Recovery::Refused);
                if node.start == start && node.running.is_none() && !is_refused {
                    self.start(place)?;
                }
                Ok(())
            }
            Event::Ask { worker } => self.ask(worker),
            Event::Recover { place } => self.recover(place),
            Event::Fault { storm } => {
                if storm != self.storm || !self.is_storming {
                    return Ok(());
                }
                self.fault()?;
                let mean = Time::try_from(self.scenario.fault_every.as_micros()).unwrap_or(SECOND);
                let at = self.context.now + self.context.random.around(mean);
                self.context.schedule.put(at, Event::Fault { storm });
                Ok(())
            }
            Event::Mend { storm, mend } => {
                if storm == self.storm && self.is_storming {
                    self.mend(mend);
                }
                Ok(())
            }
        }
    }

    /// The turn of the program beside a node.
    fn beside(&mut self, place: Place, start: u32) -> Result<(), Trouble> {
        let cut_off_since = match self.is_cut_off(place) {
            true => Some(*self.nodes[place].cut_off_since.get_or_insert(self.context.now)),
            false => None,
        };
        self.nodes[place].cut_off_since = cut_off_since;
        let cut_off = cut_off_since.map(|since| Duration::from_micros(self.context.now - since));
        self.work(place, start, |running, context| {
            running.beside(context, cut_off);
            let at = context.now + micros(COMPANION_EVERY);
            context.schedule.put(at, Event::Beside { place, start });
            Ok(())
        })
    }

    /// Whether a node does not reach a majority of the voters that it knows, or they do not run.
    fn is_cut_off(&self, place: Place) -> bool {
        let Some(running) = &self.nodes[place].running else { return true };
        let voters = running.status().membership.voters;
        let is_reached = |other: &Place| {
            let node = &self.nodes[*other];
            let runs = node.running.is_some() && node.paused_until <= self.context.now;
            *other == place || runs && !self.context.is_cut(place, *other)
        };
        let reached = (0..self.nodes.len()).filter(|other| voters.contains(&id_of(*other)));
        reached.filter(is_reached).count() * 2 <= voters.len()
    }

    /// An event at a node that stands still is postponed.
    fn put_off(&mut self, event: Event) -> Option<Event> {
        let place = match &event {
            Event::Wake { place, .. }
            | Event::Resume { place, .. }
            | Event::Logged { place, .. }
            | Event::Applied { place, .. }
            | Event::Copied { place, .. }
            | Event::Read { place, .. }
            | Event::Beside { place, .. } => *place,
            Event::Ask { worker } => match self.workers[*worker].host {
                Host::Node(place) => place,
                Host::Outside(_) => return Some(event),
            },
            Event::Start { .. } | Event::Recover { .. } | Event::Fault { .. } | Event::Mend { .. } => {
                return Some(event);
            }
        };
        match self.nodes.get(place) {
            Some(node) if node.paused_until > self.context.now => {
                self.context.schedule.put(node.paused_until, event);
                None
            }
            _ => Some(event),
        }
    }

    /// Lets a node do something. Whatever it does to its disk may end it.
    pub(super) fn with(
        &mut self,
        place: Place,
        start: Option<u32>,
        act: impl FnOnce(&mut Running, &mut Context) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        let node = &mut self.nodes[place];
        if start.is_some_and(|start| start != node.start) {
            return Ok(());
        }
        let Some(running) = &mut node.running else { return Ok(()) };
        match act(running, &mut self.context) {
            Err(Trouble::Disk) => self.disk_failed(place),
            Err(Trouble::Damaged(why)) => self.refuses(place, &why),
            Err(Trouble::LogLost(why)) => self.log_lost(place, &why),
            // The power may have gone in a place that makes little of an error, such as a snapshot.
            Ok(()) if self.nodes[place].disk.folder.is_down() => self.disk_failed(place),
            other => other,
        }
    }

    fn disk_failed(&mut self, place: Place) -> Result<(), Trouble> {
        let power_is_lost = self.nodes[place].disk.folder.is_down();
        if power_is_lost {
            self.context.report.torn_writes += 1;
        } else {
            self.context.report.disk_errors += 1;
        }
        self.stop(place, power_is_lost)?;
        self.nodes[place].disk.repair();
        self.start_later(place);
        Ok(())
    }

    /// Lets a thread of a node finish what it has in hand, and the event loop look at the result.
    fn work(
        &mut self,
        place: Place,
        start: u32,
        act: impl FnOnce(&mut Running, &mut Context) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        self.context.ready.set(place);
        self.with(place, Some(start), act)
    }

    /// Starts a node, at times with its power going in the midst of it.
    pub(super) fn start(&mut self, place: Place) -> Result<(), Trouble> {
        let mut config = self.config.clone();
        config.id = id_of(place);
        let node = &mut self.nodes[place];
        if node.is_founder {
            config = config.bootstrap((0..self.scenario.nodes.max(1)).map(id_of));
        }
        match node.start(&mut self.context, config) {
            Err(Trouble::Disk) => self.disk_failed(place),
            Err(Trouble::Damaged(why)) => self.refuses(place, &why),
            other => {
                self.context.ready.set(place);
                other
            }
        }
    }

    pub(super) fn start_later(&mut self, place: Place) {
        let node = &mut self.nodes[place];
        if node.running.is_none() {
            let at = self.context.now + self.context.random.around(500 * MILLISECOND);
            self.context.schedule.put(at, Event::Start { place, start: node.start });
        }
    }

    /// Ends a node's process.
    pub(super) fn stop(&mut self, place: Place, power_is_lost: bool) -> Result<(), Trouble> {
        self.nodes[place].stop(&mut self.context, power_is_lost);
        for worker in 0..self.workers.len() {
            if self.workers[worker].host == Host::Node(place) {
                self.forget(worker)?;
            }
        }
        Ok(())
    }

    /// The process of a worker is gone, and with it who waited.
    pub(super) fn forget(&mut self, worker: usize) -> Result<(), Trouble> {
        if let Some(number) = self.workers[worker].asked.take() {
            match self.context.history.forget(number).map_err(Trouble::Violation)? {
                Ending::Unknown => self.context.report.unknown += 1,
                Ending::Failed | Ending::Acknowledged => self.context.report.failed += 1,
            }
        }
        self.ask_later(worker);
        Ok(())
    }

    pub(super) fn ask_later(&mut self, worker: usize) {
        let think = Time::try_from(self.scenario.think.as_micros()).unwrap_or(SECOND);
        let at = self.context.now + self.context.random.around(think);
        self.workers[worker].ask_at = at;
        self.context.schedule.put(at, Event::Ask { worker });
    }

    fn ask(&mut self, worker: usize) -> Result<(), Trouble> {
        if self.context.now < self.workers[worker].ask_at {
            return Ok(());
        }
        self.workers[worker].ask_at = Time::MAX;
        if !self.is_storming || self.workers[worker].asked.is_some() {
            return Ok(());
        }
        let (keys, value) = (self.context.history.keys, self.asked + 1);
        let asked = if std::mem::take(&mut self.context.history.is_keyspace_missing) {
            Asked::CreateKeyspace
        } else {
            let is_named = !self.context.history.keyspace().is_default();
            self.workers[worker].think(&mut self.context.random, keys, value, is_named)
        };
        let patience = match self.context.random.below(20) {
            0 => self.context.random.between(1, 300) * MILLISECOND,
            1 => SECOND,
            _ => 20 * SECOND,
        };
        self.ask_for(worker, asked, patience)
    }

    pub(super) fn ask_for(&mut self, worker: usize, asked: Asked, patience: Time) -> Result<(), Trouble> {
        let host = self.workers[worker].host;
        if matches!(host, Host::Node(place) if self.nodes[place].running.is_none()) {
            self.ask_later(worker);
            return Ok(());
        }
        // A transaction may write four values.
        self.asked += 8;
        let number = self.asked;
        self.context.report.operations += 1;
        let operation = self.context.history.operation(&asked);
        self.context.history.ask(number, asked);
        self.workers[worker].asked = Some(number);
        let asking = Asking { number, operation, deadline: self.context.now + patience };
        match host {
            Host::Node(place) => {
                self.context.ready.set(place);
                self.with(place, None, |running, _| {
                    running.ask(asking);
                    Ok(())
                })
            }
            Host::Outside(outside) => {
                self.context.ready.set(self.nodes.len() + outside);
                self.outsides[outside].ask(asking);
                Ok(())
            }
        }
    }

    fn answer(&mut self, answer: &super::context::Answer) -> Result<(), Trouble> {
        let Some(worker) = self.workers.iter().position(|worker| worker.asked == Some(answer.0)) else {
            return violation(format!("operation {} is answered, and nobody waits for it", answer.0));
        };
        self.workers[worker].asked = None;
        let ending = self.context.history.answer(answer, &mut self.workers[worker].seen);
        let ending = ending.map_err(Trouble::Violation)?;
        let report = &mut self.context.report;
        let (count, mark) = match ending {
            Ending::Acknowledged => (&mut report.acknowledged, 1),
            Ending::Failed => (&mut report.failed, 2),
            Ending::Unknown => (&mut report.unknown, 3),
        };
        *count += 1;
        self.context.trace.note(8, answer.0 << 2 | mark);
        self.ask_later(worker);
        Ok(())
    }

    /// Ends all faults.
    fn mend_all(&mut self) -> Result<(), Trouble> {
        self.context.heal_links();
        self.context.set_weather(Weather::CALM);
        for place in 0..self.nodes.len() {
            let node = &mut self.nodes[place];
            node.slow_down(0, 0);
            node.paused_until = 0;
            node.disk.mend();
            if node.running.is_none() && node.recovery != Some(Recovery::Refused) {
                self.start(place)?;
            }
        }
        Ok(())
    }

    /// Reads the logs that nothing read. They stay unread until all is well: that must not depend on them.
    fn read_logs(&mut self) {
        for place in 0..self.nodes.len() {
            let sink = &self.nodes[place].log_sink;
            sink.block(false);
            self.context.report.log_lines_dropped += sink.take_dropped();
        }
    }

    fn mend(&mut self, mend: Mend) {
        match mend {
            Mend::Links => self.context.heal_links(),
            Mend::Slowness(place) => self.nodes[place].slow_down(0, 0),
            Mend::Weather => self.context.set_weather(Weather::CALM),
            Mend::Space(place) => self.nodes[place].disk.mend(),
        }
    }
}

impl From<Cause> for Failure {
    fn from(cause: Cause) -> Failure {
        Failure::Cause(cause)
    }
}
