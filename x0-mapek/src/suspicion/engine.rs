//! The protocol engine.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::message::{ACCUSED_MAX, Message, Report};
use super::options::DetectorOptions;
use super::peer::{Accused, Confirmation, Doubt, Peer};
use super::ring::Ring;
use super::{HandleError, Input, MEMBERS_MAX, Output, Suspect};
use crate::detect::LocalHealth;

/// The members that are probed beside a member in doubt.
const CONTROLS: usize = 2;
/// The time between two probes of an accused member.
const RETURN_PROBE_EVERY: Duration = Duration::from_secs(1);
/// The time between two questions to an accuser.
const CONFIRM_EVERY: Duration = Duration::from_millis(200);
/// The time from a change of a report to its first repetition. It doubles from one to the next.
const REPEAT_AFTER: Duration = Duration::from_millis(200);
/// The longest time between two repetitions.
const REPEAT_EVERY: Duration = Duration::from_secs(10);
/// A report that is not heard again within this time counts no more: those with accusations are repeated for
/// as long as they hold, and the one that takes them back may have been lost.
const REPORT_AGE_MAX: Duration = Duration::from_secs(25);
/// A report without accusations is not repeated after this.
const REPEAT_EMPTY_UNTIL: Duration = Duration::from_secs(1);
/// The most probes that are answered between two timers.
const ANSWERS_MAX: usize = 2 * MEMBERS_MAX;

/// A failure detector, as a protocol engine: it has no clock, thread or source of randomness. The
/// [module](super) describes the protocol.
///
/// # Drain contract
/// After each [`handle`](Detector::handle) call [`poll_output`](Detector::poll_output) until it returns
/// `None`. Pass [`Input::Timeout`] when [`poll_timeout`](Detector::poll_timeout) has come: the detector
/// measures its own lateness by it. An error of `handle` leaves the detector as it was.
#[derive(Debug)]
pub struct Detector {
    local: u64,
    options: DetectorOptions,
    ring: Ring,
    /// The other members.
    peers: BTreeMap<u64, Peer>,
    health: LocalHealth,
    now: Duration,
    tick_at: Duration,
    heartbeat_at: Duration,
    /// Which of the two neighbours the next heartbeat is for.
    turn: usize,
    /// When this process ran again after its last pause, or its start.
    ran_at: Duration,
    /// The number of the last probe.
    number: u64,
    report: Report,
    /// When the report is repeated, and the time until the repetition after that.
    repeat: Option<(Duration, Duration)>,
    /// Probes answered since the last timer.
    answered: usize,
    outputs: VecDeque<Output>,
}

impl Detector {
    /// A detector of member `local` that knows no other member.
    ///
    /// `instance` differs from one start of the process to the next; a random number or the time of the start
    /// will do.
    #[must_use]
    pub fn new(local: u64, instance: u64, options: DetectorOptions, now: Duration) -> Detector {
        let least = Duration::from_millis(1);
        let (heartbeat, tick) = (options.heartbeat.max(least), options.tick.max(least));
        let options = DetectorOptions { heartbeat, tick, ..options };
        Detector {
            local,
            ring: Ring::default(),
            peers: BTreeMap::new(),
            health: LocalHealth::new(options.health),
            now,
            tick_at: now + options.tick,
            heartbeat_at: now,
            turn: 0,
            ran_at: now,
            number: 0,
            report: Report { instance, ..Report::default() },
            repeat: None,
            answered: 0,
            outputs: VecDeque::new(),
            options,
        }
    }

    /// The member beside which the detector runs.
    #[must_use]
    pub fn local(&self) -> u64 {
        self.local
    }

