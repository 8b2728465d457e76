//! The engine of the scrub: it decides what to read, compare and repair, and does no I/O.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use x0_identity::NodeId;

use super::message::{self, Held, KeyRange, Message, RangeDigest};
use super::{ScrubEvent, ScrubOptions, ScrubStatus};
use crate::request::codec::DecodeError;
use crate::request::keyspace::KeyspaceName;

/// The time in which members must take a view or answer a digest. Those that do not are left out of the pass.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// The time after which the leader takes a view at once, since no entry is applied that could be waited for.
const MARK_LIMIT: Duration = Duration::from_millis(500);
/// How often a view is tried at an index that members have not passed.
const MARKS_MAX: u32 = 5;
/// The time after which a damaged entry is requested again, from another member.
const FETCH_AFTER: Duration = Duration::from_millis(200);
/// The longest pause between two requests for one entry.
const FETCH_AFTER_MAX: Duration = Duration::from_secs(30);
/// Most damaged entries that are being repaired. Others are found again by the next pass.
const REPAIRS_MAX: usize = 4096;
/// Most entries that are requested at one time.
const FETCHES_MAX: usize = 16;

/// A key of a keyspace.
pub(crate) type Place = (KeyspaceName, Bytes);

/// An input of a [`Scrubber`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input {
    /// The time of `poll_timeout` has come.
    Timeout,
    /// Whether this node leads, and the other members that it reaches.
    Members { is_leader: bool, members: BTreeSet<NodeId> },
    /// A message of a member.
    Message { from: NodeId, payload: Bytes },
    /// A read found a damaged entry.
    Damaged { place: Place },
    /// Answers [`Output::Mark`] and [`Output::MarkAt`]: the view is being taken at this index.
    Marked { index: u64 },
    /// The view was taken; these keyspaces exist in it.
    Taken { index: u64, keyspaces: Vec<KeyspaceName> },
    /// Answers [`Output::MarkAt`]: the index had passed.
    Missed { applied: u64 },
    /// Answers [`Output::Digest`]. `None` if the view is gone.
    Digested { index: u64, range: KeyRange, digest: Option<Digested> },
    /// Answers [`Output::Install`].
    Installed { place: Place, installed: Installed },
}

/// The result of reading a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Digested {
    pub(crate) digest: RangeDigest,
    pub(crate) bytes: u64,
    /// The range that was read: shorter than the one that was asked for if that was longer than a page.
    pub(crate) end: Option<Bytes>,
    /// Keys of damaged entries, which are not part of the digest.
    pub(crate) damaged: Vec<Bytes>,
    /// Why the rest of the range cannot be read.
    pub(crate) failure: Option<String>,
}

/// The fate of an entry of another member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Installed {
    /// The entry has replaced the damaged one.
    Replaced,
    /// The entry is not damaged any more: it was written or deleted meanwhile.
    Unneeded,
    /// This node has not applied enough to compare.
    Early,
}

/// An output of a [`Scrubber`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Output {
    /// Send this. It may be lost.
    Send { to: NodeId, payload: Bytes },
    /// Take a view so many entries ahead: [`Input::Marked`], then [`Input::Taken`].
    Mark { ahead: u64 },
    /// Take a view at this index: [`Input::Taken`] or [`Input::Missed`].
    MarkAt { index: u64 },
    /// Read a range of the view of this index, at most a page of it if `is_page`: [`Input::Digested`].
    Digest { index: u64, range: KeyRange, is_page: bool },
    /// Release the view.
    Release,
    /// Request the entry from a member: send [`Message::Fetch`] with the index that is applied.
    Fetch { to: NodeId, number: u64, place: Place },
    /// Answer a request for an entry with [`Message::Fetched`].
    Lookup { to: NodeId, number: u64, place: Place, at_least: u64 },
    /// Replace a damaged entry by this one, which another member held at the index: [`Input::Installed`].
    Install { place: Place, applied: u64, held: Held },
    /// Refuse reads of the range.
    Block { range: KeyRange },
    /// Report this.
    Event(ScrubEvent),
}

/// The pass of a leader.
#[derive(Debug)]
enum Pass {
    /// There is none until then.
    Pausing { until: Duration },
    /// The own view is being taken. `index` is known once it is marked.
    Marking { index: Option<u64>, until: Duration },
    /// Members take their views. `own` once the own one was taken.
    Preparing { until: Duration },
    /// The own digest is being computed.
    Reading,
    /// Members compute theirs.
    Comparing { range: KeyRange, own: Option<RangeDigest>, until: Duration },
    /// The rate is limited.
    Resting { until: Duration },
}

