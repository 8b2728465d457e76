//! Columns of numbers and of bytes, each in the shortest of a few plain forms.
//!
//! A difference is written column by column: what a thousand entries have in common is then said once. Numbers are packed as bits above
//! their minimum, directly or as steps from one to the next; bytes of a small alphabet (digits, hexadecimal) are packed as its letters.

use alloc::vec::Vec;

use crate::codec::{DecodeError, Input, put_integer};

/// All are the same: the number.
const CONSTANT: u8 = 0;
/// The minimum, the width, then the bits above the minimum.
const PACKED: u8 = 1;
/// The first, then the steps (zigzag) as a packed column.
const STEPS: u8 = 2;

/// Appends a column of numbers. The reader must know how many they are.
pub(super) fn put_numbers(numbers: &[u64], out: &mut Vec<u8>) {
    let Some(first) = numbers.first() else { return };
    if numbers.iter().all(|number| number == first) {
        out.push(CONSTANT);
        put_integer(*first, out);
        return;
    }
    let steps: Vec<u64> = numbers
        .windows(2)
        .map(|pair| match pair {
            [a, b] => zigzag(b.wrapping_sub(*a)),
            _ => 0,
        })
        .collect();
    // A step takes at least one bit too, so that a column is never shorter than its count would have it.
    if packed_len(&steps) + 10 < packed_len(numbers) {
        out.push(STEPS);
        put_integer(*first, out);
        put_packed(&steps, out);
    } else {
        out.push(PACKED);
        put_packed(numbers, out);
    }
}

/// Reads `count` numbers of `what`.
pub(super) fn numbers(
    input: &mut Input<'_>,
    count: usize,
    what: &'static str,
) -> Result<Vec<u64>, DecodeError> {
    if count == 0 {
        return Ok(Vec::new());
    }
    match input.byte(what)? {
        CONSTANT => Ok(alloc::vec![input.integer(what)?; count]),
        PACKED => packed(input, count, what),
        STEPS => {
            let mut number = input.integer(what)?;
            let steps = packed(input, count - 1, what)?;
            let mut numbers = Vec::with_capacity(count);
            numbers.push(number);
            for step in steps {
                number = number.wrapping_add(unzigzag(step));
                numbers.push(number);
            }
            Ok(numbers)
        }
        tag => Err(DecodeError::Tag { what: "column", tag }),
    }
}

const fn zigzag(step: u64) -> u64 {
    (step << 1) ^ (step.cast_signed() >> 63).cast_unsigned()
}

const fn unzigzag(coded: u64) -> u64 {
    (coded >> 1) ^ (coded & 1).wrapping_neg()
}

fn width(numbers: &[u64]) -> (u64, u32) {
    let min = numbers.iter().copied().min().unwrap_or(0);
    let max = numbers.iter().copied().max().unwrap_or(0);
    (min, (64 - (max - min).leading_zeros()).max(1))
}

fn packed_len(numbers: &[u64]) -> usize {
    (numbers.len() * width(numbers).1 as usize).div_ceil(8)
}

fn put_packed(numbers: &[u64], out: &mut Vec<u8>) {
    let (min, width) = width(numbers);
    put_integer(min, out);
    out.push(u8::try_from(width).unwrap_or(64));
    let mut bits = BitWriter::new(out);
    for number in numbers {
        bits.put(number - min, width);
    }
    bits.finish();
}

fn packed(input: &mut Input<'_>, count: usize, what: &'static str) -> Result<Vec<u64>, DecodeError> {
    let min = input.integer(what)?;
    let width = u32::from(input.byte(what)?);
    if !(1..=64).contains(&width) {
        return Err(DecodeError::Range { what });
    }
    let len = count.checked_mul(width as usize).ok_or(DecodeError::Range { what })?.div_ceil(8);
    let mut bits = BitReader::new(input.take(len, what)?);
    (0..count).map(|_| min.checked_add(bits.take(width)).ok_or(DecodeError::Range { what })).collect()
}

