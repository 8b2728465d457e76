//! A seeded run of what the fuzz target does for longer.

use x0_crdt::ReplicaId;
use x0_crdt::internal::chain::{ChainWriter, EquivocationProof, Output};

use super::decoders::check;
use super::keys::{Key, Random, WRITER, chain};

/// Genuine bytes of every kind.
fn seeds() -> Vec<Vec<u8>> {
    let (ours, theirs) = (chain(WRITER, &[3, 5, 9], 0, 1), chain(WRITER, &[3, 5, 9], 1, 5));
    let proof =
        EquivocationProof::new(ours[1].checkpoint().clone(), theirs[1].checkpoint().clone()).expect("a fork");
    let mut seeds = vec![proof.encode()];
    for batch in &ours {
        let last = batch.attest(batch.checkpoint().seq()).expect("covered");
        seeds.extend([batch.checkpoint().encode(), batch.encode(), last.encode()]);
    }
    let mut writer = ChainWriter::new(ReplicaId::new(1), 4, Key::boxed(1)).expect("in range");
    for seq in 1..=4 {
        writer.append(seq, b"event").expect("in order");
    }
    let Ok(Some(Output::Persist { state, .. })) = writer.poll_output() else { panic!("the batch is full") };
    seeds.push(state);
    seeds
}

/// As many inputs as `X0_FUZZ_INPUTS` says, 200,000 without it.
#[test]
fn no_bytes_make_a_decoder_panic() {
    let inputs =
        std::env::var("X0_FUZZ_INPUTS").ok().and_then(|count| count.parse().ok()).unwrap_or(200_000_u64);
    let seeds = seeds();
    for seed in &seeds {
        assert_eq!(check(seed), 1, "genuine bytes are of exactly one kind");
    }
    let mut random = Random(0x000c_4a1f);
    let mut taken = 0_u64;
    for _ in 0..inputs {
        let mut data = seeds[random.below(seeds.len())].clone();
        match random.below(8) {
            0 => data.truncate(random.below(data.len() + 1)),
            1 => {
                let more = random.below(70);
                data.extend((0..more).map(|_| random.next().to_le_bytes()[0]));
            }
            2 => data = (0..random.below(400)).map(|_| random.next().to_le_bytes()[0]).collect(),
            3 => {
                // Pieces of two kinds, joined.
                let other = &seeds[random.below(seeds.len())];
                data.truncate(random.below(data.len()));
                data.extend_from_slice(&other[random.below(other.len())..]);
            }
            _ => {
                for _ in 0..=random.below(3) {
                    let at = random.below(data.len());
                    data[at] = match random.below(3) {
                        0 => 0xff,
                        1 => data[at].wrapping_add(1),
                        _ => random.next().to_le_bytes()[0],
                    };
                }
            }
        }
        taken += check(&data) as u64;
    }
    assert!(
        taken > inputs / 100,
        "only {taken} inputs got past a decoder: the mutations do not reach deep enough"
    );
}
