//! Words, stems, BM25 against its formula, changes in place, files.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "helpers of tests"
)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use x0_ml::index::{Neighbour, RestoreError, VectorId};
use x0_ml::lexical::{LexicalIndex, LexicalOptions, Stemming, stem_english, words};

fn all(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    words(text, &mut |word| found.push(word.to_owned()));
    found
}

#[test]
fn identifiers_stay_whole_and_give_their_parts() {
    assert_eq!(all("Attach xdp_filter!"), ["attach", "xdp_filter", "xdp", "filter"]);
    assert_eq!(all("with --ef 200, -v"), ["with", "--ef", "ef", "200", "-v", "v"]);
    assert_eq!(all("x0-ml's node.toml."), ["x0-ml", "x0", "ml", "s", "node.toml", "node", "toml"]);
    assert_eq!(all("a--b a- -- _x_ 3.5"), ["a", "b", "a", "x", "3.5", "3", "5"]);
    assert_eq!(all("Ünïcode ΣΊΣΥΦΟΣ 東京 straße"), ["ünïcode", "σίσυφοσ", "東", "京", "straße"]);
    assert!(all(" \n--- ... ").is_empty());
}

/// Words and stems of Porter's own examples (the paper, sections 2 and 3).
#[test]
fn stems_are_porters() {
    let pairs = [
        ("caresses", "caress"),
        ("ponies", "poni"),
        ("cats", "cat"),
        ("feed", "feed"),
        ("agreed", "agre"),
        ("plastered", "plaster"),
        ("bled", "bled"),
        ("motoring", "motor"),
        ("sing", "sing"),
        ("conflated", "conflat"),
        ("troubled", "troubl"),
        ("sized", "size"),
        ("hopping", "hop"),
        ("tanned", "tan"),
        ("falling", "fall"),
        ("hissing", "hiss"),
        ("fizzed", "fizz"),
        ("failing", "fail"),
        ("filing", "file"),
        ("happy", "happi"),
        ("sky", "sky"),
        ("relational", "relat"),
        ("conditional", "condit"),
        ("rational", "ration"),
        ("valenci", "valenc"),
        ("digitizer", "digit"),
        ("conformabli", "conform"),
        ("radicalli", "radic"),
        ("differentli", "differ"),
        ("vileli", "vile"),
        ("analogousli", "analog"),
        ("vietnamization", "vietnam"),
        ("predication", "predic"),
        ("operator", "oper"),
        ("feudalism", "feudal"),
        ("decisiveness", "decis"),
        ("hopefulness", "hope"),
        ("callousness", "callous"),
        ("formaliti", "formal"),
        ("sensitiviti", "sensit"),
        ("sensibiliti", "sensibl"),
        ("triplicate", "triplic"),
        ("formative", "form"),
        ("formalize", "formal"),
        ("electriciti", "electr"),
        ("electrical", "electr"),
        ("hopeful", "hope"),
        ("goodness", "good"),
        ("revival", "reviv"),
        ("allowance", "allow"),
        ("inference", "infer"),
        ("airliner", "airlin"),
        ("gyroscopic", "gyroscop"),
        ("adjustable", "adjust"),
        ("defensible", "defens"),
        ("irritant", "irrit"),
        ("replacement", "replac"),
        ("adjustment", "adjust"),
        ("dependent", "depend"),
        ("adoption", "adopt"),
        ("homologou", "homolog"),
        ("communism", "commun"),
        ("activate", "activ"),
        ("angulariti", "angular"),
        ("homologous", "homolog"),
        ("effective", "effect"),
        ("bowdlerize", "bowdler"),
        ("probate", "probat"),
        ("rate", "rate"),
        ("cease", "ceas"),
        ("controll", "control"),
        ("roll", "roll"),
        ("generalizations", "gener"),
        ("oscillators", "oscil"),
        ("is", "is"),
        ("Übung", "Übung"),
        ("xdp_filter", "xdp_filter"),
    ];
    for (word, stem) in pairs {
        let mut found = word.to_owned();
        stem_english(&mut found);
        assert_eq!(found, stem, "of {word}");
    }
    let mut index = LexicalIndex::new(LexicalOptions::new().stemming(Stemming::English));
    index.insert(VectorId(1), "connected nodes");
    assert_eq!(index.search("connection of a node", 1, None)[0].id, VectorId(1));
}

