//! A writer that tells replicas different things: everyone gets a proof, and everyone keeps the same.

use std::collections::BTreeMap;

use x0_crdt::internal::chain::{
    Attestation, Batch, ChainLimits, ChainTracker, EquivocationProof, EventError, ObserveError, Observed,
};

use super::keys::{Random, Ring, WRITER, chain, event};

/// A replica as the module's page asks for it: it takes an event only when the tracker accepts it, holds the
/// attestation as long as the event is alive, and removes what lies behind `kept`.
struct Replica {
    tracker: ChainTracker,
    alive: BTreeMap<u64, (Vec<u8>, Attestation)>,
}

impl Replica {
    fn new(limits: ChainLimits) -> Self {
        Self { tracker: ChainTracker::new(limits), alive: BTreeMap::new() }
    }

    fn take(&mut self, attestation: &Attestation, event: &[u8], ring: &Ring) {
        if self.tracker.event(attestation, event, ring).is_ok() {
            let held =
                self.alive.entry(attestation.seq()).or_insert_with(|| (event.to_vec(), attestation.clone()));
            if held.0 != event {
                // Rule 3: two different events under one dot are two checkpoints to compare.
                let theirs = attestation.checkpoint().clone();
                let proof =
                    EquivocationProof::new(held.1.checkpoint().clone(), theirs).expect("they overlap");
                self.tracker.accept_proof(&proof, ring).expect("both are signed");
            }
        }
        self.remove();
    }

    fn remove(&mut self) {
        if let Some(kept) = self.tracker.kept(WRITER) {
            self.alive.retain(|seq, _| *seq <= kept);
        }
    }

    /// Everything a peer would show in an exchange: proofs, checkpoints, and what is alive.
    fn tell(&self, other: &mut Self, ring: &Ring) {
        for proof in self.tracker.proofs() {
            proof.verify(ring).expect("a proof that is passed on holds");
            other
                .tracker
                .accept_proof(&EquivocationProof::decode(&proof.encode()).expect("canonical"), ring)
                .expect("it holds");
        }
        for checkpoint in self.tracker.checkpoints(WRITER) {
            let _ = other.tracker.observe(checkpoint, ring);
        }
        for (event, attestation) in self.alive.values() {
            other.take(attestation, event, ring);
        }
        other.remove();
    }
}

/// Two or three histories of one writer that part at event `fork`, delivered in part and in any order.
fn scenario(seed: u64, limits: ChainLimits, everything: bool) {
    let ring = Ring::of([1]);
    let mut random = Random(seed);
    let shared: Vec<usize> = (0..random.below(4)).map(|_| 1 + random.below(7)).collect();
    let fork = shared.iter().sum::<usize>() as u64 + 1;
    let sides: Vec<Vec<Batch>> = (0..2 + random.below(2))
        .map(|side| {
            // A side may cut its batches elsewhere, which is a contradiction of its own even where the events
            // are the same.
            let more = (0..2 + random.below(4)).map(|_| 1 + random.below(7));
            let sizes: Vec<usize> = shared.iter().copied().chain(more).collect();
            chain(WRITER, &sizes, u8::try_from(side + 1).expect("small"), fork)
        })
        .collect();
    let mut replicas = [Replica::new(limits), Replica::new(limits), Replica::new(limits)];
    for (at, replica) in replicas.iter_mut().enumerate() {
        // Each replica hears mostly one side, as a equivocating would have it.
        let mut wire: Vec<(&Batch, u64)> = Vec::new();
        for (index, side) in sides.iter().enumerate() {
            let loss = if everything {
                0
            } else if index == at % sides.len() {
                10
            } else {
                85
            };
            for batch in side {
                for seq in batch.checkpoint().previous().seq + 1..=batch.checkpoint().seq() {
                    if !random.chance(loss) {
                        wire.push((batch, seq));
                    }
                }
            }
        }
        random.shuffle(&mut wire);
        for (batch, seq) in wire {
            let side =
                sides.iter().position(|side| side.iter().any(|own| own == batch)).expect("of some side");
            let bytes = event(if seq < fork { 0 } else { u8::try_from(side + 1).expect("small") }, seq);
            replica.take(&batch.attest(seq).expect("covered"), &bytes, &ring);
        }
    }
    // Everyone talks to everyone until nothing changes. What is kept only ever falls.
    for _ in 0..8 {
        for (from, to) in [(0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2)] {
            let [from, to] = replicas.get_disjoint_mut([from, to]).expect("two of three");
            let before = to.tracker.kept(WRITER);
            from.tell(to, &ring);
            assert!(to.tracker.kept(WRITER).unwrap_or(u64::MAX) <= before.unwrap_or(u64::MAX));
        }
    }
    let kept = replicas[0].tracker.kept(WRITER);
    for replica in &replicas {
        let proof =
            replica.tracker.proof(WRITER).unwrap_or_else(|| panic!("seed {seed}: a replica has no proof"));
        assert_eq!(proof.verify(&ring), Ok(()), "seed {seed}");
        assert_eq!(Some(proof.kept()), kept, "seed {seed}: they keep different prefixes");
        let events = |replica: &Replica| -> Vec<(u64, Vec<u8>)> {
            replica.alive.iter().map(|(seq, (event, _))| (*seq, event.clone())).collect()
        };
        assert_eq!(events(replica), events(&replicas[0]), "seed {seed}: they keep different events");
        assert!(replica.alive.keys().all(|seq| Some(*seq) <= kept), "seed {seed}");
        if everything {
            // All replicas saw all events: the kept events are exactly those that the sides agree on, and all
            // of them are there.
            assert_eq!(kept, Some(fork - 1), "seed {seed}");
            assert_eq!(replica.alive.len() as u64, fork - 1, "seed {seed}");
        }
        // From now on each refuses the same.
        for side in &sides {
            for batch in side {
                let refused = replica.tracker.clone().observe(batch.checkpoint(), &ring).is_err();
                assert_eq!(refused, Some(batch.checkpoint().seq()) > kept, "seed {seed}");
            }
        }
    }
}