    /// Takes an input at `now`. A time before that of the last input counts as that.
    ///
    /// # Errors
    /// See [`HandleError`]. Nothing has changed.
    pub fn handle(&mut self, now: Duration, input: Input<'_>) -> Result<(), HandleError> {
        let now = now.max(self.now);
        match input {
            Input::Members(members) => {
                if members.len() > MEMBERS_MAX {
                    return Err(HandleError::MembersExceeded { count: members.len() });
                }
                self.advance(now);
                self.members(members);
            }
            Input::Received { from, message } => {
                self.check(from)?;
                let message =
                    Message::from_bytes(message).map_err(|source| HandleError::Decode { from, source })?;
                self.advance(now);
                self.alive(from);
                self.received(from, message);
            }
            Input::Alive { from } => {
                self.check(from)?;
                self.advance(now);
                self.alive(from);
            }
            Input::Timeout => self.advance(now),
        }
        Ok(())
    }

    /// The next output, or `None` when the detector waits for inputs or the time.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        Some(self.tick_at)
    }

    /// The members that are suspect now, ascending.
    #[must_use]
    pub fn suspects(&self) -> Vec<Suspect> {
        let suspect = |(member, peer): (&u64, &Peer)| {
            let (member, since) = (*member, peer.suspect_since?);
            let silent_since = peer.silent_since(&self.options, since);
            Some(Suspect { member, since, silent_since, accusers: self.accusers(member) })
        };
        self.peers.iter().filter_map(suspect).collect()
    }

    /// The members that this one accuses, ascending; a majority need not agree.
    #[must_use]
    pub fn accused(&self) -> Vec<u64> {
        self.peers.iter().filter(|(_, peer)| peer.accused.is_some()).map(|(member, _)| *member).collect()
    }

    /// The members that accuse this one, ascending.
    #[must_use]
    pub fn accusers_of_local(&self) -> Vec<u64> {
        self.accusers(self.local)
    }

    /// Whether this process runs as it should, so that it may accuse others.
    #[must_use]
    pub fn may_accuse(&self) -> bool {
        self.health.may_accuse() && self.now >= self.ran_at.saturating_add(self.options.answer_within)
    }

    /// Performs the tick that is due: before a message that came meanwhile.
    fn advance(&mut self, now: Duration) {
        self.now = now;
        if now >= self.tick_at {
            self.tick();
        }
    }

    fn check(&self, from: u64) -> Result<(), HandleError> {
        match self.peers.contains_key(&from) {
            true => Ok(()),
            false => Err(HandleError::NotAMember { from }),
        }
    }

    fn members(&mut self, members: &BTreeSet<u64>) {
        let others: BTreeSet<u64> = members.iter().copied().filter(|member| *member != self.local).collect();
        if self.peers.keys().eq(&others) {
            return;
        }
        let mut left = Vec::new();
        self.peers.retain(|member, peer| {
            let stays = others.contains(member);
            left.extend((!stays && peer.suspect_since.is_some()).then_some(*member));
            stays
        });
        if self.peers.is_empty() {
            // The last instance of this process may have accused somebody: its reports end with this one.
            self.repeat = Some((self.now, REPEAT_AFTER));
        }
        for member in &others {
            self.peers.entry(*member).or_insert_with(|| Peer::new(&self.options, self.now));
        }
        let all = others.into_iter().chain([self.local]).collect();
        self.ring = Ring::new(&all);
        self.outputs.extend(left.into_iter().map(|member| Output::Cleared { member }));
        // Of members outside of the jury an accusation does not count.
        let judged = self.ring.jury(self.local);
        for (member, peer) in &mut self.peers {
            if !judged.contains(member) {
                (peer.doubt, peer.accused) = (None, None);
            }
        }
        self.report_changes();
        self.evaluate();
    }

    /// A sign of life, which ends doubt and accusation.
    fn alive(&mut self, from: u64) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        peer.last = self.now;
        peer.is_heard = true;
        peer.doubt = None;
        if peer.accused.take().is_some() {
            self.report_changes();
            self.evaluate();
        }
    }

    fn received(&mut self, from: u64, message: Message) {
        match message {
            Message::Heartbeat => {
                if let Some(peer) = self.peers.get_mut(&from) {
                    // The time does not go back.
                    let _ = peer.beats.heartbeat(self.now);
                }
            }
            Message::Probe { number } => {
                if self.answered < ANSWERS_MAX {
                    self.answered += 1;
                    let (is_sure, report) = (self.is_sure(), self.report.clone());
                    self.send(vec![from], &Message::Answer { number, is_sure, report });
                }
            }
            Message::Answer { number, is_sure, report } => self.answer(from, number, is_sure, report),
            Message::Doubt { member } => self.asked_to_look(from, member),
            Message::Report(report) => self.reported(from, report),
        }
    }

    fn answer(&mut self, from: u64, number: u64, is_sure: bool, report: Report) {
        for peer in self.peers.values_mut() {
            if let Some(doubt) = &mut peer.doubt
                && doubt.number == number
                && doubt.controls.contains(&from)
                && doubt.control_at.is_none()
            {
                doubt.control_at = Some(self.now);
            }
        }
        if let Some(peer) = self.peers.get_mut(&from)
            && let Some((asked, at)) = peer.confirmation.asked
            && asked == number
            && is_sure
        {
            peer.confirmation.confirmed = Some(at);
        }
        self.reported(from, report);
    }

    fn reported(&mut self, from: u64, report: Report) {
        // A juror that was restarted, or that read an old message of the accused, looks again; the accused
        // answers.
        for member in &report.accused {
            self.asked_to_look(from, *member);
        }
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.take_report(self.now, report);
        }
        self.evaluate();
    }

    /// Another member of the jury doubts a member.
    fn asked_to_look(&mut self, from: u64, member: u64) {
        if member == self.local {
            self.send(vec![from], &Message::Heartbeat);
            return;
        }
        let jury = self.ring.jury(member);
        if !jury.contains(&from) || !jury.contains(&self.local) {
            return;
        }
        let Some(peer) = self.peers.get_mut(&member) else { return };
        let is_recent =
            peer.asked_at.is_some_and(|at| self.now.saturating_sub(at) < self.options.answer_within);
        if is_recent || peer.doubt.is_some() || peer.accused.is_some() {
            return;
        }
        peer.asked_at = Some(self.now);
        self.doubt(member, 0);
    }

    /// Probes a member, and others as a control.
    fn doubt(&mut self, member: u64, round: u32) {
        let number = self.next_number();
        let is_well = |other: &u64| {
            let peer = self.peers.get(other);
            peer.is_some_and(|peer| peer.doubt.is_none() && peer.accused.is_none())
        };
        let mut others = self.ring.others(self.local);
        others.retain(|other| *other != member);
        // Other ones in each round: the first ones may be silent themselves.
        let count = others.len().max(1);
        others.rotate_left(usize::try_from(round).unwrap_or(0).saturating_mul(CONTROLS) % count);
        let mut controls: Vec<u64> = others.iter().copied().filter(is_well).take(CONTROLS).collect();
        if controls.is_empty() {
            controls = others.into_iter().take(CONTROLS).collect();
        }
        let to = controls.iter().copied().chain([member]).collect();
        self.send(to, &Message::Probe { number });
        let doubt = Doubt { number, begun: self.now, controls, control_at: None, is_repeated: false, round };
        if let Some(peer) = self.peers.get_mut(&member) {
            peer.doubt = Some(doubt);
        }
    }

    fn tick(&mut self) {
        let now = self.now;
        let is_late = now.saturating_sub(self.tick_at) >= self.options.health.lateness;
        self.health.timer(self.tick_at, now);
        self.tick_at = now.saturating_add(self.options.tick);
        self.answered = 0;
        if is_late {
            self.woke_up();
        }
        if now >= self.heartbeat_at {
            self.heartbeat_at = now.saturating_add(self.options.heartbeat / 2);
            // A single neighbour has every other turn.
            let to = self.watched().into_iter().skip(self.turn).take(1).collect();
            self.turn = 1 - self.turn;
            self.send(to, &Message::Heartbeat);
        }
        self.watch();
        self.judge();
        self.look_for_returned();
        self.repeat_report();
        self.evaluate();
    }

    /// The own process did not run for a while.
    fn woke_up(&mut self) {
        self.ran_at = self.now;
        for peer in self.peers.values_mut() {
            if let Some(accused) = &mut peer.accused {
                accused.is_sure = false;
            }
        }
        let doubted: Vec<(u64, u32)> = self.doubts().map(|(member, doubt)| (member, doubt.round)).collect();
        for (member, round) in doubted {
            self.doubt(member, round + 1);
        }
        for member in self.accused() {
            if self.peers.get(&member).is_some_and(|peer| peer.doubt.is_none()) {
                self.doubt(member, 0);
            }
        }
    }

    /// Doubts the members whose heartbeats do not come.
    fn watch(&mut self) {
        let (now, ran_at) = (self.now, self.ran_at);
        for member in self.watched() {
            let is_new = self.peers.get(&member).is_some_and(|peer| {
                peer.doubt.is_none() && peer.accused.is_none() && peer.is_silent(&self.options, now, ran_at)
            });
            if is_new {
                self.doubt(member, 0);
                self.ask_jury(member);
            }
        }
    }

    /// The members that this one watches, and that watch it. Suspects are skipped, so that the member behind
    /// them has a watcher.
    fn watched(&self) -> Vec<u64> {
        let is_suspect =
            |member: u64| self.peers.get(&member).is_some_and(|peer| peer.suspect_since.is_some());
        self.ring.watchers(self.local, is_suspect)
    }

    fn ask_jury(&mut self, member: u64) {
        let jury = self.ring.jury(member).into_iter().filter(|juror| *juror != self.local).collect();
        self.send(jury, &Message::Doubt { member });
    }

    /// Accuses the members that have not answered.
    fn judge(&mut self) {
        let (now, options) = (self.now, self.options);
        let mut again = Vec::new();
        let mut probes = Vec::new();
        let may_accuse = self.may_accuse();
        for (member, peer) in &mut self.peers {
            let Some(doubt) = &mut peer.doubt else { continue };
            let waited = now.saturating_sub(doubt.begun);
            if !doubt.is_repeated && waited >= options.answer_within / 2 {
                // Probes may be lost.
                doubt.is_repeated = true;
                probes.push((*member, doubt.number));
                if doubt.control_at.is_none() {
                    probes.extend(doubt.controls.iter().map(|control| (*control, doubt.number)));
                }
            }
            match doubt.due(&options) {
                Some(due) if due <= now && may_accuse => {
                    let probe_at = now.saturating_add(RETURN_PROBE_EVERY);
                    peer.accused = Some(Accused { is_sure: true, probe_at });
                    peer.doubt = None;
                }
                None if waited >= options.answer_within => again.push((*member, doubt.round + 1)),
                _ => {}
            }
        }
        for (to, number) in probes {
            self.send(vec![to], &Message::Probe { number });
        }
        for (member, round) in again {
            self.doubt(member, round);
            self.ask_jury(member);
        }
        self.report_changes();
    }

    /// Probes the accused members, which may be back.
    fn look_for_returned(&mut self) {
        let now = self.now;
        let mut to = Vec::new();
        for (member, peer) in &mut self.peers {
            if let Some(accused) = &mut peer.accused
                && accused.probe_at <= now
            {
                accused.probe_at = now.saturating_add(RETURN_PROBE_EVERY);
                to.push(*member);
            }
        }
        if !to.is_empty() {
            let number = self.next_number();
            self.send(to, &Message::Probe { number });
        }
    }

    /// Reports the members that this one accuses, if they have changed.
    fn report_changes(&mut self) {
        let accused: BTreeSet<u64> = self.accused().into_iter().take(ACCUSED_MAX).collect();
        if accused != self.report.accused {
            self.report.accused = accused;
            self.report.sequence += 1;
            self.repeat = Some((self.now.saturating_add(REPEAT_AFTER), REPEAT_AFTER));
            self.send_report();
        }
    }

    fn repeat_report(&mut self) {
        let Some((_, gap)) = self.repeat.filter(|(at, _)| *at <= self.now) else { return };
        let gap = gap.saturating_mul(2).min(REPEAT_EVERY);
        let is_over = self.report.accused.is_empty() && gap > REPEAT_EMPTY_UNTIL;
        self.repeat = (!is_over).then(|| (self.now.saturating_add(gap), gap));
        self.send_report();
    }

    fn send_report(&mut self) {
        let to = self.peers.keys().copied().collect();
        self.send(to, &Message::Report(self.report.clone()));
    }

    /// Whether this member stands by its accusations as of now.
    fn is_sure(&self) -> bool {
        let is_sure = |peer: &Peer| peer.accused.as_ref().is_none_or(|accused| accused.is_sure);
        self.may_accuse() && self.peers.values().all(is_sure)
    }

    /// The members of the jury that accuse a member, as far as their reports have come.
    fn accusers(&self, member: u64) -> Vec<u64> {
        let accuses = |juror: &u64| match *juror == self.local {
            true => self.peers.get(&member).is_some_and(|peer| peer.accused.is_some()),
            false => self.peers.get(juror).is_some_and(|juror| {
                let age = self.now.saturating_sub(juror.reported_at);
                age < REPORT_AGE_MAX && juror.report.accused.contains(&member)
            }),
        };
        let mut accusers: Vec<u64> = self.ring.jury(member).into_iter().filter(accuses).collect();
        accusers.sort_unstable();
        accusers
    }

    /// Compares the accusations with what a verdict needs.
    fn evaluate(&mut self) {
        let mut named: BTreeSet<u64> = self.report.accused.clone();
        for (member, peer) in &self.peers {
            named.extend(&peer.report.accused);
            named.extend(peer.majority_since.map(|_| *member));
        }
        named.remove(&self.local);
        for member in named {
            if self.peers.contains_key(&member) {
                self.evaluate_one(member);
            }
        }
    }

    fn evaluate_one(&mut self, member: u64) {
        let (now, accusers) = (self.now, self.accusers(member));
        let needed = Ring::needed(self.ring.jury(member).len());
        let Some(peer) = self.peers.get_mut(&member) else { return };
        if accusers.len() < needed {
            peer.majority_since = None;
            if peer.suspect_since.take().is_some() {
                self.outputs.push_back(Output::Cleared { member });
            }
            return;
        }
        let since = *peer.majority_since.get_or_insert(now);
        if peer.suspect_since.is_some() {
            return;
        }
        let is_sure_itself = self.is_sure();
        let is_confirmed = |juror: &&u64| match **juror == self.local {
            true => is_sure_itself,
            false => {
                let confirmed = self.peers.get(*juror).and_then(|juror| juror.confirmation.confirmed);
                confirmed.is_some_and(|at| at >= since)
            }
        };
        if accusers.iter().filter(is_confirmed).count() >= needed {
            let Some(peer) = self.peers.get_mut(&member) else { return };
            peer.suspect_since = Some(now);
            let silent_since = peer.silent_since(&self.options, now);
            self.outputs.push_back(Output::Suspect(Suspect { member, since: now, silent_since, accusers }));
            return;
        }
        self.ask_accusers(&accusers, since);
    }

    /// Asks accusers whether they stand by their reports: these may have been read late.
    fn ask_accusers(&mut self, accusers: &[u64], since: Duration) {
        let now = self.now;
        for juror in accusers {
            let number = self.next_number();
            let Some(peer) = self.peers.get_mut(juror) else { continue };
            let Confirmation { asked, confirmed } = &mut peer.confirmation;
            let is_confirmed = confirmed.is_some_and(|at| at >= since);
            let is_asked = asked.is_some_and(|(_, at)| at >= since && now.saturating_sub(at) < CONFIRM_EVERY);
            if !is_confirmed && !is_asked {
                *asked = Some((number, now));
                self.send(vec![*juror], &Message::Probe { number });
            }
        }
    }

    fn doubts(&self) -> impl Iterator<Item = (u64, &Doubt)> {
        self.peers.iter().filter_map(|(member, peer)| Some((*member, peer.doubt.as_ref()?)))
    }

    fn next_number(&mut self) -> u64 {
        self.number = self.number.wrapping_add(1);
        self.number
    }

    fn send(&mut self, to: Vec<u64>, message: &Message) {
        if !to.is_empty() {
            self.outputs.push_back(Output::Send { to, message: message.to_bytes() });
        }
    }
}
