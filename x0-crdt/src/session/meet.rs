//! The handshake of a session: the two sides compare frontiers, hash keys and the heartbeats of members.

use core::time::Duration;

use super::members::{Table, lower};
use super::message::{About, Kind, Message};
use super::{Replicated, Session, SessionError};
use crate::codec::ByteReader;
use crate::{Frontier, HashKey};

/// In so many parts of a lease heartbeats are compared once, while nothing but the lease waits for them.
const COMPARISONS_PER_LEASE: u32 = 5;

/// How often a comparison of heartbeats is repeated.
const COMPARISON_TRIES_MAX: u32 = 2;

/// A comparison of heartbeats that the peer has not answered yet.
#[derive(Debug)]
pub(super) struct Compared {
    /// The heartbeats as they were sent.
    table: Table,
    pub(super) retry_at: Duration,
    tries: u32,
}

/// The check value of a hash key.
fn key_check(key: HashKey) -> u32 {
    lower(key.hash(&[b"key check"]))
}

/// The hash of a frontier.
fn same_hash(key: HashKey, frontier: Frontier) -> u64 {
    key.hash(&[b"same", &frontier.version.to_le_bytes(), &frontier.content.to_le_bytes()])
}

impl<R: Replicated> Session<R> {
    pub(super) fn announce(&mut self, now: Duration, state: &R, asks: bool) {
        let (key, frontier) = (state.hash_key(), state.frontier());
        // Remembered to recognize that a crossing announcement of the peer is answered already.
        self.announced = Some(frontier);
        self.announced_at = now;
        let quiet = state.members().is_quiet(&state.version());
        let about = About { members: state.members().summary(key), quiet, asks };
        let hash = same_hash(key, frontier);
        if self.agreed == Some(frontier) {
            self.send(&Message::Same { hash, about });
        } else if !(asks && self.push(state, hash, about)) {
            self.send(&Message::Frontier { frontier, key_check: key_check(key), about });
        }
    }

    pub(super) fn on_announcement(
        &mut self,
        now: Duration,
        theirs: Frontier,
        check: u32,
        about: About,
        state: &mut R,
    ) -> Result<(), SessionError> {
        if check == key_check(state.hash_key()) {
            if core::mem::take(&mut self.mismatch) {
                self.announce_pause = self.options.retry_min;
            }
            self.on_frontier(now, theirs, about, state);
            return Ok(());
        }
        let is_first = !core::mem::replace(&mut self.mismatch, true);
        if is_first {
            // Nothing of the peer can be joined, and the peer can join nothing.
            self.drop_transfers();
            self.collecting = Default::default();
            (self.in_sync, self.agreed, self.compared) = (false, None, None);
            self.announce_pause = self.options.retry_max;
            // The peer detects the mismatch by an announcement of this side, unless one is under way.
            if self.announced.is_none() || now >= self.announced_at + self.options.retry_min {
                self.announce(now, state, false);
            }
            self.announce_at = now + self.options.retry_max;
        }
        Err(SessionError::KeyMismatch)
    }

    /// An announcement of a frontier that both sides had.
    pub(super) fn on_same(&mut self, now: Duration, hash: u64, about: About, state: &mut R) {
        let (key, mine) = (state.hash_key(), state.frontier());
        if hash == same_hash(key, mine) {
            self.on_frontier(now, mine, about, state);
        } else {
            self.in_sync = false;
            // A change here that has crossed it can still be pushed: the peer is where both were.
            self.agreed = self.agreed.filter(|agreed| hash == same_hash(key, *agreed));
            if about.asks && !self.is_announced(now, mine) {
                // The peer answers with its frontier, or requests what it lacks.
                self.announce(now, state, true);
            }
        }
    }

    /// Whether an announcement of this frontier is under way, which answers that of the peer.
    fn is_announced(&self, now: Duration, mine: Frontier) -> bool {
        self.announced == Some(mine) && now < self.announced_at + self.options.retry_min
    }

    /// Whether the state has the frontier of this hash.
    pub(super) fn has_result(&self, result: u64, state: &R) -> bool {
        result == same_hash(state.hash_key(), state.frontier())
    }

    pub(super) fn on_frontier(&mut self, now: Duration, theirs: Frontier, about: About, state: &mut R) {
        let mine = state.frontier();
        // Also when it is unequal: `begin_pull` chooses by it between history and reconciliation.
        let is_news = self.peer.replace(theirs) != Some(theirs);
        if theirs == mine {
            // If it is lost, they ask again.
            let is_answered = self.is_announced(now, mine);
            // Equality is symmetric: this side is in sync even if its answer is lost.
            self.on_equal(now, state);
            if about.asks && !is_answered {
                self.announce(now, state, false);
            }
            self.compare_members(now, about, state);
            return;
        }
        self.in_sync = false;
        // The peer has left that frontier: it needs this side's whole frontier to choose how to pull.
        self.agreed = None;
        if is_news {
            self.announce_pause = self.options.retry_min;
        }
        // A pull that fails must not leave the two sides quiet for `announce_every`.
        self.announce_at = self.announce_at.min((now + self.options.retry_max).max(self.pull_after));
        if theirs.version == mine.version {
            // Equal versions identify equal events, so one event has two contents: its writer equivocates.
            self.stats.divergences += 1;
        }
        // A version that this side knows and has seen whole cannot bring anything: only the peer lacks
        // something then.
        let nothing_new = theirs.version != mine.version
            && self.versions.get(theirs.version).is_some_and(|version| version.is_within(&state.version()));
        if !nothing_new {
            self.begin_pull(now, state);
        } else if about.asks {
            // The announcement lets the peer see what it lacks.
            self.announce(now, state, false);
        }
    }

