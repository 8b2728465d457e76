//! The healers of production beside real nodes in the simulated world of x0-kv: whole nodes with their logs,
//! disks and links in virtual time, clients whose answers are checked for linearizability, and faults of
//! every kind.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use x0_identity::NodeId;
use x0_kv::admin::AdminRequest;
use x0_kv::cluster::{Node, NodeStatus};
use x0_kv::sim::{Companion, Companions, Report, Scenario, Violation, run_with};
use x0_mapek::Mode;
use x0_mapek::kv::{Answer, Healer, HealerOptions, Input, Observation, Output, carry_out, witnessed};
use x0_mapek::suspicion::{self, Detector, DetectorOptions};
use x0_mesh::{Channel, ChannelOptions, Lane, Mux, Received, Transmit, Transport};

use super::fold;

const SERVICE: &str = "x0-node/heal-load";
const SUSPICION: &str = "x0-node/suspicion";
/// The time between two looks of the detector at the membership.
const MEMBERS_EVERY: Duration = Duration::from_secs(1);
/// The time in which another voter says whether it reaches a voter that seems to be dead, as in x0-node.
const WITNESS_LIMIT: Duration = Duration::from_secs(1);
/// The time that a transport takes to report that a peer is gone, and the age of a suspicion that counts. A
/// node that has not reached a majority for longer must not act on another one.
pub(super) const CUT_OFF_MAX: Duration = Duration::from_secs(5);

/// The deeds of the healers in a history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Deeds {
    /// Actions that were given out, by kind.
    pub(super) actions: BTreeMap<&'static str, u64>,
    /// Actions on other nodes by a node that had not reached a majority for [`CUT_OFF_MAX`].
    pub(super) by_minority: u64,
    /// Samples of members that were suspect, and had been silent before.
    pub(super) silent: u64,
    /// Records, and those whose numbers do not follow from the record alone.
    pub(super) records: u64,
    pub(super) wrong_records: Vec<String>,
    /// A digest of all records.
    pub(super) digest: u64,
}

type Shared = Arc<Mutex<Deeds>>;
/// A question to the node, which the turns of its companion poll.
type Asked<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// An hour of a faulted cluster whose nodes have healers.
pub(super) fn hour(seed: u64, lasts: Duration) -> (Deeds, Result<Report, Box<Violation>>) {
    let deeds = Shared::default();
    let mut scenario = Scenario::new(seed);
    // As `Scenario::hour`, with the ticks and heartbeats of production, which the healer expects.
    scenario.duration = lasts;
    scenario.storm = Duration::from_secs(60);
    scenario.fault_every = Duration::from_secs(5);
    scenario.think = Duration::from_secs(2);
    let shared = Arc::clone(&deeds);
    let voters = [None, Some(3), Some(5)][usize::try_from(seed % 3).unwrap_or(0)];
    let replace_after = Duration::from_secs([2, 5, 20][usize::try_from(seed / 3 % 3).unwrap_or(0)]);
    let mut starts = 0;
    let companions = Companions::new(move |node, mux| {
        let options = HealerOptions::new()
            .mode(Mode::Active)
            // The storms are short.
            .grace(Duration::from_secs(2))
            .back_off(Duration::from_secs(5))
            .voters(voters)
            .replace_after(Some(replace_after));
        starts += 1;
        let suspicion = Suspicion::new(node, mux, starts);
        Box::new(Beside::new(node, mux, &options, suspicion, Arc::clone(&shared)))
    });
    let played = run_with(&scenario, companions);
    let deeds = deeds.lock().unwrap_or_else(PoisonError::into_inner).clone();
    (deeds, played)
}

/// A failure detector beside its node, as the driver of x0-node has it.
struct Suspicion {
    detector: Detector,
    channel: Option<Channel>,
    members_at: Duration,
}

impl Suspicion {
    /// `instance` differs from one start of the process to the next.
    fn new(node: &Node, mux: &Mux, instance: u64) -> Suspicion {
        let options = DetectorOptions::new();
        let detector = Detector::new(node.id().get(), instance, options, Duration::ZERO);
        let channel = mux.channel(ChannelOptions::new(SUSPICION).bulk(false)).ok();
        Suspicion { detector, channel, members_at: Duration::ZERO }
    }

