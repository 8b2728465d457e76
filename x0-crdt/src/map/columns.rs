//! Columns of numbers and of bytes, each in the shortest of a few plain forms.
//!
//! A delta is written column by column, so that what a thousand entries have in common is written once.
//! Numbers are written as bits above their minimum, directly or as steps from one to the next, all as wide as
//! the widest or each as wide as it needs (exponential Golomb codes); bytes of a small alphabet (digits,
//! hexadecimal) are packed as its letters.

use alloc::vec::Vec;

use crate::codec::{ByteReader, DecodeError, put_integer};

/// All are the same: the number.
const CONSTANT: u8 = 0;
/// The numbers, above the least of them.
const DIRECT: u8 = 1;
/// The first, the least step (zigzag), then the steps above that.
const STEPS: u8 = 2;
/// The first, and the step (zigzag) from each to the next.
const LINE: u8 = 3;

/// The width that says: each number as wide as it needs. The order of the code and its length in bytes
/// follow.
const GOLOMB: u8 = 0;
/// The highest order of the code: a number has 64 bits.
const ORDER_MAX: u32 = 63;

/// Appends a column of numbers. The reader must know how many they are.
pub(crate) fn put_numbers(numbers: &[u64], out: &mut Vec<u8>) {
    let Some(first) = numbers.first() else { return };
    if numbers.iter().all(|number| number == first) {
        out.push(CONSTANT);
        put_integer(*first, out);
        return;
    }
    let least = numbers.iter().copied().min().unwrap_or(0);
    let direct: Vec<u64> = numbers.iter().map(|number| number - least).collect();
    let steps = numbers.windows(2).map(|pair| match pair {
        [a, b] => b.wrapping_sub(*a).cast_signed(),
        _ => 0,
    });
    let least_step = steps.clone().min().unwrap_or(0);
    if steps.clone().all(|step| step == least_step) {
        out.push(LINE);
        put_integer(*first, out);
        put_integer(zigzag(least_step), out);
        return;
    }
    // The widest difference of two steps fits 64 bits, whatever its sign.
    let steps: Vec<u64> = steps.map(|step| step.wrapping_sub(least_step).cast_unsigned()).collect();
    let (form_direct, form_steps) = (Form::of(&direct), Form::of(&steps));
    // The first and the least step take some bytes of their own.
    if form_steps.len + 10 < form_direct.len {
        out.push(STEPS);
        put_integer(*first, out);
        put_integer(zigzag(least_step), out);
        form_steps.put(&steps, out);
    } else {
        out.push(DIRECT);
        put_integer(least, out);
        form_direct.put(&direct, out);
    }
}

/// Reads `count` numbers of `what`.
pub(crate) fn numbers(
    input: &mut ByteReader<'_>,
    count: usize,
    what: &'static str,
) -> Result<Vec<u64>, DecodeError> {
    if count == 0 {
        return Ok(Vec::new());
    }
    match input.byte(what)? {
        CONSTANT => Ok(alloc::vec![input.integer(what)?; count]),
        DIRECT => {
            let least = input.integer(what)?;
            let mut numbers = formed(input, count, what)?;
            for number in &mut numbers {
                *number = number.checked_add(least).ok_or(DecodeError::Range { what })?;
            }
            Ok(numbers)
        }
        STEPS => {
            let mut number = input.integer(what)?;
            let least = unzigzag(input.integer(what)?);
            let mut numbers = formed(input, count - 1, what)?;
            for place in &mut numbers {
                let next = number.wrapping_add(place.wrapping_add(least));
                *place = core::mem::replace(&mut number, next);
            }
            numbers.push(number);
            Ok(numbers)
        }
        LINE => {
            let first = input.integer(what)?;
            let step = unzigzag(input.integer(what)?);
            Ok((0..count as u64).map(|place| first.wrapping_add(step.wrapping_mul(place))).collect())
        }
        tag => Err(DecodeError::Tag { what: "column", tag }),
    }
}

const fn zigzag(step: i64) -> u64 {
    ((step << 1) ^ (step >> 63)).cast_unsigned()
}

const fn unzigzag(coded: u64) -> u64 {
    (coded >> 1) ^ (coded & 1).wrapping_neg()
}

/// How many bits a number has, at least 1.
const fn bits_of(number: u64) -> u32 {
    if number == 0 { 1 } else { u64::BITS - number.leading_zeros() }
}

