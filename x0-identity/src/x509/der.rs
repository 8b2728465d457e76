//! A strict reader of DER (X.690 §10): one encoding per value.

/// Bytes that are not DER.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(crate) const UTF8_STRING: u8 = 0x0c;
pub(crate) const PRINTABLE_STRING: u8 = 0x13;
pub(crate) const IA5_STRING: u8 = 0x16;
pub(crate) const UTC_TIME: u8 = 0x17;
pub(crate) const GENERALIZED_TIME: u8 = 0x18;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;

/// One element: its tag, its content, and the whole of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Element<'a> {
    pub(crate) tag: u8,
    pub(crate) content: &'a [u8],
    pub(crate) whole: &'a [u8],
}

/// Reads elements one after the other. Every method fails without panicking on any bytes.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// The next element. Tag numbers above 30 occur nowhere in a certificate's profile, so their long form is
    /// refused (§8.1.2.4); a length has its shortest form (§10.1).
    pub(crate) fn element(&mut self) -> Result<Element<'a>, Malformed> {
        let (&tag, rest) = self.0.split_first().ok_or(Malformed)?;
        if tag & 0x1f == 0x1f {
            return Err(Malformed);
        }
        let (&first, rest) = rest.split_first().ok_or(Malformed)?;
        let (len, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f)).ok_or(Malformed)?;
                let len = bytes.iter().fold(0_u64, |len, byte| len << 8 | u64::from(*byte));
                if bytes[0] == 0 || len < 0x80 {
                    return Err(Malformed);
                }
                (usize::try_from(len).map_err(|_| Malformed)?, rest)
            }
            _ => return Err(Malformed),
        };
        let (content, rest) = rest.split_at_checked(len).ok_or(Malformed)?;
        let whole = &self.0[..self.0.len() - rest.len()];
        self.0 = rest;
        Ok(Element { tag, content, whole })
    }

    /// The content of the next element, which has this tag.
    pub(crate) fn expect(&mut self, tag: u8) -> Result<&'a [u8], Malformed> {
        let element = self.element()?;
        if element.tag == tag { Ok(element.content) } else { Err(Malformed) }
    }

    /// The content of the next element, if it has this tag.
    pub(crate) fn optional(&mut self, tag: u8) -> Result<Option<&'a [u8]>, Malformed> {
        if self.0.first() == Some(&tag) { self.expect(tag).map(Some) } else { Ok(None) }
    }

    /// Ends the reading: nothing may be left.
    pub(crate) fn finish(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

/// Writes an element, with the shortest length (X.690 §10.1).
#[cfg(any(feature = "authority", feature = "issuer", feature = "jwt"))]
pub(crate) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = content.len().to_be_bytes();
    let significant = &len[len.iter().take_while(|byte| **byte == 0).count()..];
    let mut der = Vec::from([tag]);
    match *significant {
        [] => der.push(0),
        [len @ 0..=0x7f] => der.push(len),
        _ => {
            // At most 8 bytes.
            der.push(0x80 + significant.iter().fold(0, |count, _| count + 1));
            der.extend(significant);
        }
    }
    der.extend(content);
    der
}

/// The content of the one element that these bytes are.
pub(crate) fn only(bytes: &[u8], tag: u8) -> Result<&[u8], Malformed> {
    let mut reader = Reader::new(bytes);
    let content = reader.expect(tag)?;
    reader.finish()?;
    Ok(content)
}

/// X.690 §11.1: TRUE is 0xff.
pub(crate) fn boolean(content: &[u8]) -> Result<bool, Malformed> {
    match content {
        [0] => Ok(false),
        [0xff] => Ok(true),
        _ => Err(Malformed),
    }
}

/// X.690 §8.3.2: an integer has no superfluous leading byte.
pub(crate) fn check_integer(content: &[u8]) -> Result<(), Malformed> {
    match content {
        [] | [0, 0..=0x7f, ..] | [0xff, 0x80..=0xff, ..] => Err(Malformed),
        _ => Ok(()),
    }
}

