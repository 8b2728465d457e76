//! A tracker's memory is bounded, and what it remembers survives a restart.

use x0_crdt::ReplicaId;
use x0_crdt::internal::chain::{
    ChainLimits, ChainTracker, EquivocationProof, EventError, Head, ObserveError, Observed, ProofError,
    Standing,
};

use super::keys::{Ring, WRITER, chain, event};

#[test]
fn checkpoints_come_in_any_order_and_wait_within_bounds() {
    let ring = Ring::of([1]);
    let batches = chain(WRITER, &[2; 8], 0, 1);
    let mut tracker =
        ChainTracker::new(ChainLimits::default().writers_max(1).checkpoints_max(2).waiting_max(2));
    let mut observe = |at: usize| tracker.observe(batches[at].checkpoint(), &ring);
    assert_eq!(observe(3), Ok(Observed::Waiting { after: 0 }));
    assert_eq!(observe(3), Ok(Observed::Duplicate));
    assert_eq!(observe(2), Ok(Observed::Waiting { after: 0 }));
    assert_eq!(observe(5), Err(ObserveError::PendingFull { after: 0 }), "the farthest does not fit");
    assert_eq!(
        observe(1),
        Ok(Observed::Waiting { after: 0 }),
        "a nearer one takes the place of the farthest"
    );
    assert_eq!(observe(0), Ok(Observed::Extended { head: 6 }));
    assert_eq!(observe(3), Ok(Observed::Extended { head: 8 }));
    assert_eq!(observe(0), Ok(Observed::Past), "forgotten, but nothing speaks against it");
    assert_eq!(tracker.checkpoints(WRITER).count(), 2);
    assert_eq!(tracker.head(WRITER), Some(batches[3].checkpoint().head()));
}

#[test]
fn the_standing_of_an_event_follows_its_checkpoint() {
    let ring = Ring::of([1]);
    let batches = chain(WRITER, &[2; 6], 0, 1);
    let mut tracker =
        ChainTracker::new(ChainLimits::default().writers_max(1).checkpoints_max(2).waiting_max(2));
    let mut standing = |at: usize| {
        let seq = batches[at].checkpoint().seq();
        tracker.event(&batches[at].attest(seq).expect("covered"), &event(0, seq), &ring)
    };
    assert_eq!(standing(0), Ok(Standing::Linked));
    assert_eq!(standing(2), Ok(Standing::Waiting));
    assert_eq!(standing(1), Ok(Standing::Linked));
    assert_eq!(standing(2), Ok(Standing::Linked));
    assert_eq!(standing(0), Ok(Standing::Unlinked), "forgotten meanwhile");
    let long = vec![0; 65_537];
    assert_eq!(standing(3), Ok(Standing::Linked));
    let attestation = batches[3].attest(7).expect("covered");
    assert_eq!(tracker.event(&attestation, &long, &ring), Err(EventError::TooLong(65_537)));
}

#[test]
fn one_that_joins_late_adopts_the_head_and_links_from_there() {
    let ring = Ring::of([1]);
    let batches = chain(WRITER, &[3; 8], 0, 1);
    let mut tracker = ChainTracker::default();
    assert_eq!(tracker.observe(batches[5].checkpoint(), &ring), Ok(Observed::Waiting { after: 0 }));
    assert_eq!(tracker.adopt(batches[5].checkpoint(), &ring), Ok(Observed::Extended { head: 18 }));
    assert_eq!(tracker.observe(batches[6].checkpoint(), &ring), Ok(Observed::Extended { head: 21 }));
    assert_eq!(tracker.observe(batches[2].checkpoint(), &ring), Ok(Observed::Past));
    assert_eq!(
        tracker.adopt(batches[3].checkpoint(), &ring),
        Ok(Observed::Past),
        "the head does not go back"
    );
    assert_eq!(tracker.head(WRITER), Some(batches[6].checkpoint().head()));
    // An adopted checkpoint is still evidence against the writer.
    let forked = chain(WRITER, &[3; 8], 1, 13);
    assert_eq!(tracker.observe(forked[4].checkpoint(), &ring), Ok(Observed::Equivocation { kept: 12 }));
    assert_eq!(tracker.adopt(batches[7].checkpoint(), &ring), Err(ObserveError::Quarantined { kept: 12 }));
}

#[test]
fn writers_are_counted_and_only_the_genuine_take_a_place() {
    let ring = Ring::of([1, 2, 3]);
    let first = |node| chain(ReplicaId::new(node), &[1], 0, 1).remove(0);
    let mut tracker = ChainTracker::new(ChainLimits::default().writers_max(2));
    assert!(tracker.observe(first(9).checkpoint(), &ring).is_err(), "unknown to the verifier");
    assert_eq!(tracker.observe(first(1).checkpoint(), &ring), Ok(Observed::Extended { head: 1 }));
    assert_eq!(tracker.observe(first(2).checkpoint(), &ring), Ok(Observed::Extended { head: 1 }));
    assert_eq!(tracker.observe(first(3).checkpoint(), &ring), Err(ObserveError::WritersFull(2)));
    let fork = chain(ReplicaId::new(3), &[1], 1, 1).remove(0);
    let proof =
        EquivocationProof::new(first(3).checkpoint().clone(), fork.checkpoint().clone()).expect("a fork");
    assert_eq!(tracker.accept_proof(&proof, &ring), Err(ProofError::WritersFull(2)));
    tracker.forget(ReplicaId::new(1));
    assert_eq!(tracker.accept_proof(&proof, &ring), Ok(true));
    assert_eq!(tracker.writers().collect::<Vec<_>>(), [ReplicaId::new(2), ReplicaId::new(3)]);
    // A proof concerns its writer only.
    assert_eq!(tracker.kept(ReplicaId::new(2)), None);
    assert_eq!(tracker.head(ReplicaId::new(3)), Some(Head::GENESIS));
}

#[test]
fn a_restored_tracker_knows_what_it_knew_before() {
    let ring = Ring::of([1, 2]);
    let honest = chain(ReplicaId::new(2), &[3; 9], 0, 1);
    let (ours, theirs) = (chain(WRITER, &[4, 4, 4], 0, 1), chain(WRITER, &[4, 4, 4], 1, 9));
    let mut before =
        ChainTracker::new(ChainLimits::default().writers_max(4).checkpoints_max(3).waiting_max(3));
    for batch in honest[..6].iter().chain(&honest[7..]).chain(&ours).chain(&theirs) {
        let _ = before.observe(batch.checkpoint(), &ring);
    }
    let mut after =
        ChainTracker::new(ChainLimits::default().writers_max(4).checkpoints_max(3).waiting_max(3));
    for writer in before.writers() {
        for (at, checkpoint) in before.checkpoints(writer).enumerate() {
            let taken =
                if at == 0 { after.adopt(checkpoint, &ring) } else { after.observe(checkpoint, &ring) };
            assert!(taken.is_ok());
        }
    }
    for proof in before.proofs() {
        assert_eq!(after.accept_proof(proof, &ring), Ok(true));
    }
    for writer in before.writers() {
        assert_eq!(after.head(writer), before.head(writer));
        assert_eq!(after.kept(writer), before.kept(writer));
        assert!(after.checkpoints(writer).eq(before.checkpoints(writer)));
    }
    assert_eq!(after.kept(WRITER), Some(8));
    assert_eq!(after.observe(honest[6].checkpoint(), &ring), Ok(Observed::Extended { head: 27 }));
}
