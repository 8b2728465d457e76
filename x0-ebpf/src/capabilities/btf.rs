//! The names of the kernel's BPF enumerations, read from its type information (Documentation/bpf/btf.rst).

use std::collections::BTreeSet;

const MAGIC: u16 = 0xeb9f;
const HEADER_LEN_MIN: usize = 24;
/// The enumerations of types of programs, maps and attachments.
const ENUMERATIONS: [&[u8]; 3] = [b"bpf_prog_type", b"bpf_map_type", b"bpf_attach_type"];
/// The kernel has some 140 such names.
const NAMES_MAX: usize = 4096;
const NAME_LEN_MAX: usize = 64;

/// The names of the members of those enumerations. None if the bytes are not type information.
pub(super) fn bpf_types(bytes: &[u8]) -> Option<BTreeSet<String>> {
    let header = bytes.get(..HEADER_LEN_MIN)?;
    if u16::from_ne_bytes(*header.first_chunk()?) != MAGIC {
        return None; // Of the other byte order, or something else.
    }
    let header_len = word(header, 4)?;
    let section = |at: usize| -> Option<&[u8]> {
        let start = header_len.checked_add(word(header, at)?)?;
        bytes.get(start..start.checked_add(word(header, at + 4)?)?)
    };
    let (mut types, strings) = (section(8)?, section(16)?);
    let mut names = BTreeSet::new();
    while !types.is_empty() {
        let (name, info) = (word(types, 0)?, word(types, 4)?);
        let (kind, members) = (info >> 24 & 0x1f, info & 0xffff);
        let member_len = member_len(kind)?;
        let body = types.get(12..)?;
        let len = if has_members(kind) { member_len * members } else { member_len };
        let (body, rest) = body.split_at_checked(len)?;
        if is_enumeration(kind) && string(strings, name).is_some_and(|name| ENUMERATIONS.contains(&name)) {
            for member in body.chunks_exact(member_len) {
                let name = std::str::from_utf8(string(strings, word(member, 0)?)?).ok()?;
                if names.len() < NAMES_MAX && name.len() <= NAME_LEN_MAX {
                    names.insert(name.to_owned());
                }
            }
        }
        types = rest;
    }
    Some(names)
}

/// The length of the data after the 12 bytes that every type has, per member if there are members. None for a
/// kind of a newer format, after which parsing must end.
const fn member_len(kind: usize) -> Option<usize> {
    match kind {
        2 | 7..=12 | 16 | 18 => Some(0), // PTR, FWD to FUNC, FLOAT, TYPE_TAG
        1 | 14 | 17 => Some(4),          // INT, VAR, DECL_TAG
        6 | 13 => Some(8),               // ENUM, FUNC_PROTO
        3 | 4 | 5 | 15 | 19 => Some(12), // ARRAY, STRUCT, UNION, DATASEC, ENUM64
        _ => None,
    }
}

const fn has_members(kind: usize) -> bool {
    matches!(kind, 4 | 5 | 6 | 13 | 15 | 19)
}

const fn is_enumeration(kind: usize) -> bool {
    matches!(kind, 6 | 19)
}

fn string(strings: &[u8], at: usize) -> Option<&[u8]> {
    strings.get(at..)?.split(|byte| *byte == 0).next()
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    let word = bytes.get(at..)?.first_chunk()?;
    usize::try_from(u32::from_ne_bytes(*word)).ok()
}
