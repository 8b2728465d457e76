//! Writers that are not trusted: signed hash chains, and proofs against those that contradict themselves.
//!
//! Version vectors identify events by dot, so they believe that a writer has one event per dot. A writer that gives one event
//! to one replica and another one, under the same dot, to a second (it *equivocates*) makes them differ for ever, in silence.
//! This module takes that from it: everything a writer says is bound to one history, and two histories are a proof that anyone
//! can check, after which all replicas keep the same of it.
//!
//! # Method
//!
//! - **Chain of batches.** The digest of an event covers writer, sequence number and bytes. Every so many events the writer
//!   signs a [`Statement`]: "after head `h`, my next `n` events have the Merkle root `r`". The next head is the hash of that
//!   statement. With batches of one event this is the plain chain `h' = H(h, seq, H(event))`; with larger ones the root stands
//!   for the digests. The link is made from the root, not from a second fold over the events, because a replica that lacks
//!   the events could not tell whether such a fold belongs to the root beside it. Equal heads have equal histories.
//! - **Proof of one event.** State, not logs, is exchanged: bytes of overwritten events are gone. An [`Attestation`] proves one
//!   event that is alive with its checkpoint and log2(n) hashes (the shape of RFC 9162 §2.1.1). Where most of a batch is alive,
//!   a [`Batch`] carries all digests instead, the overwritten events by digest only.
//! - **Equivocation.** An honest writer's statements tile its sequence numbers. Two that overlap, or where one begins at the
//!   other's end but not from its head, contradict each other: [`EquivocationProof`]. Two digests for one dot need no case of
//!   their own, for the checkpoints they are proven by overlap.
//! - **The writer** ([`ChainWriter`]) lets no batch out before the state with it is durable, so a crash repeats a batch and
//!   never makes two. **The receiver** ([`ChainTracker`]) takes everything in any order. Both are engines: no I/O, no clock.
//! - **The crypto is yours**: [`Signer`] and [`Verifier`]. What is signed begins with [`CONTEXT`]. [`Nobody`] accepts nobody.
//!
//! # How replicas converge
//!
//! *What is kept* after a proof is every event up to [`EquivocationProof::kept`]: the beginning of the earlier of its two
//! statements. Where both begin at one head, that is the last checkpoint both agree on. It follows from the proof alone. Of
//! several proofs the one that reaches lowest counts; taking the lowest is commutative, associative and idempotent, so replicas
//! that have passed their proofs around keep the same, in whatever order they came. Ties change nothing, so a writer that
//! signs ever more contradictions makes what is kept of it fall, a finite number of times, and nothing else.
//!
//! What the owner of the state must do, so that the states converge too:
//!
//! 1. Take an event into the state only when [`ChainTracker::event`] (or `event_of`) accepts it, and hold its attestation, or
//!    its batch, as long as it is alive.
//! 2. When [`ChainTracker::kept`] falls, remove the writer's events after it from the state and count their dots as seen. That
//!    is a removal like any other, so joins carry it. What those events had removed stays removed.
//! 3. Let the hashes that find differences cover the event's digest, not its dot alone. When two replicas hold different events
//!    under one dot, each observes the other's checkpoint; they overlap, which is a proof that reaches below that dot.
//!
//! With 3, nothing that two replicas hold differently survives below what is kept, even where both have forgotten the
//! checkpoints in which the histories parted.
//!
//! [`Guard`] does all this for a [`CausalMap`](crate::CausalMap); the next section says how. With another state, it is for its owner
//! to do.
//!
//! # Beside a map
//!
//! A [`Guard`] sits beside a [`CausalMap`](crate::CausalMap) and keeps the chains *in the map*, as entries under [`CHAIN_PREFIX`], so
//! that sessions, journals and [`Members`](crate::Members) carry them and know nothing of them. Writing needs no other call than the
//! map's own: what a batch says follows from the map when it is sealed.
//!
//! | entry | by | says | goes |
//! |---|---|---|---|
//! | batch | the writer | a checkpoint, and the digests of the events that are alive | when nothing of it is alive and all members have seen it |
//! | head | the writer | its last checkpoint | never: one for each writer |
//! | proof | anyone | that a writer contradicts itself | never: one for each that does |
//! | testimony | each for itself | checkpoints of a writer whose chain it saw jump | when a proof stands, or all members have seen it |
//!
//! - **Digests.** A value's event is the key, the time and the value. An event that left no value when its batch was sealed (a removal,
//!   what was overwritten by then, an entry of the chain itself) is *void* and takes two bits: so batches need no batches. They and
//!   proofs need none either, for they prove themselves whatever event brought them. Digests of events that are gone are pruned: one
//!   hash stands for a part of the tree without live events.
//! - **Sealing and crashes.** A batch is put into the map like any value, and the order that the map asks for (durable first, then sent)
//!   is the one a chain needs: a record has both the events and the batch, or the batch has not left. After a restart the head in
//!   the map is where the chain stands.
//! - **Believing.** [`Guard::belief`] compares a value with the leaf that its writer signed. What does not fit is dropped by a review, and
//!   its writer is not blamed: a carrier invented it. Dropping is the same on every replica, so it is no event.
//! - **Finding contradictions.** An honest head only goes forward, stands at one key for ever, and every member sees every batch, for none
//!   goes before all have seen it. So two replicas whose heads agree have one history of a writer, by the hash chain; and where they do
//!   not agree, one sees the head jump, go back or vanish. It then lays open the checkpoints that it knew, under its own name, where no
//!   event of the writer can stand in the way; whoever holds the other side makes the proof of both, and the proof walks down to
//!   where the histories part, as far as their checkpoints are still held.
//! - **After a proof** every replica drops the values and batches behind [`Guard::kept`], and whatever comes of them later.
//!
//! Measured (`cargo test --release -p x0-crdt --test chain_map costs -- --nocapture`, 4,096 events of 17 bytes, Ed25519 by ring):
//!
//! | batch | sent per event that stands | held for one alone in its batch | sealing an event | reviewing it |
//! |---|---|---|---|---|
//! | 16 | 45.9 bytes | 345 bytes | 4 µs | 3.4 µs |
//! | 64 | 38.4 bytes | 423 bytes | 1.3 µs | 1.5 µs |
//! | 256 | 36.6 bytes | 543 bytes | 0.7 µs | 1.0 µs |
//!
//! When nothing is left and all have seen it, a writer costs 172 bytes. In memory a guard holds the digests a second time, and up to 256
//! checkpoints of 250 bytes for each writer.
//!
//! ## What a guard does not do
//!
//! - It does not keep a member from *removing*: who claims to have seen a value and not to hold it takes it away from all, in any map of
//!   this kind. A forger that invents an event under another's name can so take the place of the genuine one; the forgery goes, and the
//!   genuine value with it. Chain entries that are taken away their writer puts back.
//! - Nor from claiming for another writer events that this one has not written: that writer must take a fresh incarnation
//!   ([`JoinError::Impostor`](crate::JoinError::Impostor)). Nor from filling the map with values of its own.
//! - Values that no batch covers yet are believed of nobody. If a writer gives two replicas two contents of one event and the signatures
//!   on them never meet, because it signs neither or because other events have taken the place of its batches, there is no proof. The
//!   map then keeps the same everywhere: the greater of two values at one key, neither of two at different keys.
//! - A writer that hides a stretch of its history from a replica, and goes on after it, is found if somebody has seen that stretch.
//! - A proof reaches as deep as checkpoints are held: those of living batches always, others 256 back and until a restart. Where two
//!   histories differ below it, what stands there is one of the two, by the rules of the map.
//!
//! ```
//! use core::time::Duration;
//! use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
//! use x0_crdt::chain::{Belief, Guard, GuardOptions, SignError, Signer, Verifier, VerifyError};
//! use x0_crdt::{CausalMap, HashKey, ReplicaId, Session, SessionInput, SessionOptions, SessionOutput};
//! # struct Key(Ed25519KeyPair);
//! # impl Signer for Key {
//! #     fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
//! #         Ok(self.0.sign(message).as_ref().to_vec())
//! #     }
//! # }
//! # fn key(node: u64) -> Key {
//! #     Key(Ed25519KeyPair::from_seed_unchecked(&[node.to_le_bytes()[0]; 32]).expect("32 bytes"))
//! # }
//! # struct Known;
//! # impl Verifier for Known {
//! #     fn verify(&self, writer: ReplicaId, message: &[u8], signature: &[u8]) -> Result<(), VerifyError> {
//! #         let key = UnparsedPublicKey::new(&ED25519, key(writer.node).0.public_key().as_ref().to_vec());
//! #         key.verify(message, signature).map_err(|_| VerifyError::BadSignature)
//! #     }
//! # }
//!
//! // `Key` and `Known` are as in the example at the end. One guard beside each map, before anything is written.
//! let mut maps = [1, 2].map(|node| CausalMap::new(ReplicaId::new(node), HashKey::new([7; 16])));
//! let mut sessions = [1, 2].map(|seed| Session::new(&SessionOptions::default(), seed));
//! let mut guards = Vec::new();
//! for (node, map) in (1..).zip(&mut maps) {
//!     guards.push(Guard::open(map, &GuardOptions::default(), Box::new(Known), Some(Box::new(key(node)))));
//! }
//!
//! maps[0].put(b"door", 10, b"open")?;
//! guards[0].seal(&mut maps[0])?; // or `seal_due`, which waits for a whole batch
//! // Here both would be made durable, in one record. Then the sessions may speak.
//!
//! let mut now = Duration::ZERO;
//! while maps[0].frontier() != maps[1].frontier() {
//!     for side in 0..2 {
//!         sessions[side].handle(now, SessionInput::Timeout, &mut maps[side])?;
//!         while let Some(output) = sessions[side].poll_output() {
//!             match output {
//!                 SessionOutput::Send(datagram) => {
//!                     let other = 1 - side;
//!                     sessions[other].handle(now, SessionInput::Datagram(&datagram), &mut maps[other])?;
//!                 }
//!                 SessionOutput::Joined(joined) => {
//!                     let reviewed = guards[side].review(&mut maps[side], &joined.keys);
//!                     if !reviewed.keys.is_empty() {
//!                         sessions[side].handle(now, SessionInput::Changed, &mut maps[side])?;
//!                     }
//!                 }
//!             }
//!         }
//!         // The two have seen the same and hold something else: somebody has lied to one of them.
//!         if sessions[side].stats().divergences > 0 {
//!             let _ = guards[side].diverged(&mut maps[side]);
//!         }
//!     }
//!     now += Duration::from_millis(1);
//! }
//!
//! let entry = maps[1].get(b"door").ok_or("it came")?;
//! assert_eq!(guards[1].belief(b"door", &entry.latest()), Belief::Signed);
//! assert_eq!(guards[1].latest(&entry).ok_or("it is signed")?.value, b"open");
//!
//! // Somebody takes the first's name for something that it has not written: nobody believes that.
//! let mut forger = CausalMap::restore(&maps[1].save(), ReplicaId::new(1), HashKey::new([7; 16]))?;
//! forger.put(b"door", 11, b"shut")?;
//! let joined = maps[1].join(&forger.delta(&maps[1].version())?)?;
//! let _ = guards[1].review(&mut maps[1], &joined.keys);
//! assert!(guards[1].latest(&maps[1].get(b"door").ok_or("it came")?).is_none());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Costs
//!
//! With Ed25519 a checkpoint has 152 bytes (88 and the signature). Per event, a batch that is alive as a whole, one event that
//! is proven alone, and the signatures a writer of 1,000 events a second makes (and each of its receivers checks):
//!
//! | batch | bytes per event | bytes for one event alone | signatures per second |
//! |---|---|---|---|
//! | 16 | 9.5 | 282 | 63 |
//! | 64 | 2.4 | 346 | 16 |
//! | 256 | 0.6 | 410 | 4 |
//!
//! An overwritten event costs 32 bytes in a [`Batch`], nothing in an [`Attestation`]. A larger batch waits longer before its
//! events can be believed; [`ChainWriter::flush`] ends one early. In time, the signature is nearly all: on a busy machine, ring
//! signed in 35 to 62 µs and verified in 46 to 97 µs; with batches of 64 and events of 64 bytes that came to 1.2 to 2.1 µs per
//! event for the writer and 0.9 to 2.2 µs for a receiver. An event of a checkpoint that is held costs its hashes only. A proof
//! has 305 bytes. A tracker holds at most
//! `checkpoints_max + waiting_max` checkpoints and one proof per writer, about 250 bytes each.
//!
//! # Limits
//!
//! - Finding an equivocation takes a path between two replicas that hold the two sides. Until then each is consistent in itself.
//! - A writer can always make what is kept of it fall to nothing by contradicting its first statement. It harms its own events
//!   only; what they had overwritten does not come back.
//! - Events that no checkpoint covers yet are unsigned: whoever shows them early believes the carrier.
//! - A tracker that adopted a head, or has forgotten a checkpoint, cannot say whether older checkpoints belong to that head
//!   ([`Standing::Unlinked`]). Rule 3 above catches what matters; a proof over the whole history is not built.
//! - Digests of overwritten events stay visible: whoever can guess an event's bytes can confirm the guess.
//! - An honest writer whose disk is rolled back behind what it sent convicts itself. [`ChainWriter::check_own`] warns if a peer
//!   still knows; a restored backup needs a new incarnation.
//! - Signatures over [`SIGNATURE_LEN_MAX`] bytes, such as post-quantum ones, need another version of the format.
//!
//! # Example
//!
//! ```
//! use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
//! use x0_crdt::ReplicaId;
//! use x0_crdt::chain::{
//!     ChainTracker, ChainWriter, Limits, Output, SignError, Signer, Standing, Verifier, VerifyError,
//! };
//!
//! struct Key(Ed25519KeyPair);
//! impl Signer for Key {
//!     fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
//!         Ok(self.0.sign(message).as_ref().to_vec())
//!     }
//! }
//! struct Known(u64, Vec<u8>); // one node and its public key
//! impl Verifier for Known {
//!     fn verify(&self, writer: ReplicaId, message: &[u8], signature: &[u8]) -> Result<(), VerifyError> {
//!         if writer.node != self.0 {
//!             return Err(VerifyError::UnknownWriter);
//!         }
//!         let key = UnparsedPublicKey::new(&ED25519, &self.1);
//!         key.verify(message, signature).map_err(|_| VerifyError::BadSignature)
//!     }
//! }
//!
//! let key = Key(Ed25519KeyPair::from_seed_unchecked(&[7; 32]).map_err(|_| "32 bytes")?);
//! let known = Known(1, key.0.public_key().as_ref().to_vec());
//! let writer = ReplicaId::with_incarnation(1, 4);
//!
//! // The writer's side.
//! let mut chain = ChainWriter::new(writer, 64, Box::new(key))?;
//! chain.append(1, b"first")?;
//! chain.append(2, b"second")?;
//! chain.flush();
//! let mut disk = Vec::new();
//! let mut sent = Vec::new();
//! while let Some(output) = chain.poll_output()? {
//!     match output {
//!         Output::Persist { number, state } => {
//!             disk = state; // durable now, so the batch may leave
//!             chain.persisted(number)?;
//!         }
//!         Output::Send(batch) => sent.push(batch),
//!         _ => {}
//!     }
//! }
//!
//! // Event 1 was overwritten; event 2 is proven alone.
//! let attestation = sent[0].attest(2).ok_or("in the batch")?;
//! let mut tracker = ChainTracker::new(Limits::default());
//! assert_eq!(tracker.event(&attestation, b"second", &known)?, Standing::Linked);
//! assert!(tracker.event(&attestation, b"other", &known).is_err());
//! assert_eq!(tracker.head(writer), Some(chain.head()));
//! # assert!(!disk.is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod batch;
mod checkpoint;
mod digest;
mod equivocation;
mod error;
mod guard;
mod history;
mod merkle;
mod seam;
mod statement;
mod tracker;
mod writer;