/// A non-negative integer, saturating: 2^32 certificates are as unlimited as any higher number.
pub(crate) fn small_integer(content: &[u8]) -> Result<u32, Malformed> {
    check_integer(content)?;
    if content[0] & 0x80 != 0 {
        return Err(Malformed);
    }
    let significant = content.iter().skip_while(|byte| **byte == 0);
    if significant.clone().count() > 4 {
        return Ok(u32::MAX);
    }
    Ok(significant.fold(0, |number, byte| number << 8 | u32::from(*byte)))
}

/// The bytes of a bit string and its number of unused bits, which are zero (X.690 §11.2.1).
pub(crate) fn bits(content: &[u8]) -> Result<(&[u8], u8), Malformed> {
    let (&unused, bytes) = content.split_first().ok_or(Malformed)?;
    let last = bytes.last().copied();
    match (unused, last) {
        (0, _) => Ok((bytes, 0)),
        (1..=7, Some(last)) if last & ((1 << unused) - 1) == 0 => Ok((bytes, unused)),
        _ => Err(Malformed),
    }
}

/// A bit string of whole bytes, as keys and signatures are.
pub(crate) fn whole_bytes(content: &[u8]) -> Result<&[u8], Malformed> {
    match bits(content)? {
        (bytes, 0) => Ok(bytes),
        _ => Err(Malformed),
    }
}

/// A list of named bits, at most 16: its last bit is set (X.690 §11.2.2).
pub(crate) fn named_bits(content: &[u8]) -> Result<u16, Malformed> {
    let (bytes, unused) = bits(content)?;
    if let Some(last) = bytes.last()
        && last & (1 << unused) == 0
    {
        return Err(Malformed);
    }
    match *bytes {
        [] => Ok(0),
        [first] => Ok(u16::from_be_bytes([first, 0])),
        [first, second] => Ok(u16::from_be_bytes([first, second])),
        _ => Err(Malformed),
    }
}

/// X.690 §8.19: every arc has its shortest form, and the last one ends.
pub(crate) fn check_oid(content: &[u8]) -> Result<(), Malformed> {
    let mut starts = true;
    for byte in content {
        if starts && *byte == 0x80 {
            return Err(Malformed);
        }
        starts = byte & 0x80 == 0;
    }
    if content.is_empty() || !starts { Err(Malformed) } else { Ok(()) }
}