/// An entry that is being repaired.
#[derive(Debug)]
struct Repair {
    /// The request that is out, and the member.
    asked: Option<(u64, NodeId)>,
    /// When to ask (again).
    at: Duration,
    tries: u32,
}

/// The scrub of one node.
///
/// # The drain contract
/// Pass what has arrived to `handle`; take outputs with `poll_output` until there are none; pass
/// [`Input::Timeout`] at the latest at `poll_timeout`. An error of `handle` concerns one message and changes
/// nothing. Answers may come in any order, or not at all.
#[derive(Debug)]
pub(crate) struct Scrubber {
    options: ScrubOptions,
    local: NodeId,
    now: Duration,
    is_leader: bool,
    members: BTreeSet<NodeId>,
    outputs: VecDeque<Output>,
    status: ScrubStatus,

    pass: Pass,
    /// The number of the view, which other members see as that of the pass.
    number: u64,
    /// How often a view was tried in a row.
    marks: u32,
    index: u64,
    ready: BTreeSet<NodeId>,
    /// Members whose answer is awaited.
    awaited: BTreeSet<NodeId>,
    answers: BTreeMap<NodeId, Option<RangeDigest>>,
    keyspaces: VecDeque<KeyspaceName>,
    start: Bytes,
    entries: u64,
    bytes: u64,
    /// When the next page may be read.
    rest_until: Duration,

    /// The leader and the pass that the view of this node is for.
    serves: Option<(NodeId, u64)>,
    is_taken: bool,

    repairs: BTreeMap<Place, Repair>,
    next_fetch: u64,
}

impl Scrubber {
    pub(crate) fn new(options: ScrubOptions, local: NodeId, seed: u64) -> Scrubber {
        Scrubber {
            options,
            local,
            now: Duration::ZERO,
            is_leader: false,
            members: BTreeSet::new(),
            outputs: VecDeque::new(),
            status: ScrubStatus::default(),
            pass: Pass::Pausing { until: Duration::ZERO },
            // Differs from those of an earlier start, whose answers may still be on their way.
            number: seed >> 16,
            marks: 0,
            index: 0,
            ready: BTreeSet::new(),
            awaited: BTreeSet::new(),
            answers: BTreeMap::new(),
            keyspaces: VecDeque::new(),
            start: Bytes::new(),
            entries: 0,
            bytes: 0,
            rest_until: Duration::ZERO,
            serves: None,
            is_taken: false,
            repairs: BTreeMap::new(),
            next_fetch: seed >> 16,
        }
    }

    pub(crate) fn status(&self) -> ScrubStatus {
        self.status
    }