pub use batch::{Attestation, Batch};
pub use checkpoint::Checkpoint;
pub use digest::Digest;
pub use equivocation::EquivocationProof;
pub use error::{
    AppendError, DecodeError, EventError, ObserveError, OwnError, PersistedError, ProofError, RestoreError,
    SealError, SignError, StartError, VerifyError,
};
pub use guard::{
    Belief, CHAIN_PREFIX, GUARD_BATCH_LEN_MAX, Guard, GuardOptions, GuardSealError, GuardStats, Reviewed,
};
pub use seam::{Nobody, Signer, Verifier};
pub use statement::{Head, Statement};
pub use tracker::{ChainTracker, Limits, Observed, Standing};
pub use writer::{ChainWriter, Output};

use crate::codec::{self, ByteReader};

/// The version of every encoding of this module. It opens each of them, and [`CONTEXT`] ends with it.
pub const VERSION: u8 = 1;

/// What every signed message begins with: the protocol, what is signed, and the version.
pub const CONTEXT: &[u8] = b"x0-crdt chain checkpoint v1\0";

/// Most bytes of an event.
pub const EVENT_LEN_MAX: usize = 64 * 1024;

/// Most events of a batch.
pub const BATCH_LEN_MAX: usize = 4096;

/// Most bytes of a signature: Ed25519 has 64, ECDSA over P-256 up to 72, over P-384 up to 104.
pub const SIGNATURE_LEN_MAX: usize = 128;

/// Reads the version byte.
fn read_version(input: &mut ByteReader<'_>) -> Result<(), DecodeError> {
    match input.byte("the version")? {
        VERSION => Ok(()),
        found => Err(codec::DecodeError::Version { found }.into()),
    }
}