/// Appends bytes, of which the reader must know how many they are.
pub(super) fn put_text(text: &[u8], out: &mut Vec<u8>) {
    if text.is_empty() {
        return;
    }
    let mut present = [false; 256];
    for byte in text {
        present[usize::from(*byte)] = true;
    }
    let alphabet: Vec<u8> = (0..=255).filter(|byte| present[usize::from(*byte)]).collect();
    let width = letter_width(alphabet.len());
    let packed = 1 + alphabet.len() + (text.len() * width as usize).div_ceil(8);
    if width > 6 || packed > text.len() {
        out.push(0);
        out.extend_from_slice(text);
        return;
    }
    out.push(u8::try_from(alphabet.len()).unwrap_or(0));
    out.extend_from_slice(&alphabet);
    let mut place = [0_u8; 256];
    for (index, letter) in (0_u8..).zip(&alphabet) {
        place[usize::from(*letter)] = index;
    }
    let mut bits = BitWriter::new(out);
    for byte in text {
        bits.put(u64::from(place[usize::from(*byte)]), width);
    }
    bits.finish();
}

/// Reads `len` bytes of `what`.
pub(super) fn text(input: &mut Input<'_>, len: usize, what: &'static str) -> Result<Vec<u8>, DecodeError> {
    if len == 0 {
        return Ok(Vec::new());
    }
    let letters = usize::from(input.byte(what)?);
    if letters == 0 {
        return Ok(input.take(len, what)?.into());
    }
    let alphabet = input.take(letters, what)?;
    let width = letter_width(letters);
    let packed = len.checked_mul(width as usize).ok_or(DecodeError::Range { what })?.div_ceil(8);
    let mut bits = BitReader::new(input.take(packed, what)?);
    (0..len)
        .map(|_| {
            let letter = usize::try_from(bits.take(width)).ok().and_then(|place| alphabet.get(place));
            letter.copied().ok_or(DecodeError::Range { what })
        })
        .collect()
}

fn letter_width(letters: usize) -> u32 {
    (usize::BITS - letters.saturating_sub(1).leading_zeros()).max(1)
}

struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    pending: u128,
    len: u32,
}

impl<'a> BitWriter<'a> {
    const fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, pending: 0, len: 0 }
    }

    fn put(&mut self, bits: u64, width: u32) {
        self.pending |= u128::from(bits) << self.len;
        self.len += width;
        while self.len >= 8 {
            self.out.push((self.pending & 0xff) as u8);
            self.pending >>= 8;
            self.len -= 8;
        }
    }

    fn finish(self) {
        if self.len > 0 {
            self.out.push((self.pending & 0xff) as u8);
        }
    }
}

struct BitReader<'a> {
    bytes: core::slice::Iter<'a, u8>,
    pending: u128,
    len: u32,
}

impl<'a> BitReader<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes: bytes.iter(), pending: 0, len: 0 }
    }

    /// The next bits; zeros after the end, which the caller has excluded by the length.
    fn take(&mut self, width: u32) -> u64 {
        while self.len < width {
            self.pending |= u128::from(self.bytes.next().copied().unwrap_or(0)) << self.len;
            self.len += 8;
        }
        let mask = u64::MAX >> (64 - width.clamp(1, 64));
        let bits = u64::try_from(self.pending & u128::from(mask)).unwrap_or(0);
        self.pending >>= width;
        self.len -= width;
        bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_numbers(column: &[u64], len_max: usize) {
        let mut out = Vec::new();
        put_numbers(column, &mut out);
        assert!(out.len() <= len_max, "{column:?} took {} bytes", out.len());
        let mut input = Input::new(&out);
        assert_eq!(numbers(&mut input, column.len(), "a test").unwrap(), column);
        assert!(input.is_empty());
    }

    #[test]
    fn numbers_read_back_from_the_form_that_is_shortest() {
        check_numbers(&[], 0);
        check_numbers(&[7; 1000], 2);
        check_numbers(&[5, 5, 6], 4);
        check_numbers(&[0, u64::MAX], 20);
        check_numbers(&[u64::MAX, 0, u64::MAX, 1], 42);
        check_numbers(&(0..1000).map(|n| n + 1_000_000).collect::<Vec<_>>(), 140);
        check_numbers(&(0..1000).map(|n| (n * 7919) % 1024).collect::<Vec<_>>(), 1260);
    }

    fn check_text(bytes: &[u8], len_max: usize) {
        let mut out = Vec::new();
        put_text(bytes, &mut out);
        assert!(out.len() <= len_max, "took {} bytes", out.len());
        let mut input = Input::new(&out);
        assert_eq!(text(&mut input, bytes.len(), "a test").unwrap(), bytes);
        assert!(input.is_empty());
    }

    #[test]
    fn text_reads_back_and_digits_take_four_bits() {
        check_text(b"", 0);
        check_text(b"aaaaaaaaaaaaaaaa", 4);
        check_text(&b"0123456789".repeat(100), 511);
        check_text(&(0..=255).collect::<Vec<u8>>(), 257);
    }
}
