//! A document as JSON, and JSON into a document.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

use serde_json::{Map, Number, Value};

use super::field::{Field, Kind, prefix};
use super::{Document, DocumentError, Scalar};
use crate::{CausalMap, Entry};

/// Why JSON was not merged. The document is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// The text is no JSON, or is nested too deep.
    #[error("the text is no JSON, or is nested too deep")]
    Parse(#[source] serde_json::Error),
    /// An array holds an array or an object.
    #[error(
        "an array holds an array or an object: lists are out of scope, use an object with a name for each"
    )]
    Array,
    /// A path or a value is refused.
    #[error("a path or a value of the JSON is refused")]
    Field(#[from] DocumentError),
}

/// What is shown at a path.
#[derive(Default)]
struct Node {
    register: Option<Value>,
    flag: bool,
    counter: Option<i64>,
    elements: Option<Vec<Value>>,
    fields: Option<Map<String, Value>>,
}

impl Node {
    fn into_value(self) -> Option<Value> {
        let fields = self.fields.map(Value::Object);
        let elements = || self.elements.map(Value::Array);
        let counter = || self.counter.map(Value::from);
        let flag = || self.flag.then_some(Value::Bool(true));
        fields.or_else(elements).or_else(counter).or_else(flag).or(self.register)
    }
}

fn value_of(scalar: Scalar) -> Value {
    match scalar {
        Scalar::Null => Value::Null,
        Scalar::Bool(value) => Value::Bool(value),
        Scalar::Integer(value) => value.into(),
        Scalar::Number(value) => Number::from_f64(value).map_or(Value::Null, Value::Number),
        Scalar::Text(text) => Value::String(text),
    }
}

fn scalar_of(value: &Value) -> Option<Scalar> {
    Some(match value {
        Value::Null => Scalar::Null,
        Value::Bool(value) => Scalar::Bool(*value),
        Value::Number(number) => {
            number.as_i64().map_or_else(|| Scalar::Number(number.as_f64().unwrap_or(0.0)), Scalar::Integer)
        }
        Value::String(text) => Scalar::Text(text.clone()),
        Value::Array(_) | Value::Object(_) => return None,
    })
}

impl Document {
    /// The document at and below a path as JSON: maps as objects, sets as arrays, counters as numbers,
    /// enabled flags as `true`. `None` if there is nothing. Names are in ascending order, so that equal
    /// documents are equal texts.
    #[must_use]
    pub fn to_json(&self, path: &str) -> Option<String> {
        let (root, _) = Field::new(path, Kind::Map).ok().map(|field| (field.names, ()))?;
        // The path from the root to the last key, with what was found below each name.
        let mut open: Vec<(String, Node)> = alloc::vec![(String::new(), Node::default())];
        for key in self.keys_under(path) {
            let Some((field, rest)) = Field::decode(key) else { continue };
            let names = field.names.get(root.len()..)?;
            let shared =
                open.iter().skip(1).zip(names).take_while(|((name, _), other)| name == *other).count();
            close(&mut open, shared + 1);
            for name in names.iter().skip(shared) {
                open.push((name.clone(), Node::default()));
            }
            let entry = self.map.get(key)?;
            let (_, node) = open.last_mut()?;
            match field.kind {
                Kind::Register => node.register = Scalar::decode(entry.latest().value).map(value_of),
                Kind::Counter => node.counter = Some(entry.sum()),
                Kind::Flag => node.flag = true,
                Kind::Set => node.elements.get_or_insert_default().extend(Scalar::decode(rest).map(value_of)),
                Kind::Map => drop(node.fields.get_or_insert_default()),
            }
        }
        close(&mut open, 1);
        let (_, root) = open.pop()?;
        Some(alloc::format!("{}", root.into_value()?))
    }

