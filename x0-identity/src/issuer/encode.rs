//! DER of the parts of certificates and requests.

use std::format;
use std::string::String;
use std::vec;
use std::vec::Vec;

use crate::x509::der::{BIT_STRING, GENERALIZED_TIME, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE, UTC_TIME};

/// An element with the shortest length (X.690 §10.1).
pub(super) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = content.len().to_be_bytes();
    let significant = &len[len.iter().take_while(|byte| **byte == 0).count()..];
    let mut der = vec![tag];
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

pub(super) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    element(SEQUENCE, &parts.concat())
}

/// A bit string of whole bytes.
pub(super) fn bits(bytes: &[u8]) -> Vec<u8> {
    element(BIT_STRING, &[&[0], bytes].concat())
}

/// An extension of `id-ce` (RFC 5280 §4.2.1).
pub(super) fn extension(number: u8, critical: bool, value: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if critical { &[1, 1, 0xff] } else { &[] };
    sequence(&[&element(OBJECT_IDENTIFIER, &[0x55, 0x1d, number]), critical, &element(OCTET_STRING, value)])
}

/// RFC 5280 §4.1.2.5: `UTCTime` through 2049, `GeneralizedTime` from 2050. `seconds` is between 1970
/// and 9999.
pub(super) fn time(seconds: i64) -> Vec<u8> {
    // The proleptic Gregorian calendar, with years that begin in March.
    let days = seconds.div_euclid(86_400) + 719_468;
    let second_of_day = seconds.rem_euclid(86_400);
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
    let rest: String = format!("{month:02}{day:02}{hour:02}{minute:02}{second:02}Z");
    if year < 2050 {
        element(UTC_TIME, format!("{:02}{rest}", year % 100).as_bytes())
    } else {
        element(GENERALIZED_TIME, format!("{year:04}{rest}").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x509::der::{Reader, time as read_time};

    #[test]
    fn written_values_are_read_back() {
        for len in [0, 1, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x10000] {
            let content = vec![7; len];
            let der = element(4, &content);
            assert_eq!(Reader::new(&der).expect(4), Ok(&content[..]), "{len}");
        }
        let moments = (0..253_402_300_800).step_by(86_400 * 97 + 12_345).chain([
            2_524_607_999,
            2_524_608_000,
            951_782_400,
        ]);
        for seconds in moments {
            let der = time(seconds);
            assert_eq!(read_time(Reader::new(&der).element().unwrap()), Ok(seconds), "{seconds}");
        }
    }
}
