//! Texts: chunks without gap, words without panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use x0_ml::chunk::{ChunkOptions, Chunker, WordTokens};
use x0_ml::lexical::{stem_english, words};

fuzz_target!(|text: &str| {
    let chunker = Chunker::new(ChunkOptions::new().tokens_max(9), WordTokens).unwrap();
    let mut end = 0;
    for chunk in chunker.chunks(text).unwrap() {
        assert!(chunk.span.start <= end && chunk.span.end > end);
        end = chunk.span.end;
    }
    assert_eq!(end, text.len());
    words(text, &mut |word| stem_english(&mut word.to_owned()));
});
