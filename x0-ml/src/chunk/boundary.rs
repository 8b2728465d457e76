//! How good a place between two tokens is to cut a text.

use std::ops::Range;

/// A place to cut, the better the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Boundary {
    /// Inside a word: the parts tokenize differently when they are read alone.
    Inside,
    Word,
    Sentence,
    Paragraph,
}

/// The boundary between the token `before` and the one that starts at `next`.
pub(super) fn boundary(text: &str, before: &Range<usize>, next: usize) -> Boundary {
    let gap = text.get(before.end..next).unwrap_or("");
    if gap.matches('\n').count() >= 2 {
        return Boundary::Paragraph;
    }
    let last = text.get(..before.end).and_then(|text| text.chars().next_back());
    if gap.is_empty() {
        // Punctuation is a token of its own in word tokenizers, so a cut next to it divides no word.
        let first = text.get(next..).and_then(|text| text.chars().next());
        let punctuation = |c: Option<char>| c.is_some_and(|c| !c.is_alphanumeric());
        return if punctuation(last) || punctuation(first) { Boundary::Word } else { Boundary::Inside };
    }
    match last {
        Some('.' | '!' | '?' | '…' | '。' | '\u{FF01}' | '\u{FF1F}') => Boundary::Sentence,
        _ => Boundary::Word,
    }
}