/// How numbers that begin at 0 are written, and how many bytes that takes.
struct Form {
    /// The bits of all numbers; `None` for codes.
    width: Option<u32>,
    /// The bits of the codes.
    order: u32,
    len: usize,
}

impl Form {
    fn of(numbers: &[u64]) -> Self {
        let mut by_bits = [0_usize; 65];
        for number in numbers {
            by_bits[bits_of(*number) as usize] += 1;
        }
        let width = (1..=64).rev().find(|bits| by_bits[*bits as usize] > 0).unwrap_or(1);
        let packed = 1 + (numbers.len() * width as usize).div_ceil(8);
        // A good order is about the bits that most numbers have; two around the median are tried as well.
        let mut half = numbers.len() / 2;
        let median = (1..=64_u32)
            .find(|bits| {
                let here = by_bits[*bits as usize];
                let found = half < here;
                half = half.saturating_sub(here);
                found
            })
            .unwrap_or(1);
        let orders = median.saturating_sub(2)..=median.min(ORDER_MAX);
        let codes = orders.map(|order| {
            let bits: usize = numbers.iter().map(|number| code_len(*number, order) as usize).sum();
            (2 + 4 + bits.div_ceil(8), order)
        });
        match codes.min() {
            Some((len, order)) if len < packed => Self { width: None, order, len },
            _ => Self { width: Some(width), order: 0, len: packed },
        }
    }

    fn put(&self, numbers: &[u64], out: &mut Vec<u8>) {
        if let Some(width) = self.width {
            out.push(u8::try_from(width).unwrap_or(64));
            let mut bits = BitWriter::new(out);
            for number in numbers {
                bits.put(*number, width);
            }
            bits.finish();
            return;
        }
        out.extend_from_slice(&[GOLOMB, u8::try_from(self.order).unwrap_or(0)]);
        let mut codes = Vec::with_capacity(self.len);
        let mut bits = BitWriter::new(&mut codes);
        for number in numbers {
            let (above, below) = (number >> self.order, number & low(self.order));
            // As many zeros as the upper part has bits beyond its leading one, the one, those bits; then the
            // lower part.
            let upper = u128::from(above) + 1;
            let len = 127 - upper.leading_zeros();
            bits.put(0, len);
            bits.put(1, 1);
            bits.put(u64::try_from(upper & u128::from(low(len))).unwrap_or(0), len);
            bits.put(below, self.order);
        }
        bits.finish();
        put_integer(codes.len() as u64, out);
        out.extend_from_slice(&codes);
    }
}

/// The bits of a number in the code of this order.
const fn code_len(number: u64, order: u32) -> u32 {
    let upper = (number >> order) as u128 + 1;
    2 * (127 - upper.leading_zeros()) + 1 + order
}

/// As many ones as bits.
const fn low(bits: u32) -> u64 {
    if bits == 0 { 0 } else { u64::MAX >> (64 - bits) }
}

