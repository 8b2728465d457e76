//! Base64 (RFC 4648 §4) and base64url without padding (§5; RFC 7515 §2), strict: one text per value.

use std::string::String;
use std::vec::Vec;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alphabet {
    /// With padding.
    Standard,
    /// Without padding.
    #[cfg_attr(not(feature = "bundle"), allow(dead_code, reason = "JSON Web Keys use it"))]
    Url,
}

pub(crate) fn encode(bytes: &[u8], alphabet: Alphabet) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits =
            (0..3).fold(0_u32, |bits, index| bits << 8 | u32::from(group.get(index).copied().unwrap_or(0)));
        for index in 0..4 {
            if index <= group.len() {
                text.push(digit(bits >> (18 - 6 * index) & 63, alphabet));
            } else if alphabet == Alphabet::Standard {
                text.push('=');
            }
        }
    }
    text
}

fn digit(sextet: u32, alphabet: Alphabet) -> char {
    const DIGITS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    match (sextet, alphabet) {
        (62, Alphabet::Standard) => '+',
        (62, Alphabet::Url) => '-',
        (0..=61, _) => char::from(DIGITS[sextet as usize]),
        (_, Alphabet::Standard) => '/',
        (_, Alphabet::Url) => '_',
    }
}

/// `None`, when a character is not of the alphabet, the padding is wrong, or unused bits are set.
#[cfg_attr(not(feature = "bundle"), allow(dead_code, reason = "JSON Web Keys are read with it"))]
pub(crate) fn decode(text: &str, alphabet: Alphabet) -> Option<Vec<u8>> {
    let digits = match alphabet {
        Alphabet::Url => text.as_bytes(),
        Alphabet::Standard => {
            let digits = text.trim_end_matches('=');
            if !text.len().is_multiple_of(4) || text.len() - digits.len() > 2 {
                return None;
            }
            digits.as_bytes()
        }
    };
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    for group in digits.chunks(4) {
        let mut bits = 0_u32;
        for byte in group {
            let sextet = match (byte, alphabet) {
                (b'A'..=b'Z', _) => byte - b'A',
                (b'a'..=b'z', _) => byte - b'a' + 26,
                (b'0'..=b'9', _) => byte - b'0' + 52,
                (b'+', Alphabet::Standard) | (b'-', Alphabet::Url) => 62,
                (b'/', Alphabet::Standard) | (b'_', Alphabet::Url) => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(sextet);
        }
        // Two digits hold 8 bits, three digits 16: the other bits are zero.
        let (len, unused) = match group.len() {
            4 => (3, 0),
            3 => (2, 2),
            2 => (1, 4),
            _ => return None,
        };
        if bits & ((1 << unused) - 1) != 0 {
            return None;
        }
        bytes.extend_from_slice(&(bits >> unused).to_be_bytes()[4 - len..]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_one_text() {
        for len in 0..64_u8 {
            let bytes: Vec<u8> = (0..len).map(|byte| byte.wrapping_mul(89).wrapping_add(251)).collect();
            for alphabet in [Alphabet::Standard, Alphabet::Url] {
                let text = encode(&bytes, alphabet);
                assert_eq!(decode(&text, alphabet).as_deref(), Some(&bytes[..]), "{text}");
            }
        }
        assert_eq!(encode(b"f", Alphabet::Standard), "Zg==");
        assert_eq!(encode(b"fo", Alphabet::Url), "Zm8");
        assert_eq!(encode(&[0xff, 0xef], Alphabet::Standard), "/+8=");
        for text in ["Zg", "Zg=", "Zg===", "Z", "Zh==", "Zm9=", "Zg==Zg==", "Z g=", "Zg-_", "====", "="] {
            assert_eq!(decode(text, Alphabet::Standard), None, "{text}");
        }
        for text in ["Zg==", "Z", "Zh", "Zm9", "Zg+/", "Zm8\n"] {
            assert_eq!(decode(text, Alphabet::Url), None, "{text}");
        }
    }
}
