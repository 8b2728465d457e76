//! The messages of the Workload API (§5.1 and §6.1), by hand: the build needs neither protoc nor prost-build.
//! The numbers of the fields are those of `workloadapi.proto`, with which the tests compare them.

use std::borrow::Cow;
use std::string::{String, ToString};
use std::vec::Vec;

use super::workload::CRLS_MAX;
use crate::grpc::{DecodeError, Reader, Value, Writer, read_entry};
use crate::json::Json;

/// Bundles by the SPIFFE ID of their trust domain, in the order of the message.
pub(super) type BundleEntries = Vec<(String, Vec<u8>)>;

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct X509SvidResponse {
    pub(super) svids: Vec<X509SvidMessage>,
    pub(super) crl: Vec<Vec<u8>>,
    pub(super) federated_bundles: BundleEntries,
}

#[derive(Default, Clone, PartialEq, Eq)]
pub(super) struct X509SvidMessage {
    pub(super) spiffe_id: String,
    pub(super) x509_svid: Vec<u8>,
    pub(super) x509_svid_key: Vec<u8>,
    pub(super) bundle: Vec<u8>,
    pub(super) hint: String,
}

/// Without the private key.
impl core::fmt::Debug for X509SvidMessage {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.debug_struct("X509SvidMessage").field("spiffe_id", &self.spiffe_id).finish_non_exhaustive()
    }
}

impl X509SvidResponse {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        for svid in &self.svids {
            writer = writer.element(1, &svid.encode());
        }
        for crl in &self.crl {
            writer = writer.element(2, crl);
        }
        put_entries(writer, 3, &self.federated_bundles).finish()
    }

    pub(super) fn decode(message: &[u8]) -> Result<X509SvidResponse, DecodeError> {
        let mut response = X509SvidResponse::default();
        let mut reader = Reader::new(message);
        while let Some((field, value)) = reader.field()? {
            match field {
                1 => response.svids.push(X509SvidMessage::decode(value.bytes()?)?),
                2 => put_crl(&mut response.crl, value)?,
                3 => put_entry(&mut response.federated_bundles, value)?,
                _ => {}
            }
        }
        Ok(response)
    }
}

impl X509SvidMessage {
    fn encode(&self) -> Vec<u8> {
        Writer::new()
            .string(1, &self.spiffe_id)
            .bytes(2, &self.x509_svid)
            .bytes(3, &self.x509_svid_key)
            .bytes(4, &self.bundle)
            .string(5, &self.hint)
            .finish()
    }

    fn decode(message: &[u8]) -> Result<X509SvidMessage, DecodeError> {
        let mut svid = X509SvidMessage::default();
        let mut reader = Reader::new(message);
        while let Some((field, value)) = reader.field()? {
            match field {
                1 => svid.spiffe_id = value.string()?,
                2 => svid.x509_svid = value.bytes()?.to_vec(),
                3 => svid.x509_svid_key = value.bytes()?.to_vec(),
                4 => svid.bundle = value.bytes()?.to_vec(),
                5 => svid.hint = value.string()?,
                _ => {}
            }
        }
        Ok(svid)
    }
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct X509BundlesResponse {
    pub(super) crl: Vec<Vec<u8>>,
    pub(super) bundles: BundleEntries,
}

impl X509BundlesResponse {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        for crl in &self.crl {
            writer = writer.element(1, crl);
        }
        put_entries(writer, 2, &self.bundles).finish()
    }

    pub(super) fn decode(message: &[u8]) -> Result<X509BundlesResponse, DecodeError> {
        let mut response = X509BundlesResponse::default();
        let mut reader = Reader::new(message);
        while let Some((field, value)) = reader.field()? {
            match field {
                1 => put_crl(&mut response.crl, value)?,
                2 => put_entry(&mut response.bundles, value)?,
                _ => {}
            }
        }
        Ok(response)
    }
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct JwtSvidRequest {
    pub(super) audience: Vec<String>,
    pub(super) spiffe_id: String,
}

impl JwtSvidRequest {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        for audience in &self.audience {
            writer = writer.element(1, audience.as_bytes());
        }
        writer.string(2, &self.spiffe_id).finish()
    }

