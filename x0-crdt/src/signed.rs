//! [`SignedMap`]: a [`CausalMap`] whose values are signed by their writers and verified by every replica.

mod entry;
mod error;
mod io;
mod journal;
mod options;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

pub use entry::SignedEntry;
pub use error::{OpenError, SignedHandleError, SignedWriteError};
pub use io::{PersistToken, SignedInput, SignedOutput};
use journal::Journal;
pub use options::SignedMapOptions;

use crate::chain::{
    CHAIN_PREFIX, ChainStats, EquivocationProof, Head, MapChains, Reviewed, SignBatchError, Signer,
    Verification, Verifier,
};
use crate::random::SplitMix64;
use crate::{
    CausalMap, Dot, Frontier, HashKey, Held, JoinError, Joined, MapDelta, ReplicaId, Session, SessionInput,
    SessionOutput,
};

/// Heartbeats in the length of a lease.
const BEATS_PER_LEASE: u32 = 8;

/// The keys of a [`SignedMap`]: one to sign with, and all others to verify with.
pub struct ChainKeys {
    signer: Option<Box<dyn Signer + Send>>,
    verifier: Box<dyn Verifier + Send>,
}

impl ChainKeys {
    /// A signer of this replica's batches, and a verifier that knows the public key of every node, this one's
    /// included.
    #[must_use]
    pub fn new(signer: impl Signer + Send + 'static, verifier: impl Verifier + Send + 'static) -> Self {
        Self { signer: Some(Box::new(signer)), verifier: Box::new(verifier) }
    }

    /// A verifier alone: the map verifies the values of others and does not sign its own.
    #[must_use]
    pub fn read_only(verifier: impl Verifier + Send + 'static) -> Self {
        Self { signer: None, verifier: Box::new(verifier) }
    }
}

impl core::fmt::Debug for ChainKeys {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ChainKeys").field("signs", &self.signer.is_some()).finish_non_exhaustive()
    }
}

/// A session with one peer.
#[derive(Debug)]
struct Peer {
    session: Session,
    /// [`SessionStats::divergences`](crate::SessionStats::divergences) that the chains have answered.
    divergences: u64,
}

