//! 8-bit codes of vectors.

use crate::simd::{CODES_MULTIPLE, Path};

/// Codes of a vector, the number that one unit of them stands for, and the square of their length.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Codes {
    pub(super) codes: Vec<i8>,
    pub(super) scale: f32,
    pub(super) square: f32,
}

/// Bytes of the codes of a vector: one a component, and zeros up to a whole step of the vector instructions.
pub(super) fn codes_len(dimensions: usize) -> usize {
    dimensions.next_multiple_of(CODES_MULTIPLE)
}

impl Codes {
    /// Each component divided by the scale and rounded. The scale puts the largest component on 127.
    pub(super) fn of(path: Path, vector: &[f32]) -> Self {
        let largest = vector.iter().fold(0.0_f32, |largest, component| largest.max(component.abs()));
        let inverse = 127.0 / largest;
        let mut codes = vec![0_i8; codes_len(vector.len())];
        for (code, component) in codes.iter_mut().zip(vector) {
            *code = code_of(component * inverse);
        }
        let scale = largest / 127.0;
        let square = square(path, &codes, scale);
        Self { codes, scale, square }
    }
}

/// The nearest code. A product that is not a number (zero divided by zero) is 0.
#[allow(clippy::cast_possible_truncation, reason = "clamped to the range of i8 before")]
fn code_of(value: f32) -> i8 {
    value.round().clamp(-127.0, 127.0) as i8
}

/// The square of the length of the vector that codes stand for.
pub(super) fn square(path: Path, codes: &[i8], scale: f32) -> f32 {
    let mut sum = [0];
    path.dot_i8(codes, &[codes], &mut sum);
    sum[0] as f32 * scale * scale
}
