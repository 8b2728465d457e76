//! Invariants of chunks, for any text and tokenizers that keep or break the contract of the seam.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "helpers of tests"
)]

use std::ops::Range;

use proptest::prelude::*;
use x0_ml::chunk::{
    ChunkError, ChunkId, ChunkOptions, Chunker, TokenError, TokenSpans, TokenizerId, WordTokens,
};

/// Tokens of two bytes: they cut words and characters, and a part has other tokens than the whole.
#[derive(Debug)]
struct PairTokens;

impl TokenSpans for PairTokens {
    fn id(&self) -> TokenizerId {
        TokenizerId::of(&[b"pairs"])
    }

    fn spans(&self, text: &str, spans: &mut Vec<Range<usize>>) -> Result<(), TokenError> {
        spans.extend((0..text.len()).step_by(2).map(|at| at..(at + 2).min(text.len())));
        Ok(())
    }
}

fn check<T: TokenSpans>(text: &str, options: ChunkOptions, tokens: T) {
    let size = options.tokens_max - options.special_tokens;
    let chunker = Chunker::new(options, tokens).unwrap();
    let chunks = chunker.chunks(text).unwrap();
    assert_eq!(chunks.is_empty(), text.is_empty());
    let (mut start, mut end) = (None, 0);
    for chunk in &chunks {
        let part = &text[chunk.span.clone()];
        assert!(start < Some(chunk.span.start), "starts ascend");
        assert!(chunk.span.start <= end, "no gap before {}", chunk.span.start);
        assert!(chunk.span.end > end || text.is_empty(), "each chunk has bytes that no earlier one has");
        (start, end) = (Some(chunk.span.start), chunk.span.end);
        assert_eq!(chunk.id, ChunkId::of(chunker.tokens().id(), part));
        let mut spans = Vec::new();
        chunker.tokens().spans(part, &mut spans).unwrap();
        assert!(chunk.tokens <= size.max(2), "{} tokens of {size}", chunk.tokens);
    }
    assert_eq!(end, text.len(), "the text is covered");
    assert_eq!(chunks, chunker.chunks(text).unwrap());
}

/// The smallest case in which a chunk that gave up its overlap was followed by one with the same start.
#[test]
fn a_chunk_without_overlap_is_followed_by_a_later_one() {
    check("aééaa", ChunkOptions::new().tokens_max(2).special_tokens(0).overlap_percent(50), PairTokens);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_covered(
        text in "([a-z]{1,9}[ .!?\n]{0,3}|é|漢字|\u{1F600}|\n\n|.){0,200}",
        size in 1_usize..40,
        overlap in 0_usize..=50,
    ) {
        let options = ChunkOptions::new().tokens_max(size + 2).overlap_percent(overlap);
        check(&text, options, WordTokens);
        check(&text, options, PairTokens);
    }
}

#[test]
fn a_chunk_ends_with_a_paragraph_or_a_sentence_of_its_last_fifth() {
    let words = |from: usize, to: usize| (from..to).map(|n| format!("w{n}")).collect::<Vec<_>>().join(" ");
    let options = ChunkOptions::new().tokens_max(102);
    let chunker = Chunker::new(options, WordTokens).unwrap();
    // 90 words, a full stop, then more; a paragraph ends in the last fifth too, before the sentence does.
    let text = format!("{}\n\n{}. {}", words(0, 85), words(85, 92), words(92, 300));
    let chunks = chunker.chunks(&text).unwrap();
    assert!(text[chunks[0].span.clone()].ends_with("w84\n\n"));
    let text = format!("{}. {}", words(0, 85), words(85, 300));
    let chunks = chunker.chunks(&text).unwrap();
    assert!(text[chunks[0].span.clone()].ends_with("w84. "));
    // The next one begins 20 of 100 tokens earlier.
    assert!(text[chunks[1].span.clone()].starts_with("w66 "));
    // Outside of the last fifth, a sentence does not shorten the chunk.
    let text = format!("{}. {}", words(0, 40), words(40, 300));
    assert_eq!(chunker.chunks(&text).unwrap()[0].tokens, 100);
}

