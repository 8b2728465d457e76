//! Distinguished names, compared as RFC 5280 §7.1 demands.

use std::borrow::Cow;
use std::string::String;
use std::sync::OnceLock;
use std::vec::Vec;

use super::der::{
    Element, IA5_STRING, Malformed, OBJECT_IDENTIFIER, PRINTABLE_STRING, Reader, SEQUENCE, SET, UTF8_STRING,
};

/// A name with its canonical form, which is made when a comparison of the bytes does not decide.
///
/// Names of peers are compared before any signature is checked. The canonical form takes time in proportion
/// to the length of a name, for sets of attributes in any order as well, and is made once.
#[derive(Debug, Clone)]
pub(crate) struct Name<'a> {
    /// The content of the `Name`.
    content: Cow<'a, [u8]>,
    canonical: OnceLock<Option<Vec<u8>>>,
}

impl<'a> Name<'a> {
    /// A name, given as the content of its `Name`.
    pub(crate) fn new(content: impl Into<Cow<'a, [u8]>>) -> Name<'a> {
        Name { content: content.into(), canonical: OnceLock::new() }
    }

    /// Whether two names are equal. A name that cannot be read equals no other.
    pub(crate) fn same(&self, other: &Name<'_>) -> bool {
        self.content == other.content
            || matches!((self.canonical(), other.canonical()), (Some(one), Some(other)) if one == other)
    }

    fn canonical(&self) -> Option<&[u8]> {
        self.canonical.get_or_init(|| canonical(&self.content).ok()).as_deref()
    }
}

/// Of the bytes, as a bundle compares its certificates.
impl PartialEq for Name<'_> {
    fn eq(&self, other: &Name<'_>) -> bool {
        self.content == other.content
    }
}

impl Eq for Name<'_> {}

/// The canonical form of a name, given as the content of its `Name`. Equal names have equal forms, and a name
/// lies within the subtree of another (RFC 5280 §4.2.1.10, `directoryName`) if its form begins with that of
/// the other.
pub(crate) fn canonical(name: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut form = Vec::with_capacity(name.len() + name.len() / 2);
    let mut sets = Reader::new(name);
    // The attributes of one set, one after the other, and where each is.
    let (mut attributes, mut ranges) = (Vec::new(), Vec::new());
    while !sets.is_empty() {
        let mut set = Reader::new(sets.expect(SET)?);
        attributes.clear();
        ranges.clear();
        while !set.is_empty() {
            let begin = attributes.len();
            let (kind, value) = attribute_of(set.expect(SEQUENCE)?)?;
            put_len(&mut attributes, kind.len());
            attributes.extend_from_slice(kind);
            put_value(&mut attributes, value);
            ranges.push(begin..attributes.len());
        }
        // X.501 §9.4: two sets are equal if each attribute of one equals one of the other, in any order.
        ranges.sort_unstable_by(|one, other| attributes[one.clone()].cmp(&attributes[other.clone()]));
        // With their lengths, so that no two sets of attributes have one form.
        put_len(&mut form, ranges.len());
        for range in &ranges {
            put_len(&mut form, range.len());
            form.extend_from_slice(&attributes[range.clone()]);
        }
    }
    Ok(form)
}

fn put_len(form: &mut Vec<u8>, len: usize) {
    form.extend_from_slice(&(len as u64).to_be_bytes());
}

/// §7.1: `PrintableString` and `UTF8String` are compared without case and with spaces collapsed; §7.2 and
/// §7.3 say so of `IA5String`. Other types are compared by their bytes, which the section allows. Of the
/// string preparation of RFC 4518 the steps for case and spaces are applied; texts that differ in their
/// Unicode normalization are different names.
fn put_value(form: &mut Vec<u8>, value: Element<'_>) {
    let text = if matches!(value.tag, UTF8_STRING | PRINTABLE_STRING | IA5_STRING) {
        core::str::from_utf8(value.content).ok()
    } else {
        None
    };
    match text {
        Some(text) => {
            form.push(UTF8_STRING);
            put_folded(form, text);
        }
        // Bytes under the tag of a text are not UTF-8 here, so that they equal no text.
        None => {
            form.push(value.tag);
            form.extend_from_slice(value.content);
        }
    }
}

/// Lower case, no space at the ends, one space inside for each run of them.
fn put_folded(form: &mut Vec<u8>, text: &str) {
    for (position, word) in text.split_ascii_whitespace().enumerate() {
        if position > 0 {
            form.push(b' ');
        }
        if word.is_ascii() {
            form.extend(word.bytes().map(|byte| byte.to_ascii_lowercase()));
        } else {
            let lower: String = word.chars().flat_map(char::to_lowercase).collect();
            form.extend_from_slice(lower.as_bytes());
        }
    }
}

