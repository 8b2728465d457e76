//! Whatever is changed on the way is refused.

use x0_crdt::ReplicaId;
use x0_crdt::internal::chain::{
    Attestation, Batch, CONTEXT, ChainDecodeError, ChainLimits, ChainTracker, ChainWriter, Checkpoint,
    Digest, EquivocationProof, EventError, ObserveError, ProofError, RejectAll, Standing, VerifyError,
};

use super::keys::{Ring, WRITER, chain, event};

/// Every way to change one byte: each bit alone, and all.
const FLIPS: [u8; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 255];

fn tampered(bytes: &[u8]) -> impl Iterator<Item = (usize, Vec<u8>)> {
    (0..bytes.len()).flat_map(move |at| {
        FLIPS.into_iter().map(move |flip| {
            let mut changed = bytes.to_vec();
            changed[at] ^= flip;
            (at, changed)
        })
    })
}

#[test]
fn a_batch_with_any_byte_changed_is_refused() {
    let ring = Ring::of([1]);
    let batch = &chain(WRITER, &[5, 6], 0, 1)[1];
    let bytes = batch.encode();
    let accept = |bytes: &[u8]| {
        let Ok(batch) = Batch::decode(bytes) else { return false };
        let mut tracker = ChainTracker::default();
        let observed = tracker.observe(batch.checkpoint(), &ring).is_ok();
        assert_eq!(observed, tracker.writers().count() == 1, "what is refused must not be remembered");
        observed && (6..=11).all(|seq| tracker.event_of(&batch, seq, &event(0, seq), &ring).is_ok())
    };
    assert!(accept(&bytes), "untouched, it must be accepted");
    for (at, changed) in tampered(&bytes) {
        assert!(!accept(&changed), "accepted with byte {at} changed");
    }
}

#[test]
fn an_attestation_with_any_byte_changed_is_refused_and_so_is_its_event() {
    let ring = Ring::of([1]);
    let batch = &chain(WRITER, &[13], 0, 1)[0];
    for seq in [1, 8, 9, 13] {
        let bytes = batch.attest(seq).expect("in the batch").encode();
        let accept = |bytes: &[u8], event: &[u8]| {
            let Ok(attestation) = Attestation::decode(bytes) else { return false };
            ChainTracker::default().event(&attestation, event, &ring).is_ok()
        };
        assert!(accept(&bytes, &event(0, seq)), "untouched, it must be accepted");
        for (at, changed) in tampered(&bytes) {
            assert!(!accept(&changed, &event(0, seq)), "event {seq} accepted with byte {at} changed");
        }
        for (at, changed) in tampered(&event(0, seq)) {
            assert!(!accept(&bytes, &changed), "event {seq} accepted with its byte {at} changed");
        }
    }
}

#[test]
fn a_proof_with_any_byte_changed_is_refused() {
    let ring = Ring::of([1]);
    let (ours, theirs) = (chain(WRITER, &[4, 4], 0, 1), chain(WRITER, &[4, 4], 1, 6));
    let proof =
        EquivocationProof::new(ours[1].checkpoint().clone(), theirs[1].checkpoint().clone()).expect("a fork");
    let accept = |bytes: &[u8]| {
        let Ok(proof) = EquivocationProof::decode(bytes) else { return false };
        let mut tracker = ChainTracker::default();
        let equivocating = tracker.accept_proof(&proof, &ring).is_ok();
        assert_eq!(equivocating, tracker.writers().count() == 1, "what is refused must not be remembered");
        equivocating
    };
    assert!(accept(&proof.encode()), "untouched, it must be accepted");
    for (at, changed) in tampered(&proof.encode()) {
        assert!(!accept(&changed), "accepted with byte {at} changed");
    }
}

#[test]
fn a_proof_cannot_be_forged_from_what_an_honest_writer_signed() {
    let ring = Ring::of([1, 2]);
    let batches = chain(WRITER, &[3, 1, 4, 1, 5], 0, 1);
    // No two of its own conflict, nor with those of another life or another node.
    for other in [WRITER, ReplicaId::with_incarnation(1, 4), ReplicaId::with_incarnation(2, 3)] {
        for a in &batches {
            for b in &chain(other, &[3, 1, 4, 1, 5], if other == WRITER { 0 } else { 1 }, 1) {
                assert!(EquivocationProof::new(a.checkpoint().clone(), b.checkpoint().clone()).is_err());
            }
        }
    }
    // A conflicting statement with a signature from elsewhere: of another statement, of another node's key.
    let forked = chain(WRITER, &[3, 1, 4], 1, 5);
    let strange = chain(ReplicaId::with_incarnation(2, 3), &[3, 1, 4], 1, 5);
    for signature in [batches[2].checkpoint().signature(), strange[2].checkpoint().signature()] {
        let forged =
            Checkpoint::new(*forked[2].checkpoint().statement(), signature.to_vec()).expect("64 bytes");
        let proof =
            EquivocationProof::new(batches[2].checkpoint().clone(), forged).expect("the statements conflict");
        let mut tracker = ChainTracker::default();
        assert_eq!(tracker.accept_proof(&proof, &ring), Err(ProofError::Verify(VerifyError::BadSignature)));
        assert_eq!(tracker.kept(WRITER), None);
    }
}