    /// Takes its messages and its turn. Sets the members that do not answer: those that accuse each of them,
    /// and for how long it has been silent.
    fn work(&mut self, now: Duration, node: &Node, cx: &mut Context<'_>, observation: &mut Observation) {
        let mut payload = Vec::new();
        while let Some(channel) = &mut self.channel
            && let Poll::Ready(Ok(Received { from, .. })) = channel.poll_recv(cx, &mut payload)
        {
            let input = suspicion::Input::Received { from: from.get(), message: &payload };
            // A message of a node that is no member here.
            let _ = self.detector.handle(now, input);
        }
        while let Some(channel) = &mut self.channel
            && channel.poll_event(cx).is_ready()
        {}
        if now >= self.members_at {
            self.members_at = now + MEMBERS_EVERY;
            let membership = node.status().membership;
            let all = [
                membership.voters,
                membership.voters_outgoing,
                membership.learners,
                membership.learners_next,
            ];
            let members = all.into_iter().flatten().map(NodeId::get).collect();
            let _ = self.detector.handle(now, suspicion::Input::Members(&members));
        }
        if self.detector.poll_timeout().is_some_and(|due| due <= now) {
            let _ = self.detector.handle(now, suspicion::Input::Timeout);
        }
        while let Some(output) = self.detector.poll_output() {
            let suspicion::Output::Send { to, message } = output else { continue };
            for to in to.into_iter().filter_map(NodeId::new) {
                let transmit = Transmit { to, lane: Lane::Datagram, payload: &message };
                if let Some(channel) = &mut self.channel {
                    // A datagram is taken or dropped at once.
                    let _ = channel.poll_send(cx, &transmit);
                }
            }
        }
        for suspect in self.detector.suspects() {
            let Some(member) = NodeId::new(suspect.member) else { continue };
            let accusers = suspect.accusers.into_iter().filter_map(NodeId::new).collect();
            observation.suspects.insert(member, accusers);
            observation.silent.insert(member, now.saturating_sub(suspect.silent_since));
        }
    }
}

/// A healer beside its node, as the driver of x0-node has it.
struct Beside {
    healer: Healer,
    suspicion: Suspicion,
    /// Messages to and from the healers of the other nodes.
    channel: Option<Channel>,
    asked: Vec<Asked<Answer>>,
    changes: Vec<Change>,
    deeds: Shared,
    started: Option<Duration>,
}

/// A change of the voters that is under way.
struct Change {
    id: u64,
    /// Until when other voters may answer.
    limit: Duration,
    dead: Option<NodeId>,
    asked: Vec<(Asked<Option<NodeStatus>>, Option<NodeStatus>)>,
    request: Option<AdminRequest>,
    ordered: Option<Asked<Result<(), String>>>,
}

impl Change {
    fn new(now: Duration, node: &Node, id: u64, dead: Option<NodeId>, request: AdminRequest) -> Change {
        let voters = node.status().membership.voters;
        let others = voters.into_iter().filter(|voter| *voter != node.id() && Some(*voter) != dead);
        // Without a dead voter there is nothing to ask for.
        let others = others.filter(|_| dead.is_some());
        let asked = others.map(|voter| (Box::pin(node.ask_status(voter)) as Pin<Box<_>>, None)).collect();
        Change { id, limit: now + WITNESS_LIMIT, dead, asked, request: Some(request), ordered: None }
    }

    /// Goes on with the change. Its result, once it has one.
    fn poll(&mut self, now: Duration, node: &Node, cx: &mut Context<'_>) -> Option<Result<(), String>> {
        if self.request.is_some() {
            self.asked.retain_mut(|(asked, answer)| match answer {
                Some(_) => true,
                None => match asked.as_mut().poll(cx) {
                    Poll::Ready(status) => {
                        *answer = status;
                        answer.is_some()
                    }
                    Poll::Pending => true,
                },
            });
            if now < self.limit && self.asked.iter().any(|(_, answer)| answer.is_none()) {
                return None;
            }
            if let Some(dead) = self.dead {
                let voters = node.status().membership.voters;
                let answers = self.asked.iter().filter_map(|(_, answer)| answer.as_ref());
                let answers = answers.map(|status| (status.node, status.reached.contains(&dead)));
                if let Err(reason) = witnessed(&voters, answers) {
                    return Some(Err(reason));
                }
            }
            let ordered = node.admin(self.request.take()?);
            self.ordered =
                Some(Box::pin(async move { ordered.await.map(drop).map_err(|error| error.to_string()) }));
        }
        match self.ordered.as_mut()?.as_mut().poll(cx) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        }
    }
}

impl Beside {
    fn new(node: &Node, mux: &Mux, options: &HealerOptions, suspicion: Suspicion, deeds: Shared) -> Beside {
        // The name is free: each start of a node has a mux of its own.
        let channel = mux.channel(ChannelOptions::new(SERVICE)).ok();
        let healer = Healer::new(node.id(), options);
        Beside { healer, suspicion, channel, asked: Vec::new(), changes: Vec::new(), deeds, started: None }
    }

    fn feed(&mut self, now: Duration, input: Input<'_>) {
        // The healer gave up on an action that took too long.
        let _ = self.healer.handle(now, input);
    }

    fn deed(&self, kind: &'static str, is_on_itself: bool, cut_off: Option<Duration>) {
        let mut deeds = self.deeds.lock().unwrap_or_else(PoisonError::into_inner);
        *deeds.actions.entry(kind).or_default() += 1;
        let is_minority = cut_off.is_some_and(|cut_off| cut_off > CUT_OFF_MAX);
        deeds.by_minority += u64::from(is_minority && !is_on_itself);
    }

