//! A decoder and an encoder of messages that read `tests/data/workloadapi.proto` and `sds.proto`: a second
//! implementation, by the specification's text.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

const PROTO: &str = concat!(include_str!("../data/workloadapi.proto"), include_str!("../data/sds.proto"));

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Item {
    Text(String),
    Bytes(Vec<u8>),
    Message(Message),
    Struct(Value),
    Map(BTreeMap<String, Vec<u8>>),
}

/// Fields by name, in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Message(pub(crate) Vec<(String, Item)>);

impl Message {
    pub(crate) fn all(&self, name: &str) -> Vec<&Item> {
        self.0.iter().filter(|(present, _)| present == name).map(|(_, item)| item).collect()
    }

    pub(crate) fn text(&self, name: &str) -> &str {
        match self.all(name)[..] {
            [] => "",
            [Item::Text(text)] => text,
            ref other => panic!("{name}: {other:?}"),
        }
    }

    pub(crate) fn bytes(&self, name: &str) -> &[u8] {
        match self.all(name)[..] {
            [] => &[],
            [Item::Bytes(bytes)] => bytes,
            ref other => panic!("{name}: {other:?}"),
        }
    }

    pub(crate) fn messages(&self, name: &str) -> Vec<&Message> {
        let message = |item: &&Item| match item {
            Item::Message(_) => {}
            other => panic!("{name}: {other:?}"),
        };
        self.all(name)
            .iter()
            .inspect(|item| message(item))
            .filter_map(|item| if let Item::Message(message) = item { Some(message) } else { None })
            .collect()
    }

    /// The entries of all maps of a name.
    pub(crate) fn map(&self, name: &str) -> BTreeMap<String, Vec<u8>> {
        let mut entries = BTreeMap::new();
        for item in self.all(name) {
            let Item::Map(map) = item else { panic!("{name}: {item:?}") };
            entries.extend(map.clone());
        }
        entries
    }
}

/// Type and name of a field.
fn field_of(message: &str, number: u64) -> (String, String) {
    let begin = format!("message {message} {{");
    let body = PROTO.split_once(&begin).unwrap_or_else(|| panic!("no message {message}")).1;
    let body = body.split_once('}').unwrap().0;
    for line in body.split(';').map(str::trim).filter(|line| !line.is_empty()) {
        let (declaration, present) = line.rsplit_once(" = ").unwrap();
        if present.parse::<u64>().unwrap() == number {
            let (kind, name) = declaration.rsplit_once(' ').unwrap();
            return (kind.trim_start_matches("repeated ").into(), name.into());
        }
    }
    panic!("{message} has no field {number}")
}

fn varint(rest: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let byte = rest[0];
        *rest = &rest[1..];
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}

/// The fields of any message: number, type of the wire, content (of numbers: little-endian).
fn raw_fields(mut rest: &[u8]) -> Vec<(u64, u64, Vec<u8>)> {
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let tag = varint(&mut rest);
        let len = match tag & 7 {
            0 => {
                fields.push((tag >> 3, 0, varint(&mut rest).to_le_bytes().to_vec()));
                continue;
            }
            1 => 8,
            2 => usize::try_from(varint(&mut rest)).unwrap(),
            other => panic!("type {other}"),
        };
        fields.push((tag >> 3, tag & 7, rest[..len].to_vec()));
        rest = &rest[len..];
    }
    fields
}

pub(crate) fn decode(message: &str, bytes: &[u8]) -> Message {
    let mut fields = Message::default();
    for (number, wire, content) in raw_fields(bytes) {
        assert_eq!(wire, 2, "{message}.{number}");
        let (kind, name) = field_of(message, number);
        let item = match kind.as_str() {
            "string" => Item::Text(String::from_utf8(content).unwrap()),
            "bytes" => Item::Bytes(content),
            "map<string, bytes>" | "map<string, string>" => {
                let entry: BTreeMap<u64, Vec<u8>> =
                    raw_fields(&content).into_iter().map(|(number, _, content)| (number, content)).collect();
                let part = |number| entry.get(&number).cloned().unwrap_or_default();
                Item::Map([(String::from_utf8(part(1)).unwrap(), part(2))].into())
            }
            "google.protobuf.Struct" => Item::Struct(read_struct(&content)),
            other => Item::Message(decode(other, &content)),
        };
        fields.0.push((name, item));
    }
    fields
}

/// `google/protobuf/struct.proto`.
fn read_struct(bytes: &[u8]) -> Value {
    let mut members = Map::new();
    for (_, _, entry) in raw_fields(bytes) {
        let parts = raw_fields(&entry);
        let name = parts.iter().find(|part| part.0 == 1).map(|part| part.2.clone()).unwrap_or_default();
        let value = parts.iter().find(|part| part.0 == 2).map(|part| read_value(&part.2));
        members.insert(String::from_utf8(name).unwrap(), value.unwrap());
    }
    Value::Object(members)
}

fn read_value(bytes: &[u8]) -> Value {
    let [(number, _, content)] = &raw_fields(bytes)[..] else { panic!("a oneof has one field") };
    match number {
        1 => Value::Null,
        2 => json!(f64::from_le_bytes(content[..].try_into().unwrap())),
        3 => json!(String::from_utf8(content.clone()).unwrap()),
        4 => json!(content[0] != 0),
        5 => read_struct(content),
        6 => raw_fields(content).iter().map(|(_, _, value)| read_value(value)).collect(),
        other => panic!("field {other} of a value"),
    }
}

/// A message of texts and bytes, by number.
pub(crate) fn encode(fields: &[(u8, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, content) in fields {
        bytes.push(number << 3 | 2);
        let mut len = content.len();
        while len >= 0x80 {
            bytes.push(0x80 | u8::try_from(len & 0x7f).unwrap());
            len >>= 7;
        }
        bytes.push(u8::try_from(len).unwrap());
        bytes.extend(*content);
    }
    bytes
}