#[test]
fn an_event_does_not_pass_under_another_dot_or_for_an_inner_node() {
    let ring = Ring::of([1]);
    let batch = &chain(WRITER, &[8], 0, 1)[0];
    let mut tracker = ChainTracker::default();
    let attestation = batch.attest(3).expect("in the batch");
    assert_eq!(tracker.event(&attestation, &event(0, 3), &ring), Ok(Standing::Linked));
    assert_eq!(tracker.event(&attestation, &event(0, 4), &ring), Err(EventError::Mismatch(3)));
    assert_eq!(tracker.event_of(batch, 4, &event(0, 3), &ring), Err(EventError::Mismatch(4)));
    assert_eq!(tracker.event_of(batch, 9, &event(0, 9), &ring), Err(EventError::Mismatch(9)));
    assert!(batch.attest(0).is_none() && batch.attest(9).is_none());
    // The same path moved to another place of the batch.
    let mut bytes = attestation.encode();
    let place = batch.checkpoint().encode().len() + 1;
    bytes[place] = 5;
    let moved = Attestation::decode(&bytes).expect("the form is right");
    assert_eq!(tracker.event(&moved, &event(0, 6), &ring), Err(EventError::Mismatch(6)));
    assert_eq!(tracker.event(&moved, &event(0, 3), &ring), Err(EventError::Mismatch(6)));
}

#[test]
fn a_signature_counts_only_under_its_context_and_for_its_writer() {
    let ring = Ring::of([1, 2]);
    let batch = &chain(WRITER, &[2], 0, 1)[0];
    assert!(batch.checkpoint().statement().message().starts_with(CONTEXT));
    // The same statement signed without the context.
    let bare = x0_crdt::internal::chain::Signer::sign(
        &super::keys::Key::of(1),
        &batch.checkpoint().statement().to_array(),
    );
    let bare =
        Checkpoint::new(*batch.checkpoint().statement(), bare.expect("the key is there")).expect("64 bytes");
    let refused = ObserveError::Verify(VerifyError::BadSignature);
    assert_eq!(ChainTracker::default().observe(&bare, &ring), Err(refused));
    // A tracker without keys accepts no writer.
    let unknown = ObserveError::Verify(VerifyError::UnknownWriter);
    let mut tracker = ChainTracker::new(ChainLimits::default());
    assert_eq!(tracker.observe(batch.checkpoint(), &RejectAll), Err(unknown));
    assert_eq!(tracker.writers().count(), 0);
    // A copy of a held checkpoint with a broken signature is not waved through as a duplicate.
    tracker.observe(batch.checkpoint(), &ring).expect("genuine");
    assert_eq!(tracker.observe(&bare, &ring), Err(refused));
}

#[test]
fn equal_heads_have_equal_histories_and_equal_digests_equal_dots() {
    // One part after another is changed; the last batch has the same events in all but the last case.
    let heads: Vec<_> = [
        chain(WRITER, &[4, 4], 0, 1),
        chain(ReplicaId::with_incarnation(1, 4), &[4, 4], 0, 1),
        chain(ReplicaId::with_incarnation(2, 3), &[4, 4], 0, 1),
        chain(WRITER, &[3, 5], 0, 1),
        chain(WRITER, &[4, 4], 1, 5),
    ]
    .iter()
    .map(|batches| batches[1].checkpoint().head())
    .collect();
    for (at, head) in heads.iter().enumerate() {
        assert!(!heads[at + 1..].contains(head), "two histories with one head");
    }
    // The same last batch after another first one: the root is equal, the head must not be.
    let statement = *chain(WRITER, &[4, 4], 0, 1)[1].checkpoint().statement();
    let mut bytes = chain(WRITER, &[4, 4], 0, 1)[1].checkpoint().encode();
    bytes[1 + 20] ^= 1;
    let moved = Checkpoint::decode(&bytes).expect("the form is right");
    assert_eq!(moved.statement().root(), statement.root());
    assert_ne!(moved.previous(), statement.previous());
    assert_ne!(moved.head(), statement.head());
    // The same bytes at other dots.
    let digests = [
        Digest::of_event(WRITER, 1, b"same"),
        Digest::of_event(WRITER, 2, b"same"),
        Digest::of_event(ReplicaId::with_incarnation(1, 4), 1, b"same"),
        Digest::of_event(ReplicaId::with_incarnation(2, 3), 1, b"same"),
    ];
    for (at, digest) in digests.iter().enumerate() {
        assert!(!digests[at + 1..].contains(digest));
    }
}