/// Reads what [`Form::put`] wrote.
fn formed(input: &mut ByteReader<'_>, count: usize, what: &'static str) -> Result<Vec<u64>, DecodeError> {
    let width = input.byte(what)?;
    if width > 64 {
        return Err(DecodeError::Range { what });
    }
    if width != GOLOMB {
        let width = u32::from(width);
        let len = count.checked_mul(width as usize).ok_or(DecodeError::Range { what })?.div_ceil(8);
        let mut bits = BitReader::new(input.take(len, what)?);
        return Ok((0..count).map(|_| bits.take(width)).collect());
    }
    let order = u32::from(input.byte(what)?);
    if order > ORDER_MAX {
        return Err(DecodeError::Range { what });
    }
    let len = input.integer(what)?;
    let len = usize::try_from(len).map_err(|_| DecodeError::Range { what })?;
    let codes = input.take(len, what)?;
    // Each code has at least one bit.
    if codes.len().saturating_mul(8) < count {
        return Err(DecodeError::Truncated { what });
    }
    let mut bits = BitReader::new(codes);
    let numbers = (0..count)
        .map(|_| {
            let len = (0..=64).find(|_| bits.take(1) == 1).ok_or(DecodeError::Range { what })?;
            let upper = (u128::from(bits.take(len)) | 1 << len) - 1;
            let above = u64::try_from(upper).map_err(|_| DecodeError::Range { what })?;
            if bits_of(above) + order > 64 && above > 0 {
                return Err(DecodeError::Range { what });
            }
            Ok(above << order | bits.take(order))
        })
        .collect::<Result<_, _>>()?;
    if !bits.is_at_end() {
        return Err(DecodeError::Range { what });
    }
    Ok(numbers)
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
pub(super) fn text(
    input: &mut ByteReader<'_>,
    len: usize,
    what: &'static str,
) -> Result<Vec<u8>, DecodeError> {
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

    /// Appends the lowest bits, none for a width of 0.
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
    /// Bytes that were asked for after the end.
    missing: u32,
}

impl<'a> BitReader<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes: bytes.iter(), pending: 0, len: 0, missing: 0 }
    }

    /// Whether all was read, and no more, and what fills the last byte is zero.
    fn is_at_end(&self) -> bool {
        self.missing == 0 && self.bytes.as_slice().is_empty() && self.len < 8 && self.pending == 0
    }

    /// The next bits; zeros after the end.
    fn take(&mut self, width: u32) -> u64 {
        while self.len < width {
            let byte = self.bytes.next().copied();
            self.missing = self.missing.saturating_add(u32::from(byte.is_none()));
            self.pending |= u128::from(byte.unwrap_or(0)) << self.len;
            self.len += 8;
        }
        let bits = u64::try_from(self.pending & u128::from(low(width))).unwrap_or(0);
        self.pending >>= width;
        self.len -= width;
        bits
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn check_numbers(column: &[u64], len_max: usize) {
        let mut out = Vec::new();
        put_numbers(column, &mut out);
        assert!(out.len() <= len_max, "{} numbers took {} bytes", column.len(), out.len());
        let mut input = ByteReader::new(&out);
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
        check_numbers(&(0..1000).map(|n| n + 1_000_000).collect::<Vec<_>>(), 5);
        check_numbers(&(0..1000).map(|n| 5_000_000 - n * 3).collect::<Vec<_>>(), 6);
        check_numbers(&[u64::MAX, 0, 1], 20);
        check_numbers(&(0..1000).map(|n| (n * 7919) % 1024).collect::<Vec<_>>(), 1260);
        // Rising by small steps, once by a large one.
        check_numbers(&(0..1000).map(|n| n + (n / 500) * 1_000_000).collect::<Vec<_>>(), 150);
        // Steps of both signs; the extremes in every form.
        check_numbers(&(0..1000).map(|n| 1_000_000 - n * 3 + n % 2).collect::<Vec<_>>(), 260);
        check_numbers(&[vec![0; 500], vec![u64::MAX], vec![0; 500]].concat(), 160);
        check_numbers(&[vec![u64::MAX; 500], vec![0], vec![u64::MAX; 500]].concat(), 8100);
    }

    #[test]
    fn any_numbers_read_back() {
        let mut state = 1_u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for _ in 0..3_000 {
            let len = 1 + usize::try_from(random() % 40).unwrap();
            let (shift, rare) = (random() % 64, random() % 64);
            let column: Vec<u64> =
                (0..len).map(|_| random() >> if random() % 16 == 0 { rare } else { shift }).collect();
            check_numbers(&column, usize::MAX);
            check_numbers(
                &column
                    .iter()
                    .scan(0_u64, |at, step| {
                        *at = at.wrapping_add(*step);
                        Some(*at)
                    })
                    .collect::<Vec<_>>(),
                usize::MAX,
            );
        }
    }

    #[test]
    fn damaged_codes_are_refused_or_other_numbers() {
        let mut out = Vec::new();
        put_numbers(&(0..100).map(|n| n * n * n % 7 * (n % 13)).collect::<Vec<_>>(), &mut out);
        assert_eq!((out[0], out[2]), (DIRECT, GOLOMB));
        for len in 0..out.len() {
            assert!(numbers(&mut ByteReader::new(&out[..len]), 100, "a test").is_err());
        }
        for bit in 0..out.len() * 8 {
            let mut damaged = out.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let _ = numbers(&mut ByteReader::new(&damaged), 100, "a test");
        }
        // One code too few and one too many.
        assert!(numbers(&mut ByteReader::new(&out), 99, "a test").is_err());
        assert!(numbers(&mut ByteReader::new(&out), 101, "a test").is_err());
    }

    fn check_text(bytes: &[u8], len_max: usize) {
        let mut out = Vec::new();
        put_text(bytes, &mut out);
        assert!(out.len() <= len_max, "took {} bytes", out.len());
        let mut input = ByteReader::new(&out);
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