/// A [`CausalMap`] of writers that are not trusted: each signs its values in batches, every replica verifies
/// them, and a writer that signs two histories (it *equivocates*) leaves a proof by which all replicas keep
/// the same of it. The [module documentation of the crate](crate#signed-maps) describes the method and its
/// limits.
///
/// A signed map is a protocol engine: it owns the map, the chains of all writers and one [`Session`] per
/// peer, and no socket, file, clock or thread. Writing to the map without its chains, or sending events that
/// are not durable, is not possible: the map is lent out read-only, and a [`SignedOutput::Send`] is handed
/// out only after the [`PersistToken`] of the record before it has come back.
///
/// # Drain contract
/// 1. Call [`handle`](Self::handle) for each input, and [`put`](Self::put), [`add`](Self::add),
///    [`remove`](Self::remove) or [`join`](Self::join) for local changes. Times are since any origin and
///    never go back.
/// 2. Then call [`poll_output`](Self::poll_output) until it returns `None`, and carry the outputs out in
///    order.
/// 3. At [`SignedOutput::Persist`], make the record durable, then hand its token to
///    [`SignedInput::Persisted`] and go on with 2. If the write fails, write the same bytes again or stop; a
///    token that is dropped leaves the engine silent.
/// 4. Call `handle` with [`SignedInput::Timeout`] at the time of [`poll_timeout`](Self::poll_timeout), and go
///    on with 2.
///
/// An error of `handle` concerns the one input. After a crash, [`restore`](Self::restore) from the records
/// that are durable.
///
/// ```
/// # use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
/// # use x0_crdt::{SignError, Signer, Verifier, VerifyError};
/// # struct Key(Ed25519KeyPair);
/// # impl Signer for Key {
/// #     fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
/// #         Ok(self.0.sign(message).as_ref().to_vec())
/// #     }
/// # }
/// # fn key(node: u64) -> Key {
/// #     Key(Ed25519KeyPair::from_seed_unchecked(&[node.to_le_bytes()[0]; 32]).expect("32 bytes"))
/// # }
/// # struct Known;
/// # impl Verifier for Known {
/// #     fn verify(&self, writer: ReplicaId, message: &[u8], signature: &[u8]) -> Result<(), VerifyError> {
/// #         let key = UnparsedPublicKey::new(&ED25519, key(writer.node).0.public_key().as_ref().to_vec());
/// #         key.verify(message, signature).map_err(|_| VerifyError::BadSignature)
/// #     }
/// # }
/// use core::time::Duration;
/// use x0_crdt::{
///     ChainKeys, HashKey, ReplicaId, SignedInput, SignedMap, SignedMapOptions, SignedOutput, Verification,
/// };
///
/// let hash_key = HashKey::new([7; 16]);
/// let options = SignedMapOptions::default().sign_after(Duration::ZERO);
/// // `Key` signs with a node's private key, `Known` verifies with all public keys.
/// let mut maps = [1, 2].map(|node| {
///     SignedMap::new(ReplicaId::new(node), hash_key, ChainKeys::new(key(node), Known), &options, node)
/// });
/// let mut disks: [Vec<Vec<u8>>; 2] = Default::default();
/// let mut now = Duration::ZERO;
/// for side in 0..2 {
///     maps[side].handle(now, SignedInput::Connected { peer: 2 - side as u64 })?;
/// }
/// maps[0].put(b"door", 10, b"open")?;
///
/// while maps[1].get(b"door").and_then(|entry| entry.latest()).is_none() {
///     for side in 0..2 {
///         maps[side].handle(now, SignedInput::Timeout)?;
///         while let Some(output) = maps[side].poll_output() {
///             match output {
///                 SignedOutput::Persist { record, replaces, token } => {
///                     if replaces {
///                         disks[side].clear();
///                     }
///                     disks[side].push(record);
///                     maps[side].handle(now, SignedInput::Persisted(token))?;
///                 }
///                 SignedOutput::Send { peer, datagram } => {
///                     let from = side as u64 + 1;
///                     let to = peer as usize - 1;
///                     maps[to].handle(now, SignedInput::Datagram { peer: from, bytes: &datagram })?;
///                 }
///                 _ => {}
///             }
///         }
///     }
///     now += Duration::from_millis(1);
/// }
/// let entry = maps[1].get(b"door").ok_or("it arrived")?;
/// assert_eq!(entry.latest().ok_or("it is signed")?.value, b"open");
/// assert!(entry.siblings().all(|(_, verification)| verification == Verification::Valid));
///
/// // A restart goes on from the records, as the same writer.
/// let restored = SignedMap::restore(
///     disks[0].iter().map(Vec::as_slice), ReplicaId::new(1), hash_key, ChainKeys::new(key(1), Known), &options, 3,
/// )?;
/// assert_eq!(restored.map().version(), maps[0].map().version());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The map cannot be written to without its chains:
///
/// ```compile_fail,E0596
/// # fn f(signed: &mut x0_crdt::SignedMap) {
/// signed.map().put(b"door", 1, b"open"); // the map is lent out read-only
/// # }
/// ```
///
/// A record cannot be confirmed twice, and no token can be made up:
///
/// ```compile_fail,E0382
/// # use core::time::Duration;
/// # use x0_crdt::{PersistToken, SignedInput, SignedMap};
/// # fn f(signed: &mut SignedMap, token: PersistToken) {
/// let _ = signed.handle(Duration::ZERO, SignedInput::Persisted(token));
/// let _ = signed.handle(Duration::ZERO, SignedInput::Persisted(token)); // the token is used up
/// # }
/// ```
///
/// ```compile_fail,E0451
/// let token = x0_crdt::PersistToken { number: 1 }; // its field is private
/// ```
#[derive(Debug)]
pub struct SignedMap {
    pub(crate) map: CausalMap,
    pub(crate) chains: MapChains,
    options: SignedMapOptions,
    peers: BTreeMap<u64, Peer>,
    /// Seeds of sessions.
    random: SplitMix64,
    now: Duration,
    journal: Journal,
    /// Notices for the driver, which need not wait for a record.
    notices: VecDeque<SignedOutput>,
    /// Datagrams, each with the record that must be durable before it leaves.
    sends: VecDeque<(u64, u64, Vec<u8>)>,
    /// The map was changed since the sessions were last driven; by the session with this peer alone, or
    /// otherwise.
    changed: Option<Option<u64>>,
    /// A delta that was refused in a later step of its join, to be returned by `handle`.
    refused: Option<SignedHandleError>,
    /// When the pending events are signed, however few.
    sign_at: Option<Duration>,
    beat_at: Duration,
}