    /// Both sides have one frontier: drops every transfer, because none can bring anything any more.
    pub(super) fn on_equal(&mut self, now: Duration, state: &mut R) {
        let version = state.version();
        self.in_sync = true;
        (self.stage, self.is_foreign) = (None, false);
        self.agreed = Some(state.frontier());
        // The peer proved to be healthy.
        self.made_progress(now);
        self.drop_transfers();
        self.announce_pause = self.options.retry_min;
        self.announce_at = now + self.options.announce_every;
        // Both sides know this version now, so either may name its next one by it.
        self.versions.insert(version.hash(state.hash_key()), version.clone());
        self.acknowledged = version;
    }

    fn drop_transfers(&mut self) {
        self.pull = None;
        self.serving[Kind::Delta as usize] = None;
        self.serving[Kind::Hashes as usize] = None;
        (self.gathering, self.preparing) = (None, None);
        self.sketching = None;
        self.waiting = None;
        self.collecting[Kind::Version as usize] = None;
        self.collecting[Kind::Hashes as usize] = None;
    }

    /// Ends the pauses after failed pulls.
    pub(super) fn made_progress(&mut self, now: Duration) {
        self.failures = 0;
        self.restarts = 0;
        self.spent = 0;
        self.barren = None;
        self.pull_after = now;
    }

    /// Equal states with unequal members: one side requests the rows that are newer at the other one.
    fn compare_members(&mut self, now: Duration, about: About, state: &R) {
        let key = state.hash_key();
        let mine = state.members().summary(key);
        if mine == about.members {
            return;
        }
        if mine >> 16 != about.members >> 16 {
            // Members that only one side tracks: whole rows.
            self.collect(now, Kind::Members, u64::from(about.members));
            return;
        }
        // Both sides see both summaries, so one of them is enough.
        if mine > about.members {
            return;
        }
        let version = state.version();
        let quiet = state.members().is_quiet(&version);
        if quiet && about.quiet && now < self.compare_at && !state.members().is_late(now) {
            return;
        }
        if !self.send_beats(now, state) {
            self.collect(now, Kind::Members, u64::from(about.members));
        }
    }

    /// Sends the heartbeats known here for comparison. Returns whether they fit a datagram.
    fn send_beats(&mut self, now: Duration, state: &R) -> bool {
        let table = state.members().table();
        if table.low_bits_len() + 16 > self.options.datagram_len_max {
            return false;
        }
        let compared = Compared { table, retry_at: now + self.options.retry_min, tries: 0 };
        self.send_compared(&compared, state);
        self.compared = Some(compared);
        true
    }

    fn send_compared(&mut self, compared: &Compared, state: &R) {
        let (key, version) = (state.hash_key(), state.version());
        let quiet = state.members().is_quiet(&version);
        let (hash, bytes) = (compared.table.hash(key), compared.table.low_bits());
        self.send(&Message::Beats { version: lower(version.hash(key)), hash, quiet, bytes: &bytes });
    }

    /// Repeats a comparison without an answer: a heartbeat that waits for the next one at each of several
    /// lossy links outlives the lease.
    pub(super) fn retry_compared(&mut self, now: Duration, state: &R) {
        let Some(mut compared) = self.compared.take_if(|compared| compared.retry_at <= now) else { return };
        // The peer compares at equal versions only.
        if !self.in_sync || compared.tries == COMPARISON_TRIES_MAX {
            return;
        }
        compared.tries += 1;
        compared.retry_at = now + self.options.retry_min * (1 << compared.tries);
        self.send_compared(&compared, state);
        self.compared = Some(compared);
    }

    pub(super) fn on_beats(
        &mut self,
        now: Duration,
        version_hash: u32,
        hash: u32,
        quiet: bool,
        low_bits: &[u8],
        state: &mut R,
    ) {
        let (key, version) = (state.hash_key(), state.version());
        if lower(version.hash(key)) != version_hash {
            // One of the states has changed since: rows are relative to the version that both have.
            return;
        }
        self.compare_at = now + state.members().lease() / COMPARISONS_PER_LEASE;
        let Some(theirs) = state.members().restore_table(key, hash, low_bits) else {
            self.collect(now, Kind::Members, u64::from(hash));
            return;
        };
        // Also without rows: the answer ends the comparison.
        let bytes = state.members().newer_rows(&theirs, &version, self.options.datagram_len_max - 16);
        self.send(&Message::Rows { version: version_hash, base: hash, bytes: &bytes.unwrap_or_default() });
        let me = state.replica();
        if quiet {
            state.members_mut().take_table(now, me, &theirs, &version);
        } else {
            // The versions of the newer rows are not in their low bits: they are requested in turn.
            if theirs.has_newer(&state.members().table()) {
                // As the answer to this is rows and no further request if both are quiet, and rows in any
                // case, the exchange ends.
                self.send_beats(now, state);
            }
        }
    }

    pub(super) fn on_rows(
        &mut self,
        now: Duration,
        version_hash: u32,
        base: u32,
        bytes: &[u8],
        state: &mut R,
    ) -> Result<(), SessionError> {
        let version = state.version();
        let key = state.hash_key();
        let compared = self.compared.take_if(|compared| compared.table.hash(key) == base);
        if let Some(compared) = compared.filter(|_| lower(version.hash(key)) == version_hash) {
            let me = state.replica();
            self.compare_at = now + state.members().lease() / COMPARISONS_PER_LEASE;
            let mut rows = ByteReader::new(bytes);
            state.members_mut().take_rows(now, me, &compared.table, &version, &mut rows)?;
        }
        Ok(())
    }
}
