//! Values that prove that they are whole.

use bytes::Bytes;

use crate::random::Random;

/// The longest filler, in bytes.
const FILLER_LEN_MAX: u64 = 600;

/// The value with this number: the number, then bytes that follow from it, of a length that follows from it.
pub(crate) fn value_of(number: u64) -> Bytes {
    let mut random = Random::new(number);
    let len = random.below(FILLER_LEN_MAX) / 8;
    let mut value = number.to_be_bytes().to_vec();
    for _ in 0..len {
        value.extend(random.next().to_be_bytes());
    }
    value.into()
}

/// The number of a value; `None` if any byte of it is not as it was written.
pub(crate) fn number_of(value: &[u8]) -> Option<u64> {
    let number = u64::from_be_bytes(*value.first_chunk()?);
    (value_of(number) == value).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_noticed() {
        for number in [0, 1, 77, u64::MAX] {
            let value = value_of(number);
            assert_eq!(number_of(&value), Some(number));
            for bit in 0..value.len() * 8 {
                let mut flipped = value.to_vec();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(number_of(&flipped), None, "bit {bit} of the value {number}");
            }
        }
        assert_eq!(number_of(b"short"), None);
    }
}