impl SignedMap {
    /// An empty map, written to as `replica`. Members that sync share `hash_key`; `seed` differs from one
    /// start to the next.
    #[must_use]
    pub fn new(
        replica: ReplicaId,
        hash_key: HashKey,
        keys: ChainKeys,
        options: &SignedMapOptions,
        seed: u64,
    ) -> Self {
        Self::with_map(CausalMap::new(replica, hash_key), Journal::default(), keys, options, seed)
    }

    /// Goes on from the records of [`SignedOutput::Persist`], in order: as the same `replica` if all of them
    /// are there, as a fresh incarnation if some may be missing.
    ///
    /// # Errors
    /// Records that are damaged or out of order. Nothing was made of them.
    pub fn restore<'a>(
        records: impl IntoIterator<Item = &'a [u8]>,
        replica: ReplicaId,
        hash_key: HashKey,
        keys: ChainKeys,
        options: &SignedMapOptions,
        seed: u64,
    ) -> Result<Self, OpenError> {
        let (map, journal) = Journal::replay(records, replica, hash_key)?;
        Ok(Self::with_map(map, journal, keys, options, seed))
    }

    fn with_map(
        mut map: CausalMap,
        journal: Journal,
        keys: ChainKeys,
        options: &SignedMapOptions,
        seed: u64,
    ) -> Self {
        map.members_mut().set_lease(options.lease);
        let chains = MapChains::open(&mut map, &options.chain, keys.verifier, keys.signer);
        Self {
            map,
            chains,
            options: options.clone(),
            peers: BTreeMap::new(),
            random: SplitMix64::new(seed),
            now: Duration::ZERO,
            journal,
            notices: VecDeque::new(),
            sends: VecDeque::new(),
            changed: None,
            refused: None,
            // Events that a crash left unsigned are signed soon.
            sign_at: Some(options.sign_after),
            beat_at: Duration::ZERO,
        }
    }

    /// The map, for reading. Values in it may be unsigned or forged: [`get`](Self::get) verifies.
    #[must_use]
    pub const fn map(&self) -> &CausalMap {
        &self.map
    }

    /// Writes a value over all that is seen at `key`. `time` orders it among concurrent siblings on reading,
    /// nothing else.
    ///
    /// # Errors
    /// A key or value above its limit, or a key under [`CHAIN_PREFIX`]. The map is as it was.
    pub fn put(&mut self, key: &[u8], time: u64, value: &[u8]) -> Result<Dot, SignedWriteError> {
        check_key(key)?;
        let dot = self.map.put(key, time, value)?;
        self.wrote();
        Ok(dot)
    }

    /// Adds to the counter at `key`, as [`CausalMap::add`].
    ///
    /// # Errors
    /// A key above its limit or under [`CHAIN_PREFIX`]. The map is as it was.
    pub fn add(&mut self, key: &[u8], time: u64, amount: i64) -> Result<Dot, SignedWriteError> {
        check_key(key)?;
        let dot = self.map.add(key, time, amount)?;
        self.wrote();
        Ok(dot)
    }

    /// Removes what is seen at `key`. `None` if there was nothing, and then nothing was written.
    ///
    /// # Errors
    /// A key under [`CHAIN_PREFIX`]. The map is as it was.
    pub fn remove(&mut self, key: &[u8]) -> Result<Option<Dot>, SignedWriteError> {
        check_key(key)?;
        let dot = self.map.remove(key);
        if dot.is_some() {
            self.wrote();
        }
        Ok(dot)
    }

    /// Joins a delta that arrived in another way than by a session, and verifies what it brought.
    ///
    /// # Errors
    /// A delta that was not made for this replica's version. The map is as it was.
    pub fn join(&mut self, delta: &MapDelta) -> Result<Joined, JoinError> {
        let joined = self.map.join(delta)?;
        let reviewed = self.chains.review(&mut self.map, &joined.keys);
        self.reviewed(joined.keys.iter().cloned().collect(), reviewed);
        self.changed = Some(None);
        Ok(joined)
    }

    /// Accepts a proof that a writer equivocates, which arrived in another way than in the map. A proof whose
    /// signatures do not hold changes nothing.
    pub fn accept_proof(&mut self, proof: &EquivocationProof) {
        let reviewed = self.chains.accept_proof(&mut self.map, proof);
        if self.reviewed(BTreeSet::new(), reviewed) {
            self.changed = Some(None);
        }
    }

    /// Verifies all values again: to be called when the [`Verifier`] has learned keys.
    pub fn verify_again(&mut self) {
        let reviewed = self.chains.review_all(&mut self.map);
        if self.reviewed(BTreeSet::new(), reviewed) {
            self.changed = Some(None);
        }
    }

    /// Signs what is pending now, however little, instead of waiting for a full batch or for
    /// [`sign_after`](SignedMapOptions::sign_after). Returns whether there was anything to sign.
    ///
    /// # Errors
    /// The batch was not signed. The values stay; the next batch covers them.
    pub fn sign(&mut self) -> Result<bool, SignBatchError> {
        let signed = self.chains.sign_pending(&mut self.map)?;
        self.sign_at = None;
        // A batch is a value of the map like any other: the sessions spread it.
        if signed {
            self.changed = Some(None);
        }
        Ok(signed)
    }

    /// The values at `key`, each with its verification. `None` if there is none, and for keys under
    /// [`CHAIN_PREFIX`].
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<SignedEntry<'_>> {
        let entry = self.map.get(key).filter(|_| !key.starts_with(CHAIN_PREFIX))?;
        Some(SignedEntry { entry, chains: &self.chains })
    }

    /// The entries in ascending order of their keys, from `first` on (inclusive), without those of the
    /// chains.
    pub fn range<'a>(&'a self, first: &[u8]) -> impl DoubleEndedIterator<Item = SignedEntry<'a>> + use<'a> {
        let entries = self.map.range(first).filter(|entry| !entry.key().starts_with(CHAIN_PREFIX));
        entries.map(|entry| SignedEntry { entry, chains: &self.chains })
    }

    /// Compares a value at `key` with what its writer signed. Costs a hash over the value.
    #[must_use]
    pub fn verification(&self, key: &[u8], held: &Held<'_>) -> Verification {
        self.chains.verification(key, held)
    }

    /// The end of a writer's chain, as far as it is known here.
    #[must_use]
    pub fn head(&self, writer: ReplicaId) -> Option<Head> {
        self.chains.head(writer)
    }

    /// The proof that a writer equivocates. Anyone can verify it.
    #[must_use]
    pub fn proof(&self, writer: ReplicaId) -> Option<&EquivocationProof> {
        self.chains.proof(writer)
    }

    /// All proofs, by writer.
    pub fn proofs(&self) -> impl Iterator<Item = &EquivocationProof> {
        self.chains.proofs()
    }

    /// Counts of signed, invalid and evicted values.
    #[must_use]
    pub const fn stats(&self) -> ChainStats {
        self.chains.stats()
    }

    /// The hashes of version and content, to compare with other replicas.
    #[must_use]
    pub fn frontier(&self) -> Frontier {
        self.map.frontier()
    }

    /// The connected peers, each with whether both sides stood at one frontier when the peer last sent
    /// something.
    pub fn peers(&self) -> impl Iterator<Item = (u64, bool)> {
        self.peers.iter().map(|(peer, state)| (*peer, state.session.is_in_sync()))
    }

    /// Takes an input. Call [`poll_output`](Self::poll_output) afterwards.
    ///
    /// # Errors
    /// The input had no effect: a datagram that is malformed or does not fit, an unknown peer, a token of
    /// another map.
    pub fn handle(&mut self, now: Duration, input: SignedInput<'_>) -> Result<(), SignedHandleError> {
        self.now = now;
        let result = match input {
            SignedInput::Connected { peer } => {
                let session = Session::new(&self.options.session, self.random.next());
                self.peers.insert(peer, Peer { session, divergences: 0 });
                self.drive(peer, SessionInput::Changed)
            }
            SignedInput::Disconnected { peer } => {
                self.peers.remove(&peer);
                // A later session with the peer starts over; datagrams of this one would only confuse it.
                self.sends.retain(|(_, to, _)| *to != peer);
                Ok(())
            }
            SignedInput::Datagram { peer, bytes } => self.drive(peer, SessionInput::Datagram(bytes)),
            SignedInput::Persisted(token) => self.journal.confirm(&token),
            SignedInput::Timeout => {
                self.on_timeout();
                Ok(())
            }
        };
        self.settle();
        result.and_then(|()| self.refused.take().map_or(Ok(()), Err))
    }

    /// The next output, in the order in which the driver carries them out. `None`: nothing is to be done
    /// before the next input or [`poll_timeout`](Self::poll_timeout).
    pub fn poll_output(&mut self) -> Option<SignedOutput> {
        if self.changed.is_some() {
            self.settle();
        }
        if let Some(notice) = self.notices.pop_front() {
            return Some(notice);
        }
        if let Some(persist) = self.journal.next_record(&self.map) {
            return Some(persist);
        }
        // The record that a datagram depends on may still be on its way to the disk; all later datagrams wait
        // as well.
        let (required, ..) = self.sends.front()?;
        if !self.journal.is_durable(*required) {
            return None;
        }
        self.sends.pop_front().map(|(_, peer, datagram)| SignedOutput::Send { peer, datagram })
    }

    /// When to call [`handle`](Self::handle) with [`SignedInput::Timeout`] at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        let sessions = self.peers.values().filter_map(|peer| peer.session.poll_timeout());
        sessions.chain(self.sign_at).chain([self.beat_at]).min()
    }

    fn wrote(&mut self) {
        self.changed = Some(None);
        self.sign_at = self.sign_at.or(Some(self.now + self.options.sign_after));
    }

    fn drive(&mut self, peer: u64, input: SessionInput<'_>) -> Result<(), SignedHandleError> {
        let known = self.peers.get_mut(&peer).ok_or(SignedHandleError::UnknownPeer { peer })?;
        let handled = known.session.handle(self.now, input, &mut self.map);
        handled.map_err(|source| SignedHandleError::Session { peer, source })
    }

    fn on_timeout(&mut self) {
        let now = self.now;
        for (peer, state) in &mut self.peers {
            if state.session.poll_timeout().is_some_and(|due| due <= now) {
                let handled = state.session.handle(now, SessionInput::Timeout, &mut self.map);
                let refused = |source| SignedHandleError::Session { peer: *peer, source };
                self.refused = self.refused.take().or(handled.err().map(refused));
            }
        }
        if self.sign_at.is_some_and(|due| due <= now) {
            if let Err(error) = self.sign() {
                self.notices.push_back(SignedOutput::SigningFailed { error });
            }
            self.sign_at = None;
        }
        if self.beat_at <= now {
            self.beat_at = now + self.options.lease / BEATS_PER_LEASE;
            self.map.heartbeat(now);
            // After the heartbeat: pruning depends on what all members have seen.
            if self.chains.tidy(&mut self.map) > 0 {
                self.changed = Some(None);
            }
        }
    }

    /// Signs full batches, lets the sessions see changes, and verifies what they joined, until nothing more
    /// follows.
    fn settle(&mut self) {
        let mut sends = Vec::new();
        loop {
            if let Err(error) = self.chains.sign_full(&mut self.map) {
                self.notices.push_back(SignedOutput::SigningFailed { error });
                // The values stay in the map unsigned, which readers can see.
                // Tried again when the time comes, not with every input.
                self.sign_at = self.sign_at.or(Some(self.now + self.options.sign_after));
            }
            if let Some(source) = self.changed.take() {
                for (peer, state) in &mut self.peers {
                    if Some(*peer) != source {
                        let handled = state.session.handle(self.now, SessionInput::Changed, &mut self.map);
                        let refused = |source| SignedHandleError::Session { peer: *peer, source };
                        self.refused = self.refused.take().or(handled.err().map(refused));
                    }
                }
            }
            for (peer, keys) in self.drain(&mut sends) {
                let reviewed = self.chains.review(&mut self.map, &keys);
                // Events that the review itself wrote or dropped are news to the source as well.
                let is_news = self.reviewed(keys.into_iter().collect(), reviewed);
                let source = Some(peer).filter(|_| !is_news);
                self.changed =
                    Some(self.changed.map_or(source, |before| before.filter(|at| Some(*at) == source)));
            }
            if self.answer_divergences() {
                self.changed = Some(None);
            }
            if self.changed.is_none() {
                break;
            }
        }
        // After the loop, so that a datagram waits for everything that was written before it is sent.
        let required = self.journal.required(&self.map);
        self.sends.extend(sends.into_iter().map(|(peer, datagram)| (required, peer, datagram)));
    }

    /// Takes the outputs of all sessions: appends datagrams to `sends`, and returns the keys that joins
    /// changed, by peer.
    fn drain(&mut self, sends: &mut Vec<(u64, Vec<u8>)>) -> Vec<(u64, Vec<Vec<u8>>)> {
        let mut joined = Vec::new();
        for (peer, state) in &mut self.peers {
            while let Some(output) = state.session.poll_output() {
                match output {
                    SessionOutput::Send(datagram) => sends.push((*peer, datagram)),
                    SessionOutput::Joined(done) => {
                        if let Some(brought) = &done.ranges {
                            self.journal.count_ranges(brought);
                        }
                        joined.push((*peer, done.keys));
                    }
                    SessionOutput::Staged(range) => self.journal.stage(&self.map, range),
                }
            }
        }
        joined
    }

    /// Publishes what is known of all chains if a session has met a peer that has seen the same events and
    /// holds other contents.
    fn answer_divergences(&mut self) -> bool {
        let mut diverged = false;
        for state in self.peers.values_mut() {
            let divergences = state.session.stats().divergences;
            diverged |= divergences > state.divergences;
            state.divergences = divergences;
        }
        if !diverged {
            return false;
        }
        let reviewed = self.chains.diverged(&mut self.map);
        self.reviewed(BTreeSet::new(), reviewed)
    }

    /// Notifies the driver of what changed. Returns whether the review changed the map.
    fn reviewed(&mut self, mut keys: BTreeSet<Vec<u8>>, reviewed: Reviewed) -> bool {
        let is_news = !reviewed.keys.is_empty();
        keys.extend(reviewed.keys);
        let keys: Vec<_> = keys.into_iter().filter(|key| !key.starts_with(CHAIN_PREFIX)).collect();
        if !keys.is_empty() {
            self.notices.push_back(SignedOutput::Changed { keys });
        }
        for writer in reviewed.equivocating {
            self.notices.push_back(SignedOutput::Equivocation { writer });
        }
        is_news
    }
}

fn check_key(key: &[u8]) -> Result<(), SignedWriteError> {
    if key.starts_with(CHAIN_PREFIX) { Err(SignedWriteError::ReservedKey) } else { Ok(()) }
}
