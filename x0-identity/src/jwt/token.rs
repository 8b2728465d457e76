//! The compact serialization of a JSON Web Signature (RFC 7515 §7.1), and what claims of all kinds share.

use std::string::String;
use std::time::{Duration, SystemTime};
use std::vec::Vec;

use super::signing_key::SigningKey;
use crate::JsonError;
use crate::base64::{Alphabet, decode, encode};
use crate::json::Json;

/// The parts of a token, of which none is decoded yet.
pub(crate) struct Compact<'a> {
    pub(crate) header: &'a str,
    pub(crate) claims: &'a str,
    pub(crate) signature: &'a str,
    /// Header and claims, with the point between them.
    pub(crate) signed: &'a str,
}

/// A part of a token cannot be read.
pub(crate) enum PartError {
    /// No base64url, or JSON that is not an object.
    Serialization,
    Json(JsonError),
}

impl<'a> Compact<'a> {
    /// `None`, when the token does not have three parts.
    pub(crate) fn split(token: &'a str) -> Option<Compact<'a>> {
        let mut parts = token.split('.');
        let (header, claims, signature) = (parts.next()?, parts.next()?, parts.next()?);
        let signed = token.get(..header.len() + 1 + claims.len())?;
        parts.next().is_none().then_some(Compact { header, claims, signature, signed })
    }
}

pub(crate) fn read_object(part: &str) -> Result<Json, PartError> {
    let bytes = decode(part, Alphabet::Url).ok_or(PartError::Serialization)?;
    match Json::parse(&bytes).map_err(PartError::Json)? {
        object @ Json::Object(_) => Ok(object),
        _ => Err(PartError::Serialization),
    }
}

pub(crate) fn read_signature(part: &str) -> Result<Vec<u8>, PartError> {
    decode(part, Alphabet::Url).ok_or(PartError::Serialization)
}

/// Seconds since 1970, of which fractions are allowed (RFC 7519 §2). None, when it is none or not
/// representable.
pub(crate) fn numeric_date(value: &Json) -> Option<SystemTime> {
    let Json::Number(text) = value else { return None };
    let seconds = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => Duration::try_from_secs_f64(text.parse().ok()?).ok()?,
    };
    SystemTime::UNIX_EPOCH.checked_add(seconds)
}

/// The times of a token to be issued, in seconds since 1970.
pub(crate) struct Issued {
    pub(crate) issued: u64,
    pub(crate) expires: u64,
    /// The end as a moment.
    pub(crate) until: SystemTime,
}

impl Issued {
    /// Valid from `now` on for whole seconds. `None`, when the validity is below a second, or a time cannot
    /// be represented.
    pub(crate) fn new(now: SystemTime, validity: Duration) -> Option<Issued> {
        let issued = now.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
        let expires = issued.checked_add(validity.as_secs()).filter(|expires| *expires > issued)?;
        let until = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(expires))?;
        Some(Issued { issued, expires, until })
    }
}

/// `exp` and `nbf` of claims.
pub(crate) struct Times {
    pub(crate) expires: SystemTime,
    pub(crate) not_before: Option<SystemTime>,
}

/// Claims are not valid at a time.
pub(crate) enum TimeError {
    /// `exp` is missing or not a time.
    NoExpiry,
    Expired,
    /// `nbf` is not a time.
    NotBefore,
    NotYetValid,
}

impl Times {
    pub(crate) fn read(claims: &Json) -> Result<Times, TimeError> {
        let expires = claims.get("exp").and_then(numeric_date).ok_or(TimeError::NoExpiry)?;
        let not_before = match claims.get("nbf") {
            None => None,
            Some(value) => Some(numeric_date(value).ok_or(TimeError::NotBefore)?),
        };
        Ok(Times { expires, not_before })
    }

    /// RFC 7519 §4.1.4 ("before the expiration") and §4.1.5, for clocks that differ by up to the leeway.
    pub(crate) fn check(&self, now: SystemTime, leeway: Duration) -> Result<(), TimeError> {
        if now.checked_sub(leeway).is_some_and(|now| now >= self.expires) {
            return Err(TimeError::Expired);
        }
        match self.not_before {
            Some(begin) if now.checked_add(leeway).is_some_and(|now| now < begin) => {
                Err(TimeError::NotYetValid)
            }
            _ => Ok(()),
        }
    }
}

/// The header of a token that the key signs.
pub(crate) fn header(key: &SigningKey, key_id: Option<&str>, typ: &str) -> Json {
    let member = |name: &str, value: &str| (name.into(), Json::String(value.into()));
    let key_id = key_id.map(|key_id| member("kid", key_id));
    let first = [member("alg", key.algorithm().name())];
    Json::Object(first.into_iter().chain(key_id).chain([member("typ", typ)]).collect())
}

/// The signed token. `None`, when the system provides no randomness.
pub(crate) fn sign(header: &Json, claims: &Json, key: &SigningKey) -> Option<String> {
    let part = |json: &Json| {
        let mut text = String::new();
        json.write(&mut text);
        encode(text.as_bytes(), Alphabet::Url)
    };
    let signed = part(header) + "." + &part(claims);
    let signature = key.sign(signed.as_bytes())?;
    Some(signed + "." + &encode(&signature, Alphabet::Url))
}