    pub(super) fn decode(message: &[u8]) -> Result<JwtSvidRequest, DecodeError> {
        let mut request = JwtSvidRequest::default();
        let mut reader = Reader::new(message);
        while let Some((field, value)) = reader.field()? {
            match field {
                1 => request.audience.push(value.string()?),
                2 => request.spiffe_id = value.string()?,
                _ => {}
            }
        }
        Ok(request)
    }
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct JwtSvidResponse {
    pub(super) svids: Vec<JwtSvidMessage>,
}

#[derive(Default, Clone, PartialEq, Eq)]
pub(super) struct JwtSvidMessage {
    pub(super) spiffe_id: String,
    pub(super) svid: String,
    pub(super) hint: String,
}

/// Without the token.
impl core::fmt::Debug for JwtSvidMessage {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.debug_struct("JwtSvidMessage").field("spiffe_id", &self.spiffe_id).finish_non_exhaustive()
    }
}

impl JwtSvidResponse {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        for svid in &self.svids {
            let message =
                Writer::new().string(1, &svid.spiffe_id).string(2, &svid.svid).string(3, &svid.hint);
            writer = writer.element(1, &message.finish());
        }
        writer.finish()
    }

    pub(super) fn decode(message: &[u8]) -> Result<JwtSvidResponse, DecodeError> {
        let mut response = JwtSvidResponse::default();
        let mut reader = Reader::new(message);
        while let Some((field, value)) = reader.field()? {
            if field == 1 {
                let mut svid = JwtSvidMessage::default();
                let mut reader = Reader::new(value.bytes()?);
                while let Some((field, value)) = reader.field()? {
                    match field {
                        1 => svid.spiffe_id = value.string()?,
                        2 => svid.svid = value.string()?,
                        3 => svid.hint = value.string()?,
                        _ => {}
                    }
                }
                response.svids.push(svid);
            }
        }
        Ok(response)
    }
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct JwtBundlesResponse {
    pub(super) bundles: BundleEntries,
}

impl JwtBundlesResponse {
    pub(super) fn encode(&self) -> Vec<u8> {
        put_entries(Writer::new(), 1, &self.bundles).finish()
    }

    pub(super) fn decode(message: &[u8]) -> Result<JwtBundlesResponse, DecodeError> {
        let mut response = JwtBundlesResponse::default();
        let mut reader = Reader::new(message);
        while let Some((field, value)) = reader.field()? {
            if field == 1 {
                put_entry(&mut response.bundles, value)?;
            }
        }
        Ok(response)
    }
}

#[derive(Default, Clone, PartialEq, Eq)]
pub(super) struct ValidateJwtSvidRequest {
    pub(super) audience: String,
    pub(super) svid: String,
}

impl ValidateJwtSvidRequest {
    pub(super) fn encode(&self) -> Vec<u8> {
        Writer::new().string(1, &self.audience).string(2, &self.svid).finish()
    }

