//! DER of the parts of certificates and requests.

use std::format;
use std::string::String;
use std::vec::Vec;

pub(super) use crate::x509::der::element;
use crate::x509::der::{BIT_STRING, GENERALIZED_TIME, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE, UTC_TIME};

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
    fn written_times_are_read_back() {
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
