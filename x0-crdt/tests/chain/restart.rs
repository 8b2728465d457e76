//! A writer that loses its power at any step drops a batch that no peer has seen, or sends one again; it
//! never makes two.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use x0_crdt::internal::chain::{
    AppendError, Batch, BatchError, ChainRestoreError, ChainTracker, ChainWriter, Digest, EquivocationProof,
    Output, OwnError, PersistedError, SignError, Signer, StartError,
};

use super::keys::{Key, Random, Ring, WRITER, chain, drain, event};

/// The disk of a writer: what survives.
#[derive(Clone, Default)]
struct Disk {
    state: Option<Vec<u8>>,
    digests: Vec<(u64, Digest)>,
}

impl Disk {
    fn boot(&self) -> ChainWriter {
        let mut chain = match &self.state {
            Some(state) => ChainWriter::restore(WRITER, state, 8, Key::boxed(1)).expect("what was stored"),
            None => ChainWriter::new(WRITER, 8, Key::boxed(1)).expect("in range"),
        };
        for (seq, digest) in &self.digests {
            if *seq >= chain.next_seq() {
                chain.append_digest(*seq, *digest).expect("in order");
            }
        }
        chain
    }
}

/// One run of 40 events in which the power goes at step `crash`. `honest` keeps the contract; without it,
/// batches are sent before they are stored. Every life writes events of its own, so reuse of a sequence
/// number shows.
fn run(crash: usize, seed: u64, honest: bool) -> (Vec<Batch>, bool) {
    let mut random = Random(seed);
    let steps = Rc::new(Cell::new(0));
    let dies = |steps: &Rc<Cell<usize>>| {
        steps.set(steps.get() + 1);
        steps.get() == crash
    };
    let (mut disk, mut sent, mut lives) = (Disk::default(), Vec::new(), 0_u8);
    let mut crashed = false;
    'life: loop {
        lives += 1;
        let mut chain = disk.boot();
        loop {
            while let Some(output) = chain.poll_output().expect("the key is there") {
                match output {
                    Output::Persist { number, state } => {
                        if !honest {
                            // The bug: out it goes, and the disk comes later.
                            let mut early =
                                ChainWriter::restore(WRITER, &state, 8, Key::boxed(1)).expect("whole");
                            if let Ok(Some(Output::Send(batch))) = early.poll_output() {
                                sent.push(batch);
                            }
                        }
                        if dies(&steps) {
                            crashed = true;
                            continue 'life;
                        }
                        disk.state = Some(state);
                        if dies(&steps) {
                            crashed = true;
                            continue 'life;
                        }
                        chain.persisted(number).expect("awaited");
                    }
                    Output::Send(batch) => {
                        if dies(&steps) {
                            crashed = true;
                            continue 'life;
                        }
                        sent.push(batch);
                        if dies(&steps) {
                            crashed = true;
                            continue 'life;
                        }
                    }
                    other => panic!("an unknown output: {other:?}"),
                }
            }
            let seq = chain.next_seq();
            if chain.head().seq == 40 {
                return (sent, crashed);
            }
            if seq > 40 {
                chain.flush();
                continue;
            }
            let digest = chain.append(seq, &event(lives, seq)).expect("in order");
            // Without the digest on disk the event is as if it had not been: in half of the runs that is
            // tried.
            if dies(&steps) {
                crashed = true;
                continue 'life;
            }
            if seed.is_multiple_of(2) {
                disk.digests.push((seq, digest));
            }
            if random.chance(15) || seq == 40 {
                chain.flush();
            }
        }
    }
}

fn forks(sent: &[Batch]) -> usize {
    let proves =
        |a: &Batch, b: &Batch| EquivocationProof::new(a.checkpoint().clone(), b.checkpoint().clone()).is_ok();
    sent.iter().enumerate().map(|(at, a)| sent[at..].iter().filter(|b| proves(a, b)).count()).sum()
}