#[test]
fn three_replicas_that_hear_everything_keep_exactly_what_the_sides_agree_on() {
    let limits = ChainLimits::default().writers_max(1).checkpoints_max(16).waiting_max(16);
    for seed in 0..200 {
        scenario(seed, limits, true);
    }
}

#[test]
fn three_replicas_that_hear_different_parts_all_hold_a_proof_and_keep_the_same() {
    for seed in 1000..1200 {
        scenario(seed, ChainLimits::default().writers_max(1).checkpoints_max(16).waiting_max(16), false);
    }
}

#[test]
fn replicas_agree_with_hardly_any_memory_too() {
    for seed in 2000..2200 {
        scenario(seed, ChainLimits::default().writers_max(1).checkpoints_max(1).waiting_max(1), false);
    }
}

/// The events that a tracker with `known` keeps of the writer after `news`, if it finds an equivocation.
fn kept(known: &[&Batch], news: &Batch) -> Option<u64> {
    let ring = Ring::of([1]);
    let mut tracker = ChainTracker::default();
    for batch in known {
        tracker.observe(batch.checkpoint(), &ring).expect("no conflict yet");
    }
    match tracker.observe(news.checkpoint(), &ring) {
        Ok(Observed::Equivocation { kept }) => {
            assert_eq!(tracker.kept(WRITER), Some(kept));
            assert_eq!(tracker.proof(WRITER).map(|proof| proof.verify(&ring)), Some(Ok(())));
            Some(kept)
        }
        _ => None,
    }
}

#[test]
fn each_kind_of_contradiction_is_a_proof_and_says_what_is_kept() {
    let ours = chain(WRITER, &[4, 4, 4, 4], 0, 1);
    let theirs = chain(WRITER, &[4, 4, 4, 4], 1, 7);
    let recut = chain(WRITER, &[4, 3, 5, 4], 0, 1);
    // The same span, other events.
    assert_eq!(kept(&[&ours[0], &ours[1]], &theirs[1]), Some(4));
    // The same events, cut otherwise.
    assert_eq!(kept(&[&ours[0], &ours[1]], &recut[1]), Some(4));
    assert_eq!(kept(&[&ours[0], &ours[1]], &recut[2]), Some(4));
    // A batch after the head does not follow from it; and conversely a waiting batch does not follow from the
    // one that comes.
    assert_eq!(kept(&[&ours[0], &ours[1]], &theirs[2]), Some(4));
    assert_eq!(kept(&[&theirs[2]], &ours[1]), Some(4));
    // Both wait: the span is the same.
    assert_eq!(kept(&[&theirs[2]], &ours[2]), Some(8));
    // The contradiction lies in the gap: not to be seen, until the gap closes.
    assert_eq!(kept(&[&ours[0], &ours[1]], &theirs[3]), None);
    assert_eq!(kept(&[&ours[0], &ours[1], &theirs[3]], &ours[2]), Some(8));
    // Nothing to see: one and the same, and neighbours.
    assert_eq!(kept(&[&ours[0], &ours[1]], &ours[2]), None);
    assert_eq!(kept(&[&ours[0], &ours[1]], &ours[1]), None);
}