#[test]
fn statements_outside_the_format_are_refused_by_name() {
    let good = chain(WRITER, &[4, 4], 0, 1)[1].checkpoint().encode();
    let changed = |from: usize, to: &[u8]| {
        let mut bytes = good.clone();
        bytes[from..from + to.len()].copy_from_slice(to);
        Checkpoint::decode(&bytes)
    };
    // Version 1 byte, node 8, incarnation 4, previous seq 8, previous head 32, count 2, root 32, length 1,
    // signature.
    assert!(changed(0, &[1]).is_ok());
    assert!(matches!(changed(0, &[2]), Err(ChainDecodeError::Bytes(_))));
    assert_eq!(changed(13, &u64::MAX.to_be_bytes()), Err(ChainDecodeError::Sequence));
    assert!(changed(13, &(u64::MAX - 4).to_be_bytes()).is_ok());
    assert_eq!(changed(13, &0_u64.to_be_bytes()), Err(ChainDecodeError::Genesis));
    assert_eq!(changed(53, &0_u16.to_be_bytes()), Err(ChainDecodeError::Count(0)));
    assert_eq!(changed(53, &4097_u16.to_be_bytes()), Err(ChainDecodeError::Count(4097)));
    assert!(changed(53, &4096_u16.to_be_bytes()).is_ok());
    assert_eq!(changed(87, &[0]), Err(ChainDecodeError::Signature(0)));
    assert_eq!(changed(87, &[129]), Err(ChainDecodeError::Signature(129)));
    assert!(matches!(changed(87, &[63]), Err(ChainDecodeError::Bytes(_))), "a byte too many");
    assert!(matches!(changed(87, &[65]), Err(ChainDecodeError::Bytes(_))), "a byte too few");
    let statement = *Checkpoint::decode(&good).expect("untouched").statement();
    assert_eq!(Checkpoint::new(statement, vec![]), Err(ChainDecodeError::Signature(0)));
    assert_eq!(Checkpoint::new(statement, vec![0; 129]), Err(ChainDecodeError::Signature(129)));
}

#[test]
fn the_sizes_are_those_of_the_cost_table() {
    for (size, whole, alone) in [(16, 9.5, 282), (64, 2.375, 346), (256, 0.59375, 410)] {
        let mut writer = ChainWriter::new(WRITER, 256, super::keys::Key::boxed(1)).expect("in range");
        for seq in 1..=size {
            writer.append(seq, &event(0, seq)).expect("in order");
        }
        writer.flush();
        let batch = &super::keys::drain(&mut writer)[0];
        let len = |bytes: Vec<u8>| bytes.len() as f64;
        assert_eq!(len(batch.checkpoint().encode()) / size as f64, whole);
        assert_eq!(batch.attest(size / 2).expect("covered").encode().len(), alone);
    }
}

#[test]
fn proofs_batches_and_attestations_have_one_form() {
    let (ours, theirs) = (chain(WRITER, &[4, 4], 0, 1), chain(WRITER, &[4, 4], 1, 6));
    let join = |a: &Batch, b: &Batch| [vec![1], a.checkpoint().encode(), b.checkpoint().encode()].concat();
    let (one, other) = (join(&ours[1], &theirs[1]), join(&theirs[1], &ours[1]));
    let decoded = [EquivocationProof::decode(&one), EquivocationProof::decode(&other)];
    assert_eq!(decoded.iter().filter(|proof| proof.is_ok()).count(), 1);
    assert!(decoded.contains(&Err(ChainDecodeError::Order)));
    assert_eq!(EquivocationProof::decode(&join(&ours[0], &ours[1])), Err(ChainDecodeError::NoConflict));
    assert_eq!(EquivocationProof::decode(&join(&ours[1], &ours[1])), Err(ChainDecodeError::NoConflict));

    let digests = ours[1].digests().to_vec();
    let batch = |digests: &[Digest]| Batch::new(ours[1].checkpoint().clone(), digests.to_vec());
    assert!(batch(&digests).is_ok());
    assert_eq!(batch(&digests[..3]), Err(ChainDecodeError::Root));
    assert_eq!(batch(theirs[1].digests()), Err(ChainDecodeError::Root));
    // The two inner nodes have the same root as the four leaves below them.
    let sibling = |seq| {
        let bytes = ours[1].attest(seq).expect("covered").encode();
        Digest(*bytes.last_chunk().expect("the last hash of the path"))
    };
    assert_eq!(batch(&[sibling(7), sibling(5)]), Err(ChainDecodeError::Root));

    let attestation = ours[1].attest(5).expect("covered").encode();
    let mut outside = attestation.clone();
    outside[153] = 4;
    assert_eq!(Attestation::decode(&outside), Err(ChainDecodeError::Place(4)));
    assert!(Attestation::decode(&[attestation, vec![0; 32]].concat()).is_err(), "a hash too many");
}