#[test]
fn a_crash_at_any_step_never_forks_and_loses_no_batch() {
    for seed in 0..40 {
        for crash in 1.. {
            let (sent, crashed) = run(crash, seed, true);
            assert_eq!(forks(&sent), 0, "seed {seed}, crash at step {crash}");
            // A replica that received all batches has the whole chain.
            let (ring, mut tracker) = (Ring::of([1]), ChainTracker::default());
            for batch in &sent {
                tracker.observe(batch.checkpoint(), &ring).expect("honest");
            }
            assert_eq!(
                tracker.head(WRITER).map(|head| head.seq),
                Some(40),
                "seed {seed}, crash at step {crash}"
            );
            if !crashed {
                break;
            }
        }
    }
}

#[test]
fn sending_before_storing_forks_which_is_why_the_contract_forbids_it() {
    let forked = (1..60).filter(|crash| forks(&run(*crash, 1, false).0) > 0).count();
    assert!(forked > 0, "the test above would not notice a broken contract");
}

#[test]
fn nothing_leaves_before_it_is_confirmed_and_after_a_crash_the_same_bytes_leave_again() {
    let mut chain = ChainWriter::new(WRITER, 2, Key::boxed(1)).expect("in range");
    chain.append(1, &event(0, 1)).expect("in order");
    assert_eq!(chain.poll_output(), Ok(None), "one of two events: nothing is due");
    chain.append(2, &event(0, 2)).expect("in order");
    let Ok(Some(Output::Persist { number, state })) = chain.poll_output() else {
        panic!("the batch is full")
    };
    assert_eq!(chain.poll_output(), Ok(None));
    assert_eq!(chain.persisted(number + 1), Err(PersistedError::Unexpected(number + 1)));
    assert_eq!(chain.poll_output(), Ok(None));
    // The next batch gathers meanwhile, up to its limit.
    chain.append(3, &event(0, 3)).expect("room");
    chain.append(4, &event(0, 4)).expect("room");
    assert_eq!(chain.append(5, &event(0, 5)), Err(AppendError::BatchFull));
    assert_eq!(chain.poll_output(), Ok(None), "the second batch waits for the first");
    chain.persisted(number).expect("awaited");
    assert_eq!(chain.persisted(number), Err(PersistedError::Unexpected(number)), "once");
    let Ok(Some(Output::Send(first))) = chain.poll_output() else { panic!("it is durable") };
    assert_eq!(drain(&mut chain).len(), 1, "the second follows");

    // The power went between the disk and the radio.
    let mut restored = ChainWriter::restore(WRITER, &state, 2, Key::boxed(1)).expect("whole");
    assert_eq!(restored.next_seq(), 3);
    let Ok(Some(Output::Send(again))) = restored.poll_output() else { panic!("it may not have left") };
    assert_eq!(again.encode(), first.encode());
    assert_eq!(restored.poll_output(), Ok(None));
}

#[test]
fn a_damaged_state_or_that_of_another_writer_is_refused() {
    let mut chain = ChainWriter::new(WRITER, 4, Key::boxed(1)).expect("in range");
    for seq in 1..=4 {
        chain.append(seq, &event(0, seq)).expect("in order");
    }
    let Ok(Some(Output::Persist { state, .. })) = chain.poll_output() else { panic!("the batch is full") };
    let restore = |state: &[u8]| ChainWriter::restore(WRITER, state, 4, Key::boxed(1)).err();
    assert_eq!(restore(&state), None);
    for at in 0..state.len() {
        let mut damaged = state.clone();
        damaged[at] ^= 0x10;
        assert_eq!(restore(&damaged), Some(ChainRestoreError::Damaged), "byte {at}");
        assert_eq!(restore(&state[..at]), Some(ChainRestoreError::Damaged), "cut at {at}");
    }
    let other = x0_crdt::ReplicaId::with_incarnation(1, 4);
    let refused = ChainWriter::restore(other, &state, 4, Key::boxed(1)).err();
    assert_eq!(refused, Some(ChainRestoreError::OtherWriter));
    assert_eq!(
        ChainWriter::restore(WRITER, &state, 0, Key::boxed(1)).err(),
        Some(ChainRestoreError::BatchLen(0))
    );
    assert_eq!(ChainWriter::new(WRITER, 4097, Key::boxed(1)).err(), Some(StartError::BatchLen(4097)));
}