/// The values of an attribute of a name, which are texts.
#[cfg(feature = "rustls")]
pub(crate) fn attributes<'a>(name: &'a [u8], oid: &[u8]) -> impl Iterator<Item = &'a [u8]> {
    elements(name).flat_map(|set| elements(set.content)).filter_map(move |attribute| {
        let (kind, value) = attribute_of(attribute.content).ok()?;
        (kind == oid).then_some(value.content)
    })
}

#[cfg(feature = "rustls")]
fn elements(content: &[u8]) -> impl Iterator<Item = Element<'_>> {
    let mut reader = Reader::new(content);
    core::iter::from_fn(move || if reader.is_empty() { None } else { reader.element().ok() })
}

fn attribute_of(content: &[u8]) -> Result<(&[u8], Element<'_>), Malformed> {
    let mut attribute = Reader::new(content);
    Ok((attribute.expect(OBJECT_IDENTIFIER)?, attribute.element()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// DER of at most 127 bytes.
    fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
        [&[tag, u8::try_from(content.len()).unwrap()], content].concat()
    }

    fn attribute(kind: &[u8], tag: u8, value: &[u8]) -> Vec<u8> {
        tlv(SEQUENCE, &[tlv(OBJECT_IDENTIFIER, kind), tlv(tag, value)].concat())
    }

    fn cn(value: &str) -> Vec<u8> {
        attribute(&[0x55, 4, 3], UTF8_STRING, value.as_bytes())
    }

    fn set(attributes: &[Vec<u8>]) -> Vec<u8> {
        tlv(SET, &attributes.concat())
    }

    fn same(one: &[u8], other: &[u8]) -> bool {
        let same = Name::new(one).same(&Name::new(other));
        assert_eq!(Name::new(other).same(&Name::new(one)), same);
        same
    }

    #[test]
    fn equal_names_are_written_in_several_ways() {
        let name = [set(&[cn("Straße  9"), cn("b")]), set(&[cn("c")])].concat();
        for other in [
            [set(&[cn("b"), cn(" STRAßE 9 ")]), set(&[cn("C")])].concat(),
            [set(&[attribute(&[0x55, 4, 3], PRINTABLE_STRING, b"B"), cn("straße 9")]), set(&[cn("c")])]
                .concat(),
        ] {
            assert!(same(&name, &other), "{other:?}");
        }
    }

    /// Names of which no two are the same.
    #[test]
    fn different_names_have_different_forms() {
        let names = [
            Vec::new(),
            set(&[cn("")]),
            set(&[cn("a")]),
            set(&[cn("ab")]),
            set(&[cn("a b")]),
            set(&[cn("a"), cn("a")]),
            set(&[cn("a"), cn("b")]),
            set(&[cn("a"), cn("a"), cn("b")]),
            set(&[cn("a"), cn("b"), cn("b")]),
            [set(&[cn("a")]), set(&[cn("b")])].concat(),
            [set(&[cn("b")]), set(&[cn("a")])].concat(),
            set(&[attribute(&[0x55, 4, 10], UTF8_STRING, b"a")]),
            set(&[attribute(&[0x55, 4], UTF8_STRING, b"\x03a")]),
            set(&[attribute(&[0x55, 4, 3], 0x1e, b"a")]),
            set(&[attribute(&[0x55, 4, 3], UTF8_STRING, &[0xff])]),
            set(&[attribute(&[0x55, 4, 3], PRINTABLE_STRING, &[0xff])]),
        ];
        for (place, one) in names.iter().enumerate() {
            for (other_place, other) in names.iter().enumerate() {
                assert_eq!(same(one, other), place == other_place, "{one:?} and {other:?}");
            }
        }
    }

    #[test]
    fn a_form_begins_with_those_of_the_names_above() {
        let (one, two) = (set(&[cn("one")]), set(&[cn("two")]));
        let form = |sets: &[&Vec<u8>]| {
            canonical(&sets.iter().copied().flatten().copied().collect::<Vec<u8>>()).unwrap()
        };
        let below = form(&[&one, &two]);
        for (above, within) in [
            (form(&[]), true),
            (form(&[&set(&[cn("ONE")])]), true),
            (form(&[&one, &two]), true),
            (form(&[&two]), false),
            (form(&[&one, &two, &two]), false),
            (form(&[&set(&[cn("on")])]), false),
            (form(&[&set(&[cn("one"), cn("two")])]), false),
        ] {
            assert_eq!(below.starts_with(&above), within, "{above:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_equals_nothing_else() {
        for name in [&[SET][..], &[SET, 1], &[SEQUENCE, 0], &[SET, 2, SEQUENCE, 0], &[SET, 2, 5, 0]] {
            assert_eq!(canonical(name), Err(Malformed), "{name:?}");
            assert!(same(name, name));
            assert!(!same(name, &[]));
        }
    }
}