/// Seconds since 1970 of a `UTCTime` or `GeneralizedTime` in the forms that RFC 5280 §4.1.2.5 demands: in
/// UTC, with seconds, without fractions.
pub(crate) fn time(element: Element<'_>) -> Result<i64, Malformed> {
    let two = |digits: &[u8]| match *digits {
        [high @ b'0'..=b'9', low @ b'0'..=b'9'] => Ok(i64::from(high - b'0') * 10 + i64::from(low - b'0')),
        _ => Err(Malformed),
    };
    let (year, rest) = match (element.tag, element.content.len()) {
        (UTC_TIME, 13) => {
            let year = two(&element.content[..2])?;
            (if year >= 50 { 1900 + year } else { 2000 + year }, &element.content[2..])
        }
        (GENERALIZED_TIME, 15) => {
            (two(&element.content[..2])? * 100 + two(&element.content[2..4])?, &element.content[4..])
        }
        _ => return Err(Malformed),
    };
    let [month, day, hour, minute, second] =
        [two(&rest[..2])?, two(&rest[2..4])?, two(&rest[4..6])?, two(&rest[6..8])?, two(&rest[8..10])?];
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let days = match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        1..=12 => 31,
        _ => return Err(Malformed),
    };
    if !(1..=days).contains(&day) || hour > 23 || minute > 59 || second > 59 || rest[10] != b'Z' {
        return Err(Malformed);
    }
    // Days since 1970 of the proleptic Gregorian calendar, with years that begin in March.
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let year_of_era = shifted.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    Ok(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(tag: u8, text: &str) -> Result<i64, Malformed> {
        time(Element { tag, content: text.as_bytes(), whole: &[] })
    }

    #[test]
    fn one_encoding_per_element() {
        let read = |bytes: &[u8]| Reader::new(bytes).element().map(|element| element.content.len());
        assert_eq!(read(&[0x04, 2, 1, 2]), Ok(2));
        let long: Vec<u8> = [0x04, 0x81, 0x80].into_iter().chain([0; 0x80]).collect();
        assert_eq!(read(&long), Ok(0x80));
        // Long form for a short length, a leading zero, the indefinite form, a long tag, and too few bytes.
        for bytes in [&[0x04, 0x81, 1, 0][..], &[0x04, 0x82, 0, 1, 0], &[0x24, 0x80, 0, 0], &[0x1f, 0x01, 0]]
        {
            assert_eq!(read(bytes), Err(Malformed), "{bytes:?}");
        }
        for bytes in
            [&[][..], &[0x04], &[0x04, 1], &[0x04, 0x84, 0xff, 0xff, 0xff, 0xff], &[4, 0x85, 1, 0, 0, 0, 0]]
        {
            assert_eq!(read(bytes), Err(Malformed), "{bytes:?}");
        }
    }

    #[cfg(any(feature = "authority", feature = "issuer", feature = "jwt"))]
    #[test]
    fn written_elements_are_read_back() {
        for len in [0, 1, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x10000] {
            let content = vec![7; len];
            let der = element(4, &content);
            assert_eq!(Reader::new(&der).expect(4), Ok(&content[..]), "{len}");
        }
    }

    #[test]
    fn one_encoding_per_primitive() {
        assert_eq!([boolean(&[0]), boolean(&[0xff]), boolean(&[1])], [Ok(false), Ok(true), Err(Malformed)]);
        for (bytes, expect) in [
            (&[0][..], Ok(0)),
            (&[0x7f], Ok(127)),
            (&[0, 0x80], Ok(128)),
            (&[1, 0, 0, 0, 0], Ok(u32::MAX)),
            (&[0, 1], Err(Malformed)),
            (&[0x80], Err(Malformed)),
            (&[], Err(Malformed)),
        ] {
            assert_eq!(small_integer(bytes), expect, "{bytes:?}");
        }
        assert_eq!(check_integer(&[0xff, 0x7f]), Ok(()));
        assert_eq!(check_integer(&[0xff, 0x80]), Err(Malformed));
        assert_eq!(named_bits(&[7, 0x80]), Ok(0x8000));
        assert_eq!(named_bits(&[7, 0xff, 0x80]), Ok(0xff80));
        assert_eq!(named_bits(&[0]), Ok(0));
        for bytes in [&[7, 0x81][..], &[6, 0x80], &[0, 0x80, 0], &[8, 0], &[1], &[]] {
            assert_eq!(named_bits(bytes), Err(Malformed), "{bytes:?}");
        }
        assert_eq!(whole_bytes(&[1, 2]), Err(Malformed));
        assert_eq!(check_oid(&[0x55, 0x1d, 0x0f]), Ok(()));
        for bytes in [&[][..], &[0x80, 1], &[0x55, 0x80, 1], &[0x55, 0x81]] {
            assert_eq!(check_oid(bytes), Err(Malformed), "{bytes:?}");
        }
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(at(UTC_TIME, "700101000000Z"), Ok(0));
        assert_eq!(at(UTC_TIME, "491231235959Z"), Ok(2_524_607_999));
        assert_eq!(at(UTC_TIME, "500101000000Z"), Ok(-631_152_000));
        assert_eq!(at(UTC_TIME, "000229000000Z"), Ok(951_782_400));
        assert_eq!(at(GENERALIZED_TIME, "20500101000000Z"), Ok(2_524_608_000));
        assert_eq!(at(GENERALIZED_TIME, "99991231235959Z"), Ok(253_402_300_799));
        assert_eq!(at(GENERALIZED_TIME, "00010101000000Z"), Ok(-62_135_596_800));
        for text in [
            "010229000000Z",
            "011301000000Z",
            "010100000000Z",
            "010101240000Z",
            "010101006000Z",
            "0101010000000",
            "0101010000Z",
            "01010100000aZ",
        ] {
            assert_eq!(at(UTC_TIME, text), Err(Malformed), "{text}");
        }
        assert_eq!(at(GENERALIZED_TIME, "20500101000000.5Z"), Err(Malformed));
    }
}