#[test]
fn the_default_is_510_tokens_of_text_and_a_fifth_of_overlap() {
    let text = "word ".repeat(2000);
    let chunks = Chunker::new(ChunkOptions::new(), WordTokens).unwrap().chunks(&text).unwrap();
    assert_eq!(chunks[0].tokens, 510);
    assert_eq!(chunks[1].span.start, (510 - 102) * 5);
    assert_eq!(chunks.len(), 5);
}

#[test]
fn unchanged_text_keeps_its_name_when_the_document_changes_elsewhere() {
    let page = |n: usize| format!("Page {n} of the handbook says something else.\n\n").repeat(12);
    let text: String = (0..40).map(page).collect();
    let changed = text.replace("Page 20 ", "Pages twenty ");
    let chunker = Chunker::new(ChunkOptions::new().tokens_max(98), WordTokens).unwrap();
    let (before, after) = (chunker.chunks(&text).unwrap(), chunker.chunks(&changed).unwrap());
    let known: Vec<ChunkId> = before.iter().map(|chunk| chunk.id).collect();
    let new = after.iter().filter(|chunk| !known.contains(&chunk.id)).count();
    assert!(new > 0 && new < before.len() / 3, "{new} of {} are new", after.len());
    let other = ChunkId::of(PairTokens.id(), "same");
    assert_ne!(other, ChunkId::of(WordTokens.id(), "same"), "a tokenizer is a part of the name");
    assert_eq!(ChunkId::from_bytes(*other.as_bytes()), other);
    assert_eq!(other.to_string().len(), 64);
    // A recorded name: a change of the rules must change CHUNKER_VERSION, and with it this line.
    assert_eq!(
        ChunkId::of(WordTokens.id(), "same").to_string(),
        "cf848b39d699ff55d754068fbd755adc9a4ad1474447e22e9bc0ffd0ec34bf85"
    );
}

#[test]
fn bad_options_texts_and_tokenizers_are_errors() {
    let none = Chunker::new(ChunkOptions::new().tokens_max(2), WordTokens);
    assert!(matches!(none, Err(ChunkError::Options { .. })));
    let half = Chunker::new(ChunkOptions::new().overlap_percent(51), WordTokens);
    assert!(half.unwrap_err().to_string().contains("overlap_percent"));
    let short = Chunker::new(ChunkOptions::new().text_len_max(3), WordTokens).unwrap();
    assert!(matches!(short.chunks("four"), Err(ChunkError::TextTooLong { len: 4, len_max: 3 })));

    /// A tokenizer that returns fixed ranges, or fails.
    struct Fixed(Vec<Range<usize>>);
    impl TokenSpans for Fixed {
        fn id(&self) -> TokenizerId {
            TokenizerId::of(&[])
        }
        fn spans(&self, _: &str, spans: &mut Vec<Range<usize>>) -> Result<(), TokenError> {
            if self.0.is_empty() {
                return Err(TokenError::new("no such character"));
            }
            spans.extend(self.0.iter().cloned());
            Ok(())
        }
    }
    #[allow(
        clippy::reversed_empty_ranges,
        clippy::single_range_in_vec_init,
        reason = "ranges as a tokenizer returns them"
    )]
    for bad in [vec![0..9], vec![2..3, 0..1], vec![2..1]] {
        let chunks = Chunker::new(ChunkOptions::new(), Fixed(bad.clone())).unwrap().chunks("text");
        assert!(matches!(chunks, Err(ChunkError::BadSpan { .. })), "{bad:?}");
    }
    let failed = Chunker::new(ChunkOptions::new(), Fixed(Vec::new())).unwrap().chunks("text");
    let error = failed.unwrap_err();
    let cause = std::error::Error::source(&error).and_then(std::error::Error::source);
    assert_eq!(cause.unwrap().to_string(), "no such character");
}
