//! Bytes from outside never make a decoder panic, and what decodes encodes to the same bytes. Shared with the
//! fuzz target.

use x0_crdt::ReplicaId;
use x0_crdt::internal::chain::{
    Attestation, Batch, ChainTracker, ChainWriter, Checkpoint, EquivocationProof, RejectAll, SignError,
    Signer, Verifier, VerifyError,
};

/// Accepts everything, so that what follows the decoder is reached too.
struct AcceptAll;

impl Verifier for AcceptAll {
    fn verify(&self, _: ReplicaId, _: &[u8], _: &[u8]) -> Result<(), VerifyError> {
        Ok(())
    }
}

impl Signer for AcceptAll {
    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, SignError> {
        Ok(vec![1])
    }
}

/// Gives `data` to every decoder, and what comes out to a tracker. Says how many took it.
pub(crate) fn check(data: &[u8]) -> usize {
    let mut taken = 0;
    let mut tracker = ChainTracker::default();
    if let Ok(checkpoint) = Checkpoint::decode(data) {
        assert_eq!(checkpoint.encode(), data);
        assert!(tracker.observe(&checkpoint, &RejectAll).is_err());
        assert!(tracker.observe(&checkpoint, &AcceptAll).is_ok());
        taken += 1;
    }
    if let Ok(batch) = Batch::decode(data) {
        assert_eq!(batch.encode(), data);
        let statement = batch.checkpoint().statement();
        for seq in [statement.previous().seq + 1, statement.seq()] {
            let attestation = batch.attest(seq).expect("the batch covers it");
            assert_eq!(Attestation::decode(&attestation.encode()), Ok(attestation));
        }
        taken += 1;
    }
    if let Ok(attestation) = Attestation::decode(data) {
        assert_eq!(attestation.encode(), data);
        assert!(tracker.event(&attestation, data, &AcceptAll).is_err());
        taken += 1;
    }
    if let Ok(proof) = EquivocationProof::decode(data) {
        assert_eq!(proof.encode(), data);
        let [first, second] = proof.checkpoints();
        assert!(proof.kept() <= first.previous().seq.min(second.previous().seq));
        assert!(tracker.accept_proof(&proof, &RejectAll).is_err());
        assert_eq!(tracker.accept_proof(&proof, &AcceptAll), Ok(true));
        taken += 1;
    }
    let writer = ReplicaId::new(1);
    if let Ok(mut chain) = ChainWriter::restore(writer, data, 16, Box::new(AcceptAll)) {
        let next = chain.next_seq();
        let _ = chain.append(next, data);
        chain.flush();
        while let Ok(Some(_)) = chain.poll_output() {}
        taken += 1;
    }
    taken
}
