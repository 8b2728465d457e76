//! Ed25519 behind the seams, and what the tests share.

use std::collections::BTreeMap;

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use x0_crdt::ReplicaId;
use x0_crdt::internal::chain::{Batch, ChainWriter, Output, SignError, Signer, Verifier, VerifyError};

pub(crate) struct Key(Ed25519KeyPair);

impl Key {
    pub(crate) fn of(node: u64) -> Self {
        let mut seed = [0x5a; 32];
        seed[..8].copy_from_slice(&node.to_be_bytes());
        Self(Ed25519KeyPair::from_seed_unchecked(&seed).expect("32 bytes"))
    }

    pub(crate) fn boxed(node: u64) -> Box<dyn Signer + Send> {
        Box::new(Self::of(node))
    }
}

impl Signer for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        Ok(self.0.sign(message).as_ref().to_vec())
    }
}

/// Knows the keys of some nodes.
pub(crate) struct Ring(BTreeMap<u64, Vec<u8>>);

impl Ring {
    pub(crate) fn of(nodes: impl IntoIterator<Item = u64>) -> Self {
        Self(nodes.into_iter().map(|node| (node, Key::of(node).0.public_key().as_ref().to_vec())).collect())
    }
}

impl Verifier for Ring {
    fn verify(&self, writer: ReplicaId, message: &[u8], signature: &[u8]) -> Result<(), VerifyError> {
        let key = self.0.get(&writer.node).ok_or(VerifyError::UnknownWriter)?;
        UnparsedPublicKey::new(&ED25519, key)
            .verify(message, signature)
            .map_err(|_| VerifyError::BadSignature)
    }
}

pub(crate) const WRITER: ReplicaId = ReplicaId::with_incarnation(1, 3);

/// The bytes of event `seq`, in the version `side`.
pub(crate) fn event(side: u8, seq: u64) -> Vec<u8> {
    [&[side][..], &seq.to_be_bytes()].concat()
}

/// Does at once what the driver of a writer owes, and returns what it would send.
pub(crate) fn drain(chain: &mut ChainWriter) -> Vec<Batch> {
    let mut sent = Vec::new();
    while let Some(output) = chain.poll_output().expect("the key is there") {
        match output {
            Output::Persist { number, .. } => chain.persisted(number).expect("it was just asked for"),
            Output::Send(batch) => sent.push(batch),
            other => panic!("an unknown output: {other:?}"),
        }
    }
    sent
}

/// A chain of batches with these sizes; from event `fork` on, the events are of version `side`, before it of
/// version 0.
pub(crate) fn chain(writer: ReplicaId, sizes: &[usize], side: u8, fork: u64) -> Vec<Batch> {
    let mut chain = ChainWriter::new(writer, 64, Key::boxed(writer.node)).expect("in range");
    let mut sent = Vec::new();
    for size in sizes {
        for _ in 0..*size {
            let seq = chain.next_seq();
            chain.append(seq, &event(if seq < fork { 0 } else { side }, seq)).expect("in order");
        }
        chain.flush();
        sent.extend(drain(&mut chain));
    }
    sent
}

/// SplitMix64: the same numbers for the same seed, for ever.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("below a usize")
    }

    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for index in (1..items.len()).rev() {
            items.swap(index, self.below(index + 1));
        }
    }
}