#[test]
fn scores_are_those_of_the_formula() {
    let texts = ["red fish blue fish", "one fish", "a blue bird sings of one very long blue song today"];
    let mut index = LexicalIndex::new(LexicalOptions::new().k1(1.5).b(0.6));
    for (id, text) in texts.iter().enumerate() {
        index.insert(VectorId(id as u64), text);
    }
    let mean = texts.iter().map(|text| all(text).len()).sum::<usize>() as f32 / 3.0;
    let score = |text: &str, query: &[&str]| -> f32 {
        let words = all(text);
        query
            .iter()
            .map(|term| {
                let having =
                    texts.iter().filter(|text| all(text).iter().any(|word| word == term)).count() as f32;
                let idf = (1.0 + (3.0 - having + 0.5) / (having + 0.5)).ln();
                let count = words.iter().filter(|word| word == term).count() as f32;
                idf * count / (count + 1.5 * (1.0 - 0.6 + 0.6 * words.len() as f32 / mean))
            })
            .sum()
    };
    for query in [vec!["fish"], vec!["blue", "fish"], vec!["one", "blue"], vec!["fish", "fish", "sings"]] {
        let found = index.search(&query.join(" "), 10, None);
        for near in &found {
            let expect = score(texts[near.id.0 as usize], &query);
            assert!((near.score - expect).abs() < 1e-5, "{query:?} {near:?} {expect}");
        }
        assert!(found.is_sorted_by(|a, b| a.score >= b.score));
    }
    assert!(index.search("nothing", 3, None).is_empty());
    assert_eq!(index.search("fish blue", 1, None).len(), 1);
    let not_first = |id: VectorId| id != VectorId(0);
    assert!(index.search("fish", 9, Some(&not_first)).iter().all(|near| near.id == VectorId(1)));
}