    /// Writes what is in a JSON text to the path and below it: objects as maps, arrays as sets, all else as
    /// registers. Where there is a counter, an integer is added to as much as it lacks (at most an `i64`: a
    /// sum that is farther away is not reached at once), and where there is a flag, `false` disables it. What
    /// [`to_json`](Self::to_json) shows already is not written, and nothing but flags is removed.
    ///
    /// # Errors
    /// A text that is no JSON or is no document. Nothing of it is written then.
    pub fn merge_json(&mut self, path: &str, time: u64, text: &str) -> Result<(), JsonError> {
        let value: Value = serde_json::from_str(text).map_err(JsonError::Parse)?;
        let Field { mut names, .. } = Field::new(path, Kind::Map)?;
        let mut writes = Vec::new();
        collect(&self.map, &mut names, &value, &mut writes)?;
        // On a copy of nothing but the keys: all of them are accepted before the first is written.
        let mut trial = Self::new(self.map.replica(), self.map.hash_key());
        for write in &writes {
            write.make(&mut trial.map, time)?;
        }
        for write in writes {
            write.make(&mut self.map, time)?;
        }
        Ok(())
    }
}

/// A change that a JSON value is merged by, with its key.
enum Write {
    Put(Vec<u8>, Vec<u8>),
    Add(Vec<u8>, i64),
    Remove(Vec<u8>),
}

impl Write {
    fn make(&self, map: &mut CausalMap, time: u64) -> Result<(), DocumentError> {
        match self {
            Self::Put(key, value) => drop(map.put(key, time, value)?),
            Self::Add(key, amount) => drop(map.add(key, time, *amount)?),
            Self::Remove(key) => drop(map.remove(key)),
        }
        Ok(())
    }
}

/// Moves the nodes beyond the first `depth` into those above them.
fn close(open: &mut Vec<(String, Node)>, depth: usize) {
    while open.len() > depth {
        let Some((name, node)) = open.pop() else { return };
        if let Some(((_, above), value)) = open.last_mut().zip(node.into_value()) {
            above.fields.get_or_insert_default().insert(name, value);
        }
    }
}

/// The changes that make a map show a JSON value.
fn collect(
    map: &CausalMap,
    names: &mut Vec<String>,
    value: &Value,
    writes: &mut Vec<Write>,
) -> Result<(), JsonError> {
    if names.len() > super::DEPTH_MAX {
        return Err(DocumentError::Depth { depth: names.len() }.into());
    }
    let key = |kind: Kind| [&prefix(names)[..], &[kind as u8]].concat();
    // An element of a set and a mark of a map have no value.
    let mut mark = |key: Vec<u8>| {
        if map.get(&key).is_none() {
            writes.push(Write::Put(key, Vec::new()));
        }
    };
    match value {
        Value::Object(fields) => {
            if fields.is_empty() {
                mark(key(Kind::Map));
            }
            for (name, value) in fields {
                names.push(name.clone());
                collect(map, names, value, writes)?;
                names.pop();
            }
        }
        Value::Array(elements) => {
            let set = key(Kind::Set);
            let mut seen = BTreeSet::new();
            for element in elements {
                // One that is not finite is shown so, too.
                let is_null = |entry: Entry<'_>| {
                    let rest = entry.key().get(set.len()..).unwrap_or_default();
                    Scalar::decode(rest).map(value_of) == Some(Value::Null)
                };
                if !element.is_null() || !map.prefix(&set).any(is_null) {
                    let element = scalar_of(element).ok_or(JsonError::Array)?.encode();
                    // An array may have an element twice.
                    if seen.insert(element.clone()) {
                        mark([&set[..], &element].concat());
                    }
                }
            }
        }
        scalar => writes.extend(write_of(map, scalar, key)),
    }
    Ok(())
}

/// The change that makes the fields of a path show a value, if one is needed. `key` makes the key of a kind.
fn write_of(map: &CausalMap, value: &Value, key: impl Fn(Kind) -> Vec<u8>) -> Option<Write> {
    let (counter, flag) = (key(Kind::Counter), key(Kind::Flag));
    if let (Some(sum), Some(wanted)) = (map.get(&counter).map(|entry| entry.sum()), value.as_i64()) {
        let lacking = wanted.saturating_sub(sum);
        return (lacking != 0).then_some(Write::Add(counter, lacking));
    }
    if let (Some(_), Some(wanted)) = (map.get(&flag), value.as_bool()) {
        return (!wanted).then_some(Write::Remove(flag));
    }
    let (register, scalar) = (key(Kind::Register), scalar_of(value)?.encode());
    let is_shown = map.get(&register).is_some_and(|entry| {
        let held = entry.latest().value;
        // A number that JSON cannot show is shown as another value.
        held == scalar || Scalar::decode(held).map(value_of).as_ref() == Some(value)
    });
    (!is_shown).then_some(Write::Put(register, scalar))
}