    fn receive(&mut self, now: Duration, cx: &mut Context<'_>) {
        let mut payload = Vec::new();
        while let Some(channel) = &mut self.channel
            && let Poll::Ready(Ok(Received { from, .. })) = channel.poll_recv(cx, &mut payload)
        {
            self.feed(now, Input::Received { from, message: &payload });
        }
        while let Some(channel) = &mut self.channel
            && channel.poll_event(cx).is_ready()
        {}
    }

    fn carry_out(&mut self, now: Duration, node: &Node, output: Output, cut_off: Option<Duration>) {
        match output {
            Output::Transfer { id, to } => {
                self.deed("transfer-leadership", true, cut_off);
                node.transfer_leadership(to);
                self.feed(now, Input::Outcome { id, result: Ok(()) });
            }
            Output::TakeOver { id } => {
                self.deed("take-over", false, cut_off);
                node.take_over();
                self.feed(now, Input::Outcome { id, result: Ok(()) });
            }
            Output::Replace { id, dead, spare } => {
                self.deed("replace-voter", false, cut_off);
                let request = AdminRequest::Replace { old: dead, new: spare };
                self.changes.push(Change::new(now, node, id, Some(dead), request));
            }
            Output::Promote { id, spare, voters } => {
                self.deed("promote-spare", false, cut_off);
                let request = AdminRequest::Promote { node: spare };
                let request = AdminRequest::Planned { voters, request: request.into() };
                self.changes.push(Change::new(now, node, id, None, request));
            }
            Output::Demote { id, voter, is_dead, voters } => {
                self.deed("demote-voter", false, cut_off);
                let request = AdminRequest::Demote { node: voter };
                let request = AdminRequest::Planned { voters, request: request.into() };
                self.changes.push(Change::new(now, node, id, is_dead.then_some(voter), request));
            }
            Output::Ask(ask) => self.asked.push(Box::pin(carry_out(node.store().clone(), ask))),
            Output::Notify { to, message } => {
                let mut cx = Context::from_waker(Waker::noop());
                for to in to {
                    let transmit = Transmit { to, lane: Lane::Ordered(0), payload: &message };
                    if let Some(channel) = &mut self.channel {
                        // A voter that is not reached hears the next one.
                        let sent = pin!(poll_fn(|cx| channel.poll_send(cx, &transmit)));
                        let _ = sent.poll(&mut cx);
                    }
                }
            }
            Output::Record(record) => {
                let mut deeds = self.deeds.lock().unwrap_or_else(PoisonError::into_inner);
                deeds.records += 1;
                if let Err(wrong) = record.recompute() {
                    deeds.wrong_records.push(wrong.to_string());
                }
                for chunk in record.to_bytes().chunks(8) {
                    let number = chunk.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
                    deeds.digest = fold(deeds.digest, number);
                }
            }
            _ => {}
        }
    }
}

impl Companion for Beside {
    fn work(&mut self, now: Duration, node: &Node, cut_off: Option<Duration>) {
        // The clock of a healer begins with its process, as in x0-node.
        let origin = *self.started.get_or_insert(now);
        let now = now.saturating_sub(origin);
        let mut cx = Context::from_waker(Waker::noop());
        let mut observation = Observation::of(node);
        self.suspicion.work(now, node, &mut cx, &mut observation);
        let silent = observation.silent.values().filter(|silent| !silent.is_zero()).count() as u64;
        self.deeds.lock().unwrap_or_else(PoisonError::into_inner).silent += silent;
        self.feed(now, Input::Sample(&observation));
        self.receive(now, &mut cx);
        for mut asked in std::mem::take(&mut self.asked) {
            match asked.as_mut().poll(&mut cx) {
                Poll::Ready(answer) => self.feed(now, Input::Stored(answer)),
                Poll::Pending => self.asked.push(asked),
            }
        }
        for mut change in std::mem::take(&mut self.changes) {
            match change.poll(now, node, &mut cx) {
                Some(result) => self.feed(now, Input::Outcome { id: change.id, result }),
                None => self.changes.push(change),
            }
        }
        while let Some(output) = self.healer.poll_output() {
            self.carry_out(now, node, output, cut_off);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn healers_break_nothing_in_a_faulted_cluster_and_one_seed_gives_one_log() {
        let lasts = Duration::from_secs(240);
        let mut actions = BTreeMap::new();
        for seed in 0..6 {
            let (deeds, played) = hour(seed, lasts);
            let report = played.unwrap_or_else(|violation| panic!("{violation}"));
            assert!(report.acknowledged > 0, "{report}");
            assert_eq!((deeds.by_minority, &deeds.wrong_records), (0, &Vec::new()), "seed {seed}");
            assert!(deeds.silent > 0, "seed {seed}: no healer knew of a silence");
            for (kind, count) in &deeds.actions {
                *actions.entry(*kind).or_insert(0) += count;
            }
        }
        // Otherwise nothing was shown.
        assert!(actions.contains_key("replace-voter"), "{actions:?}");
        let (first, again) = (hour(1, lasts), hour(1, lasts));
        assert_eq!(first.0, again.0);
        assert_eq!(first.1.unwrap().trace_hash, again.1.unwrap().trace_hash);
    }
}