/// Scores are sums of floating-point numbers. Their order once followed the numbers of the terms, and so the
/// history of the index.
#[test]
fn scores_do_not_depend_on_the_history() {
    let texts = [(1, "a bc c ab ca c a"), (2, "a a ab a a a"), (3, "a a")];
    let (mut changed, mut fresh) =
        (LexicalIndex::new(LexicalOptions::new()), LexicalIndex::new(LexicalOptions::new()));
    for (id, text) in [(1, "a ac ba bb aa"), (3, "a a a c")].into_iter().chain(texts) {
        changed.insert(VectorId(id), text);
    }
    for (id, text) in texts {
        fresh.insert(VectorId(id), text);
    }
    for query in ["a", "b c", "ab bc ca"] {
        assert_eq!(changed.search(query, 20, None), fresh.search(query, 20, None), "of {query}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    /// After any changes the index is, byte for byte, one that was built from the texts that are left.
    #[test]
    fn changes_in_place_leave_nothing_behind(
        changes in prop::collection::vec((0_u64..12, prop::option::weighted(0.7, "[abc]( [abc]{1,2}){0,6}")), 0..60),
    ) {
        let mut index = LexicalIndex::new(LexicalOptions::new());
        let mut left = BTreeMap::new();
        for (id, text) in changes {
            match text {
                Some(text) => {
                    index.insert(VectorId(id), &text);
                    left.insert(id, text);
                }
                None => prop_assert_eq!(index.remove(VectorId(id)), left.remove(&id).is_some()),
            }
        }
        let mut fresh = LexicalIndex::new(LexicalOptions::new());
        for (id, text) in &left {
            fresh.insert(VectorId(*id), text);
        }
        prop_assert_eq!((index.len(), index.terms_len()), (fresh.len(), fresh.terms_len()));
        let file = index.save();
        prop_assert!(file == fresh.save());
        let restored = LexicalIndex::restore(&file, LexicalOptions::new()).unwrap();
        prop_assert!(restored.save() == file);
        for query in ["a", "b c", "ab bc ca"] {
            prop_assert_eq!(index.search(query, 20, None), fresh.search(query, 20, None));
            prop_assert_eq!(restored.search(query, 20, None), fresh.search(query, 20, None));
        }
    }

    /// A search for few texts gives the first ones of the search for all, without those that do not pass.
    #[test]
    fn the_best_are_the_first_of_all(
        texts in prop::collection::vec(("[ab]( [abc]){0,3}", 0_u64..4), 0..300),
        (k, one_of, kept) in (0_usize..40, 1_u64..6, 1_u64..9),
    ) {
        let mut index = LexicalIndex::new(LexicalOptions::new());
        for (id, (text, order)) in (0_u64..).zip(&texts) {
            index.insert_ordered(VectorId(id), text, *order);
        }
        for id in (0..texts.len() as u64).filter(|id| !id.is_multiple_of(kept)) {
            index.remove(VectorId(id));
        }
        let passes = |id: VectorId| {
            assert!(index.contains(id), "{id:?} was removed");
            (id.0 / 3).is_multiple_of(one_of)
        };
        for query in ["a", "c b", "a b c c"] {
            let mut expect = index.search(query, usize::MAX, None);
            let order = |id: VectorId| (texts[id.0 as usize].1, id);
            let better = |a: &Neighbour, b: &Neighbour| (b.score, order(a.id)) <= (a.score, order(b.id));
            prop_assert!(expect.is_sorted_by(better));
            expect.retain(|near| passes(near.id));
            expect.truncate(k);
            prop_assert_eq!(index.search(query, k, Some(&passes)), expect);
        }
    }

    #[test]
    fn damaged_files_are_errors(at in 0_usize..2000, flip in 1_u8.., cut in any::<bool>(), fix in any::<bool>()) {
        let mut index = LexicalIndex::new(LexicalOptions::new());
        for id in 0..20 {
            index.insert(VectorId(id), &format!("text {id} of {} words", id % 3));
        }
        let mut file = index.save();
        let at = at % file.len();
        file[at] ^= flip;
        if cut {
            file.truncate(at);
        }
        if fix && at >= 16 + 72 + 4 && !cut {
            // The checks behind the checksums: every section and the header are signed again.
            for entry in [16, 40, 64] {
                let word = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().unwrap()) as usize;
                let (offset, len) = (word(entry + 8), word(entry + 16));
                let checksum = crc32c::crc32c(&file[offset..offset + len]).to_le_bytes();
                file[entry + 4..entry + 8].copy_from_slice(&checksum);
            }
            let checksum = crc32c::crc32c(&file[..88]).to_le_bytes();
            file[88..92].copy_from_slice(&checksum);
            if let Ok(index) = LexicalIndex::restore(&file, LexicalOptions::new()) {
                prop_assert!(index.save() == file);
            }
        } else {
            prop_assert!(LexicalIndex::restore(&file, LexicalOptions::new()).is_err());
        }
    }
}

#[test]
fn another_stemming_is_named() {
    let file = LexicalIndex::new(LexicalOptions::new()).save();
    let english = LexicalOptions::new().stemming(Stemming::English);
    let error = LexicalIndex::restore(&file, english).unwrap_err();
    assert_eq!(error, RestoreError::Options { setting: "stemming" });
}

#[test]
fn likeness_is_the_share_of_common_words() {
    let mut index = LexicalIndex::new(LexicalOptions::new());
    let texts = ["one two three four", "four three two one one", "three four five six", "...", "seven"];
    for (id, text) in texts.iter().enumerate() {
        index.insert(VectorId(id as u64), text);
    }
    let likeness = |a, b| index.likeness(VectorId(a), VectorId(b));
    assert_eq!(
        (likeness(0, 1), likeness(0, 2), likeness(2, 0)),
        (Some(1.0), Some(2.0 / 6.0), Some(2.0 / 6.0))
    );
    assert_eq!((likeness(0, 4), likeness(3, 3), likeness(0, 3)), (Some(0.0), Some(1.0), Some(0.0)));
    assert_eq!(likeness(0, 9), None);
}
