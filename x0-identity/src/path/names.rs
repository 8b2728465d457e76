//! Distinguished names, compared as RFC 5280 §7.1 demands.

use crate::x509::der::{
    Element, IA5_STRING, OBJECT_IDENTIFIER, PRINTABLE_STRING, Reader, SEQUENCE, SET, UTF8_STRING,
};

/// The most attributes of a relative distinguished name that are compared in any order.
const ATTRIBUTES_MAX: usize = 16;

/// Whether two names, given as the content of their `Name`, are equal.
pub(super) fn same_name(one: &[u8], other: &[u8]) -> bool {
    one == other || (begins_with(one, other) && count(one) == count(other))
}

/// Whether a name lies within the subtree of another (RFC 5280 §4.2.1.10, `directoryName`).
pub(super) fn begins_with(name: &[u8], base: &[u8]) -> bool {
    let (mut name, mut base) = (Reader::new(name), Reader::new(base));
    while !base.is_empty() {
        let (Ok(one), Ok(other)) = (name.element(), base.element()) else { return false };
        if one.whole != other.whole && !same_set(one.content, other.content) {
            return false;
        }
    }
    true
}

/// The values of an attribute of a name, which are texts.
pub(super) fn attributes<'a>(name: &'a [u8], oid: &[u8]) -> impl Iterator<Item = &'a [u8]> {
    elements(name).flat_map(|set| elements(set.content)).filter_map(move |attribute| {
        let (kind, value) = attribute_of(attribute.content)?;
        (kind == oid).then_some(value.content)
    })
}

pub(super) const EMAIL_ADDRESS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1];

fn elements(content: &[u8]) -> impl Iterator<Item = Element<'_>> {
    let mut reader = Reader::new(content);
    core::iter::from_fn(move || if reader.is_empty() { None } else { reader.element().ok() })
}

fn count(name: &[u8]) -> usize {
    elements(name).filter(|set| set.tag == SET).count()
}

fn attribute_of(content: &[u8]) -> Option<(&[u8], Element<'_>)> {
    let mut attribute = Reader::new(content);
    Some((attribute.expect(OBJECT_IDENTIFIER).ok()?, attribute.element().ok()?))
}

/// Two sets of attributes are equal if each attribute of one equals one of the other (X.501 §9.4).
fn same_set(one: &[u8], other: &[u8]) -> bool {
    let len = elements(one).count();
    if len != elements(other).count() || len > ATTRIBUTES_MAX {
        return false;
    }
    let within = |inner: &[u8], outer: &[u8]| {
        elements(inner).all(|attribute| elements(outer).any(|other| same_attribute(attribute, other)))
    };
    within(one, other) && (len == 1 || within(other, one))
}

fn same_attribute(one: Element<'_>, other: Element<'_>) -> bool {
    if one.whole == other.whole {
        return true;
    }
    if one.tag != SEQUENCE || other.tag != SEQUENCE {
        return false;
    }
    let (Some((one_kind, one)), Some((other_kind, other))) =
        (attribute_of(one.content), attribute_of(other.content))
    else {
        return false;
    };
    one_kind == other_kind && same_value(one, other)
}

/// §7.1: `PrintableString` and `UTF8String` are compared without case and with spaces collapsed; §7.2 and
/// §7.3 say so of `IA5String`. Other types are compared by their bytes, which the section allows. Of the
/// string preparation of RFC 4518 the steps for case and spaces are applied; texts that differ in their
/// Unicode normalization are different names.
fn same_value(one: Element<'_>, other: Element<'_>) -> bool {
    // `Iterator::eq` stops at the first difference and allocates nothing.
    match (value_text(one), value_text(other)) {
        (Some(one), Some(other)) => folded(one).eq(folded(other)),
        _ => one.tag == other.tag && one.content == other.content,
    }
}

fn value_text(value: Element<'_>) -> Option<&str> {
    if matches!(value.tag, UTF8_STRING | PRINTABLE_STRING | IA5_STRING) {
        core::str::from_utf8(value.content).ok()
    } else {
        None
    }
}

/// Lower case, no space at the ends, one space inside for each run of them.
fn folded(text: &str) -> impl Iterator<Item = char> {
    text.split_ascii_whitespace().enumerate().flat_map(|(position, word)| {
        let space = (position > 0).then_some(' ');
        space.into_iter().chain(word.chars().flat_map(char::to_lowercase))
    })
}
