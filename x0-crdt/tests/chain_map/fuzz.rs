//! A seeded run of invented entries against chains with a verifier that accepts every signature, so that the
//! code behind it is reached.

use x0_crdt::internal::chain::{
    CHAIN_PREFIX, ChainLimits, ChainOptions, MapChains, SignError, Signer, Verifier, VerifyError,
};
use x0_crdt::{CausalMap, ReplicaId};

use super::garbage::garbage;
use super::keys::Random;
use super::net::KEY;

struct AcceptAll;

impl Verifier for AcceptAll {
    fn verify(&self, _: ReplicaId, _: &[u8], _: &[u8]) -> Result<(), VerifyError> {
        Ok(())
    }
}

impl Signer for AcceptAll {
    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, SignError> {
        Ok(vec![7; 64])
    }
}

fn open(map: &mut CausalMap) -> MapChains {
    let limits = ChainLimits::default().writers_max(6).checkpoints_max(4).waiting_max(2);
    let options = ChainOptions::default().batch_len_max(3).batches_max(5).limits(limits);
    MapChains::open(map, &options, Box::new(AcceptAll), Some(Box::new(AcceptAll)))
}

/// As many entries as `X0_FUZZ_INPUTS` says, 40,000 without it.
#[test]
fn no_entries_cause_a_panic_or_an_unstable_review() {
    let inputs =
        std::env::var("X0_FUZZ_INPUTS").ok().and_then(|count| count.parse().ok()).unwrap_or(40_000_u64);
    let mut random = Random(0x0067_7561);
    let mut done = 0;
    let mut equivocating = 0;
    while done < inputs {
        // Writers that know each other, and one of which there are two.
        let mut maps: Vec<CausalMap> =
            [1, 2, 3, 3].map(|node| CausalMap::new(ReplicaId::new(node), KEY)).into();
        let mut chains_of: Vec<MapChains> = maps.iter_mut().map(open).collect();
        for _ in 0..60 {
            done += 1;
            let at = random.below(4);
            let (map, chains) = (&mut maps[at], &mut chains_of[at]);
            match random.below(10) {
                0..=2 => drop(map.put(&[random.below(9) as u8], 0, &random.next().to_le_bytes()).unwrap()),
                3 => drop(chains.sign_pending(map)),
                4 => {
                    let version = map.version();
                    map.collect_tombstones(&version);
                    chains.tidy(map);
                }
                5 => drop(chains.diverged(map)),
                _ => {
                    let (key, value) = garbage(&mut random, map);
                    if random.chance(20) {
                        map.remove(&key);
                    } else {
                        map.put(&key, 0, &value).unwrap();
                    }
                }
            }
            let to = random.below(4);
            if to == at {
                continue;
            }
            let since = maps[to].version();
            let delta = if random.chance(50) { maps[at].delta(&since).ok() } else { None };
            let delta = delta.unwrap_or_else(|| maps[at].complete(&since));
            let Ok(joined) = maps[to].join(&delta) else { continue };
            equivocating += chains_of[to].review(&mut maps[to], &joined.keys).equivocating.len();
            if random.chance(20) {
                let (map, chains) = (&mut maps[to], &mut chains_of[to]);
                drop(chains.review_all(map));
                let again = chains.review_all(map);
                assert_eq!(
                    (again.keys, again.equivocating),
                    (vec![], vec![]),
                    "what is reviewed stays as it is"
                );
                let prefix = map.prefix(CHAIN_PREFIX).map(|entry| entry.siblings().count());
                assert!(prefix.sum::<usize>() < 200);
            }
        }
    }
    assert!(equivocating > 0);
}