    /// Takes an input.
    ///
    /// # Errors
    /// When a message is malformed. It was dropped.
    pub(crate) fn handle(&mut self, now: Duration, input: Input) -> Result<(), DecodeError> {
        self.now = self.now.max(now);
        match input {
            Input::Timeout => {}
            Input::Members { is_leader, members } => self.members(is_leader, members),
            Input::Message { from, payload } => {
                let message = message::decode(&payload)?;
                // Only members are part of the exchange.
                if self.members.contains(&from) {
                    self.message(from, message);
                }
            }
            Input::Damaged { place } => self.damaged(place),
            Input::Marked { index } => self.marked(index),
            Input::Taken { index, keyspaces } => self.taken(index, keyspaces),
            Input::Missed { applied } => {
                if let Some((leader, pass)) = self.serves.take() {
                    self.send(leader, &Message::Missed { pass, applied });
                }
            }
            // Others are of an earlier view.
            Input::Digested { index, range, digest } if index == self.index => self.digested(range, digest),
            Input::Digested { .. } => {}
            Input::Installed { place, installed } => self.installed(place, installed),
        }
        self.advance();
        Ok(())
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Timeout`] is due.
    pub(crate) fn poll_timeout(&self) -> Option<Duration> {
        let pass = match &self.pass {
            Pass::Pausing { until } => (self.is_leader && self.is_on()).then_some(*until),
            Pass::Marking { until, .. }
            | Pass::Preparing { until }
            | Pass::Comparing { until, .. }
            | Pass::Resting { until } => Some(*until),
            Pass::Reading => None,
        };
        let repairs = match self.members.is_empty() {
            true => None,
            false => self.repairs.values().map(|repair| repair.at).min(),
        };
        pass.into_iter().chain(repairs).min()
    }

    fn is_on(&self) -> bool {
        self.options.bytes_per_second > 0
    }

    fn send(&mut self, to: NodeId, message: &Message) {
        self.outputs.push_back(Output::Send { to, payload: message::encode(message) });
    }

    fn event(&mut self, event: ScrubEvent) {
        self.outputs.push_back(Output::Event(event));
    }

    fn members(&mut self, is_leader: bool, members: BTreeSet<NodeId>) {
        self.members = members;
        let members = &self.members;
        self.ready.retain(|member| members.contains(member));
        self.awaited.retain(|member| members.contains(member));
        if self.is_leader && !is_leader {
            self.end_pass();
        }
        if is_leader && !self.is_leader {
            self.pass = Pass::Pausing { until: self.now + self.options.pause.min(Duration::from_secs(60)) };
        }
        self.is_leader = is_leader;
    }

    /// Does what is due.
    fn advance(&mut self) {
        match &self.pass {
            Pass::Pausing { until } if self.is_leader && self.is_on() && *until <= self.now => {
                (self.entries, self.bytes) = (0, 0);
                self.ready = self.members.clone();
                self.start = Bytes::new();
                self.keyspaces.clear();
                self.begin_view(0);
            }
            // No entry was applied meanwhile: now is as good as then.
            Pass::Marking { until, .. } if *until <= self.now => self.begin_view(0),
            Pass::Preparing { until } if *until <= self.now => {
                let awaited = std::mem::take(&mut self.awaited);
                self.ready.retain(|member| !awaited.contains(member));
                self.read();
            }
            Pass::Preparing { .. } if self.awaited.is_empty() => self.read(),
            Pass::Comparing { until, .. } if self.awaited.is_empty() || *until <= self.now => self.compare(),
            Pass::Resting { until } if *until <= self.now => self.read(),
            _ => {}
        }
        self.fetch();
    }

    /// Takes a view on all members that are part of the pass, so many entries ahead.
    fn begin_view(&mut self, ahead: u64) {
        self.marks += 1;
        // A number of its own: an answer that belongs to an earlier view must not be compared.
        self.number += 1;
        self.serves = None;
        self.pass = Pass::Marking { index: None, until: self.now + MARK_LIMIT };
        self.outputs.push_back(Output::Mark { ahead });
    }

    fn marked(&mut self, marked: u64) {
        let Pass::Marking { index, .. } = &mut self.pass else { return };
        *index = Some(marked);
        self.index = marked;
        self.awaited = self.ready.clone();
        let pass = self.number;
        for member in self.ready.clone() {
            self.send(member, &Message::Prepare { pass, index: marked });
        }
    }

    fn taken(&mut self, taken: u64, keyspaces: Vec<KeyspaceName>) {
        if let Some((leader, pass)) = self.serves {
            // Otherwise another one has been requested since.
            if taken == self.index {
                self.is_taken = true;
                self.send(leader, &Message::Ready { pass });
            }
            return;
        }
        let Pass::Marking { index: Some(index), .. } = &self.pass else { return };
        if *index != taken {
            return;
        }
        // The keyspaces after the one in which the pass goes on. New ones are read by the next pass.
        match self.keyspaces.front().cloned() {
            None => self.keyspaces = std::iter::once(KeyspaceName::DEFAULT).chain(keyspaces).collect(),
            Some(current) if !current.is_default() && !keyspaces.contains(&current) => {
                self.keyspaces.pop_front();
                self.start = Bytes::new();
            }
            Some(_) => {}
        }
        self.pass = Pass::Preparing { until: self.now + ANSWER_LIMIT };
    }

    /// Reads the next page of the pass.
    fn read(&mut self) {
        self.marks = 0;
        let Some(keyspace) = self.keyspaces.front().cloned() else {
            self.status.passes += 1;
            let (entries, bytes, members) = (self.entries, self.bytes, self.ready.len() as u64);
            self.event(ScrubEvent::Completed { entries, bytes, members });
            return self.end_pass();
        };
        self.pass = Pass::Reading;
        let range = KeyRange { keyspace, start: self.start.clone(), end: None };
        self.outputs.push_back(Output::Digest { index: self.index, range, is_page: true });
    }

    fn end_pass(&mut self) {
        if !matches!(self.pass, Pass::Pausing { .. }) {
            let pass = self.number;
            for member in std::mem::take(&mut self.ready) {
                self.send(member, &Message::Finish { pass });
            }
            self.outputs.push_back(Output::Release);
        }
        self.awaited.clear();
        self.answers.clear();
        self.pass = Pass::Pausing { until: self.now + self.options.pause };
    }

    fn digested(&mut self, range: KeyRange, digest: Option<Digested>) {
        if let Some(found) = &digest {
            self.status.entries += found.digest.entries;
            for key in &found.damaged {
                self.damaged((range.keyspace.clone(), key.clone()));
            }
            if let Some(message) = &found.failure {
                self.event(ScrubEvent::Failed { message: message.clone() });
            }
        }
        if let Some((leader, pass)) = self.serves {
            let answer = match digest {
                None => Message::Gone { pass },
                Some(found) => {
                    let is_whole = found.damaged.is_empty() && found.failure.is_none();
                    Message::Digested { pass, start: range.start, digest: is_whole.then_some(found.digest) }
                }
            };
            return self.send(leader, &answer);
        }
        if !matches!(self.pass, Pass::Reading) {
            return;
        }
        let Some(found) = digest else { return self.begin_view(0) };
        if found.failure.is_some() {
            return self.end_pass();
        }
        self.entries += found.digest.entries;
        self.bytes += found.bytes;
        let is_whole = found.damaged.is_empty();
        let range = KeyRange { end: found.end.clone(), ..range };
        match found.end {
            Some(end) => self.start = end,
            None => {
                self.keyspaces.pop_front();
                self.start = Bytes::new();
            }
        }
        self.answers.clear();
        self.awaited = self.ready.clone();
        let pass = self.number;
        for member in self.ready.clone() {
            self.send(member, &Message::Digest { pass, range: range.clone() });
        }
        let own = is_whole.then_some(found.digest);
        self.pass = Pass::Comparing { range, own, until: self.now + ANSWER_LIMIT };
        // The rate counts what the leader has read.
        self.bytes_to_rest(found.bytes);
    }

    /// Remembers how long to rest after the comparison.
    fn bytes_to_rest(&mut self, bytes: u64) {
        let rest = bytes.saturating_mul(1_000_000) / self.options.bytes_per_second.max(1);
        self.rest_until = self.now + Duration::from_micros(rest);
    }

    /// Compares the digests that have come.
    fn compare(&mut self) {
        let until = self.rest_until;
        let Pass::Comparing { range, own, .. } = std::mem::replace(&mut self.pass, Pass::Resting { until })
        else {
            return;
        };
        let silent = std::mem::take(&mut self.awaited);
        self.ready.retain(|member| !silent.contains(member));
        let answers = std::mem::take(&mut self.answers);
        let local = own.map(|own| (self.local, own));
        let known: Vec<(NodeId, RangeDigest)> =
            answers.into_iter().filter_map(|(member, digest)| Some((member, digest?))).chain(local).collect();
        let mut counts = BTreeMap::<RangeDigest, usize>::new();
        for (_, digest) in &known {
            *counts.entry(*digest).or_default() += 1;
        }
        if counts.len() < 2 {
            return;
        }
        let majority = counts.iter().find(|(_, count)| **count * 2 > known.len()).map(|(digest, _)| *digest);
        let (pass, index) = (self.number, self.index);
        for (node, _) in known.into_iter().filter(|(_, digest)| Some(*digest) != majority) {
            // Without a majority nobody knows who is right, and all may be asked by their readers.
            let KeyRange { keyspace, start, end } = range.clone();
            self.event(ScrubEvent::Diverged { node, keyspace, start, end, index });
            if majority.is_none() {
                continue;
            }
            if node == self.local {
                self.status.diverged += 1;
                self.outputs.push_back(Output::Block { range: range.clone() });
            } else {
                self.send(node, &Message::Diverged { pass, index, range: range.clone() });
            }
        }
    }

    #[expect(clippy::collapsible_match, reason = "a guard that changes something would hide it")]
    fn message(&mut self, from: NodeId, message: Message) {
        match message {
            Message::Prepare { pass, index } => {
                // A node that leads believes in its own pass until it learns of the other leader.
                if !self.is_leader {
                    (self.serves, self.is_taken, self.index) = (Some((from, pass)), false, index);
                    self.outputs.push_back(Output::MarkAt { index });
                }
            }
            Message::Digest { pass, range } => match self.serves == Some((from, pass)) && self.is_taken {
                true => {
                    self.outputs.push_back(Output::Digest { index: self.index, range, is_page: false });
                }
                false => self.send(from, &Message::Gone { pass }),
            },
            Message::Finish { pass } => {
                if self.serves == Some((from, pass)) {
                    self.serves = None;
                    self.outputs.push_back(Output::Release);
                }
            }
            Message::Diverged { pass, index, range } => {
                if self.serves == Some((from, pass)) {
                    self.status.diverged += 1;
                    let (node, KeyRange { keyspace, start, end }) = (self.local, range.clone());
                    self.event(ScrubEvent::Diverged { node, keyspace, start, end, index });
                    self.outputs.push_back(Output::Block { range });
                }
            }
            Message::Ready { pass } if pass == self.number => drop(self.awaited.remove(&from)),
            Message::Missed { pass, applied } if pass == self.number => self.missed(from, applied),
            Message::Gone { pass } if pass == self.number => {
                // All take a new view, and go on from the next range.
                if self.awaited.remove(&from) && matches!(self.pass, Pass::Comparing { .. }) {
                    self.begin_view(0);
                }
            }
            Message::Digested { pass, start, digest } if pass == self.number => {
                let is_asked = matches!(&self.pass, Pass::Comparing { range, .. } if range.start == start);
                if is_asked && self.awaited.remove(&from) {
                    self.answers.insert(from, digest);
                }
            }
            Message::Fetch { number, keyspace, key, at_least } => {
                self.outputs.push_back(Output::Lookup { to: from, number, place: (keyspace, key), at_least });
            }
            Message::Fetched { number, applied, held } => self.fetched(from, number, applied, held),
            _ => {}
        }
    }

    /// A member had passed the index: further ahead, or without it after some tries.
    fn missed(&mut self, from: NodeId, applied: u64) {
        if !self.awaited.contains(&from) {
            return;
        }
        if self.marks < MARKS_MAX {
            let ahead = applied.saturating_sub(self.index).saturating_mul(2) + 64;
            self.begin_view(ahead << self.marks.min(8));
        } else {
            self.awaited.remove(&from);
            self.ready.remove(&from);
        }
    }

    fn damaged(&mut self, place: Place) {
        if self.repairs.len() >= REPAIRS_MAX || self.repairs.contains_key(&place) {
            return;
        }
        self.status.damaged += 1;
        let (keyspace, key) = place.clone();
        self.event(ScrubEvent::Damaged { keyspace, key });
        self.repairs.insert(place, Repair { asked: None, at: self.now, tries: 0 });
    }

    /// Requests entries that are due, each time from another member.
    fn fetch(&mut self) {
        if self.members.is_empty() {
            return;
        }
        let (now, members) = (self.now, self.members.len());
        let due = self.repairs.iter_mut().filter(|(_, repair)| repair.at <= now).take(FETCHES_MAX);
        for (place, repair) in due {
            let member = self.members.iter().nth(repair.tries as usize % members).copied();
            let Some(to) = member else { continue };
            self.next_fetch += 1;
            repair.asked = Some((self.next_fetch, to));
            repair.at = now + FETCH_AFTER.saturating_mul(1 << repair.tries.min(10)).min(FETCH_AFTER_MAX);
            repair.tries = repair.tries.saturating_add(1);
            self.outputs.push_back(Output::Fetch { to, number: self.next_fetch, place: place.clone() });
        }
    }

    fn fetched(&mut self, from: NodeId, number: u64, applied: u64, held: Held) {
        let asked = |repair: &Repair| repair.asked == Some((number, from));
        let Some((place, _)) = self.repairs.iter().find(|(_, repair)| asked(repair)) else { return };
        if held != Held::Unknown {
            self.outputs.push_back(Output::Install { place: place.clone(), applied, held });
        }
    }

    fn installed(&mut self, place: Place, installed: Installed) {
        if installed == Installed::Early {
            return;
        }
        let Some(Repair { asked, .. }) = self.repairs.remove(&place) else { return };
        self.status.repaired += 1;
        if let Some((_, from)) = asked {
            let (keyspace, key) = place;
            self.event(ScrubEvent::Repaired { keyspace, key, from });
        }
    }
}

#[cfg(test)]
mod tests;
