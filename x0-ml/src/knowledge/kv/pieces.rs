//! Texts cut into pieces that content names.

use crate::hash::digest_of;

/// Shortest piece but for the last one of a text, in bytes.
const LEN_MIN: usize = 4 << 10;
/// Longest piece: fits a value of either store.
const LEN_MAX: usize = 48 << 10;
/// One of this many bytes ends a piece that is long enough; a power of two.
const ENDS_ONE_OF: u64 = 8 << 10;

/// The name of a piece.
pub(super) fn name(piece: &[u8]) -> [u8; 32] {
    digest_of("x0-ml piece", &[piece]).0
}

/// Cuts a text where the last 64 bytes before decide, so that an insertion moves no cut but those near it.
pub(super) fn cut(text: &[u8]) -> Vec<&[u8]> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    while rest.len() > LEN_MIN {
        let mut hash = 0_u64;
        let end = rest.iter().take(LEN_MAX).enumerate().position(|(at, byte)| {
            // Each byte is shifted out after 64 steps. The upper bits depend on all of these bytes.
            hash = (hash << 1).wrapping_add(gear(*byte));
            at + 1 >= LEN_MIN && hash >> (64 - ENDS_ONE_OF.trailing_zeros()) == 0
        });
        let end = end.map_or(rest.len().min(LEN_MAX), |at| at + 1);
        let (piece, after) = rest.split_at(end);
        pieces.push(piece);
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(rest);
    }
    pieces
}

/// A fixed random number for each byte: splitmix64. Changing it changes all cuts.
fn gear(byte: u8) -> u64 {
    let mut x = (u64::from(byte) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test")]

    use std::collections::HashSet;

    use super::{LEN_MAX, LEN_MIN, cut, name};

    fn text(len: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let step = |state: &mut u64| {
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            b'a' + ((*state >> 33) % 26) as u8
        };
        (0..len).map(|_| step(&mut state)).collect()
    }

    #[test]
    fn pieces_are_the_text_and_keep_their_bounds() {
        for len in [0, 1, LEN_MIN, LEN_MIN + 1, LEN_MAX, 1 << 20] {
            for text in [text(len), vec![b'x'; len]] {
                let pieces = cut(&text);
                assert_eq!(pieces.concat(), text);
                let last = pieces.len().saturating_sub(1);
                assert!(pieces.iter().all(|piece| (1..=LEN_MAX).contains(&piece.len())));
                assert!(pieces[..last].iter().all(|piece| piece.len() >= LEN_MIN));
            }
        }
    }

    #[test]
    fn an_insertion_changes_the_pieces_near_it() {
        let mut text = text(1 << 20);
        let names = |text: &[u8]| cut(text).into_iter().map(name).collect::<HashSet<_>>();
        let before = names(&text);
        assert!(before.len() > 40, "{}", before.len());
        let middle = text.len() / 2;
        text.splice(middle..middle, *b"a sentence that was not there");
        assert!(names(&text).difference(&before).count() <= 2);
    }
}
