//! The Huffman code of header strings (RFC 7541 §5.2 and Appendix B).

use std::vec::Vec;

/// The length of the code of each byte, in bits. The code is canonical: codes of one length are consecutive
/// in the order of their bytes, so the lengths define it.
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28,
    28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6,
    6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7,
    8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7,
    15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24,
    23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23,
    23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26,
    26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20,
    21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27,
    27, 27, 26,
];

const LENGTH_MAX: usize = 30;

/// For each length: the first code, the number of codes, and where its bytes begin in `BYTES`. The end of the
/// string has the last code of 30 bits, which no byte has.
const RANGES: [(u32, u32, usize); LENGTH_MAX + 1] = {
    let mut ranges = [(0, 0, 0); LENGTH_MAX + 1];
    let (mut length, mut code, mut start) = (1, 0, 0);
    while length <= LENGTH_MAX {
        code <<= 1;
        let (mut byte, mut count) = (0, 0);
        while byte < 256 {
            if LENGTHS[byte] as usize == length {
                count += 1;
            }
            byte += 1;
        }
        ranges[length] = (code, count, start);
        code += count;
        start += count as usize;
        length += 1;
    }
    ranges
};

/// The bytes in the order of their codes.
const BYTES: [u8; 256] = {
    let mut bytes = [0; 256];
    let (mut length, mut place) = (1, 0);
    while length <= LENGTH_MAX {
        let mut byte: u8 = 0;
        loop {
            if LENGTHS[byte as usize] as usize == length {
                bytes[place] = byte;
                place += 1;
            }
            if byte == u8::MAX {
                break;
            }
            byte += 1;
        }
        length += 1;
    }
    bytes
};

/// The decoded string, at most 8/5 as long. None, when the bytes hold the end of the string, or a padding
/// that is longer than 7 bits or not of ones.
pub(super) fn decode(encoded: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(encoded.len() * 8 / 5);
    let (mut code, mut length) = (0_u32, 0_usize);
    for byte in encoded {
        for shift in (0..8).rev() {
            code = code << 1 | u32::from(byte >> shift & 1);
            length += 1;
            let (first, count, start) = RANGES[length];
            // Codes of this length that are below `first` are prefixes of nothing: the code is canonical.
            if let Some(offset) = code.checked_sub(first).filter(|offset| *offset < count) {
                decoded.push(BYTES[start + usize::try_from(offset).ok()?]);
                (code, length) = (0, 0);
            } else if length == LENGTH_MAX {
                return None;
            }
        }
    }
    let padding_of_ones = length <= 7 && code == (1 << length) - 1;
    padding_of_ones.then_some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The code of a byte, as an encoder would write it.
    fn code_of(byte: u8) -> (u32, usize) {
        let length = usize::from(LENGTHS[usize::from(byte)]);
        let (first, count, start) = RANGES[length];
        let place = BYTES[start..start + count as usize].iter().position(|each| *each == byte).unwrap();
        (first + u32::try_from(place).unwrap(), length)
    }

    fn encode(bytes: &[u8]) -> Vec<u8> {
        let mut bits = Vec::new();
        for byte in bytes {
            let (code, length) = code_of(*byte);
            bits.extend((0..length).rev().map(|shift| code >> shift & 1 == 1));
        }
        while bits.len() % 8 != 0 {
            bits.push(true);
        }
        bits.chunks(8).map(|byte| byte.iter().fold(0, |all, bit| all << 1 | u8::from(*bit))).collect()
    }

    #[test]
    fn codes_are_those_of_appendix_b() {
        // From the table of RFC 7541, one of each length.
        for (byte, code, length) in [
            (b'0', 0x0, 5),
            (b't', 0x9, 5),
            (b' ', 0x14, 6),
            (b':', 0x5c, 7),
            (b'&', 0xf8, 8),
            (b'!', 0x3f8, 10),
            (b'|', 0x7fc, 11),
            (b'#', 0xffa, 12),
            (0, 0x1ff8, 13),
            (b'^', 0x3ffc, 14),
            (b'<', 0x7ffc, 15),
            (b'\\', 0x7fff0, 19),
            (128, 0xfffe6, 20),
            (153, 0x1fffdc, 21),
            (129, 0x3fffd2, 22),
            (1, 0x7fffd8, 23),
            (9, 0xffffea, 24),
            (199, 0x1ffffec, 25),
            (192, 0x3ffffe0, 26),
            (203, 0x7ffffde, 27),
            (2, 0xfffffe2, 28),
            (10, 0x3ffffffc, 30),
            (13, 0x3ffffffd, 30),
            (22, 0x3ffffffe, 30),
        ] {
            assert_eq!(code_of(byte), (code, length), "byte {byte}");
        }
    }

    #[test]
    fn every_byte_is_decoded_from_its_code() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode(&all)).unwrap(), all);
        for byte in all {
            assert_eq!(decode(&encode(&[byte, b'a'])).unwrap(), [byte, b'a']);
        }
    }

    #[test]
    fn padding_is_of_ones_and_shorter_than_a_byte() {
        // '0' is 00000, so the padding is the last three bits.
        assert_eq!(decode(&[0b0000_0111]), Some(vec![b'0']));
        assert_eq!(decode(&[0b0000_0110]), None);
        assert_eq!(decode(&[0b0000_0111, 0xff]), None);
        assert_eq!(decode(&[0xff; 4]), None); // the end of the string
        assert_eq!(decode(&[]), Some(Vec::new()));
    }
}