#[test]
fn a_disk_that_was_rolled_back_is_noticed_when_a_peer_still_knows() {
    let ring = Ring::of([1]);
    let mut writer = ChainWriter::new(WRITER, 2, Key::boxed(1)).expect("in range");
    let (mut states, mut sent) = (Vec::new(), Vec::new());
    for seq in 1..=6 {
        writer.append(seq, &event(0, seq)).expect("in order");
        while let Ok(Some(output)) = writer.poll_output() {
            match output {
                Output::Persist { number, state } => {
                    states.push(state);
                    writer.persisted(number).expect("awaited");
                }
                Output::Send(batch) => sent.push(batch),
                other => panic!("an unknown output: {other:?}"),
            }
        }
    }
    let restored = |at: usize| ChainWriter::restore(WRITER, &states[at], 2, Key::boxed(1)).expect("whole");
    let head = sent[2].checkpoint();
    assert_eq!(restored(2).check_own(head, &ring), Ok(()));
    assert_eq!(restored(0).check_own(head, &ring), Err(OwnError::RolledBack(6)));
    assert_eq!(restored(1).check_own(head, &ring), Err(OwnError::RolledBack(6)));
    assert_eq!(restored(2).check_own(sent[0].checkpoint(), &ring), Ok(()));
    let forked = &chain(WRITER, &[2, 2, 2], 1, 5)[2];
    assert_eq!(restored(2).check_own(forked.checkpoint(), &ring), Err(OwnError::Forked(6)));
    // A batch that the writer did not sign proves nothing about it.
    assert_eq!(restored(0).check_own(head, &Ring::of([])), Ok(()));
}

#[test]
fn a_signer_that_fails_or_signs_at_length_costs_no_event() {
    struct Flaky(Arc<AtomicBool>, Key);
    impl Signer for Flaky {
        fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
            if self.0.load(Ordering::SeqCst) { self.1.sign(message) } else { Err(SignError::Unavailable) }
        }
    }
    struct Long;
    impl Signer for Long {
        fn sign(&self, _: &[u8]) -> Result<Vec<u8>, SignError> {
            Ok(vec![0; 129])
        }
    }
    let works = Arc::new(AtomicBool::new(false));
    let mut chain =
        ChainWriter::new(WRITER, 2, Box::new(Flaky(works.clone(), Key::of(1)))).expect("in range");
    chain.append(1, &event(0, 1)).expect("in order");
    chain.append(2, &event(0, 2)).expect("in order");
    assert_eq!(chain.poll_output(), Err(BatchError::Sign(SignError::Unavailable)));
    assert_eq!(chain.append(3, &event(0, 3)), Err(AppendError::BatchFull));
    assert_eq!(chain.next_seq(), 3);
    works.store(true, Ordering::SeqCst);
    let sent = drain(&mut chain);
    assert_eq!(sent.len(), 1);
    assert!(sent[0].covers(2, &event(0, 2)));

    let mut chain = ChainWriter::new(WRITER, 1, Box::new(Long)).expect("in range");
    chain.append(1, &event(0, 1)).expect("in order");
    assert_eq!(chain.poll_output(), Err(BatchError::Signature(129)));
}

#[test]
fn events_come_in_order_and_within_bounds() {
    let mut chain = ChainWriter::new(WRITER, 8, Key::boxed(1)).expect("in range");
    assert_eq!(chain.append(2, b""), Err(AppendError::OutOfOrder { seq: 2, next: 1 }));
    assert_eq!(chain.append(1, &vec![0; 65_537]), Err(AppendError::TooLong(65_537)));
    chain.append(1, &vec![0; 65_536]).expect("just within");
    assert_eq!(chain.append(1, b""), Err(AppendError::OutOfOrder { seq: 1, next: 2 }));
    chain.flush();
    assert_eq!(drain(&mut chain).len(), 1);
    chain.flush();
    assert_eq!(chain.poll_output(), Ok(None), "nothing was appended since");
    chain.append(2, b"").expect("in order");
    assert_eq!(chain.poll_output(), Ok(None), "an empty flush asks for nothing later either");
}