#[test]
fn a_proof_holds_everywhere_refuses_what_follows_and_leaves_the_rest() {
    let ring = Ring::of([1]);
    let (ours, theirs) = (chain(WRITER, &[4, 4, 4], 0, 1), chain(WRITER, &[4, 4, 4], 1, 6));
    let proof =
        EquivocationProof::new(theirs[1].checkpoint().clone(), ours[1].checkpoint().clone()).expect("a fork");
    let mirrored =
        EquivocationProof::new(ours[1].checkpoint().clone(), theirs[1].checkpoint().clone()).expect("a fork");
    assert_eq!(proof.encode(), mirrored.encode(), "one contradiction, one proof");
    assert_eq!(proof.encode().len(), 305);
    assert_eq!(EquivocationProof::decode(&proof.encode()), Ok(proof.clone()));

    // One has never heard of the writer, one knows all of one side, one waits.
    let mut trackers = [ChainTracker::default(), ChainTracker::default(), ChainTracker::default()];
    for batch in &ours {
        trackers[1].observe(batch.checkpoint(), &ring).expect("one side is consistent");
    }
    trackers[2].observe(theirs[2].checkpoint(), &ring).expect("one side is consistent");
    for tracker in &mut trackers {
        assert_eq!(tracker.accept_proof(&proof, &ring), Ok(true));
        assert_eq!(tracker.accept_proof(&proof, &ring), Ok(false), "a second time it is no news");
        assert_eq!(tracker.kept(WRITER), Some(4));
        for batch in [&ours[1], &ours[2], &theirs[1], &theirs[2]] {
            let refused = Err(ObserveError::Quarantined { kept: 4 });
            assert_eq!(tracker.observe(batch.checkpoint(), &ring), refused);
            let seq = batch.checkpoint().seq();
            let side = u8::from(std::ptr::eq(batch, &theirs[1]) || std::ptr::eq(batch, &theirs[2]));
            let attestation = batch.attest(seq).expect("covered");
            let refused = Err(EventError::Checkpoint(ObserveError::Quarantined { kept: 4 }));
            assert_eq!(tracker.event(&attestation, &event(side, seq), &ring), refused);
        }
        // The prefix is still learnt, by one who comes late.
        for seq in 1..=4 {
            assert!(tracker.event_of(&ours[0], seq, &event(0, seq), &ring).is_ok());
        }
        assert_eq!(tracker.head(WRITER), Some(ours[0].checkpoint().head()));
    }
}

#[test]
fn a_writer_that_goes_on_to_equivocate_only_loses_more() {
    let ring = Ring::of([1]);
    let ours = chain(WRITER, &[4, 4, 4, 4], 0, 1);
    let mut tracker = ChainTracker::default();
    for batch in &ours {
        tracker.observe(batch.checkpoint(), &ring).expect("one side is consistent");
    }
    for (side, at, expect) in [(1, 3, 12), (2, 1, 4), (3, 2, 4), (4, 0, 0), (5, 0, 0)] {
        let fork = chain(WRITER, &[4, 4, 4, 4], side, at as u64 * 4 + 1);
        let _ = tracker.observe(fork[at].checkpoint(), &ring);
        assert_eq!(tracker.kept(WRITER), Some(expect));
    }
    assert_eq!(tracker.checkpoints(WRITER).count(), 0);
}

#[test]
fn a_proof_from_elsewhere_that_contradicts_what_is_held_reaches_lower() {
    let ring = Ring::of([1]);
    // The history that is held parts from both sides of the proof at event 3; the proof speaks of event 9.
    let ours = chain(WRITER, &[2, 5, 5], 3, 3);
    let (a, b) = (chain(WRITER, &[2, 2, 4, 4], 1, 9), chain(WRITER, &[2, 2, 4, 4], 2, 9));
    let mut tracker = ChainTracker::default();
    for batch in &ours {
        tracker.observe(batch.checkpoint(), &ring).expect("one side is consistent");
    }
    let proof = EquivocationProof::new(a[3].checkpoint().clone(), b[3].checkpoint().clone()).expect("a fork");
    assert_eq!(proof.kept(), 8);
    assert_eq!(tracker.accept_proof(&proof, &ring), Ok(true));
    // Our batch from event 8 on overlaps theirs, so what lies from its beginning on is in dispute.
    assert_eq!(tracker.kept(WRITER), Some(7));
    assert_eq!(tracker.observe(a[1].checkpoint(), &ring), Ok(Observed::Equivocation { kept: 2 }));
    assert_eq!(tracker.checkpoints(WRITER).count(), 1);
}

#[test]
fn the_event_that_gives_its_writer_away_is_refused() {
    let ring = Ring::of([1]);
    let (ours, theirs) = (chain(WRITER, &[4, 4], 0, 1), chain(WRITER, &[4, 4], 1, 6));
    let mut tracker = ChainTracker::default();
    for batch in &ours {
        tracker.observe(batch.checkpoint(), &ring).expect("one side is consistent");
    }
    let attestation = theirs[1].attest(7).expect("covered");
    let refused = Err(EventError::Checkpoint(ObserveError::Quarantined { kept: 4 }));
    assert_eq!(tracker.event(&attestation, &event(1, 7), &ring), refused);
    assert_eq!(tracker.kept(WRITER), Some(4));
}

#[test]
fn a_statement_at_the_very_end_of_what_is_kept_can_still_give_it_away() {
    let ring = Ring::of([1]);
    let (ours, theirs) = (chain(WRITER, &[4, 4, 4], 0, 1), chain(WRITER, &[4, 4, 4], 1, 10));
    let mut tracker = ChainTracker::default();
    for batch in ours.iter().chain(&theirs[2..]) {
        let _ = tracker.observe(batch.checkpoint(), &ring);
    }
    assert_eq!(tracker.kept(WRITER), Some(8));
    // The batch begins where the kept chain ends, but states another predecessor.
    let other = chain(WRITER, &[4, 4, 4], 2, 5);
    assert_eq!(tracker.observe(other[2].checkpoint(), &ring), Ok(Observed::Equivocation { kept: 4 }));
}
