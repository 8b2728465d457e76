//! An honest writer is never equivocating, whatever the network and its own restarts do.

use x0_crdt::internal::chain::{Batch, ChainLimits, ChainTracker, ChainWriter, Observed, Output, Standing};

use super::keys::{Key, Random, Ring, WRITER, event};

/// Writes about 150 events in batches of any size, restarting now and then from what is on disk.
fn write(random: &mut Random) -> Vec<Batch> {
    let mut chain = ChainWriter::new(WRITER, 16, Key::boxed(1)).expect("in range");
    let (mut stored, mut digests, mut sent) = (None, Vec::new(), Vec::new());
    while chain.next_seq() <= 150 {
        let seq = chain.next_seq();
        if let Ok(digest) = chain.append(seq, &event(0, seq)) {
            digests.push((seq, digest));
        }
        if random.chance(10) {
            chain.flush();
        }
        let mut dead = false;
        while let Ok(Some(output)) = chain.poll_output() {
            dead = random.chance(8);
            match output {
                _ if dead => break,
                Output::Persist { number, state } => {
                    stored = Some(state);
                    if random.chance(8) {
                        dead = true;
                        break;
                    }
                    chain.persisted(number).expect("awaited");
                }
                Output::Send(batch) => sent.push(batch),
                other => panic!("an unknown output: {other:?}"),
            }
        }
        if dead {
            let key = Key::boxed(1);
            chain = match &stored {
                Some(state) => ChainWriter::restore(WRITER, state, 16, key).expect("whole"),
                None => ChainWriter::new(WRITER, 16, key).expect("in range"),
            };
            for (seq, digest) in &digests {
                if *seq >= chain.next_seq() {
                    // A full batch has to leave first; the driver goes on from there.
                    if chain.append_digest(*seq, *digest).is_err() {
                        break;
                    }
                }
            }
            let next = chain.next_seq();
            digests.retain(|(seq, _)| *seq < next);
        }
    }
    chain.flush();
    sent.extend(super::keys::drain(&mut chain));
    sent
}

#[test]
fn loss_duplication_reordering_and_restarts_never_yield_a_proof() {
    let ring = Ring::of([1]);
    for seed in 0..300 {
        let mut random = Random(seed);
        let sent = write(&mut random);
        let limits = ChainLimits::default()
            .writers_max(1)
            .checkpoints_max(1 + random.below(6))
            .waiting_max(random.below(6));
        let mut trackers = [ChainTracker::new(limits), ChainTracker::new(limits), ChainTracker::new(limits)];
        for tracker in &mut trackers {
            let loss = random.below(60);
            let mut wire: Vec<&Batch> = sent.iter().chain(&sent).filter(|_| !random.chance(loss)).collect();
            random.shuffle(&mut wire);
            for batch in wire {
                let before: Vec<_> = tracker.head(WRITER).into_iter().collect();
                let _ = if random.chance(5) {
                    tracker.adopt(batch.checkpoint(), &ring)
                } else {
                    tracker.observe(batch.checkpoint(), &ring)
                };
                let seq = batch.checkpoint().seq();
                let attestation = batch.attest(seq).expect("its last event");
                let _ = tracker.event(&attestation, &event(0, seq), &ring);
                assert_eq!(tracker.kept(WRITER), None, "seed {seed}: an honest writer was equivocating");
                assert!(tracker.checkpoints(WRITER).count() <= limits.checkpoints_max + limits.waiting_max);
                if let (Some(before), Some(after)) = (before.first(), tracker.head(WRITER)) {
                    assert!(after.seq >= before.seq, "seed {seed}: the head went back");
                }
            }
            // In the end everything comes again, in order: everyone arrives at the same head.
            for batch in &sent {
                let observed = tracker.observe(batch.checkpoint(), &ring).expect("honest and in order");
                assert!(
                    !matches!(observed, Observed::Equivocation { .. } | Observed::Waiting { .. }),
                    "{observed:?}"
                );
            }
            let last = sent.last().expect("something was sent").checkpoint();
            assert_eq!(tracker.head(WRITER), Some(last.head()), "seed {seed}");
            let attestation = sent[0].attest(1).expect("the first event");
            assert!(
                tracker.event(&attestation, &event(0, 1), &ring).is_ok(),
                "seed {seed}: an old event is refused"
            );
            let attestation = sent.last().expect("something").attest(last.seq()).expect("the last event");
            assert_eq!(tracker.event(&attestation, &event(0, last.seq()), &ring), Ok(Standing::Linked));
        }
    }
}