    pub(super) fn decode(message: &[u8]) -> Result<ValidateJwtSvidRequest, DecodeError> {
        let mut request = ValidateJwtSvidRequest::default();
        let mut reader = Reader::new(message);
        while let Some((field, value)) = reader.field()? {
            match field {
                1 => request.audience = value.string()?,
                2 => request.svid = value.string()?,
                _ => {}
            }
        }
        Ok(request)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ValidateJwtSvidResponse {
    pub(super) spiffe_id: String,
    /// An object, or `None` if the message has none.
    pub(super) claims: Option<Json>,
}

impl ValidateJwtSvidResponse {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new().string(1, &self.spiffe_id);
        if let Some(Json::Object(members)) = &self.claims {
            writer = writer.element(2, &encode_struct(members));
        }
        writer.finish()
    }

    pub(super) fn decode(message: &[u8]) -> Result<ValidateJwtSvidResponse, DecodeError> {
        let mut response = ValidateJwtSvidResponse { spiffe_id: String::new(), claims: None };
        let mut reader = Reader::new(message);
        while let Some((field, value)) = reader.field()? {
            match field {
                1 => response.spiffe_id = value.string()?,
                2 => response.claims = Some(decode_struct(value.bytes()?, DEPTH_MAX)?),
                _ => {}
            }
        }
        Ok(response)
    }
}

fn put_entries(mut writer: Writer, field: u32, entries: &BundleEntries) -> Writer {
    for (key, value) in entries {
        writer = writer.entry(field, key, value);
    }
    writer
}

/// The last of several entries of one key stays, as the encoding demands.
fn put_entry(entries: &mut BundleEntries, value: Value<'_>) -> Result<(), DecodeError> {
    let (key, content) = read_entry(value.bytes()?)?;
    let present = entries.iter().position(|(present, _)| *present == key);
    match present {
        Some(place) => entries[place].1 = content.to_vec(),
        None if entries.len() == ENTRIES_MAX => return Err(DecodeError),
        None => entries.push((key, content.to_vec())),
    }
    Ok(())
}

fn put_crl(crls: &mut Vec<Vec<u8>>, value: Value<'_>) -> Result<(), DecodeError> {
    if crls.len() == CRLS_MAX {
        return Err(DecodeError);
    }
    crls.push(value.bytes()?.to_vec());
    Ok(())
}

/// Bundles in a message, and members of an object.
const ENTRIES_MAX: usize = 1024;

/// Structs and lists within one another: as in a JSON text.
const DEPTH_MAX: usize = 16;

/// `google.protobuf.Struct`.
fn encode_struct(members: &[(String, Json)]) -> Vec<u8> {
    let mut writer = Writer::new();
    for (name, value) in members {
        // A value is written even if it is empty.
        let entry = Writer::new().string(1, name).element(2, &encode_value(value));
        writer = writer.element(1, &entry.finish());
    }
    writer.finish()
}

/// `google.protobuf.Value`.
fn encode_value(value: &Json) -> Vec<u8> {
    let writer = Writer::new();
    match value {
        Json::Null => writer.number(1, 0),
        // Each number of JSON is a double, rounded if it must be.
        Json::Number(text) => writer.double(2, text.parse().unwrap_or(f64::MAX)),
        Json::String(text) => writer.element(3, text.as_bytes()),
        Json::Bool(flag) => writer.number(4, u64::from(*flag)),
        Json::Object(members) => writer.element(5, &encode_struct(members)),
        Json::Array(values) => {
            let list = values.iter().fold(Writer::new(), |list, value| list.element(1, &encode_value(value)));
            writer.element(6, &list.finish())
        }
    }
    .finish()
}

fn decode_struct(message: &[u8], depth: usize) -> Result<Json, DecodeError> {
    let depth = depth.checked_sub(1).ok_or(DecodeError)?;
    let mut members: Vec<(String, Json)> = Vec::new();
    let mut reader = Reader::new(message);
    while let Some((field, value)) = reader.field()? {
        if field == 1 {
            let (name, content) = read_entry(value.bytes()?)?;
            members.retain(|(present, _)| *present != name);
            if members.len() == ENTRIES_MAX {
                return Err(DecodeError);
            }
            members.push((name, decode_value(content, depth)?));
        }
    }
    Ok(Json::Object(members))
}

fn decode_value(message: &[u8], depth: usize) -> Result<Json, DecodeError> {
    let mut json = Json::Null;
    let mut reader = Reader::new(message);
    while let Some((field, value)) = reader.field()? {
        json = match (field, value) {
            (1, Value::Varint(_)) => Json::Null,
            (2, Value::Fixed64(bytes)) => Json::Number(number(f64::from_le_bytes(bytes))?.into_owned()),
            (3, value) => Json::String(value.string()?),
            (4, Value::Varint(flag)) => Json::Bool(flag != 0),
            (5, value) => decode_struct(value.bytes()?, depth)?,
            (6, value) => {
                let depth = depth.checked_sub(1).ok_or(DecodeError)?;
                let mut values = Vec::new();
                let mut list = Reader::new(value.bytes()?);
                while let Some((field, value)) = list.field()? {
                    if field == 1 {
                        values.push(decode_value(value.bytes()?, depth)?);
                    }
                }
                Json::Array(values)
            }
            (1..=6, _) => return Err(DecodeError),
            _ => json,
        };
    }
    Ok(json)
}

/// JSON has neither infinity nor NaN. Whole numbers have no fraction: `exp` stays an integer.
fn number(double: f64) -> Result<Cow<'static, str>, DecodeError> {
    if double.is_finite() { Ok(Cow::Owned(double.to_string())) } else { Err(DecodeError) }
}
